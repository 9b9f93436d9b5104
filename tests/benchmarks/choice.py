"""What it takes to come to the full grid's choice: time and training, over seeds, beside what people use instead.

Two grids of the tiny model, each really trained in every way: the quickstart's (15 points) and one of twice as many
rates (30). `bare` trains the full grid in two warm processes, and is what the others are measured against: their time
from the start of everything, their share of the training, and how far the full grid's value of the point that they
choose is from its best one (the regret; `same` counts the seeds in which it is within one standard deviation of the
best value between seeds). What was run is kept in `--keep`, so the whole can be run in pieces.

    python tests/benchmarks/choice.py --keep FILE [--seeds 5] [--grid 15]... [--only NAME]... [--json FILE]
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from overhead import ROOT, bare, through_sweeper
from peers import SLOTS, Run, hyperparameter_search, optuna_processes, ray_tune

from sweeper.config import load_config
from sweeper.config.models import SweepConfig

MORE_RATES = [3e-5, 5e-5, 1e-4, 1.7e-4, 3e-4, 5e-4, 1e-3, 1.7e-3, 3e-3, 5e-3]
GRIDS: dict[int, list[str]] = {15: [], 30: [f"search_space.learning_rate.grid={MORE_RATES}"]}
LEARNED = "sweeper, learned"
WAYS: dict[str, Callable[[SweepConfig], Run]] = {
    "bare": bare,
    "sweeper": through_sweeper,
    LEARNED: through_sweeper,
    "Ray Tune": ray_tune,
    "Ray Tune, reuse_actors": lambda c: ray_tune(c, reuse_actors=True),
    "Ray Tune + ASHA": lambda c: ray_tune(c, asha=True),
    "Optuna, 2 processes, median": optuna_processes,
    "hyperparameter_search": hyperparameter_search,
}


def config_of(grid: int, seed: int, way: str) -> SweepConfig:
    overrides = [*GRIDS[grid], f"seed={seed}"]
    if way == LEARNED:
        overrides.append("pruner={name: early_dynamics}")
    return load_config(ROOT / "examples/quickstart.yaml", overrides)


def kept(path: Path) -> dict[tuple[int, int, str], dict[str, Any]]:
    """Return what was run before."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(row["grid"], row["seed"], row["way"]): row for row in rows}


def run(path: Path, grid: int, seed: int, way: str) -> None:
    """Run one way once and keep what it gave."""
    made = WAYS[way](config_of(grid, seed, way))
    row = {
        "grid": grid, "seed": seed, "way": way, "start_s": made.start_s, "spent": made.spent,
        "chosen": made.chosen, "values": {str(index): value for index, value in made.values.items()},
    }  # fmt: skip
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(
        f"{grid} points, seed {seed}, {way}: {made.start_s:.1f} s, {made.spent:.0%} of the training",
        flush=True,
    )


def summarised(rows: dict[tuple[int, int, str], dict[str, Any]], grid: int) -> dict[str, Any]:
    """Return the medians over the seeds in which every way was run."""
    names = [way for way in WAYS if any((grid, seed, way) in rows for seed in range(100))]
    seeds = [seed for seed in range(100) if all((grid, seed, way) in rows for way in names)]
    full = {seed: rows[grid, seed, "bare"] for seed in seeds}
    best = {seed: max(full[seed]["values"].values()) for seed in seeds}
    sd = statistics.stdev(best.values()) if len(seeds) > 1 else 0.0
    ways = {}
    for way in names:
        mine = [rows[grid, seed, way] for seed in seeds]
        regrets = [best[seed] - full[seed]["values"][str(rows[grid, seed, way]["chosen"])] for seed in seeds]
        ways[way] = {
            "start_s": statistics.median(one["start_s"] for one in mine),
            "ratio": statistics.median(one["start_s"] / full[one["seed"]]["start_s"] for one in mine),
            "spent": statistics.median(one["spent"] for one in mine),
            "same": sum(regret <= sd for regret in regrets),
            "regret": statistics.median(regrets),
        }
    return {"grid": grid, "seeds": len(seeds), "seed_sd": sd, "ways": ways}


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['grid']} points on {SLOTS} slots, medians over {found['seeds']} seeds; the best value differs between "
        f"seeds by {found['seed_sd']:.4f} (standard deviation)",
        f"{'':<30}{'time':>18}{'training':>10}{'same choice':>13}{'regret':>9}",
    ]
    lines += [
        f"{way:<30}{one['start_s']:>8.1f} s {one['ratio']:>5.2f} x{one['spent']:>10.0%}"
        f"{one['same']:>8} of {found['seeds']}{one['regret']:>9.4f}"
        for way, one in found["ways"].items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--keep", type=Path, required=True, help="one line for every run; what is there is not run again"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--grid", type=int, action="append", choices=GRIDS, help="may be given again; default: both"
    )
    parser.add_argument("--only", action="append", choices=WAYS, help="beside `bare`; may be given again")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    grids = options.grid or list(GRIDS)
    names = [name for name in WAYS if not options.only or name in ("bare", *options.only)]
    for grid in grids:
        for seed in range(options.seeds):
            for way in names:
                if (grid, seed, way) not in kept(options.keep):
                    run(options.keep, grid, seed, way)
    made = [summarised(kept(options.keep), grid) for grid in grids]
    for found in made:
        print("\n" + table(found))
    if options.json:
        options.json.write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
