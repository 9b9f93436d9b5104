"""How much each param mattered, by Optuna's own importance evaluators."""

import dataclasses
import logging
import warnings
from collections.abc import Mapping

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial

from sweeper.records import TrialRecord
from sweeper.reporting.formats import plural
from sweeper.reporting.summary import result_of, varying_params
from sweeper.study import space
from sweeper.study.view import StudyView

logger = logging.getLogger(__name__)

MIN_TRIALS = 4  # complete ones; fewer say nothing of two params
# fANOVA's forest took 10 s for 500 trials of 4 params, PED-ANOVA 0.01 s (two cores, November 2026).
MAX_FANOVA_TRIALS = 120


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importance:
    """Shares of the params, largest first, that add up to 1; or why there are none."""

    shares: Mapping[str, float]
    note: str  # the evaluator and what it stands on, or why there is nothing


def importance_of(view: StudyView) -> Importance:
    """Measure how much each param that varies moves the result, over the COMPLETE trials that are compared.

    One that began with another one's weights owes its result to the params of that one too, and is left out.
    """
    complete = [r for r in view.records if r.is_compared and not r.is_warm_started]
    n_begun = sum(result_of(record) is not None for record in view.records) - len(complete)
    names = [name for name in varying_params(view) if len({str(r.params.get(name)) for r in complete}) > 1]
    if len(names) < 2:
        return Importance(
            shares={}, note="Importance compares params; fewer than two vary among the complete trials."
        )
    if len(complete) < MIN_TRIALS or len({result_of(record) for record in complete}) < 2:
        return Importance(
            shares={},
            note=f"Only {plural(len(complete), 'trial')}{' from scratch' if n_begun else ''} completed, too few "
            "(or too equal) to say which param matters.",
        )
    is_small = len(complete) <= MAX_FANOVA_TRIALS
    method = "fANOVA" if is_small else "PED-ANOVA"
    try:
        shares = _shares(view, complete, names, is_small=is_small)
    except ImportError as error:
        return Importance(shares={}, note=f"Optuna's {method} needs scikit-learn: {error}.")
    except (ValueError, RuntimeError) as error:
        logger.warning("Optuna could not measure the params' importance: %s", error)
        return Importance(shares={}, note=f"Optuna's {method} could not measure it: {error}")
    note = f"Optuna's {method} over the {plural(len(complete), 'complete trial')}"
    if n_begun:
        note += f"; {n_begun} that began with another trial's weights are left out"
    n_left_out = len(view.records) - len(complete) - n_begun
    if n_left_out:
        note += (
            f"; the other {n_left_out} have no result and are left out, so a param whose bad values were "
            "stopped early looks less important than it is"
        )
    return Importance(shares=shares, note=f"{note}.")


def _shares(
    view: StudyView, complete: list[TrialRecord], names: list[str], *, is_small: bool
) -> dict[str, float]:
    direction = view.config.direction
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        evaluator: BaseImportanceEvaluator = (
            FanovaImportanceEvaluator(seed=view.config.seed) if is_small else PedAnovaImportanceEvaluator()
        )
        study = optuna.create_study(direction=direction)
        study.add_trials(_frozen(view, complete))
        found = get_param_importances(study, evaluator=evaluator, params=names)
    return {name: float(share) for name, share in found.items()}


def _frozen(view: StudyView, complete: list[TrialRecord]) -> list[optuna.trial.FrozenTrial]:
    # Points that were added by hand may lie outside of the sweep file's space.
    distributions = {
        name: space.widened(
            distribution, [record.params[name] for record in complete if name in record.params]
        )
        for name, distribution in space.distributions(view.config).items()
    }
    return [
        create_trial(
            state=OptunaState.COMPLETE,
            params={name: space.encode_choice(record.params[name]) for name in distributions},
            distributions=distributions,
            value=record.value,
        )
        for record in complete
        if set(distributions) <= set(record.params)
    ]
