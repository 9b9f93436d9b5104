"""Runs trials on Ray Tune: our own searcher and scheduler over the orchestrator, on warm workers.

Ray's state is disposable: nothing here is needed to go on after a crash.
"""

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sweeper.executors import ray_session  # before ray, which reads its settings when it is imported

# isort: split
import cloudpickle
import ray
from ray import tune
from ray.tune import Callback, CheckpointConfig, PlacementGroupFactory, RunConfig, TuneConfig
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeper.executors.attempt import TrialFunction
from sweeper.executors.ray_attempt import StopWord, attempt_key
from sweeper.executors.ray_waiting import Waiting
from sweeper.executors.ray_worker import RESULT, StopBoard, TrialWorker, WorkerReplacedError, WorkerResult
from sweeper.orchestrator import Orchestrator
from sweeper.records import Decision, EventKind, Outcome, OutcomeKind, Report
from sweeper.room import room_for

logger = logging.getLogger(__name__)
T = TypeVar("T")

_LOOK_S = 5.0  # between two looks at the nodes of a cluster
_WARM_S = 30.0  # how long the end of a trial waits for workers that still start


class _Bridge:
    """What searcher, scheduler and callback share: which Tune trial is which trial of the study."""

    def __init__(self, orchestrator: Orchestrator, board: Any, waiting: Waiting) -> None:
        self._waiting = waiting
        self.orchestrator = orchestrator
        self.board = board
        self.keys: dict[int, str] = {}  # trial number -> attempt key, of trials in flight
        self._numbers: dict[str, int] = {}  # Tune's id -> trial number
        self._starting: set[str] = set()
        self._n_told = 0
        self._drained = False
        self.on_sigusr1 = signal.getsignal(signal.SIGUSR1)  # ours; Tune will take it
        self.set_limit: Callable[[], object] = lambda: None  # lets Tune run as many trials as are wanted now
        self.error: Exception | None = None  # what the orchestrator raised; Tune would make a TuneError of it

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Leave nothing in the snapshots that Tune pickles: the study is the truth, and holds open files."""
        return (object, ())

    def on_started(self, tune_id: str) -> None:
        """Take note that a trial has its worker."""
        self._starting.discard(tune_id)
        self._tell_starting()

    def _tell_starting(self) -> None:
        self._n_told += 1
        self.board.set_starting.remote(len(self._starting), order=self._n_told)

    def guarded(self, call: Callable[[], T], otherwise: T) -> T:
        """Return what a call to the orchestrator returns; after one that raised, call nothing any more.

        Without a study that takes what is reported, for example on a full disk, all trials are stopped.
        """
        if self.error is None:
            try:
                return call()
            except Exception as error:  # noqa: BLE001 - raised again when Tune has come to its end
                self.error = error
        return otherwise

    def steer(self) -> None:
        """Act on what was asked for from outside."""
        self._stop_others({decision.trial for decision in self.orchestrator.poll()})
        self.set_limit()

    def suggest(self, tune_id: str) -> dict[str, Any] | str | None:
        self.steer()  # here too: while nothing runs, Tune does nothing else but ask for trials, once a second
        spec = self.orchestrator.next_trial()
        if spec is None:
            return Searcher.FINISHED if self.orchestrator.is_done else None
        self._numbers[tune_id] = spec.number
        self._starting.add(tune_id)
        self._tell_starting()
        self.keys[spec.number] = attempt_key(spec)
        return {"spec": spec}

    def on_result(self, tune_id: str, result: dict[str, Any]) -> str:
        """Carry one result in; return Tune's word for what happens to that trial."""
        number = self._numbers[tune_id]
        if number not in self.keys:
            return str(TrialScheduler.STOP)
        said: WorkerResult = result[RESULT]
        self.orchestrator.on_worker(number, said.worker)
        if said.note is not None:
            self.orchestrator.tell(EventKind.NOTE, said.note)
        stopped: set[int] = set()
        for message in said.messages:
            decisions = self._carry_in(number, message)
            stopped |= {decision.trial for decision in decisions if decision.stop}
            if any(decision.aside for decision in decisions):
                # It waits for its judgement, and looks at the board when it is let go on.
                ray.get(self.board.tell.remote([self.keys[number]], "pause"))
        self._stop_others(stopped - {number})
        if number in stopped and number in self.keys:
            # Tune stops this worker's trial now; what it would still say is not waited for.
            self._end(number, Outcome(kind=OutcomeKind.STOPPED))
        return str(TrialScheduler.STOP if number not in self.keys else TrialScheduler.CONTINUE)

    def _carry_in(self, number: int, message: Report | Outcome) -> list[Decision]:
        if number not in self.keys:
            return []
        if isinstance(message, Report):
            return self.orchestrator.on_report(number, message)
        return self._end(number, message)

    def _end(self, number: int, outcome: Outcome) -> list[Decision]:
        self.keys.pop(number)
        return self.orchestrator.on_end(number, outcome)

    def _stop_others(self, numbers: set[int], word: StopWord = "stop") -> None:
        keys = [self.keys[number] for number in numbers if number in self.keys]
        if keys:
            self.board.tell.remote(keys, word)

    def on_lost(self, tune_id: str, reason: str) -> None:
        self.on_started(tune_id)
        number = self._numbers[tune_id]
        if self.keys.pop(number, None) is None:
            return
        if WorkerReplacedError.__name__ in reason:
            self.orchestrator.on_returned(
                number, reason.partition(f"{WorkerReplacedError.__name__}: ")[2] or reason
            )
        else:
            self.orchestrator.on_lost(number, reason)

    def drain(self) -> None:
        """Once the orchestrator starts nothing more, tell what still runs to stop."""
        self.guarded(self.orchestrator.check_held, None)
        self.guarded(lambda: self._waiting.look(len(self._starting)), None)
        self.guarded(self.steer, None)
        if (self.error is not None or self.orchestrator.is_draining) and not self._drained:
            self._drained = True
            if self.keys:
                words = f"{len(self.keys)} running trials are told to end at their next step"
                self.guarded(lambda: self.orchestrator.tell(EventKind.NOTE, words), None)
            may_save = self.error is None and self.orchestrator.may_save
            self._stop_others(set(self.keys), "pause" if may_save else "stop")


def make_board() -> Any:
    """Start the board that all workers read, on the driver's own node.

    On another node it would go with that node, and every worker that looked at it would fail from then on.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": 10_000, "scheduling_strategy": here}
    return ray.remote(**options)(StopBoard).remote()


class _StudySearcher(Searcher):  # type: ignore[misc]  # ray ships no types
    """Gives Tune the points that the study has left."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__(metric=None, mode=None)
        self._bridge = bridge

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        return self._bridge.guarded(lambda: self._bridge.suggest(trial_id), Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing to do: the scheduler has carried everything in already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the study is the truth."""


class _StudyScheduler(FIFOScheduler):  # type: ignore[misc]  # ray ships no types
    """Carries results to the orchestrator, and its decisions to Tune."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        stop = str(TrialScheduler.STOP)
        return self._bridge.guarded(lambda: self._bridge.on_result(trial.trial_id, result), stop)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        reason = f"the worker process ended: {_last_words(trial)}"
        self._bridge.guarded(lambda: self._bridge.on_lost(trial.trial_id, reason), None)


def _last_words(trial: Trial) -> str:
    """Return what Ray wrote down about a trial's error: the last line that says something."""
    path = Path(trial.error_file) if trial.error_file else None
    lines = path.read_text().strip().splitlines() if path is not None and path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "Ray gave no reason")


class _Watch(Callback):  # type: ignore[misc]  # ray ships no types
    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def setup(
        self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any
    ) -> None:
        """Take SIGUSR1 back: Tune takes it whatever its settings say, and would end the sweep as if it were done."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._bridge.on_sigusr1)

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._bridge.drain()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._bridge.on_started(trial.trial_id)


class RayTuneExecutor:
    """Runs trials on a local Ray that it starts, or on a running cluster.

    Args:
        slots: Trials at a time.
        cpus_per_trial: Cores that Ray reserves for a trial, for all its workers together.
        gpus_per_trial: GPUs; a fraction lets several trials share one.
        workers_per_trial: Processes that train a trial together.
        placement: Of a trial's workers: `pack` on as few nodes as possible, or `spread`.
        custom_resources: Further Ray resources of each worker.
        grows: Whether more trials run at a time once more nodes have joined the cluster, and fewer once some left.
        address: A running cluster; None starts Ray on this machine and ends it afterwards.
        worker_growth_gb: How much more memory than after its first trial a worker may hold between trials.
        function: Run instead of what the config names.
        preload: Whether workers import torch and the trainer before their first trial.
    """

    def __init__(
        self,
        *,
        slots: int,
        cpus_per_trial: int = 1,
        gpus_per_trial: float = 0.0,
        workers_per_trial: int = 1,
        placement: str = "pack",
        custom_resources: Mapping[str, float] | None = None,
        grows: bool = False,
        address: str | None = None,
        worker_growth_gb: float = 2.0,
        function: TrialFunction | None = None,
        preload: bool = True,
    ) -> None:
        self._slots = slots
        self._cpus = cpus_per_trial
        self._gpus = gpus_per_trial
        self._n_workers = workers_per_trial
        self._look_at = 0.0
        self._grows = grows
        self._strategy = placement.upper()
        # What each worker gets: a bundle of the trial's placement group.
        self._share = {
            "CPU": cpus_per_trial / workers_per_trial, "GPU": gpus_per_trial / workers_per_trial,
            **(custom_resources or {}),
        }  # fmt: skip
        self._address = address
        self._growth_gb = worker_growth_gb
        self._function = function
        self._preload = preload
        self._is_started: threading.Event | None = None

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Let Ray start, or join the cluster, in a thread while the block runs."""
        done = threading.Event()
        thread = threading.Thread(target=self._start_ahead, args=(done,), name="ray", daemon=True)
        self._is_started = threading.Event()
        thread.start()
        try:
            yield
        finally:
            self._is_started.wait()
            ray_session.end()
            done.set()
            thread.join()

    def _start_ahead(self, done: threading.Event) -> None:
        """Start Ray, and stay: its processes are ended with the thread that started them, not only with its process."""
        assert self._is_started is not None
        try:
            self._connect()
        except Exception as error:  # noqa: BLE001 - `run` tries again, and meets it there
            logger.debug("Ray did not start ahead: %s", error)
        self._is_started.set()
        done.wait()

    def run(self, orchestrator: Orchestrator) -> None:
        if self._is_started is not None:
            self._is_started.wait()
        try:
            self._connect()
            with tempfile.TemporaryDirectory(prefix="sweeper-") as scratch:
                self._fit(orchestrator, scratch)
        finally:
            ray_session.end()

    def _connect(self) -> None:
        if self._address is not None:
            ray_session.connect(self._address)
        else:
            ray_session.start_local(n_cpus=max(os.cpu_count() or 1, self._slots * self._cpus))

    def _fit(self, orchestrator: Orchestrator, scratch: str) -> None:
        for name in ("ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        orchestrator.set_capacity(self._capacity)
        board = make_board()
        bridge = _Bridge(orchestrator, board, Waiting(orchestrator, self._share, self._n_workers))
        # Exactly the slots: Tune would start one more trial, whose waiting takes a warm worker away.
        limiter = ConcurrencyLimiter(_StudySearcher(bridge), max_concurrent=orchestrator.slots(self._slots))
        bridge.set_limit = lambda: limiter.set_max_concurrency(orchestrator.slots(self._fitting()))
        worker = tune.with_parameters(
            TrialWorker, board=board, warm_s=_WARM_S, growth_gb=self._growth_gb,
            function=None if self._function is None else cloudpickle.dumps(self._function), preload=self._preload,
            shares=(self._share,) * self._n_workers if self._n_workers > 1 else (),
            paths=[path for path in sys.path if os.path.isdir(path)],
        )  # fmt: skip
        tuner = tune.Tuner(
            tune.with_resources(worker, self._placement()),
            tune_config=TuneConfig(
                search_alg=limiter, scheduler=_StudyScheduler(bridge), num_samples=-1, reuse_actors=True,
                trial_name_creator=_trial_name, trial_dirname_creator=_trial_name,
            ),
            run_config=RunConfig(
                name="tune", storage_path=scratch, verbose=0, callbacks=[_Watch(bridge)],
                checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
            ),
        )  # fmt: skip
        tuner.fit()
        if bridge.error is not None:
            raise bridge.error

    def _placement(self) -> PlacementGroupFactory:
        if self._n_workers == 1:
            return PlacementGroupFactory([self._share])
        # The first bundle is of the process that speaks for the workers; it needs nothing.
        return PlacementGroupFactory([{}, *[self._share] * self._n_workers], strategy=self._strategy)

    def _capacity(self) -> int:
        """Return how many trials the cluster holds at a time, as it is now."""
        return room_for(ray_session.nodes(), self._share, self._n_workers)

    def _fitting(self) -> int:
        """Return how many trials are to run at a time, unless somebody has set another number."""
        if self._grows and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_S
            self._slots = max(1, self._capacity())
        return self._slots


def _trial_name(trial: Trial) -> str:
    return f"trial-{trial.config['spec'].number}-{trial.trial_id}"
