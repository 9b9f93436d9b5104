"""What the driver costs: reports of simulated trials through the orchestrator, beside their bare writes.

64 simulated slots, 20 reports a trial, each of which reaches a rung (the last is the end). Nothing is trained: a trial
sends made-up windows. Every call that the driver makes to the storage is made again right after, in blocks, on a second
study of the same storage: that is `bare`, the same values with nothing around them. A ratio of 1 means that the driver
costs no more than its writes one by one; it can be less, since it writes what belongs together at once. With
`--fast-middle` nothing is synced to disk between the first and the last reports, and no bare writes are made there.

    python tests/benchmarks/driver.py [--trials 100 1000] [--pruners nop eager] [--storage URL | --postgres]
"""

import argparse
import dataclasses
import json
import os
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage

from sweeper.config import config_from_dict
from sweeper.config.models import SweepConfig
from sweeper.orchestrator import Orchestrator
from sweeper.plan import plan_sweep
from sweeper.pruners.judge import divergence_rules, make_judge
from sweeper.records import Outcome, OutcomeKind, Report, StepRow
from sweeper.study.study import Study
from sweeper.trial_spec import TrialSpec

sys.path.insert(0, str(Path(__file__).parents[1] / "chaos"))
from postgres import Postgres, binaries

SLOTS, REPORTS, STEP_SAMPLES = 64, 20, 8
BLOCK = 1000  # reports after which the bare writes catch up; also how many are the first and the last ones
PRUNERS: dict[str, Any] = {
    "nop": "nop",
    # Nearly everybody goes on, so that all reports are sent; what a judgement costs does not depend on what it says.
    "eager": {"name": "early_dynamics", "directions": "paper", "keep_frac": 0.99},
    "certain": {"name": "early_dynamics", "directions": "paper", "keep_frac": 0.99, "mode": "certain"},
    "learned": {"name": "early_dynamics", "directions": "learned", "risk": 1e-9},
    # A trial that is set aside starts anew: it has no checkpoint. Its rungs are judged once.
    "set_aside": {"name": "early_dynamics", "directions": "learned", "risk": 1e-9, "set_aside": True},
    # Optuna's own, of which its median is another setting.
    "optuna": {"name": "percentile", "options": {"percentile": 99.0}},
}
_WRITES = (
    "set_trial_user_attr", "set_trial_system_attr", "set_trial_intermediate_value", "set_trial_state_values",
)  # fmt: skip


def make_config(name: str, n_trials: int, *, pruner: str, url: str | None) -> SweepConfig:
    budget = REPORTS * STEP_SAMPLES
    rates = [1e-6 * 1.05**index for index in range(n_trials // 10 if n_trials < 1000 else n_trials // 100)]
    decays = [0.001 * index for index in range(n_trials // len(rates))]
    return config_from_dict(
        {
            "study": name, "metric": "score", "direction": "maximize", "storage": url,
            "trial": {
                "function": "nowhere:nothing", "budget": {"samples": budget},
                "settings": {"effective_batch_size": STEP_SAMPLES},
            },
            "search_space": {"learning_rate": {"grid": rates}, "weight_decay": {"grid": decays}},
            "rungs": {"samples": [STEP_SAMPLES * index for index in range(1, REPORTS)]},
            "pruner": PRUNERS[pruner],
        }
    )  # fmt: skip


class Bare:
    """The same writes on another study, kept until they are made."""

    def __init__(self, driven: Study, other: Study) -> None:
        self._ids = dict(zip(_trial_ids(driven), _trial_ids(other), strict=True))
        self._storage = other._storage
        self._kept: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        for name in _WRITES:
            setattr(driven._storage, name, self._noting(driven._storage, name))

    def _noting(self, storage: BaseStorage, name: str) -> Callable[..., Any]:
        inner, bare = getattr(storage, name), getattr(self._storage, name)

        def call(trial_id: int, *values: Any) -> Any:
            self._kept.append((bare, (self._ids[trial_id], *values)))
            return inner(trial_id, *values)

        return call

    def catch_up(self, *, skipped: bool) -> tuple[float, int]:
        """Make the writes, unless they are to be skipped; return their seconds and their number."""
        kept, self._kept = [] if skipped else self._kept, []
        since = time.perf_counter()
        for call, values in kept:
            call(*values)
        return time.perf_counter() - since, len(kept)


def _trial_ids(study: Study) -> list[int]:
    return [trial._trial_id for trial in study.frozen_trials()]


@dataclasses.dataclass
class Block:
    """What some reports and the starts and ends between them cost, in seconds."""

    reports: int = 0
    trials: int = 0
    report_s: float = 0.0
    trial_s: float = 0.0
    bare_s: float = 0.0
    writes: int = 0

    @property
    def ratio(self) -> float:
        return (self.report_s + self.trial_s) / self.bare_s


def windows(spec: TrialSpec) -> Iterator[Report | Outcome]:
    """Yield what a trial sends: one step each, with noisy signals."""
    draw = random.Random(spec.number)
    level = draw.random()
    for index in range(1, REPORTS + 1):
        noise = 0.1 * draw.random()
        row = StepRow(index, index * STEP_SAMPLES, index * 100, 3 + level + noise, 1 + level - noise, 1e-4)
        report = Report(rows=(row,), metrics={"score": level + noise}, train_s=float(index))
        yield report if index < REPORTS else Outcome(kind=OutcomeKind.DONE, report=report)


def run(config: SweepConfig, directory: Path, *, fast_middle: bool) -> list[Block]:
    """Run a sweep on simulated slots; return what each block of reports cost."""
    sync, is_middle = os.fsync, False
    driven, other = (make_study(config, directory, suffix) for suffix in ("driven", "bare"))
    bare = Bare(driven, other)
    plan = plan_sweep(driven.config)
    orchestrator = Orchestrator(
        study=driven, plan=plan, judge=make_judge(config), rules=divergence_rules(config), longest_first=True
    )
    flying: deque[tuple[int, Iterator[Report | Outcome]]] = deque()
    blocks = [Block()]
    while not orchestrator.is_done:
        block = blocks[-1]
        since = time.perf_counter()
        while len(flying) < SLOTS and (spec := orchestrator.next_trial()) is not None:
            flying.append((spec.number, windows(spec)))
            block.trials += 1
        block.trial_s += time.perf_counter() - since
        number, messages = flying.popleft()
        message = next(messages)
        since = time.perf_counter()
        if isinstance(message, Outcome):
            stops = orchestrator.on_end(number, message)
            block.trial_s += time.perf_counter() - since
        else:
            stops = orchestrator.on_report(number, message)
            block.report_s += time.perf_counter() - since
            block.reports += 1
            flying.append((number, messages))
        stopped = {decision.trial for decision in stops}
        for one in [flight for flight in flying if flight[0] in stopped]:
            flying.remove(one)
            since = time.perf_counter()
            orchestrator.on_end(one[0], Outcome(kind=OutcomeKind.STOPPED))
            block.trial_s += time.perf_counter() - since
        if block.reports == BLOCK or orchestrator.is_done:
            block.bare_s, block.writes = bare.catch_up(skipped=is_middle)
            is_middle = fast_middle and orchestrator.n_left > 2 * SLOTS
            os.fsync = _unsynced if is_middle else sync  # type: ignore[assignment]
            if not orchestrator.is_done:
                blocks.append(Block())
    return blocks


def _unsynced(descriptor: int) -> None:
    """Leave what was written to the operating system."""


def make_study(config: SweepConfig, directory: Path, suffix: str) -> Study:
    config = config.model_copy(update={"study": f"{config.study}-{suffix}"})
    place = directory / config.study
    place.mkdir(parents=True)
    study = Study.create(config, directory=place)
    study.add_points(plan_sweep(config).entered_points)
    return study


def measure(
    pruner: str, n_trials: int, *, url: str | None, storage: str, fast_middle: bool
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="sweeper-driver-") as scratch:
        name = f"driver-{pruner}-{n_trials}-{datetime.now():%H%M%S}"
        config = make_config(name, n_trials, pruner=pruner, url=url)
        blocks = run(config, Path(scratch), fast_middle=fast_middle)
    full = [block for block in blocks if block.reports == BLOCK and block.writes] or blocks
    first, last = full[0], full[-1]
    return {
        "storage": storage, "pruner": pruner, "trials": n_trials, "reports": sum(b.reports for b in blocks),
        "first_ms": 1e3 * first.report_s / first.reports, "last_ms": 1e3 * last.report_s / last.reports,
        "last_trial_ms": 1e3 * last.trial_s / max(last.trials, 1),
        "first_ratio": first.ratio, "last_ratio": last.ratio,
        "blocks": [dataclasses.asdict(block) for block in blocks],
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    return (
        f"| {row['storage']} | {row['pruner']} | {row['trials']:,} | {row['first_ms']:.2f} | {row['last_ms']:.2f} | "
        f"{row['last_trial_ms']:.1f} | {row['first_ratio']:.2f} | {row['last_ratio']:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--pruners", nargs="+", choices=sorted(PRUNERS), default=["nop", "eager"])
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--storage", help="a database's URL; default: a journal")
    place.add_argument("--postgres", action="store_true", help="a PostgreSQL server of its own")
    parser.add_argument(
        "--fast-middle", action="store_true", help="sync to disk only at the start and the end"
    )
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    server = None
    if given.postgres:
        programs = binaries()
        if programs is None:
            parser.error("PostgreSQL's programs are not installed here")
        server = Postgres(programs)
    url = server.url if server is not None else given.storage
    storage = "journal" if url is None else url.partition(":")[0]
    print(
        "| storage | pruner | trials | ms a report, first | last | ms a trial, last | x bare, first | last |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    try:
        for n_trials in given.trials:
            for pruner in given.pruners:
                rows.append(
                    measure(pruner, n_trials, url=url, storage=storage, fast_middle=given.fast_middle)
                )
                print(line(rows[-1]), flush=True)
    finally:
        if server is not None:
            server.remove()
    if given.json is not None:
        given.json.write_text(json.dumps({"date": str(datetime.now().date()), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
