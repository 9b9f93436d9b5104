"""What a study keeps of each decision beside its reason."""

import pytest
from sweeps import make_config, make_orchestrator, make_study, reopened
from trial_functions import HILL_SPACE, noisy_hill

from sweeper.executors.in_process import InProcessExecutor

BUDGET = 640
MARKS = (64, 192, 320, 448)  # whole steps at every batch size
SIGNALS = {"loss": {"direction": "minimize"}, "grad_norm": {"direction": "minimize", "weight": 0.5}}


@pytest.mark.parametrize("mode", ["eager", "certain"])
def test_a_decision_keeps_what_was_trained_what_is_saved_and_whom_it_was_judged_against(tmp_path, mode):
    config = make_config(
        pruner={"name": "early_dynamics", "window_steps": 8, "signals": SIGNALS, "mode": mode},
        trial={"budget": {"samples": BUDGET}}, rungs={"samples": list(MARKS)}, search_space=HILL_SPACE,
    )  # fmt: skip
    study = make_study(tmp_path / "s", config)
    InProcessExecutor(slots=1, function=noisy_hill).run(make_orchestrator(study))
    records = reopened(study).records()

    made = [(record, decision) for record in records.values() for decision in record.decisions]
    stops = [(record, decision) for record, decision in made if decision["stop"]]
    assert stops
    assert all(decision["train_s"] >= 0 for _, decision in made)
    assert all("saved_samples" not in decision for _, decision in made if not decision["stop"])
    for record, decision in stops:
        assert decision["saved_samples"] == BUDGET - record.samples
        assert decision["train_s"] == pytest.approx(record.train_s, abs=1e-3)
        peers = decision["details"]["peers"]
        assert record.number in peers
        assert all(decision["rung"] in records[peer].rungs for peer in peers)
