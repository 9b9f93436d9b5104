"""A trained model's directory, so that whoever loads it gets the answers that were scored."""

import copy
from pathlib import Path
from typing import Any

from sweeper.training.generation import stop_ids
from sweeper.training.templates import end_of_turn

GENERATION = "generation_config.json"


def end_answers(model: Any, tokenizer: Any) -> None:
    """Let the model's own generation end where its answers are scored to end.

    A chat template may end a turn with another token than the one that ends a text for the model. What was learned
    stops there, while a model that knows only the other token talks on.
    """
    ends = stop_ids(model, tokenizer, end_of_turn(tokenizer, has_chats=False))
    if not ends or ends == _as_list(model.generation_config.eos_token_id):
        return
    generation = copy.deepcopy(model.generation_config)  # the base model's own may be shared
    generation.eos_token_id = ends if len(ends) > 1 else ends[0]
    model.generation_config = generation


def save_model(model: Any, tokenizer: Any, target: Path, *, weights: dict[str, Any] | None = None) -> None:
    """Save model and tokenizer. Beside adapters, how to generate is kept too, which peft leaves to the base model.

    Args:
        weights: By parameter name, where they are not the model's own.
    """
    model.save_pretrained(target, **({} if weights is None else {"state_dict": weights}))
    if not (target / GENERATION).exists():
        model.generation_config.to_json_file(target / GENERATION)
    tokenizer.save_pretrained(target)


def _as_list(ends: int | list[int] | None) -> list[int]:
    if ends is None:
        return []
    return sorted(ends) if isinstance(ends, list) else [ends]
