"""What a row of training data must look like. Pure: knows no tokenizer."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

ROLES = ("system", "developer", "user", "assistant", "tool", "ipython")
_SHOWN = 60  # characters of a wrong value in a message
COLUMNS = "`messages`, `prompt` and `completion`, or `text`"


class RowError(Exception):
    """What is wrong with one row, as the end of a sentence that begins with its place."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One checked row: a chat, a plain prompt with its completion, or plain text."""

    messages: tuple[dict[str, Any], ...] = ()  # chat only
    n_prompt_messages: int = 0  # assistant turns before this one are context, not targets
    tools: list[Any] | None = None  # JSON schemas that the chat template is given
    prompt: str = ""
    completion: str = ""
    text: str | None = None

    @property
    def is_chat(self) -> bool:
        return bool(self.messages)

    @property
    def answer(self) -> str | None:
        """What a generated answer is compared with; None for plain text."""
        if self.text is not None:
            return None
        return str(self.messages[-1].get("content") or "") if self.is_chat else self.completion


def parse_row(row: Mapping[str, Any]) -> Example:
    """Check one row and return it as an example.

    Raises:
        RowError: If the row has not the needed columns, or no answer to learn from.
    """
    if row.get("messages") is not None:
        return _chat(_messages(row["messages"], "messages"), n_prompt=0, tools=row.get("tools"))
    if row.get("prompt") is not None and row.get("completion") is not None:
        return _prompt_completion(row)
    if row.get("text") is not None:
        return _text(row["text"])
    present = [f"`{name}`" for name, value in row.items() if value is not None]
    raise RowError(
        f"has {'the columns ' + ', '.join(present) if present else 'no columns'}, but {COLUMNS} must be "
        "there. "
        "Rename the columns"
    )


def _text(text: Any) -> Example:
    if not isinstance(text, str):
        raise RowError(f"has a `text` of type {type(text).__name__}, but it must be a string")
    if not text.strip():
        raise RowError("has an empty `text`. Remove the row")
    return Example(text=text)


def _prompt_completion(row: Mapping[str, Any]) -> Example:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        if not completion.strip():
            raise RowError("has an empty `completion`, so there is no answer to learn. Remove the row")
        return Example(prompt=prompt, completion=completion)
    if isinstance(prompt, str) or isinstance(completion, str):
        raise RowError(
            "mixes a string and a list in `prompt` and `completion`. Make both strings or both lists of "
            "messages"
        )
    first = _messages(prompt, "prompt")
    second = _messages(completion, "completion")
    return _chat(first + second, n_prompt=len(first), tools=row.get("tools"))


def _messages(value: Any, column: str) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list) or not value:
        raise RowError(f"has a `{column}` that is no list of messages. Give a list of {{role, content}}")
    for index, message in enumerate(value, start=1):
        if not isinstance(message, dict) or "role" not in message:
            raise RowError(
                f"has no `role` in message {index} of `{column}`. Give each message a role and a content"
            )
        if message["role"] not in ROLES:
            raise RowError(
                f"has the unknown role `{message['role']}` in message {index} of `{column}`. Use one of "
                f"{', '.join(ROLES)}"
            )
        content = message.get("content")
        if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
            raise RowError(f"has no text as `content` in message {index} of `{column}`. Give a string")
    return tuple(_without_none(message) for message in value)


def _without_none(value: Any) -> Any:
    """Return a value whose mappings, however deep, have no keys that stand for None; lists keep their items.

    Arrow gives every row the keys of all rows, None where a row had none: the arguments of one tool would be written
    into the calls of all others. JSON rows lose their nulls as well, so that the same rows give the same tokens from
    either kind of file. As TRL does (`remove_none_values`, 1.16).
    """
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _chat(messages: tuple[dict[str, Any], ...], *, n_prompt: int, tools: Any) -> Example:
    if messages[-1]["role"] != "assistant":
        raise RowError(
            f"ends with a message from `{messages[-1]['role']}`, so there is no answer to learn. "
            "End it with a message from `assistant`"
        )
    for index, message in enumerate(messages[n_prompt:], start=n_prompt + 1):
        if (
            message["role"] == "assistant"
            and not (message.get("content") or "").strip()
            and not message.get("tool_calls")
        ):
            raise RowError(f"has an empty answer in message {index}. Fill it in or remove the row")
    if messages[0]["role"] == "assistant":
        raise RowError("begins with a message from `assistant`. Begin with `user` or `system`")
    return Example(messages=messages, n_prompt_messages=n_prompt, tools=_tools(tools))


def _tools(value: Any) -> list[Any] | None:
    try:
        # What stands in a text is not Arrow's, and stays as it was written.
        tools = json.loads(value) if isinstance(value, str) and value else _without_none(value)
    except (ValueError, RecursionError) as error:  # of JSON that is nested too deeply
        raise RowError(
            f"has `tools` that are text, but no JSON: {error}. Give a list of JSON schemas"
        ) from error
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        shown = json.dumps(tools, default=str)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        raise RowError(
            f"has `tools` = {shown}, but they must be a list of JSON schemas, or such a list as JSON text. Put each "
            "tool's schema into a list"
        )
    return tools
