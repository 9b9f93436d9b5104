"""Rules of `pruner`, `rungs` and `sampler`: who judges, where, and who proposes."""

import re

from sweeper.config.draft import Draft
from sweeper.config.messages import did_you_mean, join, unknown_name
from sweeper.config.names import EARLY_DYNAMICS, OPTUNA_PRUNERS
from sweeper.config.pruner_models import (
    PRUNER_KEYS_FOREIGN,
    PRUNER_KEYS_LEARNED,
    PRUNER_KEYS_OWN,
    PRUNER_KEYS_RANK,
    PrunerSection,
)
from sweeper.config.rules_metric import known_values
from sweeper.config.rules_options import check_pruner_options, check_sampler_options
from sweeper.config.rules_trial import check_increasing
from sweeper.config.values import OBJECT_PATTERN
from sweeper.optimizer import is_norm_limit
from sweeper.records import GRAD_NORM, LOSS


def check_pruner(draft: Draft) -> None:
    """Check the pruner's name, its options, and the values that it judges."""
    pruner = draft.config.pruner
    if not draft.knows("pruner.name"):
        return
    is_class = re.fullmatch(OBJECT_PATTERN, pruner.name) is not None
    names = [EARLY_DYNAMICS, *OPTUNA_PRUNERS]
    if not is_class and pruner.name not in names:
        message = unknown_name(pruner.name, names, what="pruner")
        remedy = "" if "Did you mean" in message else " Or name a class as `module:Class`."
        draft.tell(message + remedy, "pruner", "name")
        return
    _check_foreign_keys(draft, pruner)
    if pruner.name == EARLY_DYNAMICS and draft.knows("pruner.directions", "pruner.signals"):
        _check_directions(draft, pruner)
    _check_signals(draft, pruner)
    if pruner.name in OPTUNA_PRUNERS and draft.knows("pruner.options"):
        check_pruner_options(draft, pruner.name, pruner.options, ("pruner", "options"))
    if pruner.name != "nop" and draft.knows("pruner", "trial.evaluation.at", "metric"):
        _check_has_values(draft, pruner)


def check_divergence(draft: Draft) -> None:
    """Check that trials whose clipped steps are counted clip their gradients."""
    if not draft.config.divergence.clipped_steps or not draft.knows_setting("max_grad_norm"):
        return
    if not draft.knows("divergence", "trial.function"):
        return
    config = draft.config
    if config.trial.function is not None:
        fixed = config.trial.settings.get("max_grad_norm")
        clips = is_norm_limit(fixed) or "max_grad_norm" in config.search_space
        told = "`trial.function` does not say where it clips gradients. Give `max_grad_norm`, a number above 0, in "
        told += "`trial.settings`"
    else:
        clips = any(value is not None for _, value in draft.values("max_grad_norm"))
        told = "no point clips gradients: `max_grad_norm` is null. Give it a number"
    if not clips:
        draft.tell(
            f"`divergence.clipped_steps` counts steps whose gradient norm is above `max_grad_norm`, but {told}, or "
            "remove `clipped_steps`.",
            *("divergence", "clipped_steps"),
        )


def check_sampler(draft: Draft) -> None:
    """Check what the sampler needs: how many trials, which dimensions, which options."""
    sampler = draft.config.sampler
    if not draft.knows("sampler.name", "sampler.n_trials"):
        return
    if sampler.name == "grid":
        if sampler.n_trials is not None:
            draft.tell(
                "`sampler.n_trials` is for samplers that draw; the `grid` sampler takes every point. Remove "
                "it, or choose for example `name: tpe`.",
                *("sampler", "n_trials"),
            )
        for option in sampler.options:
            draft.tell(
                f"The `grid` sampler has no option `{option}`. Remove it.", "sampler", "options", option
            )
        return
    if sampler.n_trials is None:
        draft.tell(
            f"`sampler.n_trials` is missing: the `{sampler.name}` sampler draws that many points. Add for "
            "example `n_trials: 40`.",
            "sampler",
        )
    _check_drawn_space(draft, sampler.name)
    if draft.knows("sampler.options"):
        check_sampler_options(draft)


def check_rungs(draft: Draft) -> None:
    """Check that the rungs are given in one form, grow, and lie below the budget."""
    rungs = draft.config.rungs
    if not draft.knows("rungs"):
        return
    forms = [form for form in ("fractions", "samples", "steps") if getattr(rungs, form) is not None]
    if rungs.first is not None or rungs.reduction_factor is not None:
        forms.append("first")
        missing = "reduction_factor" if rungs.reduction_factor is None else "first"
        if getattr(rungs, missing) is None:
            draft.tell(
                f"`rungs.{missing}` is missing: `first` and `reduction_factor` go together. Add it.", "rungs"
            )
    if len(forms) > 1:
        draft.tell(f"`rungs` must be given in one form, but got {join(forms)}. Keep one of them.", "rungs")
        return
    budget = draft.config.trial.budget if draft.knows("trial.budget") else None
    check_increasing(draft, rungs.fractions or [], "rungs", "fractions", below=None)
    check_increasing(draft, rungs.samples or [], "rungs", "samples", below=budget.samples if budget else None)
    check_increasing(
        draft, rungs.steps or [], "rungs", "steps", below=budget.steps if budget else None, unit="steps"
    )
    if (
        rungs.first is not None
        and budget is not None
        and budget.samples is not None
        and rungs.first >= budget.samples
    ):
        draft.tell(
            f"`rungs.first` must lie below the budget of {budget.samples} samples, but got {rungs.first}. "
            "Choose a smaller value.",
            *("rungs", "first"),
        )


def _check_foreign_keys(draft: Draft, pruner: PrunerSection) -> None:
    """Options of our pruner mean nothing to another one, and the other way round."""
    is_ours = pruner.name == EARLY_DYNAMICS
    for key in PRUNER_KEYS_FOREIGN if is_ours else PRUNER_KEYS_OWN:
        if key not in pruner.model_fields_set:
            continue
        owner = "Optuna's pruners and `module:Class`" if is_ours else f"`{EARLY_DYNAMICS}`"
        remedy = (
            f"Remove it, or use {join(PRUNER_KEYS_OWN)}."
            if is_ours
            else "Remove it, or pass `pruner.options`."
        )
        draft.tell(f"`pruner.{key}` belongs to {owner}, not to `{pruner.name}`. {remedy}", "pruner", key)


def _check_directions(draft: Draft, pruner: PrunerSection) -> None:
    """Options of the rank mean nothing where trials are judged by prediction, and the other way round."""
    if pruner.signals is not None and pruner.directions is not None:
        draft.tell(
            f"`pruner.signals` says which way each signal is good, and so does `directions: {pruner.directions}`. "
            "Keep one of them.",
            *("pruner", "directions"),
        )
        return
    is_learned = pruner.directions == "learned"
    if pruner.max_gpu_hours is not None and not is_learned and pruner.mode != "probe":
        draft.tell(
            "`pruner.max_gpu_hours` says how many points may go on after the first rung, which only `mode: probe` "
            f"knows before it lets any go on; the mode is `{pruner.mode}`. Write `mode: probe`, or remove it.",
            *("pruner", "max_gpu_hours"),
        )
    for key in PRUNER_KEYS_RANK if is_learned else PRUNER_KEYS_LEARNED:
        if key in pruner.model_fields_set:
            owner = "the rank" if is_learned else "`directions: learned`"
            told = (
                "trials are judged by prediction here"
                if is_learned
                else "trials are judged by rank here, since an option of the rank or `directions: paper` is given"
            )
            draft.tell(f"`pruner.{key}` belongs to {owner}, but {told}. Remove one of them.", "pruner", key)


def _check_signals(draft: Draft, pruner: PrunerSection) -> None:
    if not draft.knows("pruner.signal", "pruner.signals", "pruner.direction"):
        return
    if pruner.signal is not None and pruner.direction is None and pruner.name != EARLY_DYNAMICS:
        draft.tell(
            f"`pruner.direction` is missing: say whether a good `{pruner.signal}` is low (`minimize`) or "
            "high (`maximize`).",
            *("pruner", "signal"),
        )
    if pruner.direction is not None and pruner.signal is None and pruner.name != EARLY_DYNAMICS:
        draft.tell(
            "`pruner.direction` is the direction of `pruner.signal`, which is not set. Remove it, or add "
            "`signal`.",
            *("pruner", "direction"),
        )
    if pruner.signals is not None and not pruner.signals:
        draft.tell(
            "`pruner.signals` must name at least one signal, but it is empty. Remove it.", "pruner", "signals"
        )
    if draft.config.trial.function is not None or not draft.knows(
        "trial.eval_data", "trial.metrics", "metric"
    ):
        return
    known = [LOSS, GRAD_NORM, *known_values(draft)]
    for path, name in _judged_signals(pruner):
        if name not in known:
            near = did_you_mean(name, known)
            remedy = f"Did you mean `{near}`?" if near else f"Choose one of {join(known)}."
            draft.tell(f"`{'.'.join(path[:2])}` names `{name}`, which no trial reports. {remedy}", *path)


def _judged_signals(pruner: PrunerSection) -> list[tuple[tuple[str, ...], str]]:
    """Return the signals that the section names, each with its place."""
    named: list[tuple[tuple[str, ...], str]] = [
        (("pruner", "signals", name), name) for name in pruner.signals or {}
    ]
    return named if pruner.signal is None else [*named, (("pruner", "signal"), pruner.signal)]


def _check_has_values(draft: Draft, pruner: PrunerSection) -> None:
    """A pruner that judges an evaluated value needs one at every rung."""
    if draft.config.trial.function is not None or draft.config.trial.evaluation.at != "end":
        return
    judged_names = [name for _, name in _judged_signals(pruner)]
    if pruner.name != EARLY_DYNAMICS and pruner.signal is None:
        judged_names = [draft.config.metric]
    judged = next((name for name in judged_names if name not in (LOSS, GRAD_NORM)), None)
    if judged is not None:
        draft.tell(
            f"The pruner `{pruner.name}` judges `{judged}` at the rungs, but `trial.evaluation.at` is "
            "`end`. Set it to `rungs`, or let the pruner judge `signal: loss` with `direction: minimize`.",
            *("trial", "evaluation", "at"),
        )


def _check_drawn_space(draft: Draft, sampler: str) -> None:
    if not draft.knows("search_space"):
        return
    space = draft.config.search_space
    if not space:
        draft.tell(
            f"The `{sampler}` sampler has nothing to draw: `search_space` is empty. Add a dimension.",
            "sampler",
        )
    elif sampler == "cmaes" and all(dimension.listed is not None for dimension in space.values()):
        draft.tell(
            "The `cmaes` sampler needs numbers to move along, but every dimension is a list of values. Use "
            "`uniform`, `log_uniform` or `int` for one of them, or choose `name: tpe`.",
            *("sampler", "name"),
        )
