"""How long slots stand idle in a pruned sweep, while points are left.

A real sweep of the quickstart's grid with four times its budget, so that a trial that is not stopped trains for 10 s or
more. Counted from the first trial's start to the start of the last one: until then, points were left. `idle` is the
share of that time in which a slot had no trial, `set-up` that in which its trial was neither training nor evaluating:
making its model and optimiser, and ending. `next start` is the time from the end of a trial on a slot to the start of
the next one there.

    python tests/benchmarks/idle.py [--repeats 3] [--dir DIR] [--json FILE] [key=value ...]
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from sweeper import api
from sweeper.reporting.slots import SlotUse, slot_uses
from sweeper.study.view import StudyView

ROOT = Path(__file__).parents[2]
SLOTS = 2
FIXED = ["trial.budget.samples=12288", "rungs.samples=[1536, 3072]", f"resources.slots={SLOTS}"]


def measured(view: StudyView) -> dict[str, float]:
    """Return what one sweep's records say of its slots."""
    uses = sorted(slot_uses(view), key=lambda use: use.start_s)
    begin, end = uses[0].start_s, uses[-1].start_s
    whole = SLOTS * (end - begin)
    busy = sum(min(use.end_s, end) - use.start_s for use in uses if use.start_s < end)
    worked = sum(_worked_s(use) * _share_before(use, end) for use in uses if use.start_s < end)
    nexts = [
        after.start_s - use.end_s
        for slot in {use.slot for use in uses}
        for use, after in itertools.pairwise([use for use in uses if use.slot == slot])
    ]
    complete = [use.seconds for use in uses if use.record.value is not None]
    return {
        "sweep_s": max(use.end_s for use in uses) - begin,
        "trial_s": statistics.median(complete),
        "pruned": sum(record.state.value == "PRUNED" for record in view.records) / len(view.records),
        "idle": 1 - busy / whole,
        "set_up": (busy - worked) / whole,
        "next_start_s": statistics.median(nexts),
        "next_start_max_s": max(nexts),
    }


def _worked_s(use: SlotUse) -> float:
    """Return the seconds that an attempt trained and evaluated."""
    facts = use.record.history[use.attempt - 1]
    return float(facts.get("train_s", 0.0)) + float(facts.get("evaluation_s", 0.0))


def _share_before(use: SlotUse, end_s: float) -> float:
    return min(1.0, (end_s - use.start_s) / use.seconds) if use.seconds else 0.0


def run(directory: Path, overrides: list[str]) -> dict[str, float]:
    view = api.launch(
        ROOT / "examples/quickstart.yaml", [*FIXED, *overrides], options=api.LaunchOptions(dir=str(directory))
    )
    return measured(view)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="of the sweep file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="keep the studies there")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(options.repeats):
            runs.append(run((options.dir or Path(scratch)) / f"idle-{repeat}", options.overrides))
    found = {name: statistics.median(one[name] for one in runs) for name in runs[0]}
    print(
        f"15 points on {SLOTS} slots, medians of {len(runs)}: the sweep took {found['sweep_s']:.0f} s, a whole trial "
        f"{found['trial_s']:.1f} s, {found['pruned']:.0%} were stopped early\n"
        f"while points were left: idle {found['idle']:.1%}, set-up {found['set_up']:.1%}; next start after "
        f"{found['next_start_s']:.2f} s (the latest {found['next_start_max_s']:.2f} s)"
    )
    if options.json:
        options.json.write_text(json.dumps({"runs": runs, "medians": found}, indent=1))


if __name__ == "__main__":
    main()
