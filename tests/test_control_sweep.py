"""Live control of a real sweep of the tiny model, from a second process: each verb in time, also after a kill."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_fixtures import TESTS, background, cli
from waiting import wait_for

IN_TIME_S = 2.0  # plus one optimiser step
STEP_S = 0.5  # the longest that a step of the tiny model takes on a busy machine
SWEEP = (
    "trial.budget.samples=400000", "trial.evaluation.max_rows=8", "trial.evaluation.at=end",
    "rungs={samples: [200000]}",
    "search_space={learning_rate: {grid: [1e-4, 2e-4, 3e-4, 4e-4, 5e-4]}}", "trial.settings.effective_batch_size=8",
    "pruner=nop", "trial.checkpoint.every_samples=400", "resources={slots: 1, gpus_per_trial: 0}",
)  # fmt: skip


class Outside:
    """This process, which is not the driver: asks, looks, and takes the time."""

    def __init__(self, study: Path) -> None:
        self.study = study
        self.took_s: dict[str, float] = {}

    def look(self) -> dict[str, Any]:
        run = cli("status", self.study, "--json")
        return json.loads(run.out) if run.code == 0 else {"trials": []}

    def numbers(self, state: str) -> list[int]:
        return [trial["number"] for trial in self.look()["trials"] if trial["state"] == state]

    def trains(self, number: int) -> bool:
        """Whether a trial runs and has reported a step."""
        trials = self.look()["trials"]
        return any(
            trial["number"] == number and trial["state"] == "RUNNING" and trial["steps"] for trial in trials
        )

    def ask(self, *words: str, until: Callable[[], Any] = lambda: True) -> dict[str, Any]:
        """Give a command, see it acted on and its effect, and check how long that took."""
        verb, *rest = words
        started = time.monotonic()
        run = cli(verb, self.study, *rest, "--json")
        assert run.code == 0, run.err
        wait_for(" ".join(words), until, timeout_s=20, every_s=0.05)
        self.took_s[" ".join(words)] = time.monotonic() - started
        event = json.loads(run.out)
        assert event["outcome"] == "done"
        return event


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.ray
def test_each_verb_reaches_a_real_sweep_in_time_also_after_a_kill(tmp_path: Path) -> None:
    study = tmp_path / "study"
    outside = Outside(study)
    quickstart = TESTS.parent / "examples" / "quickstart.yaml"
    with background("launch", quickstart, *SWEEP, "--dir", study, log=tmp_path / "first.txt") as driver:
        wait_for("a trial that trains", lambda: outside.trains(0), timeout_s=120)

        outside.ask("keep", "--trial", "0")
        added = outside.ask("add", "learning_rate=7e-4")
        assert added["added_trial"] == 5
        wait_for("a checkpoint", lambda: list((study / "trials" / "0" / "checkpoints").glob("step-*")))
        cloned = outside.ask("clone", "learning_rate=9e-4", "--trial", "0", "--warm-start")
        assert cloned["added_trial"] == 6
        outside.ask("stop", "--trial", "0", until=lambda: outside.numbers("RUNNING") == [1])
        outside.ask("set", "max_concurrent=2", until=lambda: outside.numbers("RUNNING") == [1, 2])
        outside.ask("pause")
        outside.ask("stop", "--trial", "1")
        assert outside.numbers("RUNNING") == [2]
        driver.kill_group()

    assert "No driver runs" in cli("stop", study, "--trial", "2").out
    assert "No driver runs" in cli("keep", study, "--trial", "6").out
    with background("resume", study, log=tmp_path / "second.txt") as driver:
        wait_for("the requests", lambda: outside.numbers("PRUNED") == [0, 1, 2], timeout_s=120)
        assert outside.numbers("RUNNING") == []  # the pause has lasted
        wait_for(
            "a driver that listens",
            lambda: "no more" in cli("keep", study, "--trial", "6").out,
            timeout_s=60,
        )
        outside.ask("pause", "--off", until=lambda: outside.numbers("RUNNING") == [3, 4])
        wait_for("a trial that trains", lambda: outside.trains(3) and outside.trains(4), timeout_s=120)
        for number in ("3", "4", "5"):
            outside.ask("stop", "--trial", number)
        wait_for("the warm start", lambda: outside.trains(6), timeout_s=60)
        outside.ask("stop", "--all")
        ended = driver.end()

    assert ended.code == 130, ended.out
    seen = outside.look()
    assert [trial["state"] for trial in seen["trials"]] == ["PRUNED"] * 6 + ["RUNNING"]
    assert seen["trials"][6]["origin"]["from_step"] >= 50
    stopped = seen["trials"][0]["reason"]
    assert stopped.startswith("stopped by ")
    assert "@" in stopped
    assert all(
        control["outcome"] == "done" and control["by"] and control["at"] for control in seen["controls"]
    )
    late = {words: s for words, s in outside.took_s.items() if s > IN_TIME_S + STEP_S}
    print(json.dumps({words: round(s, 2) for words, s in outside.took_s.items()}, indent=1))
    assert not late
