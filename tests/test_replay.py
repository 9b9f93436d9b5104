"""Replay: the same decisions as a real sweep, on virtual time."""

import dataclasses
import math
import time

import pytest
import trial_functions
from recorded_sweeps import make_point, make_recorded
from sweeps import RATES, Recorder, make_config, make_orchestrator, make_study, reopened

from sweeper.errors import ConfigError
from sweeper.events import EventKind
from sweeper.executors.in_process import InProcessExecutor
from sweeper.records import TrialState
from sweeper.replay import Replay, ReplayOptions, replay, replay_config
from sweeper.replay.setup import replay_rungs
from sweeper.study.recorded import record_study

LOW_LOSS = {
    "name": "early_dynamics", "signals": {"loss": {"direction": "minimize"}}, "min_peers": 2, "keep_frac": 0.4,
}  # fmt: skip
HIGH_SCORE = {**LOW_LOSS, "signals": {"score": {"direction": "maximize"}}}
RUNGS = {"rungs": {"samples": [20, 50]}}


def in_process(directory, *, slots, listeners=(), **changes):
    study = make_study(directory, make_config(**changes))
    executor = InProcessExecutor(slots=slots, function=trial_functions.steady)
    executor.run(make_orchestrator(study, *listeners))
    return reopened(study)


def arrivals_of(events):
    """Return whose message each was, in order: a rung's report, or the end of a trial that completed."""
    found = []
    for event in events:
        if event.kind is EventKind.RUNG:
            key = (event.record.number, event.rung.step)
        elif event.kind is EventKind.TRIAL_ENDED and event.record.state is TrialState.COMPLETE:
            key = (event.record.number, None)
        else:
            continue
        if not found or found[-1] != key:
            found.append(key)
    return [number for number, _ in found]


def judged(records):
    return {
        n: (r.state, [(d["rule"], d["stop"], d["reason"], d["rung"]) for d in r.decisions])
        for n, r in records.items()
    }


class Decisions:
    """A listener that keeps the records as the last event left them."""

    def __init__(self):
        self.records = {}

    def on_event(self, event):
        if event.record is not None:
            self.records[event.record.number] = event.record


SHUFFLED = [10 ** (-5 + index / 3) for index in (4, 0, 7, 2, 8, 5, 1, 6, 3)]


@pytest.fixture(scope="module")
def full_grid(tmp_path_factory):
    """Nine points, all trained to their end."""
    space = {"learning_rate": {"grid": SHUFFLED}}
    return record_study(in_process(tmp_path_factory.mktemp("full"), slots=1, search_space=space))


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize(
    "pruner",
    [LOW_LOSS, HIGH_SCORE, {"name": "median", "options": {"n_startup_trials": 1}}],
    ids=["loss", "score", "median"],
)
def test_the_recorded_events_of_a_study_give_the_recorded_decisions(pruner, slots, full_grid, tmp_path):
    recorder = Recorder()
    space = {"learning_rate": {"grid": SHUFFLED}}
    pruned = in_process(tmp_path, slots=slots, listeners=[recorder], pruner=pruner, search_space=space)
    found = Decisions()

    config = replay_config(full_grid, pruner, sections=RUNGS)
    Replay(full_grid, config).play(slots=slots, listeners=[found], arrivals=arrivals_of(recorder.events))

    assert judged(found.records) == judged(pruned.records())
    assert TrialState.PRUNED in {record.state for record in found.records.values()}


def test_without_a_pruner_every_point_is_played_to_its_recorded_end(tmp_path):
    sweep = record_study(in_process(tmp_path, slots=1))

    result = replay(sweep, "nop", ReplayOptions(orders=3, slots=2))

    assert (result.cost, result.cost_s, result.regret, result.hit) == (1.0, pytest.approx(1.0), 0.0, 1.0)
    assert {order.survivors for order in result.orders} == {(0, 1, 2, 3)}
    assert {sweep.points[order.chosen].params["learning_rate"] for order in result.orders} == {RATES[2]}


def test_virtual_time_is_that_of_the_slots():
    sweep = make_recorded([0.1, 0.2, 0.3, 0.4], seconds=10.0)

    outcomes = {slots: Replay(sweep, replay_config(sweep, "nop")).play(slots=slots) for slots in (1, 2, 4)}

    assert {slots: outcome.makespan_s for slots, outcome in outcomes.items()} == {1: 40.0, 2: 20.0, 4: 10.0}
    assert {outcome.spent_s for outcome in outcomes.values()} == {40.0}


def test_a_stopped_trial_frees_its_slot_at_the_rung():
    sweep = make_recorded([0.9, 0.1, 0.8, 0.2])

    outcome = Replay(sweep, replay_config(sweep, LOW_LOSS, sections=RUNGS)).play(slots=2)

    # Points 0 and 1 come to the first rung together; 1 is stopped there, after a fifth of its budget.
    assert 0 in outcome.survivors
    assert 1 not in outcome.survivors
    assert outcome.spent_samples < 400
    assert outcome.makespan_s < 20.0


def test_what_a_trial_trained_since_its_last_report_counts_as_spent():
    sweep = make_recorded([0.1, 0.9], seconds=10.0)
    ready = Replay(sweep, replay_config(sweep, LOW_LOSS, sections={"rungs": {"samples": [20]}}))

    # Trial 0 is at the rung first and alone; at half its budget trial 1 comes, ranks above it, and stops it.
    outcome = ready.play(slots=2, speeds={1: 2.5})

    assert outcome.survivors == (1,)
    assert outcome.spent_samples == 50 + 100


def test_a_point_that_diverged_is_stopped_where_it_did_and_never_chosen():
    good, broken = make_point(0, 0.5), make_point(1, 0.9, nan_at=60)
    sweep = dataclasses.replace(make_recorded([0.5]), points=(good, broken))

    result = replay(sweep, "nop", ReplayOptions(orders=2, slots=1))

    assert {order.chosen for order in result.orders} == {0}
    assert result.orders[0].spent_samples == 160


def test_regret_and_hits_follow_the_direction():
    values = [0.1, 0.2, 0.5, 0.9]
    higher, lower = make_recorded(values), make_recorded(values, direction="minimize")
    pruner = {**LOW_LOSS, "keep_frac": 0.1}

    assert (
        replay(higher, replay_config(higher, pruner, sections=RUNGS), ReplayOptions(orders=5)).regret == 0.0
    )
    result = replay(
        lower, replay_config(lower, pruner, sections=RUNGS), ReplayOptions(orders=5, tolerance=0.05)
    )
    assert (result.regret, result.hit) == (pytest.approx(0.8), 0.0)


def test_the_same_seed_plays_the_same_orders_under_every_pruner():
    sweep = make_recorded([0.1, 0.5, 0.9, 0.3, 0.2, 0.7])

    first, second = (replay(sweep, LOW_LOSS, ReplayOptions(orders=4, seed=3)) for _ in range(2))
    none = replay(sweep, "nop", ReplayOptions(orders=4, seed=3))

    assert first.orders == second.orders
    assert all(set(a.survivors) <= set(b.survivors) for a, b in zip(first.orders, none.orders, strict=True))


def test_the_noise_between_seeds_is_the_tolerance_unless_another_is_given():
    noisy = make_recorded([0.0, 1.0], seed_sd=0.25)
    assert replay(noisy, "nop", ReplayOptions(orders=1)).tolerance == 0.25
    assert replay(make_recorded([0.0, 1.0]), "nop", ReplayOptions(orders=1)).tolerance == 0.01
    assert replay(make_recorded([0.0, 1.0]), "nop", ReplayOptions(orders=1, tolerance=0.5)).tolerance == 0.5


def with_params(sweep, params_of):
    points = tuple(
        dataclasses.replace(point, params=params_of(index), settings=params_of(index))
        for index, point in enumerate(sweep.points)
    )
    return dataclasses.replace(sweep, points=points)


@pytest.mark.parametrize(
    "params_of",
    [
        lambda index: {"x": 0.1 * index, "y": 0.3 * index, "z": 0.7 * index},  # drawn: no two values the same
        lambda index: {"modules": ["q", "v"][: index % 2 + 1], "options": {"depth": index}},
        lambda index: {"samples": 100 + index},
    ],
    ids=["drawn", "lists and mappings", "a swept budget"],
)
def test_any_params_are_played(params_of):
    sweep = with_params(make_recorded([0.01 * index for index in range(60)]), params_of)

    result = replay(sweep, "nop", ReplayOptions(orders=1))

    assert result.survivors == (60, 60)


def test_the_number_of_points_says_where_the_default_rungs_lie():
    few = with_params(make_recorded([0.1, 0.2, 0.3, 0.4, 0.5]), lambda index: {"x": index, "y": index})
    many = with_params(make_recorded([0.01 * index for index in range(20)]), lambda index: {"x": index})

    marks = [replay_rungs(sweep, replay_config(sweep)).marks for sweep in (few, many)]

    assert marks == [(20,), (20, 50)]
    assert [len(plan_marks(sweep)) for sweep in (few, many)] == [2, 5]


def plan_marks(sweep):
    """Return the default rungs of a sweep that was measured nowhere."""
    bare = dataclasses.replace(
        sweep, points=tuple(dataclasses.replace(point, measured=()) for point in sweep.points)
    )
    return replay_rungs(bare, replay_config(bare)).marks


def test_default_rungs_move_to_where_the_sweep_was_measured():
    sweep = make_recorded([0.1, 0.9])  # measured at 20 and 50 of 100; the default rungs are at 10 and 30

    assert replay(sweep, "nop", ReplayOptions(orders=1)).rung_marks == (20,)
    assert replay(sweep, replay_config(sweep, "nop", sections=RUNGS), ReplayOptions(orders=1)).rung_marks == (
        20,
        50,
    )


def test_the_order_of_reports_is_shown_in_choices_and_survivors():
    sweep = make_recorded([index / 12 for index in range(12)])

    result = replay(sweep, replay_config(sweep, LOW_LOSS, sections=RUNGS), ReplayOptions(orders=20, slots=3))

    fewest, most = result.survivors
    assert 1 <= fewest < most < 12
    assert 0 < result.contested < 1
    assert replay(sweep, replay_config(sweep, "nop", sections=RUNGS), ReplayOptions(orders=3)).contested == 0


@pytest.mark.parametrize(
    ("pruner", "match"),
    [
        ("early_dynamicz", "unknown pruner `early_dynamicz`. Did you mean `early_dynamics`?"),
        ({"name": "median", "keep_frac": 0.2}, "keep_frac"),
        (
            {"name": "median", "signal": "speed", "direction": "minimize"},
            "judges `speed`, which `made-up` did not",
        ),
        ({**LOW_LOSS, "signals": {"speed": {"direction": "minimize"}}}, "judges `speed`"),
    ],
)
def test_a_pruner_that_cannot_be_played_is_refused(pruner, match):
    with pytest.raises(ConfigError, match=match):
        replay(make_recorded([0.1, 0.9]), pruner, ReplayOptions(orders=1))


@pytest.mark.slow
def test_as_many_orders_are_played_as_were_asked_for(capsys):
    values = [0.5 + 0.4 * math.sin(index) for index in range(56)]
    sweep = make_recorded(values, batch=16, budget=2048)
    started = time.perf_counter()

    result = replay(sweep, LOW_LOSS, ReplayOptions(orders=200, slots=4))

    took_s = time.perf_counter() - started
    assert len(result.orders) == 200
    assert len({order.makespan_s for order in result.orders}) == 200  # each at speeds of its own
    with capsys.disabled():  # machines differ: the seconds are printed, not asserted
        print(f"\n200 orders of 56 trials: {took_s:.1f} s")
