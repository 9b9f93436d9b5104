"""Which points are confirmed, and the sweep that trains them again. Pure: from one study's view to a config."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.space_models import Dimension
from sweeper.confirm.again import points_config
from sweeper.errors import ConfigError, StudyMismatchError
from sweeper.params import SEED, but_seed, params_key
from sweeper.records import TrialRecord, goodness_sign
from sweeper.reporting.origins import from_scratch_words, origin_text
from sweeper.study.view import StudyView

_MAX_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finalist:
    """One point of a study, as it came out there. Its repeats over seeds count as one."""

    trial: int  # its best trial's number
    params: dict[str, Any]  # without the seed
    value: float  # mean over the seeds it had


def choose_finalists(view: StudyView, *, top: int, baseline: int | None) -> tuple[Finalist, ...]:
    """Return the reference first, then the other finalists by rank.

    The reference is the baseline where one is named, which comes on top of the `top` best; else it is the best point.
    Trials that began with another one's weights are passed over: trained from scratch, their params need not give
    what they gave.

    Raises:
        ConfigError: If there is nothing to compare.
        StudyMismatchError: If no trial from scratch completed, there is no such baseline, or it was not trained from
            scratch.
    """
    ranked = _ranked(view)
    if not ranked:
        raise StudyMismatchError(
            f"No trial of study `{view.name}` has completed{from_scratch_words(view)}, so there is nothing to confirm. "
            "`sweeper resume` goes on with it."
        )
    best = ranked[:top]
    if baseline is not None:
        named = _baseline(view, ranked, baseline)
        best = [named, *(one for one in best if one is not named)]
    if len(best) < 2:
        raise ConfigError(
            f"Study `{view.name}` has {len(ranked)} completed "
            f"{'point' if len(ranked) == 1 else 'points'}{from_scratch_words(view)} and `--top` is {top}, so there are "
            "no two to compare. Raise `--top`, or name another trial with `--baseline N`."
        )
    return tuple(best)


def passed_over(view: StudyView, *, top: int) -> tuple[int, ...]:
    """Return the trials that would be among the `top` best, had they not begun with another one's weights."""
    sign = goodness_sign(view.config.direction)
    chosen = _ranked(view)[:top]
    least = sign * chosen[-1].value if len(chosen) == top else -math.inf
    warm = (record for record in view.ranked if record.is_warm_started)
    return tuple(record.number for record in warm if sign * (record.value or 0.0) > least)


def confirm_config(
    view: StudyView, finalists: Sequence[Finalist], *, n_seeds: int, name: str | None = None
) -> SweepConfig:
    """Return the sweep that trains every finalist with the same new seeds to its end."""
    seeds = new_seeds(view, n_seeds)
    # Seed by seed, so that whatever an interrupted study has can be compared.
    points = [{**finalist.params, SEED: seed} for seed in seeds for finalist in finalists]
    return points_config(view, points, name=name, suffix="-confirm", dimensions={SEED: Dimension(grid=seeds)})


def new_seeds(view: StudyView, n_seeds: int) -> list[int]:
    """Return seeds that the study has not used: its winners owe part of their rank to those."""
    used = {view.config.seed, view.config.trial.settings.get(SEED, 0)}
    used |= {record.params[SEED] for record in view.records if SEED in record.params}
    first = max(seed for seed in used if isinstance(seed, int)) + 1
    if first + n_seeds > _MAX_SEED:
        first = 0
    return [seed for seed in range(first, first + n_seeds + len(used)) if seed not in used][:n_seeds]


def identity(params: dict[str, Any]) -> str:
    """Return text that is equal for points that differ in the seed alone."""
    return params_key(but_seed(params))


def _ranked(view: StudyView) -> list[Finalist]:
    """Return the points that completed from scratch, the best first."""
    sign = -goodness_sign(view.config.direction)
    groups: dict[str, list[TrialRecord]] = {}
    for record in view.from_scratch:
        groups.setdefault(identity(record.params), []).append(record)
    found = []
    for group in groups.values():
        # What began with another one's weights is not what its params give, and counts where nothing else does.
        records = [record for record in group if not record.is_warm_started] or group
        mean = statistics.fmean(record.value or 0.0 for record in records)
        found.append(Finalist(trial=records[0].number, params=but_seed(records[0].params), value=mean))
    return sorted(found, key=lambda finalist: (sign * finalist.value, finalist.trial))


def _baseline(view: StudyView, ranked: Sequence[Finalist], number: int) -> Finalist:
    record = view.record(number)
    if record.is_continued or record.is_warm_started:
        raise StudyMismatchError(
            f"Trial {number} of study `{view.name}` was not trained from scratch ({origin_text(record)}), as "
            "confirming would train it, to the study's budget: its params need not give then what they gave here. "
            "Choose another trial for `--baseline`."
        )
    found = next((one for one in ranked if identity(one.params) == identity(record.params)), None)
    # One that was stopped early may be a baseline too: here it is trained to its end.
    return found or Finalist(trial=number, params=but_seed(record.params), value=float("nan"))
