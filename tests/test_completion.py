"""What a shell offers after a tab, asked as bash, zsh and fish ask, and that every command's help has examples."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_fixtures import another_user, cli, only_root, write_sweep

from sweeper.cli import app
from sweeper.completion import studies, trials
from sweeper.help_text import examples

COMMANDS = [
    command.name or command.callback.__name__ for command in app.registered_commands if command.callback
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a study `made-up` of four trials in `studies/`."""
    folder = tmp_path_factory.mktemp("work")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert cli("launch", write_sweep(folder), "--executor", "in-process").code == 0
    finally:
        os.chdir(before)
    return folder


def offered(folder: Path, shell: str, line: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what the command prints to a shell that completes a line."""
    monkeypatch.chdir(folder)
    words = line.split(" ")
    monkeypatch.setenv("_SWEEPER_COMPLETE", f"complete_{shell}")
    if shell == "bash":
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    else:
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    return cli().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_studies_are_offered(folder: Path, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "made-up" in offered(folder, shell, "sweeper status ma", monkeypatch)
    assert "studies/made-up" in offered(folder, shell, "sweeper status studies/", monkeypatch)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_trial_numbers_are_offered(folder: Path, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = offered(folder, shell, "sweeper export made-up --trial 2", monkeypatch)

    assert "2" in found
    if shell != "bash":  # bash shows no meanings
        assert "COMPLETE learning_rate=1e-3" in found


def test_names_are_offered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered(folder, "bash", "sweeper export made-up --format ax", monkeypatch).split() == ["axolotl"]
    assert offered(folder, "bash", "sweeper replay made-up --pruner me", monkeypatch).split() == ["median"]
    assert offered(folder, "bash", "sweeper res", monkeypatch).split() == ["resume"]


def test_a_study_that_is_not_there_offers_nothing_and_says_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offered(folder, "bash", "sweeper export nobody --trial 1", monkeypatch).strip() == ""


def test_whatever_goes_wrong_offers_nothing_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert studies(SimpleNamespace(params={"storage": "sqlite:///a.db"}), "") == []  # no working directory
    assert trials(SimpleNamespace(params=None), "") == []
    assert capfd.readouterr() == ("", "")


@only_root
def test_directories_of_another_user_are_offered_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "studies" / "closed").mkdir(parents=True)
    (tmp_path / "studies" / "closed").chmod(0o700)
    (tmp_path / "studies").chmod(0o755)
    context = SimpleNamespace(params={})

    with another_user(tmp_path):
        assert studies(context, f"{tmp_path}/studies/") == [f"{tmp_path}/studies/closed/"]
        assert studies(context, f"{tmp_path}/studies/closed/") == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_ends_with_examples_of_the_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    run = cli(command, "--help")

    assert run.code == 0
    assert "Examples" in run.out
    first = examples(command).split("[cyan]")[1].split("[/cyan]")[0]
    assert first in run.out


@pytest.mark.parametrize("command", ["plan", "status", "evidence", "report", "ls", "replay"])
def test_commands_that_print_data_print_json(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    words = {"plan": ["sweep.yaml"], "ls": [], "replay": ["made-up", "--orders", "2"]}.get(
        command, ["made-up"]
    )

    run = cli(command, *words, "--json")

    assert run.code == 0, run.err
    assert json.loads(run.out)
