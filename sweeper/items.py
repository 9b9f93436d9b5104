"""What a trial scored on each item that it was measured with, beside the means: what `compare` pairs.

One file per source (an eval set, a benchmark) in the trial's directory.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from sweeper.encoding import decode_number, encode
from sweeper.errors import SweeperError
from sweeper.files import write_text
from sweeper.looking import names_in

FOLDER = "items"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Items:
    """Per-item values of one source. NaN: the item has no value of that measure."""

    source: str  # an eval set's name, or `bench/<name>`
    ids: tuple[str, ...]  # the same item has the same id in every trial; each is there once
    measures: Mapping[str, tuple[float, ...]]
    lower_is_better: tuple[str, ...] = ()  # measures that are


def write_items(trial_dir: Path, items: Items) -> None:
    """Keep a source's values, in place of earlier ones."""
    text = json.dumps(encode(dataclasses.asdict(items)), allow_nan=False)
    write_text(_path(trial_dir, items.source), text)


def read_items(trial_dir: Path) -> dict[str, Items]:
    """Return what a trial kept, by source.

    Raises:
        SweeperError: If a file cannot be read.
    """
    found = {}
    folder = trial_dir / FOLDER
    for path in (folder / name for name in names_in(folder) if name.endswith(".json")):
        try:
            items = _items_of(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise SweeperError(
                f"{path} cannot be read ({type(error).__name__}: {error}). Remove it; the trial's values of single "
                "items are then not known."
            ) from error
        found[items.source] = items
    return found


def paired(first: Items, second: Items, measure: str) -> tuple[list[float], list[float]]:
    """Return the values of the items that both have, in the first one's order."""
    other = dict(zip(second.ids, second.measures.get(measure, ()), strict=bool(second.measures.get(measure))))
    pairs = [
        (value, other[item])
        for item, value in zip(first.ids, first.measures[measure], strict=True)
        if item in other and math.isfinite(value) and math.isfinite(other[item])
    ]
    return [one for one, _ in pairs], [two for _, two in pairs]


def _items_of(facts: Mapping[str, object]) -> Items:
    measures = facts["measures"]
    ids, lower = facts["ids"], facts["lower_is_better"]
    if not isinstance(measures, Mapping) or not isinstance(ids, Sequence) or not isinstance(lower, Sequence):
        raise TypeError("it holds no items")
    values = {str(name): tuple(map(decode_number, listed)) for name, listed in measures.items()}
    if any(len(listed) != len(ids) for listed in values.values()):
        raise ValueError("its columns differ in length")
    return Items(
        source=str(facts["source"]), ids=tuple(map(str, ids)), measures=values,
        lower_is_better=tuple(map(str, lower)),
    )  # fmt: skip


def _path(trial_dir: Path, source: str) -> Path:
    return trial_dir / FOLDER / f"{source.replace('/', '--')}.json"
