"""Learned pruning: calibration, predictions, the risk that is spent, and what happens when predictions fail."""

import dataclasses
import math
import pickle
import sys

import numpy as np
import optuna
import pytest
from learning_sweeps import PARAMS, best_found, complete, cost, honest, nothing, play, show, waiting_records
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from sweeper.encoding import encode
from sweeper.learning import LearnedOptions, calibration_size
from sweeper.pruners import EarlyDynamicsPruner, predict, report_rung
from sweeper.pruners.design import design_matrix, smooth_matrix, spread_out
from sweeper.pruners.inputs import NO_RUNG, InputReader
from sweeper.pruners.learned import LearnedRule
from sweeper.pruners.ledger import RULE
from sweeper.pruners.outlook import LEVELS, OutlookTable
from sweeper.pruners.predict import Inputs, Predictor
from sweeper.records import Origin, TrialState

NO_AUDIT = LearnedOptions(audit_frac=0.0)
# With so small a risk all goes on.
SET_ASIDE = LearnedOptions(audit_frac=0.0, set_aside=True, risk=1e-6)


def make_rule(options=NO_AUDIT, direction="maximize"):
    return LearnedRule(metric="score", direction=direction, options=options)


def calibrated(seed=0, *, n=9, rule=None):
    """Return records in which the calibration has ended and one good and one bad trial stand at a rung."""
    final, signals = honest(seed)
    records, rule = waiting_records(), rule or make_rule()
    for _ in range(n):
        number = rule.next_of([k for k in records if records[k].state is TrialState.WAITING], records)
        for rung in range(5):
            show(records[number], rung, signals(number, rung))
        complete(records[number], final[number])
    left = sorted((k for k in records if records[k].state is TrialState.WAITING), key=lambda k: final[k])
    for number in (left[0], left[-1]):
        records[number].state = TrialState.RUNNING
        for rung in range(3):
            show(records[number], rung, signals(number, rung))
    return records, left[0], left[-1]


def test_fewer_than_20_points_are_too_few_to_learn_from():
    records = waiting_records(PARAMS[:12])
    show(records[0], 0, {"score": 0.1})

    (decision,) = make_rule().judge([0], 0, records)

    assert not decision.stop
    assert decision.reason == "12 points are too few to learn from: only what diverges is stopped"


def test_one_point_is_too_few_to_learn_from():
    records = waiting_records(PARAMS[:1])
    show(records[0], 0, {"score": 0.1})

    (decision,) = make_rule().judge([0], 0, records)

    assert decision.reason == "1 point is too few to learn from: only what diverges is stopped"


def test_nobody_is_stopped_before_the_calibration_has_ended():
    records, bad, good = calibrated(n=calibration_size(36) - 1)

    decisions = make_rule().judge([bad, good], 2, records)

    assert not any(decision.stop for decision in decisions)
    assert decisions[0].reason == "calibration: 6 of 7 trials have run to their end"
    assert make_rule().judge_again(records) == []


def test_calibration_points_start_first_and_are_spread_over_the_grid():
    records, rule, started = waiting_records(), make_rule(), []
    for _ in range(calibration_size(36)):
        number = rule.next_of([k for k in records if records[k].state is TrialState.WAITING], records)
        records[number].state = TrialState.RUNNING
        started.append(number)

    design = smooth_matrix(PARAMS)
    assert sorted(started) == sorted(spread_out(design, 7))
    assert len({PARAMS[n]["effective_batch_size"] for n in started}) >= 3
    assert max(min(np.linalg.norm(point - design[n]) for n in started) for point in design) < 0.5


def test_a_hopeless_trial_is_stopped_and_a_good_one_goes_on():
    records, bad, good = calibrated()

    (stop,) = make_rule().judge([bad], 2, records)
    (go_on,) = make_rule().judge([good], 2, records)
    both = make_rule().judge([good, bad], 2, records)

    assert stop.stop
    assert not go_on.stop
    assert [(decision.trial, decision.stop) for decision in both] == [(good, False), (bad, True)]


def test_a_warm_started_result_teaches_nothing_of_its_point():
    records, bad, good = calibrated()
    (before,) = make_rule().judge([good], 2, records)
    warm = dataclasses.replace(records[bad], number=len(records), params=records[good].params)
    warm.origin = Origin(by="me", cloned_from=0, warm_start=True, from_step=1, from_samples=10)
    complete(warm, -1e3)
    records[warm.number] = warm

    (after,) = make_rule().judge([good], 2, records)

    assert after.details["prediction"] == pytest.approx(before.details["prediction"])


def test_a_warm_started_result_is_no_part_of_the_calibration():
    records, bad, good = calibrated(n=calibration_size(36))
    ended = next(record for record in records.values() if record.state is TrialState.COMPLETE)
    ended.origin = Origin(by="me", cloned_from=good, warm_start=True, from_step=1, from_samples=10)

    (decision,) = make_rule().judge([bad], 2, records)

    assert decision.reason == "calibration: 6 of 7 trials have run to their end"


def test_a_decision_keeps_prediction_interval_chance_and_values():
    records, bad, _ = calibrated()

    (decision,) = make_rule().judge([bad], 2, records)

    assert (decision.rule, decision.rung, decision.samples) == (RULE, 2, 300)
    details = decision.details
    assert details["low"] < details["prediction"] < details["high"]
    assert details["chance"] <= details["allowed"]
    assert details["signals"] == records[bad].rungs[2].signals
    assert decision.reason.startswith("at rung 2, score is predicted to end at ")


def test_after_calibration_the_likeliest_to_be_best_starts_next():
    final, _ = honest(0)
    records, _, _ = calibrated()
    waiting = [k for k in records if records[k].state is TrialState.WAITING]

    chosen = make_rule().next_of(waiting, records)

    assert final[chosen] > np.quantile([final[k] for k in waiting], 0.7)


def test_a_trial_waits_for_a_far_likelier_one_even_where_its_slot_stays_free():
    rule = make_rule(options=SET_ASIDE)
    records, bad, good = calibrated(rule=rule)
    for number in (k for k in records if records[k].state is TrialState.WAITING):
        records[number].state = TrialState.PRUNED  # so that no rival can take a slot

    slow, leader = (rule.judge([number], 2, records)[0] for number in (bad, good))

    assert slow.aside
    assert f"waits for trial {good}, which is far likelier to be the best" in slow.reason
    assert (leader.aside, leader.stop) == (False, False)
    records[bad].is_set_aside = True
    assert rule.next_of([bad], records) is None
    filling = make_rule(dataclasses.replace(SET_ASIDE, fill_slots=True))
    assert filling.next_of([bad], records) == bad
    records[good].state = TrialState.FAIL
    assert rule.next_of([bad], records) == bad


def test_a_trial_that_cannot_be_started_yet_takes_no_slot_and_counts_as_no_trial_in_training():
    rule = make_rule(options=SET_ASIDE)
    records, bad, good = calibrated(rule=rule)
    for number in (k for k in records if records[k].state is TrialState.WAITING):
        records[number].state = TrialState.PRUNED
    records[good].state, records[good].rungs = TrialState.WAITING, {}

    (rival,) = rule.judge([bad], 2, records)
    records[good].is_held = True
    (alone,) = rule.judge([bad], 2, records)

    assert rival.reason.startswith(f"trial {good} is likelier to be the best")
    assert (rival.aside, alone.aside, alone.stop) == (True, False, False)


def test_slots_that_are_always_to_be_filled_leave_nobody_waiting():
    rule = make_rule(dataclasses.replace(SET_ASIDE, fill_slots=True))
    records, bad, _ = calibrated(rule=rule)
    for number in (k for k in records if records[k].state is TrialState.WAITING):
        records[number].state = TrialState.PRUNED

    (decision,) = rule.judge([bad], 2, records)

    assert (decision.aside, decision.stop) == (False, False)


@pytest.mark.parametrize("seed", range(4))
def test_an_honest_sweep_finds_a_point_as_good_as_the_best_for_a_part_of_the_training(seed):
    final, signals = honest(seed)

    records = play(make_rule(), final, signals, seed=seed)

    assert best_found(records) >= max(final) - 0.02
    assert cost(records) <= 0.6


def test_where_nothing_predicts_nobody_is_stopped():
    final, signals = nothing(3)

    assert cost(play(make_rule(), final, signals)) > 0.9


def test_all_stops_together_stay_within_the_risk():
    final, signals = honest(1)

    records = play(make_rule(LearnedOptions(risk=0.03, audit_frac=0.0)), final, signals)

    stops = [d for record in records.values() for d in record.decisions if d["stop"]]
    assert stops
    assert sum(stop["details"]["chance"] for stop in stops) <= 0.03


def test_a_smaller_risk_trains_more():
    final, signals = honest(2)

    careful = play(make_rule(LearnedOptions(risk=0.001, audit_frac=0.0)), final, signals)

    assert cost(careful) > cost(play(make_rule(LearnedOptions(risk=0.2, audit_frac=0.0)), final, signals))


def test_points_are_not_skipped_where_that_is_switched_off():
    final, signals = honest(0)

    records = play(make_rule(LearnedOptions(skip_waiting=False, audit_frac=0.0)), final, signals)

    assert all(record.rungs for record in records.values())


def test_the_same_records_give_the_same_decisions_after_a_resume():
    records, bad, good = calibrated()
    used = make_rule()
    used.judge([bad], 2, records)
    used.judge_again(records)

    assert used.judge([bad, good], 2, records) == make_rule().judge([bad, good], 2, records)


def test_the_direction_swapped_and_the_values_negated_decide_the_same():
    records, bad, good = calibrated()
    negated = {
        n: dataclasses.replace(
            record,
            value=None if record.value is None else -record.value,
            rungs={
                k: dataclasses.replace(rung, signals={**rung.signals, "score": -rung.signals["score"]})
                for k, rung in record.rungs.items()
            },
        )
        for n, record in records.items()
    }

    up = [make_rule().judge([number], 2, records)[0] for number in (bad, good)]
    down = [make_rule(direction="minimize").judge([number], 2, negated)[0] for number in (bad, good)]

    assert [d.stop for d in up] == [d.stop for d in down]
    assert [d.details["chance"] for d in up] == pytest.approx([d.details["chance"] for d in down])


def test_nobody_is_stopped_any_more_when_the_predictions_do_not_hold():
    records, bad, _ = calibrated()
    for record in records.values():
        if record.state is TrialState.COMPLETE:
            record.decisions.append(
                {"rule": RULE, "stop": False, "details": {"prediction": 9.0, "low": 8.0, "high": 9.9}}
            )

    (decision,) = make_rule().judge([bad], 2, records)

    assert not decision.stop
    assert decision.reason.startswith(
        "the predictions do not hold, so nobody is stopped: 3 of 3 trials ended outside"
    )
    assert "prediction" in decision.details


def test_a_prediction_without_bounds_is_read_from_a_study_as_it_was_made():
    records, bad, _ = calibrated()
    for record in records.values():
        if record.state is TrialState.COMPLETE:
            details = encode({"prediction": math.nan, "low": -math.inf, "high": math.inf})
            record.decisions.append({"rule": RULE, "stop": False, "details": details})

    (decision,) = make_rule().judge([bad], 2, records)

    assert decision.stop


def test_later_hits_do_not_undo_that_predictions_did_not_hold():
    records, bad, _ = calibrated()
    ended = [record for record in records.values() if record.state is TrialState.COMPLETE]
    for index, record in enumerate(ended):
        record.ended = f"2026-01-01T00:00:{index:02d}"
        low, high = (8.0, 9.9) if index in (0, 1) else (-9.0, 9.0)
        details = {"prediction": 9.0, "low": low, "high": high}
        record.decisions.append({"rule": RULE, "stop": False, "details": details})
    rule = make_rule()
    assert rule.judge([bad], 2, records)[0].stop, "two misses of nine may be chance"
    ended[2].decisions[-1]["details"]["low"] = 8.0

    (decision,) = make_rule().judge([bad], 2, records)

    assert not decision.stop
    assert "3 of 3 trials ended outside" in decision.reason
    for record in list(records.values())[::-1]:  # whatever the order in which they are read
        records[record.number] = records.pop(record.number)
    assert make_rule().judge([bad], 2, records)[0] == decision


def test_a_nan_signal_is_no_information():
    records, bad, _ = calibrated()
    rung = records[bad].rungs[2]
    records[bad].rungs[2] = dataclasses.replace(rung, signals={**rung.signals, "grad_norm": math.nan})

    (decision,) = make_rule().judge([bad], 2, records)

    assert math.isfinite(decision.details["prediction"])


def test_one_set_predicts_as_scikit_learns_regressor_does(monkeypatch):
    draw = np.random.default_rng(0)
    x, y, new = draw.uniform(size=(12, 2)), draw.normal(size=12), draw.uniform(size=(5, 2))
    monkeypatch.setattr(predict, "_LENGTHS", (0.5,))
    monkeypatch.setattr(predict, "_SHARES", ((1.0, 0.0, 0.0),))
    monkeypatch.setattr(predict, "_NOISES", (0.2,))
    monkeypatch.setattr(predict, "_NOTHING_PRIOR", 1e-300)
    predict._sets.cache_clear()
    kernel = ConstantKernel(predict._BIAS) + Matern(length_scale=0.5, nu=2.5) + WhiteKernel(0.2)
    scaled = (y - y.mean()) / y.std()

    empty = np.zeros((12, 0))
    predicted = Predictor(Inputs(design=x, metric=empty, others=empty), y).predict(
        Inputs(design=new, metric=np.zeros((5, 0)), others=np.zeros((5, 0)))
    )
    expected = GaussianProcessRegressor(kernel, optimizer=None).fit(x, scaled).predict(new)

    assert predicted.mean() == pytest.approx(y.mean() + y.std() * expected)
    predict._sets.cache_clear()


def test_chances_to_be_top_fall_as_better_trials_are_open():
    above = np.zeros((2, len(LEVELS)))
    above[:, :2] = 0.2, 0.1  # to end above the threshold, and above the next level
    table = OutlookTable([0, 1], n_complete=3)
    table.put([0, 1], 0, doubt=0.0, means=np.zeros(2), reaches=np.zeros(2), above=above)

    both = [table.outlook(number).chance for number in (0, 1)]
    table.drop(1, n_complete=4)

    assert both == pytest.approx([0.19, 0.19])
    assert table.outlook(0).chance == pytest.approx(0.2)


def test_the_best_rate_is_expected_to_grow_with_the_root_of_the_batch():
    points = [{"effective_batch_size": b, "learning_rate": 1e-4 * math.sqrt(b / 8)} for b in (8, 32, 128)]

    columns = smooth_matrix(points)

    assert np.ptp(columns[:, 0]) == pytest.approx(0.0, abs=1e-12)


def test_batches_that_cannot_shift_the_rate_are_still_told_apart():
    points = [
        {"effective_batch_size": size, "learning_rate": 1e-4 * 2**n} for n, size in enumerate(("auto", 8, 32))
    ]

    assert smooth_matrix(points).shape == (3, 4)


def test_a_choice_is_a_dimension_of_its_own():
    matrix = design_matrix([{"optimizer": name, "fixed": 1} for name in ("adamw", "lion", "sgd")])

    assert matrix.shape == (3, 3)
    assert np.linalg.norm(matrix[0] - matrix[1]) == pytest.approx(1.0)


@pytest.mark.parametrize("partly", [{}, {"effective_batch_size": 16}])
def test_a_trial_without_params_changes_the_design_of_no_other_one(partly):
    for params in (
        PARAMS,
        [{**p, "optimizer": "adamw" if i % 2 else "lion", "dropout": i % 3} for i, p in enumerate(PARAMS)],
    ):
        for matrix in (design_matrix, smooth_matrix):
            assert matrix([*params, partly])[:-1] == pytest.approx(matrix(params))
            assert np.isfinite(matrix([*params, partly])).all()


def test_none_is_a_value_like_others():
    matrix = design_matrix([{"clip": None}, {"clip": 1.0}, {"clip": None}])

    assert np.linalg.norm(matrix[0] - matrix[1]) == pytest.approx(1.0)
    assert np.linalg.norm(matrix[0] - matrix[2]) == 0.0


def test_a_param_that_only_others_vary_is_read_from_the_settings():
    records = waiting_records([{"learning_rate": rate} for rate in (1e-5, 1e-4, 1e-3)])
    for record in records.values():
        record.settings = {"learning_rate": 1.0, "weight_decay": 0.1}
    earlier = waiting_records([{"learning_rate": 1e-4, "weight_decay": decay} for decay in (0.0, 0.1)])
    reader = InputReader("score", {-1 - number: record for number, record in earlier.items()})
    reader.read(records)

    design = reader.inputs([0, 1, 2, -1, -2], NO_RUNG, records, names=[]).design

    assert design[1] == pytest.approx(design[4])  # the same rate and decay
    assert design[1] != pytest.approx(design[3])


def test_options_of_rank_and_prediction_do_not_mix():
    with pytest.raises(ValueError, match="belong to the rank"):
        EarlyDynamicsPruner(directions="learned", keep_frac=0.3)
    with pytest.raises(ValueError, match="belongs to `directions"):
        EarlyDynamicsPruner(directions="paper", learned=LearnedOptions())


def test_plain_optuna_decides_as_the_records_do():
    """One trial after the other, in the order of the grid, as `study.optimize` runs them."""
    final, signals = honest(5)
    order = list(np.random.default_rng(0).permutation(len(PARAMS)))
    study = optuna.create_study(
        direction="maximize",
        pruner=EarlyDynamicsPruner(learned=NO_AUDIT, metric="score"),
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    for index in order:
        study.enqueue_trial(PARAMS[index])

    def objective(trial):
        trial.suggest_categorical("effective_batch_size", sorted({p["effective_batch_size"] for p in PARAMS}))
        trial.suggest_float("learning_rate", 1e-6, 1.0, log=True)
        index = order[trial.number]
        for rung in range(5):
            samples = round(1000 * (0.1, 0.2, 0.3, 0.5, 0.7)[rung])
            report_rung(
                trial, rung=rung, mark=samples, step=rung + 1, samples=samples, signals=signals(index, rung)
            )
            if trial.should_prune():
                raise optuna.TrialPruned
        return final[index]

    study.optimize(objective, n_trials=len(PARAMS))

    rule, records = make_rule(), waiting_records([PARAMS[index] for index in order])
    for number, index in enumerate(order):
        records[number].state = TrialState.RUNNING
        for rung in range(5):
            show(records[number], rung, signals(index, rung))
            (decision,) = rule.judge([number], rung, records)
            records[number].decisions.append(
                {"rule": decision.rule, "stop": decision.stop, "details": dict(decision.details)}
            )
            if decision.stop:
                records[number].state = TrialState.PRUNED
                break
        else:
            complete(records[number], final[index])
    expected = [(records[n].state.name, len(records[n].rungs)) for n in records]
    found = [(t.state.name, sum(key.startswith("rung:") for key in t.user_attrs)) for t in study.trials]
    assert found == expected
    assert ("PRUNED", 1) in found


def test_threads_of_plain_optuna_share_a_pruner():
    """`n_jobs` threads ask one pruner, while trials of others start and end."""
    final, signals = honest(5)
    study = optuna.create_study(
        direction="maximize", pruner=EarlyDynamicsPruner(learned=NO_AUDIT, metric="score")
    )
    for params in PARAMS:
        study.enqueue_trial(params)

    def objective(trial):
        trial.suggest_categorical("effective_batch_size", sorted({p["effective_batch_size"] for p in PARAMS}))
        trial.suggest_float("learning_rate", 1e-6, 1.0, log=True)
        for rung in range(5):
            report_rung(
                trial,
                rung=rung,
                mark=rung + 1,
                step=rung + 1,
                samples=rung + 1,
                signals=signals(trial.number, rung),
            )
            if trial.should_prune():
                raise optuna.TrialPruned
        return final[trial.number]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        study.optimize(objective, n_trials=len(PARAMS), n_jobs=4, catch=(Exception,))
    finally:
        sys.setswitchinterval(interval)

    assert [
        trial.state.name for trial in study.trials if trial.state.name not in ("COMPLETE", "PRUNED")
    ] == []


def test_a_pruner_that_is_used_for_another_study_forgets_the_first():
    pruner = EarlyDynamicsPruner(learned=NO_AUDIT, metric="score")
    kept = pickle.loads(pickle.dumps(pruner))  # as joblib keeps a study
    ends = []
    for seed, used in ((1, pruner), (2, pruner), (2, kept)):
        final, signals = honest(seed)
        study = optuna.create_study(direction="maximize", pruner=used, study_name=f"study-{seed}")
        for params in PARAMS:
            study.enqueue_trial(params)
        for _ in PARAMS:
            trial = study.ask({
                "effective_batch_size": optuna.distributions.CategoricalDistribution((8, 16, 32, 64)),
                "learning_rate": optuna.distributions.FloatDistribution(1e-6, 1.0, log=True),
            })  # fmt: skip
            for rung in range(5):
                report_rung(
                    trial, rung=rung, mark=rung + 1, step=rung + 1, samples=rung + 1,
                    signals=signals(trial.number, rung),
                )  # fmt: skip
                if trial.should_prune():
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                study.tell(trial, final[trial.number])
        ends.append([trial.state.name for trial in study.trials])

    assert ends[1] == ends[2]
