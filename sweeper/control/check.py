"""Whether a request can be met: the same rules for whoever sends it and for the driver that acts on it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from sweeper.config.messages import did_you_mean, join, sentence, show
from sweeper.config.models import SweepConfig
from sweeper.config.space_models import Dimension
from sweeper.config.trial_models import BUDGET_KINDS, Budget
from sweeper.errors import ConfigError, StudyMismatchError
from sweeper.params import is_number
from sweeper.phases import PHASED
from sweeper.plan import DataFacts, Point, plan_point
from sweeper.records import TrialRecord, TrialState
from sweeper.study.control_records import NO_LIMIT, ControlRequest, Verb
from sweeper.study.failed import trials_of
from sweeper.study.numbered import numbered

MAX_CONCURRENT = "max_concurrent"  # trials at a time
SETTINGS = (MAX_CONCURRENT,)  # what `set` can change


def check_request(
    request: ControlRequest,
    *,
    config: SweepConfig,
    facts: DataFacts | None,
    records: Mapping[int, TrialRecord],
) -> Point | None:
    """Return the point that the request adds; None where it adds none.

    Raises:
        ConfigError: If a name or a value is wrong.
        StudyMismatchError: If it names a trial that does not exist or has ended, or another one has trained the same,
            or will, without having failed.
    """
    if request.verb in (Verb.STOP, Verb.KEEP):
        _open_trial(request, config, records)
    elif request.verb is Verb.SET:
        _check_setting(request.arguments)
    elif request.verb is Verb.ADD:
        return _new_point(request.arguments["params"], config, facts, records)
    elif request.verb is Verb.CLONE:
        return _clone(request, config, facts, records)
    return None


def _open_trial(request: ControlRequest, config: SweepConfig, records: Mapping[int, TrialRecord]) -> None:
    record = numbered(records, request.trial, study=config.study)
    if record.state.is_finished:
        word = "stopped" if request.verb is Verb.STOP else "kept"
        raise StudyMismatchError(
            f"Trial {record.number} of study `{config.study}` has ended ({record.state}), so it cannot be {word}. "
            "Name one that runs or waits."
        )


def _check_setting(arguments: Mapping[str, Any]) -> None:
    name, value = str(arguments["setting"]), arguments["value"]
    if name not in SETTINGS:
        raise ConfigError(
            f"`set` does not know `{name}`.{_hint(name, SETTINGS)} It can change {join(SETTINGS)}."
        )
    if value in NO_LIMIT:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(
            f"`{name}` must be a whole number of at least 1, but got {show(value)}. "
            "`none` lifts the limit; `sweeper pause` starts no more trials."
        )


def _new_point(
    params: Mapping[str, Any],
    config: SweepConfig,
    facts: DataFacts | None,
    records: Mapping[int, TrialRecord],
    *,
    warm_from: int | None = None,
) -> Point:
    _check_params(params, config)
    ordered = {
        name: _as_drawn(params[name], dimension)
        for name, dimension in config.search_space.items()
        if name in params
    }
    point = plan_point(config, ordered, facts=facts)
    for record in trials_of(point, records, warm_from=warm_from):
        if record.state is not TrialState.FAIL:
            raise StudyMismatchError(
                f"This point is trial {record.number} of study `{config.study}` already ({record.state}); "
                "a point is trained once. Change a value."
            )
    return point


def _clone(
    request: ControlRequest,
    config: SweepConfig,
    facts: DataFacts | None,
    records: Mapping[int, TrialRecord],
) -> Point:
    source = numbered(records, request.trial, study=config.study)
    changes = request.arguments["params"]
    if not changes:
        raise ConfigError(
            f"A clone of trial {source.number} needs at least one other value, such as `learning_rate=1e-5`."
        )
    is_warm = bool(request.arguments.get("warm_start"))
    warm_from = source.number if is_warm else None
    point = _new_point({**source.params, **changes}, config, facts, records, warm_from=warm_from)
    if is_warm:
        _check_warm_start(source, point, is_built_in=config.trial.function is None)
    return point


def _check_warm_start(source: TrialRecord, point: Point, *, is_built_in: bool) -> None:
    size, others = source.settings.get("effective_batch_size"), point.settings.get("effective_batch_size")
    if size != others:
        raise ConfigError(
            f"`effective_batch_size` was {size} in trial {source.number} and is {others} in its clone: steps and "
            "data would not meet. Clone with the same one, or without `--warm-start`."
        )
    if point.phases or source.settings.get("data_strategy") == PHASED:
        raise ConfigError(
            f"Trial {source.number} or its clone trains in phases, and a checkpoint belongs to one of them. Clone "
            "it without `--warm-start`."
        )
    for name in _trained_weights(point) if is_built_in else ():
        was, now = source.settings.get(name), point.settings[name]
        if was != now:
            raise ConfigError(
                f"`{name}` was {show(was)} in trial {source.number} and is {show(now)} in its clone: the weights of "
                "its checkpoint are not those that the clone trains. Clone "
                "with the same one, or without `--warm-start`."
            )
    if source.checkpoint is None or source.state is TrialState.PRUNED:
        raise StudyMismatchError(
            f"Trial {source.number} has no checkpoint to start from. Clone it without `--warm-start`; "
            "`trial.checkpoint` says when checkpoints are saved."
        )


def _trained_weights(point: Point) -> tuple[str, ...]:
    """Return the settings that say which weights a trial trains, and which ones they belong to."""
    adapters = () if point.settings["method"] == "full" else ("lora_rank", "lora_target_modules")
    return ("model", "method", *adapters)


def _check_params(params: Mapping[str, Any], config: SweepConfig) -> None:
    known = list(config.search_space)
    for name, value in params.items():
        if name not in known:
            fixed = " It is fixed in `trial.settings`." if name in config.trial.settings else ""
            raise ConfigError(
                f"`{name}` is no dimension of study `{config.study}`.{fixed}{_hint(name, known)} "
                f"Its dimensions are {join(known) or 'none'}."
            )
        _check_value(name, value, config.search_space[name], is_drawn=config.sampler.name != "grid")


def _as_drawn(value: Any, dimension: Dimension) -> Any:
    """Return a number as a sampler draws it: 0.1 and two steps of 0.1 are a little more than 0.3."""
    is_stepped = dimension.uniform is not None and dimension.step is not None
    return dimension.nearest_step(value) if is_stepped else value


def _check_value(name: str, value: Any, dimension: Dimension, *, is_drawn: bool) -> None:
    """Refuse a value of another kind than the dimension's, or that the sampler could not have drawn."""
    if is_number(value) and not math.isfinite(value):
        raise ConfigError(f"`{name}` must be a finite number, but got {show(value)}. Give another value.")
    if dimension.listed is None:
        _check_in_range(name, value, dimension)
    else:
        _check_like_listed(name, value, dimension.listed, is_drawn=is_drawn)
    if name in BUDGET_KINDS:
        _check_budget(name, value)


def _check_in_range(name: str, value: Any, dimension: Dimension) -> None:
    low, high = getattr(dimension, dimension.kind)
    fits = is_number(value) and low <= value <= high and (dimension.kind != "int" or isinstance(value, int))
    if not fits:
        whole = "whole number" if dimension.kind == "int" else "number"
        raise ConfigError(
            f"`{name}` must be a {whole} from {low:g} to {high:g}, as `search_space` says, but got {show(value)}."
        )
    if not dimension.is_on_step(value):
        raise ConfigError(
            f"`{name}` must be {low:g} plus whole steps of {dimension.step:g}, as `search_space` says, but got "
            f"{show(value)}. The nearest such value is {dimension.nearest_step(value):g}."
        )


def _check_like_listed(name: str, value: Any, listed: Sequence[Any], *, is_drawn: bool) -> None:
    if all(map(is_number, listed)) and not is_number(value):
        raise ConfigError(
            f"`{name}` must be a number, as all its values in `search_space` are, but got {show(value)}."
        )
    if is_drawn and value not in listed:
        raise ConfigError(
            f"`{name}` must be one of {join(map(str, listed))}, from which the sampler draws, but got {show(value)}."
        )


def _check_budget(name: str, value: Any) -> None:
    """Refuse what a sweep file would refuse as a budget, such as a negative one."""
    try:
        Budget.model_validate({name: value})
    except ValidationError as error:
        raise ConfigError(sentence(error.errors()[0], name=name, value=value)) from error


def _hint(name: str, known: Iterable[str]) -> str:
    near = did_you_mean(name, known)
    return f" Did you mean `{near}`?" if near else ""
