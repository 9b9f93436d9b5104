"""Real sweeps on Ray whose driver and workers are killed: nothing is lost, doubled or changed."""

import pytest
from run_chaos import Plan, run_chaos

pytestmark = [pytest.mark.chaos, pytest.mark.ray]


def check(plan, directory, at_least):
    tally = run_chaos(plan, directory)
    assert tally.faults == []
    assert sum(tally.kills.values()) >= at_least


def test_four_kills_change_nothing(tmp_path):
    check(Plan(kills=4, seed=1), tmp_path, 4)


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.timeout(3600)
def test_twenty_kills_of_a_real_training_sweep_change_nothing(tmp_path):
    check(Plan(kills=20, seed=3, trial="tiny"), tmp_path, 20)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_decision_is_lost_when_a_pruned_sweep_is_killed(tmp_path):
    check(Plan(kills=8, seed=2, pruner="early_dynamics"), tmp_path, 4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_node_that_is_lost_changes_nothing(tmp_path):
    check(Plan(kills=6, seed=4, nodes=True), tmp_path, 6)


@pytest.mark.slow
@pytest.mark.database
@pytest.mark.timeout(3600)
def test_kills_of_a_sweep_on_postgresql_change_nothing(tmp_path):
    check(Plan(kills=6, seed=5, storage="postgresql"), tmp_path, 6)
