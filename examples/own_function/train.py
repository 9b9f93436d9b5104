"""A trial function of your own: a small classifier in plain PyTorch, with checkpoints and a held-out metric."""

import tempfile
from pathlib import Path

import torch

from sweeper.context import TrialContext


def data(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points of two interleaved half circles, and which one each belongs to."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 2, (n,), generator=draw)
    angle = torch.rand(n, generator=draw) * torch.pi + label * torch.pi
    points = torch.stack([angle.cos() + label * 1.0 - 0.5, angle.sin() + label * 0.5], dim=1)
    return points + 0.15 * torch.randn(n, 2, generator=draw), label


def train(context: TrialContext) -> dict[str, float]:
    """Train one point to the end of its budget; called in a worker process, once for each attempt."""
    batch, rate = context.settings["effective_batch_size"], context.settings["learning_rate"]
    torch.manual_seed(context.seed)
    model = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    points, labels = data(seed=context.seed, n=context.budget_samples)  # every point sees the same samples
    held_out = data(seed=10_000, n=1000)

    def accuracy() -> float:
        with torch.no_grad():
            return (model(held_out[0]).argmax(1) == held_out[1]).float().mean().item()

    step = 0
    loaded = (
        context.checkpoint.load()
    )  # None in the first attempt; after a crash, a pause or a resume the newest
    if loaded is not None:
        state = torch.load(loaded.path / "state.pt", weights_only=True)  # tensors, never code
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = loaded.step
        context.start_from(step=loaded.step, samples=loaded.samples)
    while (samples := (step + 1) * batch) <= context.budget_samples:
        rows = slice(step * batch, samples)
        loss = torch.nn.functional.cross_entropy(model(points[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        due = context.is_checkpoint_due(samples)  # asked at every step: also when the sweep is to pause
        metrics = {"accuracy": accuracy()} if context.is_evaluation_due(samples) else {}
        # Raises TrialStopped where the pruner has stopped the trial: let it through.
        context.report(step=step, samples=samples, loss=loss.item(), grad_norm=norm.item(), **metrics)
        if due:
            folder = Path(tempfile.mkdtemp())
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "state.pt"
            )
            name = context.checkpoint.save(folder, step=step, samples=samples)  # takes the folder over
            context.report_rows([], checkpoint=name)  # only now is it one that a resume may use
    return {"accuracy": accuracy()}
