"""A plan for people, in 80 columns, and for programs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweeper.batch import AUTO, BatchPlan
from sweeper.config.dump import config_to_dict
from sweeper.config.models import SweepConfig
from sweeper.config.names import EARLY_DYNAMICS
from sweeper.config.space_models import Dimension
from sweeper.plan import Plan, Point
from sweeper.plan.points import threads_of
from sweeper.reporting.formats import duration, plural, spelled

_UNKNOWN = "?"


def format_plan(plan: Plan) -> RenderableType:
    """Return the plan as tables, notes and warnings."""
    parts: list[RenderableType] = [_overview(plan), Text(), _batches(plan)]
    remarks = [("note", "cyan", note) for note in plan.notes]
    remarks += [("warning", "yellow", warning) for warning in plan.warnings]
    if remarks:
        parts.append(Text())
    return Group(*parts, *(_remark(*remark) for remark in remarks))


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return everything in the plan as JSON-able data."""
    return {
        "study": plan.config.study,
        "n_trials": plan.n_trials,
        "total_samples": plan.total_samples,
        "budget_samples": plan.budget_samples,
        "rung_marks": list(plan.rung_marks),
        "rung_unit": plan.rung_unit,
        "same_training": [list(group) for group in plan.same_training],
        "workers_per_trial": plan.config.resources.n_workers,
        "threads_per_worker": threads_of(plan.config),
        "points": [_point_json(point) for point in plan.points],
        "examples": [_point_json(point) for point in plan.examples],
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
        "config": config_to_dict(plan.config),
    }


def _point_json(point: Point) -> dict[str, Any]:
    data = dataclasses.asdict(point)
    if point.batch is not None:
        data["batch"]["effective_batch_size"] = point.batch.effective_batch_size
    data["rungs"] = [dataclasses.asdict(rung) for rung in point.rungs]
    return data


def _overview(plan: Plan) -> Table:
    config = plan.config
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("study", Text(config.study))
    table.add_row("trials", Text(_trials(plan)))
    for name, dimension in config.search_space.items():
        table.add_row(f"  {name}", Text(_dimension(dimension)))
    table.add_row(
        "trains", Text(config.trial.function or config.trial.model or "the models of the search space")
    )
    table.add_row("budget", Text(_budget(plan)))
    table.add_row("metric", Text(f"{config.metric}, {config.direction}"))
    table.add_row("pruner", Text(_pruner(config)))
    table.add_row("rungs", Text(_rungs(plan)))
    if config.resources.time_budget_s is not None:
        table.add_row("ends", Text(f"after {duration(config.resources.time_budget_s)}, to be resumed"))
    return table


def _batches(plan: Plan) -> Table:
    """Return one row for every batch and length, with how its steps are cut and where its rungs lie."""
    groups: dict[Any, list[Point]] = {}
    for point in plan.points or plan.examples:
        groups.setdefault((point.batch, point.budget_samples, point.rungs, bool(point.phases)), []).append(
            point
        )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for header in ("points", "batch", "micro x accum x ranks", "steps", "samples", "rungs at step"):
        table.add_column(header, justify="left" if " x " in header else "right", overflow="fold")
    for points in groups.values():
        table.add_row(str(len(points)) if plan.points else "drawn", *_batch_row(points[0]))
    return table


def _batch_row(point: Point) -> Sequence[str]:
    batch = point.batch
    rungs = ", ".join(f"{rung.step:,}" for rung in point.rungs) or "-"
    if len({phase.batch for phase in point.phases}) > 1:
        sizes = "/".join(f"{phase.batch.effective_batch_size:,}" for phase in point.phases)
        return sizes, "by phase", _count(point.total_steps), _count(point.budget_samples), rungs
    if batch is None:
        return "-", "-", _count(point.total_steps), _count(point.budget_samples), "-"
    return (
        f"{batch.effective_batch_size:,}",
        _cut(batch, is_auto=point.settings.get("micro_batch_size") == AUTO),
        _count(point.total_steps),
        _count(point.budget_samples),
        rungs,
    )


def _cut(batch: BatchPlan, *, is_auto: bool) -> str:
    if is_auto:
        return f"what fits, at most {batch.micro_batch_size}"
    return f"{batch.micro_batch_size} x {batch.gradient_accumulation_steps} x {batch.data_parallel_size}"


def _trials(plan: Plan) -> str:
    if plan.points:
        which = "every point of the grid" if plan.config.points is None else "the listed points of the grid"
        return f"{plan.n_trials:,}, {which}"
    begins = (
        f", which begins with {plural(len(plan.first_points), 'listed point')}" if plan.first_points else ""
    )
    return f"{plan.n_trials:,}, drawn by the {plan.config.sampler.name} sampler{begins}"


def _dimension(dimension: Dimension) -> str:
    if dimension.listed is not None:
        return ", ".join(spelled(value) for value in dimension.listed)
    low, high = getattr(dimension, dimension.kind)
    step = f", step {spelled(dimension.step)}" if dimension.step else ""
    scale = ", log" if dimension.log or dimension.kind == "log_uniform" else ""
    return f"{spelled(low)} to {spelled(high)}{scale}{step}"


def _budget(plan: Plan) -> str:
    budget = plan.config.trial.budget
    given = (
        ", ".join(f"{getattr(budget, kind):,} {kind}".replace(".0 ", " ") for kind in budget.kinds) or "swept"
    )
    parts = [f"{given} per trial"]
    if plan.budget_samples is not None and plan.budget_samples != budget.samples:
        parts.append(f"{plan.budget_samples:,} samples each")
    total = plan.total_samples
    parts.append("samples known after counting" if total is None else f"at most {total:,} samples in all")
    return ", ".join(parts)


def _pruner(config: SweepConfig) -> str:
    pruner = config.pruner
    if pruner.name == EARLY_DYNAMICS and pruner.directions == "learned":
        return f"early_dynamics, learns what predicts {config.metric}, risk {100 * pruner.risk:.3g}%"
    if pruner.name == EARLY_DYNAMICS:
        when = {
            "eager": f"from {pruner.min_peers} peers on",
            "certain": "stops once that is certain",
            "probe": "once all have come there",
        }[pruner.mode]
        return f"early_dynamics, keeps {100 * pruner.keep_frac:.3g}% at each rung, {when}"
    return pruner.name if pruner.name == "nop" else f"{pruner.name}, on {pruner.signal or config.metric}"


def _rungs(plan: Plan) -> str:
    if plan.rung_marks:
        return f"at {', '.join(f'{mark:,}' for mark in plan.rung_marks)} {plan.rung_unit}"
    return "known after counting" if plan.rungs_are_known is False else "none"


def _remark(title: str, style: str, remark: str) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(style=style, no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(f"{title}:", Text(remark))
    return table


def _count(number: int | None) -> str:
    return _UNKNOWN if number is None else f"{number:,}"
