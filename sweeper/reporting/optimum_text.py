"""Where the best point lies, in sentences: at an edge of the grid, and what rate the grid as a whole speaks for."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sweeper.optimum.edge import edges_of, points_beyond
from sweeper.optimum.fit import Estimate, RateFit
from sweeper.optimum.rates import RATE, best_rate_of
from sweeper.reporting.formats import one_line, params_text, percent, short
from sweeper.reporting.origins import from_scratch_words
from sweeper.study.view import StudyView


def optimum_sentences(view: StudyView) -> list[str]:
    """Say where the best value is the last one that was tried, what to try next, and what the fitted rates are."""
    lines = [
        f"{one_line(edge.name)} = {short(edge.value)} is the {'smallest' if edge.is_smallest else 'largest'} value "
        f"that was tried{from_scratch_words(view)}; a better one may lie beyond it."
        for edge in edges_of(view)
    ]
    points = points_beyond(view)
    if points:
        named = "; ".join(params_text(point) for point in points)
        lines.append(f"`sweeper add STUDY --suggest` adds what lies beyond: {named}.")
    fit = best_rate_of(view)
    return lines if fit is None else [*lines, _fit_sentence(view, fit)]


def _fit_sentence(view: StudyView, fit: RateFit) -> str:
    each = ", ".join(f"{_estimate(rate)} at batch {batch:,}" for batch, rate in fit.rates.items())
    text = f"A parabola of {one_line(view.config.metric)} over the logarithm of {RATE} has its best at {each}"
    if fit.exponent is not None:
        text += f"; the best rate goes as the batch size to the power {_estimate(fit.exponent)}"
    outside = _outside(view, fit)
    note = (
        f" The best at batch {', '.join(outside)} lies outside the rates that were tried." if outside else ""
    )
    return (
        f"{text}. Intervals of 95 %; fitted to {fit.n} complete trials, of whose scatter it explains "
        f"{percent(fit.r_squared)}.{note}"
    )


def _estimate(found: Estimate) -> str:
    value, low, high = (short(float(f"{number:.2g}")) for number in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def _outside(view: StudyView, fit: RateFit) -> list[str]:
    tried = [r.params[RATE] for r in view.records if RATE in r.params and not r.is_warm_started]
    return [f"{batch:,}" for batch, rate in fit.rates.items() if not min(tried) <= rate.value <= max(tried)]


def optimum_json(view: StudyView) -> Mapping[str, Any]:
    """Return the same for report.json."""
    fit = best_rate_of(view)
    return {
        "edges": [dataclasses.asdict(edge) for edge in edges_of(view)],
        "points_to_add": points_beyond(view),
        "best_rate": None if fit is None else dataclasses.asdict(fit),
    }
