"""Make the recorded sweeps: full grids of the tiny model, every point trained to its end, as Parquet.

    python examples/recorded/make_recorded.py --work /tmp/recorded
    python examples/recorded/make_recorded.py --work /tmp/recorded --only rotate-s0,ends-s0

Each sweep is an ordinary study: call it again after an interruption and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Any

HERE = pathlib.Path(__file__).parent
TINY = HERE.parent / "tiny"
MARKS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8)  # of the budget; the end is evaluated too
RATES = (3e-5, 7e-5, 1.6e-4, 3.6e-4, 8e-4, 1.8e-3, 4e-3, 1e-2)
BATCHES = (8, 16, 32, 128)
SEEDS = (0, 1)
# The same run counts three times: what is to be learned and what is to be kept weigh differently.
WEIGHTS = {"score": (0.5, 0.5), "score_kept": (0.2, 0.8), "score_new": (0.8, 0.2)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What sets one sweep apart from the others."""

    new: str  # skills to learn
    train_rows: int
    replay_frac: float  # of the train rows, from the skills to keep
    budget: int  # samples


RECIPES = {
    "rotate": Recipe(new="rotate,title,shift", train_rows=2048, replay_frac=0.1, budget=3072),
    "ends": Recipe(new="ends,swap", train_rows=1024, replay_frac=0.0, budget=2048),
    "sort": Recipe(new="sort,evens,mirror", train_rows=3072, replay_frac=0.05, budget=3072),
    "mirror": Recipe(new="mirror,swap", train_rows=512, replay_frac=0.2, budget=2560),
}


def sweep_of(name: str, recipe: Recipe, seed: int, data: pathlib.Path) -> dict[str, Any]:
    """Return the sweep file's content for one recipe and seed."""
    return {
        "study": f"{name}-s{seed}",
        "seed": seed,
        "metric": "score",
        "direction": "maximize",
        "trial": {
            "model": str(TINY / "model"),
            "train_data": str(data / "train.jsonl"),
            "eval_data": {"new": str(data / "eval_new.jsonl"), "kept": str(data / "eval_kept.jsonl")},
            "metrics": {
                metric: {"new/exact_match": new, "kept/exact_match": kept}
                for metric, (new, kept) in WEIGHTS.items()
            },
            "budget": {"samples": recipe.budget},
            "evaluation": {"at": "rungs", "batch_size": 96, "max_new_tokens": 12},
            "settings": {"micro_batch_size": 32, "lr_scheduler_type": "constant", "max_length": 64},
        },
        "search_space": {
            "effective_batch_size": {"grid": list(BATCHES)},
            "learning_rate": {"grid": list(RATES)},
        },
        "rungs": {"fractions": list(MARKS)},
        "pruner": "nop",
        # A spike is part of what a pruner is to be judged by; only what became NaN cannot be trained on.
        "divergence": {"loss_spike": False, "grad_norm_explosion": False},
        "resources": {"slots": 2, "cpus_per_trial": 1},
    }


def record(name: str, seed: int, work: pathlib.Path, out: pathlib.Path) -> None:
    """Train one grid, or go on with it, and write its Parquet file.

    Raises:
        subprocess.CalledProcessError: If data or sweep cannot be made.
    """
    recipe = RECIPES[name]
    data, study = work / f"data-{name}", work / f"{name}-s{seed}"
    if not data.exists():
        options = {
            "--out": data,
            "--new": recipe.new,
            "--train-rows": recipe.train_rows,
            "--replay-frac": recipe.replay_frac,
        }
        words = [str(word) for option in options.items() for word in option]
        subprocess.run([sys.executable, str(TINY / "make_data.py"), *words], check=True)
    sweep = work / f"{name}-s{seed}.yaml"
    sweep.write_text(json.dumps(sweep_of(name, recipe, seed, data), indent=1))  # JSON is YAML
    command = [sys.executable, "-m", "sweeper.cli", "launch", str(sweep), "--dir", str(study)]
    done = subprocess.run(command)
    if done.returncode not in (0, 3):  # 3: every point has ended already
        raise subprocess.CalledProcessError(done.returncode, command)
    from sweeper.study.recorded import record_study
    from sweeper.study.recorded_files import write_recorded
    from sweeper.study.study import Study

    target = out / f"{name}-s{seed}.parquet"
    write_recorded(record_study(Study.open(str(study))), target)
    print(f"{target}: {target.stat().st_size:,} bytes", flush=True)


def note_noise(name: str, out: pathlib.Path) -> None:
    """Write into a recipe's files how much the score of one point differs between seeds, once all are there."""
    from sweeper.study.recorded import seed_sd
    from sweeper.study.recorded_files import load_recorded, write_recorded

    paths = [out / f"{name}-s{seed}.parquet" for seed in SEEDS]
    if all(path.exists() for path in paths):
        sweeps = [load_recorded(path) for path in paths]
        noise = seed_sd(sweeps)
        for sweep, path in zip(sweeps, paths, strict=True):
            write_recorded(dataclasses.replace(sweep, seed_sd=noise), path)


def main() -> None:
    """Make what was asked for, one sweep after the other."""
    names = [f"{name}-s{seed}" for name in RECIPES for seed in SEEDS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=pathlib.Path, required=True, help="where data and studies are made")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="where the Parquet files go")
    parser.add_argument("--only", default=",".join(names), help="some of them, separated by commas")
    args = parser.parse_args()
    wanted = args.only.split(",")
    if unknown := [name for name in wanted if name not in names]:
        parser.error(f"there is no sweep `{unknown[0]}`; there are {', '.join(names)}.")
    args.work.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        recipe, _, seed = name.rpartition("-s")
        record(recipe, int(seed), args.work.absolute(), args.out)
        note_noise(recipe, args.out)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd)} ended with exit code {error.returncode}.")
