"""The pruner as a drop-in for plain Optuna: what it warns of, what it keeps, what it needs."""

import logging
import pickle
import warnings

import numpy as np
import optuna
import pytest

from sweeper.pruners import EarlyDynamicsPruner, LearnedOptions, RankedSignal, report_rung

LOW_LOSS = {"loss": RankedSignal(direction="minimize")}
NO_RUNG = "came to its end, but no rung of it was reported"
TOO_FEW = "it learns from 20 points on and knows of"


def optimize(pruner, *, n_trials, objective, name="plain"):
    study = optuna.create_study(pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0), study_name=name)
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


def test_every_decision_of_a_study_can_be_read_with_its_reason():
    pruner = EarlyDynamicsPruner(n_points=40)
    study = optimize(pruner, n_trials=40, objective=objective_of(with_rungs))
    optimize(pruner, n_trials=1, objective=objective_of(with_rungs), name="another")

    decisions = pruner.decisions(study)

    pruned = {trial.number for trial in study.trials if trial.state.name == "PRUNED"}
    assert pruned
    assert {number for number, made in decisions.items() if made[-1].stop} == pruned
    assert list(decisions) == list(range(40))
    assert [decision.rung for decision in decisions[0]] == [0, 1, 2]
    assert decisions[0][0].reason == "calibration: 0 of 7 trials have run to their end"
    stop = decisions[min(pruned)][-1]
    assert stop.reason.startswith(f"at rung {stop.rung}, metric is predicted to end at ")
    assert stop.details["chance"] <= stop.details["allowed"]


def test_a_decision_is_logged_when_debugging(caplog):
    caplog.set_level(logging.DEBUG, logger="sweeper.pruners")

    study = optimize(EarlyDynamicsPruner(n_points=40), n_trials=40, objective=objective_of(with_rungs))

    told = [record.getMessage() for record in caplog.records if record.name.startswith("sweeper.pruners")]
    assert told[0] == "study `plain`, trial 0: go on, calibration: 0 of 7 trials have run to their end"
    n_stops = sum(": stop, at rung " in message for message in told)
    assert n_stops == sum(trial.state.name == "PRUNED" for trial in study.trials) > 0


def test_a_pruner_that_was_pickled_goes_on_with_the_risk_it_has_left():
    pruner = EarlyDynamicsPruner(n_points=40, learned=LearnedOptions(audit_frac=0.0))
    study = optimize(pruner, n_trials=20, objective=objective_of(with_rungs))
    kept = pickle.loads(pickle.dumps(pruner))
    assert any(made[-1].stop for made in kept.decisions(study).values())

    states = []
    for used in (pruner, kept):
        other = optuna.create_study(
            study_name="plain", sampler=optuna.samplers.RandomSampler(seed=1), pruner=used
        )
        other.add_trials(study.trials)
        other.optimize(objective_of(with_rungs), n_trials=20)
        states.append([trial.state.name for trial in other.trials])
        assert used.decisions(other).keys() == set(range(40))

    assert states[0] == states[1]
    assert pruner.decisions(study) == kept.decisions(study)


@pytest.mark.parametrize("storage", ["memory", "sqlite"])
def test_numbers_of_numpy_are_kept_as_plain_ones(storage, tmp_path):
    url = None if storage == "memory" else f"sqlite:///{tmp_path}/plain.db"
    study = optuna.create_study(storage=url, pruner=EarlyDynamicsPruner(signals=LOW_LOSS))
    trial = study.ask()

    report_rung(
        trial, rung=np.int64(0), mark=np.int32(100), step=np.array(10), samples=np.int64(100), metric=np.float32(0.5),
        signals={"loss": np.float32(0.25), "grad_norm": np.array(2.0)},
    )  # fmt: skip

    assert not trial.should_prune()
    kept = study.trials[0].user_attrs["rung:0"]
    signals = {"loss": 0.25, "grad_norm": 2.0}
    assert kept == {"rung": 0, "mark": 100, "step": 10, "samples": 100, "signals": signals}
    numbers = [kept[name] for name in ("rung", "mark", "step", "samples")]
    assert {type(number) for number in numbers} == {int}
    assert {type(number) for number in kept["signals"].values()} == {float}
    assert study.trials[0].intermediate_values == {100: 0.5}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            {"signals": {"loss": None}},
            "`signals['loss']` must be a number, but got None. Leave out what has no value.",
        ),
        ({"metric": "good"}, "`metric` must be a number, but got 'good'. Leave out what has no value."),
        ({"rung": "0"}, "`rung` must be a whole number, but got '0'. Round it."),
        ({"mark": 102.4}, "`mark` must be a whole number, but got 102.4. Round it."),
        ({"step": float("inf")}, "`step` must be a whole number, but got inf. Round it."),
    ],
)
def test_what_is_no_number_is_told_by_its_name_and_nothing_is_recorded(wrong, text):
    study = optuna.create_study(pruner=EarlyDynamicsPruner(signals=LOW_LOSS))
    given = {"rung": 0, "mark": 100, "step": 10, "samples": 100, "signals": {"loss": 1.0}, **wrong}

    with pytest.raises(ValueError, match="must be a") as told:
        report_rung(study.ask(), **given)

    assert str(told.value) == text
    assert study.trials[0].user_attrs == {}


@pytest.mark.parametrize(
    "options",
    [{}, {"signals": LOW_LOSS}, {"signals": LOW_LOSS, "mode": "certain"}],
    ids=["learned", "eager", "certain"],
)
def test_a_decision_says_at_how_many_samples_the_trial_stood(options):
    pruner = EarlyDynamicsPruner(n_points=40, **options)

    study = optimize(pruner, n_trials=40, objective=objective_of(with_rungs))

    decisions = pruner.decisions(study).values()
    assert {made[-1].stop for made in decisions} == {True, False}
    for made in decisions:
        assert [decision.samples for decision in made] == [100, 200, 300][: len(made)]


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: RankedSignal(direction="max"),
            ValueError,
            '`RankedSignal.direction` must be "minimize" or "maximize", but got \'max\'. Write one of them.',
        ),
        (
            lambda: RankedSignal(direction="minimize", weight=-1.0),
            ValueError,
            "`RankedSignal.weight` must be a finite number of at least 0, but got -1.0. Choose another value.",
        ),
        (
            lambda: EarlyDynamicsPruner(direction="max"),
            ValueError,
            '`direction` must be "minimize" or "maximize", but got \'max\'. Write one of them.',
        ),
        (
            lambda: EarlyDynamicsPruner(directions="Learned"),
            ValueError,
            '`directions` must be "learned" or "paper", but got \'Learned\'. Write one of them.',
        ),
        (
            lambda: EarlyDynamicsPruner(mode="Eager"),
            ValueError,
            '`mode` must be "eager", "certain" or "probe", but got \'Eager\'. Write one of them.',
        ),
        (
            lambda: EarlyDynamicsPruner(keep_frac=50),
            ValueError,
            "`keep_frac` must lie between 0 and 1, neither of them included, but got 50. 50 % is 0.5.",
        ),
        (
            lambda: EarlyDynamicsPruner(keep_frac=0),
            ValueError,
            "`keep_frac` must lie between 0 and 1, neither of them included, but got 0. Write for example 0.1.",
        ),
        (
            lambda: EarlyDynamicsPruner(keep_frac="half"),
            TypeError,
            "`keep_frac` must be a number, but got 'half'. Write for example 0.1.",
        ),
        (
            lambda: EarlyDynamicsPruner(min_peers=0),
            ValueError,
            "`min_peers` must be at least 1, but got 0. Choose a larger value.",
        ),
        (
            lambda: EarlyDynamicsPruner(n_points=24.0),
            TypeError,
            "`n_points` must be a whole number, but got 24.0. Write for example 24.",
        ),
        (
            lambda: EarlyDynamicsPruner(signals={"loss": "minimize"}),
            TypeError,
            "`signals['loss']` must be a `RankedSignal`, but got 'minimize'. Write for example `signals={'loss': "
            'RankedSignal(direction="minimize")}`.',
        ),
        (
            lambda: EarlyDynamicsPruner(learned={"risk": 0.1}),
            TypeError,
            "`learned` must be a `LearnedOptions`, but got {'risk': 0.1}. Write for example "
            "`learned=LearnedOptions(risk=0.02)`.",
        ),
        (
            lambda: LearnedOptions(risk=5),
            ValueError,
            "`LearnedOptions.risk` must lie between 0 and 1, neither of them included, but got 5. 5 % is 0.05.",
        ),
        (
            lambda: LearnedOptions(audit_frac=-0.1),
            ValueError,
            "`LearnedOptions.audit_frac` must lie between 0 and 1, 0 and 1 included, but got -0.1. Write for example "
            "0.1.",
        ),
        (
            lambda: LearnedOptions(tolerance=float("nan")),
            ValueError,
            "`LearnedOptions.tolerance` must be a finite number of at least 0, but got nan. Choose another value.",
        ),
        (
            lambda: LearnedOptions(n_calibration=0),
            ValueError,
            "`LearnedOptions.n_calibration` must be at least 1, but got 0. Choose a larger value.",
        ),
    ],
)
def test_an_option_that_would_judge_otherwise_than_meant_is_refused(make, error, text):
    with pytest.raises(error) as told:
        make()

    assert str(told.value) == text


def test_options_may_be_numbers_of_numpy():
    EarlyDynamicsPruner(keep_frac=np.float32(0.5), min_peers=np.int64(4), n_points=np.int64(24))


def with_an_unknown_one(trial, rung, mark, loss):
    signals = {"score": -loss} if rung == 2 else {}
    report_rung(trial, rung=rung, mark=mark, step=mark, samples=mark, signals={"loss": loss, **signals})


@pytest.mark.parametrize("mode", ["eager", "certain"])
def test_a_ranked_signal_that_nobody_reports_is_warned_of_once(mode):
    ranked = {"scroe": RankedSignal(direction="maximize"), **LOW_LOSS}
    pruner = EarlyDynamicsPruner(signals=ranked, mode=mode, n_points=8)

    with pytest.warns(UserWarning, match="scroe") as told:
        optimize(pruner, n_trials=8, objective=objective_of(with_an_unknown_one))

    assert str(told.pop().message) == (
        "`EarlyDynamicsPruner` ranks `scroe` in study `plain`, but trial 0 came to its end and no rung of it has that: "
        "what is reported is `loss`, `score`. Correct the name in `signals`, or report it by `report_rung`."
    )
    assert len(told) == 0


def test_nobody_is_warned_whose_signal_is_evaluated_at_a_later_rung():
    pruner = EarlyDynamicsPruner(signals={"score": RankedSignal(direction="maximize")})

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimize(pruner, n_trials=8, objective=objective_of(with_an_unknown_one))


def test_setting_trials_aside_is_refused():
    pruner = EarlyDynamicsPruner(learned=LearnedOptions(set_aside=True))

    with pytest.raises(ValueError, match=r"which `study\.optimize` cannot\. Leave `set_aside` out"):
        optimize(pruner, n_trials=1, objective=objective_of(with_rungs))
