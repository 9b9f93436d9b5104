"""Packages that some settings need beside this one's own: looked for where the trials run. Loads none of them."""

import dataclasses
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.space_values import setting_values
from sweeper.extras import install_command


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needed:
    """A package that a sweep's trials load."""

    module: str
    by: str  # what needs it, as messages name it
    remedy: str  # how it is installed, a sentence


# By what transformers 5.23 loads for them. GaLore and Apollo need more than a package, which a sweep cannot give them,
# and the schedule-free ones are refused with the config.
_OF_OPTIMIZERS = {
    "bitsandbytes": (
        "ademamix", "adamw_bnb_8bit", "adamw_8bit", "ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit",
        "paged_adamw_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit",
        "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit",
    ),
    "torchao": ("adamw_torch_4bit", "adamw_torch_8bit"),
    "torchdistx": ("adamw_anyprecision",),
    "torch_xla": ("adamw_torch_xla",),
    "torch_npu": ("adamw_torch_npu_fused",),
    "grokadamw": ("grokadamw",),
    "optimi": ("stable_adamw",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _OF_OPTIMIZERS.items() for name in names}
# A setting and its value, what it loads, and which extra of this package brings that.
_OF_SETTINGS: tuple[tuple[str, Any, str, str], ...] = (
    ("method", "qlora", "bitsandbytes", "qlora"),
    ("use_liger_kernel", True, "liger_kernel", "liger"),
)
_EXTRAS = {module: extra for _, _, module, extra in _OF_SETTINGS}
_SOURCES = {"optimi": "torch-optimi"}  # what pip calls it
_BY_HAND = {"torchdistx": "https://github.com/pytorch/torchdistx"}  # on no index


def needed_packages(config: SweepConfig) -> tuple[Needed, ...]:
    """Return the packages that the built-in fine-tuning loads for a sweep's settings, each once."""
    if config.trial.function is not None:
        return ()
    found = {needed.module: needed for needed, _ in needed_extras(config)}
    for name in setting_values(config, "optimizer"):
        module = module_of_optimizer(name)
        if module is not None and module not in found:
            found[module] = Needed(module=module, by=f"`optimizer: {name}`", remedy=_remedy(module))
    return tuple(found.values())


def needed_extras(config: SweepConfig) -> list[tuple[Needed, str]]:
    """Return the packages that an extra of this one brings, for settings other than the optimiser, with its name."""
    return [
        (Needed(module=module, by=f"`{name}: {str(value).lower()}`", remedy=_remedy(module)), extra)
        for name, value, module, extra in _OF_SETTINGS
        if value in setting_values(config, name)
    ]


def module_of_optimizer(name: str) -> str | None:
    """Return the module that an optimiser is taken from; None where torch or transformers has it."""
    return _MODULE_OF.get(name)


def _remedy(module: str) -> str:
    if module in _BY_HAND:
        return f"Install it there as {_BY_HAND[module]} says."
    extra = _EXTRAS.get(module)
    command = f"pip install {_SOURCES.get(module, module)}" if extra is None else install_command(extra)
    return f"Install it there: `{command}`."
