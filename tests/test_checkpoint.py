"""What every place for checkpoints does: one contract. Which are kept, and which of them a trial goes on from."""

import errno
import itertools
import shutil

import pytest
import trial_functions
from fsspec.implementations.memory import MemoryFileSystem
from sweeps import Recorder, make_config, make_orchestrator, make_study, reopened

from sweeper.checkpoint import (
    MANIFEST,
    DirectoryCheckpoints,
    RemoteCheckpoints,
    Retention,
    inherit_checkpoint,
    open_checkpoints,
    trials_at,
)
from sweeper.errors import SweeperError
from sweeper.events import EventKind
from sweeper.executors.in_process import InProcessExecutor
from sweeper.records import Origin, TrialRecord, TrialState
from sweeper.study.control_records import ControlRequest, Verb

_numbers = itertools.count()


class OnDisk:
    """A trial's checkpoints in its own directory."""

    def __init__(self, trial_dir):
        self.place = str(trial_dir / "checkpoints")
        self._root = trial_dir / "checkpoints"

    def write(self, name, content):
        (self._root / name).parent.mkdir(parents=True, exist_ok=True)
        (self._root / name).write_bytes(content)

    def rename(self, name, other):
        (self._root / name).rename(self._root / other)

    def names(self):
        return sorted(path.name for path in self._root.iterdir())


class InStore:
    """A trial's checkpoints in an object store; fsspec's own one in memory, which all of this process share."""

    def __init__(self, trial_dir):
        import fsspec

        self.place = f"memory://bucket-{next(_numbers)}/trials/0/checkpoints"
        self._system, self._root = fsspec.core.url_to_fs(self.place)

    def write(self, name, content):
        self._system.pipe_file(f"{self._root}/{name}", content)

    def rename(self, name, other):
        self._system.mv(f"{self._root}/{name}", f"{self._root}/{other}", recursive=True)

    def names(self):
        return sorted(
            {path.removeprefix(f"{self._root}/").split("/")[0] for path in self._system.find(self._root)}
        )


@pytest.fixture
def trial_dir(tmp_path):
    place = tmp_path / "trial"
    place.mkdir()
    return place


@pytest.fixture(params=[OnDisk, InStore])
def kept_at(request, trial_dir):
    return request.param(trial_dir)


def put(store, tmp_path, step, *, size=100):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/state.bin").write_bytes(bytes([step % 256]) * size)
    return store.save(source, step=step, samples=step * 8)


def steps_at(kept_at):
    return [saved.step for saved in open_checkpoints(kept_at.place).saved()]


def test_what_was_saved_comes_back_as_it_was_and_the_newest_two_are_kept(kept_at, tmp_path):
    store = open_checkpoints(kept_at.place)
    assert store.load() is None
    names = [put(store, tmp_path, step) for step in (1, 2, 3)]

    another = open_checkpoints(kept_at.place)  # what is fetched stays as long as this
    loaded = another.load()
    assert names == ["step-00000001", "step-00000002", "step-00000003"]
    assert (loaded.step, loaded.samples) == (3, 24)
    assert (loaded.path / "sub/state.bin").read_bytes() == b"\3" * 100
    assert [(saved.step, saved.samples, saved.n_bytes) for saved in store.saved()] == [
        (2, 16, 100),
        (3, 24, 100),
    ]
    assert not (tmp_path / "source").exists()


def test_one_is_removed_and_then_all(kept_at, tmp_path):
    store = open_checkpoints(kept_at.place)
    for step in (1, 2):
        put(store, tmp_path, step)

    store.remove("step-00000002")
    assert steps_at(kept_at) == [1]
    store.remove("step-00000002")
    store.clear()
    assert steps_at(kept_at) == []
    assert store.load() is None


def test_a_checkpoint_past_the_recorded_curve_is_not_gone_on_from(kept_at, tmp_path):
    for step in (1, 2):
        put(open_checkpoints(kept_at.place), tmp_path, step)

    store = open_checkpoints(kept_at.place, newest_step=1)
    assert store.load().step == 1
    assert steps_at(kept_at) == [1]


def test_what_this_attempt_has_saved_may_be_used_however_far_the_recorded_curve_went(kept_at, tmp_path):
    store = open_checkpoints(kept_at.place, newest_step=0)
    put(store, tmp_path, 10)

    assert store.load().step == 10
    assert steps_at(kept_at) == [10]


def test_a_damaged_file_is_noticed_and_the_checkpoint_before_it_used(kept_at, tmp_path):
    store = open_checkpoints(kept_at.place)
    for step in (1, 2):
        put(store, tmp_path, step)
    kept_at.write("step-00000002/sub/state.bin", b"\1" * 100)

    assert open_checkpoints(kept_at.place).load().step == 1


def test_a_checkpoint_without_its_manifest_is_absent(kept_at, tmp_path):
    put(open_checkpoints(kept_at.place), tmp_path, 1)
    kept_at.write("step-00000002/sub/state.bin", b"half")
    kept_at.write(f"step-00000003/{MANIFEST}", b'{"step": 3')

    assert steps_at(kept_at) == [1]
    assert open_checkpoints(kept_at.place).load().step == 1


@pytest.mark.parametrize("cut_off", [(14,), (18,), (18, 19)])
def test_what_was_cut_off_while_it_was_saved_takes_no_whole_one_with_it(cut_off, kept_at, tmp_path):
    put(open_checkpoints(kept_at.place), tmp_path, 10)
    for step in cut_off:
        kept_at.write(f"step-{step:08d}/sub/state.bin", b"half")

    put(open_checkpoints(kept_at.place), tmp_path, 15)
    assert steps_at(kept_at) == [10, 15]


def test_what_was_cut_off_past_what_is_gone_on_from_is_removed(kept_at, tmp_path):
    put(open_checkpoints(kept_at.place), tmp_path, 1)
    kept_at.write("step-00000002/sub/state.bin", b"half")

    assert open_checkpoints(kept_at.place, newest_step=1).load().step == 1
    assert kept_at.names() == ["step-00000001"]


def test_what_was_cut_off_before_the_one_just_saved_is_removed(kept_at, tmp_path):
    kept_at.write("step-00000002/sub/state.bin", b"half")
    put(open_checkpoints(kept_at.place), tmp_path, 3)

    assert kept_at.names() == ["step-00000003"]


def test_a_checkpoint_under_another_steps_name_is_none(kept_at, tmp_path):
    put(open_checkpoints(kept_at.place), tmp_path, 1)
    kept_at.rename("step-00000001", "step-00000009")

    assert open_checkpoints(kept_at.place).load() is None


def test_another_trial_begins_with_the_newest_that_its_curve_holds(kept_at, tmp_path):
    for step in (1, 2):
        put(open_checkpoints(kept_at.place), tmp_path, step)

    other = f"{kept_at.place}-of-another"
    assert inherit_checkpoint(kept_at.place, other, newest_step=1).step == 1
    assert open_checkpoints(other).load().step == 1
    assert steps_at(kept_at) == [1, 2]


def fails(*_, **__):
    raise ConnectionError("no route to the store.\nmore")


@pytest.mark.parametrize(
    ("foreign", "act"),
    [
        ("ls", lambda place: open_checkpoints(place).saved()),
        ("cat_file", lambda place: open_checkpoints(place).saved()),
        ("rm", lambda place: open_checkpoints(place).remove("step-00000001")),
        ("cp_file", lambda place: inherit_checkpoint(place, f"{place}-of-another", newest_step=1)),
    ],
)
def test_a_store_that_the_driver_cannot_reach_is_told_with_what_to_do(
    foreign, act, trial_dir, tmp_path, monkeypatch
):
    place = InStore(trial_dir).place
    put(open_checkpoints(place), tmp_path, 1)
    monkeypatch.setattr(MemoryFileSystem, foreign, fails)

    told = rf"The checkpoints at {place} cannot be reached: ConnectionError: no route to the store\. .*`sweeper resume`"
    with pytest.raises(SweeperError, match=told):
        act(place)


def test_what_cannot_be_removed_is_told_and_left(trial_dir, tmp_path, monkeypatch, caplog):
    store = open_checkpoints(InStore(trial_dir).place)
    put(store, tmp_path, 1)
    monkeypatch.setattr(MemoryFileSystem, "rm", fails)

    store.clear()
    assert "could not be removed: no route to the store" in caplog.text


def test_a_save_whose_older_ones_cannot_be_removed_is_one_and_the_next_removes_them(
    kept_at, tmp_path, monkeypatch, caplog
):
    store = open_checkpoints(kept_at.place)
    for step in (1, 2):
        put(store, tmp_path, step)
    rmtree, rm = shutil.rmtree, MemoryFileSystem.rm

    def but_for_the_first(remove):
        def removed(*args, **kwargs):
            if any("step-00000001" in str(arg) for arg in args):
                raise OSError(errno.ENOTEMPTY, "not today")
            remove(*args, **kwargs)

        return removed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", but_for_the_first(rmtree))
        patch.setattr(MemoryFileSystem, "rm", but_for_the_first(rm))
        assert put(store, tmp_path, 3) == "step-00000003"
    assert steps_at(kept_at) == [1, 2, 3]
    assert "could not be removed: OSError: [Errno 39] not today" in caplog.text

    put(store, tmp_path, 4)
    assert steps_at(kept_at) == [3, 4]


def resumed_in_a_store(directory, *listeners, clock):
    """Return the orchestrator of a sweep in an object store whose trial 0 was interrupted at 50 samples."""
    url = f"memory://bucket-{next(_numbers)}"
    study = make_study(directory, make_config(trial={"checkpoint": {"at": [20], "url": url}}))
    first = make_orchestrator(study)
    first.listen(InterruptsAtARung(first))
    InProcessExecutor(function=trial_functions.steady).run(first)
    return make_orchestrator(reopened(study), *listeners, clock=clock)


class InterruptsAtARung:
    """A listener that ends its sweep at the second rung of a trial."""

    def __init__(self, orchestrator):
        self._orchestrator = orchestrator

    def on_event(self, event):
        if event.kind is EventKind.RUNG and event.rung.rung == 1:
            self._orchestrator.interrupt()


def test_a_trial_whose_checkpoints_cannot_be_reached_is_not_started_until_they_can(tmp_path, monkeypatch):
    recorder, now_s = Recorder(), [0.0]
    orchestrator = resumed_in_a_store(tmp_path, recorder, clock=lambda: now_s[0])
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "ls", fails)
        assert orchestrator.next_trial() is None
        now_s[0] = 60.0
        assert orchestrator.next_trial() is None
    assert (orchestrator.n_running, orchestrator.n_left, orchestrator.is_done) == (0, 4, False)

    now_s[0] = 64.0
    assert orchestrator.next_trial() is None
    now_s[0] = 65.0
    spec = orchestrator.next_trial()

    assert (spec.number, spec.attempt) == (0, 2)
    assert spec.checkpoint_step >= 2
    assert [event.message for event in recorder.events if "waits for" in event.message] == [
        "trial 0 waits for its checkpoints: ConnectionError: no route to the store"
    ]


def test_checkpoints_that_cannot_be_reached_for_two_minutes_end_the_sweep(tmp_path, monkeypatch):
    now_s = [0.0]
    orchestrator = resumed_in_a_store(tmp_path, clock=lambda: now_s[0])
    monkeypatch.setattr(MemoryFileSystem, "ls", fails)
    for now_s[0] in (0.0, 60.0, 115.0):
        assert orchestrator.next_trial() is None

    now_s[0] = 121.0
    with pytest.raises(SweeperError, match=r"trials/0/checkpoints cannot be reached: .*`sweeper resume`"):
        orchestrator.next_trial()


def test_an_outage_long_ago_is_not_held_against_a_store_that_stumbles_again(tmp_path, monkeypatch):
    now_s = [0.0]
    orchestrator = resumed_in_a_store(tmp_path, clock=lambda: now_s[0])
    monkeypatch.setattr(MemoryFileSystem, "ls", fails)
    assert orchestrator.next_trial() is None

    now_s[0] = 3600.0  # paused meanwhile
    assert orchestrator.next_trial() is None
    monkeypatch.undo()
    now_s[0] = 3605.0
    assert orchestrator.next_trial().number == 0


def test_a_trial_that_cannot_get_what_it_begins_with_waits_for_it(tmp_path, monkeypatch):
    now_s = [0.0]
    orchestrator = resumed_in_a_store(tmp_path, clock=lambda: now_s[0])
    study = orchestrator._state.study
    arguments = {"trial": 0, "params": {"learning_rate": 2e-5}, "warm_start": True}
    request = ControlRequest.new(Verb.CLONE, arguments, at="2026-11-22T12:00:00.000+00:00")
    study.control_box.send(request)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "cp_file", fails)
        now_s[0] = 1.0
        orchestrator.poll()
        numbers = [orchestrator.next_trial().number for _ in range(4)]
        assert orchestrator.next_trial() is None
    assert reopened(study).records()[4].state is TrialState.RUNNING

    now_s[0] = 6.0
    spec = orchestrator.next_trial()

    assert numbers == [0, 1, 2, 3]
    assert (spec.number, spec.attempt) == (4, 1)
    assert spec.inherited_step == spec.checkpoint_step >= 2


def test_a_checkpoint_that_cannot_be_linked_is_told_with_its_place(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "file").write_text("")
    place = tmp_path / "file/checkpoints"

    with pytest.raises(SweeperError, match=rf"{place}/step-00000001 cannot be written: .*`sweeper resume`"):
        inherit_checkpoint(str(tmp_path / "checkpoints"), str(place), newest_step=1)


def fetched(trial_dir):
    return [path.name for path in trial_dir.glob(".checkpoint-*")]


def test_what_is_fetched_lies_in_the_trials_directory_as_long_as_it_is_used(trial_dir, tmp_path):
    place = InStore(trial_dir).place
    put(open_checkpoints(place), tmp_path, 1)
    store = open_checkpoints(place, trial_dir=trial_dir)

    first, again = store.load(), store.load()
    assert first.path.parent == again.path.parent == trial_dir
    assert (first.path / "sub/state.bin").read_bytes() == b"\1" * 100
    del store
    assert fetched(trial_dir) == []


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_a_fetched_checkpoint_that_is_not_whole_does_not_stay_on_disk(harm, trial_dir, tmp_path):
    kept_at = InStore(trial_dir)
    for step in (1, 2):
        put(open_checkpoints(kept_at.place), tmp_path, step)
    if harm == "changed":
        kept_at.write("step-00000002/sub/state.bin", b"\1" * 100)
    else:
        kept_at.rename("step-00000002/sub/state.bin", "step-00000002/elsewhere.bin")
    store = open_checkpoints(kept_at.place, trial_dir=trial_dir)

    loaded = store.load()
    assert loaded.step == 1
    assert fetched(trial_dir) == [loaded.path.name]


def test_what_a_killed_worker_fetched_is_removed_but_not_what_other_ranks_use(trial_dir, tmp_path):
    place = InStore(trial_dir).place
    put(open_checkpoints(place), tmp_path, 1)
    for left in (".checkpoint-0-killed", ".checkpoint-1-killed", ".checkpoint-saving"):
        (trial_dir / left).mkdir()
    stores = [open_checkpoints(place, trial_dir=trial_dir, rank=rank) for rank in range(2)]

    paths = [store.load().path for store in stores]  # rank 0 first, as `SharedCheckpoints` lets them
    assert sorted(fetched(trial_dir)) == [path.name for path in paths]


def test_a_trial_goes_on_from_what_it_fetched_into_its_own_directory(tmp_path):
    gone_on_from = []

    def fails_once(context):
        loaded = context.checkpoint.load()
        if loaded is None:
            context.report(step=1, samples=10, loss=1.0)
            context.report_rows([], checkpoint=put(context.checkpoint, tmp_path, 1))
            raise RuntimeError("once")
        gone_on_from.append((loaded.step, loaded.path.parent))
        return {"score": 1.0}

    place = f"memory://bucket-{next(_numbers)}"
    config = make_config(
        trial={"checkpoint": {"url": place}}, search_space={"learning_rate": {"grid": [1e-3]}}
    )
    orchestrator = make_orchestrator(make_study(tmp_path / "study", config))
    InProcessExecutor(function=fails_once).run(orchestrator)

    assert orchestrator.records[0].state is TrialState.COMPLETE
    assert gone_on_from == [(1, tmp_path / "study/trials/0")]


def save(root, step, *, size=100):
    source = root / "source"
    source.mkdir(parents=True)
    (source / "state.bin").write_bytes(bytes([step % 256]) * size)
    return DirectoryCheckpoints(root / "checkpoints").save(source, step=step, samples=step * 8)


def steps(root):
    return [saved.step for saved in DirectoryCheckpoints(root / "checkpoints").saved()]


def test_what_a_killed_worker_left_half_made_is_removed(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "checkpoints/.abc.tmp").mkdir()
    (tmp_path / ".checkpoint-x").mkdir()

    assert DirectoryCheckpoints(tmp_path / "checkpoints").load().step == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "MANIFEST.json",
        "checkpoints",
        "state.bin",
        "step-00000001",
    ]


def test_a_checkpoint_that_the_driver_removes_at_the_same_time_fails_no_save(tmp_path, monkeypatch):
    for step in (1, 2):
        save(tmp_path, step)
    remove_here = shutil.rmtree

    def removed_by_another(path, *args, **kwargs):
        if path.name == "step-00000001":
            remove_here(path)
        remove_here(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", removed_by_another)
    save(tmp_path, 3)
    assert steps(tmp_path) == [2, 3]


def record(number, state, value=None):
    return TrialRecord(number=number, state=state, params={}, point_id=str(number), value=value, attempts=1)


@pytest.fixture
def sweep(tmp_path):
    """Four trials with two checkpoints of 100 bytes each: three complete, one running."""
    for number in range(4):
        for step in (1, 2):
            save(tmp_path / str(number), step)
    records = {number: record(number, TrialState.COMPLETE, value=float(number)) for number in range(3)}
    return tmp_path, {**records, 3: record(3, TrialState.RUNNING)}


class Opened:
    """Opens trials' checkpoints, and notes whose."""

    def __init__(self, root):
        self._root = root
        self.numbers = []

    def __call__(self, number):
        self.numbers.append(number)
        return DirectoryCheckpoints(self._root / str(number) / "checkpoints")


def retention(root, *, keep_best=None, max_bytes=None, maximize=False):
    def stores(number):
        return DirectoryCheckpoints(root / str(number) / "checkpoints")

    return Retention(stores, keep_best=keep_best, max_bytes=max_bytes, maximize=maximize)


def kept(root):
    return {number: steps(root / str(number)) for number in range(4)}


@pytest.mark.parametrize(("maximize", "best"), [(False, 0), (True, 2)])
def test_the_checkpoints_of_the_best_are_kept(sweep, maximize, best):
    root, records = sweep
    retention(root, keep_best=1, maximize=maximize).after_end(2, records)

    assert kept(root) == {**{number: [] for number in range(3)}, best: [1, 2], 3: [1, 2]}


def test_without_a_policy_all_are_kept(sweep):
    root, records = sweep
    retention(root).after_end(2, records)

    assert kept(root) == {number: [1, 2] for number in range(4)}


def test_of_the_worse_ones_each_is_looked_at_once(sweep):
    root, records = sweep
    opened = Opened(root)
    policy = Retention(opened, keep_best=1, max_bytes=None, maximize=False)
    policy.after_end(2, records)
    records[3] = record(3, TrialState.COMPLETE, value=3.0)
    policy.after_end(3, records)

    assert opened.numbers == [1, 2, 3]
    assert kept(root) == {0: [1, 2], 1: [], 2: [], 3: []}


def test_a_look_at_all_is_only_at_those_that_may_have_any(sweep):
    root, records = sweep
    opened, asked = Opened(root), []

    def with_any(numbers):
        asked.append(list(numbers))
        return [number for number in asked[-1] if number != 2]

    policy = Retention(opened, with_any=with_any, keep_best=1, max_bytes=None, maximize=False)
    policy.after_end(2, records)
    policy.after_end(2, records)

    assert (asked, opened.numbers) == ([[1, 2]], [1])


def test_trials_of_an_object_store_are_listed_in_one_look(tmp_path, caplog):
    place = f"memory://bucket-{next(_numbers)}"
    assert trials_at(place, study="demo") == set()
    for number in (0, 12):
        store = RemoteCheckpoints(f"{place}/demo/trials/{number}/checkpoints")
        source = tmp_path / "source"
        source.mkdir()
        (source / "state.bin").write_bytes(b"x")
        store.save(source, step=1, samples=8)
    assert trials_at(place, study="demo") == {0, 12}
    assert trials_at("nowhere://x", study="demo") is None
    assert "The trials at nowhere://x could not be listed" in caplog.text


def test_a_save_within_the_bound_looks_at_no_other_trial(sweep):
    root, records = sweep
    opened = Opened(root)
    policy = Retention(opened, keep_best=None, max_bytes=10_000, maximize=False)
    policy.after_save(3, records)
    opened.numbers.clear()
    policy.after_save(3, {3: records[3]})

    assert opened.numbers == [3]


def test_a_trial_that_trains_another_one_on_keeps_its_own_and_pushes_out_none(sweep):
    root, records = sweep
    records[1].origin = Origin(by="somebody", continues=0)
    records[1].value = -1.0
    retention(root, keep_best=1).after_end(2, records)

    assert kept(root) == {0: [1, 2], 1: [1, 2], 2: [], 3: [1, 2]}


def test_a_budget_takes_from_what_an_earlier_driver_left_of_stopped_trials_first(sweep):
    root, records = sweep
    records[0].state = TrialState.PRUNED
    retention(root, max_bytes=650).after_save(3, records)

    assert kept(root) == {0: [], 1: [1, 2], 2: [1, 2], 3: [1, 2]}


def test_a_budget_takes_from_a_trial_that_trains_another_one_on_after_those_that_are_compared(sweep):
    root, records = sweep
    records[2].origin = Origin(by="somebody", continues=0)
    policy = retention(root, max_bytes=450)
    policy.after_save(3, records)
    assert kept(root) == {0: [], 1: [], 2: [1, 2], 3: [1, 2]}

    policy = retention(root, max_bytes=250)
    policy.after_save(3, records)
    assert kept(root)[2] == []


def test_a_budget_takes_from_the_worst_complete_trial_first(sweep):
    root, records = sweep
    retention(root, max_bytes=650).after_save(3, records)

    assert kept(root) == {0: [1, 2], 1: [1, 2], 2: [], 3: [1, 2]}


def test_a_budget_never_takes_a_running_trials_newest(sweep, caplog):
    root, records = sweep
    retention(root, max_bytes=50).after_save(3, records)

    assert kept(root) == {0: [], 1: [], 2: [], 3: [2]}
    assert "more than `trial.checkpoint.max_gb`" in caplog.text


def test_a_budget_that_cannot_be_kept_to_now_is_kept_to_at_the_next_save(tmp_path, monkeypatch, caplog):
    places = {number: InStore(tmp_path).place for number in range(2)}
    for place in places.values():
        for step in (1, 2):
            put(open_checkpoints(place), tmp_path, step)
    records = {number: record(number, TrialState.RUNNING) for number in places}

    def there():
        return [len(open_checkpoints(place).saved()) for place in places.values()]

    policy = Retention(
        lambda number: open_checkpoints(places[number]), keep_best=None, max_bytes=250, maximize=False
    )
    for foreign in ("ls", "rm"):
        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, foreign, fails)
            assert policy.may_wait(0, records, n_told=1) is False
            policy.after_save(0, records)
            policy.after_end(0, records)
        assert there() == [2, 2]
    told = "could not be counted or removed now (ConnectionError: no route to the store)"
    assert caplog.text.count(told) == 2  # once of each

    policy.after_save(1, records)
    assert there() == [1, 1]
