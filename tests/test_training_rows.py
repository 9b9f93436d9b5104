"""What a row must look like, and where rows are read from."""

import gzip
import hashlib
import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import training_fixtures
from datasets.exceptions import DatasetGenerationError
from sweep_files import write_jsonl
from training_fixtures import Hub

from sweeper.config.trial_models import DataSource, TrialSection
from sweeper.errors import ConfigError
from sweeper.training import data_identity, sources
from sweeper.training.data_identity import DataChangedError, check_identities, data_identities, pinned
from sweeper.training.rows import RowError, parse_row
from sweeper.training.sources import read_rows, source_identity

hub = training_fixtures.hub
USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "hello"}


def test_a_chat_s_answer_is_its_last_message() -> None:
    assert parse_row({"messages": [USER, ASSISTANT]}).answer == "hello"


def test_a_completion_of_messages_learns_none_of_the_prompt_s_turns() -> None:
    example = parse_row({"prompt": [USER, ASSISTANT, USER], "completion": [ASSISTANT]})
    assert example.n_prompt_messages == 3


def test_a_plain_text_has_no_answer() -> None:
    assert parse_row({"text": "once upon a time"}).answer is None


def test_what_is_none_inside_a_message_or_a_tool_is_left_out() -> None:
    called = {
        "role": "assistant",
        "tool_calls": [{"name": "f", "arguments": {"a": 1, "b": None, "c": [None, {"d": None}]}}],
    }
    example = parse_row(
        {"messages": [USER, called], "tools": [{"name": "f", "returns": None, "in": {"a": None}}]}
    )
    assert example.messages[1]["tool_calls"] == [{"name": "f", "arguments": {"a": 1, "c": [None, {}]}}]
    assert example.tools == [{"name": "f", "in": {}}]


def test_tools_that_are_text_stay_as_they_were_written() -> None:
    row = {"messages": [USER, ASSISTANT], "tools": '[{"name": "f", "default": null}]'}
    assert parse_row(row).tools == [{"name": "f", "default": None}]


def test_columns_that_are_not_set_are_overlooked() -> None:
    assert parse_row({"messages": None, "text": "once"}).text == "once"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "a", "reply": "b"}, "has the columns `question`, `reply`, but `messages`"),
        ({}, "has no columns"),
        ({"messages": [USER]}, "ends with a message from `user`"),
        ({"messages": [USER, ASSISTANT, USER]}, "ends with a message from `user`"),
        ({"messages": []}, "no list of messages"),
        ({"messages": "hi"}, "no list of messages"),
        ({"messages": [{"content": "hi"}]}, "has no `role` in message 1"),
        ({"messages": [{"role": "bot", "content": "hi"}]}, "unknown role `bot` in message 1"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "empty answer in message 2"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "no text as `content` in message 2"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "no text as `content` in message 1",
        ),
        ({"messages": [ASSISTANT]}, "begins with a message from `assistant`"),
        ({"prompt": "a", "completion": "  "}, "empty `completion`"),
        ({"prompt": "a", "completion": [ASSISTANT]}, "mixes a string and a list"),
        ({"prompt": "a"}, "has the columns `prompt`, but"),
        ({"text": ""}, "empty `text`"),
        ({"messages": [USER, ASSISTANT], "tools": "look it up"}, "`tools` that are text, but no JSON"),
        (
            {"messages": [USER, ASSISTANT], "tools": "[" * 100_000},
            "`tools` that are text, but no JSON: maximum",
        ),
        ({"messages": [USER, ASSISTANT], "tools": {"name": "f"}}, "`tools` = .* but they must be a list"),
        ({"messages": [USER, ASSISTANT], "tools": ["f", "g"]}, "`tools` = .* but they must be a list"),
        ({"text": 3}, "`text` of type int"),
    ],
)
def test_a_row_without_an_answer_is_refused(row: dict[str, Any], said: str) -> None:
    with pytest.raises(RowError, match=said):
        parse_row(row)


def test_rows_of_a_directory_are_read_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"text": "3"}\n')
    (tmp_path / "a.jsonl").write_text('{"text": "1"}\n\n{"text": "2"}\n')
    (tmp_path / "notes.md").write_text("not data")
    found = [
        (Path(place.file).name, place.row, row["text"])
        for place, row in read_rows(DataSource(path=str(tmp_path)))
    ]
    assert found == [("a.jsonl", 1, "1"), ("a.jsonl", 3, "2"), ("b.jsonl", 1, "3")]


def test_parquet_rows_keep_their_messages(tmp_path: Path) -> None:
    table = pyarrow.table({"messages": [[USER, ASSISTANT]]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    rows = [row for _, row in read_rows(DataSource(path=str(tmp_path / "rows.parquet")))]
    assert parse_row(rows[0]).messages == (USER, ASSISTANT)


def test_only_the_first_rows_are_read_where_a_limit_is_set(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": str(i)} for i in range(5)])
    assert [row["text"] for _, row in read_rows(DataSource(path=str(path), limit=2))] == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", b'{"text": "a"}\n{"text": \n', r"rows\.jsonl:2: This line is no JSON"),
        ("rows.jsonl", b"[1]\n", r"rows\.jsonl:1: This line is a JSON list"),
        (
            "rows.jsonl",
            b'{"text": "a"}\n\n{"text": "caf\xe9"}\n',
            r"rows\.jsonl:3: This line is no UTF-8: its byte 14 is 0xe9\. Save the file as UTF-8",
        ),
        ("rows.jsonl", '{"text": "a"}'.encode("utf-16"), r"rows\.jsonl:1: The file is UTF-16"),
        (
            "rows.jsonl",
            gzip.compress(b'{"text": "a"}', mtime=0),
            r"rows\.jsonl:1: The file is compressed by gzip",
        ),
        ("rows.jsonl", b'{"n": ' + b"1" * 5000 + b"}", r"rows\.jsonl:1: This line is no JSON: Exceeds"),
        (
            "rows.jsonl",
            b"[" * 100_000,
            r"rows\.jsonl:1: This line is no JSON: it is nested too deeply\. Write one object",
        ),
        ("rows.parquet", b"not parquet", "cannot be read as Parquet"),
        ("rows.csv", b"a,b", "must end in"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        list(read_rows(DataSource(path=str(path))))


def test_a_directory_of_too_many_files_is_refused_before_all_of_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_MAX_PATHS", 3)
    for index in range(4):
        write_jsonl(tmp_path / f"{index}.jsonl", [{"text": "a"}])
    with pytest.raises(ConfigError, match=r"more than 3 files and directories\. Name the directory below"):
        list(read_rows(DataSource(path=str(tmp_path))))
    (tmp_path / "3.jsonl").unlink()
    assert len(list(read_rows(DataSource(path=str(tmp_path))))) == 3


def test_a_byte_order_mark_is_overlooked(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n', encoding="utf-8-sig")
    assert [row for _, row in read_rows(DataSource(path=str(path)))] == [{"text": "a"}]


HUB_ERRORS = [
    (FileNotFoundError("Dataset 'org/rows' doesn't exist on the Hub."), "Correct `path`, or download it"),
    (
        ValueError("Config name is missing.\nPlease pick one among the available configs: ['a', 'b']"),
        r"configs: \['a', 'b'\]\. Set `name` to one of these",
    ),
    (
        ValueError("BuilderConfig 'c' not found. Available: ['a', 'b']"),
        "Set `name`, which is `c`, to one of these",
    ),
    (RuntimeError("Dataset scripts are no longer supported, but found rows.py"), "stored as data files"),
    (
        DatasetGenerationError("An error occurred while generating the dataset"),
        "generating the dataset. Choose other files with `name`",
    ),
]


@pytest.mark.parametrize(("error", "said"), HUB_ERRORS)
def test_what_is_wrong_with_a_data_set_of_the_hub_is_told(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ConfigError, match=f"`org/rows` .* could not be loaded from the hub: .*{said}"):
        list(read_rows(DataSource(path="org/rows", name="c")))


OLD, NEW = "a" * 40, "b" * 40
OF_THE_HUB = TrialSection(
    train_data=[DataSource(path="org/rows")], eval_data={"dev": DataSource(path="org/rows")}
)


@pytest.mark.parametrize("is_reached", [True, False])
def test_data_of_the_hub_stays_at_the_commit_that_it_had(is_reached: bool, hub: Hub) -> None:
    hub.rows, hub.is_reached = {OLD: [{"text": "old"}]}, is_reached
    noted = data_identities(OF_THE_HUB)
    assert noted == dict.fromkeys(("train_data[0]", "eval_data.dev"), f"commit {OLD}")
    hub.is_reached = True
    hub.rows[NEW] = [{"text": "new"}]
    check_identities(OF_THE_HUB, noted)
    held = pinned(OF_THE_HUB, noted)
    assert [[row for _, row in read_rows(source)] for source in held.sources] == [[{"text": "old"}]]
    assert held.eval_data["dev"].revision == OLD
    assert source_identity(held.sources[0]) != source_identity(OF_THE_HUB.sources[0])
    assert data_identities(held) == noted
    assert data_identities(OF_THE_HUB)["train_data[0]"] == f"commit {NEW}"


def test_another_commit_of_the_local_cache_is_refused(hub: Hub) -> None:
    hub.rows, hub.is_reached = {OLD: [{"text": "old"}], NEW: [{"text": "new"}]}, False
    with pytest.raises(
        ConfigError, match=f"read at commit {OLD}, but .* the local cache has only commit {NEW}"
    ):
        list(read_rows(DataSource(path="org/rows", revision=OLD)))


def test_data_of_the_hub_that_cannot_be_found_has_no_commit(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("there is none")

    hub.is_reached = False
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    assert data_identities(OF_THE_HUB) == {}


@pytest.fixture
def rows_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n')
    return path


def section(path: Path) -> TrialSection:
    return TrialSection.model_validate(
        {"data_sets": {"a": str(path)}, "eval_data": {"dev": str(path.parent)}}
    )


def test_data_is_known_by_its_content_alone(rows_file: Path) -> None:
    noted = data_identities(section(rows_file))
    assert set(noted) == {"data_sets.a", "eval_data.dev"}
    os.utime(rows_file, (1, 1))  # as a copy on another machine may have
    check_identities(section(rows_file), noted)
    rows_file.write_text('{"text": "b"}\n')
    with pytest.raises(DataChangedError, match=r"`trial\.data_sets\.a` = .*rows\.jsonl` has other content"):
        check_identities(section(rows_file), noted)
    check_identities(section(rows_file), {})
    rows_file.write_text('{"text": "a"}\n')
    check_identities(section(rows_file), noted)
    (rows_file.parent / "more.jsonl").write_text('{"text": "b"}\n')
    with pytest.raises(DataChangedError, match=r"`trial\.eval_data\.dev`"):
        check_identities(section(rows_file), noted)


def test_a_file_is_read_once_for_its_content_by_all_processes(
    rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = data_identities(section(rows_file))
    monkeypatch.setattr(data_identity, "_hashes", {})  # as in another process
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert data_identities(section(rows_file)) == noted


def test_data_that_cannot_be_read_is_left_to_whoever_loads_it(tmp_path: Path) -> None:
    assert data_identities(section(tmp_path / "gone" / "rows.jsonl")) == {}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`.*gone\.jsonl` does not exist"):
        list(read_rows(DataSource(path=str(tmp_path / "gone.jsonl"))))


def test_a_split_of_a_local_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n')
    with pytest.raises(ConfigError, match="`split` is for data sets of the hub"):
        list(read_rows(DataSource(path=str(path), split="train")))
