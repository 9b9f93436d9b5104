"""Liger's fused kernels for a model's layers, put on for one trial and taken off again."""

import sys
from types import ModuleType
from typing import Any

from sweeper.errors import ConfigError

_replaced: dict[ModuleType, dict[str, Any]] = {}  # what the modules of models held before


def put_liger_on(model: Any) -> None:
    """Let a model's norms, rotary positions and feed-forward layers compute with Liger's kernels, where it has them.

    The loss stays TRL's fused head. Until `take_liger_off` every model of its kind in this process is changed with it:
    Liger also puts its own into the module that the model comes from.

    Args:
        model: transformers', without adapters.

    Raises:
        ConfigError: If Liger has nothing for this kind of model, or changes more than can be changed back.

    Source: Hsu et al., arXiv:2410.10989; liger-kernel 0.8.
    """
    from transformers.integrations.liger import apply_liger_kernel

    kind = model.config.model_type
    problem = liger_problem(kind)
    if problem is not None:
        raise ConfigError(problem)
    before = {module: dict(vars(module)) for module in _modeling_modules()}
    apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})
    new = [module.__name__ for module in _modeling_modules() if module not in before]
    for module, names in before.items():
        if any(vars(module).get(name) is not value for name, value in names.items()):
            _replaced.setdefault(module, names)
    if new:
        take_liger_off()
        raise ConfigError(
            f"`use_liger_kernel: true` cannot be taken off a model of type `{kind}` again: Liger changes "
            f"{', '.join(new)} with it. Leave it out."
        )


def liger_problem(kind: str) -> str | None:
    """Say that Liger has nothing for models of a type, as their `config.json` names it; None where it has."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    if kind in MODEL_TYPE_TO_APPLY_LIGER_FN:
        return None
    return f"`use_liger_kernel: true`: Liger has no kernels for models of type `{kind}`. Leave it out."


def take_liger_off() -> None:
    """Let models that are made from now on be transformers' own again."""
    for module, names in _replaced.items():
        vars(module).update(names)
    _replaced.clear()


def _modeling_modules() -> list[ModuleType]:
    return [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("transformers.models.") and ".modeling_" in name
    ]
