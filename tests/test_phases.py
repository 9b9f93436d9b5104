"""Data sets mixed by weight and trained in phases: the order of rows, the plan, and the rules."""

import itertools
from typing import Any

import pytest
from report_fixtures import make_view
from sweep_files import config_of

from sweeper.errors import ConfigError
from sweeper.phases import Course
from sweeper.plan import DataFacts, Plan, plan_point, plan_sweep, trial_spec
from sweeper.records import TrialRecord, TrialState
from sweeper.reporting.export.chosen import choose_trial
from sweeper.training.mixing import Mixture, mixed_order
from sweeper.training.stream import SampleStream

SETS = {"a": (0, 50), "b": (50, 20), "c": (70, 200)}

SWEEP = """\
study: demo
metric: dev/loss
direction: minimize
trial:
  model: org/model
  data_sets: {a: org/a, b: org/b, c: org/c}
  eval_data: {dev: dev.jsonl}
  budget: {samples: 1024}
  phases:
    - {name: first, data: a}
    - {name: second, data: [b, c]}
  settings: {effective_batch_size: 32, micro_batch_size: 8}
search_space:
  data_strategy: {grid: [stacked, phased]}
"""


def order(*mixtures: Mixture, seed: int = 0) -> list[int]:
    return mixed_order(SETS, mixtures, seed=seed).indices(0, sum(mixture.samples for mixture in mixtures))


def set_of(row: int) -> str:
    return next(name for name, (first, n) in SETS.items() if first <= row < first + n)


def phased(text: str = SWEEP, *overrides: str) -> Any:
    return plan_point(config_of(text, *overrides), {"data_strategy": "phased"})


# 10, 100 and 40 target tokens a row.
FACTS = DataFacts(rows=270, target_tokens=10_500, sets={"a": (50, 500), "b": (20, 2000), "c": (200, 8000)})
ONE_DIMENSION = SWEEP.replace(
    "data_strategy: {grid: [stacked, phased]}", "learning_rate: {grid: [1e-5, 1e-4]}"
)
HALF_LIFE = "adam_beta2_half_life_tokens=64000"


def in_parts(*overrides: str) -> Plan:
    """Return the plan of a budget of 32,000 target tokens, mixed or in phases as the overrides say."""
    text = ONE_DIMENSION
    if "data_strategy=phased" not in overrides:
        text = text.replace(
            "  phases:\n    - {name: first, data: a}\n    - {name: second, data: [b, c]}\n", ""
        )
    return plan_sweep(config_of(text, "trial.budget.tokens=32000", *overrides), facts=FACTS)


@pytest.mark.parametrize(
    ("overrides", "tokens_per_sample"),
    [
        ((), 10_500 / 270),
        (("data_weights={a: 1, b: 0, c: 0}",), 10),
        (("data_weights={a: 1, b: 3, c: 0}",), (10 + 3 * 100) / 4),
        (
            ("data_strategy=phased",),
            (10 + 10_000 / 220) / 2,
        ),  # half of the samples each; b and c by their rows
        (("data_strategy=phased", "replay_frac=0.5"), (10 + (10 + 10_000 / 220) / 2) / 2),
        (("data_strategy=phased", "data_weights={a: 1, b: 1, c: 0}"), (10 + 100) / 2),
    ],
)
def test_a_budget_in_tokens_counts_the_samples_as_they_are_drawn(
    overrides: tuple[str, ...], tokens_per_sample: float
) -> None:
    plan = in_parts(*overrides)
    assert plan.budget_samples == pytest.approx(
        32_000 / tokens_per_sample, abs=64
    )  # two phases of whole steps
    (note,) = [note for note in plan.notes if "samples." in note and "32,000 tokens" in note]
    assert ("as they are drawn" in note) == (overrides != ())


def test_each_phase_has_the_beta2_of_its_own_target_tokens() -> None:
    phases = in_parts("data_strategy=phased", "trial.budget.samples=1024", HALF_LIFE).points[0].phases
    assert [phase.settings["adam_beta2"] for phase in phases] == [
        pytest.approx(2 ** (-32 * tokens / 64_000)) for tokens in (10, 10_000 / 220)
    ]


def test_weights_change_the_beta2_of_a_half_life() -> None:
    (note,) = [
        note
        for note in in_parts("data_weights={a: 1, b: 0, c: 0}", "trial.budget.samples=1024", HALF_LIFE).notes
        if "half-life" in note
    ]
    assert f"gives `adam_beta2` {2 ** (-320 / 64_000):.6g} at batch 32; " in note
    assert "mean over the data sets as they are drawn" in note


def test_without_counts_of_each_data_set_all_rows_are_one() -> None:
    whole = DataFacts(rows=270, target_tokens=10_500)  # as an older study has them
    plan = plan_sweep(
        config_of(ONE_DIMENSION, "data_strategy=phased", "trial.budget.tokens=32000"), facts=whole
    )
    assert plan.budget_samples == pytest.approx(32_000 * 270 / 10_500, abs=64)


def test_an_epoch_of_mixed_data_sets_is_said_to_be_no_round_of_each() -> None:
    assert any(
        "An epoch is as many samples as there are rows" in note
        for note in in_parts("data_strategy=phased", "trial.budget.epochs=4").notes
    )


@pytest.mark.parametrize(
    "dimension",
    [
        "max_length: {grid: [64, 128]}",
        "loss_on: {grid: [all, answers]}",
        "data_strategy: {grid: [stacked, phased]}",
    ],
)
def test_a_budget_in_tokens_is_refused_where_points_differ_in_the_tokens_of_a_sample(dimension: str) -> None:
    text = SWEEP.replace("data_strategy: {grid: [stacked, phased]}", dimension)
    overrides = [] if "strategy" in dimension else ["data_strategy=phased"]
    with pytest.raises(
        ConfigError, match=r"target tokens of a sample, which `\w+` in the search space changes"
    ):
        config_of(text, "trial.budget.tokens=32000", *overrides)


@pytest.mark.parametrize("step", [1, 5, 17, 40])
def test_a_course_agrees_with_counting_every_step(step: int) -> None:
    sizes = [8] * 4 + [32] * 10 + [16] * 100
    course = Course(((4, 8), (10, 32), (0, 16)))
    ends = list(itertools.accumulate(sizes))
    assert course.samples_at(step) == ends[step - 1]
    assert course.first_step_at(ends[step - 1]) == step
    assert course.first_step_at(ends[step - 1] + 1) == step + 1


def test_every_prefix_holds_each_data_set_by_its_weight() -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 5.0}
    sets = [set_of(row) for row in order(Mixture(weights=weights, samples=2000))]
    for n in (10, 100, 1000, 2000):
        for name, weight in weights.items():
            assert sets[:n].count(name) == pytest.approx(n * weight / 8, abs=4)


def test_the_rows_of_a_data_set_all_come_once_before_any_comes_again() -> None:
    rows = order(Mixture(weights={"a": 1.0, "b": 1.0}, samples=120))
    of_a = [row for row in rows if set_of(row) == "a"]
    of_b = [row for row in rows if set_of(row) == "b"]
    assert sorted(of_a[:50]) == list(range(50))
    assert sorted(of_b[:20]) == sorted(of_b[20:40]) == list(range(50, 70))


def test_another_seed_is_another_order_and_the_same_one_the_same() -> None:
    mixture = Mixture(weights={"a": 1.0, "b": 1.0}, samples=100)
    assert order(mixture) == order(mixture)
    assert order(mixture) != order(mixture, seed=1)


def test_a_longer_mixture_begins_as_a_shorter_one() -> None:
    weights = {"a": 1.0, "c": 3.0}
    first = Mixture(weights={"b": 1.0}, samples=40)
    short, long = (order(first, Mixture(weights=weights, samples=n, replay_frac=0.2)) for n in (64, 500))
    assert long[: len(short)] == short


def test_replayed_are_rows_of_earlier_phases_by_their_share() -> None:
    rows = order(
        Mixture(weights={"a": 1.0}, samples=30),
        Mixture(weights={"b": 1.0}, samples=400, replay_frac=0.25),
    )
    replayed = [row for row in rows[30:] if set_of(row) == "a"]
    assert len(replayed) == pytest.approx(100, abs=2)
    assert set(replayed) == set(rows[:30])  # what was trained on, not what the data set also has


def test_a_data_set_of_two_phases_is_read_on_where_it_stood() -> None:
    rows = order(Mixture(weights={"c": 1.0}, samples=120), Mixture(weights={"c": 1.0}, samples=80))
    assert sorted(rows) == list(range(70, 270))


def test_the_order_in_which_weights_are_written_changes_no_row() -> None:
    """The study's storage sorts them, and a point's id takes no notice of it."""
    weights = {"c": 3.0, "a": 1.0, "b": 0.0}
    assert order(Mixture(weights=weights, samples=100)) == order(
        Mixture(weights=dict(sorted(weights.items())), samples=100)
    )


def test_a_weight_of_zero_leaves_a_data_set_out() -> None:
    rows = order(Mixture(weights={"a": 1.0, "b": 0.0}, samples=100))
    assert {set_of(row) for row in rows} == {"a"}


def test_streams_with_different_keys_are_different_orders() -> None:
    assert SampleStream(50, seed=0, key=(1,)).indices(0, 50) != SampleStream(50, seed=0, key=(2,)).indices(
        0, 50
    )


def test_phases_share_the_budget_equally_unless_told_otherwise() -> None:
    point = phased()
    assert [(phase.name, phase.steps, phase.samples) for phase in point.phases] == [
        ("first", 16, 512), ("second", 16, 512),
    ]  # fmt: skip
    assert (point.budget_samples, point.total_steps) == (1024, 32)


def test_a_phase_has_its_own_share_batch_rate_and_schedule() -> None:
    text = SWEEP.replace(
        "{name: first, data: a}",
        "{name: first, data: a, budget_frac: 0.25, effective_batch_size: 64, learning_rate: 1e-3, warmup_frac: 0.5}",
    ).replace(
        "data: [b, c]}", "data: [b, c], budget_frac: 0.75, lr_scheduler_type: linear, replay_frac: 0.1}"
    )
    first, second = phased(text).phases
    assert (first.steps, first.samples, second.steps, second.samples) == (4, 256, 24, 768)
    assert (first.settings["learning_rate"], second.settings["learning_rate"]) == (1e-3, 2e-5)
    # As everywhere: `constant` with a warm-up is the schedule that knows one.
    assert first.settings["lr_scheduler_type"] == "constant_with_warmup"
    assert (second.settings["lr_scheduler_type"], second.settings["warmup_frac"]) == ("linear", 0.0)
    assert (first.replay_frac, second.replay_frac) == (0.0, 0.1)


def test_rungs_of_a_phased_point_lie_at_its_own_steps() -> None:
    text = SWEEP.replace("data: a}", "data: a, effective_batch_size: 64}") + "rungs: {samples: [100, 600]}\n"
    config = config_of(text)
    point = plan_point(config, {"data_strategy": "phased"})
    assert [(rung.step, rung.samples) for rung in point.rungs] == [(2, 128), (11, 608)]
    spec = trial_spec(config, point, number=0, attempt=1, trial_dir="", threads=1)
    assert spec.phases == point.phases
    assert spec.evaluation_marks == (100, 600)


def test_a_phase_that_starts_from_the_best_has_the_end_before_it_evaluated() -> None:
    config = config_of(SWEEP + "rungs: {samples: [100]}\n", "phase_start=best")
    point = plan_point(config, {"data_strategy": "phased"})
    spec = trial_spec(config, point, number=0, attempt=1, trial_dir="", threads=1)
    assert spec.evaluation_marks == (100, 512)


def test_what_only_phases_use_makes_no_other_point_of_a_stacked_one() -> None:
    plan = plan_sweep(config_of(SWEEP + "  replay_frac: {grid: [0.0, 0.1]}\n"))
    assert [point.params["data_strategy"] for point in plan.points] == ["stacked", "phased", "phased"]
    assert any("are trained once" in warning for warning in plan.warnings)


def test_weights_make_no_other_point_where_each_phase_has_one_data_set() -> None:
    weights = "  data_weights: {grid: [{a: 1, b: 1, c: 1}, {a: 1, b: 2, c: 3}]}\n"
    alone = SWEEP.replace("data: [b, c]", "data: b")
    assert [len(plan_sweep(config_of(text + weights)).points) for text in (SWEEP, alone)] == [4, 3]


def test_a_strategy_that_is_not_set_leaves_a_points_id_alone() -> None:
    plain = SWEEP.replace("  phases:\n    - {name: first, data: a}\n    - {name: second, data: [b, c]}\n", "")
    ids = {
        plan_sweep(config_of(plain.replace("{data_strategy: ", "{").replace(
            "  data_strategy: {grid: [stacked, phased]}", "  learning_rate: {grid: [1e-4]}"
        ), *given)).points[0].point_id
        for given in ([], ["data_strategy=stacked"])
    }  # fmt: skip
    assert len(ids) == 1


def test_the_plan_tells_the_phases() -> None:
    plan: Plan = plan_sweep(config_of(SWEEP))
    assert (
        "In phases: first 512 samples (16 steps at batch 32), then second 512 samples (16 steps at batch 32)."
        in (plan.notes)
    )


def test_a_plan_warns_where_stacked_and_phased_points_are_judged_by_their_losses() -> None:
    told = [
        any("do not compare" in warning for warning in plan_sweep(config_of(SWEEP, *given)).warnings)
        for given in ((), ("pruner=nop",), ("data_strategy=phased",))
    ]
    assert told == [True, False, False]


def test_phases_of_different_batches_are_cut_by_what_fits() -> None:
    text = SWEEP.replace("{name: first, data: a}", "{name: first, data: a, effective_batch_size: 64}")
    point = phased(text.replace("micro_batch_size: 8", "micro_batch_size: auto"))
    assert [phase.batch.micro_batch_size for phase in point.phases] == [64, 32]


def test_a_phase_under_one_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="Phase `first` has 16 of the budget's 32 samples"):
        phased(SWEEP, "trial.budget.samples=32")


def test_a_phased_trial_is_not_exported_to_a_trainer_that_knows_no_phases() -> None:
    config = config_of(SWEEP, "resources.gpus_per_trial=0")  # else torch is asked what GPU there is
    points = plan_sweep(config).points
    records = [
        TrialRecord(number=n, state=TrialState.COMPLETE, params=point.params, point_id=point.point_id, value=float(n))
        for n, point in enumerate(points)
    ]  # fmt: skip
    view = make_view(records, config)
    assert choose_trial(view, None, 0).total_steps == 32
    with pytest.raises(ConfigError, match="Trial 1 of study `demo` was trained in phases"):
        choose_trial(view, None, 1)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("data: a}", "data: aa}", "trains on `aa`, which is no data set. Did you mean `a`? There are `a`, `b` and `c`"),
        ("name: second", "name: first", "Two phases are called `first`"),
        ("data: a}", "data: a, replay_frac: 0.1}", "but `first` is the first"),
        ("data: a}", "data: a, budget_frac: 0.5}", "must all be given in one form"),
        ("data: a}", "data: a, samples: 8}", "must all be given in one form"),
        ("data: a}", "data: a, warmup_steps: 2, warmup_frac: 0.1}", "exclude each other"),
        ("data: a}", "data: a, effective_batch_size: 12}", "Phase `first`: `effective_batch_size` must be a multiple"),
        ("{samples: 1024}", "{steps: 32}", "A budget in steps cannot be cut into phases"),
        ("micro_batch_size: 8", "data_weights: {a: 1, b: 1}", "gives no weight to `c`"),
        ("micro_batch_size: 8", "data_weights: {a: 1, b: 1, c: 1, cc: 1}", "names `cc`, which is no data set"),
        ("micro_batch_size: 8", "data_weights: {a: 0, b: 1, c: 1}", "every data set of phase `first` the weight 0"),
        ("micro_batch_size: 8", "data_weights: {a: 0, b: 0, c: 0}", "nothing is left to train on"),
        ("stacked, phased", "stacked", "no point trains in phases"),
        ("  data_sets: {a: org/a, b: org/b, c: org/c}", "  train_data: org/a", "`trial.data_sets` is missing"),
        ("  eval_data", "  train_data: org/a\n  eval_data", "both name what is trained on"),
        ("a: org/a,", "a: org/a, 'a b': org/a,", "`a b` is no valid name of a data set"),
        ("data: a}", "data: a, learning_rat: 1}", "unknown key `learning_rat`. Did you mean `learning_rate`?"),
    ],
)  # fmt: skip
def test_a_wrong_strategy_is_told(old: str, new: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan_sweep(config_of(SWEEP.replace(old, new)))
    assert told in str(error.value)


def test_phases_that_do_not_make_up_the_budget_are_told() -> None:
    fractions = SWEEP.replace("data: a}", "data: a, budget_frac: 0.5}").replace(
        "c]}", "c], budget_frac: 0.6}"
    )
    with pytest.raises(ConfigError, match=r"must sum to 1, but 0.5 \+ 0.6 = 1.1"):
        config_of(fractions)
    samples = SWEEP.replace("data: a}", "data: a, samples: 24}").replace("c]}", "c], samples: 1001}")
    with pytest.raises(ConfigError, match=r"`trial.budget.samples`, which is 1024, but 24 \+ 1001 = 1025"):
        config_of(samples)


def test_the_best_by_the_training_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="only by a metric of an eval set"):
        config_of(SWEEP.replace("metric: dev/loss", "metric: loss"), "phase_start=best")


@pytest.mark.parametrize("metric", ["bench/score", "bench/arc"])
def test_the_best_by_a_benchmark_is_refused(metric: str) -> None:
    text = SWEEP.replace("metric: dev/loss", f"metric: {metric}")
    text += "benchmarks: {when: completed, tasks: {arc: {}}}\n"
    assert config_of(text).metric == metric
    with pytest.raises(
        ConfigError, match=rf"`metric` = `{metric}` is measured after the last step alone\. Choose"
    ):
        config_of(text, "phase_start=best")
