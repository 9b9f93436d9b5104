"""What the quickstart's pruner saves and loses, over seeds, beside no pruner and the paper's own directions.

Every sweep is really run, by `sweeper launch`, into `--dir`; what is there already is not run again, so the whole
can be run in pieces.

    python tests/benchmarks/quickstart_regret.py --dir /tmp/regret --seeds 5 [--json FILE]
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from sweeper.api import load_study
from sweeper.study.view import StudyView

ROOT = Path(__file__).parents[2]
PAPER = "pruner.signals={loss: {direction: maximize}, grad_norm: {direction: minimize}}"
KINDS: dict[str, list[str]] = {"nop": ["pruner=nop"], "quickstart": [], "paper": [PAPER]}


def run(kind: str, seed: int, directory: Path) -> StudyView:
    """Run one sweep to its end, or read it where it has ended."""
    place = directory / f"{kind}-{seed}"
    command = [
        sys.executable, "-m", "sweeper.cli", "launch", str(ROOT / "examples/quickstart.yaml"),
        f"seed={seed}", f"study={kind}-{seed}", *KINDS[kind], "--dir", str(place),
    ]  # fmt: skip
    code = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if code.returncode not in (0, 3):  # 3: it had ended before
        sys.exit(f"{' '.join(command)} ended with {code.returncode}:\n{code.stderr[-2000:]}")
    return load_study(str(place))


def row(kind: str, seed: int, view: StudyView, full: StudyView) -> dict[str, Any]:
    """Compare one sweep with the full grid of the same seed."""
    assert view.best is not None
    assert full.best is not None
    assert view.best.value is not None
    assert full.best.value is not None
    return {
        "pruner": kind,
        "seed": seed,
        "choice": view.best.params,
        "value": view.best.value,
        "regret": full.best.value - view.best.value,
        "stopped": sum(record.state.value == "PRUNED" for record in view.records) / len(view.records),
        "saved": 1 - view.spent_samples / view.full_samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, required=True, help="where the studies are kept")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    rows = []
    for seed in range(options.seeds):
        full = run("nop", seed, options.dir)
        for kind in KINDS:
            rows.append(row(kind, seed, run(kind, seed, options.dir), full))
            print(_line(rows[-1]), flush=True)
    bests = [r["value"] for r in rows if r["pruner"] == "nop"]
    seed_sd = statistics.stdev(bests)
    print(f"\nseed standard deviation of the full grid's best value: {seed_sd:.4f}")
    for kind in KINDS:
        mine = [r for r in rows if r["pruner"] == kind]
        within = sum(r["regret"] <= seed_sd for r in mine)
        print(
            f"{kind:<11} regret within it in {within} of {len(mine)} seeds; median regret "
            f"{statistics.median(r['regret'] for r in mine):.4f}; trials stopped "
            f"{statistics.mean(r['stopped'] for r in mine):.0%}; training saved "
            f"{statistics.mean(r['saved'] for r in mine):.0%}"
        )
    if options.json:
        options.json.write_text(json.dumps({"seed_sd": seed_sd, "rows": rows}, indent=1))


def _line(facts: dict[str, Any]) -> str:
    return (
        f"{facts['pruner']:<11} seed {facts['seed']}  {facts['choice']}  value {facts['value']:.4f}  "
        f"regret {facts['regret']:.4f}  stopped {facts['stopped']:.0%}  saved {facts['saved']:.0%}"
    )


if __name__ == "__main__":
    main()
