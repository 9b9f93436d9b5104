"""The phases of one point: its budget cut into them, each with its own batch and settings."""

import itertools
from collections.abc import Mapping
from typing import Any

from sweeper.batch import BatchPlan
from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import Phase
from sweeper.errors import ConfigError
from sweeper.optimizer import WARMUP_FORMS
from sweeper.phases import PHASED, PlannedPhase
from sweeper.plan.data import DataFacts
from sweeper.plan.mix import Mix, mix_of, replay_of, shares_of
from sweeper.plan.settings import batch_of, named_schedule, with_beta2

_OWN = ("effective_batch_size", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", *WARMUP_FORMS)


def is_phased(config: SweepConfig, settings: Mapping[str, Any]) -> bool:
    """Whether a point trains in phases."""
    return config.trial.phases is not None and settings.get("data_strategy") == PHASED


def plan_phases(
    config: SweepConfig, settings: Mapping[str, Any], *, samples: int, facts: DataFacts | None
) -> tuple[PlannedPhase, ...]:
    """Cut a budget into a point's phases.

    A phase ends on a whole step of its own batch; what it leaves over is the next one's.

    Args:
        config: The sweep; its rules saw to it that there are phases.
        settings: The point's.
        samples: Its budget.
        facts: What a half-life of beta2 needs.

    Raises:
        ConfigError: If a phase is shorter than one step of its batch, or its batch cannot be cut.
    """
    phases = config.trial.phases or []
    planned: list[PlannedPhase] = []
    seen = 0
    before: Mix | None = None  # what the phases so far have trained on
    for phase, end in zip(phases, _ends(phases, samples), strict=True):
        own = _settings_of(phase, settings)
        batch = batch_of(own, config.resources.n_workers)
        assert batch is not None, "the built-in fine-tuning has a batch"
        steps = _whole_steps(phase, batch, end - seen, budget=samples)
        replay_frac = replay_of(phase, settings) if planned else 0.0
        mix = mix_of(facts, settings.get("data_weights"), phase.data)
        mix = mix and mix.with_replay(replay_frac, before)
        own = with_beta2(own, batch.effective_batch_size, mix)
        planned.append(_planned(phase, own, batch, steps=steps, replay_frac=replay_frac))
        seen += planned[-1].samples
        before = mix and mix.after(before, samples=planned[-1].samples)
    return tuple(planned)


def _whole_steps(phase: Phase, batch: BatchPlan, n_samples: int, *, budget: int) -> int:
    """Return how many optimiser steps a phase's part of the budget holds.

    Raises:
        ConfigError: If it holds none.
    """
    steps = n_samples // batch.effective_batch_size
    if steps < 1:
        raise ConfigError(
            f"Phase `{phase.name}` has {n_samples} of the budget's {budget} samples, which is less than one "
            f"optimiser step of effective_batch_size = {batch.effective_batch_size}. Raise the budget or the "
            "phase's share, or give the phase a smaller `effective_batch_size`."
        )
    return steps


def _planned(
    phase: Phase, own: dict[str, Any], batch: BatchPlan, *, steps: int, replay_frac: float
) -> PlannedPhase:
    """Return a phase with what it says itself, what the point says for all of them, or the default."""
    return PlannedPhase(
        name=phase.name, data=tuple(phase.data), steps=steps, batch=batch, replay_frac=replay_frac,
        start=_first_given(phase.start, own.get("phase_start"), "last"),
        optimizer_state=_first_given(phase.optimizer_state, own.get("phase_optimizer_state"), "fresh"),
        settings=own,
    )  # fmt: skip


def _ends(phases: list[Phase], samples: int) -> list[int]:
    """Return where each phase is to end, in samples of the trial; the last at its end."""
    shares = shares_of(phases)
    whole = sum(shares)
    # Rounding guards against sums such as 0.1 + 0.2, which would end a phase one sample late.
    return [int(round(share / whole * samples, 6)) for share in itertools.accumulate(shares)]


def _settings_of(phase: Phase, settings: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: getattr(phase, name) for name in _OWN if getattr(phase, name) is not None}
    own = {**settings, **given}
    if any(name in given for name in WARMUP_FORMS):
        none = {"warmup_steps": 0, "warmup_samples": None, "warmup_frac": 0.0}
        own |= {name: given.get(name, none[name]) for name in WARMUP_FORMS}
    return named_schedule(own)


def _first_given(*values: Any) -> Any:
    return next(value for value in values if value is not None)
