"""Synthetic sweeps for judging pruners: two that are honest, eight that are built to mislead.

Each family is a generator: a seed gives one study, a full grid of batch size x learning rate of 32 to 56 points with
its curves, and the noise between seeds that its values were drawn with. Where the best point lies, how wide its
surroundings are and how noisy the study is change with the seed; what misleads does not.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sweeper.records import Direction, StepRow
from sweeper.study.recorded import Measured, RecordedPoint, RecordedSweep

Array = npt.NDArray[np.float64]
Path = Callable[[float], Array]  # from the fraction of the budget to one value per point
Expected = dict[int, tuple[Array, Array]]  # by batch: loss and norm, each step x point

BUDGET = 2048
BATCHES = (16, 32, 64, 128)
MARKS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8)
_STEP_NOISE = 0.08  # of one step's loss, relative; the gradient norm's is twice that


@dataclasses.dataclass(kw_only=True)
class Grid:
    """The points of one study, and what is drawn for them."""

    rng: np.random.Generator
    x: Array  # where the rate lies between the lowest and the highest, by its logarithm
    y: Array  # where the batch does
    batches: Array
    rates: Array

    @property
    def n(self) -> int:
        return len(self.x)

    def bowl(
        self, *, centre: tuple[float, float] = (0.35, 0.7), width: tuple[float, float] = (0.25, 0.4)
    ) -> Array:
        """Return a quality in [0, 1] with one best rate, which grows with the batch."""
        best = self.rng.uniform(*centre) + self.rng.uniform(0.05, 0.3) * (self.y - 0.5)
        batch = self.rng.uniform(0.0, 0.25) * (self.y - self.rng.uniform()) ** 2
        return np.asarray(np.exp(-(((self.x - best) / self.rng.uniform(*width)) ** 2)) - batch).clip(0, 1)


@dataclasses.dataclass(kw_only=True)
class Shape:
    """What one study does: its true results, and the ways there."""

    quality: Array  # the true final metric, without the noise of the seed
    seed_sd: float
    metric: Path  # expected metric on the way; the last mark's pull towards the end is added
    loss: Path
    norm: Path
    metric_noise: float = 0.012  # of one evaluation: the eval set is finite
    diverges_at: Array | None = None  # fraction of the budget, NaN where it does not
    direction: Direction = "maximize"


def _grid(rng: np.random.Generator) -> Grid:
    n_rates = int(rng.integers(8, 15))
    x, y = np.linspace(0, 1, n_rates), np.linspace(0, 1, len(BATCHES))
    where_y, where_x = (axis.ravel() for axis in np.meshgrid(y, x, indexing="ij"))
    rates = 10 ** (-5 + 3 * where_x)
    batches = np.array(BATCHES, dtype=float)[np.round(where_y * (len(BATCHES) - 1)).astype(int)]
    return Grid(rng=rng, x=where_x, y=where_y, batches=batches, rates=rates)


def _saturating(f: float, tau: Array | float) -> Array:
    """Rise from 0 at the start to 1 at the end, most of it within `tau` of the budget."""
    return np.asarray((1 - np.exp(-f / np.asarray(tau))) / (1 - np.exp(-1 / np.asarray(tau))))


def _noisy_norm(grid: Grid, base: Array) -> Path:
    """Gradient norms that a larger batch averages: |g|^2 = |G|^2 + S / B."""
    scale = grid.rng.uniform(2.0, 8.0)
    return lambda f: np.sqrt(base**2 * (1.2 - 0.4 * f) + scale * 16 / grid.batches)


def _learned_loss(grid: Grid, quality: Array, *, tau: float = 0.2) -> Path:
    """A loss that falls the further, the better the point gets."""
    floor = 1.6 - 1.2 * quality
    return lambda f: floor + (3.0 - floor) * (1 - _saturating(f, tau))


def honest(grid: Grid) -> Shape:
    """What is good early is good at the end: metric, loss and norm agree."""
    quality = 0.2 + 0.7 * grid.bowl()
    tau = grid.rng.uniform(0.1, 0.25)
    return Shape(
        quality=quality,
        seed_sd=grid.rng.uniform(0.006, 0.02),
        metric=lambda f: 0.2 + (quality - 0.2) * _saturating(f, tau),
        loss=_learned_loss(grid, quality),
        norm=_noisy_norm(grid, 1.5 - quality),
    )


def honest_loss(grid: Grid) -> Shape:
    """The metric is a held-out loss, to be minimised; it falls in order, more slowly."""
    quality = grid.bowl(width=(0.3, 0.5))
    final = 2.2 - 1.4 * quality
    tau = grid.rng.uniform(0.2, 0.4)
    return Shape(
        quality=final,
        seed_sd=grid.rng.uniform(0.01, 0.03),
        metric=lambda f: 3.0 + (final - 3.0) * _saturating(f, tau),
        loss=lambda f: 2.9 + (final - 3.0) * _saturating(f, tau),
        norm=_noisy_norm(grid, 1.5 - 0.8 * quality),
        metric_noise=0.02,
        direction="minimize",
    )


def no_signal(grid: Grid) -> Shape:
    """Results that neither the settings nor anything early say anything about."""
    quality = 0.3 + 0.5 * grid.rng.beta(2, 3, grid.n)
    other = 0.3 + 0.5 * grid.rng.beta(2, 3, grid.n)

    def metric(f: float) -> Array:
        turn = max(0.0, (f - 0.85) / 0.15)
        return (1 - turn) * (0.3 + (other - 0.3) * _saturating(f, 0.2)) + turn * quality

    return Shape(
        quality=quality,
        seed_sd=grid.rng.uniform(0.01, 0.02),
        metric=metric,
        loss=_learned_loss(grid, grid.rng.uniform(size=grid.n)),
        norm=_noisy_norm(grid, 1.0 + grid.rng.uniform(size=grid.n)),
    )


def anti_correlated(grid: Grid) -> Shape:
    """The early metric ranks the points upside down, until it turns in the second half."""
    bowl = grid.bowl()
    quality = 0.2 + 0.7 * bowl
    turns = grid.rng.uniform(0.5, 0.6)

    def metric(f: float) -> Array:
        turn = 1 / (1 + math.exp(-(f - turns) / 0.06))
        return (1 - turn) * (0.5 - 0.35 * bowl) + turn * quality

    return Shape(
        quality=quality,
        seed_sd=grid.rng.uniform(0.006, 0.02),
        metric=metric,
        loss=lambda f: 3.0 - (1.4 - 0.9 * bowl) * _saturating(f, 0.25),
        norm=_noisy_norm(grid, 0.7 + bowl),
    )


def crossing(grid: Grid) -> Shape:
    """High rates learn fast and stop short; low ones learn slowly and overtake them."""
    best = grid.rng.uniform(0.25, 0.45)
    quality = 0.45 + 0.25 * np.exp(-(((grid.x - best) / grid.rng.uniform(0.25, 0.35)) ** 2)) - 0.03 * grid.y
    tau = 0.05 + 0.9 * (1 - grid.x) ** 2 + 0.15 * grid.y
    return Shape(
        quality=quality,
        seed_sd=grid.rng.uniform(0.006, 0.02),
        metric=lambda f: 0.2 + (quality - 0.2) * _saturating(f, tau),
        loss=lambda f: 3.0 - (1.0 + quality) * _saturating(f, tau),
        norm=_noisy_norm(grid, 0.8 + grid.x),
    )


def late_bloomers(grid: Grid) -> Shape:
    """All curves look alike until the good ones rise, after two thirds of the budget."""
    bowl = grid.bowl()
    quality = 0.25 + 0.65 * bowl
    blooms = grid.rng.uniform(0.65, 0.75)

    def metric(f: float) -> Array:
        turn = 1 / (1 + math.exp(-(f - blooms) / 0.04))
        return 0.2 + 0.05 * f + turn * (quality - 0.25)

    return Shape(
        quality=quality,
        seed_sd=grid.rng.uniform(0.006, 0.02),
        metric=metric,
        loss=lambda f: np.full(grid.n, 3.0 - 0.5 * _saturating(f, 0.2)),
        norm=_noisy_norm(grid, np.ones(grid.n)),
    )


def two_optima(grid: Grid) -> Shape:
    """Two good regions; the lower one shows early, the higher one late."""
    width = grid.rng.uniform(0.14, 0.2)
    fast = np.exp(-(((grid.x - grid.rng.uniform(0.72, 0.82)) / width) ** 2)) * (1 - 0.3 * grid.y)
    slow = np.exp(-(((grid.x - grid.rng.uniform(0.15, 0.3)) / width) ** 2)) * (0.7 + 0.3 * grid.y)
    quality = 0.2 + 0.55 * fast + grid.rng.uniform(0.62, 0.7) * slow

    def metric(f: float) -> Array:
        late = max(0.0, (f - 0.35) / 0.65) ** 1.5
        return np.asarray(0.2 + 0.55 * fast * _saturating(f, 0.15) + (quality - 0.2 - 0.55 * fast) * late)

    return Shape(
        quality=quality,
        seed_sd=grid.rng.uniform(0.006, 0.02),
        metric=metric,
        loss=lambda f: 3.0 - (1.2 * fast + 0.4 * slow) * _saturating(f, 0.15) - 0.6 * slow * f**2,
        norm=_noisy_norm(grid, 1.6 - 0.6 * fast),
    )


def heavy_noise(grid: Grid) -> Shape:
    """An honest study in which two seeds of one point differ by a good part of the grid's range."""
    quality = 0.3 + 0.5 * grid.bowl()
    noise = grid.rng.uniform(0.05, 0.08)
    tau = grid.rng.uniform(0.1, 0.25)
    return Shape(
        quality=quality,
        seed_sd=noise,
        metric=lambda f: 0.3 + (quality - 0.3) * _saturating(f, tau),
        loss=_learned_loss(grid, quality),
        norm=_noisy_norm(grid, 1.5 - quality),
        metric_noise=noise,
    )


def paper(grid: Grid) -> Shape:
    """The paper's finding: early, a low norm and a high loss go with a better end; the metric says little."""
    low_rate = grid.bowl(centre=(0.1, 0.35), width=(0.3, 0.45))
    quality = 0.25 + 0.6 * low_rate + 0.08 * grid.y
    fast = 0.25 * (1 - low_rate)

    def metric(f: float) -> Array:
        late = max(0.0, (f - 0.3) / 0.7)
        return 0.25 + fast * _saturating(f, 0.1) * (1 - late) + (quality - 0.25) * late

    return Shape(
        quality=quality,
        seed_sd=grid.rng.uniform(0.006, 0.02),
        metric=metric,
        loss=lambda f: 3.0 - (1.6 - 1.1 * low_rate) * _saturating(f, 0.15) - 0.8 * low_rate * f**2,
        norm=_noisy_norm(grid, 0.5 + 1.5 * (1 - low_rate) * (1 - 0.3 * grid.y)),
    )


def diverging_corner(grid: Grid) -> Shape:
    """High rates at small batches look best of all, then become NaN; the rest is honest."""
    quality = 0.2 + 0.6 * grid.bowl(centre=(0.35, 0.55))
    corner = (grid.x > 0.7) & (grid.y < 0.5)
    shown = np.where(corner, 0.9, quality)
    return Shape(
        quality=quality,
        seed_sd=grid.rng.uniform(0.006, 0.02),
        metric=lambda f: 0.2 + (shown - 0.2) * _saturating(f, 0.15),
        loss=_learned_loss(grid, shown),
        norm=_noisy_norm(grid, 1.5 - shown),
        diverges_at=np.where(corner, grid.rng.uniform(0.32, 0.7, grid.n), np.nan),
    )


HONEST = ("honest", "honest_loss")
FAMILIES: dict[str, Callable[[Grid], Shape]] = {
    family.__name__: family
    for family in (
        honest, honest_loss, no_signal, anti_correlated, crossing, late_bloomers, two_optima, heavy_noise, paper,
        diverging_corner,
    )
}  # fmt: skip


def make_sweep(family: str, seed: int) -> RecordedSweep:
    """Return one study of a family; the same seed gives the same one."""
    rng = np.random.default_rng([list(FAMILIES).index(family), seed])
    grid = _grid(rng)
    shape = FAMILIES[family](grid)
    expected = _expected(shape)
    luck = rng.normal(0.0, shape.seed_sd, grid.n)
    return RecordedSweep(
        name=f"{family}-{seed}",
        metric="score",
        direction=shape.direction,
        points=tuple(_point(grid, shape, expected, luck, index) for index in range(grid.n)),
        seed_sd=shape.seed_sd,
    )


def _point(grid: Grid, shape: Shape, expected: Expected, luck: Array, index: int) -> RecordedPoint:
    batch = int(grid.batches[index])
    n_steps = BUDGET // batch
    end = 1.0 if shape.diverges_at is None else float(shape.diverges_at[index])
    diverged = shape.diverges_at is not None and math.isfinite(end)
    if diverged:
        n_steps = max(1, math.ceil(end * n_steps))
    params = {"effective_batch_size": batch, "learning_rate": float(grid.rates[index])}
    value = math.nan if diverged else float(shape.quality[index] + luck[index])
    return RecordedPoint(
        params=params,
        settings=params,
        budget_samples=BUDGET,
        total_steps=BUDGET // batch,
        value=value,
        metrics={} if diverged else {"score": value},
        rows=_rows(grid, expected, index, n_steps, diverged=diverged),
        measured=_measured(grid, shape, luck, index, n_steps),
        seconds=BUDGET * 0.02 * (1 + 16 / batch),
        number=index,
    )


def _rows(grid: Grid, expected: Expected, index: int, n_steps: int, *, diverged: bool) -> tuple[StepRow, ...]:
    batch = int(grid.batches[index])
    # A larger batch's loss and norm are means over more sequences.
    noise = _STEP_NOISE * math.sqrt(16 / batch)
    loss, norm = (path[:n_steps, index] for path in expected[batch])
    loss = loss * (1 + noise * grid.rng.standard_normal(n_steps))
    norm = norm * np.exp(2 * noise * grid.rng.standard_normal(n_steps))
    if diverged:
        loss[-1] = math.nan
    rate = float(grid.rates[index])
    return tuple(
        StepRow(step, step * batch, 0, float(a), float(b), rate)
        for step, (a, b) in enumerate(zip(loss, norm, strict=True), start=1)
    )


def _expected(shape: Shape) -> Expected:
    """Return what every step of every point shows without noise; all points of a batch step alike."""
    found = {}
    for batch in BATCHES:
        fractions = [step * batch / BUDGET for step in range(1, BUDGET // batch + 1)]
        found[batch] = (
            np.stack([shape.loss(f) for f in fractions]),
            np.stack([shape.norm(f) for f in fractions]),
        )
    return found


def _measured(grid: Grid, shape: Shape, luck: Array, index: int, last_step: int) -> tuple[Measured, ...]:
    batch = int(grid.batches[index])
    found = {}
    for mark in MARKS:
        step = math.ceil(round(mark * BUDGET, 6) / batch)
        if step >= min(last_step, BUDGET // batch):
            break
        f = step * batch / BUDGET
        expected = float(shape.metric(f)[index])
        # The seed's luck comes in as training goes on; what is left is the eval set's.
        seen = expected + float(luck[index]) * f + shape.metric_noise * float(grid.rng.standard_normal())
        found[step] = Measured(step=step, samples=step * batch, metrics={"score": seen})
    return tuple(found.values())
