"""Greedy answers of a model."""

from collections.abc import Sequence
from typing import Any


def greedy_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stops: Sequence[int],
    in_step: bool = False,
) -> list[str]:
    """Answer a batch of tokenised prompts; return the words before the first end token.

    Args:
        in_step: Whether other ranks answer prompts of their own with a model that all of them share out.
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
        # Models bring penalties for their own use, which would count copied words as wrong.
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_length=0,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=list(stops),
        synced_gpus=in_step,
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


def words_of(tokenizer: Any, text: str, stops: Sequence[int]) -> str:
    """Return what a model says that gives a text, as `greedy_answers` would return it."""
    return _words(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"], stops)


def _words(tokenizer: Any, ids: list[int], stops: Sequence[int]) -> str:
    length = next((i for i, token in enumerate(ids) if token in stops), len(ids))
    return str(tokenizer.decode(ids[:length], skip_special_tokens=True))
