"""What a confirming study showed, read from that study and told in words and as JSON. Pure."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from sweeper.confirm.finalists import Finalist, identity
from sweeper.confirm.statistics import ALPHA, PERMUTATION, Comparison, TestName, Values, compare, smallest_n
from sweeper.params import SEED
from sweeper.pruners.standings import has_diverged
from sweeper.records import TrialState
from sweeper.reporting.formats import jsonable, params_text, plural, short, short_float
from sweeper.study.view import StudyView


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The finalists' new values, and each one's comparison with the reference, which is the first."""

    view: StudyView  # of the confirming study
    of: str  # name of the first one, whose trials are meant
    finalists: tuple[Finalist, ...]
    values: tuple[Values, ...]  # by seed, of each finalist
    n_diverged: tuple[int, ...]  # seeds, of each finalist
    comparisons: tuple[Comparison, ...]
    test: TestName
    alpha: float
    passed_over: tuple[int, ...] = ()  # better trials of the first study, which were not trained from scratch

    @property
    def n_seeds(self) -> int:
        return len({record.params[SEED] for record in self.view.records})


def outcome_of(
    view: StudyView,
    finalists: Sequence[Finalist],
    *,
    of: str,
    test: TestName = "t",
    alpha: float = ALPHA,
    passed_over: Sequence[int] = (),
) -> Outcome:
    """Compare what the confirming study has, whether or not all of its trials have ended."""
    values: list[dict[int, float]] = [{} for _ in finalists]
    n_diverged = [0] * len(finalists)
    place = {identity(finalist.params): index for index, finalist in enumerate(finalists)}
    for record in view.records:
        index = place.get(identity(record.params))
        if index is None:
            continue
        n_diverged[index] += has_diverged(record)
        if record.state is TrialState.COMPLETE and record.value is not None:
            values[index][record.params[SEED]] = record.value
    compared = compare(
        values, maximize=view.config.direction == "maximize", test=test, alpha=alpha, n_diverged=n_diverged
    )
    return Outcome(
        view=view,
        of=of,
        finalists=tuple(finalists),
        values=tuple(values),
        n_diverged=tuple(n_diverged),
        comparisons=compared,
        test=test,
        alpha=alpha,
        passed_over=tuple(passed_over),
    )


def outcome_text(outcome: Outcome) -> str:
    """Return the outcome for people, a sentence per comparison."""
    view, reference = outcome.view, outcome.finalists[0]
    lines = [
        f"{view.config.metric} ({view.config.direction}) of {plural(len(outcome.finalists), 'point')} over "
        f"{plural(outcome.n_seeds, 'new seed')} each, mean ± standard deviation:"
    ]
    for finalist, values, lost in zip(outcome.finalists, outcome.values, outcome.n_diverged, strict=True):
        role = "  (reference)" if finalist is reference else ""
        lines.append(f"  {_name(finalist)}: {_spread(list(values.values()), lost, outcome.n_seeds)}{role}")
    if outcome.passed_over:
        lines += ["", passed_over_sentence(outcome.passed_over)]
    *compared, risk = outcome_sentences(outcome)
    lines += ["", *compared, "", risk]
    return "\n".join(lines)


def outcome_sentences(outcome: Outcome) -> list[str]:
    """Return a sentence per comparison, and the risk at which they are made."""
    n = len(outcome.comparisons)
    by = "Westfall and Young" if all(one.test == PERMUTATION for one in outcome.comparisons) else "Holm"
    how = f", corrected for {n} comparisons by {by}" if n > 1 else ""
    return [
        *(_sentence(outcome, comparison) for comparison in outcome.comparisons),
        f"Claims are made at a risk of {outcome.alpha:g} for all comparisons together{how}; each interval is of 95 % "
        "by itself.",
    ]


def passed_over_sentence(trials: Sequence[int]) -> str:
    """Say which trials are no finalists though their values are among the best."""
    named = ", ".join(str(number) for number in trials)
    which, whose = (
        (f"Trial {named} is", "its value") if len(trials) == 1 else (f"Trials {named} are", "their values")
    )
    return (
        f"{which} passed over: {whose} came of another trial's weights, and confirming trains from scratch."
    )


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as JSON-able data; differences are positive where the candidate is better."""
    view = outcome.view
    return {
        "study": view.name,
        "of": outcome.of,
        "state": view.state,
        "metric": view.config.metric,
        "direction": view.config.direction,
        "n_seeds": outcome.n_seeds,
        "alpha": outcome.alpha,
        "reference": outcome.finalists[0].trial,
        "passed_over": list(outcome.passed_over),
        "finalists": [
            {
                "trial": finalist.trial,
                "params": jsonable(finalist.params),
                "first_value": jsonable(finalist.value),
                "values": {str(seed): jsonable(value) for seed, value in sorted(values.items())},
                "n_diverged": n_diverged,
            }
            for finalist, values, n_diverged in zip(
                outcome.finalists, outcome.values, outcome.n_diverged, strict=True
            )
        ],
        "comparisons": [
            {
                **jsonable(dataclasses.asdict(comparison)),
                "candidate": outcome.finalists[comparison.candidate].trial,
            }
            for comparison in outcome.comparisons
        ],
        "sentences": outcome_sentences(outcome),
    }


def _sentence(outcome: Outcome, comparison: Comparison) -> str:
    reference, candidate = outcome.finalists[0], outcome.finalists[comparison.candidate]
    if any(comparison.n_diverged):
        return _sentence_of_diverged(outcome, comparison)
    if comparison.test == "none":
        return (
            f"Trials {candidate.trial} and {reference.trial} cannot be compared: fewer than 2 seeds of one were "
            "trained to their end."
        )
    least = smallest_n("permutation", alpha=outcome.alpha)
    if comparison.test == PERMUTATION and comparison.n < least:
        return (
            f"Trials {candidate.trial} and {reference.trial} cannot be told apart: they share {comparison.n} seeds "
            f"that were trained to their end, and {PERMUTATION} can claim nothing with fewer than {least}."
        )
    p = f"p = {comparison.p_corrected:.2g}, {comparison.test}, n = {comparison.n}"
    low, high, difference = comparison.low, comparison.high, comparison.difference
    if not comparison.is_real:
        return (
            f"Trials {candidate.trial} and {reference.trial} are not shown to differ: trial {candidate.trial} is "
            f"{short_float(abs(difference))} {'better' if difference >= 0 else 'worse'} ({short_float(low)} to "
            f"{short_float(high)}; {p}), with a noise of {short_float(comparison.noise)} from seed to seed."
        )
    better, worse = candidate.trial, reference.trial
    if difference < 0:
        better, worse, low, high, difference = worse, better, -high, -low, -difference
    return (
        f"Trial {better} beats trial {worse} by {short_float(difference)} ({short_float(low)} to "
        f"{short_float(high)}; {p})."
    )


def _sentence_of_diverged(outcome: Outcome, comparison: Comparison) -> str:
    """Say which seeds diverged, which is worse than any value that the others have."""
    trials = (outcome.finalists[0].trial, outcome.finalists[comparison.candidate].trial)
    both = [
        f"trial {trial} diverged on {n_lost} of {outcome.n_seeds} seeds"
        for trial, n_lost in zip(trials, comparison.n_diverged, strict=True)
        if n_lost
    ]
    told = " and ".join(both)
    told = f"{told[0].upper()}{told[1:]}, so nothing is claimed of trials {trials[1]} and {trials[0]}"
    if math.isnan(comparison.difference):
        return f"{told}."
    return (
        f"{told}; over the seeds that came to their end trial {trials[1]} is {short_float(abs(comparison.difference))} "
        f"{'better' if comparison.difference >= 0 else 'worse'}."
    )


def _name(finalist: Finalist) -> str:
    return f"trial {finalist.trial}  {params_text(finalist.params)}"


def _spread(values: Sequence[float], n_diverged: int, n_seeds: int) -> str:
    diverged = f"diverged on {n_diverged} of {n_seeds} seeds" if n_diverged else ""
    n_open = n_seeds - len(values) - n_diverged
    lost = f"{n_open} of {n_seeds} seeds failed or are open" if n_open else ""
    mean = math.fsum(values) / len(values) if values else math.nan
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1))
    shown = "no seed was trained to its end" if not values else short(mean)
    spread = f" ± {short(sd)}" if len(values) > 1 else ""
    return ", ".join(part for part in (f"{shown}{spread}", diverged, lost) if part)
