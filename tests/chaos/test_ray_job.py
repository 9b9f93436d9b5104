"""The driver as a Ray job: submitted with its code, its log followed, stopped as jobs are, and gone on with."""

import importlib.util
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_sweeps import environment, records_of, status
from cli_fixtures import end_ray, write_sweep
from waiting import wait_for

from sweeper.records import TrialState

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("aiohttp_cors") is None, reason="needs the extra `jobs`"),
]
RAY = str(Path(sys.executable).with_name("ray"))
SWEEPER = f"{sys.executable} -m sweeper.cli"


@pytest.fixture
def jobs() -> Iterator[str]:
    """Start a head with two cores that takes jobs; return their address."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path is at most 107 characters long
    ports = [free_port(), free_port()]
    words = ["start", "--head", f"--port={ports[0]}", "--num-cpus=2", f"--dashboard-port={ports[1]}",
             f"--temp-dir={folder}", "--disable-usage-stats", "--include-dashboard=true"]  # fmt: skip
    try:
        subprocess.run([RAY, *words], env=plain(), check=True, capture_output=True, timeout=180)
        yield f"http://127.0.0.1:{ports[1]}"
    finally:
        end_ray(folder)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def plain() -> dict[str, str]:
    """Return variables in which nothing of another Ray is left."""
    found = {name: value for name, value in environment().items() if not name.startswith("RAY_")}
    return found | {"RAY_AUTH_MODE": "disabled"}


def submit(address: str, folder: Path, *words: str, waits: bool = True) -> subprocess.CompletedProcess[str]:
    how = [] if waits else ["--no-wait"]
    return subprocess.run(
        [RAY, "job", "submit", "--address", address, "--working-dir", str(folder), *how, "--", *words],
        capture_output=True, text=True, check=False, env=plain(), timeout=300,
    )  # fmt: skip


def has_ended_one(study: Path) -> bool:
    if not (study / "study.json").exists():
        return False
    return any(record.state is TrialState.COMPLETE for record in records_of(study).values())


def test_a_sweep_is_submitted_stopped_and_gone_on_with(jobs: str, tmp_path: Path) -> None:
    folder, study = tmp_path / "code", tmp_path / "study"
    write_sweep(folder)
    launch = [*SWEEPER.split(), "launch", "sweep.yaml", "--dir", str(study), "--address", "auto"]
    done = submit(jobs, folder, *launch)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trial 0 learning_rate=1e-5: started" in done.stdout  # the driver's log, as it is written
    assert {record.state for record in records_of(study).values()} == {TrialState.COMPLETE}

    # One that is stopped: its trials wait in the middle for a file to go away.
    trace = tmp_path / "trace"
    trace.mkdir()
    (trace / "hold").touch()
    held = tmp_path / "held"
    write_sweep(
        folder,
        ("settings: {effective_batch_size: 10}", f"settings: {{effective_batch_size: 10, trace: {trace}}}"),
    )
    told = submit(jobs, folder, *launch[:-3], str(held), *launch[-2:], waits=False)
    (job,) = set(re.findall(r"raysubmit_\w+", told.stdout))
    wait_for("the first end of a trial", lambda: has_ended_one(held), timeout_s=120)
    stop = [RAY, "job", "stop", "--address", jobs, job]
    subprocess.run(stop, env=plain(), check=True, capture_output=True, timeout=120)
    assert status(held)["state"] == "interrupted"

    (trace / "hold").unlink()
    resumed = submit(jobs, folder, *SWEEPER.split(), "resume", str(held), "--address", "auto")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert {record.state for record in records_of(held).values()} == {TrialState.COMPLETE}
