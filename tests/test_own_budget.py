"""Own functions that do not keep to the budget: told once at a trial's end, and where results are read."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sweeps import BROUGHT, Recorder, make_orchestrator, make_study, merged

from sweeper.api import load_study
from sweeper.config import config_from_dict
from sweeper.context import TrialContext
from sweeper.events import EventKind
from sweeper.executors.in_process import InProcessExecutor
from sweeper.reporting.status import status_text
from sweeper.reporting.summary import answer_sentences
from sweeper.study.view import StudyView

TOLD = "did not keep to the budget"
STEPS = {1e-4: 2, 1e-3: 1, 1e-2: 5}  # of ten samples; the budget is 20


def trains(context: TrialContext, *, steps: dict[float, int], batch: int = 10) -> float:
    for step in range(1, steps[context.params["learning_rate"]] + 1):
        context.report(step=step, samples=step * batch, loss=1.0)
    return float(context.params["learning_rate"])


def swept(
    folder: Path, *, steps: dict[float, int], batch: int = 10, **changes: Any
) -> tuple[list[str], StudyView]:
    study, recorder = make_study(folder, config_from_dict(merged(BROUGHT, changes))), Recorder()
    executor = InProcessExecutor(slots=1, function=lambda context: trains(context, steps=steps, batch=batch))
    executor.run(make_orchestrator(study, recorder))
    notes = [event.message for event in recorder.events if event.kind is EventKind.NOTE]
    return [note for note in notes if "budget" in note], load_study(folder)


def shown(view: StudyView) -> str:
    console = Console(width=300, file=io.StringIO(), color_system=None)
    console.print(status_text(view))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_a_function_that_trains_more_or_less_than_the_budget_is_told_once_a_trial(tmp_path: Path) -> None:
    notes, view = swept(tmp_path / "study", steps=STEPS)

    assert sorted(notes) == [
        f"trial {number} reported {samples} samples, but its budget is 20: results at unequal data do not compare. Let "
        "the function keep to `context.budget_samples`, or write `compare: unequal` in `trial`."
        for number, samples in ((1, 10), (2, 50))
    ]
    sentence = (
        "2 complete trials did not keep to the budget, by the samples that were reported: trial 1 came to 10 of 20. A "
        "longer one may win by its length alone; the function has to train, and report, up to `context.budget_samples`."
    )
    assert sentence in answer_sentences(view)
    text = shown(view)
    assert sentence in text
    assert " 10/20 " in text
    assert " 50/20 " in text
    assert "20/20" not in text


@pytest.mark.parametrize(
    ("steps", "batch"), [(dict.fromkeys(STEPS, 2), 9), (dict.fromkeys(STEPS, 2), 14)], ids=["below", "above"]
)
def test_a_part_of_a_step_beside_the_budget_is_not_told(
    tmp_path: Path, steps: dict[float, int], batch: int
) -> None:
    notes, view = swept(tmp_path / "study", steps=steps, batch=batch)

    assert notes == []
    assert TOLD not in "".join(answer_sentences(view)) + shown(view)
    assert "/20" not in shown(view)


def test_nothing_is_told_where_unequal_data_are_asked_for(tmp_path: Path) -> None:
    notes, view = swept(tmp_path / "study", steps=STEPS, trial={"compare": "unequal"})

    assert notes == []
    assert TOLD not in "".join(answer_sentences(view)) + shown(view)


def test_a_function_that_counts_no_samples_is_not_told(tmp_path: Path) -> None:
    notes, view = swept(tmp_path / "study", steps=STEPS, batch=0)

    assert notes == []
    assert TOLD not in "".join(answer_sentences(view))
