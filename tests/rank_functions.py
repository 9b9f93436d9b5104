"""Trial functions that several workers run together."""

import time
from pathlib import Path
from typing import Any

from sweeper.context import TrialContext


def averages(context: TrialContext) -> dict[str, float]:
    """Report at each step the mean of all ranks' numbers, computed together."""
    for step in range(1, (context.spec.total_steps or 0) + 1):
        context.report(step=step, samples=8 * step, loss=_total(context.rank) / context.world_size)
    return {"score": float(context.world_size)}


def saves(context: TrialContext) -> dict[str, float]:
    """Compute together at each step, save on rank 0, go on from what was saved.

    Settings: `step_s` sleeps per step, `effective_batch_size` sequences per step; `learning_rate` is the score's sign.
    """
    batch = int(context.settings.get("effective_batch_size", 8))
    rate = float(context.settings.get("learning_rate", 1e-3))
    loaded = context.checkpoint.load()
    first = 0 if loaded is None else loaded.step
    if loaded is not None:
        context.start_from(step=loaded.step, samples=loaded.samples)
    for step in range(first + 1, context.budget_samples // batch + 1):
        time.sleep(float(context.settings.get("step_s", 0.0)))
        samples = step * batch
        due = context.is_checkpoint_due(samples)
        loss = _total(context.rank) + 1.0 / step + rate
        context.report(step=step, samples=samples, loss=loss, grad_norm=1.0)
        if due and context.rank == 0:
            _save(context, step, samples)
    return {"score": -rate}


def trains_watching_gradients(context: TrialContext) -> dict[str, float]:
    """Fine-tune; count the micro-steps, and those after which every gradient is shared out over the ranks."""
    from torch.distributed.tensor import DTensor

    from sweeper.training import finetune
    from sweeper.training.trainer import SweepTrainer

    seen: list[bool] = []
    really = SweepTrainer.training_step

    def step(self: Any, *arguments: Any, **options: Any) -> Any:
        loss = really(self, *arguments, **options)
        seen.append(all(isinstance(parameter.grad, DTensor) for parameter in self.model.parameters()))
        return loss

    SweepTrainer.training_step = step
    try:
        finetune.run(context)
    finally:
        SweepTrainer.training_step = really
    return {"micro_steps": len(seen), "shared_out": sum(seen)}


def trains_with_little_memory(context: TrialContext) -> dict[str, float]:
    """Fine-tune on a rank 1 that has no room to measure more than 4 rows at a time."""
    import torch

    from sweeper.training import finetune

    def refuse(module: Any, args: Any) -> None:
        if isinstance(module, torch.nn.Embedding) and not module.training and args[0].shape[0] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    if context.rank == 0:
        return finetune.run(context)
    hook = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        return finetune.run(context)
    finally:
        hook.remove()


def _total(rank: int) -> float:
    import torch
    import torch.distributed as dist

    number = torch.tensor(float(rank))
    dist.all_reduce(number)
    return float(number)


def _save(context: TrialContext, step: int, samples: int) -> None:
    folder = Path(context.spec.trial_dir) / "saving"
    folder.mkdir(parents=True)
    (folder / "state.txt").write_text(f"state after step {step}")
    context.report_rows([], checkpoint=context.checkpoint.save(folder, step=step, samples=samples))
