"""The benchmarks' scripts: what they read of their own figures, and that each of them can be called."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import choice
import driver
import gpu
import idle
import run_all

SCRIPTS = Path(run_all.__file__).parent
START = datetime(2026, 11, 24, 6, 0, 0, tzinfo=UTC)


def rows(part, figures):
    """Return the rows that a part's figures give, after a way through the file that keeps them."""
    return list(run_all.PARTS[part].rows(json.loads(json.dumps(figures))))


def test_every_script_belongs_to_a_part_or_is_called_by_itself_or_used_by_others():
    used = {part.script for part in run_all.PARTS.values()}
    others = {"run_all.py", "findings.py", "quickstart_regret.py", "contenders.py", "families.py", "peers.py"}

    assert {path.name for path in SCRIPTS.glob("*.py")} == used | others


@pytest.mark.train
def test_every_script_says_how_it_is_called():
    code = """
import contextlib, io, runpy, sys
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        runpy.run_path(script, run_name="__main__")
    print(script.rpartition("/")[2], said.getvalue().startswith("usage: "))
"""
    scripts = sorted(path for path in SCRIPTS.glob("*.py") if "__main__" in path.read_text())
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, scripts)], cwd=SCRIPTS, env=None, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{path.name} True" for path in scripts]


def test_the_driver_s_rows_are_read(tmp_path):
    row = driver.measure("eager", 20, url=None, storage="journal", fast_middle=False)

    ((what, said, limit),) = rows("driver", {"date": "2026-11-24", "rows": [row]})

    assert (what, limit) == ("journal, eager, 20 trials", "at most 3 x")
    assert re.fullmatch(r"\d+\.\d\d x first, \d+\.\d\d x last, \d+\.\d ms a report", said)
    assert rows("driver-postgres", {"rows": [{**row, "storage": "postgresql"}]})[0][2] == "at most 2 x"


def test_the_rows_of_times_are_read():
    medians = {"bare": {"ready_s": 20.0, "start_s": 25.0}, "sweeper": {"ready_s": 22.0, "start_s": 35.0}}
    assert rows("overhead", {"medians": medians})[2:] == [
        ("sweeper, from readiness", "1.10 x bare", "at most 1.15 x"),
        ("sweeper, from the start", "1.40 x bare", "at most 1.5 x"),
    ]
    runs = [{"idle": idle_, "to_train_s": 0.2, "sweep_s": 9.0} for idle_ in (0.01, 0.02, 0.09)]
    assert rows("idle", {"medians": {"quickstart": idle.medians_of(runs)}}) == [
        ("quickstart: slots idle while points are left", "2.0%", "under 5 %"),
        ("quickstart: from a trial's end to the next one's first step", "0.20 s", "0.3 s"),
    ]
    step = {"step_s": {"sweeper": 0.05, "TRL's own trainer": 0.06}, "signals_share": 0.006, "host_reads": {}}
    assert rows("step", step) == [
        ("tokens/s beside TRL's own trainer", "1.20 x", "at least 0.98 x"),
        ("signals, of a step of 50 ms", "0.60%", "under 1 %"),
    ]
    assert rows("gang", {"runs": {}, "ratio": 0.1}) == [
        ("warm gang's start beside TorchTrainer in Tune", "0.100 x", "at most 0.25 x")
    ]
    watch = {"alone": [{"cpu_s": 2.0, "wall_s": 1.0}], "watched": [{"cpu_s": 2.1, "wall_s": 1.0}]}
    assert rows("watch", watch) == [("the driver's CPU time while watched", "1.05 x", "")]


def test_the_rows_of_choices_are_read():
    kept = {
        (15, seed, way): {
            "grid": 15, "seed": seed, "way": way, "start_s": start_s, "spent": spent, "chosen": chosen,
            "values": {"0": 0.5, "1": 0.9 + seed / 100},
        }
        for seed in range(3)
        for way, start_s, spent, chosen in (("bare", 20.0, 1.0, 1), (choice.LEARNED, 15.0, 0.4, 1 if seed else 0))
    }  # fmt: skip

    assert rows("choice", [choice.summarised(kept, 15)]) == [
        ("15 points, bare", "1.00 x, 100% trained, same choice 3 of 3", ""),
        (f"15 points, {choice.LEARNED}", "0.75 x, 40% trained, same choice 2 of 3", ""),
    ]


@pytest.mark.parametrize(("busy", "said"), [(0.93, "93%"), (None, "not measured")])
def test_the_rows_of_a_gpu_are_read(busy, said):
    assert rows("gpu", {"busy": busy, "to_train_s": 1.234}) == [
        ("GPU busy in a pruned sweep of a large model", said, ""),
        ("from a trial's end to the next one's first step", "1.23 s", "at most 3 s"),
    ]


def test_the_rows_of_pruners_are_read():
    plays = [
        {"pruner": "learned", "group": group, "cost": cost, "hit": hit}
        for group, cost, hit in (("a", 0.3, 1.0), ("a", 0.5, 1.0), ("b", 0.6, 0.5))
    ]
    assert rows("pruners", plays) == [
        ("learned, recorded sweeps and families", "median cost 0.50, lowest hit rate 50%", "")
    ]
    played = [{"pruner": name, "cost": 0.25, "hit": 1.0} for name in ("alone", "with its twin")]
    assert rows("prior", played)[0] == ("learned, alone", "0.25 of the training, 100% hits", "")


def sample(seconds, text):
    """Return a line as nvidia-smi writes it, in local time."""
    at = (START + timedelta(seconds=seconds)).astimezone()
    return f"{at:%Y/%m/%d %H:%M:%S}.{at.microsecond // 1000:03d}, {text}"


def test_a_gpu_is_busy_as_it_is_between_the_first_start_and_the_last_end():
    lines = [sample(-1.0, "0"), sample(0.0, "100"), sample(0.35, "50"), sample(1.0, "90"), sample(1.1, "0")]

    assert gpu.busy_share(lines, START, START + timedelta(seconds=1)) == pytest.approx(0.8)


def test_what_is_no_sample_is_left_out():
    lines = ["", sample(0.2, "[N/A]"), sample(0.4, "70"), sample(0.5, "")[:14]]

    assert gpu.busy_share(lines, START, START + timedelta(seconds=1)) == pytest.approx(0.7)
    assert gpu.busy_share(lines[:2], START, START + timedelta(seconds=1)) is None
