"""What a sweep will take in hours, from a few steps of its extreme points, trained for real in a child process."""

import dataclasses
import heapq
import json
import statistics
import tempfile
from collections.abc import Sequence
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError
from sweeper.plan import DataFacts, Plan, Point, trial_spec
from sweeper.plan.spec import evaluation_marks
from sweeper.preflight.child import ask_child
from sweeper.preflight.cluster import SlotPlan
from sweeper.reporting.formats import duration
from sweeper.training.data_identity import pinned

MODULE = "sweeper.preflight.measure_child"
MOST_KINDS = 8  # of points; each is trained twice, which takes up to a minute and the start of a process
# Settings beside the batch that a step's time depends on.
_KIND = (
    "model", "method", "max_length", "packing", "micro_batch_size", "precision", "gradient_checkpointing",
    "attn_implementation", "use_liger_kernel",
)  # fmt: skip
_OfKind = tuple[dict[str, Any], list[Point]]  # what a kind of points has of its own, and the points


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What a few steps at one effective batch size took, alone on the machine."""

    effective_batch_size: int
    steps: int  # that were timed; the first ones, which warm up, are not
    step_s: float  # median
    evaluation_s: float  # of all eval sets, once; 0 where the trial is a function of its own
    peak_gb: float | None  # of the device's memory; None on a CPU
    kind: dict[str, Any] = dataclasses.field(
        default_factory=dict
    )  # settings that other points have otherwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What the whole sweep takes if no trial is stopped early."""

    measured: tuple[Measured, ...]
    slots: int
    gpus_per_trial: float
    shortest_s: float  # one trial
    longest_s: float
    total_s: float  # all trials one after another
    wall_s: float  # on the slots, the longest first
    price_per_gpu_hour: float | None = None
    not_measured: tuple[str, ...] = ()  # settings that vary and matter, of which one value alone was measured

    @classmethod
    def of(
        cls, measured: Sequence[Measured], seconds: Sequence[float], slots: SlotPlan, *,
        price_per_gpu_hour: float | None, not_measured: tuple[str, ...],
    ) -> "Cost":  # fmt: skip
        """Return the cost of trials that take so many seconds each on these slots."""
        return cls(
            measured=tuple(measured), slots=slots.slots, gpus_per_trial=slots.gpus_per_trial,
            shortest_s=min(seconds), longest_s=max(seconds), total_s=sum(seconds),
            wall_s=makespan(seconds, slots.slots), price_per_gpu_hour=price_per_gpu_hour, not_measured=not_measured,
        )  # fmt: skip

    @property
    def gpu_hours(self) -> float:
        return self.total_s * self.gpus_per_trial / 3600

    @property
    def price(self) -> float | None:
        return None if self.price_per_gpu_hour is None else self.price_per_gpu_hour * self.gpu_hours

    def lines(self) -> list[str]:
        """Return it as sentences, for `plan`."""
        found = [
            f"measured: {_named(one)}: {1 / one.step_s:.3g} steps/s, "
            f"{one.effective_batch_size / one.step_s:.3g} samples/s ({one.steps} steps timed)"
            + (f", an evaluation {one.evaluation_s:.2g} s" if one.evaluation_s else "")
            + (f", {one.peak_gb:.1f} GB of the device" if one.peak_gb is not None else "")
            for one in self.measured
        ]
        trials = duration(self.longest_s)
        if duration(self.shortest_s) != trials:
            trials = f"{duration(self.shortest_s)} to {trials}"
        line = f"in full: a trial takes {trials}, all of them {duration(self.wall_s)} on {self.slots} slots"
        if self.gpus_per_trial:
            line += f", {self.gpu_hours:.3g} GPU-hours"
        if self.price is not None and self.gpus_per_trial:
            line += f", {self.price:,.2f} at {self.price_per_gpu_hour:g} per GPU-hour"
        if self.not_measured:
            names = " and ".join(f"`{name}`" for name in self.not_measured)
            found.append(
                f"{names} will be drawn, but was measured at its first value alone: with others a trial may take far "
                "longer or shorter."
            )
        return [
            *found,
            f"{line}. Measured alone on this machine; trials side by side can slow each other down.",
        ]

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"gpu_hours": self.gpu_hours, "price": self.price}


def measure_cost(
    plan: Plan, slots: SlotPlan, *, facts: DataFacts | None = None, price_per_gpu_hour: float | None = None,
    asked_by: str = "--measure",
) -> Cost:  # fmt: skip
    """Train a few steps at the smallest and the largest effective batch size, and estimate the whole sweep.

    Points of different models, methods, lengths and the like are measured for themselves. A step's time at a batch size
    between the two lies on the line through both. Budgets, rungs and evaluations are the plan's; points that are read
    off a longer one, and the time to start and to save checkpoints, are not counted.

    Args:
        plan: Of the sweep.
        slots: Where it is to run.
        facts: What was counted in the data. The steps read data of the hub at the commit that was counted, whose tokens
            are in the cache already.
        price_per_gpu_hour: If given, the cost is told in money too.
        asked_by: The option or key that wants it, as messages name it.

    Raises:
        ConfigError: If the trials cannot be measured so, with what to do.
        SweeperError: If the steps cannot be trained.
    """
    points = plan.trained_points or plan.examples
    kinds = _kinds(points)
    _refuse_what_cannot_be_measured(plan.config, points, n_kinds=len(kinds), asked_by=asked_by)
    repeats = 1 if plan.points else max(1, round(plan.n_trials / len(points)))
    measured, seconds = _timed(
        _noted(plan.config, facts), kinds, threads=slots.cpus_per_trial, repeats=repeats
    )
    drawn = plan.config.search_space if not plan.points else ()
    return Cost.of(
        measured, seconds, slots, price_per_gpu_hour=price_per_gpu_hour,
        not_measured=tuple(name for name in _KIND if name in drawn),
    )  # fmt: skip


def _noted(config: SweepConfig, facts: DataFacts | None) -> SweepConfig:
    """Return the config with data of the hub at the commit that was counted."""
    if facts is None:
        return config
    return config.model_copy(update={"trial": pinned(config.trial, facts.sources)})


def _timed(
    config: SweepConfig, kinds: Sequence[_OfKind], *, threads: int, repeats: int
) -> tuple[list[Measured], list[float]]:
    """Measure each kind; return what was measured, and the seconds of every trial, each point's as often as it counts.

    Args:
        config: The sweep.
        kinds: Its points by kind.
        threads: That a trial computes with.
        repeats: How many trials a point stands for.
    """
    measured: list[Measured] = []
    seconds: list[float] = []
    for kind, members in kinds:
        of_kind = _measured_extremes(config, members, kind, threads=threads)
        measured += of_kind
        seconds += [trial_seconds(config, point, of_kind) for point in members for _ in range(repeats)]
    return measured, seconds


def _kinds(points: Sequence[Point]) -> list[_OfKind]:
    """Return the points by what a step's time depends on beside the batch, each kind by what it has of its own."""
    values = {name: {json.dumps(point.settings.get(name)) for point in points} for name in _KIND}
    varied = [name for name in _KIND if len(values[name]) > 1]
    kinds: dict[str, _OfKind] = {}
    for point in points:
        kind = {name: point.settings.get(name) for name in varied}
        kinds.setdefault(json.dumps(kind), (kind, []))[1].append(point)
    return list(kinds.values())


def _measured_extremes(
    config: SweepConfig, points: Sequence[Point], kind: dict[str, Any], *, threads: int
) -> list[Measured]:
    by_batch = {point.batch.effective_batch_size: point for point in points if point.batch is not None}
    extremes = sorted({min(by_batch), max(by_batch)})
    found = (_measure(config, by_batch[size], threads=threads) for size in extremes)
    return [dataclasses.replace(one, kind=kind) for one in found]


def _named(measured: Measured) -> str:
    kind = "".join(f", {name}={value}" for name, value in measured.kind.items())
    return f"effective_batch_size={measured.effective_batch_size}{kind}"


def step_seconds(size: int, measured: Sequence[Measured]) -> float:
    """Return a step's seconds at a batch size: on the line through what was measured, never below none."""
    first, last = measured[0], measured[-1]
    if first.effective_batch_size == last.effective_batch_size:
        return first.step_s
    slope = (last.step_s - first.step_s) / (last.effective_batch_size - first.effective_batch_size)
    return max(0.0, first.step_s + slope * (size - first.effective_batch_size))


def trial_seconds(config: SweepConfig, point: Point, measured: Sequence[Measured]) -> float:
    """Return the seconds that a point takes to its end, evaluations included."""
    assert point.batch is not None
    assert point.total_steps is not None
    assert point.budget_samples is not None
    evaluation_s = statistics.fmean(one.evaluation_s for one in measured)
    training_s = point.total_steps * step_seconds(point.batch.effective_batch_size, measured)
    n_evaluations = len(evaluation_marks(config, point, point.budget_samples))
    return training_s + evaluation_s * (n_evaluations + 1)


def makespan(seconds: Sequence[float], slots: int) -> float:
    """Return when the last one ends, each started on the first free slot, the longest first."""
    free_at = [0.0] * slots
    for one in sorted(seconds, reverse=True):
        heapq.heappush(free_at, heapq.heappop(free_at) + one)
    return max(free_at)


def _refuse_what_cannot_be_measured(
    config: SweepConfig, points: Sequence[Point], *, n_kinds: int, asked_by: str
) -> None:
    why = None
    if config.resources.address is not None:
        why = "the steps are trained on this machine, not on the cluster of `--address`. Run it on one of its nodes"
    elif any(point.batch is None or point.total_steps is None for point in points):
        why = "trials without `effective_batch_size` have no steps that could be counted. Set it"
    elif any(point.phases for point in points):
        why = (
            "a phased trial's steps differ by phase. Measure each phase's settings in a sweep file of its own"
        )
    elif any(point.batch is not None and point.batch.data_parallel_size > 1 for point in points):
        why = (
            "trials on several devices are not measured. Measure one device: the batch is then split further"
        )
    elif n_kinds > MOST_KINDS:
        names = ", ".join(f"`{name}`" for name in _KIND if name in config.search_space)
        why = (
            f"each of the {n_kinds} kinds of points, which differ in {names}, would have to be measured, and at most "
            f"{MOST_KINDS} are. Fix some of these values"
        )
    if why is not None:
        raise ConfigError(f"`{asked_by}` cannot be had here: {why}, or leave `{asked_by}` out.")


def _measure(config: SweepConfig, point: Point, *, threads: int) -> Measured:
    assert point.batch is not None
    with tempfile.TemporaryDirectory(prefix="sweeper-measure-") as scratch:
        spec = trial_spec(config, point, number=0, attempt=1, trial_dir=scratch, threads=threads)
        answer = ask_child(MODULE, json.dumps(dataclasses.asdict(spec)), what="few steps of a trial")
    if answer["error"] is not None:
        raise ConfigError(
            f"A few steps at effective_batch_size={point.batch.effective_batch_size} could not be trained: "
            f"{answer['error']}"
        )
    return Measured(effective_batch_size=point.batch.effective_batch_size, **answer["measured"])
