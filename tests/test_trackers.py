"""Trackers hold what the study holds, and a sweep does not depend on them."""

import dataclasses
import hashlib
import importlib.util
import json
import logging
import math
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
from cli_fixtures import cli, write_sweep
from report_fixtures import view_of_16
from waiting import wait_for

from sweeper.api import load_study
from sweeper.events import Event, EventKind
from sweeper.records import Decision, StepRow, TrialRecord, TrialState
from sweeper.study.view import StudyView
from sweeper.trackers.base import Point, Run
from sweeper.trackers.listener import TrackerListener

VIEW = view_of_16()


def rows_of(number: int, after: int = 0) -> list[StepRow]:
    rows = [StepRow(*row) for row in VIEW.curve(number).itertuples(index=False, name=None)]
    return [row for row in rows if row.step > after]


class Notes:
    """A tracker that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, object]] = []

    is_new = False

    def start(self, run: Run) -> bool:
        self.told.append(("start", run.number, dict(run.params)))
        return not self.is_new

    def log(self, run: Run, points: Sequence[Point]) -> None:
        self.told.append(("log", run.number, [(p.step, dict(p.values)) for p in points]))

    def tag(self, run: Run, tags: Mapping[str, str]) -> None:
        self.told.append(("tag", run.number, dict(tags)))

    def end(self, run: Run) -> None:
        self.told.append(("end", run.number, run.state))

    def close(self) -> None:
        self.told.append(("close", -1, None))


class Broken(Notes):
    """A tracker whose server is gone."""

    def log(self, run: Run, points: Sequence[Point]) -> None:
        raise ConnectionError("the server\nis gone")

    def close(self) -> None:
        super().close()
        raise ConnectionError("the server is gone for good")


def event(kind: EventKind, record: TrialRecord, **facts: Decision) -> Event:
    return Event(kind=kind, at_s=1.0, record=record, **facts)  # type: ignore[arg-type]


def life_of(record: TrialRecord) -> list[Event]:
    stop = Decision(trial=record.number, stop=True, rule="early_dynamics", reason="loss ranks 5 of 6", rung=1)
    return [
        event(EventKind.TRIAL_STARTED, record),
        event(EventKind.REPORTED, record),
        event(EventKind.REPORTED, record),
        event(EventKind.DECIDED, record, decision=stop),
        event(EventKind.TRIAL_ENDED, record),
    ]


def test_a_tracker_is_told_a_trials_life_and_every_step_once() -> None:
    notes, record = Notes(), VIEW.records[0]

    with TrackerListener("notes", lambda: notes, rows=rows_of, logged=Path("steps")) as listener:
        for one in life_of(record):
            listener.on_event(one)

    assert [word for word, _, _ in notes.told] == ["start", "log", "tag", "tag", "end", "close"]
    steps = [step for step, _ in notes.told[1][2]]  # type: ignore[attr-defined]
    assert steps == list(range(1, record.step + 1))
    assert notes.told[2][2] == {
        "decision": "pruned at rung 1",
        "rule": "early_dynamics",
        "reason": "loss ranks 5 of 6",
    }
    assert notes.told[4][2] is TrialState.PRUNED


def test_a_tracker_is_told_that_a_trial_is_set_aside() -> None:
    notes, record = Notes(), VIEW.records[0]
    aside = Decision(trial=0, stop=False, aside=True, rule="learned", reason="others are likelier", rung=0)

    with TrackerListener("notes", lambda: notes, rows=rows_of, logged=Path("steps")) as listener:
        listener.on_event(event(EventKind.DECIDED, record, decision=aside))

    assert notes.told[0][2]["decision"] == "set aside at rung 0"  # type: ignore[index]


def test_a_resumed_sweep_hands_on_only_what_its_tracker_has_not_got() -> None:
    notes, record = Notes(), VIEW.records[0]
    half = record.step // 2

    def upto(step: int) -> TrackerListener:
        def rows(number: int, after: int) -> list[StepRow]:
            return [row for row in rows_of(number, after) if row.step <= step]

        return TrackerListener("notes", lambda: notes, rows=rows, logged=Path("kept", "steps"))

    for last in (half, record.step):
        with upto(last) as listener:
            for one in life_of(record)[:2]:
                listener.on_event(one)
    with Path("kept", "steps").open("a") as file:
        file.write(f"{record.number} 1")  # a driver that died while it wrote
    with upto(record.step) as listener:
        listener.on_event(life_of(record)[1])

    notes.is_new = True  # the tracker's own files are gone, or it writes elsewhere now
    with upto(record.step) as listener:
        for one in life_of(record)[:2]:
            listener.on_event(one)

    logged = [[step for step, _ in told[2]] for told in notes.told if told[0] == "log"]  # type: ignore[attr-defined]
    assert logged == [
        [*range(1, half + 1)], [*range(half + 1, record.step + 1)], [*range(1, record.step + 1)]
    ]  # fmt: skip


class Slow(Notes):
    """A tracker that takes nothing in until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def start(self, run: Run) -> bool:
        assert self.may.wait(10)
        return super().start(run)


def test_a_tracker_that_is_behind_gets_every_step_in_order_and_a_curve_is_not_read_for_each_report() -> None:
    slow, records, n_read, on_disk = Slow(), [dataclasses.replace(one) for one in VIEW.records[:2]], 0, 3

    def rows(number: int, after: int) -> list[StepRow]:
        nonlocal n_read
        n_read += 1
        return [row for row in rows_of(number, after) if row.step <= on_disk]

    with TrackerListener("slow", lambda: slow, rows=rows, logged=Path("steps")) as listener:
        for record in records:
            listener.on_event(event(EventKind.TRIAL_STARTED, record))
        ends = [record.step for record in records]
        for step in range(1, max(ends) + 1):
            for record, end in zip(records, ends, strict=True):
                record.step = min(step, end)
                listener.on_event(event(EventKind.REPORTED, record))
        slow.may.set()
        wait_for("what was on disk", lambda: len([told for told in slow.told if told[0] == "log"]) == 2)
        on_disk = max(ends)
        for record in records:
            listener.on_event(event(EventKind.TRIAL_ENDED, record))

    for record, end in zip(records, ends, strict=True):
        logged = [
            step
            for word, number, points in slow.told
            if (word, number) == ("log", record.number)
            for step, _ in points  # type: ignore[attr-defined]
        ]
        assert logged == [*range(1, end + 1)]
    assert n_read == 4


def test_the_end_waits_for_a_tracker_as_long_as_it_comes_further(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.trackers.listener.CLOSING_S", 0.5)
    monkeypatch.setattr("sweeper.trackers.listener._AT_A_TIME", 1)
    record, wait = VIEW.records[0], threading.Event()

    class Steady(Notes):
        def log(self, run: Run, points: Sequence[Point]) -> None:
            wait.wait(1.2 / record.step)
            super().log(run, points)

    steady = Steady()
    with TrackerListener("steady", lambda: steady, rows=rows_of, logged=Path("steps")) as listener:
        for happened in life_of(record):
            listener.on_event(happened)

    assert ("end", record.number, record.state) in steady.told
    assert "Waiting for tracker `steady`, which is behind. Ctrl-C leaves it." in caplog.text
    assert "left so" not in caplog.text


@pytest.mark.parametrize(("name", "is_hurried"), [("CLOSING_S", False), ("_HURRIED_S", True)])
def test_a_tracker_that_takes_nothing_more_is_left_behind_at_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str, is_hurried: bool
) -> None:
    monkeypatch.setattr(f"sweeper.trackers.listener.{name}", 0.2)
    slow = Slow()
    with TrackerListener("slow", lambda: slow, rows=rows_of, logged=Path("steps")) as listener:
        if is_hurried:
            listener.hurry()
        for happened in life_of(VIEW.records[0]):
            listener.on_event(happened)

    slow.may.set()
    wait_for("the end of its thread", lambda: ("close", -1, None) in slow.told)
    assert (
        "Tracker `slow` is behind and left so. The study has everything, and `sweeper resume` hands on the rest."
        in caplog.text
    )


def test_a_resumed_sweep_hands_on_what_its_tracker_has_not_got_of_trials_that_have_ended() -> None:
    told, half, lost, running = (dataclasses.replace(record) for record in VIEW.records[:4])
    first = Notes()
    with TrackerListener("notes", lambda: first, rows=rows_of, logged=Path("steps")) as listener:
        for happened in [*life_of(told), *life_of(half)[:2]]:
            listener.on_event(happened)

    notes = Notes()
    ended = [Run.of(record) for record in (told, half, lost)]
    with TrackerListener("notes", lambda: notes, rows=rows_of, logged=Path("steps"), ended=ended) as listener:
        for happened in life_of(running):
            listener.on_event(happened)

    for record, words in ((half, ["start", "tag", "end"]), (lost, ["start", "log", "tag", "end"])):
        assert [word for word, number, _ in notes.told if number == record.number] == words
        assert ("end", record.number, record.state) in notes.told
    assert told.number not in [number for _, number, _ in notes.told]
    assert ("end", running.number, running.state) in notes.told
    again = Notes()
    with TrackerListener("notes", lambda: again, rows=rows_of, logged=Path("steps"), ended=ended):
        pass
    assert [word for word, _, _ in again.told] == ["close"]


def test_a_file_of_ends_that_were_never_kept_is_gone_by_once() -> None:
    """Versions before ends were kept have written steps alone."""
    Path("steps").write_text("".join(f"{record.number} {record.step}\n" for record in VIEW.records[:2]))
    ended = [Run.of(record) for record in VIEW.records[:3]]
    for words in (["start", "log", "tag", "end", "close"], ["close"]):
        notes = Notes()
        listener = TrackerListener("notes", lambda: notes, rows=rows_of, logged=Path("steps"), ended=ended)  # noqa: B023
        assert listener.is_behind is (len(words) > 1)
        with listener:
            pass
        assert [word for word, _, _ in notes.told] == words


def test_a_resume_of_a_finished_study_hands_on_what_a_tracker_has_not_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    monkeypatch.setattr("sweeper.trackers.check_trackers", lambda *_, **__: None)
    monkeypatch.setattr("sweeper.readiness.check_trackers", lambda *_, **__: None, raising=False)
    monkeypatch.setattr("sweeper.trackers._tensorboard", lambda _: notes)
    view = swept(tmp_path, "tensorboard")
    assert cli("resume", tmp_path / "study").err.count("handed on") == 0
    logged = view.directory / "trackers" / "tensorboard.steps"
    lines = logged.read_text().splitlines(keepends=True)
    logged.write_text("".join(line for line in lines if line != "3 ended\n"))

    notes.told.clear()
    run = cli("resume", tmp_path / "study")

    assert run.code == 3
    assert "nothing is left to train. What its trackers had not got was handed on." in run.err
    assert [(word, number) for word, number, _ in notes.told if word == "end"] == [("end", 3)]
    assert load_study(str(view.directory)).state == "finished"


def test_a_sweep_that_is_interrupted_hands_on_nothing_of_trials_that_ended_before() -> None:
    notes, waits = Notes(), threading.Event()

    def rows(number: int, after: int) -> list[StepRow]:
        assert waits.wait(10)
        return rows_of(number, after)

    ended = [Run.of(record) for record in VIEW.records[:3]]
    with TrackerListener("notes", lambda: notes, rows=rows, logged=Path("steps"), ended=ended) as listener:
        wait_for("the first trial", lambda: bool(notes.told))
        listener.hurry()
        listener._todo.put(None)
        waits.set()

    assert [number for word, number, _ in notes.told if word == "end"] == [0]


def test_a_tracker_gets_the_last_steps_of_a_trial_that_is_interrupted() -> None:
    notes, record = Notes(), VIEW.records[0]

    with TrackerListener("notes", lambda: notes, rows=rows_of, logged=Path("steps")) as listener:
        listener.on_event(event(EventKind.NOTE, record))

    assert [step for step, _ in notes.told[0][2]] == [*range(1, record.step + 1)]  # type: ignore[attr-defined]


def test_a_signal_that_is_not_reported_is_not_handed_on_as_nan() -> None:
    notes = Notes()
    rows = [StepRow(1, 8, 0, 2.5, None, None), StepRow(2, 16, 0, math.nan, None, None)]

    with TrackerListener(
        "notes", lambda: notes, rows=lambda number, after: rows, logged=Path("steps")
    ) as listener:
        listener.on_event(event(EventKind.REPORTED, VIEW.records[0]))

    (first, second) = notes.told[0][2]  # type: ignore[misc]
    assert first == (1, {"loss": 2.5})
    assert second == (2, {"loss": pytest.approx(math.nan, nan_ok=True)})


def test_a_failing_tracker_says_so_once_is_closed_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()

    with (
        caplog.at_level(logging.WARNING),
        TrackerListener("broken", lambda: broken, rows=rows_of, logged=Path("steps")) as listener,
    ):
        for record in VIEW.records[:3]:
            for one in life_of(record):
                listener.on_event(one)

    assert [record.getMessage() for record in caplog.records] == [
        "Tracker `broken` failed and is told nothing more: ConnectionError: the server is gone. "
        "The sweep goes on, and the study has everything: `sweeper resume` hands on what is missing."
    ]
    assert [word for word, _, _ in broken.told] == ["start", "close"]


def test_a_trackers_failure_is_told_without_the_passwords_of_its_environment(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:s3cret/word@db/x")
    monkeypatch.setenv("WANDB_API_KEY", "k3y")

    def make() -> Notes:
        raise ValueError("no server at postgresql://me:s3cret/word@db/x, nor with k3y")

    with caplog.at_level(logging.WARNING), TrackerListener("mine", make, rows=rows_of, logged=Path("steps")):
        pass

    assert "ValueError: no server at postgresql://me:***@db/x, nor with ***." in caplog.text


def test_a_tracker_whose_steps_cannot_be_kept_is_closed_too(caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    Path("steps").mkdir()

    with TrackerListener("notes", lambda: notes, rows=rows_of, logged=Path("steps")):
        pass

    assert [word for word, _, _ in notes.told] == ["close"]
    assert "Tracker `notes` failed" in caplog.text


def test_a_tracker_that_cannot_be_opened_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Notes:
        raise OSError("read-only file system")

    with TrackerListener("shut", make, rows=rows_of, logged=Path("steps")) as listener:
        listener.on_event(event(EventKind.TRIAL_STARTED, VIEW.records[0]))

    assert "Tracker `shut` failed" in caplog.text


def test_an_unknown_tracker_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    run = cli("plan", write_sweep(tmp_path, ("pruner: nop", "pruner: nop\ntrackers: [tensorbord]")))

    assert run.code == 2
    assert "tensorbord" in run.err
    assert "tensorboard" in run.err


def test_a_tracker_whose_client_is_missing_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    sweep = write_sweep(tmp_path, ("pruner: nop", "pruner: nop\ntrackers: [wandb]"))

    run = cli("launch", sweep, "--executor", "in-process", "--dir", tmp_path / "study")

    assert run.code == 2
    assert "pip install 'wandb>=" in run.err
    assert not (tmp_path / "study").exists()


# -- the real clients --------------------------------------------------------------------------------------------


def swept(tmp_path: Path, tracker: str) -> StudyView:
    """Return a finished study that reported to a tracker."""
    sweep = write_sweep(tmp_path, ("pruner: nop", f"pruner: nop\ntrackers: [{tracker}]"))
    run = cli("launch", sweep, "--executor", "in-process", "--dir", tmp_path / "study")
    assert run.code == 0, run.err
    assert "Tracker" not in run.err
    return load_study(str(tmp_path / "study"))


def stamp(view: StudyView) -> str:
    """Return what tells the runs of a study at Weights & Biases from those of an earlier one of its name."""
    return hashlib.sha256(str(view.created).encode()).hexdigest()[:8]


def last_loss(curve: pd.DataFrame) -> float:
    return float(curve["loss"].iloc[-1])


@pytest.mark.slow
def test_tensorboard_holds_the_last_loss_of_every_trial(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    view = swept(tmp_path, "tensorboard")

    for record in view.records:
        events = accumulator.EventAccumulator(
            str(view.directory / "tensorboard" / f"trial-{record.number:05d}")
        )
        events.Reload()
        losses = events.Scalars("loss")
        assert [one.step for one in losses] == view.curve(record.number)["step"].tolist()
        assert losses[-1].value == pytest.approx(
            last_loss(view.curve(record.number)), rel=1e-6
        )  # 32-bit floats
        assert events.Scalars("by_samples/loss")[-1].step == record.samples
        assert events.Scalars("score")[-1].value == pytest.approx(record.value, rel=1e-6)
        assert "state/text_summary" in events.Tags()["tensors"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own
def test_mlflow_holds_the_last_loss_of_every_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow = pytest.importorskip("mlflow")

    view = swept(tmp_path, "mlflow")

    client = mlflow.tracking.MlflowClient(tracking_uri=f"sqlite:///{view.directory / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("made-up")
    runs = {run.data.tags["sweeper.trial"]: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == len(view.records)
    for record in view.records:
        run = runs[str(record.number)]
        assert run.data.metrics["loss"] == last_loss(view.curve(record.number))
        assert run.data.metrics["score"] == record.value
        assert (run.info.status, run.data.tags["sweeper.state"]) == ("FINISHED", "COMPLETE")
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "by_samples/loss")]
        assert sorted(steps) == view.curve(record.number)["samples"].tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own
def test_a_new_study_of_an_earlier_ones_name_has_runs_of_its_own_and_a_resumed_one_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'server.db'}")
    pytest.importorskip("mlflow")
    from sweeper.trackers.mlflow import MlflowTracker

    run = Run.of(VIEW.records[0])

    first = MlflowTracker("made-up", tmp_path, "2026-11-03T12:00:00.000+00:00")
    later = MlflowTracker("made-up", tmp_path, "2026-11-04T12:00:00.000+00:00")
    resumed = MlflowTracker("made-up", tmp_path, "2026-11-03T12:00:00.000+00:00")

    assert [tracker.start(run) for tracker in (first, later, resumed)] == [False, False, True]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own
def test_names_that_mlflow_refuses_are_changed_and_lose_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'server.db'}")
    mlflow = pytest.importorskip("mlflow")
    from sweeper.trackers.mlflow import MlflowTracker

    names = ["acc@5", "pass[/k]", "held_out/loss", "a//b", "../a", "/a", ".", "é" * 300]
    run = dataclasses.replace(Run.of(VIEW.records[0]), params=dict.fromkeys(["rate[0]", "rate(0)"], 0.5))
    tracker = MlflowTracker("made-up", tmp_path, "")
    tracker.start(run)
    tracker.log(run, [Point(step=1, samples=8, values=dict.fromkeys(names, 0.25))])

    client = mlflow.tracking.MlflowClient()
    (kept,) = client.search_runs([client.get_experiment_by_name("made-up").experiment_id])
    assert kept.data.params == {"rate_0_": "0.5"}
    assert set(kept.data.metrics.values()) == {0.25}
    plain = {name for name in kept.data.metrics if not name.startswith("by_samples/")}
    assert plain == {"acc_5", "pass_/k_", "held_out/loss", "a__b", "___a", "_a", "_", "é" * 230}


def log_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of an offline run's file: a LevelDB log (blocks of 32 KiB) after a header of 7 bytes."""
    place, begun = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # the rest of a block that has no room for a header
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        begun += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield begun
            begun = b""


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # wandb's own
def test_wandb_offline_holds_the_last_loss_of_every_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    view = swept(tmp_path, "wandb")

    found: dict[str, dict[str, object]] = {}
    for file in view.directory.glob("wandb/offline-run-*/*.wandb"):
        rows: dict[str, object] = {}
        for data in log_records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            for item in record.history.item:
                rows[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            if record.run.run_id:
                rows["id"] = record.run.run_id
                assert record.run.run_group == "made-up"
        found[str(rows["id"])] = rows
    assert len(found) == len(view.records)
    for trial in view.records:
        rows = found[f"made-up-{stamp(view)}-{trial.number}"]
        assert rows["loss"] == last_loss(view.curve(trial.number))
        assert (rows["score"], rows["samples"]) == (trial.value, trial.samples)
