"""Rules of `data_sets`, their weights, and the phases that points may train in."""

import math
import re
from collections import Counter

from sweeper.batch import AUTO, plan_batch
from sweeper.config.document import KeyPath
from sweeper.config.draft import Draft
from sweeper.config.messages import did_you_mean, join, show
from sweeper.config.rules_metric import is_known_at_the_end
from sweeper.config.space_values import possible_values
from sweeper.config.trial_models import Phase
from sweeper.config.values import NAME_PATTERN
from sweeper.errors import ConfigError
from sweeper.optimizer import WARMUP_FORMS
from sweeper.phases import OF_PHASES, PHASED
from sweeper.records import LOSS

_STRATEGY, _WEIGHTS = "data_strategy", "data_weights"
_CHANGES_TOKENS = ("max_length", "loss_on", _STRATEGY, _WEIGHTS, "replay_frac")  # of a sample, on average
_OF_LATER_PHASES = ("replay_frac", "start", "optimizer_state")


def check_data_strategy(draft: Draft) -> None:
    """Check the data sets, their weights and the phases together."""
    if draft.settings is None or not draft.knows("trial.function", "trial.train_data", "trial.data_sets"):
        return
    trial = draft.config.trial
    if trial.train_data is not None and trial.data_sets is not None:
        draft.tell(
            "`trial.train_data` and `trial.data_sets` both name what is trained on. Keep one: `data_sets` gives "
            "each data set a name, for weights and phases.",
            *("trial", "data_sets"),
        )
        return
    for name in trial.data_sets or ():
        if not re.fullmatch(NAME_PATTERN, name):
            draft.tell(
                f"`{name}` is no valid name of a data set. Use letters, digits, `_`, `.` and `-`.",
                *("trial", "data_sets", name),
            )
    _check_weights(draft)
    _check_tokens(draft)
    if draft.knows("trial.phases") and draft.knows_setting(_STRATEGY):
        _check_strategy(draft)


def _check_weights(draft: Draft) -> None:
    sets = draft.config.trial.data_sets
    for path, weights in draft.values(_WEIGHTS):
        if not isinstance(weights, dict):
            continue  # None, or told by the dimension's own rule
        if sets is None:
            draft.tell(
                f"`{_WEIGHTS}` weighs data sets by name, but `trial.data_sets` is missing. Name them there.",
                *path,
            )
            return
        unknown = [name for name in weights if name not in sets]
        missing = [name for name in sets if name not in weights]
        if unknown:
            draft.tell(f"`{_WEIGHTS}` names `{unknown[0]}`, {_no_data_set(unknown[0], list(sets))}", *path)
        elif missing:
            draft.tell(
                f"`{_WEIGHTS}` gives no weight to {join(missing)}. Give one to each of {join(sets)}; 0 leaves a data "
                "set out.",
                *path,
            )
        elif not any(weights.values()):
            draft.tell(f"`{_WEIGHTS}` are all 0, so nothing is left to train on. Raise one.", *path)


def _check_tokens(draft: Draft) -> None:
    """Check that a budget in tokens is the same number of samples for all points."""
    if not draft.knows("trial.budget", "search_space"):
        return
    if draft.config.trial.budget.tokens is None and "tokens" not in draft.config.search_space:
        return
    for name in _CHANGES_TOKENS:
        if name in draft.config.search_space:
            draft.tell(
                f"A budget in tokens needs to know the target tokens of a sample, which `{name}` in the search space "
                f"changes from point to point. Fix `{name}`, or give the budget in samples or epochs.",
                *("search_space", name),
            )


def _check_strategy(draft: Draft) -> None:
    trial = draft.config.trial
    is_phased = any(value == PHASED for _, value in draft.values(_STRATEGY))
    if is_phased and (trial.phases is None or trial.data_sets is None):
        missing = "trial.data_sets" if trial.data_sets is None else "trial.phases"
        draft.tell(
            f"`{_STRATEGY}` is `{PHASED}`, but `{missing}` is missing. Name the data sets in `data_sets`, and in "
            "`phases` write a list such as `[{name: first, data: a}, {name: second, data: b}]`.",
            *draft.place_of(_STRATEGY),
        )
    elif not is_phased and trial.phases is not None:
        draft.tell(
            f"`trial.phases` is there, but no point trains in phases. Write `{_STRATEGY}: {PHASED}` in "
            "`trial.settings`, or sweep it.",
            *("trial", "phases"),
        )
    elif is_phased and trial.phases is not None:
        _check_phases(draft, trial.phases)
    if not is_phased:
        for name in OF_PHASES:
            given = _given_paths(draft, name)
            if given:
                draft.tell(
                    f"`{name}` is for points that train in phases, and none does. Remove it, or write "
                    f"`{_STRATEGY}: {PHASED}`.",
                    *given[0],
                )


def _check_phases(draft: Draft, phases: list[Phase]) -> None:
    sets = list(draft.config.trial.data_sets or ())
    twice = [name for name, n in Counter(phase.name for phase in phases).items() if n > 1]
    if twice:
        draft.tell(f"Two phases are called `{twice[0]}`. Give each a name of its own.", *("trial", "phases"))
    for index, phase in enumerate(phases):
        at = ("trial", "phases", index)
        for name in phase.data:
            if name not in sets:
                draft.tell(
                    f"Phase `{phase.name}` trains on `{name}`, {_no_data_set(name, sets)}", *at, "data"
                )
        if len(set(phase.data)) < len(phase.data):
            draft.tell(
                f"Phase `{phase.name}` names a data set twice. Weigh it with `{_WEIGHTS}`.", *at, "data"
            )
        given = [name for name in _OF_LATER_PHASES if getattr(phase, name) is not None]
        if index == 0 and given:
            draft.tell(
                f"`{given[0]}` says what a phase takes over from the ones before, but `{phase.name}` is the first. "
                "Remove it.",
                *(*at, given[0]),
            )
        warmups = [name for name in WARMUP_FORMS if getattr(phase, name)]
        if len(warmups) > 1:
            draft.tell(
                f"{join(warmups)} of phase `{phase.name}` exclude each other. Remove one of them.",
                *(*at, warmups[-1]),
            )
        _check_batch(draft, phase, (*at, "effective_batch_size"))
        _check_left_over(draft, phase, (*at, "data"))
    _check_shares(draft, phases)
    _check_best(draft, phases)


def _check_batch(draft: Draft, phase: Phase, path: tuple[str | int, ...]) -> None:
    if phase.effective_batch_size is None:
        return
    n_workers = draft.config.resources.n_workers if draft.knows("resources") else 1
    for _, micro in draft.values("micro_batch_size"):
        try:
            plan_batch(
                effective_batch_size=phase.effective_batch_size,
                micro_batch_size=phase.effective_batch_size if micro == AUTO else micro,
                data_parallel_size=n_workers,
            )
        except ConfigError as error:
            draft.tell(f"Phase `{phase.name}`: {error}", *path)
            return


def _check_left_over(draft: Draft, phase: Phase, path: tuple[str | int, ...]) -> None:
    for _, weights in draft.values(_WEIGHTS):
        if isinstance(weights, dict) and not any(weights.get(name) for name in phase.data):
            draft.tell(
                f"`{_WEIGHTS}` gives every data set of phase `{phase.name}` the weight 0, so nothing is left to train "
                "on there. Raise one, or remove the phase.",
                *path,
            )
            return


def _check_shares(draft: Draft, phases: list[Phase]) -> None:
    """Check that the phases' parts make up the budget."""
    if not draft.knows("trial.budget", "search_space"):
        return
    budget = draft.config.trial.budget
    path = ("trial", "phases")
    if "steps" in budget.kinds or "steps" in draft.config.search_space:
        draft.tell(
            "A budget in steps cannot be cut into phases that may differ in batch. Give it in samples or epochs.",
            *path,
        )
    in_samples = [phase.samples for phase in phases if phase.samples is not None]
    in_fractions = [phase.budget_frac for phase in phases if phase.budget_frac is not None]
    if len(in_samples) + len(in_fractions) not in (0, len(phases)) or (in_samples and in_fractions):
        draft.tell(
            "The phases' parts of the budget must all be given in one form: `budget_frac` for each, or `samples` for "
            "each, or neither for equal parts. Write the same for all.",
            *path,
        )
    elif in_fractions and not math.isclose(sum(in_fractions), 1.0, abs_tol=1e-6):
        draft.tell(
            f"The phases' `budget_frac` must sum to 1, but {' + '.join(f'{f:g}' for f in in_fractions)} = "
            f"{sum(in_fractions):g}. Correct them.",
            *path,
        )
    elif in_samples and budget.samples != sum(in_samples):
        draft.tell(
            f"The phases' `samples` must sum to `trial.budget.samples`, which is {show(budget.samples)}, but "
            f"{' + '.join(map(str, in_samples))} = {sum(in_samples)}. Correct one, or use `budget_frac`.",
            *path,
        )


def _check_best(draft: Draft, phases: list[Phase]) -> None:
    asks = any(phase.start == "best" for phase in phases[1:]) or (
        any(phase.start is None for phase in phases[1:])
        and any(value == "best" for _, value in draft.values("phase_start"))
    )
    metric = draft.config.metric
    if asks and draft.knows("metric", "benchmarks") and is_known_at_the_end(draft, metric):
        what = (
            "is the training loss"
            if metric == LOSS
            else f"= `{metric}` is measured after the last step alone"
        )
        draft.tell(
            "A phase can start from the best weights of the one before only by a metric of an eval set, but `metric` "
            f"{what}. Choose for example `dev/loss`, or start from `last`.",
            "metric",
        )


def _no_data_set(name: str, sets: list[str]) -> str:
    near = did_you_mean(name, sets)
    return f"which is no data set. {f'Did you mean `{near}`? ' if near else ''}There are {join(sets)}."


def _given_paths(draft: Draft, name: str) -> list[KeyPath]:
    """Return where a setting has a value other than none; of a range that cannot be listed, the range's place."""
    dimension = draft.config.search_space.get(name)
    if dimension is not None and draft.knows_setting(name) and possible_values(dimension) is None:
        return [(*draft.place_of(name), dimension.kind)]
    return [path for path, value in draft.values(name) if value is not None]
