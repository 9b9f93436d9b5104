"""Chats as text, with the spans that are learned: the assistant's words and the token that ends its turn."""

import dataclasses
import datetime
import re
from typing import Any

import jinja2

from sweeper.errors import ConfigError
from sweeper.training.rows import Example, RowError

# Llama 3.2 and Granite write today's date into the system message. Training data must not depend on the day,
# so the date that Llama 3.1 writes by default stands in for it.
PINNED_DATE = datetime.date(2024, 7, 26)
_DATE_CALL = re.compile(r"""strftime_now\(\s*(?P<quote>["'])(?P<format>.*?)(?P=quote)\s*\)""")
_PROBE = ({"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "It is 5."})


@dataclasses.dataclass(frozen=True)
class Rendered:
    """One example as text."""

    text: str
    spans: tuple[tuple[int, int], ...]  # learned characters, [start, end)
    prompt: str | None  # what a generated answer is asked with; None for plain text
    is_chat: bool  # a chat's template writes the special tokens itself


def pin_date(template: str) -> str:
    """Replace calls for today's date by a fixed one.

    >>> pin_date("{{ strftime_now('%d %b %Y') }}")
    "{{ '26 Jul 2024' }}"
    """

    def fixed(call: re.Match[str]) -> str:
        quote = call["quote"]
        return f"{quote}{PINNED_DATE.strftime(call['format'])}{quote}"

    return _DATE_CALL.sub(fixed, template)


class ChatRenderer:
    """Renders examples with one tokenizer's chat template and finds what is learned in them.

    An assistant turn's span is where the rendering of the chat up to and with the turn goes beyond the
    rendering of the chat before it with the generation prompt. Both must be prefixes of the whole chat's
    rendering, which is checked on every row; so the words before a span are what the model is shown at
    inference. This needs no `{% generation %}` markers and so works for Llama 3.1 and 3.2, Granite and
    Mistral. Where a template rewrites earlier turns, TRL's training template is used if it has one and
    renders the same text.
    """

    def __init__(self, tokenizer: Any, *, loss_on: str) -> None:
        self._tokenizer = tokenizer
        self._loss_on = loss_on
        template = tokenizer.chat_template
        self._own = template["default"] if isinstance(template, dict) else template
        self._template = pin_date(self._own) if self._own else None
        if self._template and "strftime_now(" in self._template:
            raise ConfigError(
                "The chat template writes today's date in a way that cannot be fixed, so that training data "
                "would "
                "change from day to day. Give a template with a fixed date in `trial.chat_template`."
            )
        self._added = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
        self._training_template: str | None = None
        self._looked_for_training_template = False
        self._wordless: frozenset[str] | None = None  # what the template writes around no words at all

    @property
    def template(self) -> str | None:
        """The template with its date fixed; None where the tokenizer has none."""
        return self._template

    def check(self) -> list[str]:
        """Try the template on a short chat; return warnings.

        Raises:
            ConfigError: If there is no template, or the assistant's tokens cannot be told from the others.
        """
        try:
            rendered = self.render(Example(messages=_PROBE))
        except RowError as error:
            raise ConfigError(
                f"The chat template cannot be used for training: a short chat {error}. "
                "Give another template in `trial.chat_template`."
            ) from error
        start, end = rendered.spans[-1]
        if self._loss_on == "answers" and self.end_of_turn is None:
            return [
                f"The chat template ends the assistant's turn {rendered.text[start:end]!r} with no special "
                "token, so the "
                "model does not learn to stop."
            ]
        return []

    @property
    def end_of_turn(self) -> str | None:
        """The special token that ends the assistant's turn, if the template writes one."""
        rendered = self.render(Example(messages=_PROBE))
        start, end = self._chat_spans(list(_PROBE), 0, None, rendered.text)[-1]
        answer = rendered.text[start:end]
        return next((token for token in self._added if answer.endswith(token)), None)

    def render(self, example: Example) -> Rendered:
        """Return an example's text and learned spans.

        Raises:
            RowError: If the template refuses the row, or its answer cannot be found in the rendering.
        """
        if example.text is not None:
            return Rendered(example.text, ((0, len(example.text)),), None, is_chat=False)
        if not example.is_chat:
            text = example.prompt + example.completion
            start = 0 if self._loss_on == "all" else len(example.prompt)
            return Rendered(text, ((start, len(text)),), example.prompt, is_chat=False)
        if self._template is None:
            raise RowError(
                "is a chat, but the tokenizer has no chat template. Give one in `trial.chat_template`, or "
                "use an "
                "instruct model"
            )
        messages = list(example.messages)
        text = self._apply(messages, example.tools)
        prompt = self._apply(messages[:-1], example.tools, ask=True)
        if self._loss_on == "all":
            if text.startswith(prompt):
                self._refuse_wordless(text[len(prompt) :], messages, len(messages) - 1)
            return Rendered(text, ((0, len(text)),), prompt, is_chat=True)
        spans = self._chat_spans(messages, example.n_prompt_messages, example.tools, text)
        turns = _answers(messages, example.n_prompt_messages)
        for turn, (start, end) in zip(turns, spans, strict=True):
            self._refuse_wordless(text[start:end], messages, turn)
        return Rendered(text, spans, prompt, is_chat=True)

    def _refuse_wordless(self, learned: str, messages: list[dict[str, Any]], turn: int) -> None:
        """Refuse a turn of which only the token that ends it would be learned.

        Raises:
            RowError: If the template has left out all that the assistant says there.
        """
        if self._wordless is None:
            self._wordless = self._find_wordless()
        if learned.strip() not in self._wordless:
            return
        lost = "tool calls" if messages[turn].get("tool_calls") else "words"
        raise RowError(
            f"has an answer in message {turn + 1} whose {lost} the chat template leaves out, so that the model would "
            f"learn to say nothing there. Give a template that writes them in `trial.chat_template`, or remove the row"
        )

    def _find_wordless(self) -> frozenset[str]:
        try:
            rendered = self._apply(list(_PROBE), None)
            start, end = self._chat_spans(list(_PROBE), 0, None, rendered)[-1]
        except RowError:  # then the row's own check of its spans is all there is
            return frozenset({""})
        head, _, tail = rendered[start:end].partition(_PROBE[-1]["content"])
        return frozenset({"", tail.strip(), (head + tail).strip()})

    def _chat_spans(
        self, messages: list[dict[str, Any]], first: int, tools: list[Any] | None, text: str
    ) -> tuple[tuple[int, int], ...]:
        turns = _answers(messages, first)
        spans = []
        for turn in turns:
            before = self._apply(messages[:turn], tools, ask=True)
            through = text if turn == len(messages) - 1 else self._apply(messages[: turn + 1], tools)
            if not (
                text.startswith(before) and through.startswith(before) and self._is_prefix(through, text)
            ):
                return self._marked_spans(messages, tools, text, len(turns), turn)
            spans.append((len(before), self._end(text, len(before), min(len(through), len(text)))))
        return tuple(spans)

    @staticmethod
    def _is_prefix(through: str, text: str) -> bool:
        # Some templates write a line break after a turn only if it is the last.
        return text.startswith((through, through.rstrip()))

    def _end(self, text: str, start: int, end: int) -> int:
        """Cut off the white space that a template writes after the token that ends the turn."""
        trimmed = text[start:end].rstrip()
        if any(trimmed.endswith(token) for token in self._added):
            return start + len(trimmed)
        return end

    def _marked_spans(
        self, messages: list[dict[str, Any]], tools: list[Any] | None, text: str, n_turns: int, turn: int
    ) -> tuple[tuple[int, int], ...]:
        """Find the spans by the `{% generation %}` markers of TRL's training template."""
        refusal = RowError(
            f"is rendered differently up to message {turn + 1} than as a whole by the chat template, so the "
            "model would "
            "be trained on other words than it is shown at inference. Split the chat into single turns, move "
            "the "
            "system message into the first user message, or give another template in `trial.chat_template`"
        )
        template = self._find_training_template()
        if template is None:
            raise refusal
        rendered, indices = _render_marked(self._tokenizer, template, messages, tools)
        if rendered != text or len(indices) != n_turns:
            raise refusal
        return tuple((start, self._end(text, start, end)) for start, end in indices)

    def _find_training_template(self) -> str | None:
        if not self._looked_for_training_template:
            self._looked_for_training_template = True
            from trl.chat_template_utils import get_training_chat_template, has_generation_markers

            try:
                found = get_training_chat_template(self._tokenizer) or self._own
            except ValueError:  # TRL has none for this template
                found = self._own
            if found is not None and has_generation_markers(found):
                self._training_template = pin_date(found)
        return self._training_template

    def _apply(self, messages: list[dict[str, Any]], tools: list[Any] | None, *, ask: bool = False) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    messages,
                    tools=tools,
                    chat_template=self._template,
                    add_generation_prompt=ask,
                    tokenize=False,
                )
            )
        except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
            raise RowError(f"is refused by the chat template: {error}") from error


def end_of_turn(tokenizer: Any, *, has_chats: bool) -> str | None:
    """Return the special token that ends an assistant's turn; None where there is no template, or it writes none.

    Raises:
        RowError: If the template takes no plain chat, and `has_chats` says that there are rows for it. For other rows
            it may be made for what it likes.
    """
    if not tokenizer.chat_template:
        return None
    try:
        return ChatRenderer(tokenizer, loss_on="answers").end_of_turn
    except RowError:
        if has_chats:
            raise
        return None


def _answers(messages: list[dict[str, Any]], first: int) -> list[int]:
    """Return which messages are learned: the assistant's, from the first that is no prompt."""
    return [i for i in range(first, len(messages)) if messages[i]["role"] == "assistant"]


def _render_marked(
    tokenizer: Any, template: str, messages: list[dict[str, Any]], tools: list[Any] | None
) -> tuple[str, list[tuple[int, int]]]:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, indices = render_jinja_template(
        [messages],
        tools=tools,
        chat_template=template,
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    return rendered[0], indices[0]
