"""`status --watch` in a pseudo-terminal, by golden files in `tests/golden/`.

After a change that is meant, write them anew with SWEEPER_WRITE_GOLDEN=1 and look at what changed.
"""

import dataclasses
import datetime
import doctest
import io
import math
import os
import pty
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest
from report_fixtures import START, make_config, make_record, make_view, quality, view_of_many
from rich.console import Console
from rich.live import Live
from sweeps import make_config as made_up_config
from sweeps import make_study

from sweeper.cli_watch import _draw, _views
from sweeper.control.send import outcome_text, send_request
from sweeper.errors import InterruptedSweepError, NothingToDoError
from sweeper.records import Direction, Origin, StepRow, TrialState
from sweeper.reporting import watch_bits
from sweeper.reporting.driver import without_beat
from sweeper.reporting.status import header_text, status_json
from sweeper.reporting.summary import counts_text
from sweeper.reporting.watch import WatchView, _running_table, map_lines, rung_lines
from sweeper.study.control_records import Verb
from sweeper.study.view import DriverFacts, StudyView

GOLDEN = Path(__file__).parent / "golden"
HEIGHT = 40
NOW = START + datetime.timedelta(seconds=200)


def view_at_work() -> StudyView:
    """A 3 x 4 grid half way: complete, pruned, failed, running and waiting trials."""
    batches, rates = [8, 16, 32], [1e-5, 1e-4, 3e-4, 1e-3]
    config = make_config({"effective_batch_size": {"grid": batches}, "learning_rate": {"grid": rates}})
    points = [{"effective_batch_size": b, "learning_rate": r} for b in batches for r in rates]
    records = []
    for number, point in enumerate(points):
        if number >= 10:
            state = TrialState.WAITING
        elif number >= 8:
            state = TrialState.RUNNING
        elif number == 7:
            state = TrialState.FAIL
        else:
            state = TrialState.COMPLETE if quality(*point.values()) > 0.3 else TrialState.PRUNED
        record = make_record(number, state, point, stopped_at=0 if state is TrialState.PRUNED else None)
        if state is TrialState.RUNNING:
            record.last_loss, record.last_grad_norm = 1.234, 0.567
        records.append(record)
    return make_view(records, config, state="running")


def shown(view: StudyView, width: int) -> list[str]:
    """Return what a terminal of this width shows, read back from a pseudo-terminal."""
    master, slave = pty.openpty()
    screen = pyte.Screen(width, HEIGHT)
    stream = pyte.ByteStream(screen)

    def read() -> None:
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # the other end was closed
                return
            stream.feed(data)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(slave, "w") as file:
        # rich asks the process's own streams for their size, not this file.
        size = {"width": width, "height": HEIGHT}
        console = Console(file=file, force_terminal=True, color_system="256", legacy_windows=False, **size)
        with Live(console=console, auto_refresh=False) as live:
            live.update(WatchView(view, now=lambda: NOW), refresh=True)
            live.update(WatchView(view, now=lambda: NOW), refresh=True)  # drawn over itself
    reader.join(timeout=10)
    os.close(master)
    return [line.rstrip() for line in screen.display]


@pytest.mark.parametrize("width", [80, 200])
def test_the_live_view_is_that_of_the_golden_file(width: int) -> None:
    lines = shown(view_at_work(), width)

    text = "\n".join(lines).rstrip() + "\n"
    golden = GOLDEN / f"watch-{width}.txt"
    if os.environ.get("SWEEPER_WRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("view", [view_at_work(), view_of_many()])
def test_no_line_is_wider_than_the_terminal(view: StudyView, width: int) -> None:
    console = Console(width=width, color_system=None, force_terminal=True)
    with console.capture() as capture:
        console.print(WatchView(view, now=lambda: NOW))

    assert max(len(line) for line in capture.get().splitlines()) <= width


@pytest.mark.parametrize(("height", "n_shown"), [(24, 18), (30, 24), (60, 41)])
def test_as_many_running_trials_are_listed_as_the_terminal_has_room_for(height: int, n_shown: int) -> None:
    config = make_config({"seed": {"grid": list(range(41))}})
    records = [make_record(n, TrialState.RUNNING, {"seed": n}, rungs={}, decisions=[]) for n in range(41)]
    console = Console(width=200, height=height, color_system=None, force_terminal=True)

    with console.capture() as capture:
        console.print(WatchView(make_view(records, config, state="running"), now=lambda: NOW))

    lines = capture.get().splitlines()
    assert sum("seed=" in line for line in lines) == n_shown
    assert any(f"and {41 - n_shown} more running trial" in line for line in lines) == (n_shown < 41)
    assert len(lines) <= height


def left_of(view: StudyView) -> list[str]:
    """Return what the view says is left of each running trial, beside its progress."""
    table = _running_table(view, [record for record in view.records if record.is_training], NOW, 80)
    return [str(cell) for cell in table.columns[4]._cells]


def stamp(seconds: float) -> str:
    return (START + datetime.timedelta(seconds=seconds)).isoformat()


def test_the_time_left_counts_neither_a_pause_nor_what_another_trial_trained() -> None:
    view = view_at_work()
    attempts = [
        {"started": stamp(-100_000), "ended": stamp(-99_960), "outcome": "interrupted"},
        {"started": stamp(180)},
    ]  # 60 s of training for half of the budget
    view.records[8].history, view.records[8].started = attempts, stamp(-100_000)
    longer = view.records[9]
    longer.budget_samples, longer.samples = 4096, 2048 + 512  # a quarter of what is its own, in 20 s
    longer.origin = Origin(by="me", continues=0, from_samples=2048, from_step=64)
    longer.history = [{"started": stamp(180)}]

    assert left_of(view) == ["1 min 0 s", "1 min 0 s"]
    assert left_of(dataclasses.replace(view, state="interrupted")) == ["", ""]


def test_a_signal_that_a_trial_does_not_report_has_no_curve() -> None:
    view = view_at_work()
    view.records[8].last_loss = None

    cells = [str(cell) for cell in _running_table(view, [view.records[8]], NOW, 80).columns[5]._cells]

    assert cells == [""]


def map_of(columns: dict[str, list[object]], results: list[float], width: int) -> list[str]:
    """Return the map of two batches by a param's values; the first row has results."""
    (name, values), batches = next(iter(columns.items())), [8, 16]
    config = make_config({"effective_batch_size": {"grid": batches}, name: {"grid": values}})
    points = [{"effective_batch_size": batch, name: value} for batch in batches for value in values]
    records = [
        make_record(number, TrialState.COMPLETE if number < len(results) else TrialState.WAITING, point)
        for number, point in enumerate(points)
    ]
    for record, value in zip(records, results, strict=False):
        record.value = value
    return [line.plain for line in map_lines(make_view(records, config, state="running"), width)]


def test_no_label_of_the_map_is_cut_and_results_stand_below_it() -> None:
    rates: list[object] = [1.125e-5, 1.125e-4, 1.125e-3]

    lines = map_of({"learning_rate": rates}, [1.234e-3, 5.678e-3, 0.5], 80)

    assert lines[1:] == [
        "     1.125e-5 1.125e-4 1.125e-3",
        "16          ·        ·        ·",
        " 8   1.234e-3 5.678e-3     *0.5",
    ]
    assert map_of({"learning_rate": rates}, [1.234e-3], 30) == []  # it does not fit


def test_words_above_the_map_are_cut_to_fit_unless_they_would_look_alike() -> None:
    names: list[object] = ["adamw_torch_fused", "sgd", "paged_adamw_8bit"]

    assert (
        map_of({"optimizer": names}, [0.5], 80)[1]
        == "     adamw_torch_fused               sgd  paged_adamw_8bit"
    )
    assert map_of({"optimizer": names}, [0.5], 40)[1] == "     adamw_torc…         sgd paged_adam…"
    paged: list[object] = ["paged_adamw_8bit", "paged_adamw_32bit"]
    assert map_of({"optimizer": paged}, [0.5], 30)[1] == "     …_adamw_8bit …adamw_32bit"
    alike: list[object] = [f"{name}_of_torch" for name in (*names, "paged_adamw_32bit")]
    assert map_of({"optimizer": alike}, [0.5], 40) == []


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_metric_that_is_not_finite_leads_no_rung(direction: Direction) -> None:
    view = view_at_work()
    config = view.config.model_copy(update={"direction": direction})
    for record, value in zip(view.records, (0.5, math.nan, 0.7, math.inf), strict=False):
        record.rungs[0] = dataclasses.replace(record.rungs[0], signals={"accuracy": value})
    view = dataclasses.replace(view, config=config, records=view.records[:4])

    order = ["0.7 (trial 2)", "0.5 (trial 0)"][:: 1 if direction == "maximize" else -1]
    assert rung_lines(view)[0].plain.endswith(f"accuracy: {', '.join(order)}")


def test_bars_and_curves_in_characters() -> None:
    assert doctest.testmod(watch_bits) == doctest.TestResults(failed=0, attempted=2)


class FarDriver:
    """A driver on another machine, with the clock and the sleep of whoever watches it from here."""

    def __init__(self, folder: Path) -> None:
        self.study = make_study(folder, made_up_config())
        self.now_s = 0.0
        self.stops_beating_at_s = math.inf
        self.ends_at_s = math.inf
        self._state = "running"
        self._write()

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s >= self.ends_at_s:
            self._state = "finished"
        if self.now_s < self.stops_beating_at_s:
            self._write()

    def _write(self) -> None:
        facts = {"state": self._state, "token": "t", "beat": int(self.now_s / 5)}
        who = {"host": "far", "pid": 17, "machine": "other", "started": 5}
        self.study._storage.set_study_user_attr(self.study._id, "sweeper:driver", facts | who)

    def watched(self) -> Iterator[StudyView]:
        return _views(str(self.study.directory), None, clock=self.clock, sleep=self.sleep)


def test_watching_ends_with_words_once_a_driver_elsewhere_does_not_stir_any_more(tmp_path: Path) -> None:
    driver = FarDriver(tmp_path)
    driver.stops_beating_at_s = 20.0

    states = []
    with pytest.raises(
        InterruptedSweepError, match=r"^The driver, process 17 on far, has not stirred for 60 s: "
    ):
        states.extend(view.state for view in driver.watched())

    assert set(states[:-1]) == {"running"}
    assert states[-1] == "interrupted"
    assert 75.0 <= driver.now_s <= 81.0


def test_watching_a_driver_elsewhere_goes_on_as_long_as_it_beats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = FarDriver(tmp_path)
    driver.ends_at_s = 130.0

    assert [view.state for view in driver.watched()][-2:] == ["running", "finished"]
    assert capsys.readouterr().err == ""


def test_a_look_that_takes_long_is_followed_by_a_longer_rest(tmp_path: Path) -> None:
    driver, took_s, slept_s = FarDriver(tmp_path), [0.0, 0.1, 0.4, 2.0, 9.0, 0.0], []
    driver.ends_at_s = 40.0

    def sleep(seconds: float) -> None:
        slept_s.append(seconds)
        driver.sleep(seconds)

    for _, drawing_s in zip(
        _views(str(tmp_path), None, clock=driver.clock, sleep=sleep), took_s, strict=True
    ):
        driver.now_s += drawing_s

    assert slept_s == pytest.approx(
        [1.0, 1.0, 2.0, 10.0, 15.0]
    )  # short of the gap after which a silence is none


def test_nothing_is_drawn_between_two_looks() -> None:
    n_threads = threading.active_count()

    def views() -> Iterator[StudyView]:
        yield view_at_work()
        assert threading.active_count() == n_threads  # nobody else draws
        shown_first = file.getvalue()
        yield view_of_many(4)
        assert len(file.getvalue()) > len(shown_first) > 0

    file = io.StringIO()
    last = _draw(Console(file=file, force_terminal=True, width=80, height=HEIGHT), views())

    assert len(last.records) == 4


def test_a_curve_is_read_again_only_once_it_was_written_anew(tmp_path: Path) -> None:
    driver = FarDriver(tmp_path)
    driver.study.curves.write(0, [StepRow(1, 10, 0, 2.5, None, None)])
    views = driver.watched()

    first, second = (next(views).curve(0) for _ in range(2))
    driver.study.curves.write(0, [StepRow(1, 10, 0, 2.5, None, None), StepRow(2, 20, 0, 2.0, None, None)])
    third = next(views).curve(0)

    assert second is first
    assert third["step"].tolist() == [1, 2]


def test_a_request_to_a_driver_elsewhere_that_does_not_stir_says_so(tmp_path: Path) -> None:
    driver = FarDriver(tmp_path)
    driver.stops_beating_at_s = 0.0

    sent = send_request(str(tmp_path), Verb.STOP, {"trial": 0}, clock=driver.clock, sleep=driver.sleep)

    assert driver.now_s == pytest.approx(20.0)
    assert outcome_text(sent) == (
        "Written. The driver, process 17 on far, has neither answered nor stirred for 20 s: its machine has probably "
        "stopped, or lost the storage. Then it is acted on at the next `sweeper resume`."
    )


def test_a_request_to_a_driver_elsewhere_that_beats_is_left_to_it(tmp_path: Path) -> None:
    driver = FarDriver(tmp_path)

    sent = send_request(str(tmp_path), Verb.PAUSE, {}, clock=driver.clock, sleep=driver.sleep)

    assert "has not answered within 20 s; it acts on it as soon as it can" in outcome_text(sent)


def test_a_request_to_a_driver_that_ends_meanwhile_is_waited_for_no_longer(tmp_path: Path) -> None:
    driver = FarDriver(tmp_path)
    driver.ends_at_s = 2.0

    sent = send_request(str(tmp_path), Verb.PAUSE, {}, clock=driver.clock, sleep=driver.sleep)

    assert driver.now_s == pytest.approx(2.0, abs=0.2)
    assert outcome_text(sent) == (
        "Written. No driver runs this study now: it is acted on at the next `sweeper resume`."
    )


def test_a_sweep_that_ends_before_it_could_be_stopped_is_said_to_have_ended(tmp_path: Path) -> None:
    driver = FarDriver(tmp_path)
    driver.ends_at_s = 2.0

    with pytest.raises(NothingToDoError, match=r"The sweep of study `.*` ended before it could be stopped"):
        send_request(str(tmp_path), Verb.STOP_ALL, {}, clock=driver.clock, sleep=driver.sleep)


def test_a_driver_elsewhere_is_named_with_its_last_beat(tmp_path: Path) -> None:
    study = make_study(tmp_path, made_up_config())
    study.take()
    assert study.view().driver == DriverFacts(
        host=socket.gethostname(),
        pid=os.getpid(),
        since=study.lease()["since"],
        last_beat=study.lease()["beat_at"],
    )
    study.hand_back("interrupted")
    assert study.view().driver is None


@pytest.mark.parametrize(
    ("beat_at", "told"),
    [
        (
            "2026-01-01T09:00:00.000+00:00",
            "; no sign of life from its driver, process 17 on far, for 3 h 0 min",
        ),
        ("2026-01-01T11:59:30.000+00:00", ""),
        (None, ""),  # the lease of an older version
    ],
)
def test_the_header_says_for_how_long_a_driver_has_given_no_sign(
    beat_at: str | None, told: str, tmp_path: Path
) -> None:
    view = FarDriver(tmp_path).study.view()
    assert view.driver is not None
    view = dataclasses.replace(view, driver=dataclasses.replace(view.driver, last_beat=beat_at))
    now = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)

    assert header_text(view, now).plain == f"made-up: running; {counts_text(view)}{told}"
    assert status_json(view)["driver"] == {"host": "far", "pid": 17, "since": None, "last_beat": beat_at}


def test_a_beat_alone_is_no_change(tmp_path: Path) -> None:
    study = FarDriver(tmp_path).study
    first = study.view()
    study._storage.set_study_user_attr(study._id, "sweeper:driver", study.lease() | {"beat_at": "later"})

    second = study.view()

    assert status_json(first) != status_json(second)
    assert status_json(without_beat(first)) == status_json(without_beat(second))
