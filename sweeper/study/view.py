"""A study as reports, status and exports read it: a snapshot, detached from the storage."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from sweeper.config.models import SweepConfig
from sweeper.plan import by_training, n_undrawn
from sweeper.records import TrialRecord, TrialState, goodness_sign
from sweeper.study import control_records
from sweeper.study.benchmark_records import BenchmarkRun
from sweeper.study.control_records import ControlEvent
from sweeper.study.failed import retried
from sweeper.study.lease import BEAT_AT
from sweeper.study.numbered import numbered
from sweeper.study.taken import Taken, taken_by

StudyState = Literal["running", "interrupted", "finished"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriverFacts:
    """Who drives a study, as its lease says. The times are by the driver's own wall clock; None: not told."""

    host: str | None
    pid: int | None
    since: str | None  # ISO 8601, UTC
    last_beat: str | None  # the same; it beats every few seconds

    @classmethod
    def read(cls, lease: Mapping[str, Any]) -> "DriverFacts":
        return cls(
            host=lease.get("host"), pid=lease.get("pid"), since=lease.get("since"), last_beat=lease.get(BEAT_AT)
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyView:
    """Everything that is known of a study at one moment."""

    name: str
    config: SweepConfig
    state: StudyState
    records: tuple[TrialRecord, ...]  # by number
    directory: Path
    curve: Callable[[int], pd.DataFrame]  # of one trial; empty where it never reported
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    driver: DriverFacts | None = None  # while the state is `running`
    created: str | None = None  # ISO 8601, UTC
    exhausted_at: int | None = None  # the `sampler.n_trials` at which the sampler knew no new point any more
    evidence: tuple[Mapping[str, Any], ...] = ()  # what early signals were worth; see `pruners.evidence`
    controls: tuple[ControlEvent, ...] = ()  # what was asked of the sweep while it ran, and what became of it
    environments: tuple[Mapping[str, Any], ...] = ()  # one per driver, in order; see `study.environment`
    benchmarks: tuple[BenchmarkRun, ...] = ()  # what was measured on trials that had ended

    @property
    def compared(self) -> list[TrialRecord]:
        """The trials whose results may be held against one another."""
        return [record for record in self.records if record.is_compared]

    @property
    def ranked(self) -> list[TrialRecord]:
        """The COMPLETE trials, the best value first, by number among equals.

        A trial that continues another one had more data than the others and is not compared with them.
        """
        sign = -goodness_sign(self.config.direction)
        return sorted(self.compared, key=lambda record: (sign * (record.value or 0.0), record.number))

    @property
    def best(self) -> TrialRecord | None:
        """The first of `ranked`; None where no trial completed."""
        return next(iter(self.ranked), None)

    @property
    def from_scratch(self) -> list[TrialRecord]:
        """Those of `ranked` whose values are what their params give: none that began with another one's weights."""
        return [record for record in self.ranked if not record.is_warm_started]

    @property
    def paused_by(self) -> str | None:
        """Who keeps further trials from being started; None where nobody does."""
        return control_records.paused_by(self.controls)

    @property
    def max_concurrent(self) -> int | None:
        """How many trials may run at a time, as somebody has set it while the sweep ran; None where nobody has."""
        return control_records.max_concurrent(self.controls)

    def record(self, number: int) -> TrialRecord:
        """Return the trial that has a number.

        Raises:
            StudyMismatchError: If none has.
        """
        return numbered({one.number: one for one in self.records}, number, study=self.name)

    def count(self, state: TrialState) -> int:
        return sum(record.state is state for record in self.records)

    @property
    def n_stopped(self) -> int:
        """Trials that were stopped early; a draw that only repeats another trial's point was not."""
        return sum(one.state is TrialState.PRUNED and not one.is_repeat for one in self.records)

    @property
    def spent_samples(self) -> int:
        """Samples that were trained, all trials together; those that two of them share count once."""
        return sum(record.own_samples for record in self.records)

    @property
    def n_undrawn(self) -> int:
        """Points that the sampler has still to draw; none of a finished study, whose sampler may know no more."""
        if self.state == "finished":
            return 0
        return n_undrawn(self.config, self.records, exhausted_at=self.exhausted_at)

    @property
    def n_trials(self) -> int:
        """All trials, those that are not drawn yet among them."""
        return len(self.records) + self.n_undrawn

    @functools.cached_property  # a page asks for it eleven times
    def taken(self) -> Taken:
        """What training every point to its end takes; one that is not drawn yet counts as the others' mean.

        Of points that are beginnings of one training the longest counts.
        """
        planned = (one for one in self.records if one.origin is None and not one.is_in_vain)
        budgets = [record.budget_samples or 0 for record in planned]
        mean = sum(budgets) / len(budgets) if budgets else self.config.trial.budget.samples or 0
        again = retried(self.records)
        each = [taken_by(group, retried=again) for group in self._trainings]
        full = sum(one.full for one in each) + round(self.n_undrawn * mean)
        return Taken(full=full, saved=sum(one.saved for one in each))

    @property
    def full_samples(self) -> int:
        """Samples that training every point to its end takes."""
        return self.taken.full

    @functools.cached_property
    def _trainings(self) -> list[list[TrialRecord]]:
        return by_training(self.config, self.records)
