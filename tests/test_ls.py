"""`sweeper ls`: which studies there are."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from cli_fixtures import another_user, cli, only_root
from export_fixtures import finished_study
from report_fixtures import view_of_5
from rich.console import Console
from sweeps import make_config, make_study

from sweeper.errors import ConfigError, StudyMismatchError
from sweeper.reporting.studies import FoundStudy, find_studies, studies_json, studies_table


def rendered(directory: Path) -> list[str]:
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(studies_table(find_studies(directory, None)))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_studies_of_a_directory_are_listed_with_their_best(tmp_path: Path) -> None:
    finished_study(tmp_path / "data")
    (tmp_path / "studies").mkdir()
    (tmp_path / "data" / "study").rename(tmp_path / "studies" / "made")
    make_study(tmp_path / "studies" / "fresh", make_config(study="fresh"))

    lines = rendered(tmp_path / "studies")

    assert lines[0].split() == ["study", "state", "trials", "best"]
    assert lines[1].split() == ["fresh", "interrupted", "4", "WAITING"]
    assert lines[2] == "made   interrupted  2 COMPLETE, 1 PRUNED  score = 0.75 (trial 1)"


def test_json_holds_counts_of_every_state(tmp_path: Path) -> None:
    finished_study(tmp_path)

    (row,) = studies_json(find_studies(tmp_path, None))

    assert row["trials"] == {"WAITING": 0, "RUNNING": 0, "COMPLETE": 2, "PRUNED": 1, "FAIL": 0}
    assert row["best"] == {"trial": 1, "number": 1, "value": 0.75}
    assert row["directory"] == str(tmp_path / "study")


def test_a_damaged_study_hides_no_other(tmp_path: Path) -> None:
    make_study(tmp_path / "good", make_config(study="good"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "study.json").write_text("{")

    rows = studies_json(find_studies(tmp_path, None))

    assert [(row["study"], row["state"]) for row in rows] == [("bad", None), ("good", "interrupted")]
    assert "cannot be read" in rows[0]["error"]


@only_root
def test_a_study_of_another_user_hides_no_other(tmp_path: Path) -> None:
    for name in ("closed", "mine"):
        make_study(tmp_path / name, make_config(study=name))
        for path in (tmp_path / name, *(tmp_path / name).iterdir()):
            path.chmod(path.stat().st_mode | 0o055)
    (tmp_path / "closed" / "study.json").chmod(0o600)

    with another_user(tmp_path):
        rows = studies_json(find_studies(tmp_path, None))

    assert [(row["study"], row["state"]) for row in rows] == [("closed", None), ("mine", "interrupted")]
    assert "Permission denied" in rows[0]["error"]


@pytest.mark.parametrize("metric", ["acc[val]", "pass[/k]", "a:fire:b"])
def test_a_name_that_looks_like_markup_is_shown_as_it_is(metric: str) -> None:
    view = view_of_5()
    view = dataclasses.replace(view, config=view.config.model_copy(update={"metric": metric}))
    console = Console(width=100, file=io.StringIO(), color_system=None)

    console.print(studies_table([FoundStudy(name=view.name, directory=view.directory, view=view)]))

    assert f"{metric} = 0.8217 (trial 2)" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("slashes", ["sqlite:///", "sqlite:////"])
def test_a_database_that_does_not_exist_is_told_and_not_made(
    slashes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = "new.db" if slashes == "sqlite:///" else str(tmp_path / "new.db").removeprefix("/")
    with pytest.raises(StudyMismatchError, match=r"There is no database `.*new\.db`\. Give the URL of one"):
        find_studies(None, f"{slashes}{place}")
    assert list(tmp_path.iterdir()) == []


def test_studies_of_a_storage_are_listed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'all.db'}"
    for name in ("second", "first"):
        make_study(tmp_path / name, make_config(study=name, storage=url))

    assert [found.name for found in find_studies(None, url)] == ["first", "second"]


def test_a_study_that_sweeper_did_not_make_is_named_unreadable(tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path / 'all.db'}"
    storage = optuna.storages.RDBStorage(url)
    optuna.create_study(storage=storage, study_name="foreign")
    storage.engine.dispose()  # from Python 3.13 on a connection that nobody closes is warned of

    (row,) = studies_json(find_studies(None, url))

    assert row["state"] is None
    assert "was not made by sweeper" in row["error"]


def test_a_study_of_another_version_hides_no_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'all.db'}"
    studies = [make_study(tmp_path / name, make_config(study=name, storage=url)) for name in ("a", "b")]
    studies[0]._storage.set_study_user_attr(studies[0]._id, "sweeper:config", {"study": "a", "later": 1})

    first, second = studies_json(find_studies(None, url))

    assert first["state"] is None
    assert first["error"]
    assert second["state"] is not None


def test_a_missing_directory_is_an_error_unless_it_is_the_default(tmp_path: Path) -> None:
    assert find_studies(None, None) == []
    with pytest.raises(StudyMismatchError, match="`nowhere` does not exist"):
        find_studies(Path("nowhere"), None)
    with pytest.raises(ConfigError, match="not both"):
        find_studies(tmp_path, "sqlite:///x.db")


def test_commands_print_data_on_stdout_and_words_on_stderr(tmp_path: Path) -> None:
    finished_study(tmp_path)

    listed = cli("ls", tmp_path, "--json")
    printed = cli("export", tmp_path / "study", "--format", "axolotl", "--lock", "l.json")
    wrong = cli("export", tmp_path / "study", "--format", "trl", "--trial", "9")

    assert [row["study"] for row in json.loads(listed.out)] == ["made"]
    assert (listed.code, printed.code, wrong.code) == (0, 0, 4)
    assert printed.out.startswith("# Trial 1 of study made for axolotl")
    assert printed.err == "wrote l.json\n"
    assert wrong.err.startswith("error: Study `made` has no trial 9: its trials are")
