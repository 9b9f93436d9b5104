"""What one attempt of a trial is told."""

from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError
from sweeper.optimizer import BETA2, HALF_LIFE
from sweeper.plan.data import Point
from sweeper.plan.points import trial_section
from sweeper.trial_spec import TrialSpec


def trial_spec(
    config: SweepConfig, point: Point, *, number: int, attempt: int, trial_dir: str, threads: int
) -> TrialSpec:
    """Return the spec of one attempt.

    Raises:
        ConfigError: If the budget is not known, since the data was not counted.
    """
    budget = _known_budget(config, point)
    seed = point.settings.get("seed", config.seed)
    gpus = config.resources.gpus_per_trial
    return TrialSpec(
        number=number,
        attempt=attempt,
        study=config.study,
        params=dict(point.params),
        settings=dict(point.settings),
        trial=trial_section(config),
        seed=seed if isinstance(seed, int) else config.seed,
        budget_samples=budget,
        total_steps=point.total_steps,
        micro_batch_size=point.batch.micro_batch_size if point.batch else None,
        gradient_accumulation_steps=point.batch.gradient_accumulation_steps if point.batch else None,
        data_parallel_size=config.resources.n_workers,
        gpu_share=1.0 if gpus is None else min(1.0, gpus),
        sharding=config.resources.sharding,
        threads=threads,
        trial_dir=trial_dir,
        metric=config.metric,
        benchmarks=_benchmarks(config),
        direction=config.direction,
        phases=point.phases,
        **_marks(config, point, budget),
    )


def _known_budget(config: SweepConfig, point: Point) -> int:
    """Return a point's budget in samples, once all that its trial is to be told is known."""
    if point.budget_samples is None:
        raise ConfigError(
            "The budget is given in epochs or tokens and the training data was not counted, so no trial can "
            "start. Plan with the data's facts."
        )
    settings = [point.settings, *(phase.settings for phase in point.phases)]
    if config.trial.function is None and any(one.get(BETA2, 0.0) is None for one in settings):
        raise ConfigError(
            f"`{HALF_LIFE}` needs the target tokens of a step, but the training data was not counted, "
            f"so no trial can start. Set `{BETA2}` instead."
        )
    return point.budget_samples


def _marks(config: SweepConfig, point: Point, budget: int) -> dict[str, Any]:
    """Return the fields of a spec that say where a window closes, and what happens there."""
    evaluation = evaluation_marks(config, point, budget)
    rungs_in_samples = {rung.mark for rung in point.rungs if rung.unit == "samples"}
    return {
        "marks": tuple(sorted(rungs_in_samples | set(evaluation))),
        "evaluation_marks": evaluation,
        "checkpoint_marks": _checkpoint_marks(config, budget),
        "step_marks": tuple(rung.mark for rung in point.rungs if rung.unit == "steps"),
    }


def _benchmarks(config: SweepConfig) -> dict[str, Any] | None:
    section = config.benchmarks
    return section.model_dump() if section is not None and section.when == "completed" else None


def evaluation_marks(config: SweepConfig, point: Point, budget: int) -> tuple[int, ...]:
    """Return the samples at which a point is evaluated before its end, which lies at `budget`."""
    at = config.trial.evaluation.at
    marks: set[int] = set()
    if at == "rungs":
        marks = {rung.mark if rung.unit == "samples" else rung.samples for rung in point.rungs}
    elif at != "end":
        marks = {int(mark) for mark in at if int(mark) < budget}
    # A phase that goes on from the best weights chooses among those at the end of the one before it too.
    afters = zip(point.phase_ends, point.phases[1:], strict=True)
    marks |= {end for end, after in afters if after.start == "best"}
    return tuple(sorted(marks))


def _checkpoint_marks(config: SweepConfig, budget: int) -> tuple[int, ...]:
    policy = config.trial.checkpoint
    regular = range(policy.every_samples, budget, policy.every_samples) if policy.every_samples else ()
    return tuple(sorted({*regular, *(mark for mark in policy.at if mark < budget)}))
