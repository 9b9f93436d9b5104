"""How far a sweep may go for a number of GPU-hours."""

import math

import pytest
import trial_functions
from hypothesis import given
from hypothesis import strategies as st
from recorded_sweeps import make_recorded
from sweeps import make_config, make_study

from sweeper import api
from sweeper.errors import ConfigError, NothingToDoError
from sweeper.plan import plan_sweep
from sweeper.preflight import measure
from sweeper.preflight.afford import afford, keep_frac_within, probe_share
from sweeper.preflight.measure import Cost
from sweeper.records import TrialState
from sweeper.replay.setup import replay_config

PROBE = {
    "name": "early_dynamics",
    "signals": {"score": {"direction": "maximize"}},
    "mode": "probe",
    "window_steps": 1,
}
RATES = [10 ** (-5.05 + index / 4) for index in range(12)]


def config_for(directory=None, **pruner):
    place = {} if directory is None else {"dir": str(directory)}
    return make_config(
        pruner=PROBE | pruner, search_space={"learning_rate": {"grid": RATES}}, resources={"slots": 1},
        **place,
    )  # fmt: skip


def cost_of(hours, *, gpus=0.0):
    seconds = hours * 3600 / (gpus or 1.0)
    return Cost(
        measured=(),
        slots=1,
        gpus_per_trial=gpus,
        shortest_s=1.0,
        longest_s=1.0,
        total_s=seconds,
        wall_s=seconds,
    )


@given(
    st.integers(2, 200),
    st.lists(st.floats(0.01, 0.9), min_size=1, max_size=4, unique=True).map(sorted),
    st.floats(0.01, 1.5),
    st.floats(0.05, 0.95),
)
def test_what_is_kept_costs_no_more_than_the_hours_and_hardly_less(n_points, fractions, share, at_most):
    found = keep_frac_within(share, n_points=n_points, fractions=fractions, at_most=at_most)

    least = probe_share(0.001, n_points=n_points, fractions=fractions)
    if found is None:
        assert least > share
        return
    assert found <= at_most
    assert probe_share(found, n_points=n_points, fractions=fractions) <= share
    more = found + 0.001
    assert more > at_most or probe_share(more, n_points=n_points, fractions=fractions) > share


def test_the_share_is_what_the_survivors_of_every_rung_train():
    # 12 points to 20 %, 6 of them to 50 %, 3 to the end.
    share = probe_share(0.5, n_points=12, fractions=[0.2, 0.5])
    assert share == pytest.approx((12 * 0.2 + 6 * 0.3 + 3 * 0.5) / 12)


def test_gpu_hours_count_the_gpus_of_a_trial_and_slots_where_there_are_none():
    plan = plan_sweep(config_for(max_gpu_hours=8))
    on_gpus, _ = afford(plan, cost_of(20.0, gpus=4.0))
    on_slots, told = afford(plan, cost_of(20.0))

    assert on_gpus.pruner.keep_frac == on_slots.pruner.keep_frac < 0.5
    assert told.startswith(f"keep_frac = {on_slots.pruner.keep_frac:g}: the sweep then takes some ")


def test_too_few_hours_are_refused_with_the_least_that_will_do():
    plan = plan_sweep(config_for(max_gpu_hours=2))
    with pytest.raises(
        ConfigError, match=r"to the first rung and one of them to its end takes 5.33 \(in full: 20\)"
    ):
        afford(plan, cost_of(20.0))


def test_hours_are_for_probe_alone():
    with pytest.raises(
        ConfigError, match="only `mode: probe` knows before it lets any go on; the mode is `eager`"
    ):
        config_for(max_gpu_hours=2, mode="eager")


def test_hours_are_never_passed_over(tmp_path):
    with pytest.raises(ConfigError, match="worked out from measured steps, which a replay has not"):
        replay_config(make_recorded([0.1, 0.2]), PROBE | {"max_gpu_hours": 3})
    make_study(tmp_path, config_for())
    with pytest.raises(ConfigError, match="is worked out when a study begins"):
        api.resume(str(tmp_path), ["pruner.max_gpu_hours=3"])
    assert any(
        "Fewer go on where 9 GPU-hours" in note for note in plan_sweep(config_for(max_gpu_hours=9)).notes
    )


def test_a_sweep_keeps_what_it_can_afford_and_asks_once(tmp_path, monkeypatch):
    asked = []

    def measured(plan, slots, *, facts, asked_by):
        assert asked_by == "pruner.max_gpu_hours"
        asked.append(plan.config.study)
        return cost_of(20.0)

    monkeypatch.setattr(measure, "measure_cost", measured)
    options = api.LaunchOptions(executor="in-process")
    config = config_for(tmp_path / "study", max_gpu_hours=7)
    view = api.launch(config, options=options, function=trial_functions.steady)

    share = probe_share(view.config.pruner.keep_frac, n_points=12, fractions=[0.2, 0.5])
    assert share <= 7 / 20
    one_step_more = 12 * 10  # a trial that is set aside ends at its next step
    assert view.spent_samples <= math.ceil(share * 12 * 100) + one_step_more
    assert view.best.value == max(trial_functions.value_of({"learning_rate": rate}) for rate in RATES)
    assert view.count(TrialState.COMPLETE) >= 1
    with pytest.raises(NothingToDoError, match="is finished: nothing is left to train"):
        api.launch(config, options=options, function=trial_functions.steady)
    assert asked == ["made-up"]
