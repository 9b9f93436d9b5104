"""Real sweeps on Ray whose driver and workers are killed: nothing is lost, doubled or changed."""

import pytest
from disturbed import Plan
from run_chaos import run_chaos, run_sweeps

pytestmark = [pytest.mark.chaos, pytest.mark.ray]


def check(plan, directory, at_least):
    tally = run_chaos(plan, directory)
    assert tally.faults == []
    assert tally.n_kills >= at_least


def check_many(plan, directory, kills):
    tallies, is_done = run_sweeps(plan, directory, kills=kills)
    assert is_done
    assert [tally.faults for tally in tallies] == [[]] * len(tallies)


def test_four_kills_change_nothing(tmp_path):
    check(Plan(kills=4, seed=1), tmp_path, 4)


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.timeout(3600)
def test_twenty_kills_of_a_real_training_sweep_change_nothing(tmp_path):
    check_many(Plan(kills=5, seed=3, trial="tiny", nodes=True), tmp_path, 20)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("pruner", ["early_dynamics", "certain", "learned"])
def test_no_decision_is_lost_when_a_pruned_sweep_is_killed(tmp_path, pruner):
    check_many(Plan(kills=4, seed=2, pruner=pruner), tmp_path, 8)


@pytest.mark.slow
@pytest.mark.database
@pytest.mark.timeout(3600)
def test_kills_of_sweeps_on_a_database_that_goes_away_change_nothing(tmp_path):
    check_many(Plan(kills=5, seed=5, trial="tiny", storage="postgresql"), tmp_path, 20)
