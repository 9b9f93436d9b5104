"""What an export is made of."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from sweeper.reporting.export.chosen import ChosenTrial

RowKind = Literal["tokens", "chats"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """Where an export goes, as far as its content depends on it."""

    out: Path | None  # the file; None: printed
    rows: Path | None  # the rows in the trial's order, if they are written too


@dataclasses.dataclass(frozen=True, kw_only=True)
class Body:
    """A file of another tool, without its header."""

    text: str
    lost: tuple[str, ...]  # sentences: what does not carry over
    beside: Mapping[Path, str] = dataclasses.field(default_factory=dict)  # further files that it needs
    command: str | None = None  # that runs it, where it is another than the format's; `{file}` stands for it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """One other tool: what its file is called, how it is run, and how rows are written for it."""

    name: str
    tool: str  # its name, with the version whose keys are written
    command: str  # how it runs the file: `{file}` stands for it in a shell, `{path}` in Python
    row_kind: RowKind  # what `--data` writes: tokens with labels, or chats that the tool tokenises itself
    row_if_all: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # marks a chat learned as a whole
    has_attention_mask: bool = False  # of a row of tokens
    adds_no_ends: bool = False  # to pairs of texts, whose rows then hold the first and the last token as text
    needs_out: bool = False  # it is more than one file
    build: Callable[[ChosenTrial, Target], Body]
