"""What a plan says of how its trials will be judged: which run to their end first, and how many go on at each rung."""

from collections.abc import Iterator, Sequence

from sweeper.config.models import SweepConfig
from sweeper.config.names import EARLY_DYNAMICS
from sweeper.learning import LEARNED_MIN_OWN, LEARNED_MIN_POINTS, calibration_size, points_in_words, too_few
from sweeper.plan.data import Point
from sweeper.rungs import best_go_on, n_going_on


def judging_notes(config: SweepConfig, points: Sequence[Point], *, n_rungs: int) -> Iterator[str]:
    """Yield what becomes of the trials before and at the rungs, where our own pruner judges."""
    if config.pruner.name != EARLY_DYNAMICS:
        return
    if config.pruner.directions == "learned":
        yield from _learning_notes(config, points)
    elif config.pruner.mode == "probe":
        yield from _probe_notes(config, config.sampler.n_trials or len(points), n_rungs)


def _learning_notes(config: SweepConfig, points: Sequence[Point]) -> Iterator[str]:
    """Yield which points run to their end before anyone is judged, where trials are judged by prediction."""
    n_trials = config.sampler.n_trials or len(points)
    if config.pruner.prior is not None:
        yield _prior_note(config.pruner.prior, n_trials)
        return
    if n_trials < LEARNED_MIN_POINTS:
        yield (
            f"{too_few(n_trials)} (it takes {LEARNED_MIN_POINTS}): only what diverges is "
            "stopped. Set `pruner.signals` to stop by rank."
        )
        return
    yield _calibration_note(config, points, n_trials)
    if config.sets_aside:
        yield from _aside_notes(config)
    yield _risk_note(config)


def _prior_note(prior: str, n_trials: int) -> str:
    few = (
        f" Where those and the {points_in_words(n_trials)} of this sweep are fewer than {LEARNED_MIN_POINTS} together, "
        "only what diverges is stopped."
    )
    return (
        f"Learned pruning starts from the evidence of `{prior}`: at least {LEARNED_MIN_OWN} points run to their end "
        "before any trial is judged, one less than otherwise for every finished trial there."
        + (few if n_trials < LEARNED_MIN_POINTS else "")
    )


def _calibration_note(config: SweepConfig, points: Sequence[Point], n_trials: int) -> str:
    n_chosen = config.pruner.n_calibration or calibration_size(n_trials)
    chosen = ""
    if config.sampler.name == "grid":
        from sweeper.pruners.design import calibration_points  # scipy: only where a plan is made of it

        indices = calibration_points([point.params for point in points], n_chosen)
        chosen = ": " + ", ".join(_params(points[index]) for index in indices)
    return (
        f"Calibration: {n_chosen} of {points_in_words(n_trials)} run to their end before any trial is judged, spread "
        f"over the space{chosen}."
    )


def _aside_notes(config: SweepConfig) -> Iterator[str]:
    yield (
        "At each rung a trial may be set aside: it saves a checkpoint, a likelier one gets its slot, and it may go "
        "on later. `pruner.set_aside: false` stops or trains it at once instead, which costs more training."
    )
    if config.trial.checkpoint.max_gb is not None:
        yield "No further trial is set aside once the checkpoints reach `trial.checkpoint.max_gb`."
    if not config.pruner.fill_slots:
        yield (
            "A trial waits, and a slot may stay free, while one in training is more than twice as likely to be the "
            "best: less training, later done. `pruner.fill_slots: true` starts something on every free slot."
        )


def _risk_note(config: SweepConfig) -> str:
    pruner = config.pruner
    return (
        f"The risk of missing the best point by more than the tolerance is at most {100 * pruner.risk:.3g}% if the "
        f"model's predictions hold; {100 * pruner.audit_frac:.3g}% of the condemned trials go on to check them."
    )


def _probe_notes(config: SweepConfig, n_trials: int, n_rungs: int) -> Iterator[str]:
    """Say how many points come to each rung, and how they go on."""
    entering = [n_trials]
    for _ in range(n_rungs):
        entering.append(n_going_on(config.pruner.keep_frac, entering[-1]))
    counts = ", then ".join(str(n) for n in entering[1:])
    kept = best_go_on(1) if entering[1:2] == entering[-1:] == [1] else f"the best {counts} go on"
    how = (
        "from their checkpoints"
        if config.trial.function is None
        else ("from the newest checkpoint that the function has saved, or from scratch")
    )
    yield (f"Probe: all {n_trials} points are trained to the first rung and wait there; {kept}, {how}.")
    if config.pruner.max_gpu_hours is not None:
        yield (
            f"Fewer go on where {config.pruner.max_gpu_hours:g} GPU-hours do not allow so many: `launch` and "
            "`plan --measure` work that out."
        )


def _params(point: Point) -> str:
    return "/".join(
        f"{value:g}" if isinstance(value, float) else str(value) for value in point.params.values()
    )
