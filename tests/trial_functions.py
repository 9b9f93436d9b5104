"""Made-up trial functions: quick, without torch, importable in Ray workers."""

import json
import math
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from sweeper.context import TrialContext


def value_of(params: dict) -> float:
    """The known result of `steady`: best at a rate of 1e-3, worse with the distance in decades."""
    return 1.0 - abs(math.log10(params["learning_rate"]) + 3.0) / 4.0


def steady(context: TrialContext) -> dict[str, float]:
    """Loss falls towards 1 - value; the metric is the value itself, from the first rung on.

    Settings: `step_s` sleeps per step, `batch` sequences per step, `trace` a folder for start and end times.
    """
    settings = context.settings
    batch = int(settings.get("effective_batch_size", 10))
    value = value_of(context.params)
    loaded = context.checkpoint.load()
    first = 0
    if loaded is not None:
        first = loaded.step
        context.start_from(step=loaded.step, samples=loaded.samples)
    with _traced(context):
        for step in range(first + 1, context.budget_samples // batch + 1):
            time.sleep(settings.get("step_s", 0.0))
            samples = step * batch
            loss = 1.0 - value + 1.0 / step
            metrics = {"score": value} if context.is_evaluation_due(samples) else {}
            due = context.is_checkpoint_due(samples)
            context.report(step=step, samples=samples, loss=loss, grad_norm=1.0 / value, **metrics)
            if due:
                _save(context, step, samples)
    return {"score": value}


def scores_its_rate(context: TrialContext) -> dict[str, float]:
    """Two steps of 10 samples, of which one is told; the metric is the learning rate."""
    context.report(step=2, samples=20, loss=1.0, grad_norm=1.0)
    return {"score": context.params["learning_rate"]}


def sees_gpus(context: TrialContext) -> dict[str, float]:
    """Say whether the worker was left any GPU to train on; which ones there are is not asked."""
    return {"score": float(os.environ.get("CUDA_VISIBLE_DEVICES") != "")}


_kept = []


def leaks(context: TrialContext) -> dict[str, float]:
    """As `steady`, but 40 MB stay in the process's memory."""
    _kept.append(bytearray(os.urandom(1) * 40_000_000))
    return steady(context)


def _save(context: TrialContext, step: int, samples: int) -> None:
    folder = Path(context.spec.trial_dir) / "saving"
    folder.mkdir(parents=True)
    (folder / "state.txt").write_text(f"state after step {step}")
    name = context.checkpoint.save(folder, step=step, samples=samples)
    context.report_rows([], checkpoint=name)


class _traced:  # noqa: N801 - used as a context manager
    def __init__(self, context: TrialContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._started = time.time()

    def __exit__(self, *error: object) -> None:
        folder = self._context.settings.get("trace")
        if folder:
            facts = {
                "number": self._context.spec.number, "pid": os.getpid(),
                "started": self._started, "ended": time.time(),
            }  # fmt: skip
            Path(folder, f"{self._context.spec.number}-{time.time_ns()}.json").write_text(json.dumps(facts))


def raises_at_high_rate(context: TrialContext) -> dict[str, float]:
    if context.params["learning_rate"] > 5e-3:
        raise RuntimeError("the rate is too high for this function")
    return steady(context)


def fails_once(context: TrialContext) -> dict[str, float]:
    """Raises in its first attempt."""
    if context.spec.attempt == 1:
        context.report(step=1, samples=10, loss=1.0)
        raise RuntimeError("not at the first attempt")
    return steady(context)


def diverges_at_high_rate(context: TrialContext) -> dict[str, float]:
    if context.params["learning_rate"] > 5e-3:
        for step in range(1, 6):
            context.report(step=step, samples=step * 10, loss=math.nan if step == 3 else 1.0)
    return steady(context)


def dies_at_high_rate(context: TrialContext) -> dict[str, float]:
    """Ends its process without a word, in its first attempt."""
    if context.params["learning_rate"] > 5e-3 and context.spec.attempt == 1:
        os._exit(1)
    return steady(context)


def forgets_the_metric(context: TrialContext) -> dict[str, float]:
    context.report(step=1, samples=context.budget_samples, loss=1.0)
    return {"other": 1.0}


HILL_SPACE = {
    "effective_batch_size": {"grid": [8, 16, 32, 64]},
    "learning_rate": {"grid": [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]},
}


def hill_end(params: dict) -> tuple[float, float]:
    """Return the metric a point ends with, best at one rate that grows with the root of the batch, and its distance."""
    distance = math.log10(params["learning_rate"] / 1e-3) - 0.5 * math.log10(
        params["effective_batch_size"] / 16
    )
    return math.exp(-((distance / 0.8) ** 2)), distance


def hill_curve(params: dict, budget: int, sd: float = 0.01) -> Iterator[tuple[int, int, dict[str, float]]]:
    """Yield step, samples and values of every step: the metric rises to its end value. The same for the same point."""
    batch, (end, distance) = params["effective_batch_size"], hill_end(params)
    draw = random.Random(f"{batch} {params['learning_rate']}")
    for step in range(1, budget // batch + 1):
        seen = end * (1 - math.exp(-4 * step * batch / budget))
        loss, norm, score = (draw.gauss(value, sd) for value in (2 - seen, 1 + distance**2, seen))
        yield step, step * batch, {"loss": loss, "grad_norm": norm, "score": score}


def noisy_hill(context: TrialContext, sd: float = 0.01) -> dict[str, float]:
    """Reports `hill_curve`; the metric where an evaluation is due, and at the end."""
    for step, samples, values in hill_curve(context.params, context.budget_samples, sd):
        metrics = {"score": values["score"]} if context.is_evaluation_due(samples) else {}
        context.report(
            step=step, samples=samples, loss=values["loss"], grad_norm=values["grad_norm"], **metrics
        )
    return {"score": hill_end(context.params)[0]}
