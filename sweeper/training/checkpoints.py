"""What a trial goes on from: weights, optimiser, schedule, scaler and random states. Never pickled code."""

import copy
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import transformers

from sweeper.channel import CheckpointStore
from sweeper.checkpoint.manifest import name_of
from sweeper.errors import SweeperError
from sweeper.gang import Ranks
from sweeper.training.legs import Best, Carried
from sweeper.training.sharding import optimizer_shares, shared_out_again, whole, whole_on_first

WEIGHTS = "weights.safetensors"  # by parameter name; with LoRA the adapters alone
BEST = "best.safetensors"  # as these; where the next phase starts from the best weights of this one
_SMALL_BYTES = 65_536
STATE = "state.pt"  # read with `weights_only`, so it can hold tensors and plain values only


def save_checkpoint(
    trainer: Any,
    store: CheckpointStore,
    *,
    step: int,
    samples: int,
    tokens: int,
    last_losses: Sequence[float] = (),
    best: Best | None = None,
    beside: Path | None,
    ranks: Ranks | None = None,
) -> str:
    """Hand the trainer's state to the store and return the checkpoint's name.

    Where several ranks train, all call this and rank 0 saves: whole tensors, so that any number of ranks can go on.
    """
    is_first = ranks is None or ranks.rank == 0
    weights = whole_on_first(
        {name: p.detach() for name, p in _trained(trainer.model).items()}, is_first=is_first
    )
    optimizer = whole_on_first(trainer.optimizer.state_dict(), is_first=is_first)
    randoms = [random_state()] if ranks is None else ranks.gathered(random_state())
    if randoms is None:
        return name_of(step)
    directory = Path(tempfile.mkdtemp(prefix=".checkpoint-", dir=beside))
    try:
        saved = {name: weight.cpu().contiguous() for name, weight in weights.items()}
        safetensors.torch.save_file(saved, directory / WEIGHTS)
        state = {
            "optimizer": optimizer,
            "schedule": trainer.lr_scheduler.state_dict(),
            "scaler": None if trainer.accelerator.scaler is None else trainer.accelerator.scaler.state_dict(),
            "random": randoms[0],
            "random_of_others": randoms[1:],  # of ranks 1, 2, …
            "tokens": tokens,
            "last_losses": list(last_losses),  # a trial whose metric is the loss ends with their mean
        }
        if best is not None:
            safetensors.torch.save_file(best.carried.weights, directory / BEST)
            state["best"] = {"value": best.value, "moments": best.carried.moments}
        torch.save(state, directory / STATE)
        return store.save(directory, step=step, samples=samples)
    finally:
        shutil.rmtree(directory, ignore_errors=True)  # the store has moved it, unless it failed


def carried_of(trainer: Any, *, with_moments: bool) -> Carried:
    """Return a copy of what the next leg starts with, on the CPU. Where several ranks train, all call this."""
    weights = {
        name: whole(p.detach()).cpu().clone().contiguous() for name, p in _trained(trainer.model).items()
    }
    moments = _on_cpu(whole(trainer.optimizer.state_dict()["state"])) if with_moments else None
    return Carried(weights=weights, moments=moments)


def read_state(path: Path) -> dict[str, Any]:
    """Return the state of a checkpoint beside its weights, on the CPU.

    Where a GPU trains, large tensors stay in the file, mapped: the optimiser copies them to the GPU, and each of 8
    workers of one node would else hold 8 bytes per parameter on the host for as long. An optimiser on the CPU keeps
    the tensors that it is given, and a file may be removed under it, so there they are read.
    """
    is_mapped = torch.cuda.is_available()
    state: dict[str, Any] = torch.load(path / STATE, map_location="cpu", weights_only=True, mmap=is_mapped)
    return _without_small_maps(state) if is_mapped else state


def _without_small_maps(value: Any) -> Any:
    """Return a nested value whose small tensors are copies: counts of steps stay on the host, whoever trains."""
    if isinstance(value, torch.Tensor):
        return value.clone() if value.numel() * value.element_size() <= _SMALL_BYTES else value
    if isinstance(value, dict):
        return {key: _without_small_maps(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_small_maps(item) for item in value]
    return value


def read_end(path: Path, state: dict[str, Any]) -> Carried:
    """Return what a checkpoint at the end of a leg hands to the next one."""
    return Carried(weights=safetensors.torch.load_file(path / WEIGHTS), moments=state["optimizer"]["state"])


def read_best(path: Path, state: dict[str, Any]) -> Best | None:
    """Return the best weights that a checkpoint holds of its leg, if it holds any."""
    if "best" not in state:
        return None
    carried = Carried(
        weights=safetensors.torch.load_file(path / BEST), moments=_on_cpu(state["best"]["moments"])
    )
    return Best(value=float(state["best"]["value"]), carried=carried)


def load_weights(model: Any, path: Path) -> None:
    """Put a checkpoint's weights into a fresh model."""
    put_weights(model, safetensors.torch.load_file(path / WEIGHTS), source=f"The checkpoint {path}")


def put_weights(model: Any, weights: dict[str, Any], *, source: str) -> None:
    """Put weights into a fresh model. `source` begins the sentence that refuses others."""
    trained = _trained(model)
    if weights.keys() != trained.keys():
        raise SweeperError(
            f"{source} holds {len(weights)} weights and the model trains {len(trained)}, or "
            "others. "
            "It belongs to another model or method; remove it to start the trial again."
        )
    for name, parameter in trained.items():
        if weights[name].shape != parameter.shape:  # a copy would repeat a single row
            raise SweeperError(
                f"{source} holds `{name}` with the shape {tuple(weights[name].shape)}, and the one that the model "
                f"trains has {tuple(parameter.shape)}. It belongs to other settings; remove it to start the trial "
                "again."
            )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(weights[name])


def load_state(trainer: Any, state: dict[str, Any], *, is_inherited: bool = False) -> None:
    """Put a checkpoint's optimiser, schedule and scaler into a trainer.

    Args:
        trainer: Fresh, with the trial's own optimiser and schedule.
        state: As `read_state` returns it.
        is_inherited: Whether it is another trial's: moments and position are taken over, while rates, decay and
            schedule stay this trial's own.
    """
    state = {**state, "optimizer": optimizer_shares(trainer.optimizer, state["optimizer"])}
    if is_inherited:
        _load_position(trainer, state)
    else:
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.lr_scheduler.load_state_dict(state["schedule"])
    if state["scaler"] is not None and trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])


def random_of(state: dict[str, Any], *, rank: int, n_ranks: int) -> dict[str, Any] | None:
    """Return a rank's random state of a checkpoint, to be set right before the next step.

    None for a rank that has no state there, since another number of ranks saved.
    """
    randoms = [state["random"], *state.get("random_of_others", [])]
    return randoms[rank] if rank == 0 or len(randoms) == n_ranks else None


def load_moments(optimizer: Any, moments: dict[str, Any]) -> None:
    """Put another optimiser's moments into a fresh one, whose rates and decay stay its own."""
    own = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(optimizer_shares(optimizer, {"state": moments, "param_groups": own}))


def _load_position(trainer: Any, state: dict[str, Any]) -> None:
    optimizer, schedule = trainer.optimizer, trainer.lr_scheduler
    rates = list(schedule.base_lrs)
    load_moments(optimizer, state["optimizer"]["state"])
    schedule.load_state_dict(state["schedule"])
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
    shared_out_again(model)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _on_cpu(value: Any) -> Any:
    """Return a copy of nested plain values and tensors, the tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    return copy.deepcopy(value)
