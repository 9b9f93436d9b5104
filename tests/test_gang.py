"""Trials of several workers, without processes: what is planned, what the workers agree on, what is refused."""

import threading
from pathlib import Path
from typing import Any

import pytest
from sweep_files import BASE, config_of
from sweeps import make_config
from training_fixtures import RecordingChannel

from sweeper import api
from sweeper.context import TrialContext, TrialStopped
from sweeper.errors import ConfigError
from sweeper.gang import Gang, SharedCheckpoints
from sweeper.plan import plan_sweep, trial_spec
from sweeper.preflight.cluster import ClusterFacts, plan_slots


class Threads:
    """The ranks of a gang as threads of this process."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size, timeout=10)
        self._given: list[Any] = [None] * size

    def view(self, rank: int) -> "View":
        return View(self, rank)

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self._given[rank] = value
        self._barrier.wait()
        given = list(self._given)
        self._barrier.wait()
        return given


class View:
    def __init__(self, threads: Threads, rank: int) -> None:
        self._threads, self.rank = threads, rank

    @property
    def size(self) -> int:
        return len(self._threads._given)

    def total(self, values: list[int]) -> list[int]:
        return [sum(column) for column in zip(*self._threads.exchange(self.rank, values), strict=True)]

    def of_first(self, value: Any) -> Any:
        return self._threads.exchange(self.rank, value)[0]

    def gathered(self, value: Any) -> list[Any] | None:
        found = self._threads.exchange(self.rank, value)
        return found if self.rank == 0 else None


def together(work: Any, size: int = 2) -> list[Any]:
    """Call `work(view)` in a thread for every rank; return what each returned or raised."""
    threads, found = Threads(size), [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = work(threads.view(rank))
        except (TrialStopped, ConfigError, RuntimeError) as error:
            found[rank] = error  # type: ignore[call-overload]

    workers = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return found


def spec_of(*overrides: str) -> Any:
    config = config_of(BASE, *overrides)
    point = plan_sweep(config).points[0]
    return trial_spec(config, point, number=0, attempt=1, trial_dir="", threads=1)


def test_workers_share_the_effective_batch() -> None:
    spec = spec_of("resources={gpus_per_trial: 2, sharding: fsdp2}")
    cut = (spec.micro_batch_size, spec.gradient_accumulation_steps, spec.data_parallel_size)
    assert cut == (8, 2, 2)
    assert spec.sharding == "fsdp2"


@pytest.mark.parametrize(
    ("gpus", "share"), [("null", 1.0), ("0", 0.0), ("0.25", 0.25), ("1", 1.0), ("2", 1.0)]
)
def test_a_worker_knows_what_share_of_its_gpu_it_may_take(gpus: str, share: float) -> None:
    assert spec_of(f"resources={{gpus_per_trial: {gpus}}}").gpu_share == share


def test_a_micro_batch_that_did_not_fit_is_halved_for_every_worker() -> None:
    spec = spec_of("resources={gpus_per_trial: 2}")
    halved = type(spec)(**{**vars(spec), "micro_batch_limits": {"host": 4}}).fitted("host")
    assert (halved.micro_batch_size, halved.gradient_accumulation_steps) == (4, 4)


def test_every_worker_gets_a_core_unless_told_otherwise() -> None:
    batch = {"settings": {"effective_batch_size": 8}}
    resources = make_config(resources={"gpus_per_trial": 4}, trial=batch).resources
    assert (resources.n_workers, resources.cpus_per_trial, resources.threads_per_worker) == (4, 4, 1)
    resources = make_config(resources={"workers_per_trial": 2, "cpus_per_trial": 8}).resources
    assert (resources.n_workers, resources.cpus_per_trial, resources.threads_per_worker) == (2, 8, 4)


def test_workers_take_a_gpu_each_where_there_are_gpus() -> None:
    resources = make_config(resources={"workers_per_trial": 2}).resources
    slots = plan_slots(resources, ClusterFacts(cpus=8, gpus=8, place="this machine"))
    assert (slots.gpus_per_trial, slots.slots) == (2.0, 4)


def test_a_stop_that_rank_0_hears_is_raised_on_all_at_the_next_boundary() -> None:
    def work(ranks: View) -> int:
        channel = RecordingChannel(stop_at_step=2)
        gang = Gang(ranks, channel)
        context = TrialContext(spec=spec_of(), channel=gang, checkpoint=None, gang=gang)  # type: ignore[arg-type]
        for step in range(1, 10):
            try:
                context.report(step=step, samples=step, loss=float("nan"))  # is judged at once
            except TrialStopped:
                return step
        return 0

    assert together(work) == [2, 2]


def test_counts_are_summed_over_the_ranks() -> None:
    assert together(lambda ranks: Gang(ranks, RecordingChannel()).agree(3 + ranks.rank)) == [7, 7]


def test_a_rank_that_does_not_see_the_checkpoint_says_so(tmp_path: Path) -> None:
    from sweeper.checkpoint import DirectoryCheckpoints

    def work(ranks: View) -> Any:
        store = DirectoryCheckpoints(tmp_path / str(ranks.rank))
        if ranks.rank == 0:
            (tmp_path / "state").mkdir()
            store.save(tmp_path / "state", step=3, samples=24)
        return SharedCheckpoints(store, ranks).load()

    first, second = together(work)
    assert first.step == 3
    assert str(second) == (
        "Rank 1 finds none where rank 0 goes on from the checkpoint of step 3. The study's directory must be one that "
        "all nodes share, or set `trial.checkpoint.url`."
    )


def test_only_rank_0_saves(tmp_path: Path) -> None:
    from sweeper.checkpoint import DirectoryCheckpoints

    def work(ranks: View) -> Any:
        return SharedCheckpoints(DirectoryCheckpoints(tmp_path / "all"), ranks).save(
            tmp_path, step=1, samples=1
        )

    threads = Threads(2)
    with pytest.raises(RuntimeError, match="Rank 1 cannot save a checkpoint: rank 0 does it for all"):
        work(threads.view(1))


def test_the_in_process_executor_refuses_trials_of_several_workers(tmp_path: Path) -> None:
    config = make_config(resources={"workers_per_trial": 2, "gpus_per_trial": 0})
    options = api.LaunchOptions(dir=str(tmp_path / "study"), executor="in-process")
    with pytest.raises(ConfigError, match="A trial of 2 workers needs processes of their own"):
        api.launch(config, options=options)
    assert not (tmp_path / "study").exists()
