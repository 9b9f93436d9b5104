"""Trial functions for sweeps that are broken on purpose: quick, exact, without torch, importable in Ray workers."""

import hashlib
import json
import math
import time
from pathlib import Path

from sweeper.context import TrialContext


def noisy(context: TrialContext) -> dict[str, float]:
    """Train a made-up model whose loss depends on every step before it, so that a wrong resume shows.

    The state is one number that each step hashes on. Settings: `step_s` sleeps per step, `payload_bytes` is the
    size of a checkpoint.
    """
    settings = context.settings
    batch = int(settings["effective_batch_size"])
    state, first = f"{context.seed}:{sorted(context.params.items())}", 0
    loaded = context.checkpoint.load()
    if loaded is not None:
        saved = json.loads((loaded.path / "state.json").read_text())
        assert saved["step"] == loaded.step
        state, first = saved["state"], loaded.step
        context.start_from(step=loaded.step, samples=loaded.samples)
    for step in range(first + 1, context.budget_samples // batch + 1):
        time.sleep(float(settings.get("step_s", 0.0)))
        state = hashlib.sha256(f"{state}:{step}".encode()).hexdigest()
        samples = step * batch
        metrics = {"score": score(context)} if context.is_evaluation_due(samples) else {}
        due = context.is_checkpoint_due(samples)
        context.report(
            step=step, samples=samples, loss=loss(context, step, state), grad_norm=noise(state), **metrics
        )
        if due:
            _save(context, state, step, samples)
    return {"score": score(context) + noise(state) / 1e6}


def noisy_together(context: TrialContext) -> dict[str, float]:
    """Train as `noisy` does on rank 0, with all ranks computing together at every step."""
    import torch
    import torch.distributed as dist

    settings = context.settings
    batch = int(settings["effective_batch_size"])
    state, first = f"{context.seed}:{sorted(context.params.items())}", 0
    loaded = context.checkpoint.load()
    if loaded is not None:
        state, first = json.loads((loaded.path / "state.json").read_text())["state"], loaded.step
        context.start_from(step=loaded.step, samples=loaded.samples)
    for step in range(first + 1, context.budget_samples // batch + 1):
        time.sleep(float(settings.get("step_s", 0.0)))
        ranks = torch.ones(())
        dist.all_reduce(ranks)
        assert int(ranks) == context.world_size
        state = hashlib.sha256(f"{state}:{step}".encode()).hexdigest()
        samples = step * batch
        due = context.is_checkpoint_due(samples)
        context.report(step=step, samples=samples, loss=loss(context, step, state), grad_norm=noise(state))
        if due and context.rank == 0:
            _save(context, state, step, samples)
    return {"score": score(context) + noise(state) / 1e6}


def stuck(context: TrialContext) -> dict[str, float]:
    """Report one step and then do something that takes for ever, deaf to whatever it is told."""
    context.report(step=1, samples=1, loss=1.0)
    Path(context.spec.trial_dir, "deaf").touch()
    time.sleep(600)
    return {}


def score(context: TrialContext) -> float:
    """The known quality of a point: best at a rate of 1e-3."""
    return 1.0 - abs(math.log10(context.params["learning_rate"]) + 3.0) / 4.0


def loss(context: TrialContext, step: int, state: str) -> float:
    return 2.0 - score(context) + 1.0 / step + noise(state) / 100.0


def noise(state: str) -> float:
    return int(state[:8], 16) / 2**32


def _save(context: TrialContext, state: str, step: int, samples: int) -> None:
    folder = Path(context.spec.trial_dir) / f"saving-{context.spec.attempt}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text(json.dumps({"state": state, "step": step}))
    (folder / "payload.bin").write_bytes(b"x" * int(context.settings.get("payload_bytes", 100)))
    name = context.checkpoint.save(folder, step=step, samples=samples)
    context.report_rows([], checkpoint=name)
