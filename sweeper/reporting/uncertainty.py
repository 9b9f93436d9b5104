"""How far the best value can be trusted: what repeats over seeds say, and how close the next one is. Pure."""

import dataclasses
import statistics

from sweeper.params import but_seed, params_key
from sweeper.records import TrialRecord
from sweeper.reporting.formats import plural, short
from sweeper.reporting.origins import from_scratch_words
from sweeper.study.view import StudyView


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """What is known of the best params' value beside the value itself. Trials from scratch alone count."""

    trial: int  # number of the one with the best value
    n_seeds: int  # complete trials with the best's params but for the seed
    mean: float
    sd: float | None  # over the seeds; None of a single one
    runner_up: int | None  # number of the best trial with other params
    margin: float | None  # how far the runner-up is behind, in the metric's units


def uncertainty_of(view: StudyView) -> Uncertainty | None:
    """Return it for the best trial from scratch; None where none is complete."""
    ranked = view.from_scratch
    if not ranked:
        return None
    best, point = ranked[0], _point(ranked[0])
    repeats = [record.value or 0.0 for record in ranked if _point(record) == point]
    second = next((record for record in ranked if _point(record) != point), None)
    return Uncertainty(
        trial=best.number,
        n_seeds=len(repeats),
        mean=statistics.fmean(repeats),
        sd=statistics.stdev(repeats) if len(repeats) > 1 else None,
        runner_up=None if second is None else second.number,
        margin=None if second is None else abs((best.value or 0.0) - (second.value or 0.0)),
    )


def uncertainty_sentence(view: StudyView) -> str | None:
    """Say how far the best value can be trusted; None where no trial from scratch is complete."""
    found = uncertainty_of(view)
    if found is None or view.best is None:
        return None
    whose = "its" if found.trial == view.best.number else f"trial {found.trial}'s"
    if found.sd is not None:
        text = (
            f"Over {plural(found.n_seeds, 'seed')} {whose} params gave {short(found.mean)} ± {short(found.sd)} "
            "(mean and standard deviation)"
        )
    else:
        text = f"{whose.capitalize()} params were trained once, with one seed, so how far chance moves the value is "
        text += "not known"
    if found.margin == 0:
        text += f"; trial {found.runner_up}{from_scratch_words(view)}, with other params, has the same value"
    elif found.runner_up is not None and found.margin is not None:
        text += f"; the next best{from_scratch_words(view)}, trial {found.runner_up}, is {short(found.margin)} behind"
    return f"{text}."


def _point(record: TrialRecord) -> str:
    return params_key(but_seed(record.params))
