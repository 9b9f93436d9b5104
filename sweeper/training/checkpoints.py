"""What a trial goes on from: weights, optimiser, schedule, scaler and random states. Never pickled code."""

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import transformers

from sweeper.checkpoint.manifest import name_of
from sweeper.context import CheckpointStore
from sweeper.errors import SweeperError
from sweeper.gang import Ranks
from sweeper.training.sharding import optimizer_shares, whole

WEIGHTS = "weights.safetensors"  # by parameter name; with LoRA the adapters alone
STATE = "state.pt"  # read with `weights_only`, so it can hold tensors and plain values only


def save_checkpoint(
    trainer: Any,
    store: CheckpointStore,
    *,
    step: int,
    samples: int,
    tokens: int,
    beside: Path | None,
    ranks: Ranks | None = None,
) -> str:
    """Hand the trainer's state to the store and return the checkpoint's name.

    Where several ranks train, all call this and rank 0 saves: whole tensors, so that any number of ranks can go on.
    """
    weights = {name: whole(p.detach()).cpu().contiguous() for name, p in _trained(trainer.model).items()}
    optimizer = whole(trainer.optimizer.state_dict())
    randoms = [random_state()] if ranks is None else ranks.gathered(random_state())
    if randoms is None:
        return name_of(step)
    directory = Path(tempfile.mkdtemp(prefix=".checkpoint-", dir=beside))
    try:
        safetensors.torch.save_file(weights, directory / WEIGHTS)
        state = {
            "optimizer": optimizer,
            "schedule": trainer.lr_scheduler.state_dict(),
            "scaler": None if trainer.accelerator.scaler is None else trainer.accelerator.scaler.state_dict(),
            "random": randoms[0],
            "random_of_others": randoms[1:],  # of ranks 1, 2, …
            "tokens": tokens,
        }
        torch.save(state, directory / STATE)
        return store.save(directory, step=step, samples=samples)
    finally:
        shutil.rmtree(directory, ignore_errors=True)  # the store has moved it, unless it failed


def load_weights(model: Any, path: Path) -> None:
    """Put a checkpoint's weights into a fresh model."""
    saved = safetensors.torch.load_file(path / WEIGHTS)
    trained = _trained(model)
    if saved.keys() != trained.keys():
        raise SweeperError(
            f"The checkpoint {path} holds {len(saved)} weights and the model trains {len(trained)}, or "
            "others. "
            "It belongs to another model or method; remove it to start the trial again."
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(saved[name])


def load_state(
    trainer: Any, path: Path, *, is_inherited: bool = False, rank: int = 0, n_ranks: int = 1
) -> tuple[dict[str, Any] | None, int]:
    """Put a checkpoint's optimiser, schedule and scaler into a trainer.

    Args:
        trainer: Fresh, with the trial's own optimiser and schedule.
        path: The checkpoint.
        is_inherited: Whether it is another trial's: moments and position are taken over, while rates, decay and
            schedule stay this trial's own.
        rank: This process's, of those that train together.
        n_ranks: How many they are.

    Returns:
        The random state, to be set right before the next step, and the target tokens seen so far. None for a rank
        that has no state here, since another number of ranks saved.
    """
    state = torch.load(path / STATE, map_location="cpu", weights_only=True)
    state["optimizer"] = optimizer_shares(trainer.optimizer, state["optimizer"])
    if is_inherited:
        _load_moments(trainer, state)
    else:
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.lr_scheduler.load_state_dict(state["schedule"])
    if state["scaler"] is not None and trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    randoms = [state["random"], *state.get("random_of_others", [])]
    random_here = randoms[rank] if rank == 0 or len(randoms) == n_ranks else None
    return random_here, int(state["tokens"])


def _load_moments(trainer: Any, state: dict[str, Any]) -> None:
    optimizer, schedule = trainer.optimizer, trainer.lr_scheduler
    own = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    rates = list(schedule.base_lrs)
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    for group, values in zip(optimizer.param_groups, own, strict=True):
        group.update(values)
    schedule.base_lrs = rates
    # The rate of the next step, by this trial's own schedule: all that train without an evaluated metric have it.
    if hasattr(schedule, "lr_lambdas"):
        new = [
            rate * factor(schedule.last_epoch)
            for rate, factor in zip(rates, schedule.lr_lambdas, strict=True)
        ]
        for group, rate in zip(optimizer.param_groups, new, strict=True):
            group["lr"] = rate
        schedule._last_lr = new


def random_state() -> dict[str, Any]:
    """Return the states of all generators that training may draw from, as tensors and plain values."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": list(random.getstate()[1]),
        "python_gauss": random.getstate()[2],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set all generators as `random_state` found them."""
    random.setstate((3, tuple(state["python"]), state["python_gauss"]))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def seed_rank(seed: int, *, rank: int, step: int) -> None:
    """Seed all generators for a rank that goes on from a step without a state of its own.

    Two ranks that drew the same would drop out the same units of different rows.
    """
    transformers.set_seed(int(np.random.SeedSequence([seed, rank, step]).generate_state(1)[0]))


def _trained(model: Any) -> dict[str, Any]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
