"""What `sweeper replay` prints: one row per pruner."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeper.replay.result import ReplayResult
from sweeper.study.recorded import RecordedSweep


def replay_text(sweep: RecordedSweep, results: Sequence[ReplayResult], *, slots: int) -> RenderableType:
    """Return the table of a replay, with what it stands on."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("pruner", overflow="fold", min_width=18)
    for name in ("spent", "time", "wall", "hit", "regret", "worst", "finished", "choices"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        fewest, most = result.survivors
        table.add_row(
            result.pruner,
            f"{result.cost:.0%}",
            f"{result.cost_s:.0%}",
            f"{result.wall:.0%}",
            f"{result.hit:.0%}",
            f"{result.regret:.3g}",
            f"{result.worst_regret:.3g}",
            f"{fewest}" if fewest == most else f"{fewest} to {most}",
            f"{result.n_choices}",
        )
    return Group(*(Text(line) for line in _heading(sweep, results, slots)), Text(), table)


def replay_json(sweep: RecordedSweep, results: Sequence[ReplayResult], *, slots: int) -> dict[str, Any]:
    """Return what `sweeper replay --json` prints."""
    return {
        "sweep": sweep.name,
        "metric": sweep.metric,
        "direction": sweep.direction,
        "points": len(sweep.points),
        "left_out": sweep.left_out,
        "best": sweep.best,
        "slots": slots,
        "results": [result.as_dict() for result in results],
    }


def _heading(sweep: RecordedSweep, results: Sequence[ReplayResult], slots: int) -> list[str]:
    first = results[0]
    left_out = f" ({sweep.left_out} left out: their ends are not known)" if sweep.left_out else ""
    noise = " (the noise between seeds)" if first.tolerance == sweep.seed_sd else ""
    return [
        f"{sweep.name}: {len(sweep.points)} points{left_out}, best {sweep.metric} = {sweep.best:.4g}",
        f"{len(first.orders)} random orders on {slots} slots; a hit is a final choice within {first.tolerance:.4g}"
        f"{noise} of the best",
        *(f"rungs of {pruners}: {marks}" for marks, pruners in _rungs(results).items()),
    ]


def _rungs(results: Sequence[ReplayResult]) -> dict[str, str]:
    """Return who is judged where; mostly all at the same marks."""
    users: dict[str, list[str]] = {}
    for result in results:
        marks = ", ".join(str(mark) for mark in result.rung_marks) or "no"
        users.setdefault(f"{marks} {result.rung_unit}", []).append(result.pruner)
    return {marks: "all" if len(users) == 1 else ", ".join(names) for marks, names in users.items()}
