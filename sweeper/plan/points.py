"""One point of the search space, from its params to what a trial needs to know."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sweeper.batch import BatchPlan, plan_batch
from sweeper.config.dump import config_to_dict
from sweeper.config.messages import sentence, unknown_key
from sweeper.config.models import BUDGET_KINDS, Budget, SweepConfig, TrainSettings
from sweeper.errors import ConfigError
from sweeper.optimizer import beta2_of_half_life
from sweeper.plan.budget import CommonBudget, common_budget, point_samples
from sweeper.plan.data import DataFacts, Point
from sweeper.plan.marks import RungMarks, point_rungs, rung_marks

# Parts of the `trial` section that change nothing of what a trial trains and measures.
HALF_LIFE = "adam_beta2_half_life_tokens"
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
        self._hashed_section = {key: value for key, value in section.items() if key not in _NOT_IN_ID}

    def resolve(self, params: Mapping[str, Any]) -> Point:
        """Resolve one point; see `plan_point`."""
        _refuse_missing(self.config, params)
        settings = resolve_settings(self.config, params)
        batch = _batch_of(settings, self.config.resources.n_workers)
        size = None if batch is None else batch.effective_batch_size
        budget = point_samples(self.common, params, size, self.facts)
        total_steps = None if size is None or budget is None else budget // size
        if self.common.kind == "steps" and size is None:
            total_steps = budget
        return Point(
            params=dict(params),
            settings=with_beta2(settings, size, self.facts),
            point_id=self._point_id(params, settings, budget),
            batch=batch,
            budget_samples=budget,
            total_steps=total_steps,
            rungs=point_rungs(self.rungs, batch=size, total_steps=total_steps),
        )

    def _point_id(self, params: Mapping[str, Any], settings: Mapping[str, Any], budget: int | None) -> str:
        """Hash the resolved trial config; equal for equal training, whatever the study is called.

        Paths enter as the config holds them, absolute. A budget in epochs or tokens enters as given, so that
        the id is the same before and after the data was counted; so does a half-life, and beta2 does not.
        """
        kind = self.common.kind
        is_counted = kind in ("epochs", "tokens")
        content = {
            "settings": {key: settings[key] for key in settings if key not in _unset_of(settings)},
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
    resolved = settings.model_dump()
    has_warmup = settings.warmup_steps or settings.warmup_samples or settings.warmup_frac
    if settings.lr_scheduler_type == "constant" and has_warmup:
        # transformers' `constant` ignores a warm-up without a word (5.23).
        resolved["lr_scheduler_type"] = "constant_with_warmup"
    return resolved


def with_beta2(
    settings: Mapping[str, Any], effective_batch_size: int | None, facts: DataFacts | None
) -> dict[str, Any]:
    """Return settings whose `adam_beta2` is what the optimiser gets; None until the data was counted."""
    half_life = settings.get(HALF_LIFE)
    tokens = tokens_per_step(effective_batch_size, facts)
    if half_life is None or "adam_beta2" not in settings:
        return dict(settings)
    beta2 = None if tokens is None else beta2_of_half_life(half_life_tokens=half_life, tokens_per_step=tokens)
    return {**settings, "adam_beta2": beta2}


def tokens_per_step(effective_batch_size: int | None, facts: DataFacts | None) -> float | None:
    """Return the target tokens of an optimiser step, as a mean over the data; None where they are not known."""
    if facts is None or not facts.target_tokens or effective_batch_size is None:
        return None
    return effective_batch_size * facts.target_tokens / facts.rows


def _unset_of(settings: Mapping[str, Any]) -> set[str]:
    """Return the settings that leave a point's id alone: those that came later and are not set, and what follows."""
    unset = {name for name in (HALF_LIFE, "warmup_samples") if settings.get(name) is None}
    return unset if HALF_LIFE in unset else unset | {"adam_beta2"}


def trial_section(config: SweepConfig) -> dict[str, Any]:
    """Return the `trial` section as plain data."""
    return config_to_dict(config.trial)


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


def _batch_of(settings: Mapping[str, Any], n_workers: int) -> BatchPlan | None:
    size = settings.get("effective_batch_size")
    if size is None:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ConfigError(
            f"`effective_batch_size` must be a whole number of at least 1, but got {size}. Correct it."
        )
    micro = settings.get("micro_batch_size", size)
    return plan_batch(effective_batch_size=size, micro_batch_size=micro, data_parallel_size=n_workers)
