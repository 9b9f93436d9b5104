"""The pruner as a drop-in for plain Optuna: what it warns of, what it keeps, what it needs."""

import warnings

import optuna
import pytest

from sweeper.pruners import EarlyDynamicsPruner, RankedSignal, report_rung

LOW_LOSS = {"loss": RankedSignal(direction="minimize")}
NO_RUNG = "came to its end, but no rung of it was reported"
TOO_FEW = "it learns from 20 points on and knows of"


def optimize(pruner, *, n_trials, objective):
    study = optuna.create_study(
        pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0), study_name="plain"
    )
    study.optimize(objective, n_trials=n_trials)
    return study


def objective_of(report):
    """Return an objective that asks after each of three reports."""

    def objective(trial):
        x = trial.suggest_float("x", -1.0, 1.0)
        for rung, mark in enumerate((100, 200, 300)):
            report(trial, rung, mark, x * x + 1 / mark)
            if trial.should_prune():
                raise optuna.TrialPruned
        return x * x

    return objective


def with_rungs(trial, rung, mark, loss):
    report_rung(trial, rung=rung, mark=mark, step=mark, samples=mark, signals={"loss": loss})


def with_values_alone(trial, rung, mark, loss):
    trial.report(loss, mark)


def with_values_before_the_rung(trial, rung, mark, loss):
    trial.report(loss, mark)
    if rung == 2:
        with_rungs(trial, rung, mark, loss)


@pytest.mark.parametrize("options", [{}, {"signals": LOW_LOSS}], ids=["learned", "rank"])
def test_whoever_reports_values_and_no_rungs_is_warned_once(options):
    with pytest.warns(UserWarning, match=NO_RUNG) as told:
        optimize(EarlyDynamicsPruner(**options), n_trials=25, objective=objective_of(with_values_alone))

    assert str(told.pop().message) == (
        "`EarlyDynamicsPruner` stops nobody in study `plain`: trial 0 asked `should_prune` and came to its end, but no "
        "rung of it was reported. It judges what `sweeper.pruners.report_rung` records, not the values of "
        "`trial.report`. Call `report_rung` at each rung, before `should_prune`."
    )
    assert len(told) == 0


def test_the_warning_points_at_the_objective():
    with pytest.warns(UserWarning, match=NO_RUNG) as told:
        optimize(EarlyDynamicsPruner(), n_trials=2, objective=objective_of(with_values_alone))

    assert told[0].filename == __file__


@pytest.mark.parametrize("report", [with_rungs, with_values_before_the_rung])
def test_nobody_is_warned_who_reports_rungs_in_a_large_study(report):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimize(EarlyDynamicsPruner(n_points=25), n_trials=25, objective=objective_of(report))


@pytest.mark.parametrize(("n_points", "n_known"), [(15, 15), (None, 1)])
def test_too_few_points_to_learn_from_are_warned_of_once(n_points, n_known):
    pruner = EarlyDynamicsPruner(n_points=n_points)

    with pytest.warns(UserWarning, match=TOO_FEW) as told:
        study = optimize(pruner, n_trials=15, objective=objective_of(with_rungs))

    assert str(told.pop().message) == (
        f"`EarlyDynamicsPruner` stops nobody in study `plain` yet: it learns from 20 points on and knows of {n_known}. "
        "Where there are more, pass `n_points` or enqueue them all before the start (`study.enqueue_trial`). With so "
        'few judge by rank, for example `EarlyDynamicsPruner(signals={"loss": RankedSignal(direction="minimize")})`.'
    )
    assert len(told) == 0
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}


def test_few_points_are_enough_for_the_rank():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = optimize(
            EarlyDynamicsPruner(signals=LOW_LOSS), n_trials=15, objective=objective_of(with_rungs)
        )

    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED"}
