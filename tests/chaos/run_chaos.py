"""Runs sweeps on Ray, kills driver, workers and nodes at random but seeded moments, and looks what came of it.

Usage: python tests/chaos/run_chaos.py --out DIR [--kills N] [--per-sweep N] [--seed S] [--trial made-up|tiny]
           [--pruner nop|early_dynamics|certain|learned] [--nodes] [--storage journal|postgresql] [--limit-s SECONDS]
       python tests/chaos/run_chaos.py --table DIR...

Disturbs one sweep after another until so many kills are spent, and prints a table. With a limit it stops before the
sweep that would exceed it, with exit code 75; the same command goes on. Exit code 1: something was lost, doubled or
changed.
"""

import argparse
import contextlib
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from chaos_sweeps import outcome, start, write_sweep  # noqa: E402
from decided import PRUNERS  # noqa: E402
from disturbed import END_S, Chaos, Plan, Tally, sweep_of  # noqa: E402
from nodes import Nodes  # noqa: E402
from postgres import Postgres, binaries  # noqa: E402

_GO_ON = 75
_RESULT = "result.json"


@contextlib.contextmanager
def _nodes(wanted: bool) -> Iterator[Nodes | None]:
    nodes = Nodes() if wanted else None
    try:
        yield nodes
    finally:
        if nodes is not None:
            nodes.end()


@contextlib.contextmanager
def _server(kind: str) -> Iterator[Postgres | None]:
    if kind == "journal":
        yield None
        return
    programs = binaries()
    if programs is None:
        raise SystemExit("PostgreSQL's programs are not installed.")
    server = Postgres(programs)
    try:
        yield server
    finally:
        server.remove()


def calm_outcome(plan: Plan, directory: Path) -> dict[str, dict[str, Any]]:
    """Run the sweep that nobody disturbs, without pruning, unless it was; return what it came to."""
    if not (directory / "calm.ok").exists():
        shutil.rmtree(directory / "calm", ignore_errors=True)
        config = {**sweep_of(plan, "calm"), "pruner": "nop"}
        sweep = write_sweep(directory / "calm.yaml", config)
        driver = start(["launch", str(sweep), "--dir", str(directory / "calm")], directory / "calm.log")
        if driver.wait(END_S) != 0:
            raise SystemExit(f"The undisturbed sweep failed: {(directory / 'calm.log').read_text()[-2000:]}")
        (directory / "calm.ok").touch()
    return outcome(directory / "calm")


def run_chaos(plan: Plan, directory: Path) -> Tally:
    """Run one disturbed sweep and compare it with the undisturbed one."""
    directory.mkdir(parents=True, exist_ok=True)
    return _disturb(plan, directory / "disturbed", calm_outcome(plan, directory))


def run_sweeps(
    plan: Plan, directory: Path, *, kills: int, limit_s: float = float("inf")
) -> tuple[list[Tally], bool]:
    """Disturb sweeps until `kills` are spent; return their tallies and whether that many are.

    Args:
        plan: The first sweep's; each further one has the next seed.
        directory: Keeps what was done, so that the same call goes on.
        kills: In all.
        limit_s: Starts no sweep that would probably end later.
    """
    began = time.monotonic()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "plan.json").write_text(json.dumps(dataclasses.asdict(plan)))
    calm = calm_outcome(plan, directory)
    tallies: list[Tally] = []
    while sum(tally.n_kills for tally in tallies) < kills:
        place = directory / f"sweep-{len(tallies)}"
        if not (place / _RESULT).exists():
            longest = max((tally.seconds for tally in tallies), default=0.0)
            if time.monotonic() - began + longest > limit_s:
                return tallies, False
            shutil.rmtree(place, ignore_errors=True)
            seeded = dataclasses.replace(plan, seed=plan.seed + len(tallies))
            tally = _disturb(seeded, place, calm)
            (place / _RESULT).write_text(json.dumps(dataclasses.asdict(tally)))
        tallies.append(Tally(**json.loads((place / _RESULT).read_text())))
    return tallies, True


def _disturb(plan: Plan, directory: Path, calm: dict[str, dict[str, Any]]) -> Tally:
    directory.mkdir(parents=True)
    with _nodes(plan.nodes) as nodes, _server(plan.storage) as server:
        chaos = Chaos(plan, directory, server=server, nodes=nodes)
        chaos.run()
        chaos.check(calm)
    return chaos.tally


def summary(plan: Plan, tallies: list[Tally]) -> dict[str, str]:
    """Return one row of the table: what was broken in all these sweeps, and what was found afterwards."""
    killed = {kind: sum(tally.kills[kind] for tally in tallies) for kind in Tally().kills}
    words = {
        "driver": "driver",
        "worker": "worker",
        "node": "raylet of a node",
        "outage": "server away for 30 s",
    }
    return {
        "trials": "fine-tuning" if plan.trial == "tiny" else "made up",
        "pruner": plan.pruner,
        "storage": plan.storage,
        "sweeps": str(len(tallies)),
        "broken": ", ".join(f"{n} x {words[kind]}" for kind, n in killed.items() if n),
        "points": str(sum(tally.n_points for tally in tallies)),
        "attempts": str(sum(tally.attempts for tally in tallies)),
        "steps compared": f"{sum(tally.n_steps for tally in tallies):,}",
        "decisions": str(sum(tally.n_decisions for tally in tallies)),
        "pruned": str(sum(tally.n_pruned for tally in tallies)),
        "lost, doubled or changed": str(sum(len(tally.faults) for tally in tallies)),
        "seconds": f"{sum(tally.seconds for tally in tallies):.0f}",
    }


def table(rows: list[dict[str, str]]) -> str:
    """Return rows as a Markdown table."""
    lines = [
        " | ".join(rows[0]),
        " | ".join("---" for _ in rows[0]),
        *(" | ".join(row.values()) for row in rows),
    ]
    return "\n".join(f"| {line} |" for line in lines)


def read_summary(directory: Path) -> dict[str, str]:
    """Return the row of what was done in a directory."""
    plan = Plan(**json.loads((directory / "plan.json").read_text()))
    results = sorted(directory.glob(f"sweep-*/{_RESULT}"))
    return summary(plan, [Tally(**json.loads(result.read_text())) for result in results])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--per-sweep", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trial", choices=["made-up", "tiny"], default="tiny")
    parser.add_argument("--pruner", choices=list(PRUNERS), default="nop")
    parser.add_argument("--nodes", action="store_true")
    parser.add_argument("--storage", choices=["journal", "postgresql"], default="journal")
    parser.add_argument("--limit-s", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, nargs="+")
    words = parser.parse_args()
    if words.table:
        print(table([read_summary(directory) for directory in words.table]))
        return 0
    if words.out is None:
        parser.error("give --out DIR, where what was done is kept, or --table DIR...")
    plan = Plan(
        kills=words.per_sweep, seed=words.seed, trial=words.trial, pruner=words.pruner, nodes=words.nodes,
        storage=words.storage,
    )  # fmt: skip
    tallies, is_done = run_sweeps(plan, words.out, kills=words.kills, limit_s=words.limit_s)
    faults = [fault for tally in tallies for fault in tally.faults]
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    if tallies:
        print(table([summary(plan, tallies)]))
    if not is_done:
        print("Not all kills are spent: the same command goes on.", file=sys.stderr)
    return 1 if faults else 0 if is_done else _GO_ON


if __name__ == "__main__":
    sys.exit(main())
