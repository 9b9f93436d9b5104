"""The plan: the same data for all points, in whole steps; the same rungs; ids that name a training."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_files import BASE, FUNCTION, config_of, plan_of, replaced

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError
from sweeper.plan import DataFacts, Plan, Point, grid_params, plan_point, plan_sweep, trial_spec

FACTS = DataFacts(rows=1000, target_tokens=50_000)
TPE = "sampler={name: tpe, n_trials: 12}"


def batches_of(plan: Plan) -> dict[int, Point]:
    return {point.batch.effective_batch_size: point for point in plan.points or plan.examples if point.batch}


def said(plan: Plan, pattern: str) -> list[str]:
    return [text for text in (*plan.notes, *plan.warnings) if re.search(pattern, text)]


def test_a_grid_is_every_combination_in_the_order_of_the_file() -> None:
    assert [tuple(point.params.values()) for point in plan_of().points] == [
        (1e-5, 32),
        (1e-5, 128),
        (1e-4, 32),
        (1e-4, 128),
    ]


@pytest.mark.parametrize(
    ("override", "n_warnings"),
    [
        ("resources.address=auto", 1),
        ("resources.slots=2", 0),
        ("trial.checkpoint.every_samples=640", 0),
        ("trial.checkpoint.at=[640]", 0),
    ],
)
def test_on_a_cluster_trials_that_save_nothing_on_their_way_are_warned_of(
    override: str, n_warnings: int
) -> None:
    overrides = [override] if override.startswith("resources") else ["resources.address=auto", override]
    warned = said(plan_of(*overrides), "a trial whose node goes away begins anew")
    assert len(warned) == n_warnings
    assert all("each time counts against `failures.retries` = 1." in text for text in warned)


def test_points_without_adapters_are_trained_once_whatever_is_said_of_adapters() -> None:
    text = replaced(
        BASE,
        ("learning_rate: {grid: [1e-5, 1e-4]}", "method: {grid: [full, lora]}"),
        ("effective_batch_size: {grid: [32, 128]}", "lora_rank: {grid: [8, 16]}"),
    )
    plan = plan_of(text=text)
    assert [tuple(point.params.values()) for point in plan.points] == [("full", 8), ("lora", 8), ("lora", 16)]
    assert said(plan, r"^1 of 4 points resolve to the same training as another one")

    alone = replaced(
        text,
        ("method: {grid: [full, lora]}", "method: {grid: [full]}"),
        ("  lora_rank: {grid: [8, 16]}\n", ""),
    )
    assert plan_of(text=alone).points[0].point_id == plan.points[0].point_id


@pytest.mark.parametrize(("attention", "n_told"), [("sdpa", 1), ("flash_attention_2", 0)])
def test_packing_without_flash_attention_is_warned_about(attention: str, n_told: int) -> None:
    plan = plan_of("trial.settings.packing=true", f"trial.settings.attn_implementation={attention}")
    assert len(said(plan, r"set `attn_implementation: flash_attention_2`")) == n_told
    assert len(said(plan, r"in time and memory: [\d,]+ make [\d.]+ GB in each layer\.")) == n_told


def test_a_grid_of_many_whole_numbers_is_listed_whole_or_refused() -> None:
    def with_lengths(upper: int) -> SweepConfig:
        text = replaced(
            BASE, ("learning_rate: {grid: [1e-5, 1e-4]}", f"max_length: {{int: [2, {upper}], step: 1}}")
        )
        return config_of(text, "effective_batch_size=32")

    assert sum(1 for _ in grid_params(with_lengths(20_001))) == 20_000
    with pytest.raises(
        ConfigError, match=r"The grid has 100,001 points \(100001\); at most 100,000 can be held"
    ):
        with_lengths(100_002)
    with pytest.raises(ConfigError, match=r"at most 100,000 can be held"):
        with_lengths(10**30)


def test_a_point_holds_every_setting_with_its_params_applied() -> None:
    point = plan_of().points[1]
    assert point.settings["effective_batch_size"] == 128
    assert point.settings["learning_rate"] == 1e-5
    assert point.settings["adam_beta2"] == 0.95
    assert (point.budget_samples, point.total_steps) == (8192, 64)
    assert point.batch is not None
    assert point.batch.gradient_accumulation_steps == 16


def test_a_point_is_seeded_by_the_study_unless_it_has_its_own_seed() -> None:
    assert plan_of("seed=5").points[0].settings["seed"] == 5
    assert plan_of("seed=5", "trial.settings.seed=6").points[0].settings["seed"] == 6


def test_listed_points_that_a_sampler_begins_with_are_trained_once_where_they_are_one_training() -> None:
    points = (
        "points: [{method: full, lora_rank: 8}, {method: full, lora_rank: 16}, {method: lora, lora_rank: 8}]"
    )
    text = replaced(
        BASE,
        ("learning_rate: {grid: [1e-5, 1e-4]}", "method: {grid: [full, lora]}"),
        ("effective_batch_size: {grid: [32, 128]}", "lora_rank: {grid: [8, 16]}"),
    )
    plan = plan_of("sampler={name: random, n_trials: 4}", text=f"{text}{points}\n")
    assert [tuple(point.params.values()) for point in plan.first_points] == [("full", 8), ("lora", 8)]
    assert said(plan, r"^1 of 3 points resolve to the same training as another one")


def test_samplers_that_draw_have_no_points_but_an_example_of_each_batch() -> None:
    plan = plan_of(TPE)
    assert (plan.points, plan.n_trials) == ((), 12)
    assert list(batches_of(plan)) == [32, 128]
    assert plan.total_samples == 12 * 8192


def test_an_empty_search_space_is_one_point() -> None:
    plan = plan_of("learning_rate=1e-4", "effective_batch_size=64")
    assert plan.n_trials == len(plan.points) == 1
    assert plan.points[0].params == {}
    assert said(plan, r"^The search space is empty: one trial")


def test_a_budget_that_fits_every_batch_is_taken_as_it_is() -> None:
    plan = plan_of()
    assert {point.budget_samples for point in plan.points} == {plan.budget_samples} == {8192}
    assert not said(plan, "instead of|rounds down")


def test_a_budget_is_rounded_to_a_common_multiple_when_little_is_lost() -> None:
    plan = plan_of("trial.budget.samples=8000")
    assert {point.budget_samples for point in plan.points} == {7936}
    assert said(plan, r"^Every point trains 7,936 samples instead of 8,000 \(-0\.8%\)")


def test_a_budget_without_a_near_common_multiple_is_rounded_point_by_point() -> None:
    plan = plan_of("search_space.effective_batch_size.grid=[24, 128, 512]")
    assert {batch: point.budget_samples for batch, point in batches_of(plan).items()} == {
        24: 8184,
        128: 8192,
        512: 8192,
    }
    assert said(plan, r"batch 24: 8,184 \(-8\), batch 128: 8,192 \(\+0\)")
    assert plan.budget_samples is None
    assert plan.total_samples == 2 * (8184 + 8192 + 8192)


def test_a_range_of_batches_is_rounded_point_by_point() -> None:
    plan = plan_of("search_space.effective_batch_size={int: [8, 1024], step: 8}", TPE)
    assert said(plan, r"drawn from a range, so each point rounds the budget of 8,192 samples down")
    point = plan_point(plan.config, {"learning_rate": 1e-4, "effective_batch_size": 72})
    assert (point.total_steps, point.budget_samples) == (113, 8136)


@given(
    st.lists(st.sampled_from([8, 16, 24, 32, 40, 96, 128, 500]), min_size=1, max_size=4, unique=True),
    st.integers(500, 20_000),
)
def test_points_lose_at_most_five_percent_or_one_step_of_their_own(batches: list[int], budget: int) -> None:
    text = replaced(
        BASE,
        ("grid: [32, 128]", f"grid: {batches}"),
        ("samples: 8192", f"samples: {budget}"),
        ("size: 8}", "size: 1}"),
    )
    for batch, point in batches_of(plan_of(text=text)).items():
        assert point.budget_samples is not None
        assert point.total_steps is not None
        assert point.budget_samples == batch * point.total_steps
        assert 0 <= budget - point.budget_samples < max(batch, 0.05 * budget + 1)


def test_a_budget_under_one_step_is_refused_with_all_batches_that_are_too_large() -> None:
    with pytest.raises(
        ConfigError, match=r"budget of 100 samples is less than one .* = 128, 512\. Raise .* 512 samples"
    ):
        plan_of("trial.budget.samples=100", "search_space.effective_batch_size.grid=[32, 128, 512]")


def test_epochs_become_samples_once_the_data_was_counted() -> None:
    override = "trial.budget.epochs=1.6"
    before, after = plan_of(override), plan_of(override, facts=FACTS)
    assert (before.total_samples, before.points[0].total_steps, before.rung_marks) == (None, None, ())
    assert said(before, r"its samples are known after the data was counted")
    assert after.budget_samples == 1536
    assert said(after, r"1\.6 epochs of 1,000 rows are 1,600 samples")


def test_tokens_become_samples_by_the_mean_of_the_data() -> None:
    plan = plan_of("trial.budget.tokens=64_000", facts=FACTS)
    assert plan.budget_samples == 1280
    assert said(plan, r"64,000 tokens of 1,000 rows with 50,000 target tokens are 1,280 samples")


def test_tokens_stay_unknown_where_only_rows_were_counted() -> None:
    plan = plan_of("trial.budget.tokens=64_000", facts=DataFacts(rows=1000, target_tokens=None))
    assert plan.budget_samples is None


def test_steps_with_one_batch_are_a_budget_in_samples() -> None:
    plan = plan_of("trial.budget.steps=50", "effective_batch_size=32")
    assert (plan.budget_samples, plan.points[0].total_steps, plan.rung_unit) == (1600, 50, "samples")


def test_steps_with_several_batches_are_unequal_and_said_to_be() -> None:
    plan = plan_of("trial.budget.steps=50", "trial.compare=unequal")
    assert {batch: point.budget_samples for batch, point in batches_of(plan).items()} == {32: 1600, 128: 6400}
    assert (plan.rung_unit, plan.rung_marks) == ("steps", (5, 15))
    assert said(plan, r"points do not see equal data")


def test_a_swept_budget_has_its_rungs_below_the_smallest() -> None:
    text = replaced(
        BASE, ("  budget: {samples: 8192}", "  compare: unequal"), ("grid: [1e-5, 1e-4]", "grid: [1e-5]")
    )
    plan = plan_of("search_space.samples.grid=[1280, 12800]", text=text)
    assert sorted({point.budget_samples for point in plan.points if point.budget_samples}) == [1280, 12800]
    assert plan.rung_marks == (128, 384)
    assert "samples" not in plan.points[0].settings


@pytest.mark.parametrize(
    ("overrides", "unit", "marks"),
    [
        ([], "samples", (820, 2458)),
        (["rungs={}"], "samples", (820, 2458)),
        (["rungs.fractions=[0.25]"], "samples", (2048,)),
        (["rungs.samples=[512, 1024]"], "samples", (512, 1024)),
        (["rungs={first: 256, reduction_factor: 4}"], "samples", (256, 1024, 4096)),
        (["rungs.steps=[4, 8]", "trial.compare=unequal"], "steps", (4, 8)),
    ],
)
def test_rungs_lie_where_the_section_says(overrides: list[str], unit: str, marks: tuple[int, ...]) -> None:
    plan = plan_of(*overrides)
    assert (plan.rung_unit, plan.rung_marks) == (unit, marks)


def test_a_rung_is_the_first_step_at_or_past_its_mark() -> None:
    rungs = {batch: [rung.step for rung in point.rungs] for batch, point in batches_of(plan_of()).items()}
    assert rungs == {32: [26, 77], 128: [7, 20]}


def test_a_rung_at_the_end_is_none_and_of_two_on_one_step_the_later_stays() -> None:
    plan = plan_of("rungs.samples=[100, 200, 8100]", "search_space.effective_batch_size.grid=[32, 512]")
    points = batches_of(plan)
    assert [rung.index for rung in points[32].rungs] == [0, 1, 2]
    assert [(rung.index, rung.step, rung.samples) for rung in points[512].rungs] == [(1, 1, 512)]
    assert said(plan, r"^Batch 512 \(16 steps\) skips the rungs at 100, 8,100 samples")


def test_a_rung_is_reached_by_samples_or_by_steps_as_it_is_given() -> None:
    in_samples = plan_of().points[0].rungs[0]
    in_steps = plan_of("rungs.steps=[4]", "trial.compare=unequal").points[0].rungs[0]
    assert [in_samples.is_reached(step=1, samples=samples) for samples in (819, 820)] == [False, True]
    assert [in_steps.is_reached(step=step, samples=10**6) for step in (3, 4)] == [False, True]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["direction=maximize"], r"`dev/loss` looks like a loss, but `direction` is maximize"),
        (["metric=dev/exact_match"], r"looks better when high, but `direction` is minimize"),
        (["trial.settings.packing=true"], r"rows of a pass are joined without padding; a sample is one row"),
        (
            ["trial.settings.packing=true"],
            r"`packing` with the model's own attention: .* square of all their tokens",
        ),
        (["trial.settings.warmup_steps=64"], r"Batch 128 \(64 steps\) ends within its warm-up of 64 steps"),
        (
            ["trial.settings.warmup_steps=9"],
            r"`constant` with a warm-up is trained as .*`constant_with_warmup`",
        ),
        (
            ["learning_rate=1e-5", "pruner={keep_frac: 0.5}"],
            r"^2 trials are fewer than `pruner\.min_peers` = 4",
        ),
        (
            ["trial.budget.samples=2048"],
            r"Batch 128 .* first rung after 2 steps, fewer than `pruner\.window_steps` = 8",
        ),
        ([TPE], r"`sampler\.n_trials` = 12, but the search space has only 4 different points"),
        (
            ["trial.budget.epochs=1", "trial.evaluation.at=[9000]"],
            r"`trial\.evaluation\.at` = 9000 does not lie below",
        ),
        (
            ["trial.checkpoint.every_samples=8192"],
            r"`trial\.checkpoint\.every_samples` = 8192 does not lie below",
        ),
        (["rungs.fractions=[]"], r"There is no rung below the budget"),
        (["search_space.learning_rate.grid=" + str([n / 1e5 for n in range(1, 2600)])], r"^5,198 points: "),
    ],
)
def test_what_is_probably_not_meant_is_said(overrides: list[str], told: str) -> None:
    assert said(plan_of(*overrides, facts=FACTS), told)


def test_a_plain_plan_says_nothing() -> None:
    kept = "trial.checkpoint.save_model=true"
    plan = plan_of("trial.budget.samples=81920", "pruner={keep_frac: 0.5}", kept)
    assert (plan.notes, plan.warnings) == ((), ())


def test_a_plan_that_keeps_no_model_says_so() -> None:
    assert said(plan_of(), r"^No trained model is kept: `trial\.checkpoint\.save_model: true` keeps")
    assert not said(plan_of("trial.checkpoint.save_model=true"), "model is kept")


def test_a_constant_rate_with_a_warm_up_is_resolved_to_what_transformers_calls_it() -> None:
    plan = plan_of("trial.settings.warmup_frac=0.1")
    assert {point.settings["lr_scheduler_type"] for point in plan.points} == {"constant_with_warmup"}


def test_a_short_way_to_the_first_rung_matters_only_to_signals_that_are_windowed() -> None:
    short, few = "trial.budget.samples=2048", r"fewer than `pruner\.window_steps`"
    by_metric = "pruner={signals: {dev/loss: {direction: minimize}}}"

    assert said(plan_of(short, "pruner={signals: {grad_norm: {direction: minimize}}}"), few)
    assert not said(plan_of(short, by_metric), few)


def test_points_that_are_the_same_training_are_planned_once() -> None:
    plan = plan_of(
        "search_space.lr_scheduler_type.grid=[constant, constant_with_warmup]",
        "trial.settings.warmup_steps=4",
    )
    assert (len(plan.points), plan.n_trials) == (4, 4)
    assert said(plan, r"^4 of 8 points resolve to the same training")


def ids_of(*overrides: str, text: str = BASE, facts: DataFacts | None = None) -> list[str]:
    return [point.point_id for point in plan_of(*overrides, text=text, facts=facts).points]


def test_ids_are_sixteen_hex_digits_and_differ_between_points() -> None:
    ids = ids_of()
    assert len(set(ids)) == 4
    assert all(re.fullmatch(r"[0-9a-f]{16}", point_id) for point_id in ids)


@pytest.mark.parametrize(
    "overrides",
    [
        ["study=other"],
        ["metric=dev/token_accuracy", "direction=maximize"],
        ["pruner=nop", "rungs.samples=[512]"],
        ["trial.checkpoint.every_samples=512"],
        ["trial.metrics={mean: {dev/loss: 1}}"],
        ["resources.threads_per_trial=1"],
        ["resources.slots=2", "dir=somewhere"],
        ["resources={gpus_per_trial: 4, sharding: fsdp2}"],
    ],
)
def test_an_id_does_not_change_with_what_changes_no_training(overrides: list[str]) -> None:
    assert ids_of(*overrides) == ids_of()


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "trial.model=org/other",
        "trial.train_data=other.jsonl",
        "trial.budget.samples=4096",
        "trial.settings.weight_decay=0.1",
        "resources.threads_per_trial=2",
        "trial.evaluation.max_rows=10",
    ],
)
def test_an_id_changes_with_what_changes_the_training_or_its_measures(override: str) -> None:
    assert not set(ids_of(override)) & set(ids_of())


def test_an_id_does_not_depend_on_the_order_of_keys() -> None:
    text = replaced(
        BASE,
        ("  learning_rate: {grid: [1e-5, 1e-4]}\n", ""),
        ("grid: [32, 128]}\n", "grid: [32, 128]}\n  learning_rate: {grid: [1e-4, 1e-5]}\n"),
    )
    assert set(ids_of(text=text)) == set(ids_of())


def test_an_id_does_not_depend_on_whether_a_setting_varies_or_is_fixed() -> None:
    assert set(ids_of("learning_rate=1e-4")) < set(ids_of())


def test_ids_stay_the_same_when_the_data_was_counted() -> None:
    assert ids_of("trial.budget.epochs=2") == ids_of("trial.budget.epochs=2", facts=FACTS)


def test_drawn_points_are_resolved_like_those_of_a_grid() -> None:
    config = config_of(BASE)
    for point in plan_sweep(config).points:
        assert plan_point(config, dict(reversed(point.params.items()))) == point


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"learning_rate": 1e-4}, r"needs a value for every dimension, but `effective_batch_size` has none"),
        (
            {"learning_rate": 0, "effective_batch_size": 32},
            r"`learning_rate` must be greater than 0, but got 0",
        ),
        ({"learning_rate": 1e-4, "effective_batch_size": 60}, r"Nearest valid values: 56 and 64"),
        ({"learning_rate": 1e-4, "effective_batch_size": 16384}, r"less than one optimiser step"),
        ({"learning_rate": 1e-4, "effective_batch_size": 32, "lora_rnk": 8}, r"Did you mean `lora_rank`\?"),
    ],
)
def test_a_point_added_by_hand_is_checked(params: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plan_point(config_of(BASE), params)


def test_a_point_off_the_grid_rounds_down_to_its_own_steps() -> None:
    point = plan_point(config_of(BASE), {"learning_rate": 3e-4, "effective_batch_size": 96})
    assert (point.budget_samples, point.total_steps) == (8160, 85)


def spec_of(config: SweepConfig, **params: Any) -> Any:
    point = plan_point(config, params)
    return trial_spec(config, point, number=3, attempt=2, trial_dir="/studies/demo/trials/3", threads=4)


def test_a_spec_tells_an_attempt_all_it_needs() -> None:
    spec = spec_of(config_of(BASE, "seed=7"), learning_rate=1e-4, effective_batch_size=128)
    assert (spec.number, spec.attempt, spec.study, spec.seed, spec.threads) == (3, 2, "demo", 7, 4)
    assert (spec.micro_batch_size, spec.gradient_accumulation_steps, spec.total_steps) == (8, 16, 64)
    assert (spec.params, spec.metric) == ({"learning_rate": 1e-4, "effective_batch_size": 128}, "dev/loss")
    assert spec.trial["model"] == "org/model"


@pytest.mark.parametrize(
    ("overrides", "marks", "evaluations", "checkpoints", "steps"),
    [
        ([], (820, 2458), (820, 2458), (), ()),
        (["trial.evaluation.at=end"], (820, 2458), (), (), ()),
        (["trial.evaluation.at=[512, 4096]"], (512, 820, 2458, 4096), (512, 4096), (), ()),
        (
            ["trial.checkpoint={every_samples: 3000, at: [100]}"],
            (820, 2458),
            (820, 2458),
            (100, 3000, 6000),
            (),
        ),
        (["rungs.steps=[4, 8]", "trial.compare=unequal"], (512, 1024), (512, 1024), (), (4, 8)),
    ],
)
def test_marks_are_where_windows_close_evaluations_happen_and_checkpoints_are_saved(
    overrides: list[str], marks: Any, evaluations: Any, checkpoints: Any, steps: Any
) -> None:
    spec = spec_of(config_of(BASE, *overrides), learning_rate=1e-4, effective_batch_size=128)
    assert (spec.marks, spec.evaluation_marks, spec.checkpoint_marks, spec.step_marks) == (
        marks,
        evaluations,
        checkpoints,
        steps,
    )


def test_a_trial_cannot_start_before_its_budget_is_known() -> None:
    config = config_of(BASE, "trial.budget.epochs=2")
    with pytest.raises(ConfigError, match=r"training data was not counted, so no trial can start"):
        spec_of(config, learning_rate=1e-4, effective_batch_size=128)


def test_a_function_without_a_batch_is_judged_by_samples() -> None:
    config = config_of(FUNCTION)
    point = plan_point(config, {"rate": 0.5})
    assert (point.batch, point.total_steps, point.budget_samples) == (None, None, 1000)
    assert point.settings == {"depth": 3, "rate": 0.5}
    assert [rung.mark for rung in point.rungs] == [100, 300]
    assert trial_spec(config, point, number=0, attempt=1, trial_dir="", threads=1).micro_batch_size is None


def test_a_function_with_a_budget_in_steps_is_judged_by_steps() -> None:
    config = config_of(FUNCTION, "trial.budget.steps=40")
    point = plan_point(config, {"rate": 0.5})
    assert point.total_steps == 40
    assert [(rung.unit, rung.mark) for rung in point.rungs] == [("steps", 4), ("steps", 12)]


def test_a_function_with_a_batch_is_planned_in_steps() -> None:
    point = plan_point(config_of(FUNCTION, "trial.settings.effective_batch_size=50"), {"rate": 0.5})
    assert point.total_steps == 20
    assert [rung.step for rung in point.rungs] == [2, 6]


def test_a_functions_batch_must_be_a_number() -> None:
    with pytest.raises(
        ConfigError, match=r"`effective_batch_size` must be a whole number of at least 1, but got many"
    ):
        plan_point(
            config_of(FUNCTION, "search_space={effective_batch_size: {choice: [8, 16]}}"),
            {"effective_batch_size": "many"},
        )
