"""The rank pruner: directions, ties, NaN, peers; and the same in plain Optuna."""

import math
import random

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.pruners import EarlyDynamicsPruner, RankedSignal, report_rung
from sweeper.records import RungRecord, TrialRecord, TrialState

LOW_LOSS = {"loss": RankedSignal(direction="minimize")}


def record(number, state=TrialState.RUNNING, **signals):
    trial = TrialRecord(number=number, state=state, params={}, point_id=str(number))
    if signals:
        trial.rungs[0] = RungRecord(rung=0, mark=100, step=10, samples=104, signals=signals)
    return trial


def records(*losses):
    return {number: record(number, loss=loss) for number, loss in enumerate(losses)}


def stopped(pruner, peers):
    return {d.trial for d in pruner.judge([n for n in peers if peers[n].rungs], 0, peers) if d.stop}


def test_the_default_directions_are_the_papers():
    peers = {0: record(0, loss=3.0, grad_norm=0.1), 1: record(1, loss=1.0, grad_norm=9.0)}

    assert stopped(EarlyDynamicsPruner(min_peers=2), peers) == {1}


def test_signals_without_weight_are_refused():
    with pytest.raises(ValueError, match="must add up to more than 0, but got 0"):
        EarlyDynamicsPruner(signals={"loss": RankedSignal(direction="minimize", weight=0.0)})


def test_only_the_best_fraction_goes_on():
    assert stopped(
        EarlyDynamicsPruner(signals=LOW_LOSS, keep_frac=0.34), records(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    ) == {3, 4, 5}


def test_nobody_is_stopped_before_enough_peers_are_there():
    pruner = EarlyDynamicsPruner(signals=LOW_LOSS, min_peers=4)

    assert stopped(pruner, records(1.0, 2.0, 3.0)) == set()
    assert stopped(pruner, records(1.0, 2.0, 3.0, 4.0)) == {2, 3}


def test_ties_are_kept():
    assert (
        stopped(EarlyDynamicsPruner(signals=LOW_LOSS, keep_frac=0.25), records(1.0, 1.0, 1.0, 1.0)) == set()
    )


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_nan_ranks_last_in_either_direction(direction):
    pruner = EarlyDynamicsPruner(signals={"loss": RankedSignal(direction=direction)}, min_peers=2)

    assert stopped(pruner, records(1.0, math.nan)) == {1}


def test_a_trial_that_diverged_before_the_rung_counts_as_a_peer_that_ranks_last():
    peers = records(1.0, 2.0, 3.0)
    peers[3] = record(3, TrialState.PRUNED)
    peers[3].decisions.append({"rule": "nan", "stop": True})

    assert stopped(EarlyDynamicsPruner(signals=LOW_LOSS, min_peers=4), peers) == {2}


def test_a_weight_decides_between_signals_that_disagree():
    peers = {0: record(0, loss=1.0, grad_norm=9.0), 1: record(1, loss=3.0, grad_norm=0.1)}
    signals = {
        "loss": RankedSignal(direction="minimize", weight=1.0),
        "grad_norm": RankedSignal(direction="minimize", weight=2.0),
    }

    assert stopped(EarlyDynamicsPruner(signals=signals, min_peers=2), peers) == {0}


def test_the_reason_of_a_rung_that_one_survives_says_so():
    decision = EarlyDynamicsPruner(signals=LOW_LOSS, keep_frac=0.2).judge(
        [3], 0, records(1.0, 2.0, 3.0, 4.0)
    )[0]

    assert decision.reason == "loss 4 (low is good): rank 4 of 4 at rung 0, the best one goes on"


def test_the_reason_names_values_rank_and_peers():
    decision = EarlyDynamicsPruner(signals=LOW_LOSS).judge([3], 0, records(1.0, 2.0, 3.0, 4.0))[0]

    assert decision.reason == "loss 4 (low is good): rank 4 of 4 at rung 0, the best 2 go on"
    assert decision.details["peers"] == [0, 1, 2, 3]


def test_the_reason_says_that_nobody_is_stopped_while_peers_are_too_few():
    pruner = EarlyDynamicsPruner(signals=LOW_LOSS, min_peers=4)

    first = pruner.judge([2], 0, records(1.0, 2.0, 3.0))[0]
    again = pruner.judge([3, 2], 0, records(1.0, 2.0, 3.0, 0.5))[1]

    assert (first.stop, first.reason) == (
        False,
        "loss 3 (low is good): rank 3 of 3 at rung 0, among fewer than 4 nobody is stopped",
    )
    assert (again.stop, again.reason) == (
        True,
        "loss 3 (low is good): rank 4 of 4 at rung 0, the best 2 go on",
    )


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=12), st.floats(0.1, 0.9))
def test_a_swapped_direction_with_negated_values_decides_the_same(losses, keep_frac):
    low = EarlyDynamicsPruner(signals=LOW_LOSS, keep_frac=keep_frac)
    high = EarlyDynamicsPruner(signals={"loss": RankedSignal(direction="maximize")}, keep_frac=keep_frac)

    assert stopped(low, records(*losses)) == stopped(high, records(*(-loss for loss in losses)))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(0.05, 0.95))
def test_at_least_the_best_fraction_survives_any_values(losses, keep_frac):
    peers = records(*losses)

    survivors = len(peers) - len(stopped(EarlyDynamicsPruner(signals=LOW_LOSS, keep_frac=keep_frac), peers))

    assert survivors >= math.ceil(keep_frac * len(peers))


def test_plain_optuna_prunes_the_same_trials_as_the_records_do():
    draw = random.Random(3)
    losses = [draw.random() for _ in range(12)]
    pruner = EarlyDynamicsPruner(signals=LOW_LOSS)
    study = optuna.create_study(pruner=pruner)

    def objective(trial):
        report_rung(trial, rung=0, mark=100, step=10, samples=104, signals={"loss": losses[trial.number]})
        if trial.should_prune():
            raise optuna.TrialPruned
        return losses[trial.number]

    study.optimize(objective, n_trials=12)

    expected = set()
    for number in range(12):  # each is judged when it arrives, among those before it
        seen = records(*losses[: number + 1])
        expected |= {d.trial for d in pruner.judge([number], 0, seen) if d.stop}
    assert {t.number for t in study.trials if t.state.name == "PRUNED"} == expected
    assert expected
