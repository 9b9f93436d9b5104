"""`sweeper rerun`: the same trial again, and whether its curve is the same."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import training_fixtures
from cli_fixtures import cli, write_sweep
from sweeps import make_config, make_orchestrator, make_study
from training_fixtures import Hub, Tiny, chat_rows, sweep_of, write_jsonl
from trial_functions import steady

from sweeper import api
from sweeper.config.models import SweepConfig
from sweeper.confirm.again import points_config
from sweeper.confirm.rerun import compare_curves, rerun, rerun_text
from sweeper.errors import StudyMismatchError
from sweeper.executors.in_process import InProcessExecutor
from sweeper.preflight import facts
from sweeper.preflight.data import check_trial
from sweeper.preflight.data_report import DataReport
from sweeper.records import Origin
from sweeper.study import layout
from sweeper.study.machine import write_attempt_environment
from sweeper.study.study import Study
from sweeper.study.view import StudyView

tiny = training_fixtures.tiny
hub = training_fixtures.hub
OPTIONS = api.LaunchOptions(executor="in-process")


class Drifting:
    """A trial whose loss moves by `by` from step 3 on."""

    def __init__(self, by: float = 0.0) -> None:
        self.by = by

    def __call__(self, context: Any) -> dict[str, float]:
        for step in range(1, 6):
            loss = 1.0 / step + (self.by if step >= 3 else 0.0)
            context.report(step=step, samples=10 * step, loss=loss, grad_norm=1.0)
        return {"score": loss}


@pytest.fixture
def study(tmp_path: Path) -> StudyView:
    config = {
        "study": "made-up",
        "metric": "score",
        "direction": "minimize",
        "trial": {
            "function": "a:b",
            "budget": {"samples": 50},
            "settings": {"effective_batch_size": 10},
        },
        "search_space": {"rate": {"grid": [0.1, 0.2]}},
        "pruner": "nop",
        "dir": str(tmp_path / "made-up"),
    }
    return api.launch(config, options=OPTIONS, function=Drifting())


def test_the_same_code_gives_the_identical_curve(study: StudyView) -> None:
    found = rerun(str(study.directory), 1, options=OPTIONS, function=Drifting())
    assert (found.is_identical, found.n_steps, found.changed) == (True, 5, {})
    assert "Identical: all 5 steps, bit for bit." in rerun_text(found)


def test_other_code_is_found_out_with_the_step_and_the_distance(study: StudyView) -> None:
    found = rerun(str(study.directory), 1, options=OPTIONS, function=Drifting(by=1e-9))
    assert (found.is_identical, found.first_difference) == (False, 3)
    assert found.largest["loss"] == pytest.approx(1e-9, rel=1e-3)
    assert "part at step 3 of 5; at most: loss by 1e-9" in rerun_text(found)


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        (
            ("NVIDIA H200", "NVIDIA H200"),
            "It was trained on NVIDIA H200: kernels of GPUs may add in no fixed order",
        ),
        (("host", "NVIDIA H200"), "It was trained on host, then NVIDIA H200: kernels of GPUs"),
        (("host", "host"), None),
        ((None, None), None),
    ],
)
def test_a_difference_on_gpus_is_said_to_prove_little(
    study: StudyView, devices: Any, told: str | None
) -> None:
    again = rerun(str(study.directory), 1, options=OPTIONS, function=Drifting(by=1e-9)).again
    for place, number, device in ((study.directory, 1, devices[0]), (Path(again), 0, devices[1])):
        if device is not None:
            folder = layout.trial_dir(place, number)
            folder.mkdir(parents=True, exist_ok=True)
            write_attempt_environment(folder, device, computes_in_bf16=device != "host")
    after = api.load_study(again)

    found = rerun_text(compare_curves(study, study.record(1), after))

    assert (told or "part at step 3") in found
    assert ("kernels of GPUs" in found) == (told is not None)


def test_a_nan_at_the_same_step_is_the_same(study: StudyView) -> None:
    again = api.load_study(str(study.directory))
    (one, _) = again.records

    def curve(number: int) -> Any:
        frame = study.curve(number)
        frame.loc[2, "loss"] = float("nan")
        return frame

    both = [dataclasses.replace(view, records=(one,), curve=curve) for view in (study, again)]
    assert compare_curves(both[0], one, both[1]).is_identical


def test_a_trial_that_is_not_there_or_was_never_trained_is_refused(study: StudyView) -> None:
    with pytest.raises(StudyMismatchError, match="Study `made-up` has no trial 7: its trials are 0 to 1"):
        rerun(str(study.directory), 7, options=OPTIONS)


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        (Origin(by="me", continues=0, from_step=5), r"\(trains trial 0 on from step 5\)"),
        (
            Origin(by="me", cloned_from=0, warm_start=True, from_step=2),
            r"\(clone of trial 0 with its weights of step 2\)",
        ),
    ],
)
def test_a_trial_that_did_not_begin_from_scratch_is_refused(
    tmp_path: Path, origin: Origin, told: str
) -> None:
    study = make_study(tmp_path, make_config())
    study.record_origin(1, origin)
    InProcessExecutor(slots=1, function=steady).run(make_orchestrator(study))

    with pytest.raises(
        StudyMismatchError, match=rf"Trial 1 of study `\S+` was not trained from scratch {told}"
    ):
        rerun(str(tmp_path), 1, options=OPTIONS, function=steady)


def test_the_command_says_it_in_words_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("launch", write_sweep(tmp_path), "--executor", "in-process").code == 0
    words = ("rerun", "made-up", "--trial", "2", "--executor", "in-process")
    told = cli(*words)
    assert (told.code, "Identical: all 10 steps" in told.out) == (0, True), told.err
    assert json.loads(cli(*words, "--json").out)["is_identical"] is True
    assert cli("rerun", "made-up", "--trial", "99").code == 4


@pytest.mark.train
def test_a_real_training_is_repeated_bit_for_bit(tiny: Tiny, tmp_path: Path) -> None:
    config = sweep_of(
        tiny,
        trial={
            "budget": {"samples": 100},  # 96, a multiple of both batches; a rerun must not train 100
            "settings": {
                "lr_scheduler_type": "cosine",
                "warmup_samples": 16,
                "micro_batch_size": 4,
                "adam_beta2_half_life_tokens": 500,
            },
        },
        search_space={"effective_batch_size": {"grid": [4, 16]}, "learning_rate": {"grid": [1e-2]}},
        dir=str(tmp_path / "real"),
    )
    study = api.launch(config, options=OPTIONS)
    found = rerun(str(study.directory), 0, options=OPTIONS)
    assert found.is_identical
    assert (found.n_steps, found.n_missing) == (24, 0)
    assert found.values[0] == found.values[1] is not None


def small(tiny: Tiny, directory: Path, **data: Any) -> dict[str, Any]:
    """Return a sweep of two points that train two steps each."""
    trial = {"budget": {"epochs": 1}, "settings": {"effective_batch_size": 4}, **data}
    return sweep_of(tiny, study="small", trial=trial, dir=str(directory))


@pytest.mark.train
def test_other_data_is_refused_before_anything_is_trained_again(tiny: Tiny, tmp_path: Path) -> None:
    rows = Path(shutil.copy(tiny.train, tmp_path / "rows.jsonl"))
    study = api.launch(small(tiny, tmp_path / "small", train_data=str(rows)), options=OPTIONS)
    write_jsonl(rows, chat_rows(40, seed=2))

    run = cli("rerun", str(study.directory), "--trial", "1", "--executor", "in-process")

    assert run.code == 4
    assert f"`trial.train_data[0]` = `{rows}` has other content than when it began" in run.err
    assert not list(tmp_path.glob("small-*"))


@pytest.fixture
def checked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the data in this process, where the hub is stood in for."""

    @contextlib.contextmanager
    def checking(
        config: SweepConfig, *, directory: Path | None = None, trains_on_gpu: bool = False
    ) -> Iterator[Callable[[], DataReport]]:
        assert not trains_on_gpu
        yield lambda: check_trial(config, directory=directory)

    monkeypatch.setattr(facts, "checking_in_child", checking)


@pytest.mark.train
@pytest.mark.usefixtures("checked_here")
def test_data_of_the_hub_is_what_it_was_when_the_trial_was_trained(
    tiny: Tiny, tmp_path: Path, hub: Hub
) -> None:
    hub.rows = {"a" * 40: chat_rows(8)}
    # A name of its own: what another file's test has read in this process is kept, and not asked for again.
    study = api.launch(small(tiny, tmp_path / "small", train_data="org/rows-of-reruns"), options=OPTIONS)
    hub.rows["b" * 40] = chat_rows(12, seed=1)  # the budget of an epoch would be another one
    # As a driver leaves it that is killed before it has noted the data.
    config = points_config(study, [study.records[0].params], name=None, suffix="-rerun-0")
    Path(config.dir or "").mkdir()
    Study.create(config, directory=Path(config.dir or ""))

    found = [rerun(str(study.directory), number, options=OPTIONS) for number in (0, 1)]

    assert [(one.is_identical, one.n_steps) for one in found] == [(True, 2), (True, 2)]
    assert set(hub.asked) == {"a" * 40}
    again = Study.open(found[1].again)
    assert again.facts() == Study.open(str(study.directory)).facts()
    assert again.config.trial.train_data == study.config.trial.train_data
