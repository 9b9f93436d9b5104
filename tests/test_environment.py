"""What a study records of its environment, and what a resume says of changes."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import training_fixtures
from cli_fixtures import cli, write_sweep
from sweep_files import BASE, config_of

from sweeper import api
from sweeper.preflight import environment
from sweeper.preflight.environment import capture_environment, code_state, input_hashes
from sweeper.reporting.page_tables import environment_table
from sweeper.study.environment import changed_since, environment_of
from sweeper.study.study import Study


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def test_the_state_of_the_code_is_its_commit_and_what_differs_from_it(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "code"
    folder.mkdir()
    git(folder, "init", "-q")
    assert code_state(folder) is None, "there is no commit yet"
    (folder / "train.py").write_text("1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    clean = code_state(folder)
    assert clean is not None
    assert len(clean["commit"]) == 40
    assert (clean["changes"], Path(clean["repository"]).name) == (None, "code")
    (folder / "train.py").write_text("2\n")
    changed = code_state(folder)
    assert changed is not None
    assert (changed["commit"], changed["changes"] is None) == (clean["commit"], False)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(bytes(range(256)) * 20)
    (model / "tokenizer.json").write_text("{}")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    for name in ("train", "dev"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a"}\n')
    return tmp_path


def hashes(root: Path) -> dict[str, str | None]:
    text = BASE.replace("org/model", f"{root}/model").replace("train.jsonl", f"{root}/train.jsonl")
    return input_hashes(config_of(text.replace("dev.jsonl", f"{root}/dev.jsonl")))


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("model/model.safetensors", {"model"}),
        ("model/tokenizer.json", {"model", "tokenizer"}),
        ("model/chat_template.jinja", {"model", "chat_template"}),
        ("train.jsonl", {"train_data[0]"}),
        ("dev.jsonl", {"eval_data.dev"}),
    ],
)
def test_each_input_has_a_hash_of_its_own(file: str, changed: set[str], files: Path) -> None:
    before = hashes(files)
    assert hashes(files) == before
    assert set(before) == {"model", "tokenizer", "chat_template", "train_data[0]", "eval_data.dev"}
    (files / file).write_bytes((files / file).read_bytes()[:-1] + b"x")
    after = hashes(files)
    assert {name for name in after if after[name] != before[name]} == changed


def test_every_model_that_is_swept_and_every_data_set_has_a_hash_of_its_own(files: Path) -> None:
    model = files / "model"
    text = BASE.replace("  model: org/model\n", "").replace(
        "train_data: train.jsonl", "data_sets: {one: ONE}"
    )
    text = text.replace("ONE", f"{files}/train.jsonl").replace("dev.jsonl", f"{files}/dev.jsonl")
    config = config_of(text, f"search_space.model.grid=[{model}, org/other@v2]")

    before = input_hashes(config)
    assert set(before) == {
        *(f"{what}[{model}]" for what in ("model", "tokenizer", "chat_template")), "model[org/other@v2]",
        "data_sets.one", "eval_data.dev",
    }  # fmt: skip
    assert before["model[org/other@v2]"] == "v2", (
        "what is not in the cache has no commit but the one that is named"
    )
    for file, changed in (("model/model.safetensors", f"model[{model}]"), ("train.jsonl", "data_sets.one")):
        (files / file).write_bytes((files / file).read_bytes() + b"x")
        after = input_hashes(config)
        assert {name for name in after if after[name] != before[name]} == {changed}
        before = after


def test_a_large_file_is_sampled_from_its_start_to_its_end(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(environment, "_SLICE_BYTES", 10)
    weights = files / "model" / "model.safetensors"
    before, content = hashes(files)["model"], bytearray(weights.read_bytes())
    for place in (0, len(content) - 1):
        changed = content.copy()
        changed[place] ^= 1
        weights.write_bytes(changed)
        assert hashes(files)["model"] != before
    weights.write_bytes(content + b"1")
    assert hashes(files)["model"] != before, "the size counts"


def test_what_changed_since_the_last_start_is_told_but_not_where_it_runs() -> None:
    before: dict[str, Any] = {
        "at": "1",
        "machine": {"node": "a", "packages": {"torch": "2.12"}},
        "code": None,
    }
    now = {"at": "2", "machine": {"node": "b", "packages": {"torch": "2.13"}}, "code": {"commit": "c"}}
    assert changed_since(before, now) == [
        "machine.packages.torch was 2.12 and is now 2.13",
        "code was None and is now {'commit': 'c'}",
    ]
    assert changed_since(None, now) == []


def test_every_driver_records_a_session_and_every_trial_what_it_ran_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = write_sweep(tmp_path)
    assert cli("launch", sweep, "--executor", "in-process").code == 0
    study = Study.open("made-up")
    (session,) = study.environments()
    assert session["machine"]["packages"]["sweeper"]
    older = {**session, "machine": {**session["machine"], "driver": "550.1"}}
    study._storage.set_study_user_attr(study._id, "sweeper:environments", json.dumps([older]))

    more = cli(
        "resume",
        "made-up",
        "search_space.learning_rate.grid=[1e-5,1e-4,1e-3,1e-2,1e-1]",
        "--executor",
        "in-process",
    )
    assert more.code == 0, more.err
    assert "changed since the last start: machine.driver was 550.1 and is now" in more.err
    view = api.load_study("made-up")
    assert len(view.environments) == 2
    found = environment_of(view, view.records[-1])
    assert (found["device"], "inputs" in found) == ("host", True)
    assert "none: trials ran in their driver&#x27;s process" in environment_table(view)
    assert (view.directory / "trials" / "4" / "environment.json").exists()
    assert len(json.loads((view.directory / "report" / "report.json").read_text())["environments"]) == 2


def test_the_tiny_model_of_the_tests_is_captured(tmp_path: Path) -> None:
    path = training_fixtures.write_jsonl(tmp_path / "train.jsonl", [{"text": "a"}])
    config = config_of(BASE.replace("train.jsonl", str(path)).replace("dev.jsonl", str(path)))
    found = capture_environment(config)
    assert set(found) == {"at", "machine", "code", "inputs"}
    assert found["inputs"]["model"] is None, "a hub model that is not in the cache has no commit yet"
