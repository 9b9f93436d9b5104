"""What cannot be looked at for a moment is not taken for absent or damaged, on any version of Python."""

import builtins
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_files import BASE as SWEEP
from sweeps import make_config, make_orchestrator, make_study, reopened

from sweeper import looking
from sweeper.checkpoint import MANIFEST, DirectoryCheckpoints, RemoteCheckpoints, inherit_checkpoint
from sweeper.config import load_config
from sweeper.config.trial_models import DataSource
from sweeper.errors import ConfigError, SweeperError
from sweeper.executors.user_code import UserCode
from sweeper.files import publish_directory
from sweeper.items import Items, read_items, write_items
from sweeper.looking import files_below, is_directory, is_file, is_there, names_in, paths_below, patiently
from sweeper.preflight.environment import input_hashes
from sweeper.records import Outcome, OutcomeKind, Report, StepRow
from sweeper.reporting.studies import find_studies, studies_json
from sweeper.study.curves import CurveStore, DamagedCurveError
from sweeper.study.holder import Holder
from sweeper.study.study import Study
from sweeper.trackers.logged import LoggedSteps
from sweeper.training.data_identity import check_identities, data_identities
from sweeper.training.sources import local_files

NEWEST = "step-00000003"


@pytest.fixture(autouse=True)
def _newest_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `pathlib` say no where it cannot tell, as it does from Python 3.12 and 3.14 on, and let nobody wait."""

    def swallowing(real: Any) -> Any:
        def listed(self: Path, pattern: str, **more: Any) -> Iterator[Path]:
            try:
                return iter(list(real(self, pattern, **more)))
            except OSError:
                return iter(())

        return listed

    monkeypatch.setattr(Path, "glob", swallowing(Path.glob))
    monkeypatch.setattr(Path, "rglob", swallowing(Path.rglob))
    monkeypatch.setattr(Path, "exists", lambda self: os.path.exists(self))
    monkeypatch.setattr(Path, "is_file", lambda self: os.path.isfile(self))
    monkeypatch.setattr(Path, "is_dir", lambda self: os.path.isdir(self))
    monkeypatch.setattr(looking, "_AGAIN_S", 0.0)


def stumble(
    monkeypatch: pytest.MonkeyPatch, path: Path, *, number: int = errno.EMFILE, times: int | None = None
) -> None:
    """Let what is asked of a path fail, always or so many times: its content, its facts, the names in it."""
    left = [times]

    def failing(real: Any) -> Any:
        def call(asked: Any = ".", *words: Any, **more: Any) -> Any:
            is_asked = isinstance(asked, str | os.PathLike) and os.fspath(asked) == str(path)
            if is_asked and left[0] != 0:
                left[0] = None if left[0] is None else left[0] - 1
                raise OSError(number, os.strerror(number), str(path))
            return real(asked, *words, **more)

        return call

    for module, name in ((os, "stat"), (os, "listdir"), (os, "scandir"), (builtins, "open")):
        monkeypatch.setattr(module, name, failing(getattr(module, name)))


def tree(root: Path) -> Path:
    (root / "sub" / ".hidden").mkdir(parents=True)
    for name in ("b.json", "a.json", "sub/c.json", "sub/.hidden/d.json"):
        (root / name).write_text("{}")
    (root / "linked").symlink_to(root / "sub")
    (root / "file link").symlink_to(root / "a.json")
    (root / "dangling").symlink_to(root / "nothing")
    return root


# -- looks -----------------------------------------------------------------------------------------------------


def test_what_is_there_is_told_from_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    paths = [tmp_path, tmp_path / "file", tmp_path / "nothing", tmp_path / "file" / "below", Path("no\0name")]

    assert [is_there(path) for path in paths] == [True, True, False, False, False]
    assert [is_file(path) for path in paths] == [False, True, False, False, False]
    assert [is_directory(path) for path in paths] == [True, False, False, False, False]
    assert [names_in(path) for path in paths[:4]] == [["file"], [], [], []]


@pytest.mark.parametrize("look", [is_there, is_file, is_directory, names_in, files_below, paths_below])
def test_what_cannot_be_told_is_raised(look: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stumble(monkeypatch, tmp_path)

    with pytest.raises(OSError, match="Too many open files"):
        look(tmp_path)


def test_what_lies_below_a_directory_is_listed_as_glob_would(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")

    assert paths_below(root) == sorted(root.rglob("*"))
    assert files_below(root) == sorted(path for path in root.rglob("*") if path.is_file())


def test_only_what_one_may_not_list_is_left_out_and_only_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "root")
    stumble(monkeypatch, root / "sub", number=errno.EACCES)
    assert [path.name for path in files_below(root, skips_closed=True)] == ["a.json", "b.json", "file link"]
    with pytest.raises(PermissionError):
        files_below(root)

    stumble(monkeypatch, root / "sub", number=errno.ESTALE)
    with pytest.raises(OSError, match="Stale file handle"):
        files_below(root, skips_closed=True)


def test_a_look_is_tried_again_until_the_file_system_answers_or_patience_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stumble(monkeypatch, tmp_path, number=errno.ESTALE, times=3)
    assert patiently(tmp_path, lambda: names_in(tmp_path)) == []

    stumble(monkeypatch, tmp_path, number=errno.ESTALE)
    monkeypatch.setattr(looking, "_PATIENCE_S", 0.0)
    with pytest.raises(
        SweeperError, match=rf"^{tmp_path} cannot be read: Stale file handle\. .*`sweeper resume`"
    ):
        patiently(tmp_path, lambda: names_in(tmp_path))


# -- what a trial goes on from ---------------------------------------------------------------------------------


def save(root: Path, step: int) -> None:
    source = root / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "state.bin").write_bytes(bytes([step]) * 100)
    DirectoryCheckpoints(root / "checkpoints").save(source, step=step, samples=step * 10)


@pytest.fixture
def begun(tmp_path: Path) -> Study:
    """A study whose first trial was stopped after 5 steps, with checkpoints after 2 and 3."""
    study = make_study(tmp_path, make_config())
    first = make_orchestrator(study)
    spec = first.next_trial()
    assert spec is not None
    for step in (2, 3):
        save(tmp_path / "trials" / "0", step)
    rows = tuple(StepRow(step, step * 10, step, 1.0, 1.0, 1e-3) for step in range(1, 6))
    first.on_report(spec.number, Report(rows=rows, checkpoint=NEWEST))
    first.on_end(spec.number, Outcome(kind=OutcomeKind.STOPPED))
    return reopened(study)


PLACES = {
    "the curve": "curves/00000.parquet",
    "the checkpoints": "trials/0/checkpoints",
    "a manifest": f"trials/0/checkpoints/{NEWEST}/{MANIFEST}",
    "a file of a checkpoint": f"trials/0/checkpoints/{NEWEST}/sub/state.bin",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_what_cannot_be_read_ends_the_driver_and_takes_nothing_from_a_trial(
    place: str, begun: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator = make_orchestrator(begun)
    with monkeypatch.context() as stumbling:
        stumble(stumbling, tmp_path / place)
        with pytest.raises(SweeperError, match=rf"^{tmp_path / place} cannot be read: Too many open files\."):
            orchestrator.next_trial()

    assert len(begun.curves.rows(0)) == 5
    spec = make_orchestrator(reopened(begun)).next_trial()
    assert spec is not None
    assert (spec.number, spec.checkpoint_step) == (0, 3)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_trial_goes_on_from_its_newest_checkpoint_though_the_file_system_stumbles(
    place: str, begun: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator = make_orchestrator(begun)
    stumble(monkeypatch, tmp_path / place, number=errno.ESTALE, times=2)

    spec = orchestrator.next_trial()
    assert spec is not None
    assert spec.checkpoint_step == 3
    assert [row.step for row in begun.curves.rows(0)] == [1, 2, 3]


def test_a_curve_that_cannot_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = CurveStore(tmp_path)
    curves.write(0, [])
    stumble(monkeypatch, curves.path(0))

    with pytest.raises(
        SweeperError, match=r"cannot be read: .* or removed: a trial that is not finished"
    ) as told:
        curves.rows(0)
    assert not isinstance(told.value, DamagedCurveError)


def test_a_worker_loads_the_checkpoint_before_one_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (2, 3):
        save(tmp_path, step)
    store = DirectoryCheckpoints(tmp_path / "checkpoints", newest_step=3)
    stumble(monkeypatch, tmp_path / "checkpoints" / NEWEST / "sub" / "state.bin")

    loaded = store.load()
    assert loaded is not None
    assert loaded.step == 2
    assert is_there(tmp_path / "checkpoints" / NEWEST)


def test_a_worker_does_not_start_anew_because_its_only_checkpoint_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 3)
    place = tmp_path / "checkpoints" / NEWEST / "sub" / "state.bin"
    stumble(monkeypatch, place)

    with pytest.raises(SweeperError, match=f"^{place} cannot be read"):
        DirectoryCheckpoints(tmp_path / "checkpoints").load()


def test_a_trial_does_not_start_without_a_checkpoint_that_cannot_be_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 3)
    stumble(monkeypatch, tmp_path / "checkpoints")

    with pytest.raises(SweeperError, match="cannot be read"):
        inherit_checkpoint(str(tmp_path / "checkpoints"), str(tmp_path / "other"), newest_step=3)


@pytest.mark.parametrize("place", ["memory://bucket-of-looks/checkpoints", "checkpoints"])
def test_a_checkpoint_is_not_saved_without_what_cannot_be_listed(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tree(tmp_path / "source")
    is_remote = "://" in place
    store = RemoteCheckpoints(place) if is_remote else DirectoryCheckpoints(tmp_path / place)
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("/sub"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path)

    with monkeypatch.context() as stumbling:
        stumbling.setattr(os, "scandir", scandir)
        with pytest.raises(OSError, match="Stale file handle"):
            store.save(source, step=1, samples=8)

    assert store.saved() == []
    assert is_there(source) or not is_remote


def test_a_directory_is_not_published_without_what_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = tree(tmp_path / "beside")
    stumble(monkeypatch, beside / "sub")

    with pytest.raises(OSError, match="Too many open files"):
        publish_directory(beside, tmp_path / "done")
    assert not is_there(tmp_path / "done")


# -- studies ---------------------------------------------------------------------------------------------------


def test_a_study_that_cannot_be_looked_at_is_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path / "study", make_config())
    stumble(monkeypatch, study.directory / "study.json")

    with pytest.raises(SweeperError, match=r"cannot be read: .*Too many open files"):
        Study.open(str(study.directory))
    (row,) = studies_json(find_studies(tmp_path, None))
    assert "cannot be read" in row["error"]


def test_a_directory_of_studies_that_cannot_be_listed_is_not_said_to_hold_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(tmp_path / "study", make_config())
    stumble(monkeypatch, tmp_path)

    with pytest.raises(ConfigError, match="cannot be read: Too many open files"):
        find_studies(tmp_path, None)


def test_a_living_process_is_not_taken_for_dead_by_one_without_a_free_descriptor() -> None:
    me = Holder.me()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptor = os.open(os.devnull, os.O_RDONLY)  # the least that is free is at most this one
    os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        assert not me.is_dead
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_items_and_logged_steps_that_cannot_be_read_are_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_items(tmp_path, Items(source="dev", ids=("a",), measures={"loss": (1.0,)}))
    (tmp_path / "wandb.steps").write_text("0 10\n")
    stumble(monkeypatch, tmp_path / "items")
    stumble(monkeypatch, tmp_path / "wandb.steps")

    with pytest.raises(OSError, match="Too many open files"):
        read_items(tmp_path)
    with pytest.raises(OSError, match="Too many open files"):
        LoggedSteps(tmp_path / "wandb.steps")


# -- what a sweep names ----------------------------------------------------------------------------------------


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """The model and the data of a sweep file, in directories with directories of their own."""
    for place, name in (("org/model", "config.json"), ("data", "train.jsonl")):
        (tmp_path / place / "part").mkdir(parents=True)
        (tmp_path / place / name).write_text("{}\n")
        (tmp_path / place / "part" / "more.json").write_text("{}\n")
    (tmp_path / "dev.jsonl").write_text("{}\n")
    text = SWEEP.replace("org/model", "./org/model").replace("train.jsonl", "./data")
    (tmp_path / "sweep.yaml").write_text(text)
    return tmp_path


@pytest.mark.parametrize("place", ["org/model", "data", "data/part"])
def test_a_path_of_a_sweep_file_that_cannot_be_looked_at_is_not_said_to_be_missing(
    place: str, named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train.jsonl", "part/more.json"):
        (named / "data" / name).unlink()
    (named / "data" / "part" / "only.jsonl").write_text("{}\n")
    stumble(monkeypatch, named / place)

    with pytest.raises(ConfigError, match="which cannot be looked at: Too many open files") as told:
        load_config(named / "sweep.yaml")
    assert len(told.value.problems) == 1


def test_data_is_not_said_to_have_changed_where_a_part_of_it_cannot_be_listed(
    named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = load_config(named / "sweep.yaml").trial
    noted = data_identities(trial)
    stumble(monkeypatch, named / "data" / "part")

    with pytest.raises(ConfigError, match=rf"`{named}/data` cannot be read: Too many open files"):
        check_identities(trial, noted)
    with pytest.raises(ConfigError, match="cannot be read"):
        local_files(DataSource(path=str(named / "data")))


def test_the_hash_of_a_model_is_over_all_of_it_though_the_file_system_stumbles(
    named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(named / "sweep.yaml")
    before = input_hashes(config)

    stumble(monkeypatch, named / "org" / "model" / "part", number=errno.ESTALE, times=1)
    assert input_hashes(config) == before

    stumble(monkeypatch, named / "org" / "model" / "part")
    with pytest.raises(SweeperError, match="part cannot be read: Too many open files"):
        input_hashes(config)


def test_a_users_code_does_not_travel_without_what_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tree(tmp_path / "code")
    (tmp_path / "scratch").mkdir()
    stumble(monkeypatch, code / "sub")

    with pytest.raises(
        ConfigError, match=rf"travel to the nodes, but {code}/sub cannot be read: Too many open"
    ):
        UserCode(directory=code).pack(tmp_path / "scratch")
