"""Rules of the `trial` section and `resources`."""

import itertools
import re
from collections.abc import Sequence

from sweeper.batch import AUTO
from sweeper.config.draft import Draft
from sweeper.config.messages import show
from sweeper.config.rules_dimension import check_function_batch
from sweeper.config.rules_eval_sets import check_eval_sets
from sweeper.config.trial_models import BUDGET_KINDS, TrialSection
from sweeper.config.values import OBJECT_PATTERN

_BUILT_IN_ONLY = (
    "model",
    "revision",
    "chat_template",
    "train_data",
    "data_sets",
    "phases",
    "eval_data",
    "metrics",
)


def check_trial(draft: Draft) -> None:
    """Check everything of the `trial` section that needs more than one value."""
    trial = draft.config.trial
    if draft.knows("trial.function"):
        if trial.function is None:
            _check_built_in(draft, trial)
        else:
            _check_function(draft, trial, trial.function)
    _check_budget(draft)
    _check_marks(draft)
    _check_resources(draft)


def _check_built_in(draft: Draft, trial: TrialSection) -> None:
    if trial.function_dir is not None and draft.knows("trial.function_dir"):
        draft.tell(
            "`trial.function_dir` says where the module of `trial.function` lies, but there is no "
            "`trial.function`. Remove it, or name the function.",
            *("trial", "function_dir"),
        )
    if not draft.knows("trial") and "trial" not in draft.document.data:
        return  # told once as a missing section
    _check_swept_model(draft, trial)
    if trial.model is None and "model" not in draft.config.search_space and draft.knows("trial.model"):
        draft.tell(
            "`trial.model` is missing. Name a local directory or a model of the hub, or set "
            "`trial.function` to sweep over your own code.",
            "trial",
        )
    if not trial.sources and draft.knows("trial.train_data", "trial.data_sets"):
        draft.tell(
            "`trial.train_data` is missing. Name a JSONL or Parquet file or a data set of the hub.", "trial"
        )
    if not trial.eval_data and draft.knows("trial.eval_data", "metric") and draft.config.metric != "loss":
        draft.tell(
            "`trial.eval_data` is missing, so nothing can be compared in the end. Name at least one eval "
            "set, for example `eval_data: {dev: dev.jsonl}`.",
            "trial",
        )
    check_eval_sets(draft)


def _check_swept_model(draft: Draft, trial: TrialSection) -> None:
    """Check that a model is either the trial's or a dimension, and what a dimension of models excludes."""
    if trial.settings.get("model") is not None and draft.knows("trial.settings.model"):
        draft.tell(
            "`model` is no setting: write `trial.model`, or `search_space.model` to compare several.",
            *("trial", "settings", "model"),
        )
    if "model" not in draft.config.search_space or not draft.knows("search_space.model"):
        return
    for key in ("model", "revision"):
        if getattr(trial, key) is not None and draft.knows(f"trial.{key}"):
            remedy = " Write `id@revision` in the search space." if key == "revision" else ""
            draft.tell(
                f"`trial.{key}` is fixed, but `model` varies in `search_space`. Remove one of the two.{remedy}",
                *("trial", key),
            )
    if trial.budget.tokens is not None or "tokens" in draft.config.search_space:
        draft.tell(
            "A budget in tokens gives models with different tokenizers different amounts of data. Give it in samples "
            "or epochs.",
            *("search_space", "model"),
        )


def _check_function(draft: Draft, trial: TrialSection, function: str) -> None:
    if not re.fullmatch(OBJECT_PATTERN, function):
        draft.tell(
            f"`trial.function` must have the form `module:function`, but got {show(function)}. Write for "
            "example `my_training:train`.",
            *("trial", "function"),
        )
    for key in _BUILT_IN_ONLY:
        if getattr(trial, key) and draft.knows(f"trial.{key}"):
            draft.tell(
                f"`trial.{key}` belongs to the built-in fine-tuning, but `trial.function` is set. Remove "
                "one of the two; values for your function go into `trial.settings`.",
                *("trial", key),
            )
    for kind in ("tokens", "epochs"):
        place = ("search_space", kind) if kind in draft.config.search_space else ("trial", "budget", kind)
        if kind in draft.config.search_space or getattr(trial.budget, kind) is not None:
            draft.tell(
                f"A budget in {kind} needs data that can be counted, but `trial.function` reads its own. "
                "Give the budget in samples or steps.",
                *place,
            )
    check_function_batch(draft)


def _check_budget(draft: Draft) -> None:
    if not draft.knows("trial.budget", "trial.function") or "trial" not in draft.document.data:
        return
    kinds = list(draft.config.trial.budget.kinds)
    swept = [kind for kind in BUDGET_KINDS if kind in draft.config.search_space]
    if not kinds and not swept and draft.knows("search_space"):
        draft.tell(
            "`trial.budget` is missing. Say how long a point trains, for example `budget: {samples: 8192}`.",
            "trial",
        )
    elif len(kinds) + len(swept) > 1:
        places = [f"`trial.budget.{kind}`" for kind in kinds] + [f"`search_space.{kind}`" for kind in swept]
        draft.tell(
            f"The budget is given {len(places)} times: {', '.join(places)}. Keep one.", "trial", "budget"
        )
    if draft.config.trial.compare == "equal" and draft.knows("trial.compare"):
        _check_equal_data(draft, kinds, swept)


def _check_equal_data(draft: Draft, kinds: list[str], swept: list[str]) -> None:
    remedy = "Write `compare: unequal` in `trial` if that is what you want to see"
    if swept:
        draft.tell(
            f"`{swept[0]}` in the search space gives points different amounts of data. {remedy}, or fix the "
            "budget.",
            *("search_space", swept[0]),
        )
    if "steps" in kinds and "effective_batch_size" in draft.config.search_space:
        draft.tell(
            "A budget in steps gives points with different `effective_batch_size` different amounts of "
            f"data. {remedy}, or give the budget in samples.",
            *("trial", "budget", "steps"),
        )
    if (
        draft.config.rungs.steps
        and draft.knows("rungs")
        and "effective_batch_size" in draft.config.search_space
    ):
        draft.tell(
            "Rungs in steps compare points with different `effective_batch_size` after different amounts "
            f"of data. {remedy}, or give the rungs in samples.",
            *("rungs", "steps"),
        )


def _check_marks(draft: Draft) -> None:
    trial = draft.config.trial
    budget = trial.budget.samples if draft.knows("trial.budget") else None
    if isinstance(trial.evaluation.at, list) and draft.knows("trial.evaluation.at"):
        check_increasing(draft, trial.evaluation.at, "trial", "evaluation", "at", below=budget)
    if draft.knows("trial.checkpoint.at"):
        check_increasing(draft, trial.checkpoint.at, "trial", "checkpoint", "at", below=budget)


def check_increasing(
    draft: Draft, marks: Sequence[float], *path: str, below: int | None, unit: str = "samples"
) -> None:
    """Tell where marks do not grow, or reach the budget's end."""
    name = ".".join(path)
    for index, (before, mark) in enumerate(itertools.pairwise(marks), start=1):
        if mark <= before:
            draft.tell(
                f"`{name}` must grow from value to value, but {mark} comes after {before}. Sort the values "
                "and remove repeated ones.",
                *path,
                index,
            )
    if below is not None and marks and max(marks) >= below:
        draft.tell(
            f"`{name}` must stay below the budget of {below} {unit}, but got {max(marks)}. Remove the "
            "value; the end itself needs no mark.",
            *path,
            list(marks).index(max(marks)),
        )


def _check_resources(draft: Draft) -> None:
    if not draft.knows("resources"):
        return
    resources = draft.config.resources
    gpus, workers = resources.gpus_per_trial, resources.workers_per_trial
    if gpus is not None and gpus > 1 and gpus != int(gpus):
        draft.tell(
            f"`resources.gpus_per_trial` above 1 must be a whole number, but got {gpus:g}. Set it to "
            f"{int(gpus)} or {int(gpus) + 1}, or to at most 1 to let trials share a GPU.",
            *("resources", "gpus_per_trial"),
        )
    elif gpus and workers is not None and workers != max(1, gpus):
        draft.tell(
            f"`resources.workers_per_trial` = {workers} and `gpus_per_trial` = {gpus:g} do not go together: every "
            "worker trains on a GPU of its own, or all on CPUs. Leave out `workers_per_trial`, or set "
            "`gpus_per_trial: 0`.",
            *("resources", "workers_per_trial"),
        )
    else:
        _check_workers(draft)


def _check_workers(draft: Draft) -> None:
    """Check what a trial of several workers needs, and what only such a trial can have."""
    resources, trial = draft.config.resources, draft.config.trial
    n_workers = resources.n_workers
    for name, count in (("cpus", resources.cpus_per_trial), ("threads", resources.threads_per_trial)):
        if count is not None and count % n_workers:
            draft.tell(
                f"`resources.{name}_per_trial` must be a multiple of the {n_workers} workers of a trial, but got "
                f"{count}. Set it to {(count // n_workers + 1) * n_workers}.",
                *("resources", f"{name}_per_trial"),
            )
    for name in ("sharding", "placement"):
        value = getattr(resources, name)
        if value is not None and n_workers == 1:
            draft.tell(
                f"`resources.{name}: {value}` is for trials of several workers, but a trial has one. Remove it, or "
                "set `gpus_per_trial` or `workers_per_trial` to more than 1.",
                *("resources", name),
            )
    if n_workers == 1 or not draft.knows("trial"):
        return
    if trial.phases is not None:
        draft.tell(
            f"`trial.phases` are trained by one worker, but a trial has {n_workers}. Train in one part, or set "
            "`gpus_per_trial` and `workers_per_trial` to at most 1.",
            *("trial", "phases"),
        )
    if _takes(draft, "micro_batch_size", AUTO):
        draft.tell(
            f"`micro_batch_size: auto` is found by one worker, but a trial has {n_workers}. Write the number of "
            "sequences of a pass and worker.",
            *draft.place_of("micro_batch_size"),
        )
    if resources.sharding is not None:
        _check_sharding(draft)


def _check_sharding(draft: Draft) -> None:
    trial = draft.config.trial
    if trial.function is not None:
        draft.tell(
            "`resources.sharding` belongs to the built-in fine-tuning, but `trial.function` is set. Remove it and "
            "shard the model in your function.",
            *("resources", "sharding"),
        )
    if _takes(draft, "precision", "fp16"):
        draft.tell(
            "`resources.sharding: fsdp2` does not go together with `precision: fp16`, whose loss scaling is not "
            "shared between the workers. Use bf16 or fp32.",
            *("resources", "sharding"),
        )
    if _takes(draft, "method", "qlora"):
        draft.tell(
            "`resources.sharding: fsdp2` does not go together with `method: qlora`, whose 4-bit weights it cannot "
            "share out. Use lora, or leave out `sharding`.",
            *("resources", "sharding"),
        )
    benchmarks = draft.config.benchmarks
    if benchmarks is not None and benchmarks.when == "completed":
        draft.tell(
            "`benchmarks.when: completed` needs the whole model in one worker, but `resources.sharding` shares it out. "
            "Measure the trained models afterwards, with `when: finalists` or `asked`.",
            *("benchmarks", "when"),
        )


def _takes(draft: Draft, name: str, value: str) -> bool:
    """Whether a setting of the built-in trial is fixed to a value or may become it."""
    return any(one == value for _, one in draft.values(name))
