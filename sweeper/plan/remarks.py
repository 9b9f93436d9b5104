"""What a plan says beside its numbers: notes on how they came about, and warnings."""

import math
from collections.abc import Iterator, Sequence

from sweeper.config.models import SweepConfig
from sweeper.config.names import EARLY_DYNAMICS
from sweeper.config.rules_space import possible_values
from sweeper.optimizer import warmup_in_steps
from sweeper.plan.budget import CommonBudget, possible_batches
from sweeper.plan.data import DataFacts, Point
from sweeper.plan.judging_notes import judging_notes
from sweeper.plan.mark_warnings import mark_warnings
from sweeper.plan.marks import RungMarks
from sweeper.plan.mix import mix_of
from sweeper.plan.settings import HALF_LIFE

_MAX_COURSES = 4  # that a plan spells out
_MANY_POINTS = 5_000  # a journal of 10,000 trials takes 5 s to load and 154 ms per draw


def notes(
    config: SweepConfig,
    common: CommonBudget,
    rungs: RungMarks,
    points: Sequence[Point],
    facts: DataFacts | None,
) -> Iterator[str]:
    """Yield how the numbers came about."""
    if not config.search_space:
        yield "The search space is empty: one trial, with the settings as they are."
    yield from _budget_notes(common, facts)
    if common.kind == "epochs" and config.trial.function is None and _is_mixed(points):
        yield (
            "An epoch is as many samples as there are rows in all data sets; with `data_weights` or in phases some of "
            "these come round more often than others."
        )
    if common.is_swept:
        yield "The budget is swept; rungs given as fractions are fractions of the smallest one."
    elif rungs.unit == "steps" and config.rungs.steps is None:
        yield "The budget is given in steps, so the rungs lie at steps too."
    if any(_is_packed(config, point) for point in points):
        yield "With `packing` the rows of a pass are joined without padding; a sample is one row, as without it."
    if any(_is_renamed_constant(config, point) for point in points):
        yield "`constant` with a warm-up is trained as transformers' `constant_with_warmup`."
    yield from _beta2_notes(config, points, facts)
    yield from _phase_notes(points)
    yield from judging_notes(config, points, n_rungs=len(rungs.marks))
    if config.trial.function is None and not config.trial.checkpoint.save_model:
        yield "No trained model is kept: `trial.checkpoint.save_model: true` keeps them, and best.yaml has it set."


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
    yield from mark_warnings(config, points)
    if config.pruner.name != "nop":
        yield from _rung_warnings(config, rungs, points)
    yield from _warmup_warnings(config, points)


def _beta2_notes(config: SweepConfig, points: Sequence[Point], facts: DataFacts | None) -> Iterator[str]:
    """Say what beta2 each batch size trains with, where it follows from a half-life."""
    if config.trial.function is not None:
        return
    used: dict[float, set[tuple[int, float]]] = {}
    for point in points:
        parts = [(phase.batch, phase.settings) for phase in point.phases]
        if not parts and point.batch is not None:
            parts = [(point.batch, point.settings)]
        for batch, settings in parts:
            if settings.get(HALF_LIFE) is not None:
                beta2 = settings["adam_beta2"] or 0.0
                used.setdefault(settings[HALF_LIFE], set()).add((batch.effective_batch_size, beta2))
    for half_life, beta2_of in sorted(used.items()):
        head = f"A half-life of {half_life:,.10g} target tokens gives `adam_beta2`"
        if facts is None or not facts.target_tokens:
            yield f"{head} at each batch size, known after the data was counted."
            continue
        each = ", ".join(f"{beta2:.6g} at batch {batch:,}" for batch, beta2 in sorted(beta2_of))
        mean = f"a sample has {facts.target_tokens / facts.rows:,.4g} target tokens on average"
        if facts.sets and _is_mixed(points):
            mean = "the target tokens of a sample are a mean over the data sets as they are drawn"
        yield f"{head} {each}; {mean}."


def _is_mixed(points: Sequence[Point]) -> bool:
    """Whether some point draws from its data sets otherwise than row by row."""
    return any(point.phases or point.settings.get("data_weights") is not None for point in points)


def _phase_notes(points: Sequence[Point]) -> Iterator[str]:
    """Say what the phases are, once where points differ in rate or replay alone."""
    seen = set()
    for point in points:
        each = [
            f"{phase.name} {phase.samples:,} samples ({_steps(phase.steps)} at batch "
            f"{phase.batch.effective_batch_size:,})"
            for phase in point.phases
        ]
        text = ", then ".join(each)
        if each and text not in seen:
            seen.add(text)
            yield f"In phases: {text}."
        if len(seen) == _MAX_COURSES:
            return


def _budget_notes(common: CommonBudget, facts: DataFacts | None) -> Iterator[str]:
    if common.kind in ("epochs", "tokens") and facts is None:
        yield f"The budget is given in {common.kind}: its samples are known after the data was counted."
    if common.asked_samples is None or common.samples is None:
        return
    if common.kind in ("epochs", "tokens") and facts is not None:
        tokens = f" with {facts.target_tokens:,} target tokens" if common.kind == "tokens" else ""
        if common.mix is not None and facts.sets and common.mix != mix_of(facts, None):
            tokens += f", {common.mix.tokens_per_sample:,.4g} a sample as they are drawn,"
        yield (
            f"{common.value:,g} {common.kind} of {facts.rows:,} rows{tokens} are {common.asked_samples:,} "
            "samples."
        )
    if common.samples != common.asked_samples:
        lost = 1 - common.samples / common.asked_samples
        yield (
            f"Every point trains {common.samples:,} samples instead of {common.asked_samples:,} "
            f"(-{lost:.1%}), a multiple of every effective batch."
        )


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
    used = {point.settings["attn_implementation"] for point in points if _is_packed(config, point)}
    slow = sorted(str(name or "the model's own") for name in used if not _takes_joined_rows(name))
    if slow:
        yield (
            f"`packing` with {' and '.join(slow)} attention: without flash attention the rows of a pass are kept apart "
            "by a mask that grows with the square of all their tokens, in time and memory. On GPUs set "
            "`attn_implementation: flash_attention_2`; else leave out `packing`."
        )


def _takes_joined_rows(attention: str | None) -> bool:
    return attention is not None and ("flash" in attention or "flex" in attention)


def _is_packed(config: SweepConfig, point: Point) -> bool:
    return config.trial.function is None and point.settings["packing"] is True


def _size_warnings(config: SweepConfig, points: Sequence[Point]) -> Iterator[str]:
    if len(points) > _MANY_POINTS:
        yield f"{len(points):,} points: a study of 10,000 trials takes seconds to load and slows every draw."
    n_trials = config.sampler.n_trials
    sizes = [possible_values(dimension) for dimension in config.search_space.values()]
    n_points = math.prod(len(values) if values is not None else _MANY_POINTS for values in sizes)
    if n_trials is not None and n_points < n_trials:
        yield f"`sampler.n_trials` = {n_trials}, but the search space has only {n_points} different points."


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
    for label, point in _by_length(points).items():
        kept = {rung.index for rung in point.rungs}
        lost = [f"{mark:,}" for index, mark in enumerate(rungs.marks) if index not in kept]
        if lost:
            yield (
                f"{label} skips the rungs at {', '.join(lost)} {rungs.unit}: there it stands on the step of "
                "a later rung, or at its end."
            )
        if point.batch and point.rungs and point.rungs[0].step < pruner.window_steps:
            yield (
                f"{label} comes to its first rung after {_steps(point.rungs[0].step)}, fewer than "
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
    return batch if point.total_steps is None else f"{batch} ({_steps(point.total_steps)})"


def _steps(n_steps: int) -> str:
    return f"{n_steps} step" if n_steps == 1 else f"{n_steps} steps"


def _is_renamed_constant(config: SweepConfig, point: Point) -> bool:
    given = point.params.get("lr_scheduler_type", config.trial.settings.get("lr_scheduler_type"))
    return given == "constant" and point.settings.get("lr_scheduler_type") == "constant_with_warmup"
