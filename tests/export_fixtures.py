"""Finished studies of the built-in fine-tuning that nobody trained, and the exports made of them."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_files import write_jsonl
from sweeps import make_study, merged

from sweeper.config import config_from_dict
from sweeper.records import TrialState
from sweeper.reporting.export.chosen import choose_trial
from sweeper.reporting.export.write import Export, export_trial, find_format
from sweeper.study.study import Study

CHATS = [
    {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}"}]}
    for n in range(10)
]
FULL: dict[str, Any] = {
    "study": "made",
    "metric": "score",
    "direction": "maximize",
    "trial": {
        "model": "model",
        "train_data": "train.jsonl",
        "eval_data": {"dev": "train.jsonl"},
        "metrics": {"score": {"dev/exact_match": 1.0}},
        "budget": {"samples": 48},
        "settings": {
            "micro_batch_size": 4,
            "max_length": 64,
            "precision": "fp32",
            "warmup_frac": 0.1,
            "lr_scheduler_type": "cosine_with_restarts",
            "lr_scheduler_kwargs": {"num_cycles": 2},
            "weight_decay": 0.01,
        },
    },
    "search_space": {
        "effective_batch_size": {"grid": [2, 8, 16]},
        "learning_rate": {"grid": [1e-5]},
    },
    "rungs": {"samples": [16]},
    "pruner": "nop",
}
LORA = {"method": "lora", "lora_rank": 4, "lora_alpha": 8, "lora_target_modules": ["q_proj", "v_proj"]}


def finished_study(root: Path, *, rows: list[Any] | None = None, **changes: Any) -> Study:
    """Return a study of three trials: 0 is complete, 1 is complete and best, 2 was pruned."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "model").mkdir(exist_ok=True)
    (root / "model" / "config.json").write_text("{}")
    write_jsonl(root / "train.jsonl", CHATS if rows is None else rows)
    content = merged(copy.deepcopy(FULL), changes)
    for key in ("model", "train_data"):
        if isinstance(content["trial"].get(key), str):
            content["trial"][key] = str(root / content["trial"][key])
    if "eval_data" in content["trial"]:
        content["trial"]["eval_data"] = {"dev": str(root / "train.jsonl")}
    study = make_study(root / "study", config_from_dict(content))
    for number, value in ((0, 0.25), (1, 0.75)):
        study.claim(number)
        study.finish(number, TrialState.COMPLETE, value=value, metrics={"score": value, "dev/loss": 1.5})
    study.claim(2)
    study.finish(2, TrialState.PRUNED, reason="loss 9.1 ranks 3 of 3 at rung 0")
    return study


def exported(study: Study, name: str, *, number: int | None = None, **places: Any) -> Export:
    return export_trial(choose_trial(study.view(), study.facts(), number), find_format(name), **places)


def key_lists() -> Iterator[dict[str, Any]]:
    yield json.loads((Path(__file__).parent / "data" / "export_keys.json").read_text())


known_keys = pytest.fixture(scope="module")(key_lists)
