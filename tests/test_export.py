"""What `sweeper export` writes for other trainers, checked without them."""

import ast
import contextlib
import json
import re
from pathlib import Path
from typing import Any

import export_fixtures
import pytest
from export_fixtures import CHATS, LORA, exported, finished_study
from ruamel.yaml import YAML
from sweep_files import write_jsonl
from sweeps import make_config, make_study

from sweeper.errors import ConfigError, StudyMismatchError
from sweeper.reporting.export.chosen import choose_trial
from sweeper.reporting.export.run import ExportRequest, run_export
from sweeper.reporting.export.write import FORMATS
from sweeper.reporting.export.yaml_text import yaml_text
from sweeper.training.stream import SampleStream

known_keys = export_fixtures.known_keys
YAML_FORMATS = ["trl", "axolotl", "llamafactory", "training-args"]


def read(text: str) -> dict[str, Any]:
    """Read YAML as version 1.1, the way PyYAML does, on which all the other tools stand."""
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 1)  # type: ignore[assignment]
    content: dict[str, Any] = reader.load(text)
    return content


def arguments_of(text: str) -> tuple[str, dict[str, Any]]:
    """Return what a training-hub file calls, and with which arguments."""
    call = next(node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    assert isinstance(call.func, ast.Name)
    return call.func.id, {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}


@pytest.mark.parametrize(("number", "batch", "split"), [(0, 2, (2, 1)), (1, 8, (4, 2)), (2, 16, (4, 4))])
def test_every_format_has_the_trials_effective_batch(
    tmp_path: Path, number: int, batch: int, split: tuple[int, int]
) -> None:
    study = finished_study(tmp_path)
    keys = {
        "trl": ("per_device_train_batch_size", "gradient_accumulation_steps"),
        "axolotl": ("micro_batch_size", "gradient_accumulation_steps"),
        "llamafactory": ("per_device_train_batch_size", "gradient_accumulation_steps"),
        "training-args": ("per_device_train_batch_size", "gradient_accumulation_steps"),
    }
    for name, (micro, accumulation) in keys.items():
        content = read(exported(study, name, number=number, out=tmp_path / f"{name}.yaml").text)

        assert (content[micro], content[accumulation]) == split, name
        assert content["max_steps"] * batch == 48, name
    _, arguments = arguments_of(exported(study, "training-hub", number=number).text)
    assert arguments["effective_batch_size"] == batch
    assert arguments["max_tokens_per_gpu"] == split[0] * 64


def test_axolotl_says_that_it_weighs_tokens_by_their_pass(tmp_path: Path) -> None:
    study = finished_study(tmp_path)

    of_one_pass = exported(study, "axolotl", number=0).text
    of_two = exported(study, "axolotl", number=1).text

    assert "The loss:" not in of_one_pass
    assert "axolotl takes the mean of each pass and then that of the passes, so a token" in of_two
    assert (
        "raise micro_batch_size as far as it fits, up to 8, and lower gradient_accumulation_steps" in of_two
    )


def test_every_yaml_format_has_the_trials_schedule_and_rate(tmp_path: Path) -> None:
    study = finished_study(tmp_path)

    for name in YAML_FORMATS:
        content = read(exported(study, name, out=tmp_path / f"{name}.yaml").text)

        assert content["learning_rate"] == 1e-5, name
        assert content.get("lr_scheduler_type", content.get("lr_scheduler")) == "cosine_with_restarts", name
        assert content["lr_scheduler_kwargs"] == {"num_cycles": 2}, name
        assert content["warmup_steps"] == 1, name  # a tenth of 6 steps, rounded up
        assert content["weight_decay"] == 0.01, name
        assert content["save_strategy"] == "no", name


def test_no_clipping_is_written_as_zero(tmp_path: Path) -> None:
    study = finished_study(tmp_path, trial={"settings": {"max_grad_norm": None}})

    for name in YAML_FORMATS:
        assert read(exported(study, name, out=tmp_path / "f.yaml").text)["max_grad_norm"] == 0.0, name


@pytest.mark.parametrize("settings", [{}, LORA, {**LORA, "lora_target_modules": "all-linear"}])
def test_axolotl_knows_every_key(
    tmp_path: Path, known_keys: dict[str, Any], settings: dict[str, Any]
) -> None:
    known = known_keys["axolotl"]
    study = finished_study(
        tmp_path,
        trial={"revision": "abc", "settings": {**settings, "attn_implementation": "sdpa"}},
    )

    content = read(exported(study, "axolotl").text)

    assert set(content) <= set(known["keys"])
    for entry in content["datasets"]:
        assert set(entry) <= set(known["dataset_keys"])


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("trl", {"use_liger_kernel": True}),
        ("training-args", {"use_liger_kernel": True}),
        ("llamafactory", {"enable_liger_kernel": True}),
        ("axolotl", {"liger_rope": True, "liger_rms_norm": True, "liger_glu_activation": True}),
    ],
)
def test_ligers_kernels_are_switched_on_where_the_trial_had_them(
    tmp_path: Path, name: str, keys: dict[str, bool]
) -> None:
    out = tmp_path / "train.yaml"
    without = read(exported(finished_study(tmp_path / "a"), name, out=out).text)
    study = finished_study(tmp_path / "b", trial={"settings": {"use_liger_kernel": True}})
    content = read(exported(study, name, out=out).text)
    assert keys.items() <= content.items()
    assert not set(keys) & set(without)


def test_axolotl_says_what_it_makes_of_data_in_place(tmp_path: Path) -> None:
    of_chats = exported(
        finished_study(tmp_path / "a", trial={"settings": {"loss_on": "all"}}), "axolotl"
    ).text
    of_texts = exported(finished_study(tmp_path / "b", rows=[{"text": "a"}]), "axolotl").text

    assert (
        "of a chat axolotl learns the words of the messages and the token that ends each, and nothing"
        in of_chats
    )
    assert (
        "the chat template could not be read here. Where it is not the tokenizer's `eos_token`, name"
        in of_chats
    )
    assert (
        "Texts of more than 64 tokens: axolotl makes several rows of one, which the trial cuts." in of_texts
    )
    assert "of a chat" not in of_texts


def test_axolotl_knows_the_keys_of_pairs_of_texts(tmp_path: Path, known_keys: dict[str, Any]) -> None:
    study = finished_study(tmp_path, rows=[{"prompt": "a", "completion": "b"}])

    entry = read(exported(study, "axolotl").text)["datasets"][0]

    assert set(entry["type"]) <= set(known_keys["axolotl"]["prompt_type_keys"])


@pytest.mark.parametrize("settings", [{}, LORA, {**LORA, "lora_target_modules": "all-linear"}])
def test_llamafactory_knows_every_key(
    tmp_path: Path, known_keys: dict[str, Any], settings: dict[str, Any]
) -> None:
    known = known_keys["llamafactory"]
    study = finished_study(
        tmp_path, trial={"revision": "abc", "settings": {**settings, "attn_implementation": "sdpa"}}
    )
    shared = set(read(exported(study, "training-args").text))  # transformers' own; see test_export_tools.py

    content = read(exported(study, "llamafactory", out=tmp_path / "train.yaml").text)

    assert set(content) <= set(known["keys"]) | shared | {"do_train"}
    info = json.loads((tmp_path / "train-data" / "dataset_info.json").read_text())
    assert content["dataset_dir"] == str(tmp_path / "train-data")
    assert content["dataset"].split(",") == list(info)
    for entry in info.values():
        assert set(entry) <= set(known["dataset_info_keys"])
        assert set(entry["columns"]) <= set(known["column_keys"])
        assert set(entry["tags"]) == set(known["tag_keys"])


@pytest.mark.parametrize(
    ("settings", "function", "backend"), [({}, "sft", "sft_backend"), (LORA, "lora_sft", "lora_backend")]
)
def test_training_hub_knows_every_argument(
    tmp_path: Path, known_keys: dict[str, Any], settings: dict[str, Any], function: str, backend: str
) -> None:
    known = known_keys["training-hub"]
    study = finished_study(tmp_path, trial={"settings": settings})

    called, arguments = arguments_of(exported(study, "training-hub").text)

    assert called == function
    assert set(arguments) <= {*known[function], *known[backend]}


@pytest.mark.parametrize("modules", [["q_proj"], ["q_proj", "v_proj"], r".*layers\.0\..*q_proj"])
def test_trl_gets_the_modules_as_it_hands_them_on(tmp_path: Path, modules: Any) -> None:
    study = finished_study(tmp_path, trial={"settings": {**LORA, "lora_target_modules": modules}})

    written = read(exported(study, "trl").text)["lora_target_modules"]

    if isinstance(modules, list) and len(modules) > 1:
        assert written == modules
        return
    (pattern,) = written
    names = {
        name
        for name in ("q_proj", "model.layers.0.q_proj", "model.layers.0.xq_proj")
        if re.fullmatch(pattern, name)
    }
    of_list = {"q_proj", "model.layers.0.q_proj"}
    assert names == (
        of_list if isinstance(modules, list) else {"model.layers.0.q_proj", "model.layers.0.xq_proj"}
    )


def test_every_tool_is_told_of_the_4_bits(tmp_path: Path) -> None:
    study = finished_study(tmp_path, trial={"settings": {**LORA, "method": "qlora"}})
    own = {
        "trl": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "use_bnb_nested_quant": True},
        "axolotl": {"adapter": "qlora", "load_in_4bit": True},
        "llamafactory": {"quantization_bit": 4, "quantization_type": "nf4", "double_quantization": True},
    }
    for name, keys in own.items():
        content = read(exported(study, name, out=tmp_path / f"{name}.yaml").text)
        assert keys.items() <= content.items(), name
    assert arguments_of(exported(study, "training-hub").text)[1]["load_in_4bit"] is True
    assert "QLoRA: the base model in 4 bits, NF4" in exported(study, "training-args").text


@pytest.mark.parametrize("name", ["llamafactory", "training-hub"])
def test_a_pattern_of_modules_is_refused_by_tools_of_names(tmp_path: Path, name: str) -> None:
    study = finished_study(tmp_path, trial={"settings": {**LORA, "lora_target_modules": r".*\.q_proj"}})

    with pytest.raises(ConfigError, match=r"is a pattern, and .* takes names of modules alone\. Choose"):
        exported(study, name, out=tmp_path / "file")


def test_header_says_where_the_file_comes_from(tmp_path: Path) -> None:
    text = exported(finished_study(tmp_path), "trl").text

    header = [line for line in text.splitlines() if line.startswith("#")]
    assert header[0].startswith("# Trial 1 of study made for TRL 1.16, by sweeper ")
    assert header[1] == "# score = 0.75 (maximize, the study's best)"
    assert header[2] == "# effective_batch_size=8 learning_rate=1e-5"
    assert header[3] == "# Effective batch 8: 4 sequences a pass, 2 passes a step; 6 steps are 48 samples."
    assert "# What does not carry over:" in header
    assert any("the eval sets (dev) and the metric `score`" in line for line in header)
    assert any("The order of rows" in line for line in header)


def test_header_of_a_pruned_trial_shows_no_value(tmp_path: Path) -> None:
    text = exported(finished_study(tmp_path), "axolotl", number=2).text

    assert "# It is PRUNED and has no final value: loss 9.1 ranks 3 of 3 at rung 0." in text
    assert "score =" not in text


def test_every_header_is_only_comments(tmp_path: Path) -> None:
    study = finished_study(tmp_path, rows=CHATS)

    for name in FORMATS:
        text = exported(study, name, out=tmp_path / f"{name}.txt").text
        head, _, body = text.partition("\n\n")
        assert all(line.startswith("# ") for line in head.splitlines()), name
        assert body.strip(), name


def test_answers_only_becomes_the_mask_of_each_kind_of_row(tmp_path: Path) -> None:
    pairs = [{"prompt": "a", "completion": "b"}]
    of_chats = read(exported(finished_study(tmp_path / "a"), "trl").text)
    of_pairs = read(exported(finished_study(tmp_path / "b", rows=pairs), "trl").text)
    of_texts = read(exported(finished_study(tmp_path / "c", rows=[{"text": "a"}]), "trl").text)
    of_all = read(
        exported(finished_study(tmp_path / "d", trial={"settings": {"loss_on": "all"}}), "trl").text
    )

    assert of_chats["assistant_only_loss"] is True
    assert of_pairs["completion_only_loss"] is True
    assert not {"assistant_only_loss", "completion_only_loss"} & set(of_texts)
    assert of_all["assistant_only_loss"] is False


def test_a_limit_becomes_a_slice_of_the_split(tmp_path: Path) -> None:
    source = [{"path": str(tmp_path / "train.jsonl"), "limit": 5}]
    study = finished_study(tmp_path, trial={"train_data": source})

    for name in ("trl", "axolotl"):
        entry = read(exported(study, name).text)["datasets"][0]
        assert entry["split"] == "train[:5]", name


def test_precision_follows_the_gpus_that_trials_were_given(tmp_path: Path) -> None:
    for gpus, used in ((0, "fp32"), (1, "bf16")):
        study = finished_study(
            tmp_path / str(gpus),
            trial={"settings": {"precision": "auto"}},
            resources={"gpus_per_trial": gpus},
        )
        text = exported(study, "trl").text
        content = read(text)
        assert (content["bf16"], content["fp16"]) == (used == "bf16", False)
        assert f"`precision: auto` was taken as {used}, going by gpus_per_trial = {gpus}." in text


@pytest.mark.parametrize(
    ("ran_on", "used", "told"),
    [
        ({"device": "NVIDIA H100", "computes_in_bf16": True}, "bf16", "the NVIDIA H100 that it ran on"),
        ({"device": "Tesla V100", "computes_in_bf16": False}, "fp32", "the Tesla V100 that it ran on"),
        ({"device": "NVIDIA A100"}, "bf16", "the NVIDIA A100 that it ran on"),
        ({"device": "host", "computes_in_bf16": False}, "fp32", "the CPU that it ran on"),
    ],
)
def test_precision_is_that_of_what_the_trial_ran_on(
    tmp_path: Path, ran_on: dict[str, Any], used: str, told: str
) -> None:
    study = finished_study(
        tmp_path, trial={"settings": {"precision": "auto"}}, resources={"gpus_per_trial": 0.5}
    )
    place = study.directory / "trials" / "1"
    place.mkdir(parents=True)
    (place / "environment.json").write_text(json.dumps(ran_on))

    text = exported(study, "trl").text

    assert read(text)["bf16"] == (used == "bf16")
    assert f"`precision: auto` was taken as {used}, going by {told}." in text


def test_bf16_without_a_gpu_says_so_to_the_trainer(tmp_path: Path) -> None:
    study = finished_study(
        tmp_path, trial={"settings": {"precision": "bf16"}}, resources={"gpus_per_trial": 0}
    )

    content = read(exported(study, "training-args").text)

    assert (content["bf16"], content["use_cpu"]) == (True, True)
    assert not choose_trial(study.view(), None, None).precision.has_gpu


def test_rows_are_written_in_the_trials_order_over_its_whole_budget(tmp_path: Path) -> None:
    study = finished_study(tmp_path)
    rows = tmp_path / "rows.jsonl"

    made = exported(study, "llamafactory", out=tmp_path / "train.yaml", rows=rows)

    order = SampleStream(len(CHATS), seed=0).indices(0, 48)
    assert [json.loads(line) for line in rows.read_text().splitlines()] == [CHATS[i] for i in order]
    assert read(made.text)["disable_shuffling"] is True
    assert made.written == (tmp_path / "train.yaml", rows, tmp_path / "train-data" / "dataset_info.json")


@pytest.mark.parametrize(
    ("n_workers", "settings", "command"),
    [(1, LORA, "python FILE"), (2, LORA, "torchrun --nproc-per-node 2 FILE"), (2, {}, "python FILE")],
)
def test_training_hub_is_started_with_the_trials_processes_which_share_its_batch(
    tmp_path: Path, n_workers: int, settings: dict[str, Any], command: str
) -> None:
    study = finished_study(
        tmp_path,
        trial={"settings": settings | {"micro_batch_size": 1}},
        resources={"workers_per_trial": n_workers, "cpus_per_trial": n_workers, "gpus_per_trial": 0},
    )

    made = exported(study, "training-hub")

    assert made.command == command
    assert f"# Run it:  {command}\n" in made.text
    assert (
        f"made for {n_workers}, and any other number shares out the same effective batch of 8." in made.text
    )


def test_training_hub_trains_ordered_rows_once(tmp_path: Path) -> None:
    study = finished_study(tmp_path, trial={"settings": {"loss_on": "all"}})
    rows = tmp_path / "rows.jsonl"

    made = exported(study, "training-hub", rows=rows)

    _, arguments = arguments_of(made.text)
    assert (arguments["data_path"], arguments["num_epochs"]) == (str(rows), 1)
    assert all(json.loads(line)["unmask"] is True for line in rows.read_text().splitlines())


def test_training_data_is_not_overwritten(tmp_path: Path) -> None:
    study = finished_study(tmp_path)

    with pytest.raises(
        ConfigError, match=r"`--data`: .*train\.jsonl is the trial's own training data\. Choose"
    ):
        exported(study, "llamafactory", out=tmp_path / "t.yaml", rows=tmp_path / "train.jsonl")

    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == len(CHATS)


def test_sources_of_different_kinds_are_refused_with_the_way_out(tmp_path: Path) -> None:
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": "a"}])
    chats = write_jsonl(tmp_path / "chats.jsonl", CHATS)
    study = finished_study(tmp_path, trial={"train_data": [str(texts), str(chats)]})

    with pytest.raises(ConfigError, match=r"hold chats in `messages` and plain texts, .* `--data FILE`"):
        exported(study, "trl")


def test_llamafactory_says_which_ends_of_pairs_it_does_not_write(tmp_path: Path) -> None:
    study = finished_study(tmp_path, rows=[{"prompt": "a", "completion": "b"}])

    text = exported(study, "llamafactory", out=tmp_path / "train.yaml").text

    assert "the template `empty` writes neither, so the model does not learn to stop. `--data FILE`" in text


def test_chats_of_both_kinds_become_one_file_for_llamafactory(tmp_path: Path) -> None:
    pair = [{"prompt": CHATS[0]["messages"][:1], "completion": CHATS[0]["messages"][1:]}]
    sources = [write_jsonl(tmp_path / "pairs.jsonl", pair), write_jsonl(tmp_path / "chats.jsonl", CHATS)]
    study = finished_study(tmp_path, trial={"train_data": [str(path) for path in sources]})
    out = tmp_path / "train.yaml"

    with pytest.raises(ConfigError, match=r"Write the rows to one file with `--data FILE`\."):
        exported(study, "llamafactory", out=out)
    exported(study, "llamafactory", out=out, rows=tmp_path / "rows.jsonl")

    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert all(set(row) == {"messages"} for row in rows)
    (entry,) = json.loads((tmp_path / "train-data" / "dataset_info.json").read_text()).values()
    assert (entry["formatting"], entry["columns"]) == ("openai", {"messages": "messages"})


def test_what_one_file_cannot_hold_is_refused_with_a_format_that_can(tmp_path: Path) -> None:
    sources = [
        write_jsonl(tmp_path / "texts.jsonl", [{"text": "a"}]),
        write_jsonl(tmp_path / "chats.jsonl", CHATS),
    ]
    study = finished_study(tmp_path, trial={"train_data": [str(path) for path in sources]})

    with pytest.raises(
        ConfigError, match=r"Choose `--format trl` or `axolotl`, which take tokens with labels\."
    ):
        exported(study, "llamafactory", out=tmp_path / "train.yaml", rows=tmp_path / "rows.jsonl")


def test_training_hub_refuses_what_is_no_chat(tmp_path: Path) -> None:
    study = finished_study(tmp_path, rows=[{"text": "a"}])

    with pytest.raises(ConfigError, match=r"training-hub trains chats, but .* holds plain texts"):
        exported(study, "training-hub")


def test_formats_of_two_files_need_a_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`--format llamafactory` is more than one file\. Say where"):
        exported(finished_study(tmp_path), "llamafactory")


def test_unknown_format_names_the_nearest(tmp_path: Path) -> None:
    finished_study(tmp_path)

    with pytest.raises(ConfigError, match=r"unknown format `axolotle`\. Did you mean `axolotl`\?"):
        run_export(str(tmp_path / "study"), ExportRequest(format_name="axolotle"))


def test_trial_that_is_not_in_the_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyMismatchError, match="Study `made` has no trial 7: its trials are 0 to 2"):
        exported(finished_study(tmp_path), "trl", number=7)


def test_study_without_a_complete_trial_has_no_best(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", make_config(trial={"settings": {}}))

    with pytest.raises(StudyMismatchError, match=r"No trial of study `made-up` has completed: 4 waiting\."):
        run_export(str(study.directory), ExportRequest(lock=tmp_path / "lock.json"))


def test_study_of_a_users_function_is_refused(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", make_config())

    for name in FORMATS:
        with pytest.raises(
            ConfigError, match="trains with the function `trial_functions:steady`, whose settings"
        ):
            exported(study, name, number=0)


def test_export_of_nothing_is_refused(tmp_path: Path) -> None:
    finished_study(tmp_path)
    place = str(tmp_path / "study")

    with pytest.raises(ConfigError, match=r"Say what to export: `--format` \(trl, "):
        run_export(place, ExportRequest())
    with pytest.raises(ConfigError, match="`--data` needs `--format`"):
        run_export(place, ExportRequest(rows=tmp_path / "rows.jsonl"))
    same = tmp_path / "same"
    with pytest.raises(ConfigError, match="must be different files"):
        run_export(place, ExportRequest(format_name="trl", out=same, rows=same))


def test_yaml_keeps_floats_and_words_for_readers_of_version_1_1() -> None:
    content = {"rate": 1e-05, "tiny": 1.5e-300, "no": "no", "words": ["on", "a: b", ""], "none": None}
    nested = {"kwargs": {"a": {}}, "list": [{"x": 1, "y": [1, 2]}, {"x": "é"}]}

    assert read(yaml_text(content | nested)) == content | nested


@pytest.mark.train
def test_code_that_a_studys_model_brings_is_not_run_on_the_studys_word(tmp_path: Path) -> None:
    study = finished_study(tmp_path, trial={"trust_remote_code": True})
    model, mark = tmp_path / "model", tmp_path / "mark"
    (model / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"})
    )
    (model / "own.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nfrom transformers import PreTrainedTokenizer\n"
        "class Own(PreTrainedTokenizer): ...\n"
    )
    place, out = str(study.directory), tmp_path / "sft.yaml"

    done = run_export(place, ExportRequest(format_name="trl", out=out))
    with pytest.raises(ConfigError, match=r"Give `--trust-remote-code` if you trust it too\."):
        run_export(place, ExportRequest(format_name="trl", out=out, rows=tmp_path / "rows.jsonl"))

    assert not mark.exists()
    assert (
        "trust_remote_code: true" in out.read_text()
    )  # the other trainer is told what the study's trials did
    assert any(line.startswith("not run: the code that the model brings") for line in done.said)
    with contextlib.suppress(ConfigError, NotImplementedError):  # it is no whole tokenizer
        run_export(place, ExportRequest(format_name="trl", out=out, trusts_code=True))
    assert mark.exists()
