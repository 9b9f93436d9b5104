"""One pruner, two hosts: a Ray Tune sweep and `study.optimize` decide the same on the same reports."""

import optuna
import pytest
from sweeps import Recorder, make_config, make_orchestrator, make_study, reopened
from trial_functions import HILL_SPACE, hill_curve, hill_end, noisy_hill

from sweeper.events import EventKind
from sweeper.executors.ray_tune import RayTuneExecutor
from sweeper.learning import LearnedOptions
from sweeper.pruners import EarlyDynamicsPruner, RankedSignal, report_rung

pytestmark = pytest.mark.ray

BUDGET = 640
MARKS = (64, 192, 320, 448)  # whole steps at every batch size
WINDOW_STEPS = 8
SIGNALS = {"loss": {"direction": "minimize"}, "grad_norm": {"direction": "minimize", "weight": 0.5}}
RANKED = {name: RankedSignal(**signal) for name, signal in SIGNALS.items()}
N_POINTS = len(HILL_SPACE["effective_batch_size"]["grid"]) * len(HILL_SPACE["learning_rate"]["grid"])

# What each host is told. Plain Optuna can neither set a trial aside nor skip one that was enqueued.
CASES = {
    "eager": (
        {"signals": SIGNALS, "keep_frac": 0.4, "min_peers": 5},
        {"signals": RANKED, "keep_frac": 0.4, "min_peers": 5},
    ),
    "certain": (
        {"signals": SIGNALS, "keep_frac": 0.4, "mode": "certain"},
        {"signals": RANKED, "keep_frac": 0.4, "mode": "certain", "n_points": N_POINTS},
    ),
    "learned": (
        {"directions": "learned", "skip_waiting": False, "audit_frac": 0.0, "fill_slots": True},
        {"learned": LearnedOptions(skip_waiting=False, audit_frac=0.0), "metric": "score"},
    ),
}


class Heard(EarlyDynamicsPruner):
    """Keeps what it was asked and said in plain Optuna."""

    def __init__(self, **options):
        super().__init__(**options)
        self.said = []

    def judge(self, numbers, rung, records):
        decisions = super().judge(numbers, rung, records)
        self.said.append(comparable(records[numbers[0]].params, decisions[0].entry()))
        return decisions


def comparable(params, decision):
    """Return what both hosts must agree on: all but the trial numbers, which each host gives in its own order."""
    place = (params["effective_batch_size"], params["learning_rate"], decision["rung"])
    details = {name: rounded(v) for name, v in decision["details"].items() if name not in ("peers", "better")}
    return place, decision["stop"], decision["rule"], details


def rounded(value):
    """Return the value to six digits: means are summed, and teachers listed, in another order."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def on_ray_tune(directory, options):
    """Sweep the grid on Ray Tune in one slot; return the points in the order they started, and every decision."""
    config = make_config(
        pruner={"name": "early_dynamics", "window_steps": WINDOW_STEPS, **options},
        trial={"budget": {"samples": BUDGET}}, rungs={"samples": list(MARKS)}, search_space=HILL_SPACE,
    )  # fmt: skip
    study, recorder = make_study(directory, config), Recorder()
    RayTuneExecutor(slots=1, function=noisy_hill, preload=False).run(make_orchestrator(study, recorder))
    records = reopened(study).records()
    started = [e.record.number for e in recorder.events if e.kind is EventKind.TRIAL_STARTED]
    said = [comparable(records[n].params, decision) for n in started for decision in records[n].decisions]
    return [records[n] for n in started], said


def in_plain_optuna(points, options):
    pruner = Heard(**options)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for params in points:
        study.enqueue_trial(params)

    def objective(trial):
        params = {
            name: trial.suggest_categorical(name, dimension["grid"]) for name, dimension in HILL_SPACE.items()
        }
        window = []
        for step, samples, values in hill_curve(params, BUDGET):
            window = [*window, values][-WINDOW_STEPS:]
            if samples not in MARKS:
                continue
            means = {name: sum(row[name] for row in window) / len(window) for name in ("loss", "grad_norm")}
            report_rung(
                trial, rung=MARKS.index(samples), mark=samples, step=step, samples=samples, signals=means,
                metric=values["score"],
            )  # fmt: skip
            if trial.should_prune():
                raise optuna.TrialPruned
        return hill_end(trial.params)[0]

    study.optimize(objective, n_trials=len(points))
    return study, pruner.said


@pytest.mark.parametrize("case", ["eager", pytest.param("certain", marks=pytest.mark.slow), "learned"])
def test_a_sweep_on_ray_and_plain_optuna_decide_the_same(case, tmp_path, ray_session):
    for_sweep, for_optuna = CASES[case]

    records, said_on_ray = on_ray_tune(tmp_path / "study", for_sweep)
    study, said_in_optuna = in_plain_optuna([record.params for record in records], for_optuna)

    assert len(records) == N_POINTS
    assert said_in_optuna == said_on_ray
    assert [t.state.name for t in study.trials] == [record.state.name for record in records]
    assert [t.value for t in study.trials if t.state.name == "COMPLETE"] == [
        record.value for record in records if record.value is not None
    ]
    assert {record.state.name for record in records} == {"COMPLETE", "PRUNED"}
