"""Processes that train one trial together, without Ray: what a gang's ranks do."""

import dataclasses
import multiprocessing
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from training_fixtures import RecordingChannel, Tiny, make_context

from sweeper.executors.attempt import run_attempt
from sweeper.records import Outcome, StepRow
from sweeper.training.memory import hide_gpus


@dataclasses.dataclass(frozen=True)
class Trained:
    """What one attempt said, as rank 0 heard it, and how it ended on every rank."""

    rows: list[StepRow]
    metrics: dict[str, float]
    checkpoints: list[str]
    outcomes: list[Outcome]

    @property
    def kinds(self) -> list[str]:
        return [str(outcome.kind) for outcome in self.outcomes]

    @property
    def losses(self) -> list[float | None]:
        return [row.loss for row in self.rows]

    @property
    def norms(self) -> list[float | None]:
        return [row.grad_norm for row in self.rows]


def attempt(root: Path, job: Mapping[str, Any], ranks: Any = None) -> tuple[Outcome, RecordingChannel]:
    """Run one attempt in this process; `job` holds the arguments of `make_context` and `channel`'s."""
    arguments = dict(job)
    tiny: Tiny = arguments.pop("tiny")
    function = arguments.pop("function", None)
    channel = RecordingChannel(**arguments.pop("channel", {}))
    if arguments.pop("stops_at_once", False):
        channel.stop.set()
    context = make_context(tiny.model, tiny.train, root, channel=channel, **arguments)
    return run_attempt(context.spec, channel, function=function, ranks=ranks), channel


def heard(outcomes: list[Outcome], channel: RecordingChannel) -> Trained:
    reports = [*channel.reports, *([outcomes[0].report] if outcomes[0].report is not None else [])]
    return Trained(
        rows=[row for report in reports for row in report.rows],
        metrics={name: value for report in reports for name, value in report.metrics.items()},
        checkpoints=[report.checkpoint for report in reports if report.checkpoint is not None],
        outcomes=outcomes,
    )


def alone(root: Path, **job: Any) -> Trained:
    """Train in this process."""
    outcome, channel = attempt(root, job)
    return heard([outcome], channel)


class RankPool:
    """Processes that have found each other and train one trial after another."""

    def __init__(self, size: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self.processes = []
        meeting = None
        for rank in range(size):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(rank, size, meeting, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self.processes.append(process)
            if rank == 0:
                meeting = ours.recv()
        self.meeting = meeting

    def train(self, root: Path, **job: Any) -> Trained:
        """Train one trial on all of them."""
        for pipe in self._pipes:
            pipe.send((root, {**job, "data_parallel_size": len(self._pipes)}))
        answers = [pipe.recv() for pipe in self._pipes]
        for _, _, problem in answers:
            assert problem is None, problem
        return heard([outcome for outcome, _, _ in answers], RecordingChannel(reports=answers[0][1]))

    def end(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(30)


def _serve(rank: int, size: int, meeting: Any, pipe: Connection) -> None:
    from sweeper.training.ranks import join, open_meeting

    hide_gpus()
    store = None
    if rank == 0:
        meeting, store = open_meeting("127.0.0.1", size)
        pipe.send(meeting)
    ranks = join(meeting, rank, address="127.0.0.1", store=store)
    while (asked := pipe.recv()) is not None:
        root, job = asked
        try:
            outcome, channel = attempt(root, job, ranks)
        except BaseException:  # noqa: BLE001 - told by the test
            pipe.send((None, None, traceback.format_exc()))
            continue
        pipe.send((outcome, channel.reports, None))
