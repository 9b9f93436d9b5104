"""Divergence rules judge a trial by its own history only."""

import dataclasses
import math
import random
from types import SimpleNamespace

import pytest
from recorded_sweeps import make_recorded

from sweeper.errors import ConfigError
from sweeper.pruners.divergence import DivergenceMonitor, DivergenceRules, monitor_for
from sweeper.records import StepRow
from sweeper.replay.setup import replay_config


def rows(losses, norms=None, start=1):
    norms = norms if norms is not None else [1.0] * len(losses)
    return [
        StepRow(start + i, (start + i) * 8, 0, loss, norm, 1e-3)
        for i, (loss, norm) in enumerate(zip(losses, norms, strict=True))
    ]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_loss_is_divergence_at_once(bad):
    verdict = DivergenceMonitor(DivergenceRules()).check(rows([2.0, bad]))

    assert verdict is not None
    assert verdict.rule == "nan"
    assert "loss is" in verdict.reason
    assert "step 2 (16 samples)" in verdict.reason


def test_a_non_finite_norm_is_divergence_at_once():
    verdict = DivergenceMonitor(DivergenceRules()).check(rows([2.0], [math.inf]))

    assert verdict is not None
    assert verdict.reason == "diverged: gradient norm is inf at step 1 (8 samples)"


def test_a_loss_that_is_not_reported_is_no_divergence():
    assert DivergenceMonitor(DivergenceRules()).check(rows([None, None], [None, None])) is None


def test_the_nan_rule_can_be_switched_off():
    assert DivergenceMonitor(DivergenceRules(nan=False)).check(rows([math.nan])) is None


def test_a_jump_that_stays_is_a_spike():
    verdict = DivergenceMonitor(DivergenceRules()).check(rows([1.0] * 160 + [9.0] * 8))

    assert verdict is not None
    assert verdict.rule == "loss_spike"
    assert "its own best was 1" in verdict.reason


def test_a_loss_that_begins_at_nothing_has_no_scale_yet():
    assert DivergenceMonitor(DivergenceRules()).check(rows([0.0] * 160 + [1e-6] * 8)) is None
    assert DivergenceMonitor(DivergenceRules()).check(rows([0.0] * 160 + [math.nan])) is not None


def test_a_jump_that_passes_is_no_spike():
    assert DivergenceMonitor(DivergenceRules()).check(rows([1.0] * 160 + [9.0] * 7 + [1.0] * 20)) is None


def test_a_noisy_loss_near_zero_is_no_spike():
    draw = random.Random(0)
    losses = [abs(draw.gauss(0.0, 0.02)) for _ in range(400)]

    assert DivergenceMonitor(DivergenceRules()).check(rows(losses)) is None


def test_a_stretch_of_harder_rows_near_zero_loss_is_no_spike():
    falling = [9.0 * 0.95**step for step in range(140)]

    assert DivergenceMonitor(DivergenceRules()).check(rows(falling + [0.06] * 12)) is None


@pytest.mark.parametrize("level", [-2.0, -0.5])
def test_a_slow_rise_of_a_loss_below_zero_is_no_spike(level):
    falling = [level + 0.04 * 0.9**step for step in range(100)]
    rising = [level * (1 - 0.0003 * step) for step in range(100)]

    assert DivergenceMonitor(DivergenceRules()).check(rows(falling + rising)) is None


def test_a_jump_from_a_loss_below_zero_is_a_spike():
    verdict = DivergenceMonitor(DivergenceRules()).check(rows([-2.0] * 100 + [2.5] * 8))

    assert verdict is not None
    assert verdict.reason.startswith("diverged: loss stayed above 2 for 8 steps")


def test_an_exploding_norm_is_divergence():
    verdict = DivergenceMonitor(DivergenceRules()).check(rows([1.0] * 48, [1.0] * 40 + [500.0] * 8))

    assert verdict is not None
    assert verdict.rule == "grad_norm_explosion"


def test_a_growing_norm_is_no_explosion():
    norms = [1.0 + step / 10 for step in range(400)]

    assert DivergenceMonitor(DivergenceRules()).check(rows([1.0] * 400, norms)) is None


def test_the_verdict_does_not_depend_on_how_steps_are_cut_into_reports():
    history = rows([1.0] * 60 + [9.0] * 20)
    whole = DivergenceMonitor(DivergenceRules()).check(history)
    monitor = DivergenceMonitor(DivergenceRules())

    piecewise = next(verdict for row in history if (verdict := monitor.check([row])))

    assert piecewise == whole


def test_a_loss_that_jumps_where_other_data_begins_is_no_divergence():
    history = rows([1.0] * 60 + [9.0] * 60)
    mark = history[59].samples
    assert DivergenceMonitor(DivergenceRules()).check(history) is not None
    assert DivergenceMonitor(DivergenceRules(), restarts=[mark]).check(history) is None


def test_a_spike_within_a_later_phase_is_still_told():
    history = rows([1.0] * 60 + [5.0] * 60 + [30.0] * 8)
    verdict = DivergenceMonitor(DivergenceRules(), restarts=[history[59].samples]).check(history)
    assert verdict is not None
    assert verdict.rule == "loss_spike"
    assert "its own best was 5" in verdict.reason


@pytest.mark.parametrize("restarts", [[], [100 * 8, 400 * 8]])
def test_a_monitor_that_goes_on_from_a_history_stands_where_one_that_checked_it_stands(restarts):
    draw = random.Random(0)
    losses = [None if i % 37 == 5 else 2.0 / (1 + i / 200) + draw.gauss(0, 0.1) for i in range(1000)]
    norms = [None if i % 41 == 7 else math.exp(draw.gauss(0, 0.5)) for i in range(1000)]
    history = rows(losses, norms)
    checked, went_on = (DivergenceMonitor(DivergenceRules(), restarts=restarts) for _ in range(2))

    assert checked.check(history) is None
    went_on.go_on_from(history)

    assert vars(went_on) == vars(checked)
    jump = rows([50.0] * 8, [1e4] * 8, start=1001)
    assert went_on.check(jump) == checked.check(jump) is not None


# -- gradients of nothing, and clipped ones -------------------------------------------------------------------


def test_a_norm_of_nothing_that_stays_is_dead_gradients():
    verdict = DivergenceMonitor(DivergenceRules()).check(rows([2.0] * 20, [1.0] * 10 + [0.0] * 10))

    assert verdict is not None
    assert verdict.rule == "dead_gradients"
    assert verdict.reason == (
        "diverged: gradient norm was 0 for 8 steps up to step 18 (144 samples), so nothing is learned any more"
    )


@pytest.mark.parametrize(
    ("losses", "norms"),
    [
        ([2.0] * 40, ([0.0] * 7 + [1e-12]) * 5),  # never so many in a row
        ([2.0] * 40, ([0.0] * 7 + [None]) * 5),  # a step that was left out says nothing
        ([2.0] * 20 + [0.0] * 20, [1.0] * 20 + [0.0] * 20),  # fits its rows to the last digit: done, not dead
        ([2.0] * 40, [None] * 40),
        ([2.0] * 40, [0.0] * 40),  # a function that reports 0 for a norm that it does not measure
        ([None] * 40, [1.0] * 20 + [0.0] * 20),
        # Come to rest at the lowest loss it ever had, which need not be 0.
        ([3.0 - 0.1 * i for i in range(20)] + [1.0] * 20, [1.0] * 20 + [0.0] * 20),
    ],
)
def test_other_small_norms_are_not_dead(losses, norms):
    assert DivergenceMonitor(DivergenceRules()).check(rows(losses, norms)) is None


def test_dead_gradients_are_left_alone_where_the_rule_is_off():
    off = DivergenceMonitor(DivergenceRules(dead_gradients=False))

    assert off.check(rows([2.0] * 40, [1.0] * 20 + [0.0] * 20)) is None


@pytest.mark.parametrize("limit", ["inf", math.inf, 0, 0.0, False, True, -1.0, None, [1.0]])
def test_what_is_no_norm_to_clip_at_counts_no_clipped_steps(limit):
    """A setting of the user's own function may be anything."""
    point = SimpleNamespace(phase_ends=(), settings={"max_grad_norm": limit})

    monitor = monitor_for(point, DivergenceRules(clipped_steps=True))

    assert monitor.check(rows([2.0] * 400, [50.0] * 400)) is None


def test_more_clipped_steps_than_allowed_are_divergence_where_they_are_counted():
    rules = DivergenceRules(clipped_steps=True, clipped_frac=0.5)
    norms = [9.0] * 8 + [0.5, 2.0] * 40 + [2.0] * 4

    verdict = DivergenceMonitor(rules, max_grad_norm=1.0).check(rows([2.0] * len(norms), norms))

    assert verdict is not None
    assert verdict.rule == "clipped_steps"
    assert verdict.reason == (  # the first 8 are left out, and half of the next 80 are not more than half
        "diverged: gradients were clipped at 1 in 41 of 81 steps up to step 89 (712 samples)"
    )


@pytest.mark.parametrize(
    ("rules", "max_grad_norm"),
    [
        (DivergenceRules(), 1.0),  # off, as it is by itself
        (DivergenceRules(clipped_steps=True), None),  # nothing is clipped
        (DivergenceRules(clipped_steps=True), 50.0),
    ],
)
def test_large_norms_are_no_clipped_steps_otherwise(rules, max_grad_norm):
    monitor = DivergenceMonitor(rules, max_grad_norm=max_grad_norm)

    assert monitor.check(rows([2.0] * 400, [50.0] * 400)) is None


def test_clipped_steps_are_counted_anew_in_another_phase_and_over_an_interruption():
    rules = DivergenceRules(clipped_steps=True)
    norms = [2.0] * 300
    curve = rows([2.0] * 300, norms)

    assert DivergenceMonitor(rules, restarts=[80 * 8], max_grad_norm=1.0).check(curve[:160]) is None
    whole = DivergenceMonitor(rules, max_grad_norm=1.0).check(curve)
    resumed = DivergenceMonitor(rules, max_grad_norm=1.0)
    resumed.go_on_from(curve[:60])
    assert whole is not None
    assert resumed.check(curve[60:]) == whole


def test_a_replay_counts_clipped_steps_only_where_the_limit_was_recorded():
    sweep = make_recorded([0.2, 0.5, 0.9])
    knowing = dataclasses.replace(
        sweep, points=tuple(dataclasses.replace(p, settings={"max_grad_norm": 1.0}) for p in sweep.points)
    )

    with pytest.raises(ConfigError, match=r"recorded no `max_grad_norm`. Remove it\."):
        replay_config(sweep, overrides=["divergence.clipped_steps=true"])
    assert replay_config(knowing, overrides=["divergence.clipped_steps=true"]).divergence.clipped_steps
