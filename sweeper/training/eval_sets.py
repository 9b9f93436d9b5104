"""What an eval set holds, and the metrics that are made of what is measured on several."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sweeper.config.trial_models import Evaluation
from sweeper.errors import ConfigError
from sweeper.training.encode import IGNORED
from sweeper.training.tokens import TokenTable


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalSet:
    """One eval set, sorted by length so that a batch has little padding; no measure depends on the order."""

    name: str
    rows: list[dict[str, Any]]
    row_places: list[int]  # of each row in the source, from 0
    n_targets: list[int]  # of each row
    prompts: list[list[int]]  # of the rows that have an answer, shortest first
    answers: list[str]
    answer_places: list[int]


def eval_set(name: str, table: TokenTable, how: Evaluation) -> EvalSet:
    """Return an eval set of tokenised rows."""
    count = min(len(table), how.max_rows or len(table))
    rows = sorted(((i, table[i]) for i in range(count)), key=lambda pair: len(pair[1]["input_ids"]))
    pairs = []
    if how.generate:
        columns = table.dataset.select_columns(["prompt_ids", "answer"])[:count]
        pairs = [
            (place, list(prompt), answer)
            for place, (prompt, answer) in enumerate(
                zip(columns["prompt_ids"], columns["answer"], strict=True)
            )
            if answer is not None
        ]
        pairs.sort(key=lambda pair: len(pair[1]))
    return EvalSet(
        name=name,
        rows=[row for _, row in rows],
        row_places=[place for place, _ in rows],
        n_targets=[int((row["labels"][1:] != IGNORED).sum()) for _, row in rows],
        prompts=[prompt for _, prompt, _ in pairs],
        answers=[answer for _, _, answer in pairs],
        answer_places=[place for place, _, _ in pairs],
    )


def weighted_metrics(
    metrics: Mapping[str, Mapping[str, float]], measures: Mapping[str, float]
) -> dict[str, float]:
    """Return each named metric: the mean of its measures, weighted by weights that need not sum to 1.

    Raises:
        ConfigError: If a measure is not there.
    """
    results = {}
    for name, weights in metrics.items():
        missing = [measure for measure in weights if measure not in measures]
        if missing:
            raise ConfigError(
                f"The metric `{name}` needs `{missing[0]}`, which is not measured. Measured are "
                f"{', '.join(measures)}."
            )
        total = sum(weights.values())
        results[name] = sum(weight * measures[measure] for measure, weight in weights.items()) / total
    return results
