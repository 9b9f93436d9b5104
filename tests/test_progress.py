"""What a person sees while a sweep runs."""

import dataclasses
import datetime
import errno
import io
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from report_fixtures import make_config, make_record, view_of_16
from rich.console import Console

from sweeper.config.models import SweepConfig
from sweeper.errors import SweeperError
from sweeper.events import Event, EventKind
from sweeper.progress import EventLog, LiveProgress, PlainProgress, progress_for
from sweeper.progress.lines import event_line
from sweeper.records import Decision, Origin, TrialRecord, TrialState

VIEW = view_of_16()
STOP = Decision(
    trial=0,
    stop=True,
    rule="early_dynamics",
    reason="loss 2.31 ranks 5 of 6",
    rung=1,
    samples=616,
)
ASIDE = dataclasses.replace(STOP, stop=False, aside=True)
NOW = datetime.datetime(2026, 11, 3, 12, 0, tzinfo=datetime.UTC)


def event(kind: EventKind, record: TrialRecord | None = None, **facts: Any) -> Event:
    return Event(kind=kind, at_s=facts.pop("at_s", 12.3), record=record, **facts)


def running(number: int, **changes: Any) -> TrialRecord:
    return make_record(number, TrialState.RUNNING, VIEW.records[number].params, **changes)


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (
            event(EventKind.TRIAL_STARTED, running(7, step=0, samples=0)),
            "trial 7 effective_batch_size=16 learning_rate=1e-3: started",
        ),
        (
            event(EventKind.TRIAL_STARTED, running(7, attempts=2)),
            "trial 7 effective_batch_size=16 learning_rate=1e-3: started, attempt 2, "
            "going on from 1,024 samples",
        ),
        (
            event(EventKind.RUNG, running(7), rung=running(7).rungs[1]),
            "trial 7 effective_batch_size=16 learning_rate=1e-3: reached rung 1 (624 samples): loss 1.872, "
            "grad_norm 1, accuracy 0.5026",
        ),
        (
            event(EventKind.DECIDED, VIEW.records[0], decision=STOP),
            "trial 0 effective_batch_size=8 learning_rate=1e-5: pruned at rung 1 (616 samples): "
            "loss 2.31 ranks 5 of 6",
        ),
        (
            event(EventKind.DECIDED, VIEW.records[0], decision=ASIDE),
            "trial 0 effective_batch_size=8 learning_rate=1e-5: set aside at rung 1 (616 samples): "
            "loss 2.31 ranks 5 of 6",
        ),
        (
            event(EventKind.TRIAL_ENDED, VIEW.records[10]),
            "trial 10 effective_batch_size=32 learning_rate=3e-4: COMPLETE: accuracy = 0.9 "
            "(2,048 samples, 64 steps)",
        ),
        (
            event(EventKind.TRIAL_ENDED, VIEW.records[0]),
            "trial 0 effective_batch_size=8 learning_rate=1e-5: PRUNED after 208 samples, 26 steps",
        ),
        (
            event(EventKind.TRIAL_ENDED, VIEW.records[15]),
            "trial 15 effective_batch_size=64 learning_rate=1e-3: FAIL after 1,024 samples, 16 steps: "
            "RuntimeError: the data loader lost its worker",
        ),
        (
            event(EventKind.TRIAL_RETRIED, running(7), message="failed, is tried again:\nOSError: gone"),
            "trial 7 effective_batch_size=16 learning_rate=1e-3: failed, is tried again: OSError: gone",
        ),
        (event(EventKind.NOTE, message="16 trials on 2 slots"), "16 trials on 2 slots"),
        (event(EventKind.SWEEP_ENDED), "sweep ended"),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Event) else "",
)
def test_every_event_is_one_line(told: Event, line: str) -> None:
    assert event_line(told, metric="accuracy") == line


def test_plain_progress_writes_the_seconds_and_no_line_for_reports() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, metric="accuracy")

    progress.on_event(event(EventKind.REPORTED, running(7)))
    progress.on_event(event(EventKind.DECIDED, VIEW.records[0], decision=STOP))

    assert stream.getvalue() == (
        "[  12.3 s] trial 0 effective_batch_size=8 learning_rate=1e-5: pruned at rung 1 (616 samples): "
        "loss 2.31 ranks 5 of 6\n"
    )


def test_a_closed_stream_does_not_stop_the_sweep_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    stream.close()
    progress = PlainProgress(stream)

    with caplog.at_level(logging.WARNING):
        progress.on_event(event(EventKind.NOTE, message="one"))
        progress.on_event(event(EventKind.NOTE, message="two"))

    assert [record.message for record in caplog.records] == [
        "Progress can no longer be shown: I/O operation on closed file. The sweep goes on."
    ]


def test_event_log_appends_decisions_with_rule_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "study" / "events.log"
    for _ in range(2):
        with EventLog(path, metric="accuracy", now=lambda: NOW) as log:
            log.on_event(event(EventKind.DECIDED, VIEW.records[0], decision=STOP))
            log.on_event(event(EventKind.REPORTED, running(7)))
            log.on_event(event(EventKind.RUNG, running(7), rung=running(7).rungs[1]))

    line = (
        "2026-11-03T12:00:00.000+00:00 decided [early_dynamics] trial 0 effective_batch_size=8 "
        "learning_rate=1e-5: pruned at rung 1 (616 samples): loss 2.31 ranks 5 of 6\n"
    )
    assert path.read_text() == line * 2


def test_event_log_gives_a_torn_line_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    path.write_text("2026-11-03 decided tri")

    with EventLog(path, now=lambda: NOW) as log:
        log.on_event(event(EventKind.NOTE, message="going on"))

    assert path.read_text().splitlines() == [
        "2026-11-03 decided tri",
        "2026-11-03T12:00:00.000+00:00 note going on",
    ]


def told_lost(caplog: pytest.LogCaptureFixture, path: Path, why: str) -> bool:
    words = f"{path} can no longer be written: {why}. The study has every decision."
    return [record.getMessage() for record in caplog.records] == [words]


def test_an_event_log_on_a_full_disk_says_so_once_and_does_not_hide_what_ends_the_sweep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.log"
    path.symlink_to("/dev/full")

    def sweep() -> None:
        with EventLog(path) as log:
            for message in ("one", "two"):
                log.on_event(event(EventKind.NOTE, message=message))
            raise SweeperError("the curve cannot be written")

    with pytest.raises(SweeperError, match="the curve cannot be written"):
        sweep()

    assert told_lost(caplog, path, "[Errno 28] No space left on device")


def test_an_event_log_that_cannot_be_opened_does_not_end_the_sweep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.log"
    path.mkdir()

    with EventLog(path) as log:
        log.on_event(event(EventKind.NOTE, message="one"))

    assert told_lost(caplog, path, f"[Errno 21] Is a directory: '{path}'")


WAITING = [make_record(record.number, TrialState.WAITING, record.params) for record in VIEW.records]


def live_view(
    width: int,
    height: int = 24,
    clock: Callable[[], float] = lambda: 0.0,
    *,
    records: Sequence[TrialRecord] = WAITING,
    config: SweepConfig = VIEW.config,
) -> LiveProgress:
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    return LiveProgress(console, config, records, clock=clock)


def shown(progress: LiveProgress) -> list[str]:
    console = progress._console
    with console.capture() as capture:
        console.print(progress.render())
    return [line.rstrip() for line in capture.get().splitlines()]


def test_live_progress_shows_running_trials_the_best_and_decisions() -> None:
    progress = live_view(100)
    progress.on_event(event(EventKind.TRIAL_ENDED, VIEW.records[5]))
    progress.on_event(event(EventKind.REPORTED, running(10, last_loss=2.305, last_grad_norm=0.8321)))
    progress.on_event(event(EventKind.DECIDED, VIEW.records[0], decision=STOP))

    lines = shown(progress)

    assert lines[0].startswith("tiny-batch-rate ")
    assert "2/16 trials, 1 pruned" in lines[0]
    assert lines[1] == (
        "best so far: trial 5, accuracy = 0.6399 (effective_batch_size=16 learning_rate=1e-4)"
    )
    assert any("3e-4" in line and "1,024/2,048" in line and "2.305  " in line for line in lines)
    assert lines[-1] == "trial 0 pruned at rung 1 (616 samples): loss 2.31 ranks 5 of 6"


def test_live_progress_estimates_the_time_that_is_left() -> None:
    now = [0.0]
    progress = live_view(120, clock=lambda: now[0])
    for number in range(4):
        progress.on_event(event(EventKind.TRIAL_ENDED, VIEW.records[number]))
    now[0] = 60.0

    assert "1 min 0 s, about 3 min 0 s left" in shown(progress)[0]


def test_a_sweep_that_is_done_has_nothing_left() -> None:
    now = [0.0]
    progress = live_view(120, clock=lambda: now[0])
    for record in VIEW.records:
        for samples in (200, 700, 1100):
            progress.on_event(event(EventKind.REPORTED, running(record.number, samples=samples)))
        progress.on_event(event(EventKind.TRIAL_ENDED, record))
    now[0] = 60.0

    assert shown(progress)[0].endswith("16/16 trials, 7 pruned, 1 failed 1 min 0 s")


def test_what_earlier_drivers_trained_is_no_speed_of_this_one() -> None:
    now = [0.0]
    nearly = [running(number, samples=1843) for number in range(4)]  # 90 %
    progress = live_view(120, clock=lambda: now[0], records=[*nearly, *WAITING[4:]])
    for record in nearly:
        progress.on_event(event(EventKind.TRIAL_STARTED, running(record.number, samples=1638)))  # 80 %
    now[0] = 30.0
    assert shown(progress)[0].endswith("0/16 trials 30 s")

    for record in nearly:
        progress.on_event(event(EventKind.TRIAL_ENDED, VIEW.records[record.number]))

    assert shown(progress)[0].endswith(
        "4/16 trials, 4 pruned 30 s, about 7 min 30 s left"
    )  # 0.8 trials in 30 s


def test_the_counts_and_the_best_are_those_of_the_whole_study() -> None:
    progress = live_view(120, records=VIEW.records[:14] + tuple(WAITING[14:]))
    continued = make_record(
        16, TrialState.COMPLETE, {"learning_rate": 1e-3}, value=0.99, origin=Origin(by="me", continues=10)
    )

    progress.on_event(event(EventKind.TRIAL_ENDED, continued))

    lines = shown(progress)
    assert "15/17 trials, 7 pruned" in lines[0]
    assert lines[1].startswith("best so far: trial 10, accuracy = 0.9 ")


def test_points_that_a_sampler_draws_are_in_the_total_from_the_first() -> None:
    config = make_config(
        {"learning_rate": {"log_uniform": (1e-5, 1e-3)}}, sampler={"name": "tpe", "n_trials": 50}
    )
    progress = live_view(120, records=[], config=config)

    progress.on_event(event(EventKind.TRIAL_STARTED, running(0)))

    assert "0/50 trials" in shown(progress)[0]


def test_a_trial_that_ended_is_no_longer_shown_as_running() -> None:
    progress = live_view(80)
    progress.on_event(event(EventKind.TRIAL_STARTED, running(10)))
    progress.on_event(event(EventKind.TRIAL_ENDED, VIEW.records[10]))
    progress.on_event(event(EventKind.TRIAL_STARTED, running(11)))
    progress.on_event(event(EventKind.TRIAL_RETRIED, running(11), message="failed, is tried again: OSError"))

    assert "no trial is running" in shown(progress)


@pytest.mark.parametrize("width", [30, 40, 80, 120, 200])
def test_live_progress_fits_any_terminal(width: int) -> None:
    progress = live_view(width)
    for number in range(16):
        progress.on_event(event(EventKind.REPORTED, running(number, last_loss=2.305)))
        progress.on_event(event(EventKind.DECIDED, VIEW.records[0], decision=STOP))

    lines = shown(progress)

    assert max(map(len, lines)) <= width
    assert len(lines) <= 24


def test_a_long_value_of_a_param_leaves_room_for_the_signals() -> None:
    mix = [f"data/mix-{part}.jsonl" for part in range(8)]
    config = make_config({"train_data": {"grid": [mix, mix[:1]]}})
    progress = live_view(80, config=config)

    record = make_record(0, TrialState.RUNNING, {"train_data": mix}, last_loss=2.305)
    progress.on_event(event(EventKind.REPORTED, record))

    assert '["data/mix-0.jsonl", "d…' in shown(progress)[-1]
    assert "1,024/2,048" in shown(progress)[-1]
    assert "2.305" in shown(progress)[-1]


def test_more_than_three_params_stand_side_by_side_so_that_trials_are_told_apart() -> None:
    names = ["effective_batch_size", "learning_rate", "weight_decay", "lr_scheduler_type"]
    config = make_config({name: {"grid": [1, 2]} for name in names})
    progress = live_view(80, config=config)
    for number, rate in enumerate((1e-4, 3e-4)):
        params = dict(zip(names, (16, rate, 0.1, "cosine"), strict=True))
        progress.on_event(event(EventKind.REPORTED, make_record(number, TrialState.RUNNING, params)))

    lines = shown(progress)

    assert "16 1e-4 0.1 cosine" in lines[-2]
    assert "16 3e-4 0.1 cosine" in lines[-1]


def test_a_param_called_samples_has_its_column_beside_the_progress() -> None:
    config = make_config({"samples": {"grid": [512, 2048]}})
    progress = live_view(80, config=config)
    progress.on_event(event(EventKind.REPORTED, make_record(0, TrialState.RUNNING, {"samples": 512})))

    lines = shown(progress)

    assert " 512 " in lines[-1]
    assert "1,024/2,048" in lines[-1]
    assert "trained" in lines[-2]


def test_a_param_called_loss_has_its_column_beside_the_signal() -> None:
    config = make_config({"loss": {"grid": ["hinge", "squared"]}})
    progress = live_view(80, config=config)
    progress.on_event(event(EventKind.REPORTED, make_record(0, TrialState.RUNNING, {"loss": "hinge"})))

    lines = shown(progress)

    assert " hinge " in lines[-1]
    assert "(param)" in lines[-2]


def test_live_progress_takes_events_while_it_is_drawn() -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=True)

    def report(progress: LiveProgress, number: int) -> None:
        for _ in range(200):
            progress.on_event(event(EventKind.REPORTED, running(number)))
        progress.on_event(event(EventKind.TRIAL_ENDED, VIEW.records[number]))

    with LiveProgress(console, VIEW.config, WAITING) as progress:
        threads = [threading.Thread(target=report, args=(progress, number)) for number in (5, 6, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert "3/16 trials" in shown(progress)[0]


class Terminal(io.StringIO):
    """A terminal that may go away."""

    is_gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.is_gone:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


def test_a_terminal_that_goes_away_does_not_end_the_sweep_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    terminal, before = Terminal(), sys.stderr

    with (
        caplog.at_level(logging.WARNING),
        LiveProgress(Console(file=terminal, force_terminal=True), VIEW.config, WAITING) as progress,
    ):
        terminal.is_gone = True
        progress._live.refresh()
        progress.on_event(event(EventKind.TRIAL_STARTED, running(10)))

    assert sys.stderr is before
    assert [record.message for record in caplog.records] == [
        "Progress can no longer be shown: [Errno 5] Input/output error. The sweep goes on."
    ]


def test_a_pipe_gets_lines_and_a_terminal_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")

    assert isinstance(progress_for(io.StringIO(), VIEW.config, WAITING), PlainProgress)
    assert isinstance(progress_for(Terminal(), VIEW.config, WAITING), LiveProgress)

    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress_for(Terminal(), VIEW.config, WAITING), PlainProgress)
