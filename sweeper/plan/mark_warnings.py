"""What a plan warns of about the marks at which trials are evaluated and saved."""

from collections.abc import Iterator, Sequence

from sweeper.config.models import SweepConfig
from sweeper.plan.data import Point


def mark_warnings(config: SweepConfig, points: Sequence[Point]) -> Iterator[str]:
    """Yield marks of evaluations and checkpoints that no point comes to; and on a cluster, that nothing is saved."""
    if config.resources.address is not None:
        yield from _unsaved_warnings(config)
    budgets = [point.budget_samples for point in points if point.budget_samples is not None]
    if not budgets:
        return
    evaluation, checkpoint = config.trial.evaluation, config.trial.checkpoint
    marks = {
        "evaluation.at": evaluation.at if isinstance(evaluation.at, list) else [],
        "checkpoint.at": checkpoint.at,
    }
    if checkpoint.every_samples is not None:
        marks["checkpoint.every_samples"] = [checkpoint.every_samples]
    for name, at in marks.items():
        late = [mark for mark in at if mark >= min(budgets)]
        if late:
            yield (
                f"`trial.{name}` = {', '.join(map(str, late))} does not lie below the shortest budget of "
                f"{min(budgets):,} samples and has no effect there."
            )


def _unsaved_warnings(config: SweepConfig) -> Iterator[str]:
    checkpoint = config.trial.checkpoint
    if checkpoint.every_samples is None and not checkpoint.at:
        yield (
            "Neither `trial.checkpoint.every_samples` nor `at` is set: a trial whose node goes away begins anew, and "
            f"each time counts against `failures.retries` = {config.failures.retries}. Set one where nodes may be "
            "pre-empted."
        )
