"""`sweeper compare`: items paired, claims that hold in simulation, and what differs between two trials."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import training_fixtures
from cli_fixtures import cli
from report_fixtures import view_of_5
from scipy import stats
from sweeps import BROUGHT
from training_fixtures import Tiny, sweep_of
from trial_functions import scores_its_rate

from sweeper import api
from sweeper.compare.run import compare_trials
from sweeper.compare.statistics import ItemComparison, bootstrap_interval, compare_items, permutation_p
from sweeper.compare.words import compared_json, compared_text, sentence
from sweeper.errors import ConfigError, StudyMismatchError
from sweeper.items import Items, write_items
from sweeper.records import Origin
from sweeper.study.view import StudyView

tiny = training_fixtures.tiny
OPTIONS = api.LaunchOptions(executor="in-process")


@pytest.fixture
def study(tmp_path: Path) -> StudyView:
    """Trials 0 and 1 were measured on 200 items of `dev` and 4 of `few`; trial 0 has the lower loss."""
    view = api.launch(BROUGHT | {"dir": str(tmp_path / "items")}, options=OPTIONS, function=scores_its_rate)
    rng = np.random.default_rng(0)
    hardness = rng.normal(5.0, 1.0, size=200)
    for number, shift in ((0, 0.0), (1, 0.3)):
        losses = hardness + shift + rng.normal(0, 0.5, size=200)
        right = rng.random(200) < 0.5
        items = Items(
            source="dev", ids=tuple(map(str, range(200))), lower_is_better=("loss",),
            measures={"loss": tuple(map(float, losses)), "exact_match": tuple(map(float, right))},
        )  # fmt: skip
        trial_dir = view.directory / "trials" / str(number)
        write_items(trial_dir, items)
        write_items(
            trial_dir, Items(source="few", ids=("a", "b", "c", "d"), measures={"acc": (1.0, 0.0, 1.0, 1.0)})
        )
    return view


def by_name(view: StudyView, a: int = 0, b: int = 1) -> dict[str, ItemComparison]:
    found = compare_trials(view, a, b).comparisons
    return {f"{comparison.source}/{comparison.measure}": comparison for comparison in found}


def test_a_real_difference_is_claimed_and_noise_is_not(study: StudyView) -> None:
    found = by_name(study)
    loss = found["dev/loss"]
    assert (loss.is_real, loss.n) == (True, 200)
    assert loss.low < 0.3 < loss.high
    assert sentence(loss).startswith("dev/loss: A beats B by 0.3")
    assert not found["dev/exact_match"].is_real
    told = sentence(found["dev/exact_match"])
    assert told.startswith("dev/exact_match: not shown to differ: A is ")
    assert told.endswith(", with a noise of 0.1 from the items alone.")


def test_an_interval_beside_zero_that_the_correction_takes_back_is_told_without_contradiction() -> None:
    found = ItemComparison(
        source="dev", measure="acc", n=120, means=(0.5603, 0.5), difference=0.06028, low=0.00926, high=0.1112,
        p=0.019, p_corrected=0.057,
    )  # fmt: skip
    assert sentence(found) == (
        "dev/acc: not shown to differ: A is 0.06028 better (9.26e-3 to 0.1112; p = 0.057, n = 120; A 0.5603, B 0.5), "
        "with a noise of 0.05097 from the items alone."
    )


def test_the_other_way_round_is_the_mirror(study: StudyView) -> None:
    one, other = by_name(study)["dev/loss"], by_name(study, 1, 0)["dev/loss"]
    assert (other.difference, other.p) == (pytest.approx(-one.difference), pytest.approx(one.p, abs=0.01))
    assert sentence(other).startswith("dev/loss: B beats A by 0.3")


def test_too_few_items_are_not_tested_and_the_smallest_number_is_told(study: StudyView) -> None:
    few = by_name(study)["few/acc"]
    assert (few.least, few.is_real, few.p) == (6, False, 1.0)
    assert "4 items in common cannot show any difference" in sentence(few)
    assert "the smallest number that can is 6" in sentence(few)


def test_where_items_are_few_the_interval_is_as_wide_as_student_s() -> None:
    rng, covered = np.random.default_rng(5), 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.normal(0.0, 1.0, size=8))
        covered += low <= 0.0 <= high
    assert covered / 200 > 0.91, "percentiles alone: 0.89"


def test_the_statistics_are_scipy_s() -> None:
    differences = np.random.default_rng(3).normal(0.2, 1.0, size=60)
    found = compare_items("s", "m", differences, np.zeros(60), lower_is_better=False)
    expected = stats.ttest_1samp(differences, 0.0)
    assert found.p == pytest.approx(expected.pvalue, abs=0.02)
    bounds = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high), abs=0.05)
    assert permutation_p(np.zeros(9)) == permutation_p(np.array([1.0] + [0.0] * 39)) == 1.0
    assert permutation_p(np.ones(6)) == pytest.approx(2 / 2**6)
    assert bootstrap_interval(np.full(9, 0.5)) == (0.5, 0.5)


@pytest.mark.slow
def test_no_difference_is_claimed_in_one_of_twenty_and_a_real_one_is_found() -> None:
    rng = np.random.default_rng(1)
    claims = finds = covered = 0
    for _ in range(300):
        first = (rng.random(150) < 0.6).astype(float)
        same, worse = ((rng.random(150) < rate).astype(float) for rate in (0.6, 0.35))
        claims += permutation_p(first - same) <= 0.05
        finds += permutation_p(first - worse) <= 0.05
        low, high = bootstrap_interval(first - worse)
        covered += low <= 0.25 <= high
    assert claims / 300 <= 0.08, "two standard errors above 5 %"
    assert finds / 300 > 0.9
    assert covered / 300 > 0.9


def test_what_differs_between_the_two_is_told(study: StudyView) -> None:
    path = study.directory / "trials" / "1" / "environment.json"
    facts = json.loads(path.read_text())
    facts["machine"]["packages"] = {**facts["machine"]["packages"], "torch": "0.0.1"}
    path.write_text(json.dumps(facts))
    found = compare_trials(study, 0, 1)
    assert found.settings == {"learning_rate": (1e-4, 1e-3)}
    assert set(found.environment) == {"machine.packages.torch"}
    text = compared_text(found)
    assert "learning_rate: 0.0001 -> 0.001" in text
    assert "machine.packages.torch" in text
    told = compared_json(found)
    assert told["differs"]["environment"]["machine.packages.torch"][1] == "0.0.1"
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_why_an_items_mean_is_not_the_trial_s_value_is_told(study: StudyView) -> None:
    text = compared_text(compare_trials(study, 0, 1))
    assert "A trial's loss is a mean over all target tokens; here each item counts alike." in text


def test_budgets_and_origins_that_differ_are_told(study: StudyView) -> None:
    assert "Budgets and origins: nothing differs." in compared_text(compare_trials(study, 0, 1))
    origin = Origin(by="me@here", request="r", continues=0, from_step=5, from_samples=50)
    longer = dataclasses.replace(study.records[1], budget_samples=200, samples=200, origin=origin)
    view = dataclasses.replace(study, records=(study.records[0], longer, *study.records[2:]))

    found = compare_trials(view, 0, 1)

    assert found.training["origin.continues"] == (None, 0)
    assert set(found.training) == {
        "budget_samples", "samples", "origin.continues", "origin.from_step", "origin.from_samples"
    }  # fmt: skip
    assert "  origin.continues: none -> 0\n" in compared_text(found)
    assert compared_json(found)["differs"]["training"]["budget_samples"][1] == 200


def test_a_terminals_escape_codes_are_not_printed(study: StudyView) -> None:
    trial_dir = study.directory / "trials" / "0"
    path = trial_dir / "environment.json"
    facts = json.loads(path.read_text())
    facts["machine"]["packages"] = {**facts["machine"]["packages"], "torch": "\x1b[2J"}
    path.write_text(json.dumps(facts))
    for number in (0, 1):
        values = {"acc\x1b[2J": (1.0, 0.0)}
        trial_dir = study.directory / "trials" / str(number)
        write_items(trial_dir, Items(source="odd", ids=("a", "b"), measures=values))

    text = compared_text(compare_trials(study, 0, 1))
    assert "odd/acc [2J" in text
    assert "\x1b" not in text


def test_the_command_prints_sentences_and_json(study: StudyView) -> None:
    run = cli("compare", study.directory, "0", "1")
    assert (run.code, "dev/loss: A beats B by" in run.out) == (0, True), run.err
    assert "Environment: nothing differs." in run.out
    told = json.loads(cli("compare", study.directory, "0", "1", "--json").out)
    assert [row["is_real"] for row in told["comparisons"]] == [True, False, False]


@pytest.mark.parametrize(
    ("pair", "error", "told"),
    [
        ((0, 0), ConfigError, "needs two trials"),
        ((0, 2), StudyMismatchError, "kept no values of single items"),
        ((0, 9), StudyMismatchError, "has no trial 9: its trials are 0 to"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    pair: tuple[int, int], error: type[Exception], told: str, study: StudyView
) -> None:
    with pytest.raises(error, match=told):
        compare_trials(study, *pair)


def test_a_trial_that_did_not_end_in_full_is_refused_with_what_can_be_compared() -> None:
    view = view_of_5()  # of each state one
    with pytest.raises(StudyMismatchError) as caught:
        compare_trials(view, 0, 2)
    assert "Trial 0 of study `tiny-batch-rate` is PRUNED" in str(caught.value)
    assert str(caught.value).endswith("Choose COMPLETE ones; `sweeper status` lists them.")


@pytest.mark.train
def test_a_training_keeps_items_whose_means_are_its_metrics(tiny: Tiny, tmp_path: Path) -> None:
    config = sweep_of(
        tiny,
        metric="dev/token_accuracy",
        direction="maximize",
        trial={
            "budget": {"samples": 32},
            "evaluation": {"generate": True, "max_new_tokens": 4, "batch_size": 5},
            "settings": {"effective_batch_size": 8, "micro_batch_size": 4},
        },
        search_space={"learning_rate": {"grid": [1e-5, 1e-2]}},
        dir=str(tmp_path / "real"),
    )
    view = api.launch(config, options=OPTIONS)
    found = {f"{one.source}/{one.measure}": one for one in compare_trials(view, 0, 1).comparisons}
    assert set(found) == {"dev/loss", "dev/token_accuracy", "dev/exact_match"}
    assert {one.n for one in found.values()} == {12}
    for side, record in enumerate(view.records):
        assert found["dev/exact_match"].means[side] == pytest.approx(record.metrics["dev/exact_match"])
        # Over rows here, over tokens there.
        assert found["dev/loss"].means[side] == pytest.approx(record.metrics["dev/loss"], rel=0.1)
    assert found["dev/loss"].difference < 0
    assert math.isfinite(found["dev/loss"].low)
    assert view.environments[0]["inputs"]["model"]
