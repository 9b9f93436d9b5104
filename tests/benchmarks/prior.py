"""What an earlier study's evidence saves: each recorded sweep played with and without its twin of another seed.

Every recorded sweep under every metric that it measured (its own, what was new, what was kept), in learned mode, alone
and with `pruner.prior` set to the same grid trained with the other seed.

    python tests/benchmarks/prior.py [--orders 5] [--slots 4] [--json FILE]
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from pruners import METRICS, RECORDED, sweep_of

from sweeper.replay.run import ReplayOptions, replay
from sweeper.study.recorded_files import load_recorded, write_recorded

LEARNED = {"name": "early_dynamics", "audit_frac": 0.0}


def twins() -> list[tuple[Path, Path]]:
    """Return every recorded sweep with the one of the other seed."""
    other = {"s0": "s1", "s1": "s0"}
    paths = sorted(RECORDED.glob("*-s[01].parquet"))
    return [(path, path.with_stem(path.stem[:-2] + other[path.stem[-2:]])) for path in paths]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--metric", action="append", help="only these; may be given again")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for path, twin in twins():
            for metric in options.metric or METRICS:
                sweep = sweep_of(f"{path}|{metric}")
                place = Path(scratch, "twin.parquet")
                write_recorded(load_recorded(str(twin)).with_metric(metric), place)
                for name, section in (
                    ("alone", LEARNED),
                    ("with its twin", {**LEARNED, "prior": str(place)}),
                ):
                    played = replay(sweep, section, ReplayOptions(orders=options.orders, slots=options.slots))
                    facts = {"sweep": path.stem, "metric": metric, "pruner": name}
                    rows.append(facts | {"cost": played.cost, "hit": played.hit})
                    shown = f"{' '.join(facts.values()):<50} cost {played.cost:.2f}  hit {played.hit:.0%}"
                    print(shown, flush=True)
    for name in ("alone", "with its twin"):
        mine = [row for row in rows if row["pruner"] == name]
        costs, hits = [row["cost"] for row in mine], [row["hit"] for row in mine]
        print(
            f"{name:<14} median cost {statistics.median(costs):.2f}, worst {max(costs):.2f}; hit rate "
            f"{statistics.mean(hits):.0%}, lowest {min(hits):.0%} ({len(mine)} sweeps, {options.orders} orders each, "
            f"{options.slots} slots)"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
