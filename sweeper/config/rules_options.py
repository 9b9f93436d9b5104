"""Rules of `sampler.options` and `pruner.options`: what Optuna's classes take.

Many of these classes store what they are given and look at it only when they draw or judge, in mid-sweep. So each value
is checked by its parameter's annotation, and with some classes a draw or a judgement is tried.
"""

import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from sweeper.config.draft import Draft, dotted
from sweeper.config.messages import join, sentence, show, unknown_name
from sweeper.config.names import OPTUNA_PRUNERS, OPTUNA_SAMPLERS
from sweeper.config.space_models import Dimension
from sweeper.config.values import OBJECT_PATTERN
from sweeper.params import is_number

# Options that take Python objects, or that the sweep file says elsewhere.
_NOT_FROM_A_FILE = {
    "gamma",
    "weights",
    "constraints_func",
    "independent_sampler",
    "source_trials",
    "search_space",
}
# The others (Optuna 5.0) have checked all that their annotations leave open once they are made.
_CHECKED_IN_USE = ("TPESampler", "CmaEsSampler", "HyperbandPruner")
_MAX_COUNT = 1_000_000  # of candidates and of a population, which a draw holds in memory

Options = Mapping[str, Any]
Path = tuple[str | int, ...]


def check_sampler_options(draft: Draft) -> None:
    """Check the options of one of Optuna's samplers."""
    sampler = draft.config.sampler
    class_name, path = OPTUNA_SAMPLERS[sampler.name], ("sampler", "options")
    if not _are_its_own(draft, f"samplers.{class_name}", sampler.options, path):
        return
    for option, value in sampler.options.items():
        if is_number(value) and value > _MAX_COUNT:
            draft.tell(
                f"`{dotted((*path, option))}` must be at most {_MAX_COUNT:,}, but got {show(value)}. Choose a smaller "
                "value.",
                *(*path, option),
            )
            return
    if not sampler.options or class_name == "GPSampler":  # making one loads torch
        return
    # A draw needs a search space that is right.
    is_drawn = class_name in _CHECKED_IN_USE and not draft.problems
    _try(draft, class_name, path, lambda: _try_sampler(draft, class_name, is_drawn=is_drawn))


def check_pruner_options(draft: Draft, name: str, options: Options, path: Path) -> None:
    """Check the options of one of Optuna's pruners, and of the pruner that it wraps.

    Args:
        draft: Where problems are told.
        name: Our name of the pruner.
        options: As the file has them.
        path: Where they stand.
    """
    class_name = OPTUNA_PRUNERS[name]
    if not _are_its_own(draft, f"pruners.{class_name}", options, path):
        return
    if "wrapped_pruner" in options:
        _check_wrapped(draft, options["wrapped_pruner"], (*path, "wrapped_pruner"))
    _try(draft, class_name, path, lambda: _try_pruner(class_name, options))


def _check_wrapped(draft: Draft, wrapped: Any, path: Path) -> None:
    """`patient` wraps another pruner: a name, or a mapping of `name` and its options."""
    name = wrapped.get("name") if isinstance(wrapped, dict) else wrapped
    if isinstance(name, str) and name in OPTUNA_PRUNERS:
        options = {key: value for key, value in wrapped.items() if key != "name"} if name != wrapped else {}
        check_pruner_options(draft, name, options, path)
    elif not isinstance(name, str) or not re.fullmatch(OBJECT_PATTERN, name):
        draft.tell(
            f"`{dotted(path)}` must be a pruner's name or a mapping with its `name`, but got {show(wrapped)}. Choose "
            f"one of {join(OPTUNA_PRUNERS)}.",
            *path,
        )


def _are_its_own(draft: Draft, place: str, options: Options, path: Path) -> bool:
    """Whether the class takes options of these names and types, and needs no others; tells if not."""
    n_told = len(draft.problems)
    class_name = place.rpartition(".")[2]
    parameters = _parameters(_optuna(place))
    for option, value in options.items():
        problem = None
        if option == "seed":
            problem = f"`{dotted(path)}.seed` is the study's `seed`. Set that one and remove this."
        elif option not in parameters:
            problem = unknown_name(option, parameters, what=f"option of optuna's {class_name}")
        elif option != "wrapped_pruner":
            problem = _type_problem(parameters[option], value, dotted((*path, option)))
        if problem is not None:
            draft.tell(problem, *path, option)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in options:
            draft.tell(
                f"optuna's {class_name} needs the option `{name}`. Add it to `{dotted(path)}`.", path[0]
            )
    return len(draft.problems) == n_told


def _optuna(place: str) -> Any:
    module, _, name = place.rpartition(".")
    return getattr(importlib.import_module(f"optuna.{module}"), name)


def _parameters(cls: Any) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in _NOT_FROM_A_FILE | {"self", "seed"}
    }


def _type_problem(parameter: inspect.Parameter, value: Any, name: str) -> str | None:
    """Say why a value is not of the parameter's type; None where it is, or the type names a class of Optuna's."""
    annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
    try:
        TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        kinds = {detail["type"]: sentence(detail, name=name, value=value) for detail in error.errors()}
        if set(kinds) == {"string_type", "int_type"} and value is not None:
            return f"`{name}` must be text or a whole number, but got {show(value)}. Write one of the two."
        if "finite_number" in kinds and parameter.default is None:
            return f"{kinds['finite_number'].rstrip('.')}, or leave the option out."
        return next(iter(kinds.values()))
    except PydanticUserError:  # the annotation is a name that only Optuna's module knows
        return None
    return None


def _try(draft: Draft, class_name: str, path: Path, trial: Callable[[], None]) -> None:
    """Tell what the class says of its options when it is made, draws or judges; of whatever kind its error is."""
    optuna_logging = importlib.import_module("optuna.logging")
    level = optuna_logging.get_verbosity()
    optuna_logging.set_verbosity(optuna_logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optuna's ExperimentalWarning says nothing about the options
            trial()
    except Exception as error:  # noqa: BLE001 - what it does not check ends in an index, a division or an assertion
        reason = str(error).rstrip(".") or type(error).__name__
        draft.tell(
            f"optuna's {class_name} does not take these options: {reason}. Correct `{dotted(path)}`.", *path
        )
    finally:
        optuna_logging.set_verbosity(level)


def _try_sampler(draft: Draft, class_name: str, *, is_drawn: bool) -> None:
    """Draw a point after one that is finished, past the start where samplers draw at random."""
    cls, options = _optuna(f"samplers.{class_name}"), draft.config.sampler.options
    cls(seed=0, **options)
    if not is_drawn:
        return
    early = {"n_startup_trials": 1} if "n_startup_trials" in _parameters(cls) else {}
    space = {name: _distribution(dimension) for name, dimension in draft.config.search_space.items()}
    study = importlib.import_module("optuna").create_study(sampler=_optuna("samplers.RandomSampler")(seed=0))
    for value in (0.0, 1.0):
        study.tell(study.ask(space), value)
    study.sampler = cls(seed=0, **{**options, **early})
    study.ask(space)


def _distribution(dimension: Dimension) -> Any:
    if dimension.listed is not None:
        return _optuna("distributions.CategoricalDistribution")(range(len(dimension.listed)))
    low, high = getattr(dimension, dimension.kind)
    if dimension.int is not None:
        return _optuna("distributions.IntDistribution")(
            low, high, log=dimension.log, step=int(dimension.step or 1)
        )
    return _optuna("distributions.FloatDistribution")(
        low, high, log=dimension.kind == "log_uniform", step=dimension.step
    )


def _try_pruner(class_name: str, options: Options) -> None:
    """Make the pruner and let it judge a trial beside one that is finished."""
    inner = {"wrapped_pruner": _optuna("pruners.NopPruner")()} if "wrapped_pruner" in options else {}
    pruner = _optuna(f"pruners.{class_name}")(**{**options, **inner})
    if class_name not in _CHECKED_IN_USE:
        return
    study = importlib.import_module("optuna").create_study(pruner=pruner)
    for _ in range(2):
        trial = study.ask()
        trial.report(1.0, 1)
        trial.should_prune()
        study.tell(trial, 1.0)
