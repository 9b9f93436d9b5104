"""Warm-up in steps, samples or a share, and a beta2 whose memory is fixed in tokens."""

import functools
import json
from pathlib import Path

import pytest
import sweep_files
from sweep_files import BASE, config_of, replaced

from sweeper.config import dump_config
from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError
from sweeper.optimizer import beta2_of_half_life, warmup_in_steps
from sweeper.plan import DataFacts, Plan, plan_sweep, trial_spec

FACTS = DataFacts(rows=1000, target_tokens=50_000)  # 50 tokens a sample
HALF_LIFE = "adam_beta2_half_life_tokens"
ID_BEFORE = "7584c5aaca361af4"  # from before there were these settings


plan_of = functools.partial(sweep_files.plan_of, facts=FACTS)


def beta2_by_batch(plan: Plan) -> dict[int, float]:
    return {
        point.batch.effective_batch_size: point.settings["adam_beta2"] for point in plan.points if point.batch
    }


def test_beta2_to_the_power_of_the_steps_of_a_half_life_is_a_half() -> None:
    for tokens_per_step in (100, 6_400, 384_000):
        beta2 = beta2_of_half_life(half_life_tokens=3_840_000, tokens_per_step=tokens_per_step)
        assert beta2 ** (3_840_000 / tokens_per_step) == pytest.approx(0.5)


def test_each_batch_size_gets_the_beta2_of_the_half_life() -> None:
    found = beta2_by_batch(plan_of(f"{HALF_LIFE}=64000"))
    assert found == {32: pytest.approx(2 ** (-1600 / 64000)), 128: pytest.approx(2 ** (-6400 / 64000))}


def test_the_plan_states_the_beta2_that_is_used() -> None:
    (note,) = [text for text in plan_of(f"{HALF_LIFE}=64000").notes if "half-life" in text]
    assert "64,000 target tokens gives `adam_beta2` 0.982821 at batch 32, 0.933033 at batch 128" in note
    assert "50 target tokens on average" in note


def test_before_the_data_was_counted_the_plan_says_so_and_no_trial_starts() -> None:
    plan = plan_of(f"{HALF_LIFE}=64000", facts=None)
    assert [text for text in plan.notes if "known after the data was counted" in text]
    assert set(beta2_by_batch(plan).values()) == {None}
    with pytest.raises(ConfigError, match="needs the target tokens of a step"):
        trial_spec(plan.config, plan.points[0], number=0, attempt=1, trial_dir="", threads=1)


def test_a_point_keeps_its_id_once_the_data_was_counted() -> None:
    ids = [[point.point_id for point in plan_of(f"{HALF_LIFE}=64000", facts=f).points] for f in (None, FACTS)]
    assert ids[0] == ids[1]


def test_the_new_settings_leave_the_ids_of_points_without_them_alone() -> None:
    plan = plan_sweep(config_of(BASE, folder=Path("/sweep")))
    assert plan.points[0].point_id == ID_BEFORE


def test_a_half_life_can_be_swept_beside_a_fixed_beta2() -> None:
    text = replaced(
        BASE, ("learning_rate: {grid: [1e-5, 1e-4]}", f"{HALF_LIFE}: {{grid: [null, 64000, 1e6]}}")
    )
    plan = plan_of("effective_batch_size=32", text=text)
    found = [point.settings["adam_beta2"] for point in plan.points]
    assert found == [0.95, pytest.approx(2 ** (-1 / 40)), pytest.approx(2 ** (-0.0016))]
    assert len({point.point_id for point in plan.points}) == 3


@pytest.mark.parametrize("text", [f"{HALF_LIFE}: 64000", f"{HALF_LIFE}: 64000, warmup_samples: 100"])
def test_a_config_with_a_half_life_reads_back_to_itself(text: str) -> None:
    config = config_of(replaced(BASE, ("micro_batch_size: 8", text)))
    assert "adam_beta2" not in config.trial.settings
    assert config_of(dump_config(config)) == config
    assert SweepConfig.model_validate_json(json.dumps(json.loads(config.model_dump_json()))) == config


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (f"{HALF_LIFE}: 64000, adam_beta2: 0.99", "exclude each other: beta2 follows from the half-life"),
        (f"{HALF_LIFE}: 0", "must be greater than 0"),
        (f"{HALF_LIFE}: 64000, optimizer: sgd", "is for Adam and its kin, but `sgd` has no such beta2"),
        ("warmup_samples: 100, warmup_frac: 0.1", "`warmup_samples` = 100 and `warmup_frac` = 0.1 exclude"),
        ("warmup_samples: 100, warmup_steps: 3", "`warmup_steps` = 3 and `warmup_samples` = 100 exclude"),
        ("warmup_samples: 0", "`trial.settings.warmup_samples` must be at least 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(replaced(BASE, ("micro_batch_size: 8", settings)))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("dimension", "fixed", "told"),
    [
        (
            "learning_rate: {grid: [1e-4]}",
            "lora_rank: 64",
            "`lora_rank` is for adapters, but no point trains any",
        ),
        ("method: {grid: [full]}", "lora_alpha: 8", "`lora_alpha` is for adapters"),
        (
            "lora_rank: {grid: [8, 16]}",
            "method: full",
            "Write `method: lora` in `trial.settings`, or remove `lora_rank`",
        ),
        ("adam_beta2: {grid: [0.9, 0.99]}", "optimizer: sgd", "but `sgd` has no beta2"),
        ("adam_beta2: {uniform: [0.9, 0.99]}", "optimizer: adafactor", "but `adafactor` has no beta2"),
    ],
)
def test_what_no_point_makes_use_of_is_refused(dimension: str, fixed: str, told: str) -> None:
    text = replaced(
        BASE,
        ("learning_rate: {grid: [1e-5, 1e-4]}", dimension),
        ("micro_batch_size: 8", fixed),
        ("sampler: grid", "sampler: {name: random, n_trials: 4}"),
    )
    with pytest.raises(ConfigError) as caught:
        config_of(text)
    (problem,) = caught.value.problems
    assert told in str(problem)


@pytest.mark.parametrize(
    ("dimension", "fixed"),
    [
        ("learning_rate: {grid: [1e-4]}", "lora_rank: 16"),  # as a recorded config has it
        ("lora_rank: {grid: [8, 16]}", "method: qlora"),
        ("method: {grid: [full, lora]}", "lora_rank: 8"),
        ("adam_beta2: {grid: [0.9, 0.99]}", "optimizer: lion_32bit"),
    ],
)
def test_what_some_point_makes_use_of_is_accepted(dimension: str, fixed: str) -> None:
    text = replaced(BASE, ("learning_rate: {grid: [1e-5, 1e-4]}", dimension), ("micro_batch_size: 8", fixed))
    config = config_of(text)
    assert config_of(dump_config(config)) == config


@pytest.mark.parametrize(
    ("dimension", "told"),
    [
        ("max_length: {grid: [64, 128]}", "which `max_length` in the search space changes"),
        ("optimizer: {grid: [sgd, adamw_torch]}", "`sgd` has no such beta2"),
        ("adam_beta2: {grid: [0.9, 0.99]}", "exclude each other"),
        ("warmup_steps: {grid: [0, 5]}\n  warmup_samples: {grid: [8, 16]}", "but the points would have both"),
    ],
)
def test_a_search_space_that_contradicts_the_settings_is_refused(dimension: str, told: str) -> None:
    text = replaced(
        BASE,
        ("learning_rate: {grid: [1e-5, 1e-4]}", dimension),
        ("micro_batch_size: 8", f"{HALF_LIFE}: 64000"),
    )
    with pytest.raises(ConfigError) as caught:
        config_of(text)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("given", "steps"),
    [({"steps": 7}, 7), ({"samples": 64}, 2), ({"samples": 65}, 3), ({"frac": 0.1}, 3), ({}, 0)],
)
def test_a_warm_up_comes_to_whole_steps(given: dict[str, float], steps: int) -> None:
    values = {"steps": 0, "samples": None, "frac": 0.0} | given
    assert warmup_in_steps(**values, effective_batch_size=32, total_steps=30) == steps  # type: ignore[arg-type]


def test_a_warm_up_in_samples_ends_on_the_same_sample_at_every_batch_size() -> None:
    plan = plan_of("trial.settings.warmup_samples=8192")
    assert {point.settings["lr_scheduler_type"] for point in plan.points} == {"constant_with_warmup"}
    assert [text for text in plan.warnings if "ends within its warm-up of 64 steps" in text]
    assert [text for text in plan.warnings if "ends within its warm-up of 256 steps" in text]


@pytest.mark.parametrize(
    "override", ["trial.settings.optimizer=schedule_free_adamw", "optimizer=schedule_free_sgd"]
)
def test_an_optimizer_whose_weights_between_steps_are_others_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=r"`schedule_free_\w+`: its weights between steps are not those"):
        config_of(BASE, override)


@pytest.mark.parametrize("override", ["trial.settings.optimizer=lomo", "optimizer=adalomo"])
def test_an_optimizer_that_steps_in_every_backward_pass_is_refused(override: str) -> None:
    with pytest.raises(
        ConfigError,
        match=r"cannot be `(ada)?lomo`: it changes the weights in every backward pass, .*; choose for",
    ):
        config_of(BASE, override)
