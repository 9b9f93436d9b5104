"""Which checkpoints are kept, and which of them a trial goes on from."""

import pytest

from sweeper.checkpoint import DirectoryCheckpoints, Retention, open_checkpoints
from sweeper.records import TrialRecord, TrialState


def save(root, step, *, size=100, **options):
    source = root / "source"
    source.mkdir(parents=True)
    (source / "state.bin").write_bytes(bytes([step % 256]) * size)
    return DirectoryCheckpoints(root / "checkpoints", **options).save(source, step=step, samples=step * 8)


def steps(root):
    return [saved.step for saved in DirectoryCheckpoints(root / "checkpoints").saved()]


def test_the_newest_two_are_kept(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)

    assert steps(tmp_path) == [2, 3]


def test_a_checkpoint_past_the_recorded_curve_is_not_gone_on_from(tmp_path):
    for step in (1, 2):
        save(tmp_path, step)

    store = open_checkpoints(str(tmp_path / "checkpoints"), newest_step=1)
    assert store.load().step == 1
    assert steps(tmp_path) == [1]


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


def test_a_checkpoint_under_another_steps_name_is_none(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "checkpoints/step-00000001").rename(tmp_path / "checkpoints/step-00000009")

    assert DirectoryCheckpoints(tmp_path / "checkpoints").load() is None


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


def test_a_budget_takes_from_the_worst_complete_trial_first(sweep):
    root, records = sweep
    retention(root, max_bytes=650).after_save(3, records)

    assert kept(root) == {0: [1, 2], 1: [1, 2], 2: [], 3: [1, 2]}


def test_a_budget_never_takes_a_running_trials_newest(sweep, caplog):
    root, records = sweep
    retention(root, max_bytes=50).after_save(3, records)

    assert kept(root) == {0: [], 1: [], 2: [], 3: [2]}
    assert "more than `trial.checkpoint.max_gb`" in caplog.text
