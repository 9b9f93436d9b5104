"""How long slots stand idle in a pruned sweep, while points are left.

A real sweep of the quickstart's grid with four times its budget, so that a trial that is not stopped trains for 10 s or
more. Counted from the first trial's start to the start of the last one: until then, points were left. `idle` is the
share of that time in which a slot had no trial, `set-up` that in which its trial was neither training nor evaluating:
making its model and optimiser, and ending. `next start` is the time from the end of a trial on a slot to the start of
the next one there, `to train` the same with the set-up of that next one: no more than that lies between the decision
that frees a slot and the first step of the trial that follows. The default pruner (`learned`) sets trials aside and
leaves a slot free where none that waits is worth its training; `fill_slots` gives every free slot the likeliest.

    python tests/benchmarks/idle.py [--repeats 3] [--way quickstart]... [--dir DIR] [--json FILE] [key=value ...]
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any, Literal

from sweeper import api
from sweeper.reporting.slots import SlotUse, slot_uses
from sweeper.study.view import StudyView

ROOT = Path(__file__).parents[2]
FIXED = ["trial.budget.samples=12288", "rungs.samples=[1536, 3072]"]
RATES = [
    3e-5,
    5e-5,
    1e-4,
    1.7e-4,
    3e-4,
    5e-4,
    1e-3,
    1.7e-3,
    3e-3,
    5e-3,
]  # 30 points: enough for it to learn from
_LEARNED = [f"search_space.learning_rate.grid={RATES}", "rungs=null", "trial.budget.samples=6144"]
WAYS = {
    "quickstart": [],
    "learned": [*_LEARNED, "pruner={name: early_dynamics}"],
    "learned, fill_slots": [*_LEARNED, "pruner={name: early_dynamics, fill_slots: true}"],
}


def measured(view: StudyView) -> dict[str, float]:
    """Return what one sweep's records say of its slots."""
    slots = view.config.resources.slots
    assert slots is not None
    uses = sorted(slot_uses(view), key=lambda use: use.start_s)
    begin, end = uses[0].start_s, uses[-1].start_s
    whole = slots * (end - begin)
    busy = sum(min(use.end_s, end) - use.start_s for use in uses if use.start_s < end)
    worked = sum(_worked_s(use) * _share_before(use, end) for use in uses if use.start_s < end)
    pairs = [
        (use, after)
        for slot in {use.slot for use in uses}
        for use, after in itertools.pairwise([use for use in uses if use.slot == slot])
    ]
    nexts = [after.start_s - use.end_s for use, after in pairs]
    to_train = [after.start_s - use.end_s + after.seconds - _worked_s(after) for use, after in pairs]
    complete = [use.seconds for use in uses if use.record.value is not None]
    return {
        "sweep_s": max(use.end_s for use in uses) - begin,
        "trial_s": statistics.median(complete),
        "pruned": sum(record.state.value == "PRUNED" for record in view.records) / len(view.records),
        "idle": 1 - busy / whole,
        "set_up": (busy - worked) / whole,
        "next_start_s": statistics.median(nexts),
        "next_start_max_s": max(nexts),
        "to_train_s": statistics.median(to_train),
    }


def _worked_s(use: SlotUse) -> float:
    """Return the seconds that an attempt trained and evaluated."""
    facts = use.record.history[use.attempt - 1]
    return float(facts.get("train_s", 0.0)) + float(facts.get("evaluation_s", 0.0))


def _share_before(use: SlotUse, end_s: float) -> float:
    return min(1.0, (end_s - use.start_s) / use.seconds) if use.seconds else 0.0


def launched(
    directory: Path, overrides: list[str], *, executor: Literal["ray", "in-process"] = "ray"
) -> StudyView:
    options = api.LaunchOptions(dir=str(directory), executor=executor)
    return api.launch(ROOT / "examples/quickstart.yaml", [*FIXED, *overrides], options=options)


def sentence(way: str, found: dict[str, float], n_runs: int) -> str:
    return (
        f"{way}: medians of {n_runs}: the sweep took {found['sweep_s']:.0f} s, a whole trial {found['trial_s']:.1f} s, "
        f"{found['pruned']:.0%} were stopped early\n"
        f"    while points were left: idle {found['idle']:.1%}, set-up {found['set_up']:.1%}; next start after "
        f"{found['next_start_s']:.2f} s (the latest {found['next_start_max_s']:.2f} s), "
        f"to train {found['to_train_s']:.2f} s"
    )


def medians_of(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in runs) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="of the sweep file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", action="append", choices=WAYS, help="may be given again; default: all")
    parser.add_argument("--dir", type=Path, help="keep the studies there")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in options.way or WAYS}
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(options.repeats):
            for number, (way, made) in enumerate(runs.items()):
                place = (options.dir or Path(scratch)) / f"idle-{number}-{repeat}"
                made.append(measured(launched(place, [*WAYS[way], *options.overrides])))
    medians = {way: medians_of(made) for way, made in runs.items()}
    for way, found in medians.items():
        print(sentence(way, found, options.repeats))
    if options.json:
        options.json.write_text(json.dumps({"runs": runs, "medians": medians}, indent=1))


if __name__ == "__main__":
    main()
