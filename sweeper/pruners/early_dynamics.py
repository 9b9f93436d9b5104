"""The pruner by early dynamics: what a trial shows at a rung, judged by prediction or by rank among its peers.

Source: "Unveiling the Secret Recipe: A Guide For Supervised Fine-Tuning Small LLMs", arXiv:2412.13337: early in
training, a lower gradient norm and a higher loss go with a better final model. Differs: the paper gives no
window, threshold or rule, so those are ours; and the directions are learned from the study's own finished trials, or
settings, because on other data the loss was seen to point the other way.
"""

import dataclasses
import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from sweeper import encoding
from sweeper.learning import LearnedOptions
from sweeper.pruners.certain import CertainRank
from sweeper.pruners.standings import Standings
from sweeper.records import GRAD_NORM, LOSS, Decision, RungRecord, TrialRecord

if TYPE_CHECKING:
    from sweeper.pruners.learned import LearnedRule

RULE = "early_dynamics"
_LISTED_PEERS = 256  # a decision names no more: written 10,000 times, lists of 10,000 would fill the storage
PLAIN_METRIC = "metric"  # what the study's metric is called in plain Optuna, where it has no name


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
    """Stops trials early by their signals at rungs: by prediction, or by rank.

    **Learned** (`directions="learned"`, the default where no rank option is given): some points run to their end; then
    each trial's final metric is predicted from its point and its signals, and a trial is stopped when it will hardly be
    the best. Nothing is assumed about which way a signal points. See `sweeper.pruners.learned`. Studies of fewer than
    20 points are too small to learn from: there it stops nobody.

    **Rank**: at each rung a trial's windowed signals are ranked among all trials that reached the rung, running ones
    too. A trial's score is the weighted mean of its ranks; it goes on while fewer than `ceil(keep_frac * n)` of the n
    peers score strictly better. Ties are kept: early losses are often equal to four digits, and stopping on a tie
    would let the order of reports decide. A NaN ranks last whatever the direction, and a trial that diverged
    before the rung counts as a peer that ranks last. `mode="eager"` judges as soon as `min_peers` trials are at the
    rung, and again as more arrive, so which trials are stopped depends on the order in which they report.
    `mode="certain"` stops nobody before it is sure whoever is still to come; see `sweeper.pruners.certain`.

    In plain Optuna, call `report_rung` and then `trial.should_prune()`; see README. There the learned rule keeps what
    it decided in this object, since a pruner writes nothing; add all points of a grid to the study before it
    starts (`study.enqueue_trial`), so that it knows the grid.

    Args:
        signals: Signals to rank, by name, with their good direction and weight.
        directions: `learned`, or `paper` for the paper's fixed directions. Default: `learned`, unless `signals`,
            `keep_frac`, `min_peers` or `mode` is given.
        keep_frac: Fraction of a rung's trials that goes on, in (0, 1). Default: 0.5.
        min_peers: Trials, the judged one included, that must have reached a rung before anyone is judged there in
            eager mode. Default: 4.
        mode: `eager` (default), `certain` or `probe`, of the rank. `probe` needs whoever runs the trials to set them
            aside, which plain Optuna cannot.
        n_points: Points of the whole study, where they are not all in the study from the start. Needed by `certain` in
            plain Optuna.
        metric: Name of the study's metric among the signals, for `learned`. In plain Optuna the metric given to
            `report_rung` stands for it.
        direction: The metric's direction. Default: that of the Optuna study.
        learned: How `learned` spends its risk.

    Raises:
        ValueError: If options of different modes are mixed.
    """

    def __init__(
        self,
        *,
        signals: Mapping[str, RankedSignal] | None = None,
        directions: Literal["learned", "paper"] | None = None,
        keep_frac: float | None = None,
        min_peers: int | None = None,
        mode: Literal["eager", "certain", "probe"] | None = None,
        n_points: int | None = None,
        metric: str | None = None,
        direction: Literal["minimize", "maximize"] | None = None,
        learned: LearnedOptions | None = None,
        prior: Mapping[int, TrialRecord] | None = None,
    ) -> None:
        is_ranked = any(option is not None for option in (signals, keep_frac, min_peers, mode))
        self._is_learned = directions == "learned" or (directions is None and not is_ranked)
        if self._is_learned and is_ranked:
            raise ValueError(
                "`signals`, `keep_frac`, `min_peers` and `mode` belong to the rank, not to "
                '`directions="learned"`. Leave them out, or leave `directions` out.'
            )
        if signals is not None and directions is not None:
            raise ValueError("`signals` and `directions` both say which way is good. Give one of them.")
        if not self._is_learned and learned is not None:
            raise ValueError('`learned` belongs to `directions="learned"`, not to the rank. Leave it out.')
        self._signals = dict(PAPER_SIGNALS if signals is None else signals)
        self._keep_frac = 0.5 if keep_frac is None else keep_frac
        self._min_peers = 4 if min_peers is None else min_peers
        self._mode = mode or "eager"
        total = sum(signal.weight for signal in self._signals.values())
        self._standings = Standings(
            [(n, s.weight / total, s.direction == "maximize") for n, s in self._signals.items()]
        )
        self._certain = CertainRank(
            directions={n: 1.0 if s.direction == "maximize" else -1.0 for n, s in self._signals.items()},
            weights={name: signal.weight / total for name, signal in self._signals.items()},
            keep_frac=self._keep_frac,
            n_points=n_points,
        )
        self._n_points = n_points
        self._metric = metric
        self._direction = direction
        self._learned_options = learned
        self._prior = prior
        self._rule: LearnedRule | None = None
        self._lock = threading.Lock()
        self._study_name: str | None = None  # in plain Optuna
        self._study_direction = direction
        self._own_decisions: dict[tuple[str, int], list[dict[str, Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    @property
    def signal_names(self) -> tuple[str, ...]:
        return () if self._is_learned else tuple(self._signals)

    def prune(self, study: "optuna.study.Study", trial: FrozenTrial) -> bool:
        """Judge a trial at the last rung it reached. Optuna's entry; writes nothing."""
        rungs = _rungs_of(trial)
        if not rungs:
            return False
        if self._mode == "probe":
            raise ValueError(
                '`mode="probe"` lets trials wait at a rung, which `study.optimize` cannot. Use `mode="certain"`: the '
                "same trials survive."
            )
        if self._mode == "certain" and self._n_points is None:
            raise ValueError(
                '`mode="certain"` must know how many points the study has. Pass `n_points`, for example '
                "`n_points=len(grid)`."
            )
        with (
            self._lock
        ):  # `study.optimize` calls from `n_jobs` threads, and what is learned is kept between calls
            self._learn_anew_for(study)
            records = {other.number: self._record(study, other) for other in study.get_trials(deepcopy=False)}
            records[trial.number] = self._record(study, trial)
            decision = self.judge([trial.number], max(rungs), records)[0]
            self._own_decisions.setdefault((study.study_name, trial.number), []).append(decision.entry())
        return decision.stop

    def _learn_anew_for(self, study: "optuna.study.Study") -> None:
        """Forget what was learned from another study."""
        if study.study_name != self._study_name:
            self._study_name, self._rule = study.study_name, None
            maximize = study.direction.name == "MAXIMIZE"
            self._study_direction = self._direction or ("maximize" if maximize else "minimize")

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Judge trials at one rung that they reached, against all that reached it. See `Judge`."""
        if self._is_learned:
            return self._learned_rule().judge(numbers, rung, records)
        if self._mode == "certain":
            return self._judge_certain(numbers, rung, records)
        if self._mode == "probe":
            first, *others = self._judge_certain(numbers, rung, records)
            waits = not first.stop and first.trial in self._certain.waiting(records)
            return [dataclasses.replace(first, aside=waits), *others]
        return self._judge_eager(numbers, rung, records)

    def judge_again(self, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Return what follows, for other trials, from what has been reported or has ended since."""
        if self._is_learned:
            return self._learned_rule().judge_again(records)
        if self._mode in ("certain", "probe"):
            self._certain.read(records)
            return [self._certain_decision(records[n]) for n in self._certain.open_condemned]
        return []

    def next_of(self, waiting: Sequence[int], records: Mapping[int, TrialRecord]) -> int | None:
        """Return which of the waiting trials to start next; None where nobody is worth it now."""
        if self._is_learned:
            return self._learned_rule().next_of(waiting, records)
        if self._mode != "probe":
            return waiting[0]
        at_a_rung = self._certain.waiting(records)
        free = [number for number in waiting if number not in at_a_rung]
        if free or any(r.is_training for r in records.values()):
            return min(free, key=lambda number: bool(records[number].rungs), default=None)
        return waiting[0]  # the others of its rung failed without a word

    def survivors(self, records: Mapping[int, TrialRecord]) -> list[int]:
        """Return who survives in certain or probe mode: the same under any order, once every trial has ended."""
        return self._certain.survivors(records)

    def _learned_rule(self) -> "LearnedRule":
        if self._rule is None:
            from sweeper.pruners.learned import LearnedRule  # scikit-learn takes a second to load

            self._rule = LearnedRule(
                metric=self._metric or PLAIN_METRIC, direction=self._study_direction or "minimize",
                options=self._learned_options, n_points=self._n_points, prior=self._prior,
            )  # fmt: skip
        return self._rule

    def _record(self, study: "optuna.study.Study", trial: FrozenTrial) -> TrialRecord:
        """Return a plain Optuna trial as a record, with the metric among the signals and what was decided here."""
        # A point that was enqueued and has not started has its params here only (optuna 5.0.0).
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        record = encoding.record_of(trial, settings={}, params=params)
        record.decisions = record.decisions or self._own_decisions.get((study.study_name, trial.number), [])
        record.point_id = record.point_id or str(trial.number)
        name = self._metric or PLAIN_METRIC
        for index, rung in record.rungs.items():
            value = trial.intermediate_values.get(rung.mark)
            if value is not None and name not in rung.signals:
                record.rungs[index] = dataclasses.replace(rung, signals={**rung.signals, name: value})
        return record

    def _judge_certain(
        self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]
    ) -> list[Decision]:
        """Judge at every rung that the trials passed: what was not sure there may have become so."""
        self._certain.read(records)
        condemned = set(self._certain.open_condemned)
        first, *others = numbers
        return [
            self._certain_decision(records[first], rung),
            *(self._certain_decision(records[number]) for number in others if number in condemned),
        ]

    def _certain_decision(self, record: TrialRecord, rung: int | None = None) -> Decision:
        verdict = self._certain.verdict(record.number)
        at = max(record.rungs) if rung is None else rung
        if verdict is not None:
            at = min((index for index in record.rungs if index >= verdict.rung), default=at)
        kept = (
            "not sure yet to be outside the kept"
            if verdict is None
            else f"surely {verdict.n_better} are better of the at most {verdict.n_entering} that enter, of "
            f"which the best {verdict.n_kept} go on"
        )
        shown = record.rungs[at]
        return Decision(
            trial=record.number, stop=verdict is not None, rule=RULE,
            reason=f"{self._values(shown)}: at rung {at} {kept}", rung=at, samples=record.samples,
            details={
                "signals": {name: shown.signals.get(name) for name in self._signals}, "mode": "certain",
                **({} if verdict is None else dataclasses.asdict(verdict)),
            },
        )  # fmt: skip

    def _judge_eager(
        self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]
    ) -> list[Decision]:
        self._standings.read(records)
        scores, n_peers = self._standings.at(rung), self._standings.n_peers(rung)
        n_kept = math.ceil(self._keep_frac * n_peers)
        peers = {"peers": self._standings.peers(rung)} if n_peers <= _LISTED_PEERS else {"n_peers": n_peers}
        decisions = []
        for number in numbers:
            n_better = scores.n_better(number)
            record = records[number].rungs[rung]
            decisions.append(
                Decision(
                    trial=number,
                    stop=n_peers >= self._min_peers and n_better >= n_kept,
                    rule=RULE,
                    reason=self._reason(record, n_better=n_better, n_peers=n_peers, n_kept=n_kept),
                    rung=rung,
                    samples=record.samples,
                    details={
                        "signals": {name: record.signals.get(name) for name in self._signals},
                        "rank": n_better + 1,
                        **peers,
                        "kept": n_kept,
                        "mode": "eager",
                    },
                )
            )
        return decisions

    def _reason(self, record: RungRecord, *, n_better: int, n_peers: int, n_kept: int) -> str:
        place = f"rank {n_better + 1} of {n_peers} at rung {record.rung}"
        return f"{self._values(record)}: {place}, the best {n_kept} go on"

    def _values(self, record: RungRecord) -> str:
        return ", ".join(
            f"{name} {record.signals.get(name, math.nan):.4g} "
            f"({'low' if signal.direction == 'minimize' else 'high'} is good)"
            for name, signal in self._signals.items()
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
