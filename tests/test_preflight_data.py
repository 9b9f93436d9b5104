"""Model and data are checked before anything is trained."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import training_fixtures
from training_fixtures import Hub, Tiny, all_rows, chat_rows, make_context, make_tokenizer, write_jsonl

from sweeper.config.models import SweepConfig
from sweeper.config.names import OPTIMIZERS
from sweeper.config.resource_models import ResourceSection
from sweeper.errors import ConfigError, SweeperError
from sweeper.preflight import data as data_module
from sweeper.preflight import facts
from sweeper.preflight.child import checking_in_child
from sweeper.preflight.data import check_trial
from sweeper.preflight.data_report import DataReport
from sweeper.preflight.facts import run_preflight
from sweeper.preflight.packages import module_of_optimizer

pytestmark = pytest.mark.train
tiny = training_fixtures.tiny
hub = training_fixtures.hub
GOOD = {"messages": [{"role": "user", "content": "red"}, {"role": "assistant", "content": "blue"}]}


def run_in_child(config: SweepConfig, directory: Path | None = None) -> DataReport:
    with checking_in_child(config, directory=directory) as found:
        return found()


def config(
    tiny: Tiny, *, space: dict[str, Any] | None = None, metric: str = "dev/loss", address: str | None = None,
    **trial: Any,
) -> SweepConfig:  # fmt: skip
    section = {
        "model": str(tiny.model),
        "train_data": str(tiny.train),
        "eval_data": {"dev": str(tiny.dev)},
        "budget": {"samples": 64},
        "settings": {"max_length": 128},
    }
    return SweepConfig.model_validate(
        {
            "study": "check",
            "metric": metric,
            "direction": "minimize",
            "trial": section | trial,
            "search_space": space or {"learning_rate": {"grid": [1e-4, 1e-3]}},
            "resources": {"address": address},
        }
    )


def problems(tiny: Tiny, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_trial(config(tiny, **options))
    return [str(problem) for problem in caught.value.problems]


def test_gpus_that_torch_cannot_use_are_refused_before_anything_starts(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "99")  # which is counted as one, and is none
    with pytest.raises(
        ConfigError,
        match=r"^Trials are given GPUs, but torch .* cannot use any here \(CUDA_VISIBLE_DEVICES is '99'\)\. Install",
    ):
        run_preflight(config(tiny))
    on_cpus = config(tiny).model_copy(update={"resources": ResourceSection(gpus_per_trial=0)})
    assert run_preflight(on_cpus).slots.gpus_per_trial == 0


def test_a_large_model_on_cpus_is_warned_of_unless_they_were_asked_for(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "_LARGE_PARAMETERS", 1000)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = run_preflight(config(tiny))
    (warning,) = found.warnings
    assert warning == (
        "this machine shows no GPU, so trials train on CPUs: with 0 million parameters that takes many times as long. "
        "Launch where GPUs can be seen (CUDA_VISIBLE_DEVICES is ''), join a cluster that has some by `--address`, or "
        "set `resources.gpus_per_trial` to 0 if CPUs are meant."
    )
    assert found.lines()[-1] == f"warning: {warning}"
    on_cpus = config(tiny).model_copy(update={"resources": ResourceSection(gpus_per_trial=0)})
    assert run_preflight(on_cpus).warnings == []


def test_a_good_sweep_s_rows_and_tokens_are_counted(tiny: Tiny) -> None:
    report = check_trial(config(tiny))
    assert (report.rows, report.evaluation["dev"].rows) == (40, 12)
    assert 0 < report.target_tokens < (report.train.tokens if report.train else 0)
    assert report.model is not None
    assert (report.model.architecture, report.model.n_layers) == ("LlamaForCausalLM", 2)
    assert report.warnings == ()
    assert set(report.sources) == {"train_data[0]", "eval_data.dev"}


def test_each_data_set_with_a_name_is_counted_for_itself(tiny: Tiny, tmp_path: Path) -> None:
    text = write_jsonl(tmp_path / "text.jsonl", [{"text": "red green"}] * 3)
    sets = {"chats": str(tiny.train), "texts": str(text)}
    report = check_trial(config(tiny, train_data=None, data_sets=sets))
    assert {name: rows for name, (rows, _) in report.sets.items()} == {"chats": 40, "texts": 3}
    assert sum(tokens for _, tokens in report.sets.values()) == report.target_tokens
    assert check_trial(config(tiny)).sets == {}


def test_data_of_the_hub_is_counted_at_one_commit(tiny: Tiny, hub: Hub) -> None:
    hub.rows = {"a" * 40: chat_rows(5)}
    report = check_trial(config(tiny, train_data="org/rows"))
    assert (report.rows, report.sources["train_data[0]"]) == (5, f"commit {'a' * 40}")
    assert set(hub.asked) == {"a" * 40}


def test_data_of_the_hub_whose_commit_nobody_tells_is_warned_about(tiny: Tiny, hub: Hub) -> None:
    hub.rows, hub.is_reached = {"copied-by-hand": chat_rows(5)}, False
    report = check_trial(config(tiny, train_data="org/rows"))
    assert (report.rows, set(report.sources)) == (5, {"eval_data.dev"})
    assert report.warnings == (
        "`trial.train_data[0]` = `org/rows` is a data set of the hub, which does not tell its commit: should it change "
        "there while the sweep runs, later trials may be trained or measured on other rows. Set its `revision` to a "
        "commit, or download it and give its path.",
    )


def test_the_tokens_counted_are_those_that_training_reports(tiny: Tiny, tmp_path: Path) -> None:
    from sweeper.training import finetune

    context = make_context(tiny.model, tiny.train, tmp_path, total_steps=5)  # 40 rows
    finetune.run(context)
    assert all_rows(context)[-1].tokens == check_trial(config(tiny)).target_tokens


BAD_ROWS = [
    ('{"messages": ', r"bad\.jsonl:2: This line is no JSON"),
    (
        '{"messages": [{"role": "user", "content": "hi"}]}',
        r"bad\.jsonl:2: The row ends with a message from `user`",
    ),
    ('{"question": "hi", "answer": "ho"}', r"bad\.jsonl:2: The row has the columns `question`, `answer`"),
    ('{"prompt": "hi", "completion": ""}', r"bad\.jsonl:2: The row has an empty `completion`"),
    (
        json.dumps({"prompt": "hi " * 200, "completion": "ho"}),
        r"bad\.jsonl:2: The row has \d+ tokens and its answer begins",
    ),
]


@pytest.mark.parametrize(("line", "said"), BAD_ROWS)
@pytest.mark.parametrize("where", ["train_data", "eval_data"])
def test_a_bad_row_is_named_by_file_and_line(
    tiny: Tiny, tmp_path: Path, where: str, line: str, said: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    data: Any = str(path) if where == "train_data" else {"dev": str(path)}
    (message,) = problems(tiny, **{where: data})
    assert re.search(said, message)


def test_all_bad_rows_are_told_at_once_up_to_twenty(tiny: Tiny, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "bad.jsonl", [{"text": ""}] * 25)
    told = problems(tiny, train_data=str(path))
    assert len(told) == 21
    assert told[-1] == "5 more rows have problems; 25 rows in all."


def test_problems_of_model_and_data_are_told_together(tiny: Tiny, tmp_path: Path) -> None:
    empty = write_jsonl(tmp_path / "empty.jsonl", [])
    shutil.copytree(tiny.model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    told = problems(
        tiny,
        model=str(tmp_path / "model"),
        train_data=str(empty),
        eval_data={"dev": str(tmp_path / "gone.jsonl")},
    )
    assert len(told) == 3
    assert "has no weights" in told[0]
    assert "empty.jsonl` has no rows" in told[1]
    assert "gone.jsonl` does not exist" in told[2]


def test_a_model_that_is_not_there_is_named(tiny: Tiny, tmp_path: Path) -> None:
    told = problems(tiny, model=str(tmp_path / "gone"))
    assert "The model directory" in told[0]
    assert "does not exist" in told[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", None, "but by its header"),  # half of it
        ("pytorch_model.bin", b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        ("model.safetensors.index.json", b"", "does not say which weight files there are"),
    ],
)
def test_weights_that_are_not_whole_are_told_with_the_file(
    tiny: Tiny, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny.model, model)
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    (message,) = problems(tiny, model=str(model))
    assert f"`{model / name}` " in message
    assert said in message


def without_weights(tiny: Tiny, tmp_path: Path, *names: str, **facts: Any) -> str:
    """Return the tiny model with weights taken out of its file, and other facts in its config."""
    import safetensors.torch

    model = tmp_path / "model"
    shutil.copytree(tiny.model, model)
    weights = safetensors.torch.load_file(model / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if name not in names}
    safetensors.torch.save_file(kept, model / "model.safetensors", metadata={"format": "pt"})
    found = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(found | facts))
    return str(model)


def test_weights_that_the_files_lack_are_told_before_any_trial(tiny: Tiny, tmp_path: Path) -> None:
    model = without_weights(tiny, tmp_path, "model.layers.0.mlp.down_proj.weight", "lm_head.weight")
    (message,) = problems(tiny, model=model)
    assert (
        f"The files of the model `{model}` lack 2 of its weights, the first being `lm_head.weight`" in message
    )


def test_a_head_that_is_tied_to_the_embedding_is_not_missed(tiny: Tiny, tmp_path: Path) -> None:
    model = without_weights(tiny, tmp_path, "lm_head.weight", tie_word_embeddings=True)
    assert check_trial(config(tiny, model=model)).model is not None


def test_weights_that_cannot_be_looked_over_are_left_to_the_trials(tiny: Tiny, tmp_path: Path) -> None:
    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    model = without_weights(tiny, tmp_path, "lm_head.weight", **quantised)
    assert check_trial(config(tiny, model=model)).model is not None


def test_a_chat_template_that_is_not_there_is_named(tiny: Tiny, tmp_path: Path) -> None:
    assert "The chat template" in problems(tiny, chat_template=str(tmp_path / "gone.jinja"))[0]


def test_rows_longer_than_the_model_s_positions_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    long = write_jsonl(tmp_path / "long.jsonl", [{"text": "rain " * 400}])
    (message,) = problems(tiny, train_data=str(long), settings={"max_length": 1024})
    assert "knows only 256 positions" in message


@pytest.mark.parametrize(
    "lengths", [{"grid": [64, 128, 1024]}, {"int": [64, 1024]}, {"int": [64, 1024], "step": 32}]
)
def test_the_longest_swept_length_must_have_positions(
    tiny: Tiny, tmp_path: Path, lengths: dict[str, Any]
) -> None:
    long = write_jsonl(tmp_path / "long.jsonl", [{"text": "rain " * 400}])
    (message,) = problems(tiny, train_data=str(long), settings={}, space={"max_length": lengths})
    assert "`max_length` is 1024" in message
    assert "knows only 256 positions" in message


def narrower_model(tiny: Tiny, tmp_path: Path, vocab_size: int) -> str:
    """Return the tiny model as if it knew fewer tokens than its tokenizer makes."""
    model = tmp_path / "model"
    shutil.copytree(tiny.model, model)
    facts = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(facts | {"vocab_size": vocab_size}))
    return str(model)


@pytest.mark.parametrize(
    ("vocab_size", "said"),
    [(280, "A token of the data has the id "), (0, "The pad token `<|pad|>` has the id 0")],
)
def test_tokens_beyond_the_model_s_vocabulary_are_refused(
    tiny: Tiny, tmp_path: Path, vocab_size: int, said: str
) -> None:
    (message,) = problems(tiny, model=narrower_model(tiny, tmp_path, vocab_size))
    assert said in message
    assert f"knows only {vocab_size} tokens" in message


def test_added_tokens_that_no_row_has_are_no_problem(tiny: Tiny, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a b"}])
    model = narrower_model(tiny, tmp_path, 280)
    assert (
        check_trial(config(tiny, model=model, train_data=str(rows), eval_data={"dev": str(rows)})).rows == 1
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimizer": "apollo_adamw"}, "`optimizer: apollo_adamw` cannot be used: .* Install what it needs"),
        (
            {"attn_implementation": "made_up"},
            "`attn_implementation: made_up` cannot be used with .* choose `sdpa`",
        ),
        (
            {"method": "lora", "lora_target_modules": "q_proj"},
            r"`lora_target_modules: q_proj` is a pattern .* Write a list, such as `\[q_proj\]`. It has for example ",
        ),
        ({"method": "lora", "lora_target_modules": "("}, "matches none of"),
    ],
)
def test_what_the_libraries_cannot_do_is_told_before_any_trial(
    tiny: Tiny, settings: dict[str, Any], said: str
) -> None:
    (message,) = problems(tiny, settings={"max_length": 128, **settings})
    assert re.search(said, message)


def test_every_swept_optimiser_and_attention_is_tried(tiny: Tiny) -> None:
    space = {
        "optimizer": {"grid": ["adamw_torch", "adamw_anyprecision", "sgd", "grokadamw"]},
        "attn_implementation": {"grid": ["sdpa", "eager", "made_up", None]},
    }
    told = problems(tiny, space=space)
    assert [message.split("`")[1] for message in told] == [
        "optimizer: adamw_anyprecision", "optimizer: grokadamw", "attn_implementation: made_up"
    ]  # fmt: skip


def test_a_package_that_the_nodes_of_a_cluster_may_have_is_not_missed_here(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", without("bitsandbytes"))
    space = {
        "optimizer": {"grid": ["adamw_torch", "grokadamw", "stable_adamw", "apollo_adamw"]},
        "method": {"grid": ["lora", "qlora"]},
    }
    here = problems(tiny, space=space)
    on_a_cluster = problems(tiny, space=space, address="10.0.0.1:6379")
    assert [message.split("`")[1] for message in here] == [
        "optimizer: grokadamw", "optimizer: stable_adamw", "optimizer: apollo_adamw", "method: qlora"
    ]  # fmt: skip
    assert [message.split("`")[1] for message in on_a_cluster] == ["optimizer: apollo_adamw"]


def without(module: str) -> Any:
    """Return `importlib.util.find_spec` that finds all but one module."""
    find = importlib.util.find_spec
    return lambda name, package=None: None if name == module else find(name, package)


def test_every_optimiser_of_transformers_has_the_package_that_it_is_taken_from(tiny: Tiny) -> None:
    names = [name for name in OPTIMIZERS if not name.startswith("schedule_free_") and "lomo" not in name]
    told = problems(tiny, space={"optimizer": {"grid": names}})
    refused = {message.split("`")[1].removeprefix("optimizer: ") for message in told}
    lacking = {
        name
        for name in names
        if (module := module_of_optimizer(name)) is not None and importlib.util.find_spec(module) is None
    }
    need_more = {name for name in names if name.startswith(("galore_", "apollo_"))}
    assert refused == lacking | need_more


def test_patterns_and_attention_that_work_are_accepted(tiny: Tiny) -> None:
    settings = {
        "max_length": 128,
        "method": "lora",
        "lora_target_modules": r".*\.q_proj",
        "attn_implementation": "eager",
    }
    assert check_trial(config(tiny, settings=settings)).rows == 40


def test_every_swept_length_is_checked(tiny: Tiny) -> None:
    told = problems(tiny, space={"max_length": {"grid": [128, 6]}}, settings={})
    assert any("its answer begins after the first 6" in message for message in told)


def test_a_schedule_that_lacks_its_arguments_is_refused(tiny: Tiny) -> None:
    (message,) = problems(tiny, settings={"lr_scheduler_type": "warmup_stable_decay", "max_length": 128})
    assert "`lr_scheduler_type: warmup_stable_decay` cannot take `lr_scheduler_kwargs` = {}" in message


def test_adapters_on_modules_that_are_not_there_are_refused(tiny: Tiny) -> None:
    settings = {"method": "lora", "lora_target_modules": ["q_proj", "query"], "max_length": 128}
    (message,) = problems(tiny, settings=settings)
    assert f"names `query`, which `{tiny.model}` has not" in message
    assert "q_proj" in message


@pytest.mark.parametrize("is_swept", [False, True])
def test_packing_is_refused_for_a_model_that_cannot_keep_rows_apart(
    is_swept: bool, tiny: Tiny, tmp_path: Path
) -> None:
    import transformers

    tokenizer = make_tokenizer()
    bloom = transformers.BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=1, n_head=2)
    transformers.BloomForCausalLM(bloom).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    settings = {"max_length": 128} if is_swept else {"max_length": 128, "packing": True}
    space = {"packing": {"grid": [True, False]}} if is_swept else None
    (message,) = problems(tiny, model=str(tmp_path), settings=settings, space=space)
    assert "`BloomForCausalLM` of" in message
    assert "takes no `position_ids`" in message
    assert check_trial(config(tiny, settings=settings, space=space)).model is not None, "a Llama takes them"


def test_exact_match_of_plain_text_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    text = write_jsonl(tmp_path / "text.jsonl", [{"text": "red green"}])
    (message,) = problems(tiny, eval_data={"dev": str(text)}, metric="dev/exact_match")
    assert "`dev` has only `text` rows" in message


def test_rows_that_are_trained_and_measured_are_warned_about(tiny: Tiny, tmp_path: Path) -> None:
    dev = write_jsonl(tmp_path / "dev.jsonl", chat_rows(40)[:3] + chat_rows(5, seed=9))
    report = check_trial(config(tiny, eval_data={"dev": str(dev)}))
    assert report.evaluation["dev"].n_in_train == 3
    assert any(
        "3 of the 8 rows of the eval set `dev` are also in the train data" in text for text in report.warnings
    )


def test_truncated_rows_are_counted_and_warned_about(tiny: Tiny, tmp_path: Path) -> None:
    long = write_jsonl(tmp_path / "long.jsonl", [{"text": "rain " * 200}, {"text": "sun"}])
    report = check_trial(config(tiny, train_data=str(long)))
    assert report.train is not None
    assert report.train.n_truncated == 1
    assert "1 of 2 train rows are longer than `max_length` = 128" in report.warnings[0]


def test_truncated_rows_of_an_eval_set_are_warned_about(tiny: Tiny, tmp_path: Path) -> None:
    long = write_jsonl(tmp_path / "long.jsonl", [{"text": "rain " * 200}, {"text": "sun"}])
    (warning,) = check_trial(config(tiny, eval_data={"dev": str(long)})).warnings
    assert warning.startswith(
        "1 of 2 rows of the eval set `dev` are longer than `max_length` = 128 tokens and are cut"
    )


def test_answers_that_are_longer_than_what_is_generated_are_warned_about(tiny: Tiny, tmp_path: Path) -> None:
    rows = [{"prompt": "red", "completion": " blue" * n} for n in (1, 3, 4, 9)]
    dev = write_jsonl(tmp_path / "dev.jsonl", rows)
    asked = {"eval_data": {"dev": str(dev)}, "evaluation": {"max_new_tokens": 3}}
    (warning,) = check_trial(config(tiny, **asked)).warnings
    assert warning == (
        "2 of the 4 answers of the eval set `dev` have more than `trial.evaluation.max_new_tokens` = 3 tokens and "
        "cannot match, so `dev/exact_match` is at most 2 of 4. The longest has 9: raise it to that, or set "
        "`trial.evaluation.generate` to false if no exact match is needed."
    )
    for change in ({"max_new_tokens": 9}, {"generate": False}, {"max_rows": 2}):
        asked["evaluation"] = {"max_new_tokens": 3} | change
        assert check_trial(config(tiny, **asked)).warnings == ()


def test_the_token_that_ends_a_turn_is_no_part_of_an_answer_s_length(tiny: Tiny, tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "red"}, {"role": "assistant", "content": "blue blue"}]}
    dev = write_jsonl(tmp_path / "dev.jsonl", [row])
    length = len(make_tokenizer()("blue blue", add_special_tokens=False)["input_ids"])
    for new, n_warnings in ((length, 0), (length - 1, 1)):
        found = check_trial(config(tiny, eval_data={"dev": str(dev)}, evaluation={"max_new_tokens": new}))
        assert len(found.warnings) == n_warnings


def model_of_learned_positions(kind: str, place: Path) -> Path:
    """Write a model that looks its 32 positions up in a table, and whose tokenizer is the tiny model's."""
    import transformers

    tokenizer = make_tokenizer()
    small = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = (
        transformers.GPT2Config(n_positions=32, n_embd=16, n_layer=1, n_head=2, **small)
        if kind == "gpt2"
        else transformers.OPTConfig(
            max_position_embeddings=32,
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            **small,
        )
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_answers_past_learned_positions_are_refused(tiny: Tiny, tmp_path: Path, kind: str) -> None:
    """They would end in an index error, on a GPU in a dead process."""
    dev = write_jsonl(tmp_path / "dev.jsonl", [{"prompt": "red" + " sun" * 19, "completion": " blue"}])
    model = model_of_learned_positions(kind, tmp_path / kind)
    n_prompt = len(make_tokenizer()("red" + " sun" * 19)["input_ids"])
    data = {
        "model": str(model),
        "train_data": str(dev),
        "eval_data": {"dev": str(dev)},
        "settings": {"max_length": 32},
    }
    most = 33 - n_prompt
    (message,) = problems(tiny, **data, evaluation={"max_new_tokens": most + 1})
    assert f"has {n_prompt} tokens and `trial.evaluation.max_new_tokens` is {most + 1}, but" in message
    assert (
        f"knows only 32 positions and cannot go past them. Set `max_new_tokens` to at most {most}," in message
    )
    check_trial(config(tiny, **data, evaluation={"max_new_tokens": most}))
    check_trial(config(tiny, **data, evaluation={"generate": False}))


def test_a_prompt_past_learned_positions_is_refused_though_its_row_is_cut(tiny: Tiny, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [{"prompt": "red", "completion": " blue"}])
    dev = write_jsonl(tmp_path / "dev.jsonl", [{"prompt": "red" + " sun" * 40, "completion": " blue"}])
    data = {
        "model": str(model_of_learned_positions("gpt2", tmp_path / "gpt2")),
        "train_data": str(train),
        "eval_data": {"dev": str(dev)},
        "settings": {"max_length": 32, "loss_on": "all"},
    }
    (message,) = problems(tiny, **data)
    assert (
        "knows only 32 positions and cannot go past them. Shorten the prompts to 32 tokens, or set" in message
    )


def test_as_many_new_tokens_as_are_allowed_can_be_generated(tmp_path: Path) -> None:
    import transformers

    from sweeper.training.generation import greedy_answers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        model_of_learned_positions("gpt2", tmp_path / "gpt2")
    )
    prompts = [[9] * 20, [9] * 3]
    greedy_answers(model, make_tokenizer(), prompts, max_new_tokens=13, stops=[])
    with pytest.raises(IndexError):
        greedy_answers(model, make_tokenizer(), prompts, max_new_tokens=14, stops=[])


def test_answers_past_rotary_positions_are_no_problem(tiny: Tiny) -> None:
    check_trial(config(tiny, evaluation={"max_new_tokens": 500}))


def test_prompts_that_are_joined_to_their_answers_are_warned_about(tiny: Tiny, tmp_path: Path) -> None:
    rows = [{"prompt": "red green ", "completion": "blue"}, {"prompt": "red green", "completion": " blue"}]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    (warning,) = check_trial(config(tiny, train_data=str(data))).warnings
    assert warning == (
        "In 1 of 2 train rows the tokenizer joins the end of the prompt to the begin of the answer, so the answer is "
        "learned after other tokens than it is asked for with. Most often the prompt ends in a space: move it to the "
        "begin of the `completion`."
    )
    (warning,) = check_trial(config(tiny, eval_data={"dev": str(data)})).warnings
    assert warning.startswith("In 1 of 2 rows of the eval set `dev` the tokenizer joins")


def test_a_template_that_takes_no_plain_chat_is_refused_for_chats_alone(tiny: Tiny, tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text("{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}")
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "red", "completion": " blue"}])
    others = {"train_data": str(rows), "eval_data": {"dev": str(rows)}}
    assert check_trial(config(tiny, chat_template=str(template), **others)).rows == 1
    assert "is refused by the chat template" in problems(tiny, chat_template=str(template))[0]


METRIC_WARNING = (
    "Points are compared by `dev/loss`, a mean over the target tokens of the eval set `dev`, and `{}` in the search "
    "space changes which these are: a point may win by easier tokens. Fix it, or compare by an `exact_match`."
)


@pytest.mark.parametrize(
    ("space", "n_warnings"),
    [
        ({"loss_on": {"grid": ["answers", "all"]}}, 1),
        ({"max_length": {"grid": [64, 128]}}, 1),
        ({"max_length": {"int": [64, 128]}}, 1),
        ({"max_length": {"grid": [100, 128]}}, 0),  # which no row is as long as
        ({"max_length": {"int": [100, 128]}}, 0),
        ({"learning_rate": {"grid": [1e-4, 1e-3]}}, 0),
    ],
)
def test_a_mean_over_other_tokens_from_point_to_point_is_warned_of(
    tiny: Tiny, tmp_path: Path, space: dict[str, Any], n_warnings: int
) -> None:
    row = {"prompt": "red green", "completion": " sun" * 70}
    dev = write_jsonl(tmp_path / "dev.jsonl", [row])
    (name,) = space
    sweep = config(
        tiny, space=space, eval_data={"dev": str(dev)}, evaluation={"generate": False}, settings={}
    )
    told = [text for text in check_trial(sweep).warnings if "Points are compared" in text]
    assert told == [METRIC_WARNING.format(name)] * n_warnings


def test_only_what_is_a_mean_over_tokens_is_warned_of(tiny: Tiny) -> None:
    space = {"loss_on": {"grid": ["answers", "all"]}}

    def told(metric: str, **options: Any) -> list[str]:
        found = check_trial(config(tiny, space=space, metric=metric, **options)).warnings
        return [text.split(",")[0] for text in found]

    assert told("dev/exact_match") == []
    assert told("loss") == ["Points are compared by `loss`"]
    assert told("both", metrics={"both": {"dev/exact_match": 1, "dev/token_accuracy": 1}}) == [
        "Points are compared by `dev/token_accuracy`"
    ]


def test_models_that_cut_words_into_other_tokens_are_warned_of(tiny: Tiny, tmp_path: Path) -> None:
    template = training_fixtures.CHAT_TEMPLATE
    for name, own in (("like", template), ("unlike", template.replace("<|end|>", "<|end|><|end|>"))):
        shutil.copytree(tiny.model, tmp_path / name)
        make_tokenizer(template=own).save_pretrained(tmp_path / name)
        space = {"model": {"grid": [str(tiny.model), str(tmp_path / name)]}}
        sweep = config(tiny, space=space, model=None, evaluation={"generate": False})
        told = () if name == "like" else (METRIC_WARNING.format("model"),)
        assert check_trial(sweep).warnings == told


def test_the_child_finds_what_the_parent_would(tiny: Tiny) -> None:
    assert run_in_child(config(tiny)) == check_trial(config(tiny))


def test_a_file_of_the_working_directory_is_not_taken_for_a_library(tiny: Tiny) -> None:
    for name in ("random", "json", "torch"):
        Path(f"{name}.py").write_text("raise SystemExit('run')")
    assert run_in_child(config(tiny)).train is not None


def test_a_function_of_the_working_directory_is_found_by_the_child() -> None:
    Path("mine.py").write_text("def train(context): ...\n")
    assert run_in_child(function_config("mine:train")) == DataReport()


def test_problems_come_back_from_the_child(tiny: Tiny, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "bad.jsonl", [GOOD, {"text": ""}])
    with pytest.raises(ConfigError, match=r"bad\.jsonl:2: The row has an empty `text`"):
        run_in_child(config(tiny, train_data=str(path)))


def test_a_crash_of_the_child_shows_its_last_lines(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text("import os\nprint('on the way', flush=True)\nos._exit(3)\n")
    with pytest.raises(SweeperError, match=r"(?s)crashed with exit code 3.*on the way"):
        run_in_child(function_config("crashing:train"), directory=tmp_path)


def function_config(name: str) -> SweepConfig:
    return SweepConfig.model_validate(
        {
            "study": "check",
            "metric": "score",
            "direction": "maximize",
            "trial": {"function": name, "budget": {"samples": 8}},
            "search_space": {"x": {"grid": [1, 2]}},
        }
    )


def test_a_user_s_function_is_imported_in_the_child(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("print('chatter')\ndef train(context):\n    return 1.0\n")
    assert run_in_child(function_config("mine:train"), directory=tmp_path) == DataReport()


def test_a_function_that_is_not_there_is_told_from_the_child(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match="has no `train`"):
        run_in_child(function_config("mine:train"), directory=tmp_path)


def test_a_transformers_that_takes_no_shared_out_model_is_told_before_a_gpu_is_taken(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    plain = config(tiny)
    sharded = plain.model_copy(update={"resources": ResourceSection(sharding="fsdp2", workers_per_trial=2)})
    check_trial(sharded)
    monkeypatch.setattr(transformers.Trainer, "__init__", lambda self: None)
    check_trial(plain)
    with pytest.raises(ConfigError, match=r"`resources.sharding: fsdp2` needs a later transformers than "):
        check_trial(sharded)


def test_a_gpu_whose_kernels_cannot_be_compiled_is_told_before_it_is_taken(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_module, "unusable_gpu", lambda: None)
    monkeypatch.setattr(data_module, "cannot_compile", lambda: "no C compiler was found")
    check_trial(config(tiny))
    with pytest.raises(ConfigError) as caught:
        check_trial(config(tiny), trains_on_gpu=True)
    assert str(caught.value) == (
        "Trials are given GPUs, for which they compile kernels, but no C compiler was found. Install both there, for "
        "example by `apt install gcc python3-dev`."
    )
