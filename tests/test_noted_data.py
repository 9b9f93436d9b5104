"""Trials that are trained again, and plans of a study that is there, stand on the data that the study began with."""

from pathlib import Path
from typing import Any

import pytest
from export_fixtures import finished_study
from sweeps import make_study

from sweeper import api
from sweeper.config.models import SweepConfig
from sweeper.confirm.finalists import choose_finalists, confirm_config
from sweeper.confirm.run import ConfirmRequest, confirm
from sweeper.errors import StudyMismatchError
from sweeper.noted_data import as_its_study_noted, check_data_of, with_noted_data
from sweeper.plan import DataFacts
from sweeper.study.study import Study

OLD, NEW = "a" * 40, "b" * 40
OF_THE_HUB = {"train_data": [{"path": "org/rows", "revision": "main"}]}


def study_of(root: Path, *, noted: str = f"commit {OLD}", **trial: Any) -> Study:
    """A finished study whose rows are of the hub."""
    study = finished_study(root, trial=OF_THE_HUB | trial)
    study.set_facts(facts(**{"train_data[0]": noted}))
    return study


def facts(**sources: str) -> DataFacts:
    return DataFacts(rows=10, target_tokens=30, sources=sources)


def revision(config: SweepConfig) -> str | None:
    (source,) = config.trial.sources
    return source.revision


def test_data_of_the_hub_is_read_at_the_commit_that_was_noted(tmp_path: Path) -> None:
    study = study_of(tmp_path)

    assert revision(with_noted_data(study.config, None, study)) == OLD
    assert revision(with_noted_data(study.config)) == "main"
    with pytest.raises(StudyMismatchError, match=r"again, .*`trial.train_data\[0\]` = `org/rows` has other"):
        check_data_of(study, study.config, facts(**{"train_data[0]": f"commit {NEW}"}))


def test_every_source_that_changed_is_named_with_what_to_do(tmp_path: Path) -> None:
    study = finished_study(tmp_path)
    study.set_facts(facts(**{"train_data[0]": "sha256 1", "eval_data.dev": "sha256 2"}))

    check_data_of(study, study.config, study.facts())
    check_data_of(study, study.config, None)
    check_data_of(study, study.config, facts(**{"train_data[0]": "sha256 1"}))
    with pytest.raises(StudyMismatchError) as caught:
        check_data_of(
            study, study.config, facts(**{"train_data[0]": "sha256 3", "eval_data.dev": "sha256 4"})
        )
    rows = tmp_path / "train.jsonl"
    assert str(caught.value) == (
        "Cannot train trials of study `made` again, since nothing could be compared: "
        f"`trial.train_data[0]` = `{rows}`, `trial.eval_data.dev` = `{rows}` have other content than when it began. "
        "Restore the data, or launch a new study with what is there now."
    )


def test_finalists_that_began_with_other_data_are_not_gone_on_with(tmp_path: Path) -> None:
    first = study_of(tmp_path)
    view = first.view()
    config = confirm_config(view, choose_finalists(view, top=2, baseline=None), n_seeds=2)
    again = make_study(Path(config.dir or ""), config)
    again.set_facts(facts(**{"train_data[0]": f"commit {NEW}"}))

    with pytest.raises(
        StudyMismatchError, match=r"`org/rows` has other content in it than in `made`.*`--name`"
    ):
        confirm(
            str(first.directory),
            ConfirmRequest(top=2, n_seeds=2),
            options=api.LaunchOptions(executor="in-process"),
        )
    assert again.state() == "interrupted"


def test_a_plan_of_a_study_that_is_there_counts_its_own_commit(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    config = study.config.model_copy(update={"dir": str(study.directory)})

    assert revision(as_its_study_noted(config)) == OLD
    elsewhere = config.model_copy(update={"dir": str(tmp_path / "elsewhere")})
    in_a_database = config.model_copy(update={"storage": f"sqlite:///{tmp_path / 'none.db'}"})
    (source,) = config.trial.sources
    others = config.trial.model_copy(
        update={"train_data": [source.model_copy(update={"path": "org/others"})]}
    )
    of_other_data = config.model_copy(update={"trial": others})
    for one in (elsewhere, in_a_database, of_other_data):
        assert as_its_study_noted(one) == one
    assert not (tmp_path / "none.db").exists()
