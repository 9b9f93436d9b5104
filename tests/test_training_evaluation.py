"""What is measured on eval sets, and that measuring changes nothing."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import training_fixtures
from training_fixtures import (
    RecordingChannel,
    Tiny,
    all_rows,
    chat_rows,
    make_context,
    make_model_dir,
    write_jsonl,
)

from sweeper.errors import ConfigError

pytestmark = pytest.mark.train
tiny = training_fixtures.tiny


def test_evaluation_does_not_disturb_training(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    model = make_model_dir(tmp_path / "model", dropout=0.3)
    plain = make_context(model, tiny.train, tmp_path / "plain", total_steps=6)
    measured = make_context(
        model,
        tiny.train,
        tmp_path / "measured",
        total_steps=6,
        eval_data={"dev": tiny.dev},
        evaluation_marks=(8, 24, 40),
    )
    finetune.run(plain)
    finetune.run(measured)
    assert all_rows(measured) == all_rows(plain)


def test_metrics_are_reported_with_the_step_they_were_measured_after(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    channel = RecordingChannel()
    context = make_context(
        tiny.model, tiny.train, tmp_path, eval_data={"dev": tiny.dev}, evaluation_marks=(10,), channel=channel
    )
    finetune.run(context)
    report = next(report for report in channel.reports if report.metrics)
    assert report.rows[-1].step == 2
    assert set(report.metrics) == {"dev/loss", "dev/token_accuracy", "dev/exact_match"}
    assert report.evaluation_s > 0


def test_measures_are_those_of_a_plain_reading(tmp_path: Path, tiny: Tiny) -> None:
    import torch
    import transformers

    from sweeper.training import finetune

    context = make_context(
        tiny.model,
        tiny.train,
        tmp_path,
        eval_data={"dev": tiny.dev},
        settings={"learning_rate": 1e-12},
        total_steps=1,
    )
    metrics = finetune.run(context)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny.model).eval()
    total, right, count = 0.0, 0, 0
    for line in tiny.dev.read_text().splitlines():
        user, assistant = json.loads(line)["messages"]
        asked = tokenizer(f"<|user|>{user['content']}<|end|><|assistant|>", return_tensors="pt")["input_ids"]
        answer = tokenizer(f"{assistant['content']}<|end|>", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            log_probs = (
                model(input_ids=torch.cat([asked, answer], 1))
                .logits[0, asked.shape[1] - 1 : -1]
                .log_softmax(-1)
            )
        total -= log_probs.gather(1, answer[0][:, None]).sum().item()
        right += int((log_probs.argmax(-1) == answer[0]).sum())
        count += answer.shape[1]
    assert metrics["dev/loss"] == pytest.approx(total / count, abs=1e-5)
    assert metrics["dev/token_accuracy"] == pytest.approx(right / count)


def test_a_learned_answer_is_an_exact_match(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    rows = [
        {"messages": [{"role": "user", "content": "red"}, {"role": "assistant", "content": "one two"}]},
        {"messages": [{"role": "user", "content": "blue sky is"}, {"role": "assistant", "content": "sun"}]},
        {"prompt": "three", "completion": " moon"},
        {"text": "no answer here"},
    ]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    context = make_context(
        tiny.model, data, tmp_path / "t", eval_data={"same": data}, total_steps=60, micro_batch_size=4,
        gradient_accumulation_steps=1, trial={"evaluation": {"max_new_tokens": 12}},
    )  # fmt: skip
    metrics = finetune.run(context)
    assert metrics["same/exact_match"] == 1.0
    assert metrics["same/token_accuracy"] > 0.9


def test_an_answer_behind_a_template_s_block_of_thoughts_is_an_exact_match(
    tmp_path: Path, tiny: Tiny
) -> None:
    from sweeper.training import finetune

    template = tmp_path / "thinks.jinja"
    template.write_text(
        "{% for message in messages %}<|{{ message.role }}|>"
        "{% if message.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ message.content }}<|end|>"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    rows = [{"messages": [{"role": "user", "content": "red"}, {"role": "assistant", "content": "one two"}]}]
    data = write_jsonl(tmp_path / "rows.jsonl", rows * 4)
    context = make_context(
        tiny.model, data, tmp_path / "t", eval_data={"same": data}, total_steps=60, micro_batch_size=4,
        gradient_accumulation_steps=1,
        trial={"evaluation": {"max_new_tokens": 40}, "chat_template": str(template)},
    )  # fmt: skip

    assert finetune.run(context)["same/exact_match"] == 1.0


def test_a_model_s_own_penalties_do_not_change_its_answers(tiny: Tiny) -> None:
    import transformers

    from sweeper.training.generation import greedy_answers

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny.model).eval()
    prompts = [tokenizer(text)["input_ids"] for text in ("red green red green", "one one one")]
    expected = greedy_answers(model, tokenizer, prompts, max_new_tokens=12, stops=[])
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.no_repeat_ngram_size = 1
    model.generation_config.suppress_tokens = list(range(40, 300))

    assert greedy_answers(model, tokenizer, prompts, max_new_tokens=12, stops=[]) == expected


def test_the_batch_size_of_evaluation_does_not_change_a_measure(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    results = []
    for size in (1, 5, 32):
        context = make_context(
            tiny.model,
            tiny.train,
            tmp_path / str(size),
            eval_data={"dev": tiny.dev},
            trial={"evaluation": {"batch_size": size}},
        )
        results.append(finetune.run(context))
    assert results[1] == pytest.approx(results[0], abs=1e-5)
    assert results[2] == pytest.approx(results[0], abs=1e-5)


@contextlib.contextmanager
def room_for(n_rows: int) -> Iterator[list[int]]:
    """Let a model that is measured run out of memory with more rows than these; yield how many it was given."""
    import torch

    seen: list[int] = []

    def refuse(module: Any, args: Any) -> None:
        if isinstance(module, torch.nn.Embedding) and not module.training:
            seen.append(args[0].shape[0])
            if seen[-1] > n_rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    hook = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        yield seen
    finally:
        hook.remove()


def test_an_evaluation_that_runs_out_of_memory_goes_on_with_fewer_rows_at_a_time(
    tmp_path: Path, tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    from sweeper.training import finetune

    options: dict[str, Any] = {"eval_data": {"dev": tiny.dev}, "evaluation_marks": (8,), "total_steps": 2}
    calm = finetune.run(make_context(tiny.model, tiny.train, tmp_path / "calm", **options))
    context = make_context(tiny.model, tiny.train, tmp_path / "full", **options)
    with room_for(4) as seen:
        metrics = finetune.run(context)

    assert metrics == pytest.approx(calm, abs=1e-5)
    assert context.micro_batch_size == 4  # the training goes on as it was
    assert [record.message for record in caplog.records if "ran out of memory" in record.message] == [
        f"An evaluation ran out of memory. Going on with {size} rows at a time." for size in (16, 8, 4)
    ]
    assert max(seen[seen.index(4) :]) == 4  # what was found is kept for the next evaluation


def test_an_evaluation_without_room_for_one_row_ends_the_attempt(tmp_path: Path, tiny: Tiny) -> None:
    import torch

    from sweeper.training import finetune

    context = make_context(tiny.model, tiny.train, tmp_path, eval_data={"dev": tiny.dev}, total_steps=1)
    with room_for(0), pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        finetune.run(context)


def test_text_rows_have_no_exact_match(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    data = write_jsonl(tmp_path / "text.jsonl", [{"text": "red green blue"}] * 4)
    metrics = finetune.run(make_context(tiny.model, tiny.train, tmp_path / "t", eval_data={"plain": data}))
    assert set(metrics) == {"plain/loss", "plain/token_accuracy"}


def test_without_generation_there_is_no_exact_match(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    context = make_context(
        tiny.model,
        tiny.train,
        tmp_path,
        eval_data={"dev": tiny.dev},
        trial={"evaluation": {"generate": False}},
    )
    assert set(finetune.run(context)) == {"dev/loss", "dev/token_accuracy"}


def test_only_the_first_rows_are_measured_where_asked(tmp_path: Path, tiny: Tiny) -> None:
    from sweeper.training import finetune

    few = write_jsonl(tmp_path / "few.jsonl", chat_rows(12, seed=1)[:5])
    evaluation = {"evaluation": {"max_rows": 5}}
    sets = {"all": tiny.dev, "few": few}
    metrics = finetune.run(
        make_context(tiny.model, tiny.train, tmp_path / "t", eval_data=sets, trial=evaluation)
    )
    assert metrics["all/loss"] == metrics["few/loss"]


def test_a_named_metric_is_the_weighted_mean_of_its_measures() -> None:
    from sweeper.training.eval_sets import weighted_metrics

    measures = {"new/exact_match": 0.2, "kept/exact_match": 0.8}
    weights = {"score": {"new/exact_match": 1.0, "kept/exact_match": 3.0}}
    assert weighted_metrics(weights, measures) == {"score": pytest.approx(0.65)}


def test_a_metric_of_an_unknown_measure_is_refused() -> None:
    from sweeper.training.eval_sets import weighted_metrics

    with pytest.raises(ConfigError, match="`score` needs `new/f1`, which is not measured"):
        weighted_metrics({"score": {"new/f1": 1.0}}, {"new/loss": 1.0})


@pytest.mark.parametrize("is_packed", [False, True])
def test_row_means_are_the_same_from_either_shape_that_targets_come_in(is_packed: bool) -> None:
    import torch

    from sweeper.training.evaluation import _row_means

    is_target = torch.tensor([[False, True, True, False], [True, True, True, False]])
    if is_packed:
        is_target = is_target.reshape(1, -1)
    by_target = torch.tensor([1.0, 3.0, 2.0, 4.0, 6.0])
    by_place = torch.zeros(is_target.shape).masked_scatter(is_target, by_target)
    for values in (by_target, by_place):
        assert _row_means(values, is_target, [2, 3]).tolist() == [2.0, 4.0]
    assert _row_means(by_target, is_target, [2, 0, 3]).isnan().tolist() == [False, True, False]
