"""One judged benchmark of one model: answer, ask, count."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from scipy import stats

from sweeper.benchmarks.judge.ask import Judge
from sweeper.benchmarks.judge.prompt import HIGHEST, PROMPT_VERSION, SYSTEM, judge_messages, parse_rating
from sweeper.benchmarks.judge.questions import Question, load_questions
from sweeper.benchmarks.loaded import LoadedModel, Measured
from sweeper.cache import cache_dir
from sweeper.config.benchmark_models import BENCH, JudgedBenchmark
from sweeper.errors import SweeperError
from sweeper.items import Items
from sweeper.study.benchmark_records import Score


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rated:
    """One answer with its grade."""

    question: str
    turn: int  # from 0
    n_characters: int
    rating: float | None  # None: the judge gave none, however often it was asked


def run_judged(loaded: LoadedModel, entry: JudgedBenchmark, *, name: str, batch_size: int) -> Measured:
    """Let a model answer the questions and a judge grade the answers.

    Raises:
        ConfigError: If the questions or the model's template cannot be used.
        SweeperError: If the endpoint refuses, or graded nothing.
    """
    # Imported here: it loads torch, which asking a judge does not need.
    from sweeper.benchmarks.judge.answers import answer_questions

    questions = load_questions(Path(entry.questions), limit=entry.limit)
    answers = answer_questions(loaded, questions, max_new_tokens=entry.max_new_tokens, batch_size=batch_size)
    cache = cache_dir() / "judge"
    with Judge(entry, cache=cache, is_usable=lambda reply: parse_rating(reply) is not None) as judge:
        return measured_of(name, entry, questions, rate(judge, questions, answers))


def rate(judge: Judge, questions: Sequence[Question], answers: Sequence[Sequence[str]]) -> list[Rated]:
    """Return the judge's grade of every answer."""
    places = [(index, turn) for index, given in enumerate(answers) for turn in range(len(given))]
    requests = [judge_messages(questions[index], answers[index][: turn + 1]) for index, turn in places]
    replies = judge.ask_all(requests)
    return [
        Rated(
            question=questions[index].id, turn=turn, n_characters=len(answers[index][turn]),
            rating=None if reply is None else parse_rating(reply),
        )
        for (index, turn), reply in zip(places, replies, strict=True)
    ]  # fmt: skip


def measured_of(
    name: str, entry: JudgedBenchmark, questions: Sequence[Question], rated: Sequence[Rated]
) -> Measured:
    """Return the mean grade over questions, each question's being the mean over its turns.

    Raises:
        SweeperError: If nothing was graded.
    """
    usable = [one for one in rated if one.rating is not None]
    if not usable:
        raise SweeperError(
            f"The judge `{entry.model}` gave no usable grade to any of {len(rated)} answers of `{name}`. Its replies "
            "must hold a grade such as `Rating: [[7]]`; choose a model that follows instructions, or raise its "
            f"`max_tokens` ({entry.max_tokens}) where it was cut off."
        )
    by_question = {
        question.id: [one.rating for one in usable if one.question == question.id and one.rating is not None]
        for question in questions
    }
    means = {question: statistics.fmean(grades) for question, grades in by_question.items() if grades}
    values = list(means.values())
    stderr = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    facts = {
        "judge": entry.model, "base_url": entry.base_url, "temperature": entry.temperature,
        "prompt_version": PROMPT_VERSION, "prompt": SYSTEM,
        "n": len(values), "n_unrated": len(rated) - len(usable),
        "by_turn": _by_turn(usable), "by_category": _by_category(questions, means),
        "position": "each answer is graded alone, so no order of answers can sway the judge",
        "verbosity": _verbosity(usable),
    }  # fmt: skip
    items = Items(source=f"{BENCH}/{name}", ids=tuple(means), measures={"rating": tuple(values)})
    return Measured(
        score=Score(value=statistics.fmean(values), stderr=stderr, scale=HIGHEST, facts=facts), items=items
    )


def _by_turn(rated: Sequence[Rated]) -> dict[str, float]:
    turns = sorted({one.turn for one in rated})
    return {
        str(turn + 1): statistics.fmean(one.rating or 0.0 for one in rated if one.turn == turn)
        for turn in turns
    }


def _by_category(questions: Sequence[Question], means: dict[str, float]) -> dict[str, float]:
    names = dict.fromkeys(question.category for question in questions if question.category is not None)
    found = {
        name: [
            means[question.id] for question in questions if question.category == name and question.id in means
        ]
        for name in names
    }
    return {name: statistics.fmean(values) for name, values in found.items() if values}


def _verbosity(rated: Sequence[Rated]) -> dict[str, float | None]:
    """Return the answers' mean length, and how far the grade goes with it: a judge may like long answers."""
    lengths = [one.n_characters for one in rated]
    grades = [one.rating or 0.0 for one in rated]
    varies = len(set(lengths)) > 1 and len(set(grades)) > 1
    return {
        "mean_characters": statistics.fmean(lengths),
        "spearman_of_length_and_rating": float(stats.spearmanr(lengths, grades).statistic)
        if varies
        else None,
    }
