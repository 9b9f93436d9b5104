"""The pruner by early dynamics: windowed loss and gradient norm, ranked among the trials at a rung.

Source: "Unveiling the Secret Recipe: A Guide For Supervised Fine-Tuning Small LLMs", arXiv:2412.13337: early in
training, a lower gradient norm and a higher loss go with a better final model. Differs: the paper gives no
window, threshold or rule, so those are ours; and the directions are settings, because on other data the
loss was seen to point the other way.
"""

import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from sweeper import encoding
from sweeper.pruners.divergence import DIVERGENCE_RULES
from sweeper.records import GRAD_NORM, LOSS, Decision, RungRecord, TrialRecord, TrialState

RULE = "early_dynamics"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankedSignal:
    """A signal that takes part in the rank."""

    direction: Literal["minimize", "maximize"]
    weight: float = 1.0


PAPER_SIGNALS: Mapping[str, RankedSignal] = {
    LOSS: RankedSignal(direction="maximize"),
    GRAD_NORM: RankedSignal(direction="minimize"),
}


class EarlyDynamicsPruner(BasePruner):
    """Stops the trials whose early signals rank outside the best fraction of a rung.

    At each rung a trial's windowed signals are ranked among all trials that reached the rung, running ones too.
    A trial's score is the weighted mean of its ranks; it goes on while fewer than `ceil(keep_frac * n)` of the n
    peers score strictly better. Ties are kept: early losses are often equal to four digits, and stopping on a tie
    would let the order of reports decide. A NaN ranks last whatever the direction, and a trial that diverged
    before the rung counts as a peer that ranks last.

    This mode is eager: it judges as soon as `min_peers` trials are at the rung, and again as more arrive, so
    which trials are stopped depends on the order in which they report.

    In plain Optuna, call `report_rung` and then `trial.should_prune()`; see README.

    Args:
        signals: Signals by name with their good direction and weight. Default: the paper's directions.
        keep_frac: Fraction of a rung's trials that goes on, in (0, 1).
        min_peers: Trials, the judged one included, that must have reached a rung before anyone is judged there.
    """

    def __init__(
        self,
        *,
        signals: Mapping[str, RankedSignal] | None = None,
        keep_frac: float = 0.5,
        min_peers: int = 4,
    ) -> None:
        self._signals = dict(PAPER_SIGNALS if signals is None else signals)
        self._keep_frac = keep_frac
        self._min_peers = min_peers

    @property
    def signal_names(self) -> tuple[str, ...]:
        return tuple(self._signals)

    def prune(self, study: "optuna.study.Study", trial: FrozenTrial) -> bool:
        """Judge a trial at the last rung it reached. Optuna's entry; writes nothing."""
        rungs = _rungs_of(trial)
        if not rungs:
            return False
        newest = max(rungs)
        records = {
            other.number: _as_record(other) for other in study.get_trials(deepcopy=False) if other.user_attrs
        }
        records[trial.number] = _as_record(trial)
        return self.judge([trial.number], newest, records)[0].stop

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Judge trials at one rung that they reached, against all that reached it. One decision each, in order."""
        standings = self._standings(rung, records)
        n_kept = math.ceil(self._keep_frac * len(standings))
        ascending = sorted(standings.values())
        decisions = []
        for number in numbers:
            n_better = len(ascending) - bisect.bisect_right(ascending, standings[number])
            record = records[number].rungs[rung]
            decisions.append(
                Decision(
                    trial=number,
                    stop=len(standings) >= self._min_peers and n_better >= n_kept,
                    rule=RULE,
                    reason=self._reason(record, n_better=n_better, n_peers=len(standings), n_kept=n_kept),
                    rung=rung,
                    samples=record.samples,
                    details={
                        "signals": {name: record.signals.get(name) for name in self._signals},
                        "rank": n_better + 1,
                        "peers": sorted(standings),
                        "kept": n_kept,
                        "mode": "eager",
                    },
                )
            )
        return decisions

    def _standings(self, rung: int, records: Mapping[int, TrialRecord]) -> dict[int, float]:
        """Return the score of every peer at a rung; higher is better, -1 for those that diverged before it."""
        peers = {number: record.rungs[rung] for number, record in records.items() if rung in record.rungs}
        scores = dict.fromkeys(peers, 0.0)
        total = sum(signal.weight for signal in self._signals.values())
        for name, signal in self._signals.items():
            values = {number: peer.signals.get(name, math.nan) for number, peer in peers.items()}
            for number, rank in _rank_fractions(values, maximize=signal.direction == "maximize").items():
                scores[number] += signal.weight / total * rank
        diverged = [number for number, record in records.items() if number not in peers and _diverged(record)]
        return {**scores, **dict.fromkeys(diverged, -1.0)}

    def _reason(self, record: RungRecord, *, n_better: int, n_peers: int, n_kept: int) -> str:
        values = ", ".join(
            f"{name} {record.signals.get(name, math.nan):.4g} "
            f"({'low' if signal.direction == 'minimize' else 'high'} is good)"
            for name, signal in self._signals.items()
        )
        return f"{values}: rank {n_better + 1} of {n_peers} at rung {record.rung}, the best {n_kept} go on"


def _rank_fractions(values: Mapping[int, float], *, maximize: bool) -> dict[int, float]:
    """Return each value's rank as a fraction in [0, 1], 1 the best; equal values share their mean rank.

    NaN ranks below everything.
    """

    def goodness(value: float) -> float:
        if math.isnan(value):
            return -math.inf
        return value if maximize else -value

    ordered = sorted(goodness(value) for value in values.values())
    mean_rank: dict[float, float] = {}
    for index, value in enumerate(ordered):
        mean_rank.setdefault(value, index)  # first index among equals
    last = {value: index for index, value in enumerate(ordered)}
    top = max(len(ordered) - 1, 1)
    return {
        number: (mean_rank[goodness(value)] + last[goodness(value)]) / 2 / top
        for number, value in values.items()
    }


def _diverged(record: TrialRecord) -> bool:
    """Whether a trial was stopped by a divergence rule, which judges at no rung."""
    return record.state is TrialState.PRUNED and any(
        decision.get("stop") and decision.get("rule") in DIVERGENCE_RULES for decision in record.decisions
    )


def report_rung(
    trial: "optuna.Trial",
    *,
    rung: int,
    mark: int,
    step: int,
    samples: int,
    signals: Mapping[str, float],
    metric: float | None = None,
) -> None:
    """Record a rung's signals on a plain Optuna trial, for `EarlyDynamicsPruner`.

    Args:
        rung: Index of the rung, from 0.
        mark: Where it lies, in samples; the step of Optuna's intermediate value.
        signals: Windowed `loss` and `grad_norm`, and whatever else the pruner was told to rank.
        metric: The study's metric here, if it was evaluated; becomes Optuna's intermediate value.
    """
    record = RungRecord(rung=rung, mark=mark, step=step, samples=samples, signals=dict(signals))
    trial.set_user_attr(f"{encoding.RUNG_PREFIX}{rung}", encoding.encode_rung(record))
    if metric is not None:
        trial.report(metric, mark)


def _rungs_of(trial: FrozenTrial) -> dict[int, Any]:
    prefix = encoding.RUNG_PREFIX
    return {int(k[len(prefix) :]): v for k, v in trial.user_attrs.items() if k.startswith(prefix)}


def _as_record(trial: FrozenTrial) -> TrialRecord:
    return encoding.record_of(trial, settings={}, params=trial.params)
