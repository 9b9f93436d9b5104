"""What a plan warns of: what is allowed but probably not meant."""

import math
from collections.abc import Iterator, Sequence

from sweeper.config.messages import join
from sweeper.config.models import SweepConfig
from sweeper.config.names import EARLY_DYNAMICS
from sweeper.config.space_values import possible_values
from sweeper.optimizer import warmup_in_steps
from sweeper.plan.budget import CommonBudget, possible_batches
from sweeper.plan.data import Point
from sweeper.plan.mark_warnings import mark_warnings
from sweeper.plan.marks import RungMarks
from sweeper.plan.words import in_steps, is_packed
from sweeper.records import GRAD_NORM, LOSS

_LEARNING_SAMPLERS = ("tpe", "gp", "cmaes")
_MASK_BYTES = 2  # each layer keeps the mask for its backward pass in 16 bits
_MANY_POINTS = 5_000  # a journal of 10,000 trials takes 5 s to load and 154 ms per draw


def warnings(
    config: SweepConfig, common: CommonBudget, rungs: RungMarks, points: Sequence[Point]
) -> Iterator[str]:
    """Yield what is allowed but probably not meant."""
    if config.trial.compare == "unequal":
        yield "compare: unequal - points do not see equal data; a longer one may win by its length alone."
    if common.differs:
        yield _differing_budgets(config, common, points)
    yield from _shorter_in_phases(points)
    yield from _unlike_at_rungs(config, points)
    yield from _direction_warnings(config)
    yield from _packing_warnings(config, points)
    yield from _size_warnings(config, points)
    yield from _sampler_warnings(config)
    yield from mark_warnings(config, points)
    if config.pruner.name != "nop":
        yield from _rung_warnings(config, rungs, points)
    yield from _warmup_warnings(config, points)


def _differing_budgets(config: SweepConfig, common: CommonBudget, points: Sequence[Point]) -> str:
    asked = common.asked_samples or 0
    if possible_batches(config) is None:
        return (
            f"The effective batch is drawn from a range, so each point rounds the budget of {asked:,} "
            "samples down to its own steps."
        )
    budgets = {point.batch.effective_batch_size: point.budget_samples or 0 for point in points if point.batch}
    each = ", ".join(
        f"batch {batch}: {budget:,} ({budget - asked:+,})" for batch, budget in sorted(budgets.items())
    )
    return (
        f"The budget of {asked:,} samples is no multiple of every effective batch, and the nearest common "
        f"multiple would lose more than 5 %, so each point rounds down to its own steps. {each}."
    )


def _shorter_in_phases(points: Sequence[Point]) -> Iterator[str]:
    """Warn where the phases' whole steps leave over some of the budget that the other points have."""
    budgets = {point.budget_samples for point in points if point.budget_samples is not None}
    phased = {point.budget_samples for point in points if point.phases and point.budget_samples is not None}
    short = sorted(budget for budget in phased if budget < max(budgets))
    if short:
        yield (
            f"In phases a point trains {', '.join(f'{n:,}' for n in short)} samples, the longest one {max(budgets):,}: "
            "the phases end on whole steps of their own batches. Choose parts that are multiples of them."
        )


def _unlike_at_rungs(config: SweepConfig, points: Sequence[Point]) -> Iterator[str]:
    """Warn where trials are judged against others that have seen other data."""
    n_phased = sum(bool(point.phases) for point in points)
    if config.pruner.name != "nop" and 0 < n_phased < len(points):
        yield (
            "At a rung, a point in phases has seen other data than a stacked one, so losses and norms there do not "
            "compare. Judge by a metric of an eval set (`pruner.signals`), or write `pruner: nop`."
        )


def _direction_warnings(config: SweepConfig) -> Iterator[str]:
    metric = config.metric.lower()
    if metric.endswith("loss") and config.direction == "maximize":
        yield f"The metric `{config.metric}` looks like a loss, but `direction` is maximize."
    if metric.endswith(("accuracy", "exact_match")) and config.direction == "minimize":
        yield f"The metric `{config.metric}` looks better when high, but `direction` is minimize."


def _packing_warnings(config: SweepConfig, points: Sequence[Point]) -> Iterator[str]:
    """Warn where joined rows are kept apart by a mask: only flash and flex attention need none of that size."""
    masked = [
        point
        for point in points
        if is_packed(config, point) and not _takes_joined_rows(point.settings["attn_implementation"])
    ]
    slow = sorted({str(point.settings["attn_implementation"] or "the model's own") for point in masked})
    tokens = [
        point.batch.micro_batch_size * point.settings["max_length"]
        for point in masked
        if point.batch is not None and point.settings["max_length"]
    ]
    if slow:
        size = (
            f": {max(tokens):,} make {_MASK_BYTES * max(tokens) ** 2 / 1e9:,.2g} GB in each layer"
            if tokens
            else ""
        )
        yield (
            f"`packing` with {' and '.join(slow)} attention: without flash attention the rows of a pass are kept apart "
            f"by a mask that grows with the square of all their tokens, in time and memory{size}. On GPUs set "
            "`attn_implementation: flash_attention_2`; else leave out `packing`."
        )


def _takes_joined_rows(attention: str | None) -> bool:
    return attention is not None and ("flash" in attention or "flex" in attention)


def _size_warnings(config: SweepConfig, points: Sequence[Point]) -> Iterator[str]:
    if len(points) > _MANY_POINTS:
        yield f"{len(points):,} points: a study of 10,000 trials takes seconds to load and slows every draw."
    n_trials = config.sampler.n_trials
    sizes = [possible_values(dimension) for dimension in config.search_space.values()]
    n_points = math.prod(len(values) if values is not None else _MANY_POINTS for values in sizes)
    if n_trials is not None and n_points < n_trials:
        yield f"`sampler.n_trials` = {n_trials}, but the search space has only {n_points} different points."


def _sampler_warnings(config: SweepConfig) -> Iterator[str]:
    """Warn where a sampler cannot learn as it is meant to."""
    name = config.sampler.name
    if config.pruner.mode == "probe" and name in _LEARNING_SAMPLERS:
        yield (
            f"`mode: probe` with the sampler `{name}`: no trial is COMPLETE before all points are drawn, so it cannot "
            "learn which ones are good, and may draw worse than at random. Choose the sampler `random` or `qmc`, or "
            "`mode: certain`."
        )
    listed = [key for key, dimension in config.search_space.items() if dimension.listed is not None]
    if name == "cmaes" and listed:
        verb = "is" if len(listed) == 1 else "are"
        yield (
            f"The sampler `cmaes` learns of numbers alone: {join(listed)} {verb} drawn at random. To learn of lists of "
            "values too, choose `tpe`."
        )


def _rung_warnings(config: SweepConfig, rungs: RungMarks, points: Sequence[Point]) -> Iterator[str]:
    pruner = config.pruner
    if not rungs.marks and rungs.is_known:
        yield "There is no rung below the budget, so no trial can be stopped early."
    n_trials = config.sampler.n_trials or len(points)
    is_eager = pruner.name == EARLY_DYNAMICS and pruner.directions != "learned" and pruner.mode == "eager"
    if is_eager and n_trials < pruner.min_peers:
        yield (
            f"{n_trials} trials are fewer than `pruner.min_peers` = {pruner.min_peers}, so none will be "
            "stopped early by its peers."
        )
    is_windowed = pruner.signals is None or not {LOSS, GRAD_NORM}.isdisjoint(
        pruner.signals
    )  # metrics are not
    for label, point in _by_length(points).items():
        kept = {rung.index for rung in point.rungs}
        lost = [f"{mark:,}" for index, mark in enumerate(rungs.marks) if index not in kept]
        if lost:
            yield (
                f"{label} skips the rungs at {', '.join(lost)} {rungs.unit}: there it stands on the step of "
                "a later rung, or at its end."
            )
        if is_windowed and point.batch and point.rungs and point.rungs[0].step < pruner.window_steps:
            yield (
                f"{label} comes to its first rung after {in_steps(point.rungs[0].step)}, fewer than "
                f"`pruner.window_steps` = {pruner.window_steps}: its signals there are means of fewer steps."
            )


def _warmup_warnings(config: SweepConfig, points: Sequence[Point]) -> Iterator[str]:
    told = set()
    for point in points:
        if config.trial.function is not None or not point.total_steps or point.batch is None:
            continue
        warmup = warmup_in_steps(
            steps=point.settings["warmup_steps"], samples=point.settings["warmup_samples"],
            frac=point.settings["warmup_frac"], effective_batch_size=point.batch.effective_batch_size,
            total_steps=point.total_steps,
        )  # fmt: skip
        if warmup >= point.total_steps:
            told.add((warmup, _label(point)))
    for warmup, label in sorted(told):
        yield f"{label} ends within its warm-up of {warmup} steps and never trains at the full rate."


def _by_length(points: Sequence[Point]) -> dict[str, Point]:
    """Return one point for every batch and length: the others have the same rungs."""
    by_length: dict[str, Point] = {}
    for point in points:
        by_length.setdefault(_label(point), point)
    return by_length


def _label(point: Point) -> str:
    batch = f"Batch {point.batch.effective_batch_size}" if point.batch else "A point"
    return batch if point.total_steps is None else f"{batch} ({in_steps(point.total_steps)})"
