"""What a key of a sweep file may be, where a type alone does not say it; each value checked by itself."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from sweeper.config.names import METRIC_SCHEDULES, OPTIMIZERS, SCHEDULER_TYPES, TRACKERS
from sweeper.config.section import Float

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"  # of data sets, eval sets and phases
OBJECT_PATTERN = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"  # `module:name`, of functions and classes
Fraction = Annotated[Float, Field(ge=0, le=1)]


def _as_bounds(value: object) -> object:
    """Let YAML's list of two stand for a pair."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return tuple(value)
    raise PydanticCustomError("bounds", "must be two numbers, [lower, upper]")


def _one_of(names: tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in names:
            raise PydanticCustomError("unknown_name", "must be a known name", {"names": list(names)})
        return value

    return AfterValidator(check)


def _follows_the_step(value: str) -> str:
    if value in METRIC_SCHEDULES:
        raise PydanticCustomError(
            "follows_metric",
            "it follows a metric, not the step, so trials could not be compared; choose for example "
            "`constant`, `linear` or `cosine`",
        )
    return value


def _is_evaluated_as_it_is(value: str) -> str:
    if value.startswith("schedule_free_"):
        raise PydanticCustomError(
            "schedule_free",
            "its weights between steps are not those that it is to be judged by, and a trial is evaluated between "
            "steps; choose for example `adamw_torch` with a constant schedule",
        )
    return value


def _steps_once_a_step(value: str) -> str:
    if value in ("lomo", "adalomo"):
        raise PydanticCustomError(
            "lomo",
            "it changes the weights in every backward pass, so that no update is that of the whole effective batch; "
            "choose for example `adafactor`",
        )
    return value


ScheduleName = Annotated[str, AfterValidator(_follows_the_step), _one_of(SCHEDULER_TYPES)]
OptimizerName = Annotated[
    str, AfterValidator(_is_evaluated_as_it_is), AfterValidator(_steps_once_a_step), _one_of(OPTIMIZERS)
]
TrackerName = Annotated[str, _one_of(TRACKERS)]
FloatBounds = Annotated[tuple[Float, Float], BeforeValidator(_as_bounds)]
IntBounds = Annotated[tuple[int, int], BeforeValidator(_as_bounds)]
