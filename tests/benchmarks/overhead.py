"""What a sweep costs beside its training: the same trials bare, through sweeper, and through what people use instead.

All train the tiny model for real, 24 trials on two slots, each about 3 s on two cores. `bare` is the yardstick: two
processes that have everything imported and run the same trial functions one after another. Times run from the first
worker's readiness to the last trial's end. The next column is from the start of everything to the end: for sweeper from
the shell prompt to the written report, for the others without what their own driver imports. The last one is the share
of the training that was done: ASHA and the median rule stop trials, which sweeper can too (see
`pruners.py`), but does not here. transformers' search has one process, so that 2 x is its best.

    python tests/benchmarks/overhead.py [--trials 24] [--repeats 3] [--only NAME]... [--json FILE]
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from peers import SLOTS, Run, Sink, hyperparameter_search, optuna_processes, ray_tune, specs

from sweeper.api import load_study
from sweeper.config import load_config
from sweeper.config.dump import dump_config
from sweeper.config.models import SweepConfig
from sweeper.plan import plan_sweep

ROOT = Path(__file__).parents[2]


def overrides(n_trials: int) -> list[str]:
    """Return what makes the quickstart's grid one of so many rates at one batch size."""
    rates = [1e-5 * 2 ** (11 * index / max(1, n_trials - 1)) for index in range(n_trials)]
    return [
        "search_space.effective_batch_size.grid=[8]",
        f"search_space.learning_rate.grid={rates}",
        "trial.budget.samples=2304",
        "pruner={name: nop}",
    ]


def bare(config: SweepConfig) -> Run:
    """Run all trials in two warm processes."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        todo: Any = context.Queue()
        times: Any = context.Queue()
        for spec in specs(config, scratch):
            todo.put(spec)
        for _ in range(SLOTS):
            todo.put(None)
        started = time.time()
        workers = [context.Process(target=_bare_worker, args=(todo, times)) for _ in range(SLOTS)]
        for worker in workers:
            worker.start()
        said = [times.get() for _ in range(2 * SLOTS)]
        for worker in workers:
            worker.join()
    ended = max(one["end"] for one in said if "end" in one)
    return Run(
        ready_s=ended - min(one["ready"] for one in said if "ready" in one),
        start_s=ended - started,
        values={index: value for one in said for index, value in one.get("values", {}).items()},
    )


def _bare_worker(todo: Any, times: Any) -> None:
    from sweeper.executors.attempt import run_attempt
    from sweeper.training import warm

    warm.preload()
    times.put({"ready": time.time()})
    values = {}
    while (spec := todo.get()) is not None:
        outcome = run_attempt(spec, Sink())
        assert outcome.report is not None, outcome.error
        values[spec.number] = outcome.report.metrics["score"]
    times.put({"end": time.time(), "values": values})


def through_sweeper(config: SweepConfig) -> Run:
    """Run `sweeper launch` as from a shell, from its prompt to the report."""
    with tempfile.TemporaryDirectory() as scratch:
        file, study = Path(scratch, "sweep.yaml"), Path(scratch, "study")
        file.write_text(dump_config(config))
        started = time.time()
        subprocess.run(
            [sys.executable, "-m", "sweeper.cli", "launch", str(file), "--dir", str(study)],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        start_s = time.time() - started
        assert (study / "report" / "index.html").exists()
        view = load_study(str(study))
        # A point that was stopped before its start has neither time.
        begun = [datetime.fromisoformat(r.started).timestamp() for r in view.records if r.started]
        ended = [datetime.fromisoformat(r.ended).timestamp() for r in view.records if r.ended]
        points = [point.point_id for point in plan_sweep(config).points]
        return Run(
            ready_s=max(ended) - min(begun),
            start_s=start_s,
            spent=view.spent_samples / view.full_samples,
            values={points.index(r.point_id): r.value for r in view.records if r.value is not None},
        )


WAYS: dict[str, Callable[[SweepConfig], Run]] = {
    "bare": bare,
    "sweeper": through_sweeper,
    "Ray Tune": ray_tune,
    "Ray Tune, reuse_actors": lambda c: ray_tune(c, reuse_actors=True),
    "Ray Tune + ASHA": lambda c: ray_tune(c, asha=True),
    "Optuna, 2 processes, median": optuna_processes,
    "hyperparameter_search": hyperparameter_search,
}


def main() -> None:
    """Run every way in turn and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", action="append", choices=WAYS, help="beside `bare`; may be given again")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    config = load_config(ROOT / "examples/quickstart.yaml", overrides(options.trials))
    names = [name for name in WAYS if not options.only or name in ("bare", *options.only)]
    bare(config)  # fills the caches of files and tokenised data that all of them use
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for _ in range(options.repeats):
        for name in names:
            runs[name].append(WAYS[name](config))
    medians = {
        name: {
            key: statistics.median(getattr(run, key) for run in made)
            for key in ("ready_s", "start_s", "spent")
        }
        for name, made in runs.items()
    }
    yardstick = medians["bare"]
    print(f"{options.trials} trials on {SLOTS} slots, medians of {options.repeats}")
    print(f"{'':<30}{'from readiness':>20}{'from the start':>20}{'training':>10}")
    for name, found in medians.items():
        columns = "".join(
            f"{found[key]:>10.1f} s {found[key] / yardstick[key]:>5.2f} x" for key in ("ready_s", "start_s")
        )
        print(f"{name:<30}{columns}{found['spent']:>9.0%}")
    if options.json:
        seconds = {name: [dataclasses.asdict(run) for run in made] for name, made in runs.items()}
        options.json.write_text(json.dumps({"runs": seconds, "medians": medians}, indent=1))


if __name__ == "__main__":
    main()
