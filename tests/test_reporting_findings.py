"""What the report says beyond the results: retries and gaps, spending, importance, uncertainty, evidence, PNGs."""

import dataclasses
import datetime
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_fixtures import START, make_config, make_record, make_view, view_of_5, view_of_16, view_of_many

from sweeper.errors import ConfigError
from sweeper.records import TrialState
from sweeper.reporting import write_report
from sweeper.reporting.findings import findings_of
from sweeper.reporting.importance import importance_of
from sweeper.reporting.page_tables import environment_table
from sweeper.reporting.pictures import write_pictures
from sweeper.reporting.plot_params import MAX_LINES, parallel_figure
from sweeper.reporting.plot_spent import spent_parts
from sweeper.reporting.plot_timeline import timeline_figure
from sweeper.reporting.slots import SlotUse, idle_gaps, slot_uses
from sweeper.reporting.summary import answer_sentences, savings_of, training_sentence
from sweeper.reporting.uncertainty import uncertainty_of, uncertainty_sentence
from sweeper.study.view import DriverFacts, StudyView


def at(seconds: float) -> str:
    return (START + datetime.timedelta(seconds=seconds)).isoformat()


def view_of_a_retry() -> StudyView:
    """One slot: trial 0 fails at 10 s and is done from 15 s to 40 s, trial 1 runs from 50 s to 60 s."""
    config = make_config({"learning_rate": {"grid": [1e-4, 3e-4]}})
    worker = {"node": "node-a", "pid": 1}
    attempts = [
        [
            {"worker": worker, "started": at(0), "ended": at(10), "error": "OSError: gone"},
            {"worker": worker, "started": at(15), "ended": at(40)},
        ],
        [{"worker": worker, "started": at(50), "ended": at(60)}],
    ]
    records = [
        make_record(
            number, TrialState.COMPLETE, {"learning_rate": rate}, history=history, attempts=len(history)
        )
        for number, (rate, history) in enumerate(zip((1e-4, 3e-4), attempts, strict=True))
    ]
    return make_view(records, config)


def test_an_attempt_that_was_set_aside_is_told_from_one_that_failed() -> None:
    view = view_of_a_retry()
    view.records[0].history[0] |= {"outcome": "set aside", "error": None}

    figure = timeline_figure(view)

    assert figure is not None
    assert [trace["name"] for trace in figure.data] == ["idle", "set aside", "COMPLETE"]
    assert "set aside for a likelier trial" in figure.data[1]["hovertext"][0]
    assert "1 time a trial was set aside for a likelier one." in figure.caption


def spans(uses: list[SlotUse]) -> list[tuple[int, int, float, float]]:
    return [(use.record.number, use.attempt, use.start_s, use.end_s) for use in uses]


def test_every_attempt_has_its_place_on_the_timeline() -> None:
    uses = slot_uses(view_of_a_retry())

    assert spans(uses) == [(0, 1, 0.0, 10.0), (0, 2, 15.0, 40.0), (1, 1, 50.0, 60.0)]
    assert [gap.seconds for gap in idle_gaps(uses)] == [5.0, 10.0]


def test_an_attempt_whose_driver_was_killed_ends_with_the_last_thing_recorded_before_the_next() -> None:
    view = view_of_a_retry()
    del view.records[0].history[0]["ended"]
    view.records[1].history[0] |= {"started": at(2), "ended": at(7)}

    assert spans(slot_uses(view))[0] == (0, 1, 0.0, 7.0)


def view_of_two_running() -> StudyView:
    """Two trials of one process, both still training; the driver has beaten a minute after they began."""
    config = make_config({"learning_rate": {"grid": [1e-4, 3e-4]}})
    worker = {"node": "node-a", "pid": 1}
    records = [
        make_record(
            number, TrialState.RUNNING, {"learning_rate": rate},
            history=[{"worker": worker, "started": at(0.002 * number)}], decisions=[],
        )
        for number, rate in enumerate((1e-4, 3e-4))
    ]  # fmt: skip
    view = make_view(records, config, state="running")
    return dataclasses.replace(
        view,
        driver=DriverFacts(host="node-a", pid=1, since=at(-5), last_beat=at(60)),
        environments=({"at": at(-5)},),
    )


def test_trials_that_still_run_have_a_slot_each_and_reach_to_the_drivers_newest_beat() -> None:
    view = view_of_two_running()

    uses = slot_uses(view)

    assert spans(uses) == [(0, 1, 0.0, 60.0), (1, 1, 0.002, 60.0)]
    assert [use.slot for use in uses] == ["node-a, slot 1", "node-a, slot 2"]
    assert '<th scope="row">slots</th><td>2</td>' in environment_table(view)


def test_trials_whose_driver_was_killed_reach_to_its_last_decision() -> None:
    view = view_of_two_running()
    view.records[0].decisions.append({"stop": False, "reason": "goes on", "at": at(40)})
    view.records[0].history.append(
        {"worker": {"node": "node-a", "pid": 2}, "started": at(100), "ended": at(150)}
    )
    view = dataclasses.replace(
        view, state="interrupted", driver=None, environments=({"at": at(-5)}, {"at": at(95)})
    )

    uses = slot_uses(view)

    assert spans(uses) == [(0, 1, 0.0, 40.0), (1, 1, 0.002, 40.0), (0, 2, 100.0, 150.0)]
    assert [use.slot for use in uses] == ["node-a, slot 1", "node-a, slot 2", "node-a, slot 1"]


def view_of_two_drivers() -> StudyView:
    """Two slots for an hour, and one of them again two days later; the first driver was killed."""
    config = make_config({"learning_rate": {"grid": [1e-4, 3e-4]}})
    first, later = {"node": "node-a", "pid": 1}, {"node": "node-b", "pid": 2}
    day = 86_400
    attempts = [
        [{"worker": first, "started": at(0)}, {"worker": first, "started": at(2 * day), "ended": at(2 * day + 60)}],
        [{"worker": later, "started": at(0), "ended": at(3600)}],
        [{"worker": first, "started": at(2 * day + 90), "ended": at(2 * day + 150)}],
    ]  # fmt: skip
    records = [
        make_record(number, TrialState.COMPLETE, {"learning_rate": 1e-4}, history=history)
        for number, history in enumerate(attempts)
    ]
    sessions = ({"at": at(-5)}, {"at": at(2 * day - 30)})
    return dataclasses.replace(make_view(records, config), environments=sessions)


def test_time_in_which_no_driver_ran_is_no_gap() -> None:
    uses = slot_uses(view_of_two_drivers())

    assert [(use.record.number, use.session, use.seconds) for use in uses] == [
        (0, 1, 3600.0), (1, 1, 3600.0), (0, 2, 60.0), (2, 2, 60.0)
    ]  # fmt: skip
    assert [(gap.slot, gap.seconds) for gap in idle_gaps(uses)] == [("node-a, slot 1", 30.0)]


def test_slots_of_one_driver_after_another_are_not_added_up() -> None:
    worker = [{"node": node, "pid": pid} for node in ("node-a", "node-b") for pid in (1, 2)]
    spans = [(0, 10), (0, 12), (100, 110), (100, 112)]
    records = [
        make_record(
            number, TrialState.COMPLETE, {"learning_rate": 1e-4},
            history=[{"worker": worker[number], "started": at(start), "ended": at(end)}],
        )
        for number, (start, end) in enumerate(spans)
    ]  # fmt: skip
    view = make_view(records, make_config({"learning_rate": {"grid": [1e-4]}}))

    view = dataclasses.replace(view, environments=({"at": at(-5)}, {"at": at(95)}))

    assert '<th scope="row">slots</th><td>2</td>' in environment_table(view)


def test_the_timeline_tells_of_gaps_and_retries() -> None:
    figure = timeline_figure(view_of_a_retry())

    assert figure is not None
    assert [trace["name"] for trace in figure.data] == ["idle", "tried again", "COMPLETE"]
    assert "busy 75 % of the time; all gaps together are 15 s. 1 attempt ended" in figure.caption
    assert "OSError: gone" in figure.data[1]["hovertext"][0]


@pytest.mark.parametrize("view", [view_of_5(), view_of_16(), view_of_many()])
def test_the_parts_of_the_training_spent_add_up_to_the_whole(view: StudyView) -> None:
    assert sum(spent_parts(view).values()) == savings_of(view).full


def seeded(*points: tuple[float, int, float]) -> StudyView:
    """Return a study of complete trials: rate, seed, value."""
    config = make_config({"learning_rate": {"grid": [1e-4, 3e-4]}, "seed": {"grid": [0, 1, 2]}})
    records = [
        make_record(number, TrialState.COMPLETE, {"learning_rate": rate, "seed": seed}, value=value)
        for number, (rate, seed, value) in enumerate(points)
    ]
    return make_view(records, config)


def test_repeats_over_seeds_give_the_best_value_its_uncertainty() -> None:
    view = seeded((1e-4, 0, 0.8), (1e-4, 1, 0.9), (1e-4, 2, 0.7), (3e-4, 0, 0.6))

    found = uncertainty_of(view)

    assert found is not None
    assert (found.n_seeds, found.runner_up) == (3, 3)
    assert (found.mean, found.sd, found.margin) == pytest.approx((0.8, 0.1, 0.3))
    assert "Over 3 seeds its params gave 0.8 ± 0.1 (mean and standard deviation)" in str(
        uncertainty_sentence(view)
    )


def test_a_single_seed_is_said_to_be_one() -> None:
    sentence = uncertainty_sentence(seeded((1e-4, 0, 0.8), (3e-4, 0, 0.6)))

    assert sentence == (
        "Its params were trained once, with one seed, so how far chance moves the value is not known; "
        "the next best, trial 1, is 0.2 behind."
    )


def test_trials_that_all_ended_alike_have_no_best_one() -> None:
    view = seeded((1e-4, 0, 0.5), (3e-4, 0, 0.5), (1e-3, 0, 0.5))

    assert answer_sentences(view) == [
        "All 3 complete trials ended with accuracy = 0.5 (maximize), from 3 trials: 3 complete. None is better than "
        "another; where a best one is named, it is trial 0, the first.",
        "Its params were trained once, with one seed, so how far chance moves the value is not known; trial 1, with "
        "other params, has the same value.",
        training_sentence(view),
    ]


def test_the_answer_tells_a_result_in_few_digits_and_of_no_stops_where_there_were_none() -> None:
    told = answer_sentences(seeded((1e-4, 0, 0.8219374124690696), (3e-4, 0, 0.6)))

    assert told[0].startswith("Trial 0 is best: accuracy = 0.8219 (maximize), from 2 trials")
    assert "were trained (100 %); no trial was stopped early" in told[2]


def test_the_param_that_moves_the_result_is_the_important_one() -> None:
    config = make_config({"learning_rate": {"grid": [1e-5, 1e-4, 3e-4]}, "seed": {"grid": [0, 1, 2]}})
    points = [(rate, seed) for rate in (1e-5, 1e-4, 3e-4) for seed in (0, 1, 2)]
    records = [
        make_record(n, TrialState.COMPLETE, {"learning_rate": r, "seed": s}, value=r * 1e3 + s / 1e6)
        for n, (r, s) in enumerate(points)
    ]

    importance = importance_of(make_view(records, config))

    assert list(importance.shares) == ["learning_rate", "seed"]
    assert importance.shares["learning_rate"] > 0.9
    assert importance.note == "Optuna's fANOVA over the 9 complete trials."


def test_importance_says_why_it_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "fewer than two vary" in importance_of(view_of_5()).note

    def without_scikit_learn(**_: Any) -> None:
        raise ImportError("No module named 'sklearn'")

    monkeypatch.setattr("sweeper.reporting.importance.FanovaImportanceEvaluator", without_scikit_learn)
    found = importance_of(view_of_16())

    assert not found.shares
    assert found.note == "Optuna's fANOVA needs scikit-learn: No module named 'sklearn'."


def test_the_lines_of_a_large_study_are_a_named_part() -> None:
    figure = parallel_figure(view_of_many(2000))

    assert figure is not None
    n_axes = 5
    n_lines = sum(
        len(trace["x"]) for trace in figure.data if trace["type"] == "scatter" and None in trace["x"]
    )
    assert n_lines / (n_axes + 1) <= MAX_LINES + 2
    assert "are drawn, evenly by result" in figure.caption


def test_report_json_holds_evidence_importance_and_uncertainty(tmp_path: Path) -> None:
    view = view_of_16()
    write_report(view, tmp_path)

    report = json.loads((tmp_path / "report.json").read_text())

    assert {"uncertainty", "evidence", "audit", "importance"} <= set(report)
    assert report["evidence"][0]["in_words"]
    assert sum(report["importance"]["shares"].values()) == pytest.approx(1.0)
    assert report["uncertainty"]["n_seeds"] == 1
    assert len(findings_of(view).evidence) == len(report["evidence"])


def test_trials_parquet_holds_what_the_csv_does(tmp_path: Path) -> None:
    config = make_config({"what": {"choice": [[1, 2], "a", 3.5]}})
    values: list[Any] = [[1, 2], "a", 3.5]
    records = [make_record(n, TrialState.COMPLETE, {"what": value}) for n, value in enumerate(values)]

    write_report(make_view(records, config), tmp_path)

    table = pd.read_parquet(tmp_path / "trials.parquet")
    assert table["params.what"].tolist() == ["[1, 2]", "a", "3.5"]
    assert table["number"].tolist() == pd.read_csv(tmp_path / "trials.csv")["number"].tolist()


@pytest.mark.slow
def test_pictures_are_pngs_of_the_main_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    paths = write_pictures(view_of_16(), tmp_path)

    assert [path.name for path in paths] == ["grid.png", "loss.png", "grad_norm.png", "metric.png"]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < 500_000


@pytest.mark.slow
@pytest.mark.parametrize("view", [view_of_many(), view_of_5()], ids=["many values", "one param"])
def test_results_that_are_no_table_of_cells_are_a_picture_of_points(tmp_path: Path, view: StudyView) -> None:
    pytest.importorskip("matplotlib")

    paths = write_pictures(view, tmp_path)

    assert paths[0].name == "grid.png"
    assert paths[0].read_bytes().startswith(b"\x89PNG")


def test_missing_matplotlib_is_told_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ConfigError, match=r"pip install 'matplotlib>="):
        write_pictures(view_of_16(), tmp_path)
