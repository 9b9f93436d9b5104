"""What may change between two drivers of one study, and what may not."""

import json
from collections.abc import Sequence
from typing import Any

from sweeper.config.benchmark_models import BENCH
from sweeper.config.models import SweepConfig
from sweeper.config.space_models import Dimension
from sweeper.differences import differing
from sweeper.errors import StudyMismatchError
from sweeper.plan import DataFacts
from sweeper.study.study import Study

# These change nothing of what a trial trains and how it is compared.
_FREE: dict[str, bool | dict[str, bool]] = {
    "resources": True, "failures": True, "storage": True, "dir": True, "trackers": True, "benchmarks": True,
    "trial": {"function_dir": True, "checkpoint": True},
}  # fmt: skip
_PATHS = (
    "trial.model", "trial.chat_template", "trial.train_data", "trial.data_sets", "trial.eval_data",
    "search_space.model",
)  # fmt: skip


def check_same(study: Study, config: SweepConfig) -> None:
    """Refuse a config that would make the study's trials incomparable, with every difference shown.

    Raises:
        StudyMismatchError: If anything but resources, failures, trackers, benchmarks and the storage's place differs.
    """
    told = differences(study.config, config)
    if told:
        raise StudyMismatchError(
            f"Cannot go on with study `{study.name}`: {'; '.join(told)}. "
            "Restore the old values or choose a new study name. `sweeper resume` takes more points, more trials and "
            f"another pruner as `key=value`.{_of_paths(told)}"
        )


def check_same_data(study: Study, facts: DataFacts | None) -> None:
    """Refuse data that is not what a study began with.

    Args:
        study: As it stands.
        facts: What its data holds now.

    Raises:
        StudyMismatchError: With every source that has other content.
    """
    began = study.facts()
    if began is None or facts is None:
        return
    told = [
        f"`trial.{place}` has other content than when it began"
        for place, identity in began.sources.items()
        if facts.sources.get(place, identity) != identity
    ]
    if told:
        raise StudyMismatchError(
            f"Cannot go on with study `{study.name}`, whose trials would no longer compare: {'; '.join(told)}. Restore "
            "the data or choose a new study name."
        )


def check_extension(study: Study, config: SweepConfig) -> None:
    """Refuse changes that a resume cannot make: it takes more points, more trials and another pruner.

    Raises:
        StudyMismatchError: With every difference that may not be.
    """
    told = differences(study.config, _as_before(study.config, config))
    if not told:
        return
    remedies = ["Restore the old values or choose a new study name."]
    if any(text.startswith("`trial.budget") for text in told):
        remedies.append("`--continue N` trains a finished trial on to a larger budget.")
    raise StudyMismatchError(
        f"Cannot extend study `{study.name}`, whose trials would no longer compare: {'; '.join(told)}. "
        f"{' '.join(remedies)}{_of_paths(told)}"
    )


def _of_paths(told: Sequence[str]) -> str:
    """Return what is to be said where a path is among the differences."""
    if not any(text.startswith(tuple(f"`{place}" for place in _PATHS)) for text in told):
        return ""
    return (
        " Model, chat template and data may lie elsewhere than they did where their content is what the study noted of "
        "them; what is listed here has other content, or none was noted. For one that only moved, a symbolic link at "
        "its old place will do."
    )


def differences(old: SweepConfig, new: SweepConfig) -> list[str]:
    """Return every difference between two configs that is not free to be made."""
    free = {**_FREE, "benchmarks": not old.metric.startswith(f"{BENCH}/")}
    before = json.loads(old.model_dump_json(exclude=free))
    after = json.loads(new.model_dump_json(exclude=free))
    told = [
        f"`{key}` was {json.dumps(was)} and is now {json.dumps(now)}"
        for key, (was, now) in differing(before, after).items()
    ]
    # No part of a point's id, but the rows that stand at a trial's positions follow from it.
    names, now = (list(config.trial.data_sets or ()) for config in (old, new))
    if names != now and sorted(names) == sorted(now):
        told.append(f"the order of `trial.data_sets` was {json.dumps(names)} and is now {json.dumps(now)}")
    return told


def _as_before(old: SweepConfig, new: SweepConfig) -> SweepConfig:
    """Return the new config with every extension undone."""
    changes: dict[str, Any] = {"pruner": old.pruner, "divergence": old.divergence}
    n_old, n_new = old.sampler.n_trials, new.sampler.n_trials
    if n_old is not None and n_new is not None and n_new >= n_old:
        changes["sampler"] = new.sampler.model_copy(update={"n_trials": n_old})
    if list(old.search_space) == list(new.search_space) and old.sampler.name == "grid":
        changes["search_space"] = {
            name: old.search_space[name] if _has_grown(old.search_space[name], dimension) else dimension
            for name, dimension in new.search_space.items()
        }
    return new.model_copy(update=changes)


def _has_grown(old: Dimension, new: Dimension) -> bool:
    """Whether a list of values has all that it had."""
    return (
        old.kind == new.kind and old.listed is not None and all(v in (new.listed or []) for v in old.listed)
    )
