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
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.trial import TrialState as OptunaState

from sweeper.config.names import EARLY_DYNAMICS, OPTUNA_PRUNERS
from sweeper.errors import ConfigError
from sweeper.records import Decision, TrialRecord, TrialState


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
            pruner = factory(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"`pruner.options` do not fit pruner `{name}`: {error}. It takes {_parameters(factory)}."
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
    return ", ".join(f"`{name}`" for name in inspect.signature(factory).parameters) or "no options"


class OptunaJudge:
    """Lets one of Optuna's pruners judge trials by one signal.

    It holds no state of its own that the records do not hold too: `judge` feeds the mirror whatever the records
    have and it has not, so that a resumed study judges as before.

    Args:
        pruner: Any Optuna pruner.
        signal: Name of the rung signal that it sees.
        direction: Which way that signal is good.
    """

    def __init__(
        self,
        pruner: BasePruner,
        *,
        name: str,
        signal: str,
        direction: Literal["minimize", "maximize"],
    ) -> None:
        self._name = name
        self._signal = signal
        self._mirror = optuna.create_study(direction=direction, pruner=pruner)
        self._trials: dict[int, optuna.Trial] = {}
        self._reported: set[tuple[int, int]] = set()
        self._finished: set[int] = set()

    def judge(self, numbers: Sequence[int], rung: int, records: Mapping[int, TrialRecord]) -> list[Decision]:
        """Judge trials at a rung. Only the newest value of a trial counts for Optuna's pruners."""
        self._catch_up(records)
        return [self._judge_one(number, rung, records[number]) for number in numbers]

    def _judge_one(self, number: int, rung: int, record: TrialRecord) -> Decision:
        seen = record.rungs[rung]
        value = seen.signals.get(self._signal)
        stop = value is not None and number in self._trials and self._says_stop(number)
        shown = "not reported" if value is None else f"{value:.4g}"
        return Decision(
            trial=number,
            stop=stop,
            rule=self._name,
            reason=f"{self._signal} {shown} at rung {rung} ({seen.samples} samples): pruner `{self._name}` says "
            f"{'stop' if stop else 'go on'}",
            rung=rung,
            samples=seen.samples,
            details={"signals": {self._signal: value}},
        )

    def _says_stop(self, number: int) -> bool:
        with warnings.catch_warnings():
            # Wilcoxon warns at nearly every judgement that trials were measured at different steps (optuna 5.0.0); here
            # they always are, since peers run side by side.
            warnings.simplefilter("ignore", UserWarning)
            # Some pruners answer with numpy's bool (optuna 5.0.0), which JSON does not take.
            return bool(self._trials[number].should_prune())

    def _catch_up(self, records: Mapping[int, TrialRecord]) -> None:
        for number in sorted(records):
            record = records[number]
            if number in self._finished or record.state is TrialState.WAITING:
                continue
            self._mirror_reports(record)
            if record.state.is_finished:
                self._mirror_end(record)

    def _mirror_reports(self, record: TrialRecord) -> None:
        for index in sorted(record.rungs):
            rung = record.rungs[index]
            value = rung.signals.get(self._signal)
            if value is None or (record.number, index) in self._reported:
                continue
            trial = self._mirrored(record.number)
            trial.report(value, rung.mark)
            self._reported.add((record.number, index))

    def _mirror_end(self, record: TrialRecord) -> None:
        self._finished.add(record.number)
        trial = self._trials.get(record.number)
        if trial is None:
            return
        values = record.metrics.get(self._signal) if record.state is TrialState.COMPLETE else None
        if values is not None:
            self._mirror.tell(trial, values)
        elif record.state is TrialState.COMPLETE:
            # Complete, but the signal has no final value of its own: its last rung stands for it.
            self._mirror.tell(trial, list(self._mirror.trials[trial.number].intermediate_values.values())[-1])
        else:
            state = OptunaState.PRUNED if record.state is TrialState.PRUNED else OptunaState.FAIL
            self._mirror.tell(trial, state=state)

    def _mirrored(self, number: int) -> optuna.Trial:
        if number not in self._trials:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._trials[number] = self._mirror.ask()
        return self._trials[number]
