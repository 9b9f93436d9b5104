"""The training data of a trial, as another tool is told of it, or as a file in the trial's own order."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from sweeper.config.trial_models import DataSource, TrialSection
from sweeper.errors import ConfigError
from sweeper.files import written_beside
from sweeper.reporting.export.chosen import ChosenTrial
from sweeper.reporting.export.form import Format
from sweeper.training.legs import sample_order
from sweeper.training.rows import Example, RowError, parse_row
from sweeper.training.sources import is_local, local_files, read_rows


class RowForm(StrEnum):
    """What the rows of a source look like."""

    MESSAGES = "chats in `messages`"
    CHAT_PAIR = "chats in `prompt` and `completion`"
    PAIR = "texts in `prompt` and `completion`"
    TEXT = "plain texts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One source of training data."""

    source: DataSource
    form: RowForm  # of its first row
    has_tools: bool
    files: tuple[Path, ...]  # empty for a data set of the hub

    @property
    def columns(self) -> list[str]:
        """The columns that training reads."""
        named = {RowForm.MESSAGES: ["messages"], RowForm.TEXT: ["text"]}.get(
            self.form, ["prompt", "completion"]
        )
        return named + (["tools"] if self.has_tools else [])

    @property
    def loader(self) -> str:
        """What `datasets.load_dataset` is called with for local files: `json` or `parquet`.

        Raises:
            ConfigError: If the source mixes both.
        """
        loaders = {"parquet" if file.suffix == ".parquet" else "json" for file in self.files}
        if len(loaders) > 1:
            raise ConfigError(
                f"`{self.source.path}` holds JSON and Parquet files, which the other tool cannot read as one. "
                "Write the rows to one file with `--data FILE`."
            )
        return loaders.pop()


def parts_of(trial: TrialSection) -> list[Part]:
    """Look at the first row of every train source.

    Raises:
        ConfigError: If a source cannot be read, or its first row cannot be learned from.
    """
    return [_part(source) for source in trial.sources]


def only_form(parts: list[Part], *, in_rows: bool = False) -> RowForm:
    """Return the form that all sources share; with `in_rows` in the file of `--data`, where every chat is `messages`.

    Raises:
        ConfigError: If they differ.
    """
    forms = {part.form for part in parts}
    if in_rows:
        forms = {RowForm.MESSAGES if form is RowForm.CHAT_PAIR else form for form in forms}
    if len(forms) > 1:
        shown = " and ".join(sorted(form.value for form in forms))
        remedy = (
            "Choose `--format trl` or `axolotl`, which take tokens with labels."
            if in_rows
            else "Write the rows to one file with `--data FILE`."
        )
        raise ConfigError(
            f"The train sources hold {shown}, which the other tool cannot read as one data set. {remedy}"
        )
    return forms.pop()


def write_rows(path: Path, chosen: ChosenTrial, format: Format) -> int:
    """Write the trial's rows in the order in which it saw them, over its whole budget; return how many.

    Raises:
        ConfigError: If they cannot be written as the other tool needs them.
    """
    read = {file.resolve() for s in chosen.trial.sources if is_local(s) for file in local_files(s)}
    if path.resolve() in read:
        raise ConfigError(f"`--data`: {path} is the trial's own training data. Choose another file.")
    rows = _tokens(chosen, format) if format.row_kind == "tokens" else _chats(chosen, format)
    n_rows = 0
    with written_beside(path) as beside, open(beside, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            n_rows += 1
    return n_rows


def lost_of_sources(parts: list[Part]) -> list[str]:
    """Say what the other tools cannot be told of the sources."""
    return [
        f"The revision `{part.source.revision}` of the data set `{part.source.path}`: the newest one is read."
        for part in parts
        if part.source.revision is not None
    ]


def _part(source: DataSource) -> Part:
    place, row = next(read_rows(source), (None, None))
    if place is None or row is None:
        raise ConfigError(f"The data `{source.path}` has no rows. Correct `path`, or fill it.")
    try:
        example = parse_row(row)
    except RowError as error:
        raise ConfigError(place.problem(f"The row {error}.")) from error
    return Part(
        source=source,
        form=_form_of(row, example),
        has_tools=bool(row.get("tools")),
        files=tuple(file.resolve() for file in local_files(source)) if is_local(source) else (),
    )


def _form_of(row: Mapping[str, Any], example: Example) -> RowForm:
    if example.text is not None:
        return RowForm.TEXT
    if not example.is_chat:
        return RowForm.PAIR
    return RowForm.MESSAGES if row.get("messages") is not None else RowForm.CHAT_PAIR


def _tokens(chosen: ChosenTrial, format: Format) -> Iterator[dict[str, Any]]:
    """Yield tokens and labels, exactly as the trial was given them."""
    # Imported here: it loads transformers and datasets, which take seconds.
    from sweeper.training.tokens import load_train_rows

    table = load_train_rows(chosen.trial, chosen.settings, _tokenizer(chosen))
    for index in _order(chosen, table.sizes):
        row = {name: values.tolist() for name, values in table[index].items()}
        if format.has_attention_mask:
            row["attention_mask"] = [1] * len(row["input_ids"])
        yield row


def _tokenizer(chosen: ChosenTrial) -> Any:
    from sweeper.training.tokenizer import load_tokenizer  # imported here: it loads transformers

    try:
        return load_tokenizer(chosen.read_here)
    except ConfigError as error:
        if chosen.read_here.trust_remote_code == chosen.trial.trust_remote_code:
            raise
        raise ConfigError(
            f"{error} The study trusts the code that its model brings, and `export` does not run it on the study's "
            "word. Give `--trust-remote-code` if you trust it too."
        ) from error


def _chats(chosen: ChosenTrial, format: Format) -> Iterator[dict[str, Any]]:
    """Yield rows as text, in one form."""
    each = [list(read_rows(source)) for source in chosen.trial.sources]
    sizes = [len(rows) for rows in each]
    rows = [item for one in each for item in one]
    told: list[dict[str, Any]] = []
    ends = None
    mark = {} if chosen.learns_answers_only else dict(format.row_if_all)
    for place, row in rows:
        try:
            example = parse_row(row)
            if format.adds_no_ends and not example.is_chat and example.text is None:
                ends = ends or _ends(chosen)
                example = _with_ends(example, *ends)
            told.append(_told(example, chosen) | mark)
        except RowError as error:
            raise ConfigError(place.problem(f"The row {error}.")) from error
        if told[-1].keys() - {"tools"} != told[0].keys() - {"tools"}:
            raise ConfigError(
                place.problem(
                    f"The row is of another form than the first one, which {format.tool} cannot read."
                )
            )
    for index in _order(chosen, sizes):
        yield told[index]


def _ends(chosen: ChosenTrial) -> tuple[str, str]:
    """Return the tokens that stand before a prompt and after a completion in the trial, as text."""
    tokenizer = _tokenizer(chosen)
    has_first = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return (tokenizer.bos_token if has_first else ""), tokenizer.eos_token or ""


def _with_ends(example: Example, first: str, last: str) -> Example:
    ended = example.completion if example.completion.endswith(last) else example.completion + last
    return dataclasses.replace(example, prompt=first + example.prompt, completion=ended)


def _order(chosen: ChosenTrial, sizes: list[int]) -> list[int]:
    """Return the rows that the trial saw, in its order."""
    order = sample_order(
        chosen.trial, sizes=sizes, weights=chosen.settings.data_weights, phases=(), samples=chosen.samples,
        seed=chosen.settings.seed,
    )  # fmt: skip
    return order.indices(0, chosen.samples)


def _told(example: Example, chosen: ChosenTrial) -> dict[str, Any]:
    if example.text is not None:
        return {"text": example.text}
    if not example.is_chat:
        return {"prompt": example.prompt, "completion": example.completion}
    before = example.messages[: example.n_prompt_messages]
    if chosen.learns_answers_only and any(message["role"] == "assistant" for message in before):
        raise RowError(
            "has an answer in its `prompt`, which the trial did not learn and the other tool would. "
            "Choose `--format trl` or `axolotl`, which take tokens with labels"
        )
    row: dict[str, Any] = {"messages": [dict(message) for message in example.messages]}
    # LLaMA-Factory and training-hub read tools as JSON text.
    return row | ({"tools": json.dumps(example.tools, ensure_ascii=False)} if example.tools else {})
