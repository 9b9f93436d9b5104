"""A model's answers to multi-turn questions."""

from collections.abc import Sequence

import torch

from sweeper.benchmarks.judge.questions import Question
from sweeper.benchmarks.loaded import LoadedModel
from sweeper.errors import ConfigError
from sweeper.training.generation import greedy_answers, stop_ids
from sweeper.training.templates import ChatRenderer


def answer_questions(
    loaded: LoadedModel, questions: Sequence[Question], *, max_new_tokens: int, batch_size: int
) -> list[list[str]]:
    """Answer every turn greedily, the earlier turns and answers in sight; return the answers by question and turn.

    Raises:
        ConfigError: If the tokenizer has no chat template.
    """
    renderer = ChatRenderer(loaded.tokenizer, loss_on="answers")
    if renderer.template is None:
        raise ConfigError(
            "The judged questions are chats, but the model's tokenizer has no chat template. Give one in "
            "`trial.chat_template`."
        )
    stops = stop_ids(loaded.model, loaded.tokenizer, renderer.end_of_turn)
    answers: list[list[str]] = [[] for _ in questions]
    for turn in range(max(len(question.turns) for question in questions)):
        asked = [index for index, question in enumerate(questions) if turn < len(question.turns)]
        prompts = {
            index: _prompt(loaded, renderer.template, questions[index], answers[index]) for index in asked
        }
        asked.sort(key=lambda index: len(prompts[index]))  # a batch of like lengths has little padding
        for start in range(0, len(asked), batch_size):
            batch = asked[start : start + batch_size]
            device = loaded.model.device.type
            with (
                torch.no_grad(),
                torch.autocast(
                    device, dtype=loaded.autocast_dtype, enabled=loaded.autocast_dtype is not None
                ),
            ):
                texts = greedy_answers(
                    loaded.model, loaded.tokenizer, [prompts[index] for index in batch],
                    max_new_tokens=max_new_tokens, stops=stops,
                )  # fmt: skip
            for index, text in zip(batch, texts, strict=True):
                answers[index].append(text.strip())
    return answers


def _prompt(loaded: LoadedModel, template: str, question: Question, answers: Sequence[str]) -> list[int]:
    messages = []
    for turn, asked in enumerate(question.turns[: len(answers) + 1]):
        messages.append({"role": "user", "content": asked})
        if turn < len(answers):
            messages.append({"role": "assistant", "content": answers[turn]})
    text = loaded.tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=True, tokenize=False
    )
    ids: list[int] = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
