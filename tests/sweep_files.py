"""Sweep files and their data for tests, and the plans that they lead to."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sweeper.config import parse_config
from sweeper.config.models import SweepConfig
from sweeper.plan import DataFacts, Plan, plan_sweep

BASE = """\
study: demo
metric: dev/loss
direction: minimize
trial:
  model: org/model
  train_data: train.jsonl
  eval_data: {dev: dev.jsonl}
  budget: {samples: 8192}
  settings: {micro_batch_size: 8}
search_space:
  learning_rate: {grid: [1e-5, 1e-4]}
  effective_batch_size: {grid: [32, 128]}
sampler: grid
rungs: {fractions: [0.1, 0.3]}
pruner: early_dynamics
resources: {gpus_per_trial: 1}
"""

FUNCTION = """\
study: demo
metric: score
direction: maximize
trial:
  function: my_code:train
  budget: {samples: 1000}
  settings: {depth: 3}
search_space:
  rate: {uniform: [0.1, 0.9]}
sampler: {name: tpe, n_trials: 10}
"""


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Write one row a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_data(folder: Path) -> None:
    """Write the data files that the sweep files name."""
    for name in ("train.jsonl", "dev.jsonl"):
        write_jsonl(folder / name, [{"prompt": "a", "completion": "b"}])


def replaced(text: str, *edits: tuple[str, str]) -> str:
    """Return text with each edit made once; an edit that finds nothing is a mistake in the test."""
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the text"
        text = text.replace(old, new)
    return text


def config_of(
    text: str, *overrides: str, folder: Path | None = None, check_files: bool = False
) -> SweepConfig:
    """Return the config of a sweep file's text, by default without looking for its files."""
    return parse_config(
        text, file="sweep.yaml", base_dir=folder or Path.cwd(), overrides=overrides, check_files=check_files
    )


def plan_of(*overrides: str, text: str = BASE, facts: DataFacts | None = None) -> Plan:
    """Return the plan of a sweep file's text."""
    return plan_sweep(config_of(text, *overrides), facts=facts)
