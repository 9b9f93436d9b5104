"""Learned pruning: predicts each trial's final metric and stops it when it will hardly be the best. Pure.

Calibration points, spread over the grid, run to their end. From then on each trial's final metric is predicted from its
place in the grid and its signals so far, by everything that has finished. A trial is stopped when the chance that it
ends better than the best known value by more than the tolerance is small enough for the whole study's `risk`.

The risk is spent like money. A study fails only if some stopped trial would have beaten the best by more than the
tolerance, and that is no likelier than the sum of the chances at which they were stopped. So each stop pays its chance,
and what is left is shared among the trials that are still open. The chances are the model's, so the risk is
model-based: where the predictions stop holding, nobody is stopped.

Where trials can be set aside, hardly anybody needs to be stopped before the end: a trial gives its slot to one that is
likelier to be the best, and may go on later; see `sweeper.pruners.aside`. Once the chances of all open trials together
are no more than the risk that is left, all of them are stopped. So training goes where it can still change the choice.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sweeper.learning import LEARNED_MIN_POINTS, LearnedOptions, calibration_size, too_few
from sweeper.pruners.aside import or_aside, or_waiting, waited_for
from sweeper.pruners.audit import AUDIT_RULE, audit_decision, is_chosen
from sweeper.pruners.changes import Changes
from sweeper.pruners.forecast import Forecaster
from sweeper.pruners.ledger import Ledger
from sweeper.pruners.outlook import Outlook, OutlookTable
from sweeper.pruners.predicted import Stakes, plain_decision, predicted_decision, with_reason
from sweeper.records import Decision, Direction, LoggedRecords, TrialRecord, TrialState, goodness_sign

_POOL = 0.1  # of the risk that is left: what one round of stops may take where that is more than equal shares
_EARLY = (
    0.1  # of the risk that is left: what stops may take that only free the disk, where trials are set aside
)


class LearnedRule:
    """Judges by prediction. Keeps caches only: the same records give the same decisions.

    Args:
        metric: Name of the study's metric among the signals; None where it is not among them.
        direction: The metric's direction.
        options: How the risk is spent.
        n_points: Points of the whole study, where the records do not hold all of them from the start.
        prior: Completed trials of an earlier study, from which it learns too; their numbers are negative.
    """

    def __init__(
        self,
        *,
        metric: str | None,
        direction: Direction,
        options: LearnedOptions | None = None,
        n_points: int | None = None,
        prior: Mapping[int, TrialRecord] | None = None,
    ) -> None:
        self._n_prior = len(prior or {})
        self._metric = metric or "the metric"
        self._sign = goodness_sign(direction)
        self._options = options or LearnedOptions()
        self._declared_points = n_points or 0
        self._forecaster = Forecaster(
            metric=metric, sign=self._sign, tolerance=self._options.tolerance, prior=prior
        )
        self._changes, self._n_read = Changes(), 0
        self._ledger = Ledger(self._sign)
        self._judged_with: tuple[int, ...] | None = None
        self._all_drawn = False  # no point is to come beside those in the records

    @property
    def n_known(self) -> int:
        """Points that it knows of, those of the prior counted."""
        return self._n_points + self._n_prior

    @property
    def has_too_few(self) -> bool:
        """Whether it knows of too few points to learn from, so that nobody is stopped."""
        return self.n_known < LEARNED_MIN_POINTS

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Judge the first of some trials at the rung where they stand, and stop whom of the others it may."""
        self._read(records)
        record, why = records[numbers[0]], self._why_nobody()
        if why is not None:
            return [plain_decision(record, why)]
        table, broken = self._table(records), self._ledger.broken_predictions
        stops = {} if broken is not None else {
            decision.trial: decision for decision in self._stops(records, table, among=numbers)
        }  # fmt: skip
        first = stops.pop(record.number, None) or self._going_on(record, table, broken)
        if self._options.set_aside and not first.stop:
            first = or_aside(first, records, table)
            if self._may_leave_free:
                first = or_waiting(first, table)
        return [first, *(decision for decision in stops.values() if decision.stop)]

    def judge_again(self, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Return what follows from the trials that ended since: stops and audits, of running and waiting ones."""
        self._read(records)
        # Only a trial that came to its end changes what others are worth by much; but each rung may settle the choice.
        ledger = self._ledger
        key: tuple[int, ...] = (ledger.n_complete,)
        if self._options.set_aside:
            key += (len(records), ledger.n_unfinished, ledger.n_rungs_of_unfinished)
        if key == self._judged_with or self._why_nobody() is not None:
            return []
        self._judged_with = key
        if ledger.broken_predictions is not None:
            return []
        table = self._table(records)
        return list(self._stops(records, table))

    def next_of(self, waiting: Sequence[int], records: Mapping[int, TrialRecord]) -> int | None:
        """Return the trial to start next: calibration points, then the likeliest to be the best, audits last.

        None where those that run may settle the choice, so that all others together are hardly worth their training,
        and where one of those is far likelier to be the best than any other.
        """
        waiting = list(waiting)
        self._read(records)
        if self.has_too_few:
            return waiting[0]
        chosen = self._forecaster.reader.calibration(self._n_calibration)
        due = (n for n in chosen if not records[n].state.is_finished and n in waiting)
        first = next(due, None)
        if first is not None:
            return first
        if not self._ledger.n_complete:
            return waiting[0]
        table = self._table(records)
        found = table.first(waiting, by_chance=self._options.set_aside)
        if found is None:
            return waiting[0]
        if self._may_leave_free and (self._may_wait(waiting, table) or waited_for(found, table) is not None):
            return None
        return found

    @property
    def _may_leave_free(self) -> bool:
        """Whether a slot may stay free while the result of a trial that trains is waited for."""
        options = self._options
        return options.set_aside and not options.fill_slots and self._ledger.broken_predictions is None

    def _may_wait(self, waiting: Sequence[int], table: OutlookTable) -> bool:
        """Whether those that run may settle the choice, so that the waiting ones are hardly worth their training."""
        if self._why_nobody() or not self._ledger.n_training:
            return False
        may_stop, together = table.may_stop(skip_waiting=self._options.skip_waiting, among=waiting)
        return may_stop and together <= self._left

    # -- deciding --------------------------------------------------------------------------------------------

    def _read(self, records: Mapping[int, TrialRecord]) -> None:
        """Take in what was reported and has ended."""
        is_anew, numbers = self._changes.read(records)
        if is_anew or len(records) != self._n_read or any(records[number].is_in_vain for number in numbers):
            self._n_read = len(records)
            self._forecaster.reader.read(records)
        self._all_drawn = isinstance(records, LoggedRecords) and records.all_drawn
        self._ledger.take_in(is_anew=is_anew, numbers=numbers, records=records)
        self._forecaster.take_in(is_anew=is_anew, numbers=numbers)

    def _table(self, records: Mapping[int, TrialRecord]) -> OutlookTable:
        return self._forecaster.table(records, self._ledger)

    @property
    def _n_points(self) -> int:
        reader = self._forecaster.reader
        return max(reader.n_points, 0 if self._all_drawn else self._declared_points + reader.n_beside)

    @property
    def _n_undrawn(self) -> int:
        """Points that are not in the records yet."""
        return self._n_points - self._forecaster.reader.n_points

    @property
    def _n_calibration(self) -> int:
        return self._options.n_calibration or calibration_size(self._n_points, n_prior=self._n_prior)

    @property
    def _left(self) -> float:
        """What is left of the risk."""
        return max(0.0, self._options.risk - self._ledger.spent)

    def _why_nobody(self) -> str | None:
        """Say why nobody can be predicted yet; None where the calibration is done."""
        if self.has_too_few:
            return f"{too_few(self._n_points)}: only what diverges is stopped"
        n_complete, wanted = self._ledger.n_calibrating, self._n_calibration
        if n_complete < wanted:
            return f"calibration: {n_complete} of {wanted} trials have run to their end"
        return None

    def _going_on(self, record: TrialRecord, table: OutlookTable, broken: str | None) -> Decision:
        """Return the decision on a trial that is not stopped."""
        outlook = table.outlook(record.number)
        if outlook is None:
            return plain_decision(record, "too few finished trials to predict")
        if audit_decision(record) is not None:
            return plain_decision(record, "goes on in the shadow, as an audit", rule=AUDIT_RULE)
        decision = self._decision(record, outlook, stop=False, allowed=self._allowed())
        return decision if broken is None else with_reason(decision, broken)

    def _stops(
        self, records: Mapping[int, TrialRecord], table: OutlookTable, *, among: Iterable[int] | None = None
    ) -> Iterator[Decision]:
        """Yield the stops and the new audits among trials, in the order of their chances."""
        settled = self._settled(table) if self._options.set_aside else None
        if settled is not None:
            yield from (self._settled_stop(records[n], table, settled) for n in table.judged(among))
            return
        left, n_open, pool = self._left, self._n_open, _POOL * self._left
        if self._options.set_aside:
            left, pool = _EARLY * left, 0.0
        for number in table.stoppable(among, skip_waiting=self._options.skip_waiting, at_most=left):
            outlook = table.outlook(number)
            assert outlook is not None
            allowed = max(left / max(n_open, 1), pool)
            if outlook.chance > allowed:
                return  # nor may any later one, whose chance is larger
            decision = self._decision(records[number], outlook, stop=True, allowed=allowed)
            decision = self._audited(records[number], decision)
            if decision.stop:
                left, pool, n_open = left - outlook.chance, pool - outlook.chance, n_open - 1
            yield decision

    def _settled_stop(self, record: TrialRecord, table: OutlookTable, settled: str) -> Decision:
        outlook = table.outlook(record.number)
        assert outlook is not None
        decision = self._decision(record, outlook, stop=True, allowed=outlook.chance)
        return self._audited(record, with_reason(decision, settled))

    @property
    def _n_open(self) -> int:
        return self._ledger.n_open + self._n_undrawn

    def _allowed(self) -> float:
        """Return the largest chance at which one trial may be stopped now."""
        share, pool = (_EARLY, 0.0) if self._options.set_aside else (1.0, _POOL)
        return max(share * self._left / max(self._n_open, 1), pool * self._left)

    def _settled(self, table: OutlookTable) -> str | None:
        """Say that the open trials together hardly change the choice any more; None while they may."""
        left, n_open = self._left, self._ledger.n_open
        may_stop, together = table.may_stop(skip_waiting=self._options.skip_waiting)
        if not may_stop or self._n_undrawn or together > left:
            return None
        return f"all {n_open} open trials together have a chance of {together:.2g} to be it, within the {left:.2g} left"

    def _audited(self, record: TrialRecord, decision: Decision) -> Decision:
        """Let a condemned trial go on, where the audit chose it; one that has not started would cost it all."""
        if record.state is TrialState.WAITING or not is_chosen(
            record.point_id, frac=self._options.audit_frac, seed=self._options.seed
        ):
            return decision
        reason = f"goes on in the shadow to check the rule, which would stop it: {decision.reason}"
        return dataclasses.replace(decision, stop=False, rule=AUDIT_RULE, reason=reason)

    def _decision(self, record: TrialRecord, outlook: Outlook, *, stop: bool, allowed: float) -> Decision:
        return predicted_decision(record, outlook, self._stakes(), stop=stop, allowed=allowed)

    def _stakes(self) -> Stakes:
        return Stakes(
            best=self._ledger.best, sign=self._sign, metric=self._metric, scale=self._forecaster.scale,
            tolerance=self._forecaster.tolerance,
        )  # fmt: skip
