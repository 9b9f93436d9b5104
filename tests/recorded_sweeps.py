"""Small recorded sweeps, made up: the loss tells the value, and the metric is measured on the way."""

import math

from sweeper.records import StepRow
from sweeper.study.recorded import Measured, RecordedPoint, RecordedSweep

MARKS = (20, 50)


def make_point(index, value, *, batch=10, budget=100, nan_at=None, seconds=10.0, speed=0.5):
    """Return a point whose metric moves linearly from 0 to `value` and whose loss falls as the value is better."""
    rows = []
    for step in range(1, budget // batch + 1):
        samples = step * batch
        loss = (
            math.nan if nan_at is not None and samples >= nan_at else 3.0 - value * speed * samples / budget
        )
        rows.append(StepRow(step, samples, 0, loss, 1.0 + value, 1e-3))
        if math.isnan(loss):
            break
    diverged = nan_at is not None
    return RecordedPoint(
        params={"learning_rate": 10 ** (-5 + index / 8), "effective_batch_size": batch},
        settings={"learning_rate": 10 ** (-5 + index / 8), "effective_batch_size": batch},
        budget_samples=budget,
        total_steps=budget // batch,
        value=math.nan if diverged else value,
        metrics={} if diverged else {"score": value, "other": -value},
        rows=tuple(rows),
        measured=tuple(
            Measured(step=mark // batch, samples=mark, metrics={"score": value * mark / budget})
            for mark in MARKS
            if mark <= rows[-1].samples and not math.isnan(rows[min(mark // batch, len(rows)) - 1].loss)
        ),
        seconds=seconds,
        number=index,
    )


def make_recorded(values, *, direction="maximize", seed_sd=None, **options):
    points = tuple(make_point(index, value, **options) for index, value in enumerate(values))
    return RecordedSweep(name="made-up", metric="score", direction=direction, points=points, seed_sd=seed_sd)
