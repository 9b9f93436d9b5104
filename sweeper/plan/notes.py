"""What a plan says beside its numbers: notes on how they came about."""

from collections.abc import Iterator, Sequence

from sweeper.config.models import SweepConfig
from sweeper.optimizer import BETA2, HALF_LIFE
from sweeper.plan.budget import CommonBudget
from sweeper.plan.data import DataFacts, Point
from sweeper.plan.judging_notes import judging_notes
from sweeper.plan.marks import RungMarks
from sweeper.plan.mix import mix_of
from sweeper.plan.words import in_steps, is_packed

_MAX_COURSES = 4  # that a plan spells out


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
    if any(is_packed(config, point) for point in points):
        yield "With `packing` the rows of a pass are joined without padding; a sample is one row, as without it."
    if any(_is_renamed_constant(config, point) for point in points):
        yield "`constant` with a warm-up is trained as transformers' `constant_with_warmup`."
    yield from _beta2_notes(config, points, facts)
    yield from _phase_notes(points)
    yield from judging_notes(config, points, n_rungs=len(rungs.marks))
    if config.trial.function is None and not config.trial.checkpoint.save_model:
        yield "No trained model is kept: `trial.checkpoint.save_model: true` keeps them, and best.yaml has it set."


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
                beta2 = settings[BETA2] or 0.0
                used.setdefault(settings[HALF_LIFE], set()).add((batch.effective_batch_size, beta2))
    for half_life, beta2_of in sorted(used.items()):
        head = f"A half-life of {half_life:,.10g} target tokens gives `{BETA2}`"
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
            f"{phase.name} {phase.samples:,} samples ({in_steps(phase.steps)} at batch "
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


def _is_renamed_constant(config: SweepConfig, point: Point) -> bool:
    given = point.params.get("lr_scheduler_type", config.trial.settings.get("lr_scheduler_type"))
    return given == "constant" and point.settings.get("lr_scheduler_type") == "constant_with_warmup"
