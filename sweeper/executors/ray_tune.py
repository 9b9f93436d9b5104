"""Runs trials on Ray Tune, on warm workers.

Ray's state is disposable: nothing here is needed to go on after a crash.
"""

import contextlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping

from sweeper.executors import ray_session  # before ray, which reads its settings when it is imported

# isort: split
import cloudpickle
from ray import tune
from ray.tune import CheckpointConfig, PlacementGroupFactory, RunConfig, TuneConfig
from ray.tune.experiment import Trial
from ray.tune.search import ConcurrencyLimiter

from sweeper.executors.attempt import JOIN_S, TrialFunction
from sweeper.executors.interrupt import take_signals_back
from sweeper.executors.ray_attempt import WorkerSetup
from sweeper.executors.ray_board import make_board
from sweeper.executors.ray_bridge import Bridge
from sweeper.executors.ray_hooks import StudyScheduler, StudySearcher, SweepEnd, SweepWatch
from sweeper.executors.ray_waiting import Waiting
from sweeper.executors.ray_worker import TrialWorker
from sweeper.executors.user_code import UserCode, driver_paths
from sweeper.orchestrator import Orchestrator
from sweeper.room import room_for, trials_in_words

logger = logging.getLogger(__name__)

_LOOK_S = 5.0  # between two looks at the nodes of a cluster
_WARM_S = 30.0  # how long the end of a trial waits for workers that still start


class RayTuneExecutor:
    """Runs trials on a local Ray that it starts, or on a running cluster.

    Args:
        slots: Trials at a time.
        share: Ray's resources of each worker; a fraction of a GPU lets several trials share one. None: one core.
        workers_per_trial: Processes that train a trial together.
        placement: Of a trial's workers: `pack` on as few nodes as possible, or `spread`.
        grows: Whether more trials run at a time once more nodes have joined the cluster, and fewer once some left.
        address: A running cluster; None starts Ray on this machine and ends it afterwards.
        code: The user's own, sent to the nodes of a cluster that is joined here.
        worker_growth_gb: How much more memory than after its first trial a worker may hold between trials.
        grace_s: How long trials that are to save and end may take for it, if longer than `JOIN_S`.
        function: Run instead of what the config names.
        preload: Whether workers import torch and the trainer before their first trial.
    """

    def __init__(
        self,
        *,
        slots: int,
        share: Mapping[str, float] | None = None,
        workers_per_trial: int = 1,
        placement: str = "pack",
        grows: bool = False,
        address: str | None = None,
        code: UserCode | None = None,
        worker_growth_gb: float = 2.0,
        grace_s: float = 0.0,
        function: TrialFunction | None = None,
        preload: bool = True,
    ) -> None:
        self._slots = slots
        self._n_workers = workers_per_trial
        self._look_at = 0.0
        self._room = slots  # as of the last look
        self._grows = grows
        self._strategy = placement.upper()
        self._share = dict(share or {"CPU": 1.0})  # a bundle of the trial's placement group
        self._address = address
        self._code = code
        self._growth_gb = worker_growth_gb
        self._patience_s = max(grace_s, JOIN_S)
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
            take_signals_back()
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
        finally:
            self._is_started.set()  # whatever was raised: else `starting` and `run` would wait for ever
        done.wait()

    def run(self, orchestrator: Orchestrator) -> None:
        if self._is_started is not None:
            self._is_started.wait()
            take_signals_back()
        try:
            self._connect()
            with tempfile.TemporaryDirectory(prefix="sweeper-") as scratch:
                self._fit(orchestrator, scratch)
        finally:
            ray_session.end()

    def _connect(self) -> None:
        if self._address is not None:
            ray_session.connect(self._address, self._code)
        else:
            ray_session.start_local(n_cpus=max(os.cpu_count() or 1, self._slots * self._cpus_per_trial()))

    def _fit(self, orchestrator: Orchestrator, scratch: str) -> None:
        for name in ("ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if self._address is None:
            self._take_what_ray_counts()
        orchestrator.set_capacity(self._capacity)
        board = make_board()
        bridge = Bridge(
            orchestrator, board, Waiting(orchestrator, self._share, self._n_workers),
            patience_s=self._patience_s,
        )  # fmt: skip
        # Exactly the slots: Tune would start one more trial, whose waiting takes a warm worker away.
        bridge.n_slots = lambda: orchestrator.slots(self._fitting(), room=self._room)
        limiter = ConcurrencyLimiter(StudySearcher(bridge), max_concurrent=bridge.n_slots())
        bridge.set_limit = lambda: limiter.set_max_concurrency(bridge.n_slots())
        setup = WorkerSetup(
            board=board, paths=driver_paths(), growth_gb=self._growth_gb,
            gpus=self._share.get("GPU", 0.0),
            function=None if self._function is None else cloudpickle.dumps(self._function), preload=self._preload,
        )  # fmt: skip
        worker = tune.with_parameters(
            TrialWorker, setup=setup, warm_s=_WARM_S,
            shares=(self._share,) * self._n_workers if self._n_workers > 1 else (),
        )  # fmt: skip
        tuner = tune.Tuner(
            tune.with_resources(worker, self._placement()),
            tune_config=TuneConfig(
                search_alg=limiter, scheduler=StudyScheduler(bridge), num_samples=-1, reuse_actors=True,
                trial_name_creator=_trial_name, trial_dirname_creator=_trial_name,
            ),
            run_config=RunConfig(
                name="tune", storage_path=scratch, verbose=0, callbacks=[SweepWatch(bridge)], stop=SweepEnd(bridge),
                checkpoint_config=CheckpointConfig(checkpoint_at_end=False),
            ),
        )  # fmt: skip
        tuner.fit()
        if bridge.error is not None:
            raise bridge.error

    def _cpus_per_trial(self) -> int:
        return round(self._share["CPU"] * self._n_workers)

    def _placement(self) -> PlacementGroupFactory:
        if self._n_workers == 1:
            return PlacementGroupFactory([self._share])
        # The first bundle is of the process that speaks for the workers; it needs nothing.
        return PlacementGroupFactory([{}, *[self._share] * self._n_workers], strategy=self._strategy)

    def _take_what_ray_counts(self) -> None:
        """Use no more slots than this machine's Ray has room for: a worker that never comes is waited for long."""
        room = max(1, self._capacity())
        if room < self._slots:
            told = trials_in_words(room)
            logger.warning("Ray has room for %s at a time on this machine, not %d.", told, self._slots)
            self._slots = room

    def _capacity(self) -> int:
        """Return how many trials the cluster holds at a time, as it is now."""
        return room_for(ray_session.nodes(), self._share, self._n_workers)

    def _fitting(self) -> int:
        """Return how many trials are to run at a time, unless somebody has set another number."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_S
            self._room = max(1, self._capacity())
            if self._grows:
                self._slots = self._room
        return self._slots


def _trial_name(trial: Trial) -> str:
    return f"trial-{trial.config['spec'].number}-{trial.trial_id}"
