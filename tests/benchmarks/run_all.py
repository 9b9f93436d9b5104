"""All benchmarks with one command, and one table of what they say beside what is asked for.

Each part is a script of this directory and runs by itself, on a machine that does nothing else; its own table goes to
DIR/NAME.txt. A part that DIR has already is not run again, so that the whole can be run in pieces: here it takes hours.

    python tests/benchmarks/run_all.py --dir DIR [--only NAME]...
"""

import argparse
import dataclasses
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Row = tuple[str, str, str]  # what was measured, what it came to, what is asked for


def _overhead(found: Any) -> Iterator[Row]:
    bare = found["medians"]["bare"]
    for name, one in found["medians"].items():
        limits = ("at most 1.15 x", "at most 1.5 x") if name == "sweeper" else ("", "")
        for (key, words), limit in zip(
            (("ready_s", "from readiness"), ("start_s", "from the start")), limits, strict=True
        ):
            yield f"{name}, {words}", f"{one[key] / bare[key]:.2f} x bare", limit


def _choice(found: Any) -> Iterator[Row]:
    for grid in found:
        for way, one in grid["ways"].items():
            said = f"{one['ratio']:.2f} x, {one['spent']:.0%} trained, same choice {one['same']} of {grid['seeds']}"
            yield f"{grid['grid']} points, {way}", said, ""


def _idle(found: Any) -> Iterator[Row]:
    for way, one in found["medians"].items():
        yield f"{way}: slots idle while points are left", f"{one['idle']:.1%}", "under 5 %"
        yield f"{way}: from a trial's end to the next one's first step", f"{one['to_train_s']:.2f} s", "0.3 s"


def _driver(found: Any) -> Iterator[Row]:
    for row in found["rows"]:
        limit = "at most 3 x" if row["storage"] == "journal" else "at most 2 x"
        said = f"{row['first_ratio']:.2f} x first, {row['last_ratio']:.2f} x last, {row['last_ms']:.1f} ms a report"
        yield f"{row['storage']}, {row['pruner']}, {row['trials']:,} trials", said, limit


def _step(found: Any) -> Iterator[Row]:
    ours, theirs = found["step_s"]["sweeper"], found["step_s"]["TRL's own trainer"]
    yield "tokens/s beside TRL's own trainer", f"{theirs / ours:.2f} x", "at least 0.98 x"
    yield f"signals, of a step of {ours * 1e3:.0f} ms", f"{found['signals_share']:.2%}", "under 1 %"


def _gpu(found: Any) -> Iterator[Row]:
    busy = "not measured" if found["busy"] is None else f"{found['busy']:.0%}"
    yield "GPU busy in a pruned sweep of a large model", busy, ""
    yield "from a trial's end to the next one's first step", f"{found['to_train_s']:.2f} s", "at most 3 s"


def _gang(found: Any) -> Iterator[Row]:
    yield "warm gang's start beside TorchTrainer in Tune", f"{found['ratio']:.3f} x", "at most 0.25 x"


def _prior(found: Any) -> Iterator[Row]:
    for name in ("alone", "with its twin"):
        mine = [row for row in found if row["pruner"] == name]
        cost, hit = (statistics.median(r["cost"] for r in mine), statistics.mean(r["hit"] for r in mine))
        yield f"learned, {name}", f"{cost:.2f} of the training, {hit:.0%} hits", ""


def _pruners(found: Any) -> Iterator[Row]:
    for name in dict.fromkeys(row["pruner"] for row in found):
        mine = [row for row in found if row["pruner"] == name]
        groups = {row["group"] for row in mine}
        costs = {g: statistics.fmean(row["cost"] for row in mine if row["group"] == g) for g in groups}
        hits = [statistics.fmean(row["hit"] for row in mine if row["group"] == g) for g in groups]
        said = f"median cost {statistics.median(costs.values()):.2f}, lowest hit rate {min(hits):.0%}"
        yield f"{name}, recorded sweeps and families", said, ""


def _watch(found: Any) -> Iterator[Row]:
    cpu = {name: statistics.median(one["cpu_s"] for one in runs) for name, runs in found.items()}
    yield "the driver's CPU time while watched", f"{cpu['watched'] / cpu['alone']:.2f} x", ""


@dataclasses.dataclass(frozen=True)
class Part:
    """One benchmark."""

    script: str
    words: tuple[str, ...]  # `{dir}` stands for where everything is kept
    rows: Callable[[Any], Iterator[Row]]
    needs_gpu: bool = False


LARGE = ("--width", "2048", "--layers", "16", "--length", "512", "--vocabulary", "32000")
PARTS = {
    "overhead": Part("overhead.py", (), _overhead),
    "choice": Part("choice.py", ("--keep", "{dir}/choice.jsonl"), _choice),
    "idle": Part("idle.py", (), _idle),
    "driver": Part("driver.py", ("--fast-middle", "--trials", "100", "1000", "10000"), _driver),
    "driver-others": Part("driver.py", ("--pruners", "certain", "optuna", "--trials", "100", "1000"), _driver),
    "driver-learned": Part("driver.py", ("--pruners", "learned", "--trials", "100", "1000"), _driver),
    "driver-learned-10000": Part("driver.py", ("--fast-middle", "--pruners", "learned", "--trials", "10000"), _driver),
    "driver-postgres": Part("driver.py", ("--fast-middle", "--trials", "100", "1000", "10000", "--postgres"), _driver),
    "driver-postgres-learned": Part(
        "driver.py", ("--pruners", "learned", "--trials", "100", "1000", "--postgres"), _driver
    ),
    "step": Part("step.py", (), _step),
    "gpu": Part("gpu.py", (), _gpu, needs_gpu=True),
    "gpu-step": Part("step.py", LARGE, _step, needs_gpu=True),
    "gang": Part("gang.py", (), _gang),
    "prior": Part("prior.py", (), _prior),
    "pruners": Part("pruners.py", ("--keep", "{dir}/plays.jsonl"), _pruners),
    "watch": Part("watch.py", (), _watch),
}  # fmt: skip


def run(name: str, directory: Path) -> None:
    """Run a part, unless its figures are there."""
    place = directory / f"{name}.json"
    if place.exists():
        return
    part = PARTS[name]
    words = [word.format(dir=directory) for word in part.words]
    beside = directory / f"{name}.part"
    print(f"{name} ...", file=sys.stderr, flush=True)
    with (directory / f"{name}.txt").open("w") as said:
        subprocess.run(
            [sys.executable, str(HERE / part.script), *words, "--json", str(beside)],
            stdout=said, stderr=subprocess.STDOUT, check=True, cwd=HERE.parents[1],
        )  # fmt: skip
    beside.rename(place)


def main() -> None:
    """Run what is missing and print the table of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dir", type=Path, required=True, help="figures and tables; what is there is kept")
    parser.add_argument("--only", action="append", choices=PARTS, help="may be given again")
    options = parser.parse_args()
    directory: Path = options.dir.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    has_gpu = shutil.which("nvidia-smi") is not None
    for name in options.only or [name for name, part in PARTS.items() if has_gpu or not part.needs_gpu]:
        run(name, directory)
    files = {name: directory / f"{name}.json" for name in PARTS}
    found = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "machine": platform.machine()}
    print(f"{machine['cores']} cores, Python {machine['python']}, {datetime.now():%Y-%m-%d}")
    for name, figures in found.items():
        for what, said, limit in PARTS[name].rows(figures):
            print(f"{name:<16}{what:<52}{said:<52}{limit}".rstrip())
    whole = {"machine": machine, "date": str(datetime.now().date()), "parts": found}
    (directory / "benchmarks.json").write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
