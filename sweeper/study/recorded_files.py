"""Recorded sweeps as files: one long table, Parquet or JSONL; examples/recorded/README.md documents it.

    point | param.<name> … | step | samples | loss | grad_norm | metric.<name> … | seconds

One row per optimiser step (or whatever was recorded), a point's rows in order. A metric is null where it was not
evaluated; a point's last row holds its final metrics, unless it diverged. What concerns the whole sweep is in the
Parquet file's metadata under `sweeper`, or in a JSONL file's first line: `name`, `metric`, `direction`, `seed_sd`.
"""

import io
import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweeper.config.messages import show
from sweeper.errors import ConfigError, Problem, first_line
from sweeper.files import write_bytes
from sweeper.looking import is_file
from sweeper.records import StepRow
from sweeper.study.recorded import Measured, RecordedPoint, RecordedSweep, parse_direction

_PARAM, _METRIC = "param.", "metric."
_REQUIRED = ("point", "step", "samples")
_SUFFIXES = (".parquet", ".jsonl")
_KEY = "sweeper"
# Half the bytes of float64, and a millionth is more than a rank or a window needs.
_AS_FLOAT32 = ("loss", "grad_norm", "seconds")


def is_recorded_file(place: str) -> bool:
    """Whether a place names a recorded sweep's file rather than a study."""
    return place.endswith(_SUFFIXES)


def write_recorded(sweep: RecordedSweep, path: Path) -> None:
    """Write a recorded sweep as Parquet or JSONL, by the name's ending."""
    rows = [row for index, point in enumerate(sweep.points) for row in _table_rows(index, point)]
    facts = {
        "name": sweep.name,
        "metric": sweep.metric,
        "direction": sweep.direction,
        "seed_sd": sweep.seed_sd,
    }
    if path.suffix == ".jsonl":
        lines = [facts, *({k: _spelled(v) for k, v in row.items() if v is not None} for row in rows)]
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: _column(name, [row.get(name) for row in rows]) for name in names})
    table = table.replace_schema_metadata({_KEY: json.dumps(facts)})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", compression_level=9)
    write_bytes(path, sink.getvalue())


def load_recorded(
    path: str | Path, *, metric: str | None = None, direction: str | None = None
) -> RecordedSweep:
    """Read a recorded sweep.

    Args:
        path: A .parquet or .jsonl file.
        metric: Instead of the file's own; needed where it names none and holds several.
        direction: Likewise.

    Raises:
        ConfigError: If the file is not there, or does not hold what the schema says.
    """
    path = Path(path)
    facts, rows = _read(path)
    names = dict.fromkeys(name for row in rows for name in row)
    missing = [name for name in _REQUIRED if name not in names]
    metrics = [name.removeprefix(_METRIC) for name in names if name.startswith(_METRIC)]
    if missing or not any(name.startswith(_PARAM) for name in names) or not metrics:
        raise _wrong(
            path,
            f"A recorded sweep needs the columns `point`, `step`, `samples`, `{_PARAM}<name>` and "
            f"`{_METRIC}<name>`, but this one has {', '.join(f'`{name}`' for name in names) or 'none'}.",
        )
    chosen = metric or facts.get("metric") or (metrics[0] if len(metrics) == 1 else None)
    if chosen not in metrics:
        raise _wrong(path, f"It holds no metric `{chosen}`. Name one of {', '.join(metrics)} as `metric`.")
    way = direction or facts.get("direction")
    if way is None:
        raise _wrong(
            path,
            "It does not say whether more or less is better. Add `direction` to its metadata, or give it.",
        )
    own = chosen == facts.get("metric", chosen)
    return RecordedSweep(
        name=str(facts.get("name") or path.stem),
        metric=chosen,
        direction=parse_direction(str(way)),
        points=_points(path, rows, chosen),
        seed_sd=_seed_sd(path, facts) if own else None,
    )


def _seed_sd(path: Path, facts: Mapping[str, Any]) -> float | None:
    try:
        return _number(facts.get("seed_sd"))
    except (TypeError, ValueError) as error:
        raise _wrong(
            path,
            f"`seed_sd` must be a number, but got {show(facts['seed_sd'])}. Correct it, or leave it out.",
        ) from error


def _table_rows(index: int, point: RecordedPoint) -> list[dict[str, Any]]:
    params = {f"{_PARAM}{name}": value for name, value in point.params.items()}
    measured = {at.step: at.metrics for at in point.measured}
    last_samples = point.rows[-1].samples if point.rows else point.budget_samples
    found = []
    for row in point.rows:
        metrics = point.metrics if row is point.rows[-1] else measured.get(row.step, {})
        spent = point.seconds * row.samples / max(point.budget_samples, 1)
        found.append(
            {"point": index, **params, "step": row.step, "samples": row.samples, "tokens": row.tokens,
             "loss": row.loss, "grad_norm": row.grad_norm, "learning_rate": row.learning_rate, "seconds": spent,
             "budget_samples": point.budget_samples if last_samples != point.budget_samples else None,
             **{f"{_METRIC}{name}": value for name, value in metrics.items()}}
        )  # fmt: skip
    return found


def _column(name: str, values: list[Any]) -> pa.Array:
    if name in _AS_FLOAT32:
        return pa.array(values, type=pa.float32())
    return pa.array(values)


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if path.suffix not in _SUFFIXES:
        raise _wrong(path, "A recorded sweep is a .parquet or a .jsonl file. Rename or convert it.")
    if not is_file(path):
        raise ConfigError(f"There is no file `{path}`. Check the path of the recorded sweep.")
    return _read_parquet(path) if path.suffix == ".parquet" else _read_jsonl(path)


def _read_parquet(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        table = pq.read_table(path)
        facts = json.loads((table.schema.metadata or {}).get(_KEY.encode(), b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _wrong(path, f"It cannot be read as Parquet: {first_line(error)}.") from error
    return facts, table.to_pylist()


def _read_jsonl(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    facts: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise _wrong(path, f"It cannot be read as text: {error}.") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(Problem(f"This line is no JSON: {error}.", str(path), number)) from error
        if not isinstance(row, dict):
            raise ConfigError(Problem("Each line must be a JSON object.", str(path), number))
        if number == 1 and "point" not in row:
            facts = row
        else:
            rows.append(row)
    return facts, rows


def _points(path: Path, rows: list[dict[str, Any]], metric: str) -> tuple[RecordedPoint, ...]:
    grouped: dict[str | int | float, list[dict[str, Any]]] = {}
    for row in rows:
        name = row.get("point")
        if name is None:
            raise _wrong(path, "A row has no `point`. Every row needs one.")
        if not isinstance(name, str | int | float):
            raise _wrong(
                path, f"`point` must be a number or a name, but got {show(name)}. Number the points."
            )
        grouped.setdefault(name, []).append(row)
    return tuple(_checked_point(path, name, given, metric) for name, given in grouped.items())


def _checked_point(path: Path, name: Any, rows: list[dict[str, Any]], metric: str) -> RecordedPoint:
    try:
        point = _point(name, rows, metric)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise _wrong(
            path, f"Point `{name}` has a value that is no number ({error}). Give numbers or null."
        ) from error
    if any(b.step <= a.step or b.samples < a.samples for a, b in itertools.pairwise(point.rows)):
        raise _wrong(path, f"The steps of point `{name}` do not grow. Sort its rows by `step`.")
    return point


def _point(name: Any, rows: list[dict[str, Any]], metric: str) -> RecordedPoint:
    steps = tuple(_step_row(row) for row in rows)
    budget = int(rows[-1].get("budget_samples") or rows[-1].get("samples") or 0)
    params = {k.removeprefix(_PARAM): v for k, v in rows[0].items() if k.startswith(_PARAM) and v is not None}
    metrics = [_metrics(row) for row in rows]
    seconds = rows[-1].get("seconds") or float(steps[-1].samples)
    return RecordedPoint(
        params=params,
        settings=dict(params),
        budget_samples=budget,
        total_steps=steps[-1].step,
        value=metrics[-1].get(metric, math.nan),
        metrics=metrics[-1],
        rows=steps,
        measured=tuple(
            Measured(step=step.step, samples=step.samples, metrics=at)
            for step, at in zip(steps[:-1], metrics[:-1], strict=True)
            if at
        ),
        seconds=float(seconds) * budget / max(steps[-1].samples, 1),
        number=name if isinstance(name, int) else None,
    )


def _step_row(row: Mapping[str, Any]) -> StepRow:
    numbers = {key: _number(row.get(key)) for key in ("loss", "grad_norm", "learning_rate")}
    return StepRow(
        int(row["step"]), int(row["samples"]), int(row.get("tokens") or 0),
        numbers["loss"], numbers["grad_norm"], numbers["learning_rate"],
    )  # fmt: skip


def _metrics(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        key.removeprefix(_METRIC): float(value)
        for key, value in row.items()
        if key.startswith(_METRIC) and value is not None
    }


def _number(value: Any) -> float | None:
    return None if value is None else float(value)  # "NaN" and "Infinity" as text are read too


def _spelled(value: Any) -> Any:
    """JSON has no NaN."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _wrong(path: Path, message: str) -> ConfigError:
    return ConfigError(Problem(message, str(path)))
