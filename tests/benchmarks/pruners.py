"""What each pruner costs and loses, on really trained sweeps and on families built to mislead.

    python tests/benchmarks/pruners.py
    python tests/benchmarks/pruners.py --studies 1000 --orders 1 --only learned --keep plays.jsonl     the long form
    python tests/benchmarks/pruners.py --sweeps my-curves.parquet --json pruners.json

With `--keep FILE` every play is written there when it is over, and not played again by the next call: the long form
goes on where it stopped.

Cost is the share of the grid's training that is spent; wall is the time until the end, as a share of the grid's seconds
over the slots. A hit is a final choice within one standard deviation between seeds of the grid's best; regret is what
it lacks to that, in the metric's units. What the order of reports changes: choices is how many points were chosen in
some order, contested the share of the points trained to their end in some order that were not in every one. (Who
survives the certain mode is the same in every order; who else comes to the end before it is sure is not.)
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contenders import CONTENDERS, Contender
from families import FAMILIES, make_sweep
from rich.console import Console
from rich.table import Table

from sweeper.replay import ReplayOptions, replay
from sweeper.study.recorded import RecordedSweep, seed_sd
from sweeper.study.recorded_files import load_recorded

RECORDED = Path(__file__).parents[2] / "examples" / "recorded"
METRICS = ("score", "score_kept", "score_new")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One pruner on one sweep."""

    group: str  # a family, or a recorded sweep with its metric
    source: str  # what makes or holds the sweep
    contender: str
    orders: int
    slots: int = 4
    seed: int = 0


@functools.cache
def _recorded(path: str, metric: str | None) -> RecordedSweep:
    sweep = load_recorded(path)
    if metric is None:
        return sweep
    stem, _, seed = Path(path).stem.rpartition("-s")
    others = [p for p in Path(path).parent.glob(f"{stem}-s*.parquet") if seed and p != Path(path)]
    sweep = sweep.with_metric(metric)
    if not others:
        return sweep
    noise = seed_sd([sweep, *(load_recorded(other).with_metric(metric) for other in sorted(others))])
    return dataclasses.replace(sweep, seed_sd=noise)


@functools.lru_cache(maxsize=4)
def sweep_of(source: str) -> RecordedSweep:
    """Return the sweep that a source names: `family:seed`, or `path|metric`."""
    if "|" in source:
        path, _, metric = source.partition("|")
        return _recorded(path, metric or None)
    family, _, seed = source.partition(":")
    return make_sweep(family, int(seed))


def run(task: Task) -> dict[str, Any] | None:
    """Play one pruner on one sweep; None where this version has no such mode."""
    sweep = sweep_of(task.source)
    contender = next(c for c in CONTENDERS if c.label == task.contender)
    if not contender.is_available(sweep):
        return None
    started = time.perf_counter()
    result = replay(
        sweep,
        contender.config(sweep),
        ReplayOptions(orders=task.orders, slots=task.slots, seed=task.seed),
        judge=contender.judge,
        label=task.contender,
    )
    took = time.perf_counter() - started
    return {**result.as_dict(), "group": task.group, "took_s": took, "task": dataclasses.asdict(task)}


def played(path: Path | None) -> dict[Task, dict[str, Any]]:
    """Return the plays that an earlier call kept. One that was cut off in writing counts as not played."""
    found = {}
    if path is not None and path.exists():
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                result = json.loads(line)
                if "contested" in result:  # else an earlier version's, which did not measure all
                    found[Task(**result["task"])] = result
    return found


def play_all(tasks: list[Task], *, processes: int, keep: Path | None, chunk: int) -> list[dict[str, Any]]:
    """Play what was not played yet; return all results in the order of the tasks."""
    found = played(keep)
    missing = [task for task in tasks if task not in found]
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(context.Pool(processes, initializer=_quiet))
        file = stack.enter_context(keep.open("a")) if keep is not None else None
        if file is not None and found:
            print(file=file)  # after a line that was cut off
        for task, result in zip(missing, pool.imap(run, missing, chunksize=chunk), strict=True):
            if result is None:
                continue
            found[task] = result
            if file is not None:
                print(json.dumps(result), file=file, flush=True)
    return [found[task] for task in tasks if task in found]


def tasks_of(args: argparse.Namespace, contenders: list[Contender]) -> list[Task]:
    """Return every pruner on every sweep; the sweeps in turn, so that each process makes one only once."""
    sources: list[tuple[str, str]] = []
    paths = args.sweeps or sorted(RECORDED.glob("*.parquet"))
    for path in paths:
        metrics = METRICS if Path(path).parent.resolve() == RECORDED else ("",)
        sources += [(f"{Path(path).stem} {metric}".strip(), f"{path}|{metric}") for metric in metrics]
    if not args.sweeps:
        sources += [(family, f"{family}:{seed}") for family in FAMILIES for seed in range(args.studies)]
    if args.groups:
        sources = [source for source in sources if any(word in source[0] for word in args.groups)]
    return [
        Task(group=group, source=source, contender=contender.label, orders=args.orders, slots=args.slots)
        for group, source in sources
        for contender in contenders
    ]


def summarised(results: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, float]]:
    """Return what each pruner comes to in each group: mean over its studies and orders."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = collections.defaultdict(list)
    for result in results:
        grouped[result["group"], result["pruner"]].append(result)
    return {
        key: {
            name: statistics.fmean(one[name] for one in found)
            for name in ("cost", "cost_s", "wall", "regret", "hit", "choices", "contested")
        }
        for key, found in grouped.items()
    }


def print_tables(summary: dict[tuple[str, str], dict[str, float]], console: Console) -> None:
    """Print cost with hit rate, then regret: one row per group, one column per pruner."""
    groups = list(dict.fromkeys(group for group, _ in summary))
    pruners = list(dict.fromkeys(pruner for _, pruner in summary))
    cells: dict[str, Callable[[dict[str, float]], str]] = {
        "share of training spent, and hit rate in %": lambda s: f"{s['cost']:.2f} {100 * s['hit']:3.0f}",
        "mean regret, in the metric's units": lambda s: f"{s['regret']:.3f}",
    }
    for title, cell in cells.items():
        table = Table(title=title, box=None, padding=(0, 1))
        table.add_column("", no_wrap=True)
        for pruner in pruners:
            table.add_column(pruner, justify="right", min_width=8, overflow="fold")
        for group in groups:
            table.add_row(group, *(cell(summary[group, p]) if (group, p) in summary else "" for p in pruners))
        console.print(table)
    totals = Table(title="over all groups", box=None, padding=(0, 1))
    for column in (
        "pruner",
        "recorded: median cost",
        "worst cost",
        "median wall",
        "lowest hit",
        "families: lowest hit",
        "in",
        "choices",
        "contested",
    ):
        totals.add_column(column, justify="left" if column in ("pruner", "in") else "right")
    for pruner in pruners:
        totals.add_row(pruner, *_totals(summary, groups, pruner))
    console.print(totals)


def _totals(summary: dict[tuple[str, str], dict[str, float]], groups: list[str], pruner: str) -> list[str]:
    recorded = [summary[g, pruner] for g in groups if g not in FAMILIES and (g, pruner) in summary]
    families = {g: summary[g, pruner]["hit"] for g in groups if g in FAMILIES and (g, pruner) in summary}
    cells = ["", "", "", ""]
    if recorded:
        costs = [one["cost"] for one in recorded]
        lowest = min(one["hit"] for one in recorded)
        wall = statistics.median(one["wall"] for one in recorded)
        cells = [f"{statistics.median(costs):.2f}", f"{max(costs):.2f}", f"{wall:.2f}", f"{lowest:.0%}"]
    worst = min(families, key=lambda g: families[g], default="")
    found = [one for (_, label), one in summary.items() if label == pruner]
    varies = [statistics.fmean(one[name] for one in found) for name in ("choices", "contested")]
    return [
        *cells, f"{families[worst]:.0%}" if worst else "", worst, f"{varies[0]:.1f}", f"{varies[1]:.0%}",
    ]  # fmt: skip


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    labels = [contender.label for contender in CONTENDERS]
    parser.add_argument("--studies", type=int, default=6, help="of each family")
    parser.add_argument(
        "--orders", type=int, default=3, help="random orders of each study and recorded sweep"
    )
    parser.add_argument("--slots", type=int, default=4, help="trials at a time")
    parser.add_argument("--only", action="append", choices=labels, help="a pruner; may be given again")
    parser.add_argument("--groups", nargs="+", help="only groups whose name holds one of these words")
    parser.add_argument("--sweeps", nargs="+", help="recorded sweeps of your own instead of all others")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument(
        "--keep", type=Path, help="keep every play there, and do not play it again (JSON lines)"
    )
    parser.add_argument("--json", type=Path, help="write every result there")
    return parser.parse_args()


def _quiet() -> None:
    """Optuna's Wilcoxon pruner warns at every judgement of a trial whose rungs the best one lacks."""
    warnings.filterwarnings("ignore", module="optuna")


def main() -> None:
    """Play everything and print the tables."""
    args = parse_args()
    contenders = [c for c in CONTENDERS if not args.only or c.label in args.only]
    tasks = tasks_of(args, contenders)
    started = time.perf_counter()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # one process a core is quicker than several threads each
    results = play_all(tasks, processes=args.processes, keep=args.keep, chunk=len(contenders))
    console = Console(width=None if sys.stdout.isatty() else 200)
    print_tables(summarised(results), console)
    console.print(f"{len(results)} plays of {args.orders} orders in {time.perf_counter() - started:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
