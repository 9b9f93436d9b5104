"""Greedy answers of a model."""

from collections.abc import Sequence
from typing import Any


def greedy_answers(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, stops: Sequence[int],
    is_sharded: bool = False,
) -> list[str]:  # fmt: skip
    """Answer a batch of tokenised prompts; return the words before the first end token.

    With `is_sharded` all ranks that share the model out answer at once, each until all are done.
    """
    batch = tokenizer.pad(
        {"input_ids": [list(prompt) for prompt in prompts]},
        padding=True,
        padding_side="left",
        return_tensors="pt",
        return_attention_mask=True,
    ).to(model.device)
    generated = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        do_sample=False,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=list(stops),
        synced_gpus=is_sharded,
    )[:, batch["input_ids"].shape[1] :].tolist()
    return [_words(tokenizer, ids, stops) for ids in generated]


def stop_ids(model: Any, tokenizer: Any, end_of_turn: str | None) -> list[int]:
    """Return the tokens that end an answer: the tokenizer's, the model's own, and the one that ends a turn."""
    stops = {tokenizer.eos_token_id}
    configured = model.generation_config.eos_token_id
    stops.update(configured if isinstance(configured, list) else [configured])
    if end_of_turn is not None:
        stops.add(tokenizer.convert_tokens_to_ids(end_of_turn))
    return sorted(stop for stop in stops if stop is not None)


def _words(tokenizer: Any, ids: list[int], stops: Sequence[int]) -> str:
    length = next((i for i, token in enumerate(ids) if token in stops), len(ids))
    return str(tokenizer.decode(ids[:length], skip_special_tokens=True))
