"""What may change between two drivers of one study, and what may not."""

import json
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.errors import StudyMismatchError
from sweeper.study.study import Study


def check_same(study: Study, config: SweepConfig) -> None:
    """Refuse a config that would make the study's trials incomparable, with every difference shown.

    Raises:
        StudyMismatchError: If anything but resources, failures, trackers and the storage's place differs.
    """
    free: dict[str, bool | dict[str, bool]] = {
        "resources": True, "failures": True, "storage": True, "dir": True, "trackers": True,
        "trial": {"function_dir": True, "checkpoint": True},
    }  # fmt: skip
    old = json.loads(study.config.model_dump_json(exclude=free))
    new = json.loads(config.model_dump_json(exclude=free))
    differences = [f"`{key}` was {was} and is now {now}" for key, was, now in _differences(old, new)]
    if differences:
        raise StudyMismatchError(
            f"Cannot go on with study `{study.name}`: {'; '.join(differences)}. "
            "Restore the old values or choose a new study name."
        )


def _differences(old: Any, new: Any, prefix: str = "") -> list[tuple[str, str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in [*old, *(key for key in new if key not in old)]:
            path = f"{prefix}.{key}" if prefix else key
            found += _differences(old.get(key), new.get(key), path)
        return found
    return [] if old == new else [(prefix, json.dumps(old), json.dumps(new))]
