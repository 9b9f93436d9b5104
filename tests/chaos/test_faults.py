"""Faults that a driver meets while it lives: a full disk, a second driver, damaged checkpoints and curves."""

import contextlib
import shutil
from pathlib import Path

import pytest
from chaos_sweeps import MADE_UP, RATES, kill, outcome, records_of, run, start, write_sweep
from sweeps import merged
from waiting import wait_for

from sweeper.records import TrialState

pytestmark = pytest.mark.chaos
IN_PROCESS = ["--executor", "in-process"]


@pytest.mark.parametrize(
    "payload_bytes",
    [
        pytest.param(100, marks=pytest.mark.slow, id="journal-or-curve"),
        pytest.param(100_000, id="checkpoint"),
    ],
)
def test_a_full_disk_stops_the_sweep_with_a_message_and_room_lets_it_go_on(
    tmp_path, small_disk, payload_bytes
):
    settings = {"step_s": 0.01, "payload_bytes": payload_bytes}
    config = merged(
        MADE_UP, {"trial": {"settings": settings}, "search_space": {"learning_rate": {"grid": RATES[:3]}}}
    )
    sweep = write_sweep(tmp_path / "sweep.yaml", config)
    calm = run(["launch", str(sweep), "--dir", str(tmp_path / "calm"), *IN_PROCESS])
    assert calm.returncode == 0, calm.stderr
    study = small_disk / "study"
    log = tmp_path / "log"
    driver = start(["launch", str(sweep), "--dir", str(study), *IN_PROCESS], log)
    wait_for("the first curve", (study / "curves").exists, process=driver, log=log)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)

    assert driver.wait(60) == 6
    text = log.read_text()
    assert "error: The disk is full" in text
    assert "sweeper resume" in text
    assert "Traceback" not in text

    ballast.unlink()
    resumed = run(["resume", str(study), *IN_PROCESS])
    assert resumed.returncode == 0, resumed.stderr
    assert outcome(study) == outcome(tmp_path / "calm")


def test_of_two_drivers_one_works_and_the_other_says_who_holds_the_study(tmp_path):
    sweep = write_sweep(tmp_path / "sweep.yaml", merged(MADE_UP, {"trial": {"settings": {"step_s": 0.1}}}))
    study = tmp_path / "study"
    log = tmp_path / "log"
    first = start(["launch", str(sweep), "--dir", str(study), *IN_PROCESS], log)
    wait_for("the first curve", (study / "curves").exists, process=first, log=log)

    for words in (["resume", str(study)], ["launch", str(sweep), "--dir", str(study)]):
        second = run([*words, *IN_PROCESS])
        assert second.returncode == 4
        assert f"held by another driver: process {first.pid} on " in second.stderr
        assert "since 20" in second.stderr

    assert first.poll() is None
    kill(first)
    third = run(["resume", str(study), *IN_PROCESS])  # at once: a dead process of this machine
    assert third.returncode == 0, third.stderr


def test_two_launches_at_the_same_moment_make_one_study(tmp_path):
    sweep = write_sweep(tmp_path / "sweep.yaml", merged(MADE_UP, {"trial": {"settings": {"step_s": 0.02}}}))
    study = tmp_path / "study"
    logs = [tmp_path / f"log{index}" for index in range(2)]
    drivers = [start(["launch", str(sweep), "--dir", str(study), *IN_PROCESS], log) for log in logs]

    codes = sorted(driver.wait(120) for driver in drivers)
    assert codes == [0, 4], [log.read_text() for log in logs]
    assert all(record.state is TrialState.COMPLETE for record in records_of(study).values())
    assert len(outcome(study)) == len(RATES)


@pytest.mark.parametrize(
    "damage",
    ["truncate", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("flip", "delete", "manifest"))],
)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_used(tmp_path, damage):
    config = merged(
        MADE_UP, {"search_space": {"learning_rate": {"grid": RATES[:1]}}, "resources": {"slots": 1}}
    )
    sweep = write_sweep(tmp_path / "sweep.yaml", config)
    run(["launch", str(sweep), "--dir", str(tmp_path / "calm"), *IN_PROCESS])
    study, log = tmp_path / "study", tmp_path / "log"
    driver = start(["launch", str(sweep), "--dir", str(study), *IN_PROCESS], log)
    checkpoints = study / "trials/0/checkpoints"
    wait_for(
        "two checkpoints",
        lambda: len(list(checkpoints.glob("step-*/MANIFEST.json"))) == 2,
        every_s=0.02, process=driver, log=log,
    )  # fmt: skip
    kill(driver)
    _damage(max(checkpoints.glob("step-*")), damage)

    resumed = run(["resume", str(study), *IN_PROCESS])

    assert resumed.returncode == 0, resumed.stderr
    assert records_of(study)[0].errors == []
    assert outcome(study) == outcome(tmp_path / "calm")


def _damage(checkpoint: Path, how: str) -> None:
    file = checkpoint / ("MANIFEST.json" if how == "manifest" else "state.json")
    content = file.read_bytes()
    if how == "delete":
        file.unlink()
    elif how == "truncate":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])


@pytest.mark.slow
def test_a_damaged_curve_of_an_unfinished_trial_is_trained_again_from_its_start(tmp_path):
    config = merged(
        MADE_UP, {"search_space": {"learning_rate": {"grid": RATES[:1]}}, "resources": {"slots": 1}}
    )
    sweep = write_sweep(tmp_path / "sweep.yaml", config)
    run(["launch", str(sweep), "--dir", str(tmp_path / "calm"), *IN_PROCESS])
    study, log = tmp_path / "study", tmp_path / "log"
    driver = start(["launch", str(sweep), "--dir", str(study), *IN_PROCESS], log)
    curve = study / "curves/00000.parquet"
    wait_for("the curve", curve.exists, process=driver, log=log)
    kill(driver)
    curve.write_bytes(curve.read_bytes()[:-30])

    resumed = run(["resume", str(study), *IN_PROCESS])

    assert resumed.returncode == 0, resumed.stderr
    assert "trial 0 starts anew: The curve" in resumed.stderr
    assert outcome(study) == outcome(tmp_path / "calm")


@pytest.mark.slow
def test_a_study_directory_that_was_moved_is_gone_on_with(tmp_path):
    sweep = write_sweep(tmp_path / "sweep.yaml", MADE_UP)
    study, log = tmp_path / "study", tmp_path / "log"
    driver = start(["launch", str(sweep), "--dir", str(study), *IN_PROCESS], log)
    wait_for("the first curve", (study / "curves").exists, process=driver, log=log)
    kill(driver)
    shutil.move(study, tmp_path / "moved")

    resumed = run(["resume", str(tmp_path / "moved"), *IN_PROCESS])

    assert resumed.returncode == 0, resumed.stderr
    assert not study.exists()
