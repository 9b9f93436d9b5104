"""`sweeper confirm`: which points it takes, the study it makes of them, what it says."""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from cli_fixtures import cli, write_sweep
from sweep_files import BASE, config_of, replaced
from sweeps import make_orchestrator, make_study, reopened

from sweeper import api
from sweeper.config import config_from_dict, dump_config
from sweeper.confirm.finalists import passed_over
from sweeper.confirm.outcome import outcome_json, outcome_sentences, outcome_text
from sweeper.confirm.run import ConfirmRequest, confirm
from sweeper.errors import ConfigError, StudyMismatchError, SweeperError
from sweeper.executors.in_process import InProcessExecutor
from sweeper.plan import plan_sweep
from sweeper.records import Origin
from sweeper.reporting.markdown import escaped, report_markdown
from sweeper.reporting.summary import answer_sentences
from sweeper.reporting.tables import report_json
from sweeper.study.view import StudyView

SCORES = {1e-5: 0.2, 1e-4: 0.6, 1e-3: 0.9, 1e-2: 0.899}
NOISE = 0.05
OPTIONS = api.LaunchOptions(executor="in-process")
SWEEP: dict[str, Any] = {
    "study": "noisy",
    "metric": "score",
    "direction": "maximize",
    "trial": {
        "function": "nobody:asks",
        "budget": {"samples": 20},
        "settings": {"effective_batch_size": 10},
    },
    "search_space": {"learning_rate": {"grid": list(SCORES)}},
    "rungs": {"samples": [10]},
    "pruner": "nop",
    "resources": {"slots": 1, "gpus_per_trial": 0},
}


def train(context: Any) -> dict[str, float]:
    """Score a rate, with noise that depends on rate and seed alone."""
    rate = context.params["learning_rate"]
    chance = zlib.crc32(f"{rate} {context.seed}".encode()) / 2**32 - 0.5
    is_lost = rate == context.settings.get("lost") and context.seed in context.settings.get("lost_seeds", [2])
    for step in (1, 2):
        loss = float("nan") if is_lost and step == 2 else 1.0
        context.report(step=step, samples=10 * step, loss=loss, grad_norm=1.0)
    return {"score": SCORES[rate] + NOISE * chance}


@pytest.fixture
def study(tmp_path: Path) -> StudyView:
    return api.launch(SWEEP | {"dir": str(tmp_path / "noisy")}, options=OPTIONS, function=train)


def confirmed(study: StudyView, **request: Any) -> Any:
    return confirm(str(study.directory), ConfirmRequest(**request), options=OPTIONS, function=train)


def test_the_best_points_are_trained_again_with_the_same_new_seeds(study: StudyView) -> None:
    found = confirmed(study, top=3, n_seeds=6)
    assert [finalist.params["learning_rate"] for finalist in found.finalists] == [1e-3, 1e-2, 1e-4]
    assert [sorted(values) for values in found.values] == [[1, 2, 3, 4, 5, 6]] * 3
    assert (found.view.name, found.view.state) == ("noisy-confirm", "finished")
    assert found.view.directory == study.directory.with_name("noisy-confirm")
    assert len(found.view.records) == 18


def test_what_differs_is_told_from_what_does_not(study: StudyView) -> None:
    found = confirmed(study, top=3)
    assert [comparison.is_real for comparison in found.comparisons] == [False, True]
    same, worse = outcome_text(found).splitlines()[-4:-2]
    assert re.fullmatch(
        r"Trials 3 and 2 are not shown to differ: trial 3 is [-e\d.]+ (better|worse) \(.+; p = .+, paired t, n = 8\), "
        r"with a noise of [-e\d.]+ from seed to seed\.",
        same,
    )
    assert worse.startswith("Trial 2 beats trial 1 by ")


def test_the_reports_of_both_studies_say_what_came_of_it(study: StudyView) -> None:
    before = answer_sentences(study)
    outcome = confirmed(study)
    told = " ".join(outcome_sentences(outcome))

    assert answer_sentences(study) != before
    assert f"Its best points were trained again in study `noisy-confirm`, over 8 new seeds each. {told}" in (
        answer_sentences(study)
    )
    assert f"It confirms study `noisy`, over 8 new seeds each, whose trials are meant here. {told}" in (
        answer_sentences(outcome.view)
    )
    (best,) = [sentence for sentence in outcome_sentences(outcome) if " beats trial " in sentence]
    assert escaped(best) in report_markdown(study)
    assert report_json(study)["confirm"]["sentences"] == outcome_sentences(outcome)
    assert report_json(study)["confirm"] == report_json(outcome.view)["confirm"]


def test_an_outcome_that_cannot_be_kept_is_told_nevertheless(
    study: StudyView, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = confirmed(study)

    def keep(directory: Path, document: dict[str, Any]) -> None:
        if directory == study.directory:
            raise SweeperError("it is a snapshot")

    monkeypatch.setattr("sweeper.confirm.run.keep_confirmation", keep)

    assert outcome_sentences(confirmed(study)) == outcome_sentences(first)
    assert "will not show this: it is a snapshot" in caplog.text


def test_a_best_trial_that_was_not_confirmed_is_named(study: StudyView) -> None:
    confirmed(study)
    path = study.directory / "confirm.json"
    document = json.loads(path.read_text())
    document["finalists"] = document["finalists"][1:]
    path.write_text(json.dumps(document))

    told = " ".join(answer_sentences(study))

    assert study.best is not None
    assert f"Trial {study.best.number}, the best one now, was not among them." in told


def test_a_kept_outcome_that_is_damaged_is_told_with_its_place(study: StudyView) -> None:
    path = study.directory / "confirm.json"
    path.write_text('{"study": "other"}')
    with pytest.raises(SweeperError, match=r"confirm\.json cannot be read .* or run `sweeper confirm` again"):
        answer_sentences(study)


def test_a_second_call_reads_what_the_first_one_trained(study: StudyView) -> None:
    first = confirmed(study, top=2)
    again = confirm(str(study.directory), ConfirmRequest(top=2), options=OPTIONS)  # no function at all
    assert (again.values, again.comparisons) == (first.values, first.comparisons)


def test_another_request_needs_another_name(study: StudyView) -> None:
    confirmed(study, top=2)
    with pytest.raises(StudyMismatchError, match="choose a new study name"):
        confirmed(study, top=3)
    assert confirmed(study, top=3, name="again").view.name == "again"


def test_a_baseline_is_compared_with_the_best(study: StudyView) -> None:
    found = confirmed(study, top=1, baseline=0)
    assert [finalist.trial for finalist in found.finalists] == [0, 2]
    (comparison,) = found.comparisons
    assert comparison.is_real
    assert 0.6 < comparison.difference < 0.8


def test_repeats_over_seeds_count_as_one_point_with_their_mean(tmp_path: Path) -> None:
    space = {**SWEEP["search_space"], "seed": {"grid": [0, 7]}}
    study = api.launch(
        SWEEP | {"dir": str(tmp_path / "noisy"), "search_space": space}, options=OPTIONS, function=train
    )
    found = confirmed(study, top=2)
    assert len({finalist.params["learning_rate"] for finalist in found.finalists}) == 2
    assert min(found.values[0]) == 8, "seeds that the study used are not used again"


def test_a_seed_that_diverges_is_told_and_left_out_of_the_pairs(tmp_path: Path) -> None:
    trial = {**SWEEP["trial"], "settings": {"effective_batch_size": 10, "lost": 1e-2}}
    study = api.launch(SWEEP | {"dir": str(tmp_path / "n"), "trial": trial}, options=OPTIONS, function=train)
    found = confirmed(study, top=2)
    assert found.comparisons[0].n == 7
    assert ", diverged on 1 of 8 seeds" in outcome_text(found)


@pytest.mark.parametrize(("n_lost", "others"), [(5, 3), (8, 0)])
def test_a_point_that_diverges_on_new_seeds_wins_over_nothing(
    tmp_path: Path, n_lost: int, others: int
) -> None:
    lost = {"lost": 1e-3, "lost_seeds": list(range(1, n_lost + 1))}
    trial = {**SWEEP["trial"], "settings": {"effective_batch_size": 10, **lost}}
    study = api.launch(SWEEP | {"dir": str(tmp_path / "n"), "trial": trial}, options=OPTIONS, function=train)

    found = confirmed(study, top=3)

    assert [comparison.n for comparison in found.comparisons] == [others, others]
    assert not any(comparison.is_real for comparison in found.comparisons)
    sentence = f"Trial 2 diverged on {n_lost} of 8 seeds, so nothing is claimed of trials 1 and 2"
    assert sentence in outcome_text(found)
    assert "beats" not in outcome_text(found)
    told = outcome_json(found)
    assert [finalist["n_diverged"] for finalist in told["finalists"]] == [n_lost, 0, 0]
    assert told["comparisons"][0]["n_diverged"] == [n_lost, 0]


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"top": 1}, "there are no two to compare"),
        ({"n_seeds": 5, "test": "permutation", "top": 2}, "The smallest number that can is 6"),
        ({"n_seeds": 1}, "The smallest number that can is 2"),
    ],
)
def test_a_request_that_can_show_nothing_is_refused_before_anything_is_trained(
    request_: dict[str, Any], told: str, study: StudyView
) -> None:
    with pytest.raises(ConfigError, match=told):
        confirmed(study, **request_)
    assert not study.directory.with_name("noisy-confirm").exists()


def test_a_baseline_that_is_not_there_does_not_match_the_study(study: StudyView) -> None:
    with pytest.raises(StudyMismatchError, match="Study `noisy` has no trial 9: its trials are 0 to 3"):
        confirmed(study, baseline=9)


def trained(tmp_path: Path, origins: dict[int, Origin]) -> StudyView:
    """Train the study, some of whose trials come from elsewhere."""
    study = make_study(tmp_path / "noisy", config_from_dict(SWEEP))
    for number, origin in origins.items():
        study.record_origin(number, origin)
    InProcessExecutor(slots=1, function=train).run(make_orchestrator(study))
    return reopened(study).view()


WARM = Origin(by="me", cloned_from=1, warm_start=True, from_step=1, from_samples=10)


def test_trials_that_began_with_another_one_s_weights_are_passed_over_and_named(tmp_path: Path) -> None:
    found = confirmed(trained(tmp_path, {2: WARM}), top=2)

    assert [finalist.trial for finalist in found.finalists] == [3, 1]
    told = "Trial 2 is passed over: its value came of another trial's weights, and confirming trains from scratch."
    assert told in outcome_text(found).splitlines()
    assert outcome_json(found)["passed_over"] == [2]


def test_a_warm_trial_is_named_only_where_it_would_be_a_finalist(tmp_path: Path) -> None:
    view = trained(tmp_path, {0: WARM})  # the worst of four
    assert [passed_over(view, top=top) for top in (1, 3, 4)] == [(), (), (0,)]


def test_a_study_of_warm_trials_alone_has_no_finalists(tmp_path: Path) -> None:
    view = trained(tmp_path, dict.fromkeys(range(4), WARM))
    with pytest.raises(StudyMismatchError, match="No trial of study `noisy` has completed from scratch, so"):
        confirmed(view)


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        (WARM, "clone of trial 1 with its weights of step 1"),
        (Origin(by="me", continues=1, from_step=2, from_samples=20), "trains trial 1 on from step 2"),
    ],
)
def test_a_baseline_that_was_not_trained_from_scratch_is_refused(
    tmp_path: Path, origin: Origin, told: str
) -> None:
    study = trained(tmp_path, {0: origin})
    with pytest.raises(StudyMismatchError, match=rf"Trial 0 .+ was not trained from scratch \({told}\), as"):
        confirmed(study, baseline=0)
    assert not study.directory.with_name("noisy-confirm").exists()


def test_the_command_prints_a_sentence_per_comparison_and_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("launch", write_sweep(tmp_path), "--executor", "in-process").code == 0
    words = ("confirm", "made-up", "--top", "2", "--seeds", "6", "--executor", "in-process")

    told = cli(*words)
    assert told.code == 0, told.err
    assert "score (maximize) of 2 points over 6 new seeds each" in told.out
    assert "Trial 2 beats trial 1 by 0.25 (0.25 to 0.25; p = 0.031, paired permutation, n = 6)." in told.out

    data = json.loads(cli(*words, "--json").out)
    assert (data["reference"], data["n_seeds"], data["state"]) == (2, 6, "finished")
    assert data["comparisons"][0]["candidate"] == 1
    assert data["comparisons"][0]["is_real"] is True


def test_a_study_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = cli("confirm", "nobody")
    assert (run.code, "nobody" in run.err, "Traceback" in run.err) == (4, True, False)


POINTS = """\
points:
  - {learning_rate: 1e-4, effective_batch_size: 32}
  - {learning_rate: 1e-5, effective_batch_size: 128}
"""


def test_listed_points_are_trained_in_their_order_and_no_others() -> None:
    config = config_of(BASE + POINTS)
    assert [tuple(point.params.values()) for point in plan_sweep(config).points] == [(1e-4, 32), (1e-5, 128)]
    assert config_of(dump_config(config)) == config


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (("1e-4, effective_batch_size: 32", "1e-4"), "sweep.yaml:18: `points[0]` must name every dimension"),
        (
            ("rate: 1e-4, effective_batch_size: 32", "rate: 2e-4, effective_batch_size: 32"),
            "is not among the",
        ),
        (("rate: 1e-5, effective_batch_size: 128", "rate: 1e-4, effective_batch_size: 32"), "the same as"),
    ],
)
def test_points_outside_the_grid_are_refused(edit: tuple[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(BASE + replaced(POINTS, edit))
    assert told in str(caught.value)


def test_the_budget_of_confirmed_points_is_the_study_s(tmp_path: Path) -> None:
    space = {"learning_rate": {"log_uniform": [1e-5, 1e-2]}, "effective_batch_size": {"choice": [10, 40]}}
    sampler = {"name": "random", "n_trials": 5}
    trial = {**SWEEP["trial"], "budget": {"samples": 400}, "settings": {}}
    changes = {"dir": str(tmp_path / "drawn"), "search_space": space, "sampler": sampler, "trial": trial}
    study = api.launch(
        SWEEP | changes, options=OPTIONS, function=lambda context: {"score": context.params["learning_rate"]}
    )

    def again(context: Any) -> dict[str, float]:
        return {"score": context.params["learning_rate"]}

    found = confirm(str(study.directory), ConfirmRequest(top=2, n_seeds=2), options=OPTIONS, function=again)
    assert {record.budget_samples for record in found.view.records} == {400}
    assert config_of((found.view.directory / "sweep.yaml").read_text()).points == found.view.config.points
