"""Plays recorded points through the orchestrator on virtual time: same judge, same windows, no training.

A trial's report arrives when its recorded position says so, times the speed it was given. So two orders of the same
sweep differ as two real runs do: in who starts when, and in who is faster.
"""

import dataclasses
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from sweeper.checkpoint import Saved
from sweeper.orchestrator import Orchestrator
from sweeper.pruners.divergence import DivergenceMonitor, DivergenceRules, Verdict, monitor_for
from sweeper.records import Outcome, OutcomeKind, Report, StepRow
from sweeper.study.recorded import RecordedPoint
from sweeper.trial_spec import TrialSpec


@dataclasses.dataclass
class VirtualClock:
    """Seconds that pass only when something happens."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """One report of a recorded point."""

    samples: int  # where the point stands with it
    message: Report | Outcome


class RecordedPlay:
    """One recorded point made ready to be played many times: its windows and what it breaks are worked out once."""

    def __init__(self, point: RecordedPoint, *, metric: str, rules: DivergenceRules) -> None:
        self.point = point
        self._metric = metric
        self.verdict, self.verdict_step = _first_verdict(point, rules)
        self._windows: dict[tuple[int, ...], tuple[Window, ...]] = {}
        self._s_per_sample = point.seconds / max(point.budget_samples, 1)

    def seconds_at(self, samples: int) -> float:
        """Return how long the point takes to come to a position, at its recorded speed."""
        return samples * self._s_per_sample

    def samples_at(self, seconds: float) -> int:
        """Return how far the point has come after so many seconds at its recorded speed."""
        if self._s_per_sample == 0:
            return self.point.budget_samples
        return min(self.point.budget_samples, int(seconds / self._s_per_sample))

    def monitor(self) -> DivergenceMonitor:
        """Return a monitor that gives the verdict that the rules would give on these rows."""
        return _KnownVerdict(self.verdict, self.verdict_step)

    def windows(self, spec: TrialSpec) -> tuple[Window, ...]:
        """Return the reports that this point sends: at the marks of the spec, where it diverges, and its end."""
        key = (*spec.marks, -1, *spec.step_marks)
        if key not in self._windows:
            self._windows[key] = tuple(self._cut(spec.marks, spec.step_marks))
        return self._windows[key]

    def _cut(self, marks: Sequence[int], step_marks: Sequence[int]) -> Iterable[Window]:
        rows = self.point.rows
        start, samples, step, seen = 0, 0, 0, 0
        for index, row in enumerate(rows[:-1]):
            closes = (
                any(samples < mark <= row.samples for mark in marks)
                or any(step < mark <= row.step for mark in step_marks)
                or row.step == self.verdict_step
            )
            samples, step = row.samples, row.step
            if closes:
                seen, metrics = self._measured_until(row, seen)
                report = Report(
                    rows=rows[start : index + 1], metrics=metrics, train_s=self.seconds_at(samples)
                )
                yield Window(samples=samples, message=report)
                start = index + 1
        final = dict(self.point.metrics) or {self._metric: self.point.value}
        report = Report(rows=rows[start:], metrics=final, train_s=self.seconds_at(rows[-1].samples))
        yield Window(samples=rows[-1].samples, message=Outcome(kind=OutcomeKind.DONE, report=report))

    def _measured_until(self, row: StepRow, seen: int) -> tuple[int, dict[str, float]]:
        """Return what was measured since the last window; the newest value of each metric counts."""
        metrics: dict[str, float] = {}
        measured = self.point.measured
        while seen < len(measured) and measured[seen].step <= row.step:
            metrics.update(measured[seen].metrics)
            seen += 1
        return seen, metrics


class _KnownVerdict(DivergenceMonitor):
    """The divergence monitor of a point whose whole curve was looked at before."""

    def __init__(self, verdict: Verdict | None, step: int | None) -> None:
        self._verdict, self._step = verdict, step

    def check(self, rows: Iterable[StepRow]) -> Verdict | None:
        return self._verdict if any(row.step == self._step for row in rows) else None

    def go_on_from(self, rows: Iterable[StepRow]) -> None:
        """Nothing to take in: what comes is known."""


def _first_verdict(point: RecordedPoint, rules: DivergenceRules) -> tuple[Verdict | None, int | None]:
    monitor = monitor_for(point, rules)
    for row in point.rows:
        verdict = monitor.check((row,))
        if verdict is not None:
            return verdict, row.step
    return None, None


@dataclasses.dataclass
class _Flight:
    """One attempt on its way."""

    number: int
    windows: tuple[Window, ...]
    started: float
    begun_at: int  # samples; more than 0 where it goes on from where it was set aside
    next: int = 0


class CurveCheckpoints:
    """Checkpoints of a replayed trial: it can always go on where its curve ends.

    Args:
        rows: Returns the curve so far.
    """

    def __init__(self, rows: Callable[[], Sequence[StepRow]]) -> None:
        self._rows = rows

    def saved(self) -> list[Saved]:
        return [
            Saved(name=str(row.step), step=row.step, samples=row.samples, n_bytes=0)
            for row in self._rows()[-1:]
        ]

    def remove(self, name: str) -> None:
        """There are no files."""

    def clear(self) -> None:
        """There are no files."""


class ReplayExecutor:
    """Runs recorded points on virtual slots.

    A trial that is stopped while another one reports stops where it stands at that moment, as the stop flag makes a
    real one do; what it trained since its last report is in `spent_samples` though the study has not seen it.

    Args:
        plays: The recorded point of every trial, by number.
        slots: Trials at a time.
        clock: The clock that the orchestrator was given.
        speeds: How many times its recorded seconds a trial takes, by number; 1 where none is given.
        arrivals: Trials in the order in which their messages arrived, instead of an order by the clock: plays the
            events of a real sweep again.
    """

    def __init__(
        self,
        plays: Mapping[int, RecordedPlay],
        *,
        slots: int,
        clock: VirtualClock,
        speeds: Mapping[int, float] | None = None,
        arrivals: Sequence[int] | None = None,
    ) -> None:
        self._plays = plays
        self._n_slots = slots
        self._clock = clock
        self._speeds = speeds or {}
        self._arrivals = arrivals
        self._flying: dict[int, _Flight] = {}
        self._queue: list[tuple[float, int, int]] = []  # when, which report of all, trial
        self._n_queued = 0
        self.spent_samples: dict[int, int] = {}
        self.spent_s: dict[int, float] = {}

    def run(self, orchestrator: Orchestrator) -> None:
        self._fill(orchestrator)
        for when, number in self._by_clock() if self._arrivals is None else enumerate(self._arrivals):
            if orchestrator.is_done:
                return
            if number in self._flying:  # else it was stopped since
                self._clock.now = when
                self._deliver(self._flying[number], orchestrator)
                self._fill(orchestrator)

    def _by_clock(self) -> Iterator[tuple[float, int]]:
        """Yield trials as their next messages become due; more become due while this goes on."""
        while self._queue:
            when, _, number = heapq.heappop(self._queue)
            yield when, number

    def _deliver(self, flight: _Flight, orchestrator: Orchestrator) -> None:
        window = flight.windows[flight.next]
        flight.next += 1
        if isinstance(window.message, Report):
            decisions = orchestrator.on_report(flight.number, window.message)
        else:
            decisions = orchestrator.on_end(flight.number, window.message)
            self._land(flight, window.samples)
        for decision in decisions:
            if decision.trial in self._flying:
                self._stop(self._flying[decision.trial], orchestrator, reporter=flight)
        if flight.number in self._flying:
            self._enqueue(flight)

    def _stop(self, flight: _Flight, orchestrator: Orchestrator, *, reporter: _Flight) -> None:
        play = self._plays[flight.number]
        samples = flight.windows[flight.next - 1].samples if flight.next else flight.begun_at
        if flight is not reporter:
            passed = (self._clock.now - flight.started) / self._speeds.get(flight.number, 1.0)
            samples = max(samples, play.samples_at(play.seconds_at(flight.begun_at) + passed))
        self._land(flight, samples)
        orchestrator.on_end(flight.number, Outcome(kind=OutcomeKind.STOPPED))

    def _land(self, flight: _Flight, samples: int) -> None:
        number, trained = flight.number, samples - flight.begun_at
        del self._flying[number]
        self.spent_samples[number] = self.spent_samples.get(number, 0) + trained
        seconds = self._plays[number].seconds_at(trained)
        self.spent_s[number] = self.spent_s.get(number, 0.0) + seconds

    def _fill(self, orchestrator: Orchestrator) -> None:
        while len(self._flying) < self._n_slots:
            spec = orchestrator.next_trial()
            if spec is None:
                return
            begun_at = orchestrator.records[spec.number].samples
            windows = tuple(w for w in self._plays[spec.number].windows(spec) if w.samples > begun_at)
            flight = _Flight(number=spec.number, windows=windows, started=self._clock.now, begun_at=begun_at)
            self._flying[spec.number] = flight
            self._enqueue(flight)

    def _enqueue(self, flight: _Flight) -> None:
        samples = flight.windows[flight.next].samples
        seconds = self._plays[flight.number].seconds_at(samples - flight.begun_at)
        seconds *= self._speeds.get(flight.number, 1.0)
        self._n_queued += 1  # of two at one moment, the one that was on its way first
        heapq.heappush(self._queue, (flight.started + seconds, self._n_queued, flight.number))
