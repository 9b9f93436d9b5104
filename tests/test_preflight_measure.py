"""What a sweep will take, estimated from a few steps that were trained."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.config import config_from_dict, load_config
from sweeper.config.space_models import SamplerSection
from sweeper.config.trial_models import DataSource
from sweeper.errors import ConfigError
from sweeper.plan import DataFacts, plan_sweep
from sweeper.preflight import measure
from sweeper.preflight.cluster import SlotPlan
from sweeper.preflight.measure import Cost, Measured, makespan, measure_cost, step_seconds, trial_seconds

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = Measured(effective_batch_size=8, steps=12, step_s=0.1, evaluation_s=2.0, peak_gb=None)
LARGE = Measured(effective_batch_size=128, steps=12, step_s=0.7, evaluation_s=4.0, peak_gb=None)


def made_up(**changes):
    return config_from_dict(
        {
            "study": "s", "metric": "score", "direction": "maximize",
            "trial": {"function": "nowhere:nothing", "budget": {"samples": 1280}},
            "search_space": {"effective_batch_size": {"grid": [8, 64, 128]}, "learning_rate": {"grid": [1e-4, 1e-3]}},
            "pruner": "nop",
        }
        | changes
    )  # fmt: skip


def test_a_step_between_the_measured_sizes_lies_on_their_line():
    assert [step_seconds(size, [SMALL, LARGE]) for size in (8, 68, 128)] == pytest.approx([0.1, 0.4, 0.7])
    assert step_seconds(8, [SMALL, SMALL]) == 0.1


def test_a_trial_takes_its_steps_and_its_evaluations():
    config = made_up()
    points = plan_sweep(config).points

    at_two_rungs_and_the_end = 3
    took = trial_seconds(config, points[0], [SMALL, LARGE])
    assert took == pytest.approx(160 * 0.1 + at_two_rungs_and_the_end * 3.0)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=30), st.integers(1, 8))
def test_slots_are_never_faster_than_their_work_nor_than_the_longest_trial(seconds, slots):
    took = makespan(seconds, slots)

    assert took >= max(sum(seconds) / slots, max(seconds)) - 1e-6
    assert took <= sum(seconds) / slots + max(seconds) + 1e-6


def test_the_cost_counts_every_trial_of_the_grid(monkeypatch):
    answers = {8: SMALL, 128: LARGE}
    asked = []

    def measured(config, point, *, threads):
        asked.append((point.batch.effective_batch_size, threads))
        return answers[point.batch.effective_batch_size]

    monkeypatch.setattr(measure, "_measure", measured)

    cost = measure_cost(
        plan_sweep(made_up()),
        SlotPlan(slots=2, cpus_per_trial=3, gpus_per_trial=0.5),
        price_per_gpu_hour=10.0,
    )

    trials = [160 * 0.1 + 9.0, 20 * 0.38 + 9.0, 10 * 0.7 + 9.0]
    assert asked == [(8, 3), (128, 3)]
    assert cost.total_s == pytest.approx(2 * sum(trials))
    assert (cost.shortest_s, cost.longest_s) == pytest.approx((trials[2], trials[0]))
    assert cost.price == pytest.approx(10 * cost.total_s * 0.5 / 3600)
    assert "GPU-hours" in cost.lines()[-1]


def built_in(**space):
    return config_from_dict(
        {
            "study": "s", "metric": "dev/loss", "direction": "minimize",
            "trial": {
                "model": "nobody/model", "train_data": "train.jsonl", "eval_data": {"dev": "dev.jsonl"},
                "budget": {"samples": 1280}, "settings": {"micro_batch_size": 8},
            },
            "search_space": {"effective_batch_size": {"grid": [8, 128]}} | space,
            "pruner": "nop",
        },
        check_files=False,
    )  # fmt: skip


ONE_SLOT = SlotPlan(slots=1, cpus_per_trial=1, gpus_per_trial=0)


def test_each_kind_of_points_has_its_own_price(monkeypatch):
    def measured(config, point, *, threads):
        one = SMALL if point.batch.effective_batch_size == 8 else LARGE
        return dataclasses.replace(
            one, step_s=one.step_s * (10 if point.settings["max_length"] == 2048 else 1)
        )

    monkeypatch.setattr(measure, "_measure", measured)

    cost = measure_cost(plan_sweep(built_in(max_length={"grid": [256, 2048]})), ONE_SLOT)

    short = 160 * 0.1 + 10 * 0.7
    assert cost.total_s == pytest.approx(11 * short + 4 * 3 * 3.0)
    assert [one.kind for one in cost.measured] == [{"max_length": n} for n in (256, 256, 2048, 2048)]
    assert "measured: effective_batch_size=128, max_length=2048: 0.143 steps/s" in cost.lines()[3]


def test_data_of_the_hub_is_measured_at_the_commit_that_was_counted(monkeypatch):
    asked = []

    def measured(config, point, *, threads):
        asked.append(config.trial.train_data[0].revision)
        return SMALL

    monkeypatch.setattr(measure, "_measure", measured)
    config = built_in()
    trial = config.trial.model_copy(update={"train_data": [DataSource(path="org/rows")]})
    plan = plan_sweep(config.model_copy(update={"trial": trial}))
    counted = DataFacts(rows=8, target_tokens=80, sources={"train_data[0]": "commit " + "a" * 40})

    measure_cost(plan, ONE_SLOT, facts=counted)

    assert asked == ["a" * 40] * 2


def test_what_a_sampler_draws_beside_the_measured_values_is_told(monkeypatch):
    monkeypatch.setattr(measure, "_measure", lambda config, point, *, threads: SMALL)
    config = built_in(max_length={"choice": [256, 2048]})
    drawn = config.model_copy(update={"sampler": SamplerSection(name="random", n_trials=10)})

    cost = measure_cost(plan_sweep(drawn), ONE_SLOT)

    assert cost.not_measured == ("max_length",)
    assert "`max_length` will be drawn, but was measured at its first value alone" in cost.lines()[-2]


def test_points_that_are_read_off_a_longer_one_cost_nothing(monkeypatch):
    monkeypatch.setattr(measure, "_measure", lambda config, point, *, threads: SMALL)
    plan = plan_sweep(made_up())
    longest, *others = [point.point_id for point in plan.points]
    shared = dataclasses.replace(plan, same_training=((longest, *others[:2]),))

    whole, rest = measure_cost(plan, ONE_SLOT), measure_cost(shared, ONE_SLOT)

    assert rest.total_s == pytest.approx(
        whole.total_s - sum(trial_seconds(plan.config, point, [SMALL]) for point in plan.points[1:3])
    )


def test_too_many_kinds_are_refused_and_the_key_that_asks_is_named():
    plan = plan_sweep(built_in(max_length={"int": [128, 1152], "step": 128}))
    with pytest.raises(
        ConfigError,
        match=r"^`pruner\.max_gpu_hours` cannot be had here: each of the 9 kinds .* differ in `max_length`",
    ):
        measure_cost(plan, ONE_SLOT, asked_by="pruner.max_gpu_hours")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"resources": {"address": "10.0.0.1:6379"}}, "not on the cluster"),
        ({"search_space": {"learning_rate": {"grid": [1e-4, 1e-3]}}}, "Set it"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, why):
    with pytest.raises(ConfigError, match=f"`--measure` cannot be had here.*{why}"):
        measure_cost(plan_sweep(made_up(**changes)), SlotPlan(slots=1, cpus_per_trial=1, gpus_per_trial=0))


def test_without_gpus_no_price_is_named():
    cost = Cost(
        measured=(SMALL,), slots=1, gpus_per_trial=0, shortest_s=1, longest_s=1, total_s=2, wall_s=2,
        price_per_gpu_hour=3.0,
    )  # fmt: skip

    assert "per GPU-hour" not in cost.lines()[-1]
    assert json.loads(json.dumps(cost.as_json()))["measured"][0] == dataclasses.asdict(SMALL)


@pytest.mark.train
def test_a_few_steps_of_the_tiny_model_are_measured():
    config = load_config(EXAMPLES / "quickstart.yaml", [])

    cost = measure_cost(plan_sweep(config), SlotPlan(slots=2, cpus_per_trial=1, gpus_per_trial=0))

    small, large = cost.measured
    assert (small.effective_batch_size, large.effective_batch_size) == (8, 128)
    assert 0 < small.step_s < large.step_s
    assert small.evaluation_s > 0
    assert small.steps == 12


def test_a_price_without_measuring_is_refused(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "sweeper.cli", "plan", str(EXAMPLES / "quickstart.yaml"), "--price", "2"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert run.returncode == 2
    assert "`--price` is for `--measure`" in run.stderr
