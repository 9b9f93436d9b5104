"""What a sweep's trials need to find on their nodes: paths, packages, and the trial function."""

import dataclasses
from collections.abc import Callable
from typing import Any

import cloudpickle

from sweeper.config.models import SweepConfig
from sweeper.executors.user_code import code_of
from sweeper.preflight.packages import Needed, needed_packages


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialCode:
    """A trial function as a node can load it: by its name, or as it was handed over."""

    name: str | None  # `module:function`
    directory: str | None  # where its module lies for the driver
    pickled: bytes | None  # by cloudpickle, instead


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What nodes are asked for; nothing: what every sweep needs."""

    paths: tuple[str, ...] = ()
    packages: tuple[Needed, ...] = ()
    code: TrialCode | None = None


def asked_of(config: SweepConfig, function: Callable[..., Any] | None = None) -> Asked:
    """Return what a sweep needs; a function may run instead of what the config names."""
    trial, code = config.trial, None
    if function is not None or trial.function is not None:
        pickled = None if function is None else cloudpickle.dumps(function)
        code = TrialCode(name=trial.function, directory=trial.function_dir, pickled=pickled)
    packages = () if function is not None else needed_packages(config)
    return Asked(paths=_paths_of(config, function), packages=packages, code=code)


def _paths_of(config: SweepConfig, function: Callable[..., Any] | None) -> tuple[str, ...]:
    """Return the local paths that trials read on their nodes; their own code travels."""
    trial = config.trial
    models = config.search_space["model"].listed if "model" in config.search_space else None
    named = [trial.model, *(models or ()), trial.chat_template]
    named += [source.path for source in (*trial.sources, *trial.eval_data.values())]
    if function is None and trial.function is not None and code_of(config) is None:
        named.append(trial.function_dir)
    return tuple(dict.fromkeys(path for path in named if isinstance(path, str) and path.startswith("/")))
