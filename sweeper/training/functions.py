"""The user's own trial function: found by name, called with the context."""

import importlib
import inspect
import numbers
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sweeper.context import TrialContext
from sweeper.errors import ConfigError, SweeperError
from sweeper.records import LOSS
from sweeper.training.memory import limit_gpu_memory

TrialFunction = Callable[[TrialContext], Any]


def load_function(name: str, *, directory: Path | None = None) -> TrialFunction:
    """Import `module:function`.

    Args:
        name: Dotted module, a colon, and the function's name.
        directory: Where the module may lie beside the installed ones and the working directory; it comes first.

    Raises:
        ConfigError: If there is no such module or function, or the module fails to import.
    """
    module_name, separator, function_name = name.partition(":")
    if not separator or not module_name or not function_name:
        raise ConfigError(f"`trial.function` must be written as `module:function`, but got `{name}`.")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if directory is not None:
        put_first(directory)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(_not_found(name, module_name, error, directory)) from error
    except Exception as error:
        raise ConfigError(
            f"`trial.function`: importing `{module_name}` failed with {type(error).__name__}: {error}. "
            "Correct the module."
        ) from error
    function: Any = getattr(module, function_name, None)
    if not callable(function):
        what = "has no" if function is None else "holds a value, not a function, as"
        raise ConfigError(
            f"`trial.function`: the module `{module_name}` ({module.__file__}) {what} `{function_name}`. "
            "Correct the name."
        )
    return function  # type: ignore[no-any-return]


def put_first(directory: Path) -> None:
    """Let modules be looked for in a directory before all others."""
    if sys.path[:1] != [str(directory)]:
        sys.path[:] = [str(directory), *(path for path in sys.path if path != str(directory))]


def _not_found(name: str, module_name: str, error: ModuleNotFoundError, directory: Path | None) -> str:
    if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
        return (
            f"`trial.function`: `{module_name}` imports `{error.name}`, which is not installed. Install it "
            "where the "
            "trials run."
        )
    places = " nor ".join(str(path) for path in (Path.cwd(), directory) if path is not None)
    return (
        f"`trial.function: {name}`: there is no module `{error.name}`, neither installed nor in {places}. "
        "Correct the name, or install the module where the trials run."
    )


def run_function(function: TrialFunction, context: TrialContext) -> dict[str, float]:
    """Call a trial function and return its final metrics.

    It gets no more of a shared GPU's memory than its share, where its module has loaded torch.

    What it returns counts: a mapping of metrics, or one number, which is the study's metric. Where it returns
    nothing, the last reported value of every metric counts; of the loss too where that is the study's metric.

    Raises:
        TrialStopped: If the trial was told to stop.
        SweeperError: If the function returned something else.
    """
    if context.spec.gpu_share < 1:  # a whole GPU needs no bound, which would take up CUDA in this process
        limit_gpu_memory(context.spec.gpu_share)
    result = function(context)
    reported = {
        name: value for name, value in context.newest.items() if name != LOSS or context.spec.metric == LOSS
    }
    return reported | _as_metrics(result, context.spec.metric)


def _as_metrics(result: Any, metric: str) -> dict[str, float]:
    if result is None:
        return {}
    if _is_number(result):
        return {metric: float(result)}
    if isinstance(result, Mapping) and all(isinstance(k, str) and _is_number(v) for k, v in result.items()):
        return {name: float(value) for name, value in result.items()}
    is_unrun = inspect.isgenerator(result) or inspect.isawaitable(result) or inspect.isasyncgen(result)
    remedy = " Write it without `yield` and `async`, and report by `context.report`." if is_unrun else ""
    raise SweeperError(
        f"The trial function returned {result!r:.100}, but must return nothing, a number, or a mapping of "
        f"names to numbers.{remedy}"
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, numbers.Real):
        return True
    # A torch or numpy scalar; anything with one element converts.
    return hasattr(value, "item") and getattr(value, "ndim", None) == 0
