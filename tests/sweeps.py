"""Small sweeps over made-up trial functions, built the way `launch` builds them."""

import copy
from pathlib import Path
from typing import Any

from sweeper.config import config_from_dict
from sweeper.events import Event
from sweeper.files import write_text
from sweeper.orchestrator import Orchestrator
from sweeper.plan import plan_sweep
from sweeper.pruners.judge import divergence_rules, make_judge
from sweeper.study import layout
from sweeper.study.study import Study

RATES = [1e-5, 1e-4, 1e-3, 1e-2]

BASE: dict[str, Any] = {
    "study": "made-up",
    "metric": "score",
    "direction": "maximize",
    "trial": {
        "function": "trial_functions:steady",
        "budget": {"samples": 100},
        "settings": {"effective_batch_size": 10},
    },
    "search_space": {"learning_rate": {"grid": RATES}},
    "rungs": {"samples": [20, 50]},
    "pruner": "nop",
}

# Of a function that the test brings: three rates, two steps.
BROUGHT: dict[str, Any] = {
    "study": "made-up",
    "metric": "score",
    "direction": "maximize",
    "trial": {"function": "nobody:asks", "budget": {"samples": 20}, "settings": {"effective_batch_size": 10}},
    "search_space": {"learning_rate": {"grid": [1e-4, 1e-3, 1e-2]}},
    "rungs": {"samples": [10]},
    "pruner": "nop",
    "resources": {"slots": 1, "gpus_per_trial": 0},
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return base with changes laid over it, mapping by mapping."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        both = (
            isinstance(value, dict)
            and isinstance(result.get(key), dict)
            and key not in ("search_space", "rungs")
        )
        result[key] = merged(result[key], value) if both else value
    return result


def make_config(**changes: Any) -> Any:
    document = merged(BASE, changes)
    for name in document["search_space"]:
        document["trial"]["settings"].pop(name, None)  # what is swept is not fixed
    return config_from_dict(document)


class Recorder:
    """A listener that keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)


def make_study(directory: Path, config: Any) -> Study:
    directory.mkdir(parents=True, exist_ok=True)
    study = Study.create(config, directory=directory)
    study.add_points(plan_sweep(config).entered_points)
    write_text(directory / layout.MARKER, f'{{"study": "{config.study}", "storage": null}}')
    return study


def make_orchestrator(study: Study, *listeners: Any, clock: Any = None) -> Orchestrator:
    extra = {"clock": clock} if clock is not None else {}
    return Orchestrator(
        study=study, plan=plan_sweep(study.config), judge=make_judge(study.config),
        rules=divergence_rules(study.config), listeners=listeners, **extra,
    )  # fmt: skip


def reopened(study: Study) -> Study:
    """Open the study again from its storage, as another process would."""
    return Study.open(str(study.directory))
