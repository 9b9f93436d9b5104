"""Signals: checkpoint, hand the study back, exit with 130, within the grace time."""

import os
import signal
import time

import pytest
from chaos_sweeps import MADE_UP, RATES, outcome, records_of, run, start, write_sweep
from sweeps import merged
from waiting import wait_for

from sweeper.study.study import Study

pytestmark = pytest.mark.chaos
IN_PROCESS = ["--executor", "in-process"]
RAY = ["--executor", "ray"]
STUCK = {"trial": {"function": "chaos_functions:stuck"}, "resources": {"slots": 1}}


def attempts(study):
    """Return how many have a worker."""
    return sum(attempt["worker"] is not None for r in records_of(study).values() for attempt in r.history)


def end(driver, number, timeout_s=30.0):
    """Send a signal; return the exit code and the seconds until it came."""
    sent = time.monotonic()
    if number == signal.SIGHUP:
        os.killpg(driver.pid, number)  # as a terminal does that goes away
    else:
        driver.send_signal(number)
    return driver.wait(timeout_s), time.monotonic() - sent


def check_handed_back(study, log):
    text = log.read_text()
    assert "error: Interrupted: " in text
    assert f"Go on with: sweeper resume {study}" in text
    assert "Traceback" not in text
    facts = Study.open(str(study))._storage.get_study_user_attrs(0)["sweeper:driver"]
    assert facts["state"] == "interrupted"


def interrupt_and_resume(tmp_path, executor, signals):
    """Interrupt a sweep once by each signal; return what it came to, and what it comes to undisturbed."""
    changes = {
        "trial": {"checkpoint": {"every_samples": None}, "settings": {"step_s": 0.2}},
        "search_space": {"learning_rate": {"grid": RATES[:2]}},
    }
    sweep = write_sweep(tmp_path / "sweep.yaml", merged(MADE_UP, changes))
    calm = run(["launch", str(sweep), "--dir", str(tmp_path / "calm"), *IN_PROCESS])
    assert calm.returncode == 0, calm.stderr
    study, log = tmp_path / "study", tmp_path / "log"
    words = ["launch", str(sweep), "--dir", str(study)]
    for number in signals:
        before = attempts(study) if (study / "study.json").exists() else 0
        driver = start([*words, *executor], log)
        wait_for(
            "another attempt",
            lambda known=before: (study / "study.json").exists() and attempts(study) > known,
            process=driver, log=log,
        )  # fmt: skip
        time.sleep(0.7)  # for some steps

        code, _ = end(driver, number)

        assert code == 130, log.read_text()
        check_handed_back(study, log)
        running = [r for r in records_of(study).values() if r.state == "RUNNING"]
        # Nothing that was trained is lost, though the config asks for no checkpoint anywhere.
        saved = [
            int(path.parent.name.removeprefix("step-")) for path in study.glob("trials/*/*/*/MANIFEST.json")
        ]
        assert {record.step for record in running} - {0} <= set(saved)
        words = ["resume", str(study)]
    resumed = run(["resume", str(study), *executor])
    assert resumed.returncode == 0, resumed.stderr
    return outcome(study), outcome(tmp_path / "calm")


def test_every_signal_ends_a_sweep_with_a_checkpoint_and_resume_goes_on(tmp_path):
    signals = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP]
    found, expected = interrupt_and_resume(tmp_path, IN_PROCESS, signals)

    assert found == expected


@pytest.mark.ray
@pytest.mark.slow
def test_every_signal_ends_a_sweep_on_ray_too(tmp_path):
    found, expected = interrupt_and_resume(tmp_path, RAY, [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])

    assert found == expected


def test_under_nohup_a_sweep_goes_on_when_its_terminal_goes_away(tmp_path):
    sweep = write_sweep(tmp_path / "sweep.yaml", MADE_UP)
    study, log = tmp_path / "study", tmp_path / "log"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` starts a process
    try:
        driver = start(["launch", str(sweep), "--dir", str(study), *IN_PROCESS], log)
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(
        "an attempt", lambda: (study / "study.json").exists() and attempts(study), process=driver, log=log
    )

    code, _ = end(driver, signal.SIGHUP, timeout_s=60.0)

    assert code == 0, log.read_text()


EXECUTORS = [
    pytest.param(IN_PROCESS, id="in-process"),
    pytest.param(RAY, id="ray", marks=[pytest.mark.ray, pytest.mark.slow]),
]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_trial_that_does_not_listen_is_given_up_after_the_grace_time(tmp_path, executor):
    sweep = write_sweep(tmp_path / "sweep.yaml", merged(MADE_UP, {**STUCK, "failures": {"grace_s": 1.0}}))
    study, log = tmp_path / "study", tmp_path / "log"
    driver = start(["launch", str(sweep), "--dir", str(study), *executor], log)
    wait_for("a trial that hears nothing", lambda: is_deaf(study), process=driver, log=log)

    code, seconds = end(driver, signal.SIGTERM)

    assert code == 130, log.read_text()
    assert 1.0 <= seconds < 15.0
    check_handed_back(study, log)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_second_ctrl_c_ends_a_sweep_at_once(tmp_path, executor):
    sweep = write_sweep(tmp_path / "sweep.yaml", merged(MADE_UP, {**STUCK, "failures": {"grace_s": 600}}))
    study, log = tmp_path / "study", tmp_path / "log"
    driver = start(["launch", str(sweep), "--dir", str(study), *executor], log)
    wait_for("a trial that hears nothing", lambda: is_deaf(study), process=driver, log=log)
    driver.send_signal(signal.SIGINT)
    time.sleep(1.0)  # as a person does who sees that nothing happens

    code, seconds = end(driver, signal.SIGINT)

    assert code == 130, log.read_text()
    assert seconds < 10.0
    check_handed_back(study, log)


def is_deaf(study):
    """Whether a trial is past its last report: told before it, it would still have listened."""
    return any(study.glob("trials/*/deaf"))
