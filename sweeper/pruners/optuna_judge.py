"""Optuna's own pruners over any signal, over trials that all still run, and without touching the study.

Optuna's pruners compare the reported float in the study's direction (an accuracy study that reports loss keeps
the worst; checked with optuna 5.0.0), and some write bookkeeping into the study's storage. So they judge a mirror:
an in-memory study in the signal's own direction, which holds one float per rung.
"""

import importlib
import inspect
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner

from sweeper.config.names import EARLY_DYNAMICS, OPTUNA_PRUNERS
from sweeper.errors import ConfigError
from sweeper.pruners.mirror import ASKED, Mirror
from sweeper.records import Decision, Direction, TrialRecord


def make_pruner(name: str, options: Mapping[str, Any], *, directory: Path | None = None) -> BasePruner:
    """Return one of Optuna's pruners by name, or the user's own `module:Class`.

    `patient` takes `wrapped_pruner` as a name or as `{name: ..., options...}`. The user's module may lie in the
    working directory, or in `directory`.

    Raises:
        ConfigError: If it does not import, is no pruner, or does not take the options.
    """
    given = dict(options)
    if isinstance(given.get("wrapped_pruner"), str):
        given["wrapped_pruner"] = make_pruner(given["wrapped_pruner"], {}, directory=directory)
    elif isinstance(given.get("wrapped_pruner"), Mapping):
        inner = dict(given["wrapped_pruner"])
        given["wrapped_pruner"] = make_pruner(inner.pop("name"), inner, directory=directory)
    known = OPTUNA_PRUNERS.get(name)
    factory = _imported(name, directory) if known is None else getattr(optuna.pruners, known)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            pruner = factory(**given) if callable(factory) else None
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"`pruner.options` do not fit pruner `{name}`: {error}.{_parameters(factory)}"
        ) from error
    if not isinstance(pruner, BasePruner):
        raise ConfigError(f"`pruner.name` {name} is no optuna.pruners.BasePruner. Derive the class from it.")
    return pruner


def _imported(name: str, directory: Path | None) -> Any:
    module, _, attribute = name.partition(":")
    for path in (Path.cwd(), directory):
        if path is not None and str(path) not in sys.path:
            sys.path.insert(0, str(path))
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"`pruner.name` {name} does not import: {error}. "
            f"Give one of {', '.join([EARLY_DYNAMICS, *OPTUNA_PRUNERS])}, or `module:Class` "
            "of a module that is installed or lies in the working directory."
        ) from error


def _parameters(factory: Any) -> str:
    """Return a sentence on what a user's own pruner takes; none where that cannot be told.

    Python 3.14 evaluates the annotations for it, which may name what only a type checker imports.
    """
    try:
        names = inspect.signature(factory).parameters
    except (TypeError, ValueError, NameError, AttributeError):
        return ""
    return f" It takes {', '.join(f'`{name}`' for name in names) or 'no options'}."


class OptunaJudge:
    """Lets one of Optuna's pruners judge trials by one signal.

    It holds no state of its own that the records do not hold too, so that a resumed study judges as before.

    Args:
        pruner: Any Optuna pruner.
        name: What the config calls it.
        signal: Name of the rung signal that it sees.
        direction: Which way that signal is good.
    """

    def __init__(
        self,
        pruner: BasePruner,
        *,
        name: str,
        signal: str,
        direction: Direction,
    ) -> None:
        self._name = name
        self._signal = signal
        self._mirror = Mirror(pruner, signal=signal, direction=direction)

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Judge trials at a rung. Only the newest value of a trial counts for Optuna's pruners."""
        answers, asked = self._mirror.ask(numbers, rung, records)
        return [
            self._decision(records[number], rung, stop=answers.get(number, False), asked=asked)
            for number in numbers
        ]

    def _decision(
        self, record: TrialRecord, rung: int, *, stop: bool, asked: Mapping[str, Any] | None
    ) -> Decision:
        seen = record.rungs[rung]
        value = seen.signals.get(self._signal)
        shown = "not reported" if value is None else f"{value:.4g}"
        return Decision(
            trial=record.number,
            stop=stop,
            rule=self._name,
            reason=f"{self._signal} {shown} at rung {rung} ({seen.samples} samples): pruner `{self._name}` says "
            f"{'stop' if stop else 'go on'}",
            rung=rung,
            samples=seen.samples,
            details={"signals": {self._signal: value}, **({} if asked is None else {ASKED: asked})},
        )
