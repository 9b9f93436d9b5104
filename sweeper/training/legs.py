"""The parts of a trial that are trained one after another, each by a trainer of its own: its phases, or all of it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from sweeper.batch import BatchPlan
from sweeper.config.trial_models import TrainSettings, TrialSection
from sweeper.errors import ConfigError
from sweeper.phases import PlannedPhase
from sweeper.training.mixing import Mixture, mixed_order
from sweeper.training.stream import Order, SampleStream
from sweeper.trial_spec import TrialSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leg:
    """One part. Steps and samples are counted from the trial's start."""

    settings: TrainSettings
    batch: BatchPlan
    steps: int
    start_step: int = 0
    start_samples: int = 0
    keeps_moments: bool = False  # goes on with the optimiser's moments of the leg before
    tracks_best: bool = False  # the next leg starts from the best weights of this one
    hands_moments: bool = False  # and takes the optimiser's moments over

    @property
    def stop_step(self) -> int:
        return self.start_step + self.steps

    @property
    def stop_samples(self) -> int:
        return self.samples_at(self.stop_step)

    def samples_at(self, step: int) -> int:
        """Return the samples that the trial has seen after one of this leg's steps."""
        return self.start_samples + (step - self.start_step) * self.batch.effective_batch_size


def legs_of(spec: TrialSpec) -> list[Leg]:
    """Return a trial's legs, in order.

    Raises:
        ConfigError: If the trial has no batch or no budget.
    """
    if spec.batch is None or spec.total_steps is None:
        raise ConfigError("The built-in fine-tuning needs a batch and a budget, which this trial has not.")
    if not spec.phases:
        settings = TrainSettings.model_validate(spec.settings)
        return [Leg(settings=settings, batch=spec.batch, steps=spec.total_steps)]
    legs: list[Leg] = []
    step = samples = 0
    for index, phase in enumerate(spec.phases):
        after = spec.phases[index + 1] if index + 1 < len(spec.phases) else None
        legs.append(
            Leg(
                settings=TrainSettings.model_validate(phase.settings), batch=phase.batch, steps=phase.steps,
                start_step=step, start_samples=samples,
                keeps_moments=index > 0 and phase.optimizer_state == "keep",
                tracks_best=after is not None and after.start == "best",
                hands_moments=after is not None and after.optimizer_state == "keep",
            )
        )  # fmt: skip
        step, samples = step + phase.steps, samples + phase.samples
    return legs


def leg_at(legs: list[Leg], step: int) -> int:
    """Return the index of the leg that trained a step; the first one's for step 0."""
    return next((index for index, leg in enumerate(legs) if step <= leg.stop_step), len(legs) - 1)


def sample_order(
    trial: TrialSection,
    *,
    sizes: list[int],
    weights: Mapping[str, float] | None,
    phases: tuple[PlannedPhase, ...],
    samples: int,
    seed: int,
) -> Order:
    """Return which row of all sources, one after the other, stands at each position of a trial.

    Args:
        trial: Its sources.
        sizes: Rows of each source.
        weights: Of the data sets; None: by their rows.
        phases: Empty where the trial trains in one part.
        samples: The trial's budget.
        seed: Of the order.
    """
    if not phases and weights is None:
        return SampleStream(sum(sizes), seed=seed)
    firsts = [sum(sizes[:index]) for index in range(len(sizes))]
    sets = dict(zip(trial.data_sets or {}, zip(firsts, sizes, strict=True), strict=True))
    shares = weights or {name: float(n_rows) for name, (_, n_rows) in sets.items()}
    mixtures = [
        Mixture(
            weights={name: shares[name] for name in phase.data},
            samples=phase.samples,
            replay_frac=phase.replay_frac,
        )
        for phase in phases
    ]
    return mixed_order(sets, mixtures or [Mixture(weights=shares, samples=samples)], seed=seed)


@dataclasses.dataclass(kw_only=True)
class Carried:
    """What one leg hands to the next: on the CPU, so that the old model can go before the new one comes."""

    weights: dict[str, Any]  # trained parameters by name
    moments: dict[str, Any] | None = (
        None  # the optimiser's state; None where the next leg starts with a fresh one
    )


@dataclasses.dataclass(kw_only=True)
class Best:
    """The best weights of a leg so far, by the study's metric."""

    value: float
    carried: Carried


def is_better(value: float, than: float | None, *, direction: str) -> bool:
    """Whether a value beats the best so far. NaN beats nothing and loses to all; of equal ones the earlier stays."""
    if than is None or math.isnan(than):
        return True
    return value > than if direction == "maximize" else value < than
