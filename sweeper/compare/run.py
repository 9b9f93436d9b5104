"""`sweeper compare`: two trials of one study, item by item, and what differs between them."""

import dataclasses
from typing import Any

from sweeper.compare.statistics import ItemComparison, compare_items, least_items
from sweeper.confirm.statistics import ALPHA, holm
from sweeper.differences import differing
from sweeper.errors import ConfigError, StudyMismatchError
from sweeper.items import paired, read_items
from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.export.chosen import chosen_record
from sweeper.reporting.status import origin_json
from sweeper.study import layout
from sweeper.study.environment import environment_of
from sweeper.study.view import StudyView

_ORIGIN = ("cloned_from", "warm_start", "continues", "from_step", "from_samples")  # not who asked, or when


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """Two trials against each other."""

    view: StudyView
    first: TrialRecord
    second: TrialRecord
    comparisons: tuple[ItemComparison, ...]
    training: dict[str, tuple[Any, Any]]  # budgets, data seen and origins that differ, of A and B
    settings: dict[str, tuple[Any, Any]]
    environment: dict[str, tuple[Any, Any]]
    alpha: float


def compare_trials(view: StudyView, first: int, second: int, *, alpha: float = ALPHA) -> Compared:
    """Compare two completed trials on every item that both were measured on.

    Raises:
        ConfigError: If both are the same trial.
        StudyMismatchError: If one is not there, did not complete, or they have no measured items in common.
    """
    if first == second:
        raise ConfigError(f"`sweeper compare` needs two trials, but got {first} twice. Name another one.")
    one, two = (_completed(view, number) for number in (first, second))
    comparisons = _corrected(_all(view, one, two, alpha), alpha)
    if not comparisons:
        raise StudyMismatchError(
            f"Trials {first} and {second} of study `{view.name}` kept no values of single items, so they cannot "
            f"be compared by them. Trials of the built-in fine-tuning keep them in {view.directory / 'trials'}/N/items "
            "once they completed; `sweeper benchmark` measures kept models. `sweeper confirm` compares over seeds."
        )
    return Compared(
        view=view, first=one, second=two, comparisons=comparisons, alpha=alpha,
        training=differing(_training(one), _training(two)),
        settings=differing(one.settings, two.settings),
        environment=differing(environment_of(view, one), environment_of(view, two)),
    )  # fmt: skip


def _completed(view: StudyView, number: int) -> TrialRecord:
    record = chosen_record(view, number)
    if record.state is not TrialState.COMPLETE:
        raise StudyMismatchError(
            f"Trial {number} of study `{view.name}` is {record.state.value}, and only trials that were trained to "
            "their end can be compared. Choose COMPLETE ones; `sweeper status` lists them."
        )
    return record


def _training(record: TrialRecord) -> dict[str, Any]:
    """Return what a trial was trained on beside its settings."""
    origin = {} if record.origin is None else origin_json(record.origin)
    begun = {name: origin[name] for name in _ORIGIN if name in origin}
    return {"budget_samples": record.budget_samples, "samples": record.samples, "origin": begun}


def _all(view: StudyView, one: TrialRecord, two: TrialRecord, alpha: float) -> list[ItemComparison]:
    first, second = (read_items(layout.trial_dir(view.directory, record.number)) for record in (one, two))
    shared = [
        (first[source], measure, paired(first[source], second[source], measure))
        for source in first if source in second
        for measure in first[source].measures if measure in second[source].measures
    ]  # fmt: skip
    shared = [(items, measure, values) for items, measure, values in shared if len(values[0])]
    least = least_items([len(values[0]) for _, _, values in shared], alpha=alpha)
    return [
        compare_items(
            items.source, measure, *values, lower_is_better=measure in items.lower_is_better, least=needed
        )
        for (items, measure, values), needed in zip(shared, least, strict=True)
    ]


def _corrected(found: list[ItemComparison], alpha: float) -> tuple[ItemComparison, ...]:
    tested = [comparison for comparison in found if comparison.least is None]
    corrected = iter(holm([comparison.p for comparison in tested]))
    made = []
    for comparison in found:
        if comparison.least is None:
            p = next(corrected)
            comparison = dataclasses.replace(comparison, p_corrected=p, is_real=p <= alpha)
        made.append(comparison)
    return tuple(made)
