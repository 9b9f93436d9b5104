"""Rows as tokens and labels."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from sweeper.errors import Problem
from sweeper.training.rows import Example, RowError, parse_row
from sweeper.training.sources import Place
from sweeper.training.templates import ChatRenderer, Rendered

IGNORED = -100  # the label of a token that is not learned
_BATCH_ROWS = 1000  # at a time, so that the memory that is needed does not grow with the data

Columns = dict[str, list[Any]]  # arrays of tokens and labels; prompts as lists, answers as text


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenSettings:
    """All that the tokens of a row depend on beside the row and the tokenizer."""

    max_length: int
    loss_on: str
    with_prompts: bool = False  # eval sets: also what a generated answer is asked with and compared with


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenStats:
    """What a table holds. Lengths in tokens."""

    rows: int
    tokens: int  # after truncation
    target_tokens: int
    longest: int  # before truncation
    n_truncated: int
    n_chats: int
    n_joined: int  # rows whose prompt is other tokens alone than in front of its answer


class Encoder:
    """Turns rows into tokens and labels, and collects the rows that cannot be learned from."""

    def __init__(self, tokenizer: Any, settings: TokenSettings) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        self._renderer = ChatRenderer(tokenizer, loss_on=settings.loss_on)
        self._stats = TokenStats(
            rows=0, tokens=0, target_tokens=0, longest=0, n_truncated=0, n_chats=0, n_joined=0
        )
        self.problems: list[Problem] = []

    def encode(self, rows: Iterator[tuple[Place, dict[str, Any]]]) -> Iterator[Columns]:
        """Yield the rows' columns, some rows at a time.

        Rows that cannot be learned from are left out and told in `problems`.
        """
        batch: list[tuple[Place, Example, Rendered]] = []
        for place, row in rows:
            try:
                example = parse_row(row)
                rendered = self._renderer.render(example)
                _refuse_half_characters(rendered.text)
                batch.append((place, example, rendered))
            except RowError as error:
                self.problems.append(place.problem(f"The row {error}."))
            if len(batch) == _BATCH_ROWS:
                yield self._columns(batch)
                batch = []
        yield self._columns(batch)

    @property
    def stats(self) -> TokenStats:
        """What was encoded so far."""
        return self._stats

    def _columns(self, batch: list[tuple[Place, Example, Rendered]]) -> Columns:
        columns: Columns = {"input_ids": [], "labels": []}
        if self._settings.with_prompts:
            columns |= {"prompt_ids": [], "answer": []}
        self._encode_batch(batch, columns)
        self._stats = dataclasses.replace(
            self._stats,
            rows=self._stats.rows + len(columns["input_ids"]),
            tokens=self._stats.tokens + sum(len(ids) for ids in columns["input_ids"]),
            target_tokens=self._stats.target_tokens
            + sum(int((labels != IGNORED).sum()) for labels in columns["labels"]),
        )
        return columns

    def _note(self, rendered: Rendered, length: int, *, is_joined: bool) -> None:
        """Count a row before it is truncated."""
        self._stats = dataclasses.replace(
            self._stats,
            longest=max(self._stats.longest, length),
            n_truncated=self._stats.n_truncated + (length > self._settings.max_length),
            n_chats=self._stats.n_chats + rendered.is_chat,
            n_joined=self._stats.n_joined + is_joined,
        )

    def _encode_batch(self, batch: list[tuple[Place, Example, Rendered]], columns: Columns) -> None:
        for is_chat in (True, False):
            # One call of the tokenizer per kind: a template writes the special tokens itself.
            part = [item for item in batch if item[2].is_chat == is_chat]
            if part and len(part) < len(batch):
                for item in batch:
                    self._encode_batch([item], columns)
                return
            if part:
                self._encode_alike(part, columns)

    def _encode_alike(self, batch: list[tuple[Place, Example, Rendered]], columns: Columns) -> None:
        is_chat = batch[0][2].is_chat
        encoded = self._tokenizer(
            [rendered.text for _, _, rendered in batch],
            add_special_tokens=not is_chat,
            return_offsets_mapping=True,
        )
        for (place, example, rendered), ids, offsets in zip(
            batch, encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            ends = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)[:, 1]
            tokens, labels = self._labelled(rendered, ids, ends)
            length = len(tokens)
            self._note(rendered, length, is_joined=self._is_joined(rendered, ids, ends))
            tokens, labels = tokens[: self._settings.max_length], labels[: self._settings.max_length]
            if not (labels != IGNORED).any():
                self.problems.append(place.problem(self._no_target(length)))
                continue
            columns["input_ids"].append(tokens)
            columns["labels"].append(labels)
            if self._settings.with_prompts:
                columns["prompt_ids"].append(self._prompt_ids(rendered))
                columns["answer"].append(_answer(example, rendered))

    def _labelled(self, rendered: Rendered, ids: list[int], ends: Any) -> tuple[Any, Any]:
        """Return token ids with labels: the tokens that end inside a learned span.

        A token that only begins before the span holds some of the answer, so it is learned; the tokenizer may
        give a token of white space no width, which is why only its end counts.
        """
        tokens = np.asarray(ids, dtype=np.int32)
        learned = np.zeros(len(tokens), dtype=bool)
        for start, end in rendered.spans:
            learned |= (ends > start) & (ends <= end)
        if not rendered.is_chat and self._tokenizer.eos_token_id is not None:
            if tokens[-1] != self._tokenizer.eos_token_id:
                tokens = np.append(tokens, np.int32(self._tokenizer.eos_token_id))
                learned = np.append(learned, True)
            learned[-1] = True
        if len(learned):
            learned[0] = False  # nothing comes before the first token to predict it from
        return tokens, np.where(learned, tokens, np.int32(IGNORED))

    def _is_joined(self, rendered: Rendered, ids: list[int], ends: Any) -> bool:
        """Whether a prompt's last characters become a token together with the answer's first ones."""
        prompt = rendered.prompt
        if not prompt or not rendered.text.startswith(prompt) or (ends == len(prompt)).any():
            return False
        alone = self._prompt_ids(rendered)  # to be sure: the place of a token may leave out its white space
        return ids[: len(alone)] != alone

    def _prompt_ids(self, rendered: Rendered) -> list[int]:
        if rendered.prompt is None:
            return []
        ids: list[int] = self._tokenizer(rendered.prompt, add_special_tokens=not rendered.is_chat)[
            "input_ids"
        ]
        if not rendered.is_chat and ids and ids[-1] == self._tokenizer.eos_token_id:
            ids = ids[:-1]
        return ids

    def _no_target(self, length: int) -> str:
        return (
            f"The row has {length} tokens and its answer begins after the first {self._settings.max_length}, "
            "so nothing "
            "of it can be learned. Raise `max_length`, or shorten or remove the row."
        )


def _refuse_half_characters(text: str) -> None:
    """Refuse what JSON can write and Unicode cannot: one half of a character of two, which no tokenizer takes.

    Raises:
        RowError: If there is one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 20) : error.end + 20].encode("ascii", "backslashreplace").decode()
        raise RowError(
            f"holds `\\u{ord(text[error.start]):04x}`, one half of a character that JSON writes as two, near `{near}`. "
            "Write the whole character, or remove the half"
        ) from error


def _answer(example: Example, rendered: Rendered) -> str | None:
    """Return what a generated answer is compared with, as the template writes it; None for plain text.

    Templates of models that think write a block ahead of the answer, which a trained model gives too.
    """
    prompt = rendered.prompt
    if rendered.is_chat and prompt and rendered.text.startswith(prompt):
        return rendered.text[len(prompt) :]
    return example.answer
