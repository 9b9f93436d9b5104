"""The pruner by early dynamics: what a trial shows at a rung, judged by prediction or by rank among its peers.

Source: "Unveiling the Secret Recipe: A Guide For Supervised Fine-Tuning Small LLMs", arXiv:2412.13337: early in
training, a lower gradient norm and a higher loss go with a better final model. Differs: the paper gives no
window, threshold or rule, so those are ours; and the directions are learned from the study's own finished trials, or
settings, because on other data the loss was seen to point the other way.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from sweeper.learning import LearnedOptions
from sweeper.option_checks import check_count, check_fraction, check_word
from sweeper.pruners.eager import EagerRule
from sweeper.pruners.plain import plain_record, rungs_of
from sweeper.pruners.plain_idle import IdleWarnings
from sweeper.pruners.ranked import PAPER_SIGNALS, RankedSignal, shares
from sweeper.pruners.sure import CertainRule, ProbeRule
from sweeper.records import Decision, Direction, TrialRecord

if TYPE_CHECKING:
    from sweeper.pruners.learned import LearnedRule

logger = logging.getLogger(__name__)

Directions = Literal["learned", "paper"]
Mode = Literal["eager", "certain", "probe"]

PLAIN_METRIC = "metric"  # what the study's metric is called in plain Optuna, where it has no name


class EarlyDynamicsPruner(BasePruner):
    """Stops trials early by their signals at rungs: by prediction, or by rank.

    **Learned** (`directions="learned"`, the default where no rank option is given): some points run to their end; then
    each trial's final metric is predicted from its point and its signals, and a trial is stopped when it will hardly be
    the best. Nothing is assumed about which way a signal points. See `sweeper.pruners.learned`. Fewer than 20 points,
    those of a `prior` counted, are too few to learn from: there it stops nobody.

    **Rank**: at each rung a trial's windowed signals are ranked among all trials that reached the rung, running ones
    too. A trial's score is the weighted mean of its ranks; it goes on while fewer than `ceil(keep_frac * n)` of the n
    peers score strictly better. Ties are kept: early losses are often equal to four digits, and stopping on a tie
    would let the order of reports decide. What is not finite ranks last whatever the direction, and a trial that
    diverged before the rung counts as a peer that ranks last. `mode="eager"` judges as soon as `min_peers` trials are
    at the rung, and again as more arrive, so which trials are stopped depends on the order in which they report.
    `mode="certain"` stops nobody before it is sure whoever is still to come; see `sweeper.pruners.certain`.

    In plain Optuna, call `report_rung` and then `trial.should_prune()`; see `docs/`. It warns once where a trial ended
    without a rung or without a signal that is ranked, and where it knows of too few points to learn from: add all
    points of a grid to the study before it starts (`study.enqueue_trial`), so that it knows the grid. A pruner writes
    nothing, so what was decided, which `decisions` tells, and the risk that was spent are kept in this object: whoever
    goes on with a stored study in another process keeps it too (`pickle`).

    Args:
        signals: Signals to rank, by name, with their good direction and weight.
        directions: `learned`, or `paper` for the paper's fixed directions. Default: `learned`, unless `signals`,
            `keep_frac`, `min_peers` or `mode` is given.
        keep_frac: Fraction of a rung's trials that goes on, in (0, 1). Default: 0.5.
        min_peers: Trials, the judged one included, that must have reached a rung before anyone is judged there in
            eager mode. Default: 4.
        mode: `eager` (default), `certain` or `probe`, of the rank. `probe` needs whoever runs the trials to set them
            aside, which plain Optuna cannot.
        n_points: Points of the whole study, where they are not all in the study from the start; those that are added
            to a sweep count beside them. Needed by `certain` in plain Optuna.
        metric: Name of the study's metric among the signals, for `learned`. In plain Optuna the metric given to
            `report_rung` stands for it.
        direction: The metric's direction. Default: that of the Optuna study.
        learned: How `learned` spends its risk. Plain Optuna can neither set trials aside nor skip waiting ones, so
            there `set_aside` is refused and `skip_waiting` has no effect.
        prior: Completed trials of an earlier study, from which `learned` learns too; their numbers are negative.

    Raises:
        ValueError: If an option has a value that is not allowed, options of different modes are mixed, or the signals
            have no weight.
        TypeError: If an option is of another kind.
    """

    def __init__(
        self,
        *,
        signals: Mapping[str, RankedSignal] | None = None,
        directions: Directions | None = None,
        keep_frac: float | None = None,
        min_peers: int | None = None,
        mode: Mode | None = None,
        n_points: int | None = None,
        metric: str | None = None,
        direction: Direction | None = None,
        learned: LearnedOptions | None = None,
        prior: Mapping[int, TrialRecord] | None = None,
    ) -> None:
        for name, word, kind in (
            ("directions", directions, Directions), ("mode", mode, Mode), ("direction", direction, Direction)
        ):  # fmt: skip
            if word is not None:
                check_word(name, word, get_args(kind))
        _check_values(signals, learned, keep_frac=keep_frac, min_peers=min_peers, n_points=n_points)
        self._is_learned = _goes_by_prediction(
            directions, learned, signals=signals, others=(keep_frac, min_peers, mode)
        )
        self._signals = dict(PAPER_SIGNALS if signals is None else signals)
        shares(self._signals)  # raises where they have no weight
        self._keep_frac = 0.5 if keep_frac is None else keep_frac
        self._min_peers = 4 if min_peers is None else min_peers
        self._mode = mode or "eager"
        self._n_points = n_points
        self._metric = metric
        self._direction = direction
        self._learned_options = learned
        self._prior = prior
        self._rule_in_use: EagerRule | CertainRule | LearnedRule | None = None
        self._lock = threading.Lock()
        self._study_name: str | None = None  # in plain Optuna
        self._study_direction = direction
        self._idle = IdleWarnings()
        self._own_decisions: dict[tuple[str, int], list[dict[str, Any]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    @property
    def _rule(self) -> "EagerRule | CertainRule | LearnedRule":
        if self._rule_in_use is None:
            self._rule_in_use = self._make_rule()
        return self._rule_in_use

    def _make_rule(self) -> "EagerRule | CertainRule | LearnedRule":
        if self._is_learned:
            from sweeper.pruners.learned import LearnedRule  # scikit-learn takes a second to load

            return LearnedRule(
                metric=self._metric or PLAIN_METRIC, direction=self._study_direction or "minimize",
                options=self._learned_options, n_points=self._n_points, prior=self._prior,
            )  # fmt: skip
        if self._mode == "eager":
            return EagerRule(self._signals, keep_frac=self._keep_frac, min_peers=self._min_peers)
        rule = ProbeRule if self._mode == "probe" else CertainRule
        return rule(self._signals, keep_frac=self._keep_frac, n_points=self._n_points)

    # -- for whoever runs the trials; see `Judge` and `LearningJudge` --------------------------------------------

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Judge trials at one rung that they reached, against all that reached it. See `Judge`."""
        return self._rule.judge(numbers, rung, records)

    def judge_again(self, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Return what follows, for other trials, from what has been reported or has ended since."""
        return self._rule.judge_again(records)

    def next_of(self, waiting: Sequence[int], records: Mapping[int, TrialRecord]) -> int | None:
        """Return which of the waiting trials to start next; None where nobody is worth it now."""
        return self._rule.next_of(waiting, records)

    def survivors(self, records: Mapping[int, TrialRecord]) -> list[int]:
        """Return who survives in certain or probe mode: the same under any order, once every trial has ended.

        Raises:
            ValueError: In another mode, where who is left depends on the order.
        """
        if not isinstance(self._rule, CertainRule):
            # An option is wrong, not a type.
            raise ValueError(  # noqa: TRY004
                'Only `mode="certain"` and `mode="probe"` have survivors that no order changes.'
            )
        return self._rule.survivors(records)

    # -- plain Optuna ----------------------------------------------------------------------------------------

    def prune(self, study: "optuna.study.Study", trial: FrozenTrial) -> bool:
        """Judge a trial at the last rung it reached. Optuna's entry; writes nothing."""
        self._refuse_what_optuna_cannot()
        rungs = rungs_of(trial)
        # `study.optimize` calls from `n_jobs` threads, and what is learned is kept between calls.
        with self._lock:
            self._learn_anew_for(study)
            if not rungs:
                self._idle.note_no_rung(study, trial)
                return False
            self._idle.note_rung()
            trials = {other.number: other for other in study.get_trials(deepcopy=False)} | {
                trial.number: trial
            }
            records = {number: self._record(study, one) for number, one in trials.items()}
            decision = self.judge([trial.number], max(rungs), records)[0]
            self._own_decisions.setdefault((study.study_name, trial.number), []).append(decision.entry())
            logger.debug(
                "study `%s`, trial %d: %s, %s",
                study.study_name, trial.number, "stop" if decision.stop else "go on", decision.reason,
            )  # fmt: skip
            rule = self._rule
            if isinstance(rule, EagerRule | CertainRule):
                self._idle.note_signals(study, self._signals, records, trial.number)
            elif rule.has_too_few:
                self._idle.note_too_few(study, rule.n_known)
        return decision.stop

    def decisions(self, study: "optuna.study.Study") -> dict[int, list[Decision]]:
        """Return what this object decided in a plain Optuna study: by trial number, one for each time it was asked.

        Without the trials that came to no rung, and without what another pruner object decided, such as that of
        another process.
        """
        with self._lock:
            return {
                number: [Decision(trial=number, **entry) for entry in entries]
                for (name, number), entries in sorted(self._own_decisions.items())
                if name == study.study_name
            }

    def _refuse_what_optuna_cannot(self) -> None:
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
        if self._learned_options is not None and self._learned_options.set_aside:
            raise ValueError(
                "`learned=LearnedOptions(set_aside=True)` gives a trial's slot to another one, which `study.optimize` "
                "cannot. Leave `set_aside` out."
            )

    def _learn_anew_for(self, study: "optuna.study.Study") -> None:
        """Forget what was learned from another study."""
        if study.study_name != self._study_name:
            self._study_name, self._rule_in_use = study.study_name, None
            self._idle = IdleWarnings()
            maximize = study.direction.name == "MAXIMIZE"
            self._study_direction = self._direction or ("maximize" if maximize else "minimize")

    def _record(self, study: "optuna.study.Study", trial: FrozenTrial) -> TrialRecord:
        decided = self._own_decisions.get((study.study_name, trial.number), ())
        return plain_record(trial, metric=self._metric or PLAIN_METRIC, decisions=decided)


def _check_values(
    signals: Mapping[str, RankedSignal] | None, learned: LearnedOptions | None, *, keep_frac: float | None,
    min_peers: int | None, n_points: int | None,
) -> None:  # fmt: skip
    """Refuse options of the wrong kind or out of their bounds."""
    for name, signal in (signals or {}).items():
        if not isinstance(signal, RankedSignal):
            raise TypeError(
                f"`signals[{name!r}]` must be a `RankedSignal`, but got {signal!r}. Write for example "
                f'`signals={{{name!r}: RankedSignal(direction="minimize")}}`.'
            )
    if learned is not None and not isinstance(learned, LearnedOptions):
        raise TypeError(
            f"`learned` must be a `LearnedOptions`, but got {learned!r}. Write for example "
            "`learned=LearnedOptions(risk=0.02)`."
        )
    if keep_frac is not None:
        check_fraction("keep_frac", keep_frac)
    for name, count in (("min_peers", min_peers), ("n_points", n_points)):
        if count is not None:
            check_count(name, count)


def _goes_by_prediction(
    directions: str | None, learned: LearnedOptions | None, *, signals: Mapping[str, RankedSignal] | None,
    others: Sequence[object],
) -> bool:  # fmt: skip
    """Return whether trials are judged by prediction, else by rank; `signals` and `others` are options of the rank.

    Raises:
        ValueError: If options of both are given.
    """
    is_ranked = any(option is not None for option in (signals, *others))
    is_learned = directions == "learned" or (directions is None and not is_ranked)
    if is_learned and is_ranked:
        raise ValueError(
            "`signals`, `keep_frac`, `min_peers` and `mode` belong to the rank, not to "
            '`directions="learned"`. Leave them out, or leave `directions` out.'
        )
    if signals is not None and directions is not None:
        raise ValueError("`signals` and `directions` both say which way is good. Give one of them.")
    if not is_learned and learned is not None:
        raise ValueError('`learned` belongs to `directions="learned"`, not to the rank. Leave it out.')
    return is_learned
