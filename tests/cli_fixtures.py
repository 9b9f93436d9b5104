"""The command line as tests use it: in this process, where seconds count, or as the command that is installed."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

SWEEPER = Path(sys.executable).with_name("sweeper")
TESTS = Path(__file__).resolve().parent

only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can ask as another user")


@contextlib.contextmanager
def another_user(folder: Path) -> Iterator[None]:
    """Be somebody else while the block runs, who may come to a folder and read what is open to all."""
    for path in [folder, *folder.parents[:3]]:
        path.chmod(path.stat().st_mode | 0o055)
    os.seteuid(65534)  # nobody
    try:
        yield
    finally:
        os.seteuid(0)


# A sweep over a made-up function that lies beside the file; `resources` keeps two trials in flight on any machine.
SWEEP = """\
study: made-up
metric: score
direction: maximize
trial:
  function: my_trial:train
  budget: {samples: 100}
  settings: {effective_batch_size: 10}
search_space:
  learning_rate: {grid: [1e-5, 1e-4, 1e-3, 1e-2]}
rungs: {samples: [20, 50]}
pruner: nop
resources: {slots: 2, gpus_per_trial: 0}
"""

# Ten steps, each reported. With a folder in `trace` every start and end leaves a line there, and while it holds a file
# `hold`, all but the first two trials wait after their fifth step.
TRIAL = """\
import json
import math
import os
import time


def train(context):
    value = 1.0 - abs(math.log10(context.params["learning_rate"]) + 3.0) / 4.0
    trace(context, "started")
    for step in range(1, context.budget_samples // 10 + 1):
        while step == 6 and must_wait(context):
            time.sleep(0.02)
        context.report(step=step, samples=10 * step, loss=1.0 - value + 1.0 / step, grad_norm=1.0)
    trace(context, "ended")
    return {"score": value}


def must_wait(context):
    folder = context.settings.get("trace")
    held = folder and context.spec.number > 1 and os.path.exists(os.path.join(folder, "hold"))
    return held and not (context.channel.should_stop() or context.channel.should_pause())


def trace(context, word):
    folder = context.settings.get("trace")
    if folder:
        facts = {"number": context.spec.number, "word": word, "at": time.time(), "pid": os.getpid(),
                 "ancestors": ancestors()}
        with open(os.path.join(folder, "trace.jsonl"), "a") as file:
            file.write(json.dumps(facts) + "\\n")


def ancestors():
    found, pid = [], os.getpid()
    while pid > 1:
        with open(f"/proc/{pid}/stat") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])
        found.append(pid)
    return found
"""


def write_sweep(folder: Path, *edits: tuple[str, str], text: str = SWEEP) -> Path:
    """Write a sweep file with each edit made once, and the trial function beside it."""
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the text"
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "my_trial.py").write_text(TRIAL)
    (folder / "sweep.yaml").write_text(text)
    return folder / "sweep.yaml"


@dataclasses.dataclass(frozen=True)
class Run:
    """How a command ended."""

    code: int
    out: str
    err: str


def cli(*arguments: str | Path) -> Run:
    """Run a command in this process, by the same door as the installed command."""
    from sweeper.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    path, modules = list(sys.path), set(sys.modules)
    with (
        mock.patch.object(sys, "argv", ["sweeper", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name in ("my_trial", "my_pruner"):  # the next test has its own
            del sys.modules[name]
    return Run(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


def command(*arguments: str | Path, timeout_s: float = 60.0, **environment: str) -> Run:
    """Run the installed command in a process of its own."""
    done = subprocess.run(
        [str(SWEEPER), *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=timeout_s, env=_inherited() | environment,
    )  # fmt: skip
    return Run(done.returncode, done.stdout, done.stderr)


def _inherited() -> dict[str, str]:
    """Return this process's variables, but for the one that a Ray started in it leaves behind."""
    return {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}


def processes_of(*words: str) -> list[int]:
    """Return the processes whose command has all of these words in it."""
    lines = ((one.pid, " ".join(one.info["cmdline"] or ())) for one in psutil.process_iter(["cmdline"]))
    return [pid for pid, line in lines if all(word in line for word in words)]


def _processes_of_session(leader: int) -> list[int]:
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) == leader:
                found.append(pid)
    return found


def end_ray(folder: str) -> None:
    """End every process of the Ray that was started in a folder, and remove that."""
    for pid in processes_of(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


@dataclasses.dataclass
class Background:
    """A command that goes on while the test looks at it, in a process group of its own."""

    process: "subprocess.Popen[str]"
    log: Path

    def interrupt(self) -> None:
        """Do what Ctrl-C does, to the command alone."""
        self.process.send_signal(signal.SIGINT)

    def kill_group(self) -> None:
        """End the command and all that it has started, at once. Ray's daemons leave its group but not its session."""
        for pid in [self.process.pid, *_processes_of_session(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=30)

    def end(self, timeout_s: float = 60.0) -> Run:
        """Wait for the end; stdout and stderr come together."""
        code = self.process.wait(timeout=timeout_s)
        text = self.log.read_text()
        return Run(code, text, text)


@contextlib.contextmanager
def background(*arguments: str | Path, log: Path, **environment: str) -> Iterator[Background]:
    """Start a command; whatever it left running is killed when the block ends."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(SWEEPER), *map(str, arguments)],
            stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=_inherited() | environment,
        )  # fmt: skip
    running = Background(process, log)
    try:
        yield running
    finally:
        running.kill_group()


def status(study: str | Path) -> dict[str, Any]:
    """Return what `status --json` prints, from a process of its own."""
    done = command("status", study, "--json")
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


def traces(folder: Path, word: str) -> list[dict[str, Any]]:
    """Return the lines that trials left with `word`."""
    path = folder / "trace.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [facts for line in lines if (facts := json.loads(line))["word"] == word]


def fingerprint(folder: Path, *, without: Sequence[Path] = ()) -> Mapping[str, str]:
    """Return a hash of every file below a folder, so that any change shows."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
        if not any(path.is_relative_to(other) for other in without) and "__pycache__" not in path.parts
    }
