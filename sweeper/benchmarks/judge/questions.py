"""The questions that a judge scores answers to, one per line of a JSONL file."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.errors import ConfigError, Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """A chat's user turns, asked one after the other."""

    id: str
    turns: tuple[str, ...]
    category: str | None = None
    reference: tuple[str, ...] = ()  # good answers by turn, which the judge is shown; empty: none


def load_questions(path: Path, *, limit: int | None = None) -> tuple[Question, ...]:
    """Read the first `limit` questions.

    Raises:
        ConfigError: With every line that is none, or if the file cannot be read.
    """
    found: list[Question] = []
    problems = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The questions `{path}` cannot be read: {error}. Correct `questions`.") from error
    lines = [line for line in enumerate(text.splitlines(), start=1) if line[1].strip()]
    for number, line in lines[:limit]:
        try:
            question = _question(json.loads(line))
            if any(other.id == question.id for other in found):
                raise ValueError(f"`question_id` {question.id} is there twice")
            found.append(question)
        except (ValueError, TypeError, RecursionError) as error:
            told = (
                f'A question is `{{"question_id": 1, "turns": ["…", "…"]}}`, but {error}. Correct the line.'
            )
            problems.append(Problem(told, str(path), number))
    if problems:
        raise ConfigError(problems)
    if not found:
        raise ConfigError(f"`{path}` holds no questions. Put a question on each line.")
    return tuple(found)


def _question(row: Any) -> Question:
    if not isinstance(row, Mapping):
        raise TypeError("this is no mapping")
    if not isinstance(row.get("question_id"), (int, str)):
        raise TypeError("`question_id` is missing, or no number or text")
    turns, reference = _texts(row, "turns"), _texts(row, "reference")
    if not turns:
        raise ValueError("it has no `turns`")
    if reference and len(reference) != len(turns):
        raise ValueError(f"it has {len(turns)} `turns` and {len(reference)} of `reference`")
    category = row.get("category")
    return Question(
        id=str(row["question_id"]),
        turns=turns,
        reference=reference,
        category=None if category is None else str(category),
    )


def _texts(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    listed = row.get(key) or []
    if not isinstance(listed, list) or not all(isinstance(text, str) and text.strip() for text in listed):
        raise TypeError(f"`{key}` is no list of texts")
    return tuple(listed)
