"""How many target tokens a training sample has, as a mean over the data sets as a point draws from them."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import Phase
from sweeper.phases import PHASED
from sweeper.plan.data import DataFacts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mix:
    """So many samples have so many target tokens."""

    samples: float
    tokens: float

    @property
    def tokens_per_sample(self) -> float:
        return self.tokens / self.samples

    def with_replay(self, frac: float, before: "Mix | None") -> "Mix":
        """Return the mix of which a share is drawn from what was trained on before."""
        if before is None or not frac:
            return self
        return Mix(samples=1.0, tokens=(1 - frac) * self.tokens_per_sample + frac * before.tokens_per_sample)

    def after(self, before: "Mix | None", *, samples: float) -> "Mix":
        """Return what was trained on once so many samples of this mix have followed what came before."""
        tokens = samples * self.tokens_per_sample
        if before is None:
            return Mix(samples=samples, tokens=tokens)
        return Mix(samples=before.samples + samples, tokens=before.tokens + tokens)


def mix_of(
    facts: DataFacts | None, weights: Mapping[str, float] | None, names: Collection[str] | None = None
) -> Mix | None:
    """Return what samples are drawn from; None until the data was counted.

    Args:
        facts: Of the training data.
        weights: Of the data sets; None: by their rows.
        names: Data sets that are drawn from; None: all.
    """
    if facts is None or not facts.target_tokens:
        return None
    if not facts.sets or (weights is None and names is None):
        return Mix(samples=facts.rows, tokens=facts.target_tokens)
    drawn = {name: one for name, one in facts.sets.items() if names is None or name in names}
    shares = {name: float(rows) if weights is None else weights[name] for name, (rows, _) in drawn.items()}
    tokens = sum(shares[name] * tokens / rows for name, (rows, tokens) in drawn.items())
    return Mix(samples=sum(shares.values()), tokens=tokens)


def shared_mix(config: SweepConfig, facts: DataFacts | None) -> Mix | None:
    """Return what the points of a sweep whose budget is in tokens draw from: all the same, as its rules see to."""
    settings = config.trial.settings
    weights = settings.get("data_weights")
    phases = config.trial.phases
    if not facts or not facts.sets or phases is None or settings.get("data_strategy") != PHASED:
        return mix_of(facts, weights)
    before: Mix | None = None
    for phase, share in zip(phases, shares_of(phases), strict=True):
        mix = mix_of(facts, weights, phase.data)
        if mix is None:
            return None
        before = mix.with_replay(replay_of(phase, settings), before).after(before, samples=share)
    return before


def shares_of(phases: Sequence[Phase]) -> list[float]:
    """Return the phases' shares of the budget; they need not sum to one."""
    return [
        next(share for share in (phase.budget_frac, phase.samples, 1.0) if share is not None)
        for phase in phases
    ]


def replay_of(phase: Phase, settings: Mapping[str, Any]) -> float:
    """Return the share of a phase that is drawn from the phases before; that of the first has no meaning."""
    return next(frac for frac in (phase.replay_frac, settings.get("replay_frac"), 0.0) if frac is not None)
