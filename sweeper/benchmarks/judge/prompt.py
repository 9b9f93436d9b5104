"""What the judge is asked, and how its reply is read. Pure.

One answer is judged at a time, so there is no first and second answer whose order could sway the judge. Source of the
scheme: Zheng et al., arXiv:2306.05685 (single answer grading); the words are our own, so numbers of other prompts do
not compare.
"""

import re
from collections.abc import Sequence

from sweeper.benchmarks.judge.questions import Question

PROMPT_VERSION = (
    "single-answer-1"  # raise it when a word of the prompt changes: cached replies are then asked anew
)
LOWEST, HIGHEST = 1.0, 10.0

SYSTEM = """\
You grade the answers of an assistant. Judge whether the last answer of the chat is correct, relevant, complete, \
clear and follows the user's instructions. Do not let the answer's length impress you: a short answer that is right is \
better than a long one that is not. Give one or two sentences of reasons, then the grade on a line of its own, from 1 \
(useless) to 10 (could not be better), exactly in this form: Rating: [[7]]"""

_RATING = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]")


def judge_messages(question: Question, answers: Sequence[str]) -> list[dict[str, str]]:
    """Return the messages that ask for a grade of the last of the answers."""
    turn = len(answers) - 1
    lines = []
    for asked, answered in zip(question.turns, answers, strict=False):
        lines += [f"<user>\n{asked}\n</user>", f"<assistant>\n{answered}\n</assistant>"]
    if question.reference:
        lines.append(
            f"<reference for the last answer>\n{question.reference[turn]}\n</reference for the last answer>"
        )
    lines.append("Grade the last answer of the assistant.")
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "\n".join(lines)}]


def parse_rating(reply: str) -> float | None:
    """Return the grade that a reply gives; None where it gives none.

    >>> parse_rating("Right and short. Rating: [[9]]"), parse_rating("I would say 9."), parse_rating("Rating: [[11]]")
    (9.0, None, None)
    """
    found = _RATING.findall(reply)
    value = float(found[-1]) if found else None
    return value if value is not None and LOWEST <= value <= HIGHEST else None
