"""Exports read, and run, by the tools that they are for, where these are installed."""

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import export_fixtures
import pytest
from export_fixtures import LORA, exported, finished_study
from ruamel.yaml import YAML
from training_fixtures import CHAT_TEMPLATE, make_tokenizer

from sweeper import api
from sweeper.reporting.export.write import FORMATS
from sweeper.study.study import Study

# Exports have the older name of `activation_checkpointing`: all of transformers 5 reads it, the newest with a warning.
_OLDER_NAME = "ignore:`gradient_checkpointing` is deprecated:FutureWarning"
pytestmark = [pytest.mark.train, pytest.mark.filterwarnings(_OLDER_NAME)]
known_keys = export_fixtures.known_keys
TINY = Path(__file__).resolve().parent.parent / "examples" / "tiny"
TOLERANCE = 1e-3  # between losses; sums of floats come in another order, which grows with the steps
N_STEPS = 6


def trained_config(**settings: Any) -> dict[str, Any]:
    """Return a sweep of one point over examples/tiny that takes a second."""
    return {
        "study": "real",
        "metric": "loss",
        "direction": "minimize",
        "trial": {
            "model": str(TINY / "model"),
            "train_data": str(TINY / "data" / "train.jsonl"),
            "budget": {"samples": 8 * N_STEPS},
            "checkpoint": {"save_model": True},
            "settings": {
                "micro_batch_size": 4,
                "effective_batch_size": 8,
                "max_length": 64,
                "precision": "fp32",
                "warmup_steps": 2,
                "lr_scheduler_type": "linear",
                "seed": 3,
                **settings,
            },
        },
        "search_space": {"learning_rate": {"grid": [1e-3]}},
        "pruner": "nop",
        "rungs": {"samples": [16]},
        "resources": {"gpus_per_trial": 0, "slots": 1},
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """A trained study of one trial."""
    root = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEPER_CACHE", str(root / "cache"))
        options = api.LaunchOptions(dir=str(root / "study"), executor="in-process")
        with contextlib.redirect_stderr(io.StringIO()):
            api.launch(trained_config(), options=options)
        yield Study.open(str(root / "study"))


def parse_trl(path: Path) -> tuple[Any, ...]:
    """Read a file as `trl sft --config` does."""
    from trl.scripts.sft import make_parser

    parsed: tuple[Any, ...] = make_parser().parse_args_and_config(
        ["--config", str(path)], return_remaining_strings=True
    )
    return parsed


@pytest.mark.parametrize(
    "settings", [{}, LORA, {**LORA, "lora_target_modules": "all-linear"}, {**LORA, "method": "qlora"}]
)
def test_trls_parser_knows_every_key(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = tmp_path / "trl.yaml"
    made = finished_study(
        tmp_path, trial={"revision": "abc", "settings": {**settings, "attn_implementation": "sdpa"}}
    )

    exported(made, "trl", out=path)
    _, arguments, model, data, rest = parse_trl(path)

    assert rest == ["--num_processes", "1"]  # for `accelerate launch`, to which `trl sft` hands what is left
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    assert (batch, arguments.max_steps, arguments.warmup_steps) == (8, 6, 1)
    assert (arguments.learning_rate, arguments.lr_scheduler_kwargs) == (1e-5, {"num_cycles": 2})
    assert (arguments.bf16, arguments.gradient_checkpointing) == (False, False)
    assert (model.model_name_or_path, model.model_revision) == (str(tmp_path / "model"), "abc")
    assert data.datasets[0].data_files == [str(tmp_path / "train.jsonl")]
    if settings:
        modules = settings["lora_target_modules"]
        assert (model.use_peft, model.lora_r, model.lora_alpha) == (True, 4, 8)
        assert model.lora_target_modules == modules
    is_in_4_bits = settings.get("method") == "qlora"
    assert (model.load_in_4bit, model.use_bnb_nested_quant) == (is_in_4_bits, is_in_4_bits)


def test_a_single_module_gets_its_adapters_from_trl(tmp_path: Path) -> None:
    import peft
    import transformers
    from trl.trainer.utils import get_peft_config

    from sweeper.training.model import without_peft_warning

    settings = {**LORA, "lora_target_modules": ["q_proj"]}
    exported(finished_study(tmp_path, trial={"settings": settings}), "trl", out=tmp_path / "trl.yaml")

    config = get_peft_config(parse_trl(tmp_path / "trl.yaml")[2])

    base = transformers.AutoModelForCausalLM.from_pretrained(TINY / "model")
    with without_peft_warning():
        model = peft.get_peft_model(base, config)
    adapted = {name.split(".")[-4] for name, _ in model.named_parameters() if "lora_" in name}
    assert adapted == {"q_proj"}


def test_packing_is_known_to_trl(tmp_path: Path) -> None:
    path = tmp_path / "trl.yaml"
    made = finished_study(tmp_path, trial={"settings": {"packing": True}})

    exported(made, "trl", out=path)
    arguments = parse_trl(path)[1]

    assert (arguments.packing, arguments.padding_free, arguments.max_length) == (False, True, None)


def test_transformers_parser_takes_training_args(tmp_path: Path) -> None:
    import transformers

    path = tmp_path / "args.yaml"
    exported(finished_study(tmp_path), "training-args", out=path)

    parser = transformers.HfArgumentParser(transformers.TrainingArguments)
    (arguments,) = parser.parse_yaml_file(str(path))

    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    assert (batch, arguments.max_steps, arguments.seed) == (8, 6, 0)
    assert (arguments.learning_rate, arguments.adam_beta2) == (1e-5, 0.95)
    assert arguments.lr_scheduler_type == "cosine_with_restarts"
    assert arguments.save_strategy == "no"


def test_llamafactorys_trainer_keys_are_transformers_own(tmp_path: Path, known_keys: dict[str, Any]) -> None:
    import transformers

    own = {field.name for field in dataclasses.fields(transformers.Seq2SeqTrainingArguments)}
    path = tmp_path / "train.yaml"
    exported(finished_study(tmp_path), "llamafactory", out=path)

    content = YAML(typ="safe", pure=True).load(path)

    assert set(content) <= own | set(known_keys["llamafactory"]["keys"])


def run_trl(folder: Path, path: Path, command: list[str]) -> list[dict[str, float]]:
    """Train from a file; return what TRL logged of every step."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    saving = ["--save_strategy", "steps", "--save_steps", str(N_STEPS)]  # the log lies in the checkpoint
    done = subprocess.run(
        [*command, "--config", str(path), *saving],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    state = json.loads((folder / "real-trial-0" / f"checkpoint-{N_STEPS}" / "trainer_state.json").read_text())
    return [entry for entry in state["log_history"] if "loss" in entry]


@pytest.mark.slow
def test_trls_command_trains_from_the_file_to_the_same_losses(study: Study, tmp_path: Path) -> None:
    exported(study, "trl", out=tmp_path / "trl.yaml", rows=tmp_path / "rows.jsonl")

    logged = run_trl(tmp_path, tmp_path / "trl.yaml", [str(Path(sys.executable).with_name("trl")), "sft"])

    curve = study.view().curve(0)
    assert [entry["loss"] for entry in logged] == pytest.approx(curve["loss"].tolist(), abs=TOLERANCE)
    assert [entry["grad_norm"] for entry in logged] == pytest.approx(
        curve["grad_norm"].tolist(), rel=TOLERANCE
    )
    assert [entry["learning_rate"] for entry in logged] == pytest.approx(curve["learning_rate"].tolist())
    assert (tmp_path / "real-trial-0" / "model.safetensors").exists()


def test_trl_learns_the_same_tokens_of_the_data_in_place(study: Study, tmp_path: Path) -> None:
    """Without `--data` TRL tokenises itself."""
    import trl
    from datasets import load_dataset

    from sweeper.config.trial_models import TrainSettings
    from sweeper.training.tokenizer import load_tokenizer
    from sweeper.training.tokens import load_train_rows

    exported(study, "trl", out=tmp_path / "trl.yaml")
    _, arguments, model, data, _ = parse_trl(tmp_path / "trl.yaml")
    entry = data.datasets[0]
    rows = load_dataset(entry.path, data_files=entry.data_files, split="train[:50]", cache_dir=str(tmp_path))
    arguments.output_dir = str(tmp_path / "out")
    arguments.dataset_num_proc = None
    trainer = trl.SFTTrainer(model=model.model_name_or_path, args=arguments, train_dataset=rows)

    trial = study.config.trial
    settings = TrainSettings.model_validate(study.records()[0].settings)
    own = load_train_rows(trial, settings, load_tokenizer(trial))
    for index, row in enumerate(trainer.train_dataset):
        assert row["input_ids"] == own[index]["input_ids"].tolist()
        assert row["labels"] == own[index]["labels"].tolist()


def test_rows_for_axolotl_are_tokens_with_masks(study: Study, tmp_path: Path) -> None:
    exported(study, "axolotl", rows=tmp_path / "rows.jsonl")

    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]

    assert len(rows) == 8 * N_STEPS
    for row in rows:
        assert set(row) == {"input_ids", "attention_mask", "labels"}
        assert len(row["input_ids"]) == len(row["attention_mask"]) == len(row["labels"])


@pytest.mark.parametrize("has_bos", [True, False])
def test_pairs_for_llamafactory_hold_the_ends_that_it_does_not_add(tmp_path: Path, has_bos: bool) -> None:
    import transformers
    from tokenizers import processors

    from sweeper.reporting.export.chosen import choose_trial
    from sweeper.training.tokenizer import load_tokenizer
    from sweeper.training.tokens import load_train_rows

    pairs = [{"prompt": f"say {n}:", "completion": f" {n}"} for n in range(4)]
    made = finished_study(tmp_path, rows=[*pairs, {"prompt": "", "completion": " ended<|end|>"}])
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY / "model")
    if has_bos:
        tokenizer.bos_token = "<|user|>"
        start = [("<|user|>", tokenizer.bos_token_id)]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|user|> $A", pair="$A $B", special_tokens=start
        )
    tokenizer.save_pretrained(tmp_path / "model")

    exported(made, "llamafactory", out=tmp_path / "train.yaml", rows=tmp_path / "rows.jsonl")

    # The tool's template `empty` (0.9.5): each text as it is, and nothing else.
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    read = [
        [tokenizer(row[name], add_special_tokens=False)["input_ids"] for name in ("prompt", "completion")]
        for row in rows
    ]
    chosen = choose_trial(made.view(), None, None)
    own = load_train_rows(chosen.trial, chosen.settings, load_tokenizer(chosen.trial))
    tokens = {tuple(own[index]["input_ids"].tolist()) for index in range(len(own))}
    assert {tuple(prompt + completion) for prompt, completion in read} == tokens
    assert all(completion.count(tokenizer.eos_token_id) == 1 for _, completion in read)


def test_axolotl_is_told_of_a_turns_end_that_is_not_the_tokenizers(tmp_path: Path) -> None:
    made = finished_study(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")

    content = YAML(typ="safe", pure=True).load(exported(made, "axolotl").text)

    assert (tokenizer.eos_token, content["eot_tokens"]) == ("<|eos|>", ["<|end|>"])


def test_every_format_says_that_a_template_writes_the_day(tmp_path: Path) -> None:
    made = finished_study(tmp_path)
    template = "<|system|>{{ strftime_now('%d %b %Y') }}<|end|>" + CHAT_TEMPLATE
    make_tokenizer(template=template).save_pretrained(tmp_path / "model")
    out, rows = tmp_path / "file", tmp_path / "rows.jsonl"

    for name, format in FORMATS.items():
        in_place, written = exported(made, name, out=out).text, exported(made, name, out=out, rows=rows).text

        assert (
            "The date: the chat template writes that of the day, and in the trial always 26 Jul 2024."
            in in_place
        )
        # Written chats are rendered by the tool all the same.
        assert ("The date:" in written) is (format.row_kind == "chats"), name


def test_exported_model_loads_with_its_tokenizer(study: Study, tmp_path: Path) -> None:
    import transformers

    from sweeper.reporting.export.run import ExportRequest, run_export

    run_export(str(study.directory), ExportRequest(model=tmp_path / "model"))

    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.vocab_size >= len(tokenizer)
    assert "| training | train.jsonl |" in (tmp_path / "model" / "README.md").read_text()
