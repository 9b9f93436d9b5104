"""What the preflight finds of model and data. JSON-able: it comes from a process of its own."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sweeper.preflight.model import ModelFacts


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetReport:
    """What one set of rows holds. Lengths in tokens."""

    rows: int
    tokens: int  # after truncation
    target_tokens: int  # that the loss is taken on
    longest: int  # before truncation
    n_truncated: int
    n_chats: int
    n_joined: int  # rows whose prompt is other tokens alone than in front of its answer
    n_in_train: int = 0  # rows of an eval set that are also trained on


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataReport:
    """What the preflight found."""

    rows: int = 0  # of all train sources
    target_tokens: int = 0
    sets: dict[str, list[int]] = dataclasses.field(
        default_factory=dict
    )  # rows and target tokens of `data_sets`
    max_length: int = 0  # that rows were counted with: the first, where it is swept
    train: SetReport | None = None  # None where the trial is the user's own function
    evaluation: dict[str, SetReport] = dataclasses.field(default_factory=dict)
    model: ModelFacts | None = None
    warnings: tuple[str, ...] = ()
    sources: dict[str, str] = dataclasses.field(default_factory=dict)  # what each holds: `DataFacts.sources`

    @classmethod
    def from_json(cls, answer: Mapping[str, Any]) -> "DataReport":
        """Read what `dataclasses.asdict` made of one."""
        return cls(
            **{
                **answer,
                "train": SetReport(**answer["train"]) if answer["train"] else None,
                "evaluation": {name: SetReport(**one) for name, one in answer["evaluation"].items()},
                "model": ModelFacts(**answer["model"]) if answer["model"] else None,
                "warnings": tuple(answer["warnings"]),
            }
        )
