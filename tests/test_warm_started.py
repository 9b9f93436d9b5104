"""What is said of trials that began with another one's weights: they may be best, and teach nothing of params."""

import dataclasses
import io
import json
from pathlib import Path

import pandas as pd
import pytest
from cli_fixtures import cli
from export_fixtures import finished_study
from report_fixtures import BUDGET, make_config, make_record, make_view
from rich.console import Console
from sweeps import make_config as make_sweep_config
from sweeps import make_orchestrator, make_study, reopened
from trial_functions import steady

from sweeper.errors import StudyMismatchError
from sweeper.executors.in_process import InProcessExecutor
from sweeper.optimum.edge import edges_of, points_beyond
from sweeper.optimum.rates import best_rate_of
from sweeper.progress.live import LiveProgress
from sweeper.records import Origin, TrialRecord, TrialState
from sweeper.reporting import write_report
from sweeper.reporting.export.chosen import choose_trial
from sweeper.reporting.export.model_card import model_card
from sweeper.reporting.export.model_dir import kept_model
from sweeper.reporting.export.write import export_trial, find_format
from sweeper.reporting.importance import importance_of
from sweeper.reporting.markdown import report_markdown
from sweeper.reporting.origins import origin_text
from sweeper.reporting.page_tables import grid_table
from sweeper.reporting.plot_grid import grid_figure
from sweeper.reporting.status import best_text
from sweeper.reporting.studies import FoundStudy, studies_json, studies_table
from sweeper.reporting.summary import answer_sentences
from sweeper.reporting.uncertainty import uncertainty_of
from sweeper.study.recorded import record_study
from sweeper.study.view import StudyView

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
COMPLETE = TrialState.COMPLETE
WARM = Origin(by="me", cloned_from=1, warm_start=True, from_step=32, from_samples=1024)


def warm_record(number: int = len(RATES), *, rate: float = 1e-5, value: float = 0.99) -> TrialRecord:
    """Return a clone below every rate that was tried, better than all."""
    return make_record(
        number, TrialState.COMPLETE, {"learning_rate": rate, "warmup_steps": 0}, value=value, origin=WARM
    )


def view_of_a_warm_best(*, has_clone: bool = True, complete: bool = True) -> StudyView:
    """Five rates, of which the second is best, and a better clone that began with its weights."""
    config = make_config({"learning_rate": {"grid": list(RATES)}, "warmup_steps": {"grid": [0]}})
    state = TrialState.COMPLETE if complete else TrialState.FAIL
    records = [
        make_record(number, state, {"learning_rate": rate, "warmup_steps": 0})
        for number, rate in enumerate(RATES)
    ]
    return make_view([*records, *([warm_record()] if has_clone else [])], config)


def test_a_warm_best_is_told_with_the_best_from_scratch() -> None:
    assert answer_sentences(view_of_a_warm_best())[:3] == [
        "Trial 5 is best: accuracy = 0.99 (maximize), from 6 trials: 6 complete.",
        "Trial 5 began with the weights of trial 1 at its step 32, so its params alone need not give this value; from "
        "scratch, trial 1 is best: accuracy = 0.9.",
        "Trial 1's params were trained once, with one seed, so how far chance moves the value is not known; the next "
        "best from scratch, trial 0, is 0.0783 behind.",
    ]


def test_where_no_trial_from_scratch_is_complete_that_is_told() -> None:
    view = view_of_a_warm_best(complete=False)

    assert answer_sentences(view)[1].endswith("; no trial from scratch is complete.")
    assert (uncertainty_of(view), edges_of(view), best_rate_of(view)) == (None, [], None)


def test_a_warm_trial_moves_neither_fit_nor_edge_nor_uncertainty_nor_importance() -> None:
    plain, view = view_of_a_warm_best(has_clone=False), view_of_a_warm_best()

    assert best_rate_of(view) == best_rate_of(plain)
    assert edges_of(view) == edges_of(plain) == []
    assert points_beyond(view) == []
    assert uncertainty_of(view) == uncertainty_of(plain)


def test_a_rate_that_only_a_warm_trial_had_counts_as_not_tried() -> None:
    config = make_config({"learning_rate": {"grid": [3e-4, 1e-3, 3e-3]}, "warmup_steps": {"grid": [0]}})
    records = [
        make_record(n, TrialState.COMPLETE, {"learning_rate": rate, "warmup_steps": 0})
        for n, rate in enumerate([3e-4, 1e-3, 3e-3])
    ]

    view = make_view([*records, warm_record(3, value=0.1)], config)

    assert [(edge.name, edge.value, edge.is_smallest) for edge in edges_of(view)] == [
        ("learning_rate", 3e-4, True)
    ]
    assert answer_sentences(view)[-2] == (
        "learning_rate = 3e-4 is the smallest value that was tried from scratch; a better one may lie beyond it."
    )


def importance_records() -> list[TrialRecord]:
    return [
        make_record(n, TrialState.COMPLETE, {"learning_rate": rate, "warmup_steps": w}, value=rate * 1e3 + w / 1e6)
        for n, (rate, w) in enumerate((rate, w) for rate in (1e-5, 1e-4, 3e-4) for w in (0, 5, 10))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("origin", "note"),
    [
        (WARM, "; 1 that began with another trial's weights are left out."),
        (
            Origin(by="me", continues=0, from_step=64, from_samples=BUDGET),
            "; 1 that began with another trial's",
        ),
    ],
)
def test_trials_that_did_not_begin_from_scratch_are_not_in_the_importances(origin: Origin, note: str) -> None:
    config = make_config(
        {"learning_rate": {"grid": [1e-5, 1e-4, 3e-4]}, "warmup_steps": {"grid": [0, 5, 10]}}
    )
    begun = make_record(
        9, TrialState.COMPLETE, {"learning_rate": 1e-5, "warmup_steps": 10}, value=99.0, origin=origin
    )

    found = importance_of(make_view([*importance_records(), begun], config))

    assert found.shares == importance_of(make_view(importance_records(), config)).shares
    assert found.note.startswith("Optuna's fANOVA over the 9 complete trials; 1 that began")
    assert note in found.note


def test_the_files_of_a_report_promise_no_warm_value_from_scratch(tmp_path: Path) -> None:
    page = write_report(view_of_a_warm_best(), tmp_path).read_text()

    began = "began with the weights of trial 1 at its step 32"
    header = (tmp_path / "best.yaml").read_text().splitlines()[:5]
    assert header[3] == f"# It {began}. This file trains from scratch, which need not give that value."
    launch = page[page.index('<h2 id="launch">') :]
    assert "(accuracy was 0.99 after a warm start)" in launch
    assert f"Trial 5 {began}. The command trains from scratch, which need not give that value." in launch
    assert "<dt>best accuracy, warm start</dt>" in page
    assert f"Best config: the params of trial 5, which {began}" in page
    assert "best: trial 5, warm start" in page
    assert "0.99 (best, warm start)" in (tmp_path / "report.md").read_text()
    table = pd.read_csv(tmp_path / "trials.csv", keep_default_na=False)
    assert table["origin"].tolist() == [*[""] * 5, "clone of trial 1 with its weights of step 32"]


def text_and_table(*records: TrialRecord) -> tuple[str, str]:
    """Return the row of cells in the report's Markdown, and the page's table of cells, over two rates and batches."""
    config = make_config(
        {"effective_batch_size": {"grid": [32, 64]}, "learning_rate": {"grid": [1e-4, 1e-3]}}
    )
    others = [
        make_record(n, TrialState.COMPLETE, {"effective_batch_size": 64, "learning_rate": rate}, value=0.5)
        for n, rate in enumerate([1e-4, 1e-3])
    ]
    view = make_view([*others, *records], config)
    (row,) = [line for line in report_markdown(view).splitlines() if line.startswith("| 32 |")]
    return row, grid_table(view)


def at_32(number: int, state: TrialState, *, origin: Origin | None = None, value: float = 0.4) -> TrialRecord:
    params = {"effective_batch_size": 32, "learning_rate": 1e-4}
    return make_record(
        number, state, params, origin=origin, **({"value": value} if state is COMPLETE else {})
    )


def test_a_cell_shows_what_its_params_gave_from_scratch() -> None:
    row, table = text_and_table(at_32(2, COMPLETE, origin=WARM, value=0.49), at_32(3, COMPLETE))

    assert row == "| 32 | 0.4 |  |"
    assert "warm start" not in table


@pytest.mark.parametrize(("value", "text"), [(0.49, "0.49 (warm start)"), (0.99, "0.99 (best, warm start)")])
def test_a_cell_that_has_no_other_result_says_of_a_warm_one_that_it_is(value: float, text: str) -> None:
    row, table = text_and_table(at_32(2, COMPLETE, origin=WARM, value=value), at_32(3, TrialState.PRUNED))

    assert row == f"| 32 | {text} |  |"
    assert f"{value} (warm start)" in table


def test_the_heat_map_says_of_a_warm_result_that_it_is_one_where_there_is_room() -> None:
    config = make_config(
        {"effective_batch_size": {"grid": [32, 64]}, "learning_rate": {"grid": [1e-4, 1e-3]}}
    )
    other = make_record(0, COMPLETE, {"effective_batch_size": 64, "learning_rate": 1e-3}, value=0.5)
    figure = grid_figure(make_view([other, at_32(1, COMPLETE, origin=WARM)], config))

    assert figure is not None
    assert figure.data[2]["text"] == ["0.4<br>(warm start)", "0.5"]
    assert figure.extra["short_text"][2] == ["0.4", "0.5"]
    assert "began with the weights of trial 1" in str(figure.data[1]["hovertext"])


def test_exports_of_a_warm_best_promise_nothing_from_scratch(tmp_path: Path) -> None:
    study = finished_study(tmp_path)
    view = study.view()
    view.records[1].origin = Origin(by="me", cloned_from=0, warm_start=True, from_step=3, from_samples=24)
    began = "It began with the weights of trial 0 at its step 3"

    text = export_trial(choose_trial(view, study.facts(), None), find_format("trl")).text
    assert f"# score = 0.75 (maximize, the study's best). {began}; this trains from scratch\n" in text
    with pytest.raises(StudyMismatchError, match=rf"{began}, and a launch trains from scratch\.$"):
        kept_model(view, view.records[1])
    assert f"{began}." in model_card(view, view.records[1], tmp_path)


def test_nothing_is_suggested_beyond_a_warm_best_alone(tmp_path: Path) -> None:
    study = make_study(tmp_path, make_sweep_config())
    study.record_origin(0, WARM)
    study.claim(0)
    study.finish(0, TrialState.COMPLETE, value=1.0, metrics={"score": 1.0})

    told = cli("add", study.directory, "--suggest")

    assert (told.code, "no trial from scratch is complete yet" in told.err) == (3, True)


def test_a_warm_best_is_told_by_status_ls_and_the_live_view() -> None:
    view = view_of_a_warm_best()
    found = [FoundStudy(name=view.name, directory=view.directory, view=view)]
    console = Console(width=120, record=True, file=io.StringIO())

    assert "0.99, began with the weights of trial 1 at its step 32 (" in best_text(view).plain
    console.print(studies_table(found))
    console.print(LiveProgress(console, view.config, view.records).render())
    shown = console.export_text()
    assert "accuracy = 0.99 (trial 5, warm start)" in shown
    assert "best so far: trial 5, accuracy = 0.99 (warm start, learning_rate=1e-5" in shown
    assert studies_json(found)[0]["best"]["origin"]["cloned_from"] == 1


def test_a_clone_whose_source_had_no_checkpoint_any_more_began_from_scratch() -> None:
    view = view_of_a_warm_best()
    view.records[5].origin = dataclasses.replace(WARM, from_step=0, from_samples=0)

    assert view.from_scratch[0].number == 5
    assert answer_sentences(view)[1].startswith("Its params were trained once")


def test_replay_knows_nothing_of_a_warm_trial(tmp_path: Path) -> None:
    study = make_study(tmp_path, make_sweep_config())
    study.record_origin(0, WARM)
    InProcessExecutor(slots=1, function=steady).run(make_orchestrator(study))

    again = reopened(study)

    numbers = [number for number, record in again.records().items() if record.has_result]
    assert [point.number for point in record_study(again).points] == numbers[1:]


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        (None, ""),
        (Origin(by="me", request="r"), "added"),
        (WARM, "clone of trial 1 with its weights of step 32"),
        (Origin(by="me", cloned_from=1), "clone of trial 1"),
        (Origin(by="me", continues=0, from_step=64), "trains trial 0 on from step 64"),
        (Origin(by="me", retries=3), "retries trial 3"),
    ],
)
def test_where_a_trial_comes_from_is_said_in_words(origin: Origin | None, text: str) -> None:
    record = warm_record()
    record.origin = origin

    assert origin_text(record) == text


def test_a_continued_trial_comes_after_those_that_are_compared_and_is_marked() -> None:
    view = view_of_a_warm_best(has_clone=False)
    origin = Origin(by="me", continues=1, from_step=64, from_samples=BUDGET)
    longer = make_record(5, TrialState.COMPLETE, dict(view.records[1].params), value=0.99, origin=origin)
    view = make_view([*view.records, longer], view.config)

    text = report_markdown(view)

    rows = [line for line in text.splitlines() if "| COMPLETE |" in line]
    assert rows[0].startswith("| 1 |")
    assert rows[-1].startswith("| 5 |")
    assert rows[-1].endswith("| trains trial 1 on from step 64 |  |")
    assert "training samples that training every trial in full takes" in text


def test_the_json_says_of_which_trial_the_uncertainty_is(tmp_path: Path) -> None:
    write_report(view_of_a_warm_best(), tmp_path)

    report = json.loads((tmp_path / "report.json").read_text())

    assert (report["best"]["number"], report["uncertainty"]["trial"]) == (5, 1)
