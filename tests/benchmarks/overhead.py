"""What a sweep costs beside its training: the same trials bare, through sweeper, and through plain Ray Tune.

All train the tiny model for real, 12 trials on two slots, each about 3 s on two cores. `bare` is the yardstick: two
processes that have everything imported and run the same trial functions one after another. Times run from the first
worker's readiness to the last trial's end; the last column is from the start of everything.

    python tests/benchmarks/overhead.py [--repeats 3] [--json FILE]
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from sweeper.config import load_config
from sweeper.config.models import SweepConfig
from sweeper.context import TrialSpec
from sweeper.plan import plan_sweep, trial_spec
from sweeper.records import Report

ROOT = Path(__file__).parents[2]
SLOTS = 2
RATES = [1e-5 * 2**index for index in range(12)]
OVERRIDES = [
    "search_space.effective_batch_size.grid=[8]",
    f"search_space.learning_rate.grid={RATES}",
    "trial.budget.samples=1536",
    "pruner={name: nop}",
]


class Nobody:
    """A channel that takes reports and stops nothing."""

    def send(self, report: Report, *, wait: bool) -> None:
        return None

    def should_stop(self) -> bool:
        return False

    def should_pause(self) -> bool:
        return False


def specs(config: SweepConfig, directory: str) -> list[TrialSpec]:
    return [
        trial_spec(config, point, number=n, attempt=1, trial_dir=f"{directory}/{n}", threads=1)
        for n, point in enumerate(plan_sweep(config).points)
    ]


def bare(config: SweepConfig) -> tuple[float, float]:
    """Run all trials in two warm processes; return seconds from readiness, and from the start."""
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
    ready, ended = min(t for kind, t in said if kind == "ready"), max(t for kind, t in said if kind == "end")
    return ended - ready, ended - started


def _bare_worker(todo: Any, times: Any) -> None:
    from sweeper.executors.attempt import run_attempt
    from sweeper.training import warm

    warm.preload()
    times.put(("ready", time.time()))
    while (spec := todo.get()) is not None:
        assert run_attempt(spec, Nobody()).error is None
    times.put(("end", time.time()))


def through_sweeper(config: SweepConfig) -> tuple[float, float]:
    from sweeper import api

    with tempfile.TemporaryDirectory() as scratch:
        started = time.time()
        view = api.launch(config, options=api.LaunchOptions(dir=f"{scratch}/study"))
        begun = [datetime.fromisoformat(record.started or "").timestamp() for record in view.records]
        ended = [datetime.fromisoformat(record.ended or "").timestamp() for record in view.records]
        assert all(record.value is not None for record in view.records)
        return max(ended) - min(begun), time.time() - started


def plain_ray_tune(config: SweepConfig, *, reuse_actors: bool = False) -> tuple[float, float]:
    import ray
    from ray import tune

    started = time.time()
    with tempfile.TemporaryDirectory() as scratch:
        ray.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        try:
            folder = Path(scratch, "times")
            folder.mkdir()
            todo = specs(config, scratch)

            def train(params: dict[str, Any]) -> None:
                from sweeper.executors.attempt import run_attempt
                from sweeper.training import warm

                warm.preload()
                ready = time.time()
                outcome = run_attempt(todo[params["index"]], Nobody())
                assert outcome.report is not None
                (folder / str(params["index"])).write_text(json.dumps([ready, time.time()]))
                tune.report({"score": outcome.report.metrics["score"]})

            tune.Tuner(
                tune.with_resources(train, {"cpu": 1}),
                param_space={"index": tune.grid_search(list(range(len(todo))))},
                tune_config=tune.TuneConfig(reuse_actors=reuse_actors),
                run_config=tune.RunConfig(storage_path=scratch, verbose=0),
            ).fit()
        finally:
            ray.shutdown()
        times = [json.loads(path.read_text()) for path in folder.iterdir()]
        assert len(times) == len(todo)
    return max(end for _, end in times) - min(ready for ready, _ in times), time.time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    config = load_config(ROOT / "examples/quickstart.yaml", OVERRIDES)
    ways: dict[str, Callable[[SweepConfig], tuple[float, float]]] = {
        "bare": bare,
        "sweeper": through_sweeper,
        "Ray Tune": plain_ray_tune,
        "Ray Tune, reuse_actors": lambda c: plain_ray_tune(c, reuse_actors=True),
    }
    bare(config)  # fills the caches of files and tokenised data that all of them use
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            seconds[name].append(way(config))
    table = {
        name: [statistics.median(column) for column in zip(*runs, strict=True)]
        for name, runs in seconds.items()
    }
    yardstick = table["bare"]
    print(f"{len(RATES)} trials on {SLOTS} slots, medians of {options.repeats}")
    print(f"{'':<24}{'from readiness':>20}{'from the start':>20}")
    for name, (ready_s, start_s) in table.items():
        columns = ((ready_s, ready_s / yardstick[0]), (start_s, start_s / yardstick[0]))
        print(
            f"{name:<24}" + "".join(f"{seconds_s:>10.1f} s {ratio:>5.2f} x" for seconds_s, ratio in columns)
        )
    if options.json:
        options.json.write_text(json.dumps({"seconds": seconds, "medians": table}, indent=1))


if __name__ == "__main__":
    main()
