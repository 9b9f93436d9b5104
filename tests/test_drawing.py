"""Points that a sampler draws: repeats, points that cannot be trained, samplers that know no new one, who is judged."""

import math
from collections import Counter

import optuna
import pytest
from sweeps import Recorder, make_config, make_orchestrator, make_study

from sweeper.executors.in_process import InProcessExecutor
from sweeper.plan import plan_sweep
from sweeper.records import EventKind, Outcome, OutcomeKind, Report

RATES = [1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4]
LISTED = {"effective_batch_size": {"choice": [32, 128, 512]}, "learning_rate": {"choice": RATES}}  # 18 points
RANGE = {"effective_batch_size": {"choice": [32, 128, 512]}, "learning_rate": {"log_uniform": [1e-6, 3e-4]}}
PROBE = {"mode": "probe", "signals": {"score": {"direction": "maximize"}}, "keep_frac": 0.5}


def score_of(params):
    rate, batch = params["learning_rate"], params.get("effective_batch_size", 128)
    return -((math.log10(rate) + 4.5) ** 2) - (math.log2(batch) - 7) ** 2 / 10


def train(context):
    score = score_of(context.params)
    for step in range(1, 11):
        context.report(
            step=step, samples=step * context.budget_samples // 10, loss=-score / step, score=score
        )
    return {"score": score}


def config_for(n_trials, *, pruner="nop", space=LISTED, name="random", **changes):
    sampler = {"name": name, "n_trials": n_trials, **changes.pop("sampler", {})}
    trial = {"budget": {"samples": 10240}, "settings": {}, **changes.pop("trial", {})}
    return make_config(
        search_space=space, sampler=sampler, pruner=pruner, rungs={"fractions": [0.3]}, trial=trial, **changes
    )


def run(directory, config, *, slots=4, before=None):
    """Run a sweep; return study, orchestrator and how many trials ran at each report."""
    study, recorder, n_running = make_study(directory, config), Recorder(), []
    orchestrator = make_orchestrator(study, recorder)
    if before is not None:
        before(orchestrator)

    class Watcher:
        def on_event(self, event):
            if event.kind is EventKind.REPORTED:
                n_running.append(orchestrator.n_running)

    orchestrator.listen(Watcher())
    InProcessExecutor(slots=slots, function=train).run(orchestrator)
    assert orchestrator.is_done
    return study, orchestrator, n_running


def counts(records):
    """Return how many trials are in each state, by whether they were ever begun."""
    return Counter((record.state.value, bool(record.attempts)) for record in records.values())


def end_all(orchestrator):
    while (spec := orchestrator.next_trial()) is not None:
        report = Report(rows=(), metrics={"score": score_of(spec.params)})
        orchestrator.on_end(spec.number, Outcome(kind=OutcomeKind.DONE, report=report))


# -- points that cannot be trained ---------------------------------------------------------------------------


@pytest.mark.parametrize("budgets", [[10240, 300], [300, 10240]])
def test_a_budget_that_is_too_short_for_a_batch_is_refused_with_the_plan(budgets):
    space = {"samples": {"choice": budgets}, **RANGE}
    trial = {"budget": {"samples": None}, "compare": "unequal"}

    with pytest.raises(Exception, match="budget of 300 samples is less than one optimiser step"):
        plan_sweep(config_for(20, space=space, trial=trial))


# -- what the plan says of samplers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "is_told"), [("tpe", True), ("gp", True), ("random", False), ("qmc", False)]
)
def test_the_plan_says_that_a_sampler_learns_nothing_in_probe_mode(name, is_told):
    told = plan_sweep(config_for(9, space=RANGE, pruner=PROBE, name=name)).warnings

    assert any(f"`mode: probe` with the sampler `{name}`" in warning for warning in told) == is_told
    assert not any("with the sampler" in one for one in plan_sweep(config_for(9, name=name)).warnings)


def test_cmaes_says_once_in_the_plan_which_dimensions_it_draws_at_random(tmp_path, caplog, capfd):
    config = config_for(4, space={**RANGE, "x": {"uniform": [0, 1]}}, name="cmaes")
    assert any("`effective_batch_size` is drawn at random" in one for one in plan_sweep(config).warnings)
    study = make_study(tmp_path, config)
    optuna.logging.enable_propagation()
    try:
        end_all(make_orchestrator(study))
    finally:
        optuna.logging.disable_propagation()

    assert "independently" not in caplog.text + capfd.readouterr().err
