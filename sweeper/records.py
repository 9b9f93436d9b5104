"""Frozen data that travels between training, orchestrator, study and reports. Pure."""

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

# The signals that every trial reports each optimiser step; others are metrics under their own names.
LOSS = "loss"
GRAD_NORM = "grad_norm"

Direction = Literal["minimize", "maximize"]  # of a metric or a signal: which way is better

HOST = "host"  # the device of a trial that trains on no GPU


class StepRow(NamedTuple):
    """One optimiser step of one trial: a row of its curve. NaN stays NaN; None means not reported."""

    step: int  # completed optimiser steps, from 1
    samples: int  # training sequences seen so far
    tokens: int  # target tokens seen so far; 0 where the trial does not count them
    loss: float | None  # mean over the target tokens of this optimiser step
    grad_norm: float | None  # norm of the whole step's gradient before clipping
    learning_rate: float | None  # rate of this step


class TrialState(enum.StrEnum):
    """The life of a trial, in Optuna's words."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"

    @property
    def is_finished(self) -> bool:
        return self in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """One window of training, sent by a trial at a mark, at the end, or after a time.

    `rows` holds every optimiser step since the previous report, in order. `metrics` was evaluated after
    the last row and is empty where nothing was evaluated there.
    """

    rows: tuple[StepRow, ...]
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    checkpoint: str | None = None  # a checkpoint that was completed after the last row
    train_s: float = 0.0  # seconds this attempt has trained so far, evaluation not counted
    evaluation_s: float = 0.0  # seconds this attempt has evaluated so far
    micro_batch_size: int | None = None  # that it trains with, where it is the built-in fine-tuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class RungRecord:
    """What a trial showed at one rung. Written once: the first recorded value of a rung stays."""

    rung: int  # index, from 0
    mark: int  # where the rung lies, in samples (in steps where the config says so)
    step: int  # first step at or past the mark
    samples: int
    signals: Mapping[str, float]  # windowed loss and grad_norm, and every metric evaluated here


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """A judgement on one trial: go on, stop, or be set aside, with a reason. Stored before it is acted on."""

    trial: int
    stop: bool
    rule: str  # short name of what judged: "early_dynamics", "nan", "loss_spike", "user", ...
    reason: str  # one sentence with the values that decided
    rung: int | None = None
    samples: int | None = None  # where the judged trial stood
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # JSON-able: values, peers, ranks
    aside: bool = False  # another trial gets the slot; this one keeps its work and may go on later

    def entry(self) -> dict[str, Any]:
        """Return the decision as `TrialRecord.decisions` holds it."""
        facts = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "trial"
        }
        return {**facts, "details": dict(self.details)}


class OutcomeKind(enum.StrEnum):
    """How an attempt ended, seen from inside the trial."""

    DONE = "done"  # trained to the end of its budget
    STOPPED = "stopped"  # told to stop and did
    FAILED = "failed"  # raised


class FailureCause(enum.StrEnum):
    """Failures that are not the trial's own fault, and are answered in their own way."""

    OUT_OF_MEMORY = "out_of_memory"  # tried again with half the micro-batch
    DISK_FULL = "disk_full"  # stops the sweep: every other trial would meet it too
    DATA_CHANGED = "data_changed"  # stops the sweep as well: what was trained since could not be compared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended, with its last rows and its final metrics."""

    kind: OutcomeKind
    report: Report | None = None  # what had not been reported yet
    error: str | None = None  # one line: type and message
    traceback: str | None = None
    cause: FailureCause | None = None
    device: str | None = None  # what it trained on: a kind of GPU, or `HOST`
    micro_batch_size: int | None = None  # that it trained with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a trial comes from that is none of the plan's own points."""

    by: str  # user@host
    request: str = ""  # id of the control request; empty where a resume added it
    cloned_from: int | None = None  # trial whose params it has, but for some
    warm_start: bool = False  # begins at the checkpoint of `cloned_from`
    continues: int | None = (
        None  # finished trial that it trains on, with a larger budget, from its checkpoint
    )
    retries: int | None = None  # trial that failed and whose point it trains once more
    from_step: int = 0  # of the checkpoint that it began with; up to there its curve is the other trial's
    from_samples: int = 0

    @property
    def source(self) -> int | None:
        """The trial whose checkpoint it begins with."""
        return self.cloned_from if self.warm_start else self.continues

    @property
    def is_warm(self) -> bool:
        """Whether it was to begin with another one's weights and did: there was still a checkpoint of that one."""
        return self.warm_start and self.from_step > 0


@dataclasses.dataclass(kw_only=True)
class TrialRecord:
    """One trial as the study knows it; what pruners, reports and `status` read.

    A view made from the study's storage; changing it changes nothing there.
    """

    number: int
    state: TrialState
    params: dict[str, Any]
    point_id: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)  # base settings with params applied
    budget_samples: int | None = None
    total_steps: int | None = None
    value: float | None = None  # the study's metric at the end; None unless COMPLETE
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)  # every final metric
    rungs: dict[int, RungRecord] = dataclasses.field(default_factory=dict)
    step: int = 0
    samples: int = 0
    tokens: int = 0
    last_loss: float | None = None
    last_grad_norm: float | None = None
    reason: str | None = None  # why it was pruned or failed
    decisions: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    attempts: int = 0
    worker: dict[str, Any] | None = None  # {"node", "pid"} of the newest attempt
    is_set_aside: bool = False  # RUNNING, but holds no slot: others go first
    is_held: bool = (
        False  # WAITING for a longer trial to come by, of which it is the beginning; not started meanwhile
    )
    started: str | None = None  # ISO 8601, UTC
    ended: str | None = None
    train_s: float = 0.0  # all attempts
    evaluation_s: float = 0.0
    checkpoint: str | None = None  # newest good one
    errors: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # one per failed attempt
    # One per attempt, as read from the storage: worker, started and, once it ended, ended, outcome, error.
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    origin: Origin | None = None  # None: a point of the plan or of the sampler
    is_repeat: bool = False  # a draw of a point that another trial has: PRUNED at once, and not trained
    read_off: int | None = (
        None  # the longer trial of whose training it is the beginning; it was not trained itself
    )

    @property
    def has_result(self) -> bool:
        """Whether it came to its end with a finite value of the study's metric."""
        return self.state is TrialState.COMPLETE and self.value is not None and math.isfinite(self.value)

    @property
    def is_training(self) -> bool:
        """Whether it holds a slot, as far as the study knows."""
        return self.state is TrialState.RUNNING and not self.is_set_aside

    @property
    def is_continued(self) -> bool:
        """Whether it trains another one on: it has more data than the others, and is not compared with them."""
        return self.origin is not None and self.origin.continues is not None

    @property
    def is_warm_started(self) -> bool:
        """Whether it began with another one's weights, at other params: its value is not what its own params give.

        It may be the best one, and is said to have begun so; what params are worth is read off the others.
        """
        return self.origin is not None and self.origin.is_warm and not self.is_continued

    @property
    def is_in_vain(self) -> bool:
        """Whether it is a draw that stands for no point of its own: a repeated one, or one that cannot be trained."""
        return self.is_repeat or (
            self.state is TrialState.FAIL and not self.attempts and not self.point_id and self.origin is None
        )

    @property
    def is_compared(self) -> bool:
        """Whether it has a result that may be held against others'."""
        return self.state is TrialState.COMPLETE and self.value is not None and not self.is_continued

    @property
    def is_off_budget(self) -> bool:
        """Whether it ended a step or more, of its mean length, away from its budget; one that counts none did not."""
        if self.state is not TrialState.COMPLETE or not self.samples or not self.budget_samples:
            return False
        return abs(self.samples - self.budget_samples) * self.step >= self.samples

    @property
    def own_samples(self) -> int:
        """Samples that were trained for this trial alone: not those that it shares with another one."""
        if self.read_off is not None:
            return 0
        return max(0, self.samples - self._from_samples)

    @property
    def own_budget(self) -> int:
        """Samples that it takes to train this trial to its end, beside what it shares with another one."""
        if self.read_off is not None or self.is_repeat:
            return 0
        return max(0, (self.budget_samples or 0) - self._from_samples)

    @property
    def own_frac(self) -> float:
        """The part of its own training that is done, in [0, 1]; 0 where its budget is not known."""
        return min(1.0, self.own_samples / self.own_budget) if self.own_budget else 0.0

    @property
    def _from_samples(self) -> int:
        return 0 if self.origin is None else self.origin.from_samples


def goodness_sign(direction: Direction) -> float:
    """Return what turns a metric into goodness, of which more is better: 1, or -1 where less of the metric is."""
    return 1.0 if direction == "maximize" else -1.0


class LoggedRecords(dict[int, TrialRecord]):
    """Records by number, with a log of whose came, started, reached a rung, was decided on, set aside or ended.

    Whoever judges reads on in the log, and need not look at every trial of the study.
    """

    def __init__(self, records: Mapping[int, TrialRecord]) -> None:
        super().__init__(records)
        self.changed: list[int] = list(records)  # trial numbers in order of change; only ever appended to
        self.all_drawn = False  # the sampler knows no new point, however many were to be drawn

    def __setitem__(self, number: int, record: TrialRecord) -> None:
        super().__setitem__(number, record)
        self.note(number)

    def note(self, number: int) -> None:
        """Take note that one of these has happened to a trial; its record says so already."""
        self.changed.append(number)
