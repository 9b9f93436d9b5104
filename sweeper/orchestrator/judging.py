"""Windows come in, rungs are reached, the judge is asked, and what it says is carried out."""

import bisect
import collections
from collections.abc import Sequence

from sweeper.events import EventKind
from sweeper.orchestrator.ending import Ending
from sweeper.orchestrator.queue import TrialQueue
from sweeper.orchestrator.recording import Recording, set_progress
from sweeper.orchestrator.sharing import Sharing
from sweeper.orchestrator.state import Running, SweepState
from sweeper.pruners.judge import Judge, LearningJudge
from sweeper.pruners.mirror import ASKED
from sweeper.pruners.signals import windowed_signals
from sweeper.records import Decision, Report, RungRecord

KEPT_RULE = "keep"  # a judgement that was not carried out, since somebody keeps the trial


class Judging:
    """Takes windows in and judges. The lists it returns hold the decisions that take a running trial off its slot."""

    def __init__(
        self,
        state: SweepState,
        *,
        judge: Judge,
        recording: Recording,
        ending: Ending,
        queue: TrialQueue,
        sharing: Sharing,
    ) -> None:
        self._state = state
        self._judge = judge
        self._recording = recording
        self._ending = ending
        self._queue = queue
        self._sharing = sharing

    def take_in(self, running: Running, report: Report) -> list[Decision]:
        """Record one window of a trial and judge it, and again whom that concerns."""
        number = running.spec.number
        verdict = self._append(running, report)
        if verdict is not None:
            return [verdict, *self.judge_again()]
        self._sharing.mark_held(number)
        stops = []
        for rung in self._unjudged_rungs(running):
            stops += self._judge_at(number, rung)
        for rung in self._new_rungs(running):
            record = self._state.records[number]
            self._state.tell(EventKind.RUNG, f"reached rung {rung.rung}", record=record, rung=rung)
            stops = [one for one in stops if not one.aside]  # the word of the newest rung counts
            stops += self._judge_at(number, rung)
            stops += self.judge_again()
        ended = {one.trial for one in stops if one.stop}
        return [one for one in stops if one.stop or one.trial not in ended]

    def catch_up(self) -> None:
        """Let a judge that learns come to where it was when the driver before this one ended.

        What follows from the last end was carried out then; said again, it would be one more round of stops.
        """
        records = self._state.records
        if isinstance(self._judge, LearningJudge) and any(record.rungs for record in records.values()):
            self._sharing.mark_held()
            self._judge.judge_again(records)

    def judge_again(self) -> list[Decision]:
        """Carry out what a judge that learns now thinks of all open trials; return the stops of running ones.

        One that has trained to its end, but has not said so yet, is left to do so.
        """
        if not isinstance(self._judge, LearningJudge) or self._state.is_draining:
            return []
        self._sharing.mark_held()
        stops, idle = [], []
        for decision in self._judge.judge_again(self._state.records):
            running = self._state.running.get(decision.trial)
            if decision.stop and decision.trial in self._state.kept:
                self._tell_kept(decision)
            elif not decision.stop:
                self._recording.decision(decision)
            elif self._has_trained_all(decision.trial):
                continue
            elif running is None:
                idle.append(decision)
            elif not running.is_done:
                stops.append((running, decision))
        self._ending.prune_all(stops)  # first: these hold slots, and the others may be thousands
        self._stop_idle(idle)
        return [decision for _, decision in stops]

    def _stop_idle(self, decisions: Sequence[Decision]) -> None:
        """Stop trials that wait for their start, were set aside, or stand between two attempts."""
        if not decisions:
            return  # thousands may wait
        queue = self._queue
        stopped = {decision.trial for decision in decisions}
        waiting = stopped.intersection(queue.waiting)
        queue.waiting = collections.deque(number for number in queue.waiting if number not in waiting)
        for decision in decisions:
            if decision.trial in waiting:
                self._ending.skip(decision)
                continue
            for begun in (queue.aside, queue.again):
                if decision.trial in begun:
                    begun.remove(decision.trial)
                    self._ending.stop_aside(decision)

    def _append(self, running: Running, report: Report) -> Decision | None:
        """Append a window to the trial's curve; return the decision that stops it where it diverged."""
        record = self._state.records[running.spec.number]
        last = running.rows[-1].step if running.rows else 0
        fresh = [row for row in report.rows if row.step > last]
        running.rows.extend(fresh)
        running.metrics.update(report.metrics)
        running.train_s, running.evaluation_s = report.train_s, report.evaluation_s
        running.micro_batch_size = report.micro_batch_size or running.micro_batch_size
        set_progress(record, running.rows)
        record.train_s = running.earlier_train_s + report.train_s
        record.evaluation_s = running.earlier_evaluation_s + report.evaluation_s
        verdict = running.monitor.check(fresh)
        if verdict is None:
            return None
        decision = Decision(
            trial=record.number, stop=True, rule=verdict.rule, reason=verdict.reason, samples=record.samples
        )
        self._ending.prune(running, decision)
        return decision

    def _unjudged_rungs(self, running: Running) -> list[RungRecord]:
        """Return the rungs where an earlier driver died between record and judgement; once."""
        found, running.unjudged = running.unjudged, []
        return found

    def _new_rungs(self, running: Running) -> list[RungRecord]:
        """Record the rungs that the trial has reached and that were not recorded before.

        A rung that it comes to with its last row is none: what it shows there is its result.
        """
        record = self._state.records[running.spec.number]
        origin = record.origin
        found = []
        for planned in running.point.rungs:
            if origin is not None and planned.is_reached(step=origin.from_step, samples=origin.from_samples):
                continue  # another trial's training: that one was judged by it
            if planned.index in record.rungs or not planned.is_reached(
                step=record.step, samples=record.samples
            ):
                continue
            at = bisect.bisect_left(
                running.rows, True, key=lambda row: planned.is_reached(step=row.step, samples=row.samples)
            )
            row = running.rows[at]
            if self._is_at_end(running) and row.samples >= record.samples:
                continue
            window = self._state.config.pruner.window_steps
            seen = running.rows[max(0, at + 1 - window) : at + 1]
            rung = RungRecord(
                rung=planned.index, mark=planned.mark, step=row.step, samples=row.samples,
                signals={**windowed_signals(seen, window_steps=window), **running.metrics},
            )  # fmt: skip
            record.rungs[planned.index] = rung
            self._state.records.note(record.number)
            self._state.study.record_rung(record.number, rung)
            found.append(rung)
        return found

    def _judge_at(self, number: int, rung: RungRecord) -> list[Decision]:
        """Judge the trial that came to a rung, and again all that stand there; nobody who is at the end.

        Others that stand where one passes by at its end are judged again with the next that comes there: a judge may
        keep what it says, and of whom it was asked is recorded with the decision on the first.
        """
        if self._state.records[number].state.is_finished or self._is_at_end(self._state.running[number]):
            return []
        others = [n for n, running in self._state.running.items() if not self._is_at_end(running)]
        others = [n for n in others if n != number and self._stands_at(n, rung.rung)]
        stops, pruned = [], []
        for decision in self._judge.judge([number, *others], rung.rung, self._state.records):
            if decision.stop and decision.trial in self._state.kept:
                self._tell_kept(decision)
            elif decision.stop:
                pruned.append((self._state.running[decision.trial], decision))
                stops.append(decision)
            elif decision.trial == number:
                if decision.aside:
                    decision = self._ending.if_room(decision)
                self._recording.decision(decision)
                if decision.aside:
                    self._state.running[number].told_aside = True
                    stops.append(decision)
        self._ending.prune_all(pruned)
        return stops

    def _tell_kept(self, decision: Decision) -> None:
        """Record, once for every rung, that a trial would have been stopped and is not."""
        record = self._state.records[decision.trial]
        rung = max(record.rungs, default=None)
        told = record.decisions[-1] if record.decisions else {}
        if told.get("rule") == KEPT_RULE and told.get("rung") == rung:
            return
        reason = (
            f"kept by {self._state.kept[decision.trial]}; {decision.rule} would stop it: {decision.reason}"
        )
        kept = Decision(
            trial=decision.trial, stop=False, rule=KEPT_RULE, reason=reason, rung=rung,
            samples=decision.samples,
            details={name: value for name, value in decision.details.items() if name == ASKED},
        )  # fmt: skip
        self._recording.decision(kept)

    def _is_at_end(self, running: Running) -> bool:
        """Whether a trial has trained all it was to train: stopping it would save nothing and lose its result."""
        return running.is_done or self._has_trained_all(running.spec.number)

    def _has_trained_all(self, number: int) -> bool:
        record = self._state.records[number]
        return record.budget_samples is not None and record.samples >= record.budget_samples

    def _stands_at(self, number: int, rung: int) -> bool:
        record = self._state.records[number]
        return not record.state.is_finished and bool(record.rungs) and max(record.rungs) == rung
