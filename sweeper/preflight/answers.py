"""Whether the answers of eval sets can be generated at all, by their tokens."""

import dataclasses
from typing import Any

from sweeper.config.trial_models import Evaluation, TrialSection
from sweeper.errors import Problem
from sweeper.preflight.model import ModelFacts
from sweeper.preflight.settings import empty_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerFacts:
    """What is asked of an eval set, and what is to be answered. Lengths in tokens."""

    n_answers: int
    n_too_long: int  # of more tokens than are generated
    longest: int  # answer, without the token that ends it
    longest_prompt: int


def answer_facts(table: Any, tokenizer: Any, how: Evaluation, *, end: str | None) -> AnswerFacts | None:
    """Return what is known of the rows of a tokenised eval set that have answers; None where none has.

    Args:
        table: With prompts.
        tokenizer: That it was tokenised with.
        how: How many rows are asked for, and how many tokens are generated.
        end: The special token that ends an assistant's turn, if there is one.
    """
    asked_of = table.dataset.select_columns(
        ["prompt_ids", "answer"]
    )  # the others would take most of the memory
    columns = asked_of[: min(len(table), how.max_rows or len(table))]
    pairs = zip(columns["prompt_ids"], columns["answer"], strict=True)
    asked = [(len(prompt), answer) for prompt, answer in pairs if answer is not None]
    if not asked:
        return None
    stops = {tokenizer.eos_token_id, None if end is None else tokenizer.convert_tokens_to_ids(end)}
    # White space at the end is not compared.
    each = tokenizer([answer.rstrip() for _, answer in asked], add_special_tokens=False)["input_ids"]
    lengths = [next((at for at, token in enumerate(ids) if token in stops), len(ids)) for ids in each]
    return AnswerFacts(
        n_answers=len(asked),
        n_too_long=sum(length > how.max_new_tokens for length in lengths),
        longest=max(lengths),
        longest_prompt=max(length for length, _ in asked),
    )


def long_answer_warnings(name: str, found: AnswerFacts, how: Evaluation) -> list[str]:
    """Return a warning where answers are longer than what is generated."""
    if not found.n_too_long:
        return []
    return [
        f"{found.n_too_long} of the {found.n_answers} answers of the eval set `{name}` have more than "
        f"`trial.evaluation.max_new_tokens` = {how.max_new_tokens} tokens and cannot match, so `{name}/exact_match` "
        f"is at most {found.n_answers - found.n_too_long:,} of {found.n_answers:,}. The longest has {found.longest}: "
        "raise it to that, or set `trial.evaluation.generate` to false if no exact match is needed."
    ]


def answer_positions_problem(
    name: str, found: AnswerFacts, model: ModelFacts, model_config: Any, trial: TrialSection
) -> Problem | None:
    """A model that has learned its positions ends with an index error where it generates past them.

    Others go on, be it with worse words; so do those with code of their own, of which nothing is known.
    """
    new, known = trial.evaluation.max_new_tokens, model.max_positions
    last = found.longest_prompt + new - 1  # the last token is not read again
    if known is None or known >= last or trial.trust_remote_code:
        return None
    if not _looks_up_positions(model_config, known):
        return None
    if found.longest_prompt > known:  # rows are cut at `max_length`, prompts are not
        remedy = f"Shorten the prompts to {known} tokens"
    else:
        remedy = f"Set `max_new_tokens` to at most {known + 1 - found.longest_prompt}, shorten the prompts"
    return Problem(
        f"The longest prompt of the eval set `{name}` has {found.longest_prompt} tokens and "
        f"`trial.evaluation.max_new_tokens` is {new}, but `{trial.model}` knows only {known} positions and cannot go "
        f"past them. {remedy}, or set `trial.evaluation.generate` to false."
    )


def _looks_up_positions(model_config: Any, max_positions: int) -> bool:
    """Whether positions are rows of a table, which has an end; OPT's has two rows more than it has positions."""
    import torch

    model = empty_model(model_config, trust_remote_code=False)
    return any(
        isinstance(module, torch.nn.Embedding)
        and module is not model.get_input_embeddings()
        and max_positions <= module.num_embeddings <= max_positions + 2
        for module in model.modules()
    )
