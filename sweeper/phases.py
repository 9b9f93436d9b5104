"""How steps and samples run along a trial, in one part or in phases. Pure."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Literal

from sweeper.batch import BatchPlan

PHASED = "phased"  # the data strategy; any other one trains in one part
OF_PHASES = ("replay_frac", "phase_start", "phase_optimizer_state")  # settings of points in phases alone

Start = Literal["last", "best"]
OptimizerState = Literal["fresh", "keep"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedPhase:
    """One phase of one trial, resolved. Travels inside a trial's spec."""

    name: str
    data: tuple[str, ...]  # the data sets that it trains on
    steps: int  # optimiser steps
    batch: BatchPlan
    replay_frac: float  # of its samples, drawn from what earlier phases have trained on
    start: Start  # the weights of the phase before that it goes on from; of the first, without meaning
    optimizer_state: (
        OptimizerState  # whether the optimiser's moments are taken over; rates and schedule never are
    )
    settings: dict[str, Any]  # the trial's with the phase's own applied

    @property
    def samples(self) -> int:
        return self.steps * self.batch.effective_batch_size


def phase_ends(phases: Sequence[PlannedPhase]) -> tuple[int, ...]:
    """Return the samples after which another phase begins."""
    return tuple(itertools.accumulate(phase.samples for phase in phases[:-1]))


@dataclasses.dataclass(frozen=True)
class Course:
    """Where each optimiser step ends, in samples: parts of one batch size each. The last part has no end.

    >>> course = Course(((4, 8), (0, 32)))
    >>> course.samples_at(4), course.samples_at(5), course.first_step_at(33)
    (32, 64, 5)
    """

    parts: tuple[tuple[int, int], ...]  # steps, samples per step

    @classmethod
    def of(cls, phases: Sequence[PlannedPhase], effective_batch_size: int) -> "Course":
        """Return the course of a trial in phases, or of one batch size where there are none."""
        parts = tuple((phase.steps, phase.batch.effective_batch_size) for phase in phases)
        return cls(parts or ((0, effective_batch_size),))

    def samples_at(self, step: int) -> int:
        """Return the samples that were seen after `step` optimiser steps."""
        samples = 0
        for steps, size in self.parts[:-1]:
            taken = min(step, steps)
            samples, step = samples + taken * size, step - taken
        return samples + step * self.parts[-1][1]

    def first_step_at(self, mark_samples: int) -> int:
        """Return the first optimiser step whose samples lie at or past a mark."""
        step = 0
        for steps, size in self.parts[:-1]:
            if mark_samples <= steps * size:
                return step + -(-mark_samples // size)
            step, mark_samples = step + steps, mark_samples - steps * size
        return step + -(-mark_samples // self.parts[-1][1])
