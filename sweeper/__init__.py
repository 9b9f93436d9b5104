"""Hyperparameter sweeps for fine-tuning small language models.

Nothing heavy is imported here: `import sweeper` loads no ray, torch, transformers or trl.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper import errors as errors
    from sweeper import pruners as pruners
    from sweeper.api import launch, load_study, resume

__all__ = ["launch", "load_study", "resume"]
_MODULES = ("errors", "pruners")
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"sweeper.{name}")
    if name in __all__:
        from sweeper import api

        return getattr(api, name)
    raise AttributeError(f"module `sweeper` has no attribute `{name}`")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
