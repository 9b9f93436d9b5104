"""The installed command on Ray: watched, interrupted, killed and resumed; on a running cluster; with real training."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_fixtures import (
    TESTS,
    Background,
    background,
    cli,
    command,
    end_ray,
    processes_of,
    status,
    traces,
    write_sweep,
)
from waiting import wait_for

RATES = "[1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3]"
RAY = Path(sys.executable).with_name("ray")


def traced_sweep(folder: Path) -> Path:
    """Write a sweep of six trials, two at a time, that leave a trace beside it."""
    return write_sweep(
        folder,
        ("{effective_batch_size: 10}", f"{{effective_batch_size: 10, trace: {folder}}}"),
        ("[1e-5, 1e-4, 1e-3, 1e-2]", RATES),
    )


def look(study: Path) -> dict[str, Any] | None:
    """Return the study's status as this process, which is not the driver, sees it; None before there is one."""
    run = cli("status", study, "--json")
    return json.loads(run.out) if run.code == 0 else None


def of_state(seen: dict[str, Any], state: str) -> list[dict[str, Any]]:
    return [trial for trial in seen["trials"] if trial["state"] == state]


def half_done(study: Path) -> dict[str, Any] | None:
    """Return the status once two trials are complete, two are held in their middle, and two have not begun."""
    seen = look(study)
    if seen is None or [len(of_state(seen, state)) for state in ("COMPLETE", "RUNNING", "WAITING")] != [
        2,
        2,
        2,
    ]:
        return None
    return seen if all(trial["worker"] for trial in of_state(seen, "RUNNING")) else None


def check_finished(study: Path, folder: Path) -> None:
    """Every point was trained to its end, and to its end only once."""
    seen = status(study)
    assert seen["state"] == "finished"
    assert [trial["state"] for trial in seen["trials"]] == ["COMPLETE"] * 6
    assert [trial["samples"] for trial in seen["trials"]] == [100] * 6
    assert len({trial["point_id"] for trial in seen["trials"]}) == 6
    assert sorted(trace["number"] for trace in traces(folder, "ended")) == list(range(6))


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Background]:
    """A launch that is half done, and stays so as long as there is the file `hold`."""
    (tmp_path / "hold").touch()
    sweep = traced_sweep(tmp_path)
    with background("launch", sweep, "--dir", tmp_path / "study", log=tmp_path / "log.txt") as running:
        try:
            wait_for("a sweep that is half done", lambda: half_done(tmp_path / "study"), timeout_s=120)
        except AssertionError as error:
            raise AssertionError((tmp_path / "log.txt").read_text()) from error
        yield running


@pytest.mark.ray
def test_two_trials_run_at_a_time_others_watch_and_a_second_launch_is_refused(
    launch: Background, tmp_path: Path
) -> None:
    running = of_state(status(tmp_path / "study"), "RUNNING")
    second = command("launch", tmp_path / "sweep.yaml", "--dir", tmp_path / "study")
    with background("status", tmp_path / "study", "--watch", log=tmp_path / "watch.txt") as watching:
        wait_for("the first line", lambda: "running: " in (tmp_path / "watch.txt").read_text())
        (tmp_path / "hold").unlink()
        run, watched = launch.end(), watching.end()

    assert run.code == 0, run.err
    check_finished(tmp_path / "study", tmp_path)
    pids = {trial["worker"]["pid"] for trial in running}
    assert len(pids - {launch.process.pid}) == 2
    after = status(tmp_path / "study")["trials"]
    one, other = (after[trial["number"]] for trial in running)
    assert max(one["started"], other["started"]) < min(one["ended"], other["ended"])

    assert second.code == 4
    assert f"process {launch.process.pid} on" in second.err

    lines = watched.out.splitlines()
    assert watched.code == 0
    assert lines[0] == "running: 2 WAITING, 2 RUNNING, 2 COMPLETE, 0 PRUNED, 0 FAIL"
    assert lines[-1] == "finished: 0 WAITING, 0 RUNNING, 6 COMPLETE, 0 PRUNED, 0 FAIL"


@pytest.mark.ray
def test_an_interrupted_sweep_says_how_to_go_on_and_resume_trains_the_rest(
    launch: Background, tmp_path: Path
) -> None:
    launch.interrupt()
    run = launch.end()
    (tmp_path / "hold").unlink()

    between = status(tmp_path / "study")
    assert run.code == 130, run.err
    assert run.err.splitlines()[-1] == (
        "error: Interrupted: 2 of 6 trials have ended, everything is saved. "
        f"`sweeper report {tmp_path}/study` shows what was found so far. Go on with: sweeper resume {tmp_path}/study"
    )
    assert "Traceback" not in run.err
    assert between["state"] == "interrupted"
    assert [trial["state"] for trial in between["trials"]] == ["COMPLETE"] * 2 + ["RUNNING"] * 2 + [
        "WAITING"
    ] * 2

    resumed = command("resume", tmp_path / "study", timeout_s=120)

    assert resumed.code == 0, resumed.err
    check_finished(tmp_path / "study", tmp_path)
    after = status(tmp_path / "study")["trials"]
    assert after[:2] == between["trials"][:2]
    assert [trial["attempts"] for trial in after] == [1, 1, 2, 2, 1, 1]


@pytest.mark.slow  # the short form of the kills does it too, and compares every step
@pytest.mark.ray
def test_a_sweep_whose_driver_was_killed_is_resumed_with_every_point_once(
    launch: Background, tmp_path: Path
) -> None:
    launch.kill_group()
    (tmp_path / "hold").unlink()
    between = status(tmp_path / "study")

    resumed = command("resume", tmp_path / "study", timeout_s=120)

    assert between["state"] == "interrupted"
    assert resumed.code == 0, resumed.err
    check_finished(tmp_path / "study", tmp_path)


@pytest.mark.ray
def test_a_driver_that_is_killed_alone_takes_its_workers_with_it(launch: Background, tmp_path: Path) -> None:
    pids = {trace["pid"] for trace in traces(tmp_path, "started")}

    os.kill(launch.process.pid, signal.SIGKILL)
    launch.process.wait(timeout=10)

    wait_for("the end of all workers", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@contextlib.contextmanager
def cluster(home: Path, **environment: str) -> Iterator[tuple[str, str]]:
    """Start a head node as people do; yield its address and its folder. Only what it started is ended."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path is at most 107 characters long
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["start", "--head", f"--port={port}", "--num-cpus=2", "--num-gpus=0", "--include-dashboard=false",
             f"--temp-dir={folder}", "--disable-usage-stats"]  # fmt: skip
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    try:
        subprocess.run(
            [RAY, *words],
            env=clean | {"HOME": str(home)} | environment,
            check=True,
            capture_output=True,
            timeout=120,
        )
        yield f"127.0.0.1:{port}", folder
    finally:
        end_ray(folder)


@pytest.mark.ray
@pytest.mark.parametrize("asks_for_token", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_launch_joins_a_running_cluster_whether_it_asks_for_a_token_or_not(
    asks_for_token: bool, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    mode = {} if asks_for_token else {"RAY_AUTH_MODE": "disabled"}
    with cluster(home, **mode) as (address, folder):
        run = command(
            "launch", traced_sweep(tmp_path), "--dir", tmp_path / "study", "--address", address,
            timeout_s=180, HOME=str(home),
        )  # fmt: skip
        raylets = set(processes_of("raylet", folder))

        assert run.code == 0, run.err
        check_finished(tmp_path / "study", tmp_path)
        ancestors = [set(trace["ancestors"]) for trace in traces(tmp_path, "ended")]
        assert raylets
        assert all(raylets & found for found in ancestors)


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.ray
def test_the_quickstart_as_it_is_shipped_prunes_a_third_and_is_not_run_twice(tmp_path: Path) -> None:
    words = ("launch", TESTS.parent / "examples" / "quickstart.yaml", "--dir", tmp_path / "study")
    first = command(*words, timeout_s=280)
    seen = status(tmp_path / "study")
    again = command(*words, timeout_s=60)

    assert first.code == 0, first.err
    states = [trial["state"] for trial in seen["trials"]]
    assert len(states) >= 12
    assert states.count("PRUNED") >= len(states) / 3
    assert states.count("PRUNED") + states.count("COMPLETE") == len(states)
    assert again.code == 3
    assert (tmp_path / "study" / "report" / "index.html").stat().st_size > 0


@pytest.mark.train
@pytest.mark.ray
def test_the_tiny_model_is_trained_and_reported(tmp_path: Path) -> None:
    run = command(
        "launch", TESTS.parent / "examples" / "quickstart.yaml", "--dir", tmp_path / "study",
        "trial.budget.samples=64", "rungs={samples: [32]}", "trial.evaluation.max_rows=8",
        "search_space={learning_rate: {grid: [1e-4, 1e-3]}}", "trial.settings.effective_batch_size=8",
        timeout_s=240,
    )  # fmt: skip

    assert run.code == 0, run.err
    seen = status(tmp_path / "study")
    assert [(trial["state"], trial["steps"], trial["samples"]) for trial in seen["trials"]] == [
        ("COMPLETE", 8, 64)
    ] * 2
    assert run.out == f"report: {tmp_path}/study/report/index.html\n"
    assert (tmp_path / "study" / "report" / "index.html").stat().st_size > 0
