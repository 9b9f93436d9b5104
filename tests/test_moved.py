"""A project that lies elsewhere than it did: its study goes on where what its paths name is the same."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import trial_functions
from sweep_files import BASE, replaced, write_data
from sweeps import BASE as BY_FUNCTION

from sweeper import api
from sweeper.confirm.rerun import rerun
from sweeper.context import TrialContext
from sweeper.errors import InterruptedSweepError, NothingToDoError, StudyMismatchError
from sweeper.events import Event, EventKind
from sweeper.moved import follow
from sweeper.plan import DataFacts
from sweeper.records import TrialState
from sweeper.study.study import Study
from sweeper.study.view import StudyView
from sweeper.training.data_identity import data_identities, named_sources

SWEEP = replaced(
    BASE,
    ("org/model", "model"),
    ("[32, 128]", "[32]"),
    ("early_dynamics", "nop"),
    ("gpus_per_trial: 1", "gpus_per_trial: 0, slots: 1"),
    ("  budget", "  chat_template: chat.jinja\n  budget"),
    ("8192", "64"),
)
OPTIONS = api.LaunchOptions(executor="in-process")


class StopAfterFirst:
    """Ends the driver once the first trial has ended."""

    def on_event(self, event: Event) -> None:
        if event.kind is EventKind.TRIAL_ENDED:
            raise KeyboardInterrupt


def train(context: TrialContext) -> dict[str, float]:
    context.report(step=2, samples=64, loss=1.0, grad_norm=1.0)
    return {"dev/loss": context.params["learning_rate"]}


def begin(project: Path, *listeners: Any) -> Path:
    """Make a project whose sweep is begun; return its study's directory."""
    (project / "model").mkdir(parents=True)
    (project / "model" / "config.json").write_text('{"model_type": "none"}')
    (project / "chat.jinja").write_text("{{ messages }}")
    (project / "sweep.yaml").write_text(SWEEP)
    write_data(project)
    launch(project, *listeners)
    return project / "study"


def launch(project: Path, *listeners: Any) -> StudyView:
    options = api.LaunchOptions(executor="in-process", dir=str(project / "study"))
    return api.launch(project / "sweep.yaml", options=options, function=train, listeners=listeners)


def resume(place: Path, *overrides: str) -> StudyView:
    return api.resume(str(place), overrides, options=OPTIONS, function=train)


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A project of which one of two trials is trained, moved since."""
    with pytest.raises(InterruptedSweepError):
        begin(tmp_path / "old", StopAfterFirst())
    return (tmp_path / "old").rename(tmp_path / "new")


def is_trained(view: StudyView) -> bool:
    return [(record.state, record.attempts) for record in view.records] == [(TrialState.COMPLETE, 1)] * 2


def named(project: Path) -> list[str]:
    """The paths that a study's config has."""
    trial = Study.open(str(project / "study")).config.trial
    return [
        str(trial.model),
        str(trial.chat_template),
        *(source.path for source in named_sources(trial).values()),
    ]


def test_a_moved_project_is_resumed_with_what_moved_along(
    moved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert is_trained(resume(moved / "study"))

    files = ("model", "chat.jinja", "train.jsonl", "dev.jsonl")
    assert named(moved) == [str(moved / name) for name in files]
    told = capsys.readouterr().err
    assert f"`trial.model` was {moved.parent}/old/model and is now {moved}/model" in told
    assert str(moved.parent / "old") not in (moved / "study" / "sweep.yaml").read_text()


def test_a_moved_sweep_file_is_launched_on(moved: Path) -> None:
    assert is_trained(launch(moved))
    assert str(moved / "model") in named(moved)


def test_a_study_that_moved_alone_is_told_where_the_rest_lies(moved: Path) -> None:
    place = (moved / "study").rename(moved.parent / "study")
    words = [
        f"trial.model={moved}/model",
        f"trial.chat_template={moved}/chat.jinja",
        f"trial.train_data={moved}/train.jsonl",
        f"trial.eval_data.dev={moved}/dev.jsonl",
    ]
    assert is_trained(resume(place, *words))


@pytest.mark.parametrize("file", ["model/config.json", "chat.jinja", "train.jsonl"])
def test_other_content_at_the_new_place_is_refused(
    file: str, moved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (moved / file).write_text('{"prompt": "a", "completion": "c"}')
    key = {"model/config.json": "model", "chat.jinja": "chat_template", "train.jsonl": "train_data"}[file]
    place = moved / file.split("/")[0]

    follow(Study.open(str(moved / "study")))
    assert f"is gone; {place} is not what the study noted of it" in capsys.readouterr().err
    with pytest.raises(
        StudyMismatchError, match=f"`trial.{key}` was .*what is listed here has other content"
    ):
        launch(moved)
    with pytest.raises(StudyMismatchError, match=f"`trial.{key}` was .*a symbolic link at its old place"):
        resume(moved / "study", f"trial.{key}={place}")


def test_data_is_compared_by_what_was_noted_of_its_rows_under_any_name(moved: Path) -> None:
    study = Study.open(str(moved / "study"))
    trial = api.read_config(moved / "sweep.yaml").trial
    study.set_facts(DataFacts(rows=1, target_tokens=1, sources=data_identities(trial)))
    (moved / "train.jsonl").rename(moved / "rows.jsonl")

    assert is_trained(resume(moved / "study", f"trial.train_data={moved}/rows.jsonl"))


def test_what_nothing_was_noted_of_is_refused(moved: Path) -> None:
    study = Study.open(str(moved / "study"))
    study._storage.set_study_user_attr(study._id, "sweeper:environments", "[]")

    with pytest.raises(StudyMismatchError, match=r"`trial.model` was .*or none was noted"):
        launch(moved)


def test_a_finished_study_s_trial_is_trained_again_where_its_project_lies_now(tmp_path: Path) -> None:
    begin(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")

    found = rerun(str(tmp_path / "new" / "study"), 0, options=OPTIONS, function=train)
    assert found.is_identical
    with pytest.raises(NothingToDoError, match=r"nothing is left to train\. The changed settings are kept"):
        resume(tmp_path / "new" / "study")
    assert named(tmp_path / "new")[0] == str(tmp_path / "new" / "model")


def test_the_directory_of_a_function_is_followed_whatever_it_holds(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "code.py").write_text("before = 1")
    config = {**BY_FUNCTION, "trial": {**BY_FUNCTION["trial"], "function_dir": str(tmp_path / "old")}}
    options = api.LaunchOptions(executor="in-process", dir=str(tmp_path / "old" / "study"))
    with pytest.raises(InterruptedSweepError):
        api.launch(config, options=options, function=trial_functions.steady, listeners=[StopAfterFirst()])
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "new" / "code.py").write_text("after = 1")

    place = str(tmp_path / "new" / "study")
    api.resume(place, options=OPTIONS, function=trial_functions.steady)
    assert Study.open(place).config.trial.function_dir == str(tmp_path / "new")


def test_a_copied_project_keeps_the_paths_that_are_still_there(tmp_path: Path) -> None:
    with pytest.raises(InterruptedSweepError):
        begin(tmp_path / "old", StopAfterFirst())
    os.rename(tmp_path / "old" / "study", tmp_path / "study")

    assert is_trained(resume(tmp_path / "study"))
    assert str(tmp_path / "old" / "model") in named(tmp_path)


# -- studies in a database ----------------------------------------------------------------------------------------


def in_database(root: Path, *listeners: Any, name: str = "a.db", directory: str = "dir-a") -> StudyView:
    """Launch a sweep whose study is in a database."""
    options = api.LaunchOptions(
        executor="in-process", dir=str(root / directory), storage=f"sqlite:///{root / name}"
    )
    config = {**BY_FUNCTION, "resources": {"slots": 1}}
    return api.launch(config, options=options, function=trial_functions.steady, listeners=listeners)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A directory with a database and a study's directory, of which one trial is trained."""
    with pytest.raises(InterruptedSweepError):
        in_database(tmp_path, StopAfterFirst())
    return tmp_path


def test_a_study_of_a_database_whose_directory_moved_goes_on_in_the_new_one(stored: Path) -> None:
    (stored / "dir-a").rename(stored / "dir-b")

    view = in_database(stored, directory="dir-b")

    assert (view.directory, view.state) == (stored / "dir-b", "finished")
    assert all(len(view.curve(record.number)) for record in view.records)
    assert not (stored / "dir-a").exists()
    url = f"sqlite:///{stored / 'a.db'}"
    assert api.load_study("made-up", storage=url).directory == stored / "dir-b"


def test_a_directory_that_holds_none_of_a_study_is_refused_while_the_old_one_does(stored: Path) -> None:
    with pytest.raises(StudyMismatchError, match=f"lies in {stored}/dir-a, .* give `--dir {stored}/dir-a`"):
        in_database(stored, directory="dir-b")
    assert not (stored / "dir-b").exists()


def test_another_study_s_directory_is_refused(stored: Path) -> None:
    (stored / "dir-b").mkdir()
    (stored / "dir-b" / "study.json").write_text('{"study": "other", "storage": null}')
    with pytest.raises(StudyMismatchError, match="dir-b is the directory of study `other`, not of `made-up`"):
        in_database(stored, directory="dir-b")


def test_a_directory_that_is_not_to_be_seen_is_replaced_with_a_word(
    stored: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(stored / "dir-a")

    assert in_database(stored, directory="dir-b").directory == stored / "dir-b"
    assert f"{stored}/dir-a, where study `made-up` lay, is not to be seen here" in caplog.text


@pytest.mark.parametrize("command", ["launch", "resume"])
def test_a_database_that_moved_is_the_one_that_the_directory_names(command: str, stored: Path) -> None:
    (stored / "a.db").rename(stored / "b.db")
    with pytest.raises(
        StudyMismatchError, match=r"a\.db, holds no study named `made-up`.*moved, name it with"
    ):
        api.load_study(str(stored / "dir-a"))
    assert not (stored / "a.db").exists()

    if command == "launch":
        in_database(stored, name="b.db")
    else:
        options = api.LaunchOptions(executor="in-process", storage=f"sqlite:///{stored / 'b.db'}")
        api.resume(str(stored / "dir-a"), options=options, function=trial_functions.steady)

    assert api.load_study(str(stored / "dir-a")).state == "finished"
    assert "b.db" in (stored / "dir-a" / "sweep.yaml").read_text()
    assert not (stored / "a.db").exists()
