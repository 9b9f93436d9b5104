"""The command line over a made-up trial function, without Ray and torch."""

import datetime
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cli_fixtures import SWEEPER, Run, cli, command, fingerprint, write_sweep
from waiting import wait_for

TRIAL_KEYS = {
    "number", "state", "is_set_aside", "point_id", "params", "value", "steps", "samples", "reason", "attempts",
    "worker", "started", "ended",
}  # fmt: skip


def run_code(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A study that was launched to its end, and what the launch said. Tests must not change it."""
    folder = tmp_path_factory.mktemp("launched")
    sweep = write_sweep(folder)
    return folder / "study", cli("launch", sweep, "--executor", "in-process", "--dir", folder / "study")


# -- the command itself ------------------------------------------------------------------------------------------


def test_importing_the_package_loads_no_heavy_library() -> None:
    heavy = {"ray", "torch", "transformers", "trl", "datasets", "optuna", "pandas", "plotly"}

    found = run_code(f"import sys, sweeper; print(sorted({heavy!r} & set(sys.modules)))")

    assert found == "[]\n"


def test_status_and_report_load_neither_ray_nor_torch(launched: tuple[Path, Run], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom sweeper.cli import main\n"
        f"for words in (['status', {str(launched[0])!r}], ['report', {str(launched[0])!r}, '--out', 'out']):\n"
        "    sys.argv = ['sweeper', *words]\n"
        "    try:\n        main()\n    except SystemExit as exit_:\n        assert exit_.code == 0\n"
        "print(sorted({'ray', 'torch', 'transformers', 'trl'} & set(sys.modules)))"
    )

    assert run_code(code).splitlines()[-1] == "[]"


def test_status_loads_no_statistics(launched: tuple[Path, Run]) -> None:
    code = (
        f"import sys\nfrom sweeper.cli import main\nsys.argv = ['sweeper', 'status', {str(launched[0])!r}]\n"
        "try:\n    main()\nexcept SystemExit as exit_:\n    assert exit_.code == 0\n"
        "print(sorted({'scipy.stats', 'sklearn'} & set(sys.modules)))"
    )

    assert run_code(code).splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--version"], f"sweeper {metadata.version('sweeper')}"),
        (["--help"], "Usage: sweeper "),
        (["launch", "--help"], "Usage: sweeper launch "),  # these know the config's keys, by pydantic
        (["report", "--help"], "Usage: sweeper report "),
    ],
)
def test_version_and_help_are_told_without_loading_anything_heavy(words: list[str], told: str) -> None:
    code = (
        f"import sys\nfrom sweeper.cli import main\nsys.argv = ['sweeper', *{words}]\n"
        "try:\n    main()\nexcept SystemExit as exit_:\n    assert exit_.code == 0\n"
        "print(sorted({'ray', 'torch', 'transformers', 'trl', 'optuna', 'pandas', 'pydantic'} & set(sys.modules)))"
    )

    printed = run_code(code).strip().splitlines()
    assert printed[0].strip().startswith(told)
    assert printed[-1] in (["[]"] if len(words) == 1 else ["[]", "['pydantic']"])


def test_an_error_prints_no_escape_code_that_a_function_raised(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    (tmp_path / "my_trial.py").write_text("def train(context):\n    raise ValueError('bad \\x1b[2Jthing')\n")
    run = cli("launch", sweep, "--executor", "in-process", "--dir", tmp_path / "study")

    assert run.code == 6
    assert "error: Every trial of study" in run.err
    assert f"`sweeper report {tmp_path}/study` draws what there is of curves" in run.err
    assert "bad  [2Jthing" in run.err
    assert "\x1b" not in run.err


def test_help_lists_the_commands_and_the_exit_codes() -> None:
    started = time.monotonic()
    done = command("--help")
    print(f"sweeper --help took {time.monotonic() - started:.2f} s")

    assert done.code == 0
    for words in ("plan", "launch", "resume", "status", "report", "0 done; 2 the config cannot be run"):
        assert words in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("launhc", "x.yaml"), "No such command 'launhc'"),
        (("launch",), "Missing argument 'SWEEP.yaml'"),
        (("launch", "x.yaml", "--bogus"), "No such option: --bogus"),
        (("launch", "x.yaml", "--executor", "slurm"), "'slurm' is not one of 'ray', 'in-process'"),
        (("status",), "Missing argument 'STUDY'"),
        (("plan", "x.yaml", "--debug"), "No such option: --debug"),
    ],
)
def test_wrong_usage_is_told_in_a_line_and_ends_with_2(words: tuple[str, ...], told: str) -> None:
    run = cli(*words)

    assert run.code == 2
    assert run.out == ""
    assert told in run.err
    assert "Traceback" not in run.err


def test_the_command_alone_shows_its_help() -> None:
    run = cli()

    assert run.code == 2
    assert "Usage: sweeper" in run.out + run.err


def test_debug_shows_the_traceback_and_keeps_message_and_code() -> None:
    run = cli("--debug", "status", "nobody")

    assert run.code == 4
    assert "Traceback" in run.err
    assert "error: `nobody` is not a study's directory" in run.err


def test_a_name_that_reads_like_debug_shows_no_traceback() -> None:
    run = cli("status", "--", "--debug")

    assert run.code == 4
    assert "error: `--debug` is not a study's directory" in run.err
    assert "Traceback" not in run.err


def test_a_reader_that_has_enough_is_no_error(launched: tuple[Path, Run]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [SWEEPER, "status", launched[0], "--json"],
            stdout=closed, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip

    assert done.stderr == ""


# -- plan --------------------------------------------------------------------------------------------------------


def test_plan_prints_the_sweep_and_writes_nothing(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    before = fingerprint(tmp_path)

    run = cli("plan", sweep)

    assert (run.code, run.err) == (0, "")
    for line in ("study +made-up", "trials +4, every point of the grid", "rungs +at 20, 50 samples"):
        assert re.search(line, run.out)
    assert fingerprint(tmp_path) == before


def test_plan_applies_overrides_and_prints_json(tmp_path: Path) -> None:
    run = cli("plan", write_sweep(tmp_path), "study=other", "trial.budget.samples=200", "--json")

    plan = json.loads(run.out)
    assert run.code == 0
    assert (plan["study"], plan["budget_samples"], plan["n_trials"]) == ("other", 200, 4)
    assert len({point["point_id"] for point in plan["points"]}) == 4


# -- launch ------------------------------------------------------------------------------------------------------


def test_launch_runs_a_sweep_and_leaves_a_study(launched: tuple[Path, Run]) -> None:
    study, run = launched

    assert run.code == 0
    for name in (
        "sweep.yaml",
        "study.journal",
        "study.json",
        "events.log",
        "report/index.html",
        "report/best.yaml",
    ):
        assert (study / name).stat().st_size > 0
    assert sorted(path.name for path in (study / "curves").iterdir())[0].startswith("00000")
    events = (study / "events.log").read_text()
    assert events.count("trial_ended") == 4
    assert "slots, each with 1 CPU and no GPU" in events.splitlines()[0]


def test_stdout_holds_the_reports_path_alone_and_stderr_the_log(launched: tuple[Path, Run]) -> None:
    study, run = launched

    assert run.out == f"report: {study}/report/index.html\n"
    assert "trial 2 learning_rate=1e-3: COMPLETE: score = 1" in run.err
    assert "finished; 4 complete" in run.err


def test_the_report_says_that_the_study_is_finished(launched: tuple[Path, Run]) -> None:
    report = json.loads((launched[0] / "report" / "report.json").read_text())

    assert report["state"] == "finished"


def test_a_second_launch_has_nothing_to_do_and_changes_nothing(launched: tuple[Path, Run]) -> None:
    study, _ = launched
    before = fingerprint(study)

    run = cli("launch", study.parent / "sweep.yaml", "--executor", "in-process", "--dir", study)

    assert (run.code, run.out) == (3, "")
    assert "Study `made-up` is finished: nothing is left to train." in run.err
    assert f"sweeper report {study}" in run.err
    assert fingerprint(study) == before


def test_resume_of_a_finished_study_has_nothing_to_do(launched: tuple[Path, Run]) -> None:
    run = cli("resume", launched[0], "--executor", "in-process")

    assert run.code == 3


def test_the_resolved_sweep_file_of_a_study_plans_the_same_points(launched: tuple[Path, Run]) -> None:
    study, _ = launched
    plans = [
        json.loads(cli("plan", file, "--json").out)
        for file in (study.parent / "sweep.yaml", study / "sweep.yaml")
    ]

    assert plans[0]["points"] == plans[1]["points"]


def test_the_best_point_launches_as_a_study_of_its_own(launched: tuple[Path, Run], tmp_path: Path) -> None:
    run = cli("launch", launched[0] / "report" / "best.yaml", "--executor", "in-process")

    assert run.code == 0, run.err
    assert "study `made-up-best`: 1 trial on " in run.err
    best = json.loads(cli("status", "made-up-best", "--json").out)
    assert [(trial["state"], trial["params"], trial["value"]) for trial in best["trials"]] == [
        ("COMPLETE", {"learning_rate": 1e-3}, 1.0)
    ]


def test_a_sweep_launched_from_elsewhere_finds_its_function_beside_its_file(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweeps")
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")

    run = cli("launch", sweep, "--executor", "in-process")

    assert run.code == 0, run.err
    assert (tmp_path / "elsewhere" / "studies" / "made-up" / "study.journal").exists()


def test_a_sweep_whose_trials_all_fail_ends_with_6_and_the_reason(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    (tmp_path / "my_trial.py").write_text("def train(context):\n    raise RuntimeError('no luck')\n")

    run = cli("launch", sweep, "--executor", "in-process")

    assert run.code == 6
    assert "RuntimeError: no luck" in run.err.splitlines()[-1]
    assert run.err.splitlines()[-1].startswith("error: ")


# -- status ------------------------------------------------------------------------------------------------------


def test_status_json_has_the_promised_shape(launched: tuple[Path, Run]) -> None:
    run = cli("status", launched[0], "--json")

    found = json.loads(run.out)
    assert (run.code, run.err) == (0, "")
    assert set(found) == {
        "study", "state", "driver", "metric", "direction", "trials", "best", "controls", "paused_by", "max_concurrent",
    }  # fmt: skip
    assert (found["study"], found["state"], found["direction"]) == ("made-up", "finished", "maximize")
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2, 3]
    assert all(set(trial) == TRIAL_KEYS for trial in [*found["trials"], found["best"]])
    assert found["best"] == found["trials"][2]


def test_status_json_tells_of_each_trial_when_and_where_it_ran(launched: tuple[Path, Run]) -> None:
    trial = json.loads(cli("status", launched[0], "--json").out)["trials"][0]

    assert trial["worker"]["pid"] == os.getpid()
    assert trial["worker"]["node"]
    started, ended = (datetime.datetime.fromisoformat(trial[name]) for name in ("started", "ended"))
    assert started <= ended
    assert (trial["steps"], trial["samples"], trial["attempts"], trial["reason"]) == (10, 100, 1, None)


def test_status_shows_the_state_the_best_and_every_trial(launched: tuple[Path, Run]) -> None:
    run = cli("status", launched[0])

    assert "made-up: finished; 4 complete" in run.out
    assert "best: trial 2, score = 1 (learning_rate=1e-3)" in run.out
    assert run.out.count("COMPLETE") == 4


def test_watching_a_finished_study_shows_it_once(launched: tuple[Path, Run]) -> None:
    text, lines = cli("status", launched[0], "--watch"), cli("status", launched[0], "--watch", "--json")

    assert text.out == "finished: 0 WAITING, 0 RUNNING, 4 COMPLETE, 0 PRUNED, 0 FAIL\n"
    assert [json.loads(line)["state"] for line in lines.out.splitlines()] == ["finished"]


# -- report ------------------------------------------------------------------------------------------------------


def test_report_writes_where_it_is_told_and_leaves_the_study_be(
    launched: tuple[Path, Run], tmp_path: Path
) -> None:
    before = fingerprint(launched[0])

    run = cli("report", launched[0], "--out", tmp_path / "out")

    assert (run.code, run.err) == (0, "")
    assert run.out == f"{tmp_path}/out/index.html\n"
    names = {"index.html", "report.md", "trials.csv", "trials.parquet", "best.yaml", "report.json"}
    assert names <= {path.name for path in (tmp_path / "out").iterdir()}
    assert fingerprint(launched[0]) == before


def test_a_study_is_found_by_its_name_below_studies(tmp_path: Path) -> None:
    assert cli("launch", write_sweep(tmp_path), "--executor", "in-process").code == 0

    assert json.loads(cli("status", "made-up", "--json").out)["state"] == "finished"


# -- what others make of a study ---------------------------------------------------------------------------------


def test_optuna_dashboard_lists_the_study_and_its_trials(launched: tuple[Path, Run], tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="the extra `dashboard` is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    journal = shutil.copy(launched[0] / "study.journal", tmp_path)
    server = subprocess.Popen(
        [SWEEPER.with_name("optuna-dashboard"), journal, "--host", "127.0.0.1", "--port", str(port),
         "--server", "wsgiref"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for("the dashboard", lambda: answer(port, "studies"))
        (study,) = answer(port, "studies")["study_summaries"]
        trials = answer(port, f"studies/{study['study_id']}?after=0")["trials"]
    finally:
        server.kill()
        server.wait()

    assert study["study_name"] == "made-up"
    assert [(trial["state"], trial["values"]) for trial in trials] == [
        ("Complete", [0.5]), ("Complete", [0.75]), ("Complete", [1.0]), ("Complete", [0.75]),
    ]  # fmt: skip
    assert trials[2]["params"][0]["param_external_value"] == "0.001"


def answer(port: int, path: str) -> Any:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=10) as response:
            return json.load(response)
    except urllib.error.URLError:
        return None  # not up yet
