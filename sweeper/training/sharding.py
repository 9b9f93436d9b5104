"""A model that is shared out over a trial's workers (FSDP2), and how its tensors are put together again.

`fully_shard` is called here and not by accelerate, whose FSDP plugin takes no CPUs (1.15), so that tests train on CPUs
with the code that trains on GPUs.
"""

import inspect
from typing import Any

import torch
import transformers
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from sweeper.errors import SweeperError

_SHARDED_BEFORE = (
    "is_distributed_loading_by_transformers"  # what the trainer asks itself; not in transformers 5.17
)


def shard(model: Any, dtype: torch.dtype) -> None:
    """Share a model's parameters out, layer by layer, in place.

    Args:
        model: On the CPU, the same on every rank.
        dtype: What passes are computed in. Gradients are summed in float32.
    """
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    layers = set(getattr(model, "_no_split_modules", None) or ())
    if not layers:
        raise SweeperError(
            f"`resources.sharding: fsdp2` does not know the layers of a {type(model).__name__}. Leave it out."
        )
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    model._is_fsdp_managed_module = True  # by which transformers knows how to accumulate gradients
    register_fsdp_forward_method(model, "generate")


def unusable_for_sharding() -> str | None:
    """Say that the installed transformers takes no model that is shared out already; None where it does."""
    is_known = _SHARDED_BEFORE in inspect.getsource(transformers.Trainer.__init__)
    return None if is_known else _too_early()


def _too_early() -> str:
    return (
        f"`resources.sharding: fsdp2` needs a later transformers than {transformers.__version__}. Upgrade it."
    )


def sharded_by_us(trainer: Any) -> None:
    """Tell the trainer that its model is shared out already, so that it wraps it in nothing.

    Raises:
        SweeperError: If this version of transformers cannot be told.
    """
    if not hasattr(trainer, _SHARDED_BEFORE):
        raise SweeperError(_too_early())
    trainer.is_distributed_loading_by_transformers = True


def is_sharded(model: Any) -> bool:
    """Whether `shard` was called with this model, or with one around it."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def shared_out_again(model: Any) -> None:
    """Let every parameter of a model be this rank's share of it, in float32, whatever the last pass left.

    After a pass without a backward, as in an evaluation, the outermost ones stay put together, in the precision that is
    computed in (torch 2.13).
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(value: Any) -> Any:
    """Return a nested value with every shared-out tensor put together. All ranks have to call it."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return value


def whole_on_first(value: Any, *, is_first: bool) -> Any:
    """Return a nested value on rank 0 with every shared-out tensor put together, on the CPU. All ranks have to call it.

    One tensor after the other: all of them together fit on no GPU. Other ranks get None in their places.
    """
    if isinstance(value, DTensor):
        put_together = value.full_tensor()
        return put_together.cpu() if is_first else None
    if isinstance(value, dict):
        return {key: whole_on_first(item, is_first=is_first) for key, item in value.items()}
    if isinstance(value, list):
        return [whole_on_first(item, is_first=is_first) for item in value]
    return value


def optimizer_shares(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return a whole optimiser state with every tensor that belongs to a shared-out parameter shared out like it."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    ids = [index for group in state["param_groups"] for index in group["params"]]
    shares = dict(state["state"])
    for index, parameter in zip(ids, parameters, strict=True):
        if index in shares and isinstance(parameter, DTensor):
            shares[index] = {name: _share(value, parameter) for name, value in shares[index].items()}
    return {**state, "state": shares}


def _share(value: Any, parameter: DTensor) -> Any:
    if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value  # a step count
    device = parameter.device_mesh.device_type
    return distribute_tensor(
        value.to(device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )
