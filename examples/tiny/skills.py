"""Made-up text skills: what the tiny model knows (`KEPT`) and what it may be taught (`NEW`).

A skill turns a `random.Random` into one (prompt, answer) pair. Nothing here needs torch or a file.
"""

from __future__ import annotations

import random
import string
import zlib
from collections.abc import Callable, Iterator

Pair = tuple[str, str]
LETTERS = string.ascii_lowercase
HELD_OUT_FRAC = 0.1  # of all possible prompts; kept away from pre-training and from train files


def _word(rng: random.Random, shortest: int = 3, longest: int = 7) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))


def _on_word(answer: Callable[[str], str], longest: int = 7) -> Callable[[random.Random], Pair]:
    """Return a skill that draws a word and answers with `answer(word)`."""

    def skill(rng: random.Random) -> Pair:
        word = _word(rng, longest=longest)
        return word, answer(word)

    return skill


def _add(rng: random.Random) -> Pair:
    left, right = rng.randint(0, 49), rng.randint(0, 49)
    return f"{left}+{right}", str(left + right)


def _next_letter(letter: str) -> str:
    return LETTERS[(LETTERS.index(letter) + 1) % len(LETTERS)]


def _swap_halves(word: str) -> str:
    middle = len(word) // 2
    return word[middle:] + word[:middle]


KEPT: dict[str, Callable[[random.Random], Pair]] = {
    "copy": _on_word(lambda word: word),
    "reverse": _on_word(lambda word: word[::-1]),
    "upper": _on_word(str.upper),
    "first": _on_word(lambda word: word[0]),
    "double": _on_word(lambda word: "".join(letter * 2 for letter in word), longest=5),
    "add": _add,
}

NEW: dict[str, Callable[[random.Random], Pair]] = {
    "shift": _on_word(lambda word: "".join(map(_next_letter, word))),
    "swap": _on_word(_swap_halves),
    "sort": _on_word(lambda word: "".join(sorted(word))),
    "ends": _on_word(lambda word: word[0] + word[-1]),
    "rotate": _on_word(lambda word: word[1:] + word[0]),
    "evens": _on_word(lambda word: word[::2]),
    "mirror": _on_word(lambda word: word + word[::-1], longest=5),
    "title": _on_word(str.capitalize),
}

SKILLS = KEPT | NEW


def is_held_out(prompt: str) -> bool:
    """Tell whether a prompt belongs to evaluation only.

    A hash decides, not a list, so that pre-training, train files and eval files agree without a shared file.
    """
    return zlib.crc32(prompt.encode()) % 1000 < HELD_OUT_FRAC * 1000


def draw(name: str, rng: random.Random, *, held_out: bool) -> Pair:
    """Return one (prompt, answer) pair of a skill, from the held-out or the training side.

    >>> draw("reverse", random.Random(0), held_out=False)
    ('reverse: ynbiqp', 'pqibny')

    Raises:
        KeyError: If `name` is no skill.
    """
    while True:
        text, answer = SKILLS[name](rng)
        prompt = f"{name}: {text}"
        if is_held_out(prompt) == held_out:
            return prompt, answer


def draw_distinct(name: str, rng: random.Random, *, held_out: bool) -> Iterator[Pair]:
    """Yield pairs of a skill without end and without a prompt twice.

    Raises:
        RuntimeError: If 1,000 draws in a row bring nothing new, because the skill has too few prompts.
    """
    seen: set[str] = set()
    n_repeats = 0
    while n_repeats < 1000:
        prompt, answer = draw(name, rng, held_out=held_out)
        if prompt in seen:
            n_repeats += 1
            continue
        n_repeats = 0
        seen.add(prompt)
        yield prompt, answer
    raise RuntimeError(
        f"Skill `{name}` gave only {len(seen)} distinct prompts (held_out = {held_out}). Ask for fewer rows."
    )
