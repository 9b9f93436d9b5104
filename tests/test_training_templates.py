"""Which tokens of a chat are learned, with the chat templates of the models that sweeps train."""

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from training_fixtures import CHAT_TEMPLATE, make_tokenizer, write_jsonl

from sweeper.config.trial_models import DataSource, TrialSection
from sweeper.errors import ConfigError
from sweeper.training import encode, tokens
from sweeper.training.encode import TokenSettings
from sweeper.training.rows import RowError, parse_row
from sweeper.training.templates import ChatRenderer, pin_date
from sweeper.training.tokenizer import load_tokenizer
from sweeper.training.tokens import load_table

pytestmark = pytest.mark.train

TEMPLATES = Path(__file__).parent / "chat_templates"
LLAMA = (
    "<|finetune_right_pad_id|>",
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
)
FAMILIES = {  # template: special tokens, pad, bos and eos first; the token that ends a turn
    "llama_3_1": (LLAMA, "<|eot_id|>"),
    "llama_3_2": (LLAMA, "<|eot_id|>"),
    "granite_3": (
        ("<pad>", "<s>", "<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
        "<|end_of_text|>",
    ),
    "mistral_v0_3": (("<unk>", "<s>", "</s>", "[INST]", "[/INST]"), "</s>"),
}
CHAT = [
    {"role": "user", "content": "What is the sun?"},
    {"role": "assistant", "content": "It is  a star."},
    {"role": "user", "content": "And rain?"},
    {"role": "assistant", "content": "one\ntwo  three"},
]
SYSTEM = {"role": "system", "content": "Be brief."}


def family(name: str) -> Any:
    template = (TEMPLATES / f"{name}.jinja").read_text()
    return make_tokenizer(special_tokens=FAMILIES[name][0], template=template)


def learned(tokenizer: Any, row: dict[str, Any], tmp_path: Path, **settings: Any) -> list[str]:
    """Return each run of learned tokens as text."""
    path = write_jsonl(tmp_path / "rows.jsonl", [row])
    how = TokenSettings(**{"max_length": 4096, "loss_on": "answers"} | settings)
    row_tokens = load_table(DataSource(path=str(path)), tokenizer, how)[0]
    runs: list[list[int]] = [[]]
    for token, label in zip(row_tokens["input_ids"].tolist(), row_tokens["labels"].tolist(), strict=True):
        if label == -100:
            runs.append([])
        else:
            assert label == token
            runs[-1].append(token)
    return [tokenizer.decode(run) for run in runs if run]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", FAMILIES)
def test_exactly_the_assistant_s_words_and_the_end_of_turn_are_learned(name: str, tmp_path: Path) -> None:
    end = FAMILIES[name][1]
    space = " " if name == "mistral_v0_3" else ""
    expected = [f"{space}It is  a star.{end}", f"{space}one\ntwo  three{end}"]
    assert learned(family(name), {"messages": CHAT}, tmp_path) == expected


@pytest.mark.parametrize("name", ["llama_3_1", "llama_3_2", "granite_3"])
def test_a_system_message_is_context(name: str, tmp_path: Path) -> None:
    end = FAMILIES[name][1]
    expected = [f"It is  a star.{end}", f"one\ntwo  three{end}"]
    assert learned(family(name), {"messages": [SYSTEM, *CHAT]}, tmp_path) == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_the_words_before_an_answer_are_those_of_the_generation_prompt(name: str) -> None:
    renderer = ChatRenderer(family(name), loss_on="answers")
    rendered = renderer.render(parse_row({"messages": CHAT}))
    assert rendered.prompt is not None
    assert rendered.text.startswith(rendered.prompt)
    assert len(rendered.prompt) == rendered.spans[-1][0]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_learned_text_is_the_tokenizer_s_own_rendering(name: str) -> None:
    tokenizer = family(name)
    rendered = ChatRenderer(tokenizer, loss_on="answers").render(parse_row({"messages": CHAT}))
    own = tokenizer.apply_chat_template(CHAT, tokenize=False, chat_template=pin_date(tokenizer.chat_template))
    assert rendered.text == own


def tool(name: str, argument: str, **schema: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {argument: {"type": "string", **schema}}}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


TOOL_ROWS: list[dict[str, Any]] = [
    {
        "messages": [CHAT[0], call("look", at="sun", how=None)],
        "tools": [tool("look", "at", enum=["sun", "moon"])],
    },
    {"messages": [CHAT[2], call("weigh"), {"role": "tool", "content": "1"}, CHAT[3]]},
    {"prompt": [CHAT[2]], "completion": [call("wait", until="noon")], "tools": [tool("wait", "until")]},
]


def test_rows_of_a_parquet_file_give_the_tokens_of_the_same_json_rows(tmp_path: Path) -> None:
    tokenizer, how = family("llama_3_1"), TokenSettings(max_length=4096, loss_on="all")
    write_jsonl(tmp_path / "rows.jsonl", TOOL_ROWS)
    columns = ("messages", "prompt", "completion", "tools")
    table = pyarrow.table({name: [row.get(name) for row in TOOL_ROWS] for name in columns})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    json_rows, parquet_rows = (
        [
            tokenizer.decode(ids)
            for ids in load_table(DataSource(path=str(tmp_path / name)), tokenizer, how).dataset["input_ids"]
        ]
        for name in ("rows.jsonl", "rows.parquet")
    )
    assert parquet_rows == json_rows
    assert '{"at": "sun"}' in json_rows[0]
    assert not any("null" in text or "None" in text for text in json_rows)


@pytest.mark.parametrize("loss_on", ["answers", "all"])
@pytest.mark.parametrize(
    "template",
    [CHAT_TEMPLATE, CHAT_TEMPLATE.replace("<|end|>", "\n"), CHAT_TEMPLATE.replace("<|end|>", "<|end|>\n")],
)
def test_a_tool_call_that_the_template_leaves_out_is_refused(template: str, loss_on: str) -> None:
    renderer = ChatRenderer(make_tokenizer(template=template), loss_on=loss_on)
    called = {**call("look", at="sun"), "content": ""}
    with pytest.raises(
        RowError, match=r"in message 2 whose tool calls the chat template leaves out.* `trial\.chat_template`"
    ):
        renderer.render(parse_row({"messages": [CHAT[0], called]}))


def test_only_the_turns_that_are_learned_must_have_words() -> None:
    renderer = ChatRenderer(make_tokenizer(), loss_on="answers")
    prompt = [CHAT[0], {**call("look", at="sun"), "content": ""}, {"role": "tool", "content": "a star"}]
    rendered = renderer.render(parse_row({"prompt": prompt, "completion": CHAT[1:2]}))
    assert len(rendered.spans) == 1


def test_an_answer_of_one_special_token_is_learned(tmp_path: Path) -> None:
    row = {"messages": [CHAT[0], {"role": "assistant", "content": "<|system|>"}]}
    assert learned(make_tokenizer(), row, tmp_path) == ["<|system|><|end|>"]


def test_a_prompt_of_messages_with_answers_learns_only_the_completion(tmp_path: Path) -> None:
    row = {"prompt": CHAT[:3], "completion": CHAT[3:]}
    assert learned(family("llama_3_1"), row, tmp_path) == ["one\ntwo  three<|eot_id|>"]


def test_all_tokens_are_learned_where_the_loss_is_on_all(tmp_path: Path) -> None:
    tokenizer = family("granite_3")
    text = "".join(learned(tokenizer, {"messages": [SYSTEM, *CHAT]}, tmp_path, loss_on="all"))
    # The first token has nothing before it to be predicted from.
    assert text.startswith("system<|end_of_role|>Be brief.")


@pytest.mark.parametrize(("name", "date"), [("llama_3_2", "26 Jul 2024"), ("granite_3", "July 26, 2024")])
def test_the_rendering_does_not_depend_on_the_day(name: str, date: str) -> None:
    assert date in ChatRenderer(family(name), loss_on="answers").render(parse_row({"messages": CHAT})).text


def test_a_date_that_cannot_be_fixed_is_refused() -> None:
    tokenizer = make_tokenizer(template="{% set how = '%Y' %}{{ strftime_now(how) }}" + CHAT_TEMPLATE)
    with pytest.raises(ConfigError, match="writes today's date in a way that cannot be fixed"):
        ChatRenderer(tokenizer, loss_on="answers")


def test_a_template_that_moves_the_system_message_is_refused_for_such_rows() -> None:
    renderer = ChatRenderer(family("mistral_v0_3"), loss_on="answers")
    with pytest.raises(RowError, match=r"rendered differently up to message 3 .* move the system message"):
        renderer.render(parse_row({"messages": [SYSTEM, *CHAT]}))


def test_a_template_s_own_refusal_is_told() -> None:
    renderer = ChatRenderer(family("mistral_v0_3"), loss_on="answers")
    with pytest.raises(RowError, match="is refused by the chat template: After the optional system message"):
        renderer.render(parse_row({"messages": [CHAT[0], CHAT[0], CHAT[1]]}))


def test_a_template_with_a_longer_generation_prompt_is_masked_by_its_markers(tmp_path: Path) -> None:
    template = (
        "{% for message in messages %}<|{{ message.role }}|>{% if message.role == 'assistant' %}"
        "{% generation %}{{ message.content }}<|end|>{% endgeneration %}"
        "{% else %}{{ message.content }}<|end|>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>Let me think.{% endif %}"
    )
    expected = ["It is  a star.<|end|>", "one\ntwo  three<|end|>"]
    assert learned(make_tokenizer(template=template), {"messages": CHAT}, tmp_path) == expected


def test_a_chat_without_a_template_is_refused() -> None:
    renderer = ChatRenderer(make_tokenizer(template=None), loss_on="answers")
    with pytest.raises(RowError, match="the tokenizer has no chat template"):
        renderer.render(parse_row({"messages": CHAT}))


def test_a_template_that_ends_no_turn_is_warned_about() -> None:
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    warnings = ChatRenderer(make_tokenizer(template=template), loss_on="answers").check()
    assert warnings
    assert "does not learn to stop" in warnings[0]


def test_a_completion_is_learned_with_its_end_token(tmp_path: Path) -> None:
    row = {"prompt": "red green", "completion": " blue   one"}
    assert learned(make_tokenizer(), row, tmp_path) == [" blue   one<|eos|>"]


def test_a_token_that_begins_in_the_prompt_and_ends_in_the_answer_is_learned(tmp_path: Path) -> None:
    row = {"prompt": "red green ", "completion": "blue"}
    assert learned(make_tokenizer(), row, tmp_path) == [" blue<|eos|>"]


def test_a_plain_text_is_learned_but_for_its_first_token(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    text = "red green blue"
    first = tokenizer.decode(tokenizer(text)["input_ids"][:1])
    assert learned(tokenizer, {"text": text}, tmp_path) == [text.removeprefix(first) + "<|eos|>"]


def test_rows_of_several_kinds_keep_their_order(tmp_path: Path) -> None:
    rows = [{"text": "red"}, {"messages": CHAT[:2]}, {"prompt": "one ", "completion": "two"}]
    path = write_jsonl(tmp_path / "mixed.jsonl", rows)
    tokenizer = make_tokenizer()
    table = load_table(
        DataSource(path=str(path)), tokenizer, TokenSettings(max_length=4096, loss_on="answers")
    )
    texts = [tokenizer.decode(table[i]["input_ids"].tolist()) for i in range(3)]
    assert [texts[0], texts[2]] == ["red<|eos|>", "one two<|eos|>"]
    assert texts[1].endswith("It is  a star.<|end|>")


def test_a_table_is_the_same_however_many_rows_are_encoded_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"text": "red " * 60},
        {"messages": CHAT[:2]},
        {"prompt": "one ", "completion": "two"},
        {"messages": CHAT},
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    how = TokenSettings(max_length=50, loss_on="answers", with_prompts=True)
    tables = []
    for n_rows in (1000, 3):
        monkeypatch.setattr(encode, "_BATCH_ROWS", n_rows)
        monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / str(n_rows)))
        monkeypatch.setattr(tokens, "_tables", {})  # as in another process
        tables.append(load_table(DataSource(path=str(path)), make_tokenizer(), how))
    assert tables[0].dataset[:] == tables[1].dataset[:]
    assert tables[0].dataset.features == tables[1].dataset.features
    assert tables[0].stats == tables[1].stats
    assert tables[0].dataset["answer"][:3] == [None, "It is  a star.<|end|>", "two"]
    assert (tables[0].stats.rows, tables[0].stats.n_truncated) == (4, 1)


def test_a_row_whose_answer_is_cut_off_is_named(tmp_path: Path) -> None:
    rows = [{"messages": CHAT[:2]}, {"prompt": "red " * 50, "completion": "blue"}]
    path = write_jsonl(tmp_path / "long.jsonl", rows)
    with pytest.raises(
        ConfigError, match=r"long\.jsonl:2: The row has \d+ tokens and its answer begins after"
    ):
        load_table(
            DataSource(path=str(path)), make_tokenizer(), TokenSettings(max_length=40, loss_on="answers")
        )


def test_data_that_changes_is_tokenised_again(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    how = TokenSettings(max_length=40, loss_on="answers")
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "red"}])
    before = load_table(DataSource(path=str(path)), tokenizer, how)
    write_jsonl(path, [{"text": "red"}, {"text": "blue"}])
    assert (len(before), len(load_table(DataSource(path=str(path)), tokenizer, how))) == (1, 2)


@pytest.mark.parametrize(
    "row",
    [
        {"text": "red \ud83d"},
        {"prompt": "red \ud83d", "completion": "blue"},
        {"messages": [CHAT[0], {"role": "assistant", "content": "red \ud83d"}]},
    ],
)
def test_half_a_character_is_refused_with_its_row(row: dict[str, Any], tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "red"}, row])
    with pytest.raises(
        ConfigError, match=r"rows\.jsonl:2: The row holds `\\ud83d`, one half .* near `.*red \\ud83d"
    ):
        load_table(
            DataSource(path=str(path)), make_tokenizer(), TokenSettings(max_length=90, loss_on="answers")
        )


def test_a_chat_template_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    path.write_bytes(b"{# caf\xe9 #}")
    make_tokenizer().save_pretrained(tmp_path / "model")
    trial = TrialSection(model=str(tmp_path / "model"), chat_template=str(path))
    with pytest.raises(
        ConfigError, match=r"template\.jinja` is no readable UTF-8 text: .* `trial\.chat_template`"
    ):
        load_tokenizer(trial)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "file" / "cache"))
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "red"}])
    with pytest.raises(
        ConfigError, match=r"The cache `.*file/cache` cannot be written: Not a dir.*Set SWEEPER_CACHE"
    ):
        load_table(
            DataSource(path=str(path)), make_tokenizer(), TokenSettings(max_length=40, loss_on="answers")
        )
