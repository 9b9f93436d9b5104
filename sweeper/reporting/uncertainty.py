"""How far the best value can be trusted: what repeats over seeds say, and how close the next one is. Pure."""

import dataclasses
import statistics

from sweeper.params import but_seed, params_key
from sweeper.records import TrialRecord
from sweeper.reporting.formats import plural, short
from sweeper.study.view import StudyView


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """What is known of the best params' value beside the value itself."""

    n_seeds: int  # complete trials with the best's params but for the seed
    mean: float
    sd: float | None  # over the seeds; None of a single one
    runner_up: int | None  # number of the best trial with other params
    margin: float | None  # how far the runner-up is behind, in the metric's units


def uncertainty_of(view: StudyView) -> Uncertainty | None:
    """Return it for the best trial; None where no trial is complete."""
    best = view.best
    if best is None or best.value is None:
        return None
    ranked, point = view.ranked, _point(best)
    repeats = [record.value or 0.0 for record in ranked if _point(record) == point]
    second = next((record for record in ranked if _point(record) != point), None)
    return Uncertainty(
        n_seeds=len(repeats),
        mean=statistics.fmean(repeats),
        sd=statistics.stdev(repeats) if len(repeats) > 1 else None,
        runner_up=None if second is None else second.number,
        margin=None if second is None else abs(best.value - (second.value or 0.0)),
    )


def uncertainty_sentence(view: StudyView) -> str | None:
    """Say how far the best value can be trusted; None where no trial is complete."""
    found = uncertainty_of(view)
    if found is None:
        return None
    if found.sd is not None:
        text = (
            f"Over {plural(found.n_seeds, 'seed')} its params gave {short(found.mean)} ± {short(found.sd)} "
            "(mean and standard deviation)"
        )
    else:
        text = "Its params were trained once, with one seed, so how far chance moves the value is not known"
    if found.runner_up is not None and found.margin is not None:
        text += f"; the next best, trial {found.runner_up}, is {short(found.margin)} behind"
    return f"{text}."


def _point(record: TrialRecord) -> str:
    return params_key(but_seed(record.params))
