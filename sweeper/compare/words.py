"""A comparison of two trials in words and as JSON."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sweeper.compare.run import Compared
from sweeper.compare.statistics import ItemComparison
from sweeper.records import TrialRecord
from sweeper.reporting.formats import (
    count,
    exact,
    jsonable,
    one_line,
    params_text,
    plural,
    short,
    short_float,
)

_MAX_DIFFERENCES = 30
_BY_TOKENS = ("loss", "token_accuracy")  # measures of a trial that weigh long items more than short ones


def compared_text(found: Compared) -> str:
    """Return the comparison for people, a sentence per measure."""
    metric = one_line(found.view.config.metric)
    lines = [
        f"{name} is trial {record.number}: {metric} = {short(record.value)}  ({one_line(params_text(record.params))})"
        for name, record in (("A", found.first), ("B", found.second))
    ]
    lines += ["", *(sentence(comparison) for comparison in found.comparisons), ""]
    lines += _notes(found)
    lines += ["", _differences("Budgets and origins", found.training)]
    lines += [_differences("Settings", found.settings), _differences("Environment", found.environment)]
    return "\n".join(lines)


def compared_json(found: Compared) -> dict[str, Any]:
    """Return the comparison as JSON-able data; differences are positive where A is better."""

    def side(record: TrialRecord) -> dict[str, Any]:
        return {"trial": record.number, "value": jsonable(record.value), "params": jsonable(record.params)}

    return {
        "study": found.view.name,
        "metric": found.view.config.metric,
        "direction": found.view.config.direction,
        "alpha": found.alpha,
        "a": side(found.first),
        "b": side(found.second),
        "comparisons": [jsonable(dataclasses.asdict(comparison)) for comparison in found.comparisons],
        "differs": {
            "training": {name: jsonable(list(pair)) for name, pair in found.training.items()},
            "settings": {name: jsonable(list(pair)) for name, pair in found.settings.items()},
            "environment": {name: jsonable(list(pair)) for name, pair in found.environment.items()},
        },
    }


def sentence(comparison: ItemComparison) -> str:
    """Return one comparison as a sentence."""
    name = one_line(f"{comparison.source}/{comparison.measure}")
    first, second = map(short_float, comparison.means)
    if comparison.least is not None:
        return (
            f"{name}: not tested, since {plural(comparison.n, 'item')} in common cannot show any difference, however "
            f"large; the smallest number that can is {comparison.least}. A {first}, B {second}."
        )
    facts = f"p = {comparison.p_corrected:.2g}, n = {count(comparison.n)}; A {first}, B {second}"
    low, high, difference = comparison.low, comparison.high, comparison.difference
    if not comparison.is_real:
        return (
            f"{name}: not shown to differ: A is {short_float(abs(difference))} "
            f"{'better' if difference >= 0 else 'worse'} ({short_float(low)} to {short_float(high)}; {facts}), with a "
            f"noise of {short_float((high - low) / 2)} from the items alone."
        )
    better, worse = "A", "B"
    if difference < 0:
        better, worse, low, high, difference = "B", "A", -high, -low, -difference
    return (
        f"{name}: {better} beats {worse} by {short_float(difference)} ({short_float(low)} to {short_float(high)}; "
        f"{facts})."
    )


def _notes(found: Compared) -> list[str]:
    n = sum(comparison.least is None for comparison in found.comparisons)
    corrected = f", corrected for {n} comparisons by Holm" if n > 1 else ""
    weighed = sorted({comparison.measure for comparison in found.comparisons} & set(_BY_TOKENS))
    means = "is a mean" if len(weighed) == 1 else "are means"
    named = [
        f"A trial's {' and '.join(weighed)} {means} over all target tokens; here each item counts alike."
    ]
    return [
        *(named if weighed else []),
        f"Paired over items: bootstrap intervals of 95 %, each by itself, permutation of signs; claims at a risk of "
        f"{found.alpha:g} together{corrected}.",
        "This is the noise of which items were asked, not that of the seed, which `sweeper confirm` measures.",
    ]


def _differences(what: str, pairs: Mapping[str, tuple[Any, Any]]) -> str:
    if not pairs:
        return f"{what}: nothing differs."
    listed = list(pairs.items())[:_MAX_DIFFERENCES]
    shown = [f"  {one_line(f'{name}: {exact(a)} -> {exact(b)}')}" for name, (a, b) in listed]
    if len(pairs) > _MAX_DIFFERENCES:
        shown.append(f"  and {len(pairs) - _MAX_DIFFERENCES} more; `--json` lists all")
    return "\n".join([f"{what} that differ, A -> B:", *shown])
