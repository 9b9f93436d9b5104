"""Divergence rules judge a trial by its own history only."""

import math
import random

import pytest

from sweeper.pruners.divergence import DivergenceMonitor, DivergenceRules
from sweeper.records import StepRow


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
