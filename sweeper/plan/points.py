"""One point of the search space, from its params to what a trial needs to know."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from sweeper.config.dump import config_to_dict
from sweeper.config.messages import sentence, unknown_key
from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import BUDGET_KINDS, Budget, TrainSettings
from sweeper.errors import ConfigError
from sweeper.phases import Course, PlannedPhase
from sweeper.plan.budget import CommonBudget, common_budget, point_samples
from sweeper.plan.data import DataFacts, Point
from sweeper.plan.marks import RungMarks, point_rungs, rung_marks
from sweeper.plan.mix import mix_of
from sweeper.plan.phases import is_phased, plan_phases
from sweeper.plan.settings import batch_of, hashed_settings, named_schedule, with_beta2
from sweeper.records import TrialRecord

# Parts of the `trial` section that change nothing of what a trial trains and measures.
_NOT_IN_ID = ("metrics", "checkpoint", "compare", "settings", "budget", "function_dir")


def plan_point(config: SweepConfig, params: Mapping[str, Any], *, facts: DataFacts | None = None) -> Point:
    """Resolve one point: for samplers that draw, and for points that are added by hand.

    Raises:
        ConfigError: If a value is not allowed, the batch cannot be cut, or the budget is under one step.
    """
    common = common_budget(config, facts)
    return PointResolver(
        config=config, common=common, rungs=rung_marks(config, common, facts), facts=facts
    ).resolve(params)


def plan_longer(
    config: SweepConfig, params: Mapping[str, Any], *, samples: int, facts: DataFacts | None = None
) -> Point:
    """Resolve one point under a budget of its own. It has no rungs: it is not compared with the others.

    Raises:
        ConfigError: As `plan_point`.
    """
    trial = config.trial.model_copy(update={"budget": Budget(samples=samples)})
    longer = plan_point(config.model_copy(update={"trial": trial}), params, facts=facts)
    return dataclasses.replace(longer, rungs=())


@dataclasses.dataclass(kw_only=True)
class PointResolver:
    """Resolves the points of one sweep, whose budget and rungs are known."""

    config: SweepConfig
    common: CommonBudget
    rungs: RungMarks
    facts: DataFacts | None

    def __post_init__(self) -> None:
        section = trial_section(self.config)
        phases = self.config.trial.phases or ()
        self._mixes_in_phases = any(len(phase.data) > 1 for phase in phases)
        self._hashed_section = {key: value for key, value in section.items() if key not in _NOT_IN_ID}

    def resolve(self, params: Mapping[str, Any]) -> Point:
        """Resolve one point; see `plan_point`."""
        _refuse_missing(self.config, params)
        settings = resolve_settings(self.config, params)
        batch = batch_of(settings, self.config.resources.n_workers)
        size = None if batch is None else batch.effective_batch_size
        phases: tuple[PlannedPhase, ...] = ()
        if is_phased(self.config, settings):
            budget = point_samples(self.common, params, None, self.facts)
            if budget is not None:
                phases = plan_phases(self.config, settings, samples=budget, facts=self.facts)
                budget = sum(phase.samples for phase in phases)
        else:
            budget = point_samples(self.common, params, size, self.facts)
        course = Course.of(phases, size or 1)
        total_steps = None if size is None or budget is None else course.first_step_at(budget)
        if self.common.kind == "steps" and size is None:
            total_steps = budget
        return Point(
            params=dict(params),
            settings=with_beta2(settings, size, mix_of(self.facts, settings.get("data_weights"))),
            point_id=self._point_id(params, settings, budget),
            batch=batch,
            budget_samples=budget,
            total_steps=total_steps,
            rungs=point_rungs(self.rungs, course, has_batch=size is not None, total_steps=total_steps),
            phases=phases,
        )

    def _point_id(self, params: Mapping[str, Any], settings: Mapping[str, Any], budget: int | None) -> str:
        """Hash the resolved trial config; equal for equal training, whatever the study is called.

        Paths enter as the config holds them, absolute. A budget in epochs or tokens enters as given, so that
        the id is the same before and after the data was counted; so does a half-life, and beta2 does not.
        """
        kind = self.common.kind
        is_counted = kind in ("epochs", "tokens")
        content = {
            "settings": hashed_settings(
                settings,
                is_function=self.config.trial.function is not None,
                mixes=not is_phased(self.config, settings) or self._mixes_in_phases,
            ),
            "budget": {kind: params.get(kind, self.common.value)} if is_counted else {"samples": budget},
            "trial": self._hashed_section,
            "threads": threads_of(self.config),
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def resolve_settings(config: SweepConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base settings with params applied, checked, every default written out."""
    drawn = {name: value for name, value in params.items() if name not in BUDGET_KINDS}
    if config.trial.function is not None:
        return {**config.trial.settings, **drawn}
    try:
        settings = TrainSettings.model_validate({"seed": config.seed, **config.trial.settings, **drawn})
    except ValidationError as error:
        raise ConfigError(
            " ".join(_sentence(config, dict(detail), drawn) for detail in error.errors())
        ) from error
    return named_schedule(settings.model_dump())


def trial_section(config: SweepConfig) -> dict[str, Any]:
    """Return the `trial` section as plain data."""
    return config_to_dict(config.trial)


def n_undrawn(config: SweepConfig, records: Iterable[TrialRecord], *, exhausted_at: int | None = None) -> int:
    """Return how many points a sampler has still to draw; those that were added by hand do not count.

    Args:
        config: Of the sweep.
        records: Its trials.
        exhausted_at: The `sampler.n_trials` at which the sampler knew no new point any more; None: it may.
    """
    wanted = config.sampler.n_trials
    if config.sampler.name == "grid" or wanted is None or wanted == exhausted_at:
        return 0
    return max(0, wanted - sum(record.origin is None for record in records))


def threads_of(config: SweepConfig) -> int:
    """Return how many threads each worker of a trial computes with; sums of floats differ with it."""
    return config.resources.threads_per_worker


def _refuse_missing(config: SweepConfig, params: Mapping[str, Any]) -> None:
    missing = [name for name in config.search_space if name not in params]
    if missing:
        named = ", ".join(f"`{name}`" for name in missing)
        raise ConfigError(
            f"A point needs a value for every dimension, but {named} has none. Give `name=value`."
        )


def _sentence(config: SweepConfig, detail: Mapping[str, Any], drawn: Mapping[str, Any]) -> str:
    name = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        return unknown_key(name, TrainSettings.model_fields, section="trial.settings")[0]
    return sentence(detail, name=name, value=drawn.get(name, config.trial.settings.get(name)))
