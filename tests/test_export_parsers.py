"""Exports read by axolotl's, LLaMA-Factory's and training-hub's own schema or parser.

`tests/run.sh --all` puts these tools beside the environment, each without its dependencies: they pin other versions of
torch and transformers than we do, and their parsers do without most of the rest. Each reads in a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from export_fixtures import LORA, exported, finished_study

QLORA = LORA | {"method": "qlora"}
LIGER = {"use_liger_kernel": True}
TOOLS = Path(sys.prefix) / "export-tools"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not TOOLS.is_dir(), reason="the other tools are not installed: tests/run.sh --all does"
    ),
]

AXOLOTL = """
import importlib.util, pathlib, runpy
from axolotl.utils.schemas.config import AxolotlInputConfig as Schema
from ruamel.yaml import YAML
content = YAML(typ="safe", pure=True).load(open(sys.argv[1]))
fields = Schema.model_fields
root = pathlib.Path(importlib.util.find_spec("axolotl").origin).parent
liger = runpy.run_path(str(root / "integrations/liger/args.py"))["LigerArgs"]  # its package needs all of axolotl
known = set(fields) | {field.alias for field in fields.values()} | set(liger.model_fields)
config = Schema.model_validate(content)
say(unknown=sorted(set(content) - known), batch=config.micro_batch_size * config.gradient_accumulation_steps,
    steps=config.max_steps, rate=config.learning_rate,
    rank=config.lora_r, flattens=config.batch_flattening, in_4_bits=bool(config.load_in_4bit))
"""
LLAMAFACTORY = """
from llamafactory.hparams import (
    DataArguments, FinetuningArguments, GeneratingArguments, ModelArguments, TrainingArguments,
)
from ruamel.yaml import YAML
from transformers import HfArgumentParser
content = YAML(typ="safe", pure=True).load(open(sys.argv[1]))
parser = HfArgumentParser([ModelArguments, DataArguments, TrainingArguments, FinetuningArguments, GeneratingArguments])
model, data, training, finetuning, _ = parser.parse_dict(content)  # raises for a key that it does not know
say(unknown=[], batch=training.per_device_train_batch_size * training.gradient_accumulation_steps,
    steps=training.max_steps, rate=training.learning_rate,
    rank=finetuning.lora_rank if finetuning.finetuning_type == "lora" else None,
    in_4_bits=model.quantization_bit == 4 and model.quantization_type == "nf4" and model.double_quantization)
"""
TRAINING_HUB = """
import ast, inspect, re, training_hub
from training_hub.algorithms import lora
from instructlab.training.config import TorchrunArgs, TrainingArgs
call = next(node for node in ast.walk(ast.parse(open(sys.argv[1]).read())) if isinstance(node, ast.Call))
given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
function = getattr(training_hub, call.func.id)
known = {name for name, one in inspect.signature(function).parameters.items() if one.kind is not one.VAR_KEYWORD}
# What the functions do not name they hand on: `sft` to its backend's models, `lora_sft` to its backend's dict.
if call.func.id == "sft":
    backend = set(TrainingArgs.model_fields) | set(TorchrunArgs.model_fields)
else:
    backend = set(re.findall(r"params(?:\\.get\\(|\\[)'(\\w+)'", inspect.getsource(lora)))  # what it reads
say(unknown=sorted(set(given) - known - backend), batch=given["effective_batch_size"], steps=None,
    rate=given["learning_rate"], rank=given.get("lora_r"), in_4_bits=given.get("load_in_4bit", False))
"""


def read_by_tool(code: str, file: Path) -> dict[str, Any]:
    """Run a tool's parser on a file; return what it said of it."""
    start = "import json, sys\ndef say(**facts): print('FACTS ' + json.dumps(facts))\n"
    environment = os.environ | {"PYTHONPATH": str(TOOLS), "DISABLE_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", start + code, str(file)],
        env=environment, cwd=file.parent, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("FACTS "))
    return dict(json.loads(line.removeprefix("FACTS ")))


@pytest.mark.parametrize("settings", [{}, LORA, QLORA, LIGER], ids=["full", "lora", "qlora", "liger"])
@pytest.mark.parametrize(
    ("name", "code"),
    [("axolotl", AXOLOTL), ("llamafactory", LLAMAFACTORY), ("training-hub", TRAINING_HUB)],
)
def test_the_tools_own_parser_knows_every_key_and_gets_the_same_batch(
    tmp_path: Path, name: str, code: str, settings: dict[str, Any]
) -> None:
    file = tmp_path / "export.txt"
    exported(finished_study(tmp_path, trial={"settings": settings}), name, out=file)

    read = read_by_tool(code, file)

    assert read["unknown"] == []
    assert read["batch"] == 8
    assert read["rate"] == 1e-5
    if name != "training-hub":  # which counts epochs
        assert read["steps"] == 6
    if "lora_rank" in settings:
        assert read["rank"] == 4
    assert read["in_4_bits"] is (settings is QLORA)


@pytest.mark.parametrize(("attention", "flattens"), [(None, False), ("flash_attention_2", True)])
def test_axolotl_takes_a_trial_that_packs_with_whatever_attention(
    tmp_path: Path, attention: str | None, flattens: bool
) -> None:
    file = tmp_path / "export.txt"
    settings = {"packing": True, "attn_implementation": attention, "precision": "bf16"}
    exported(finished_study(tmp_path, trial={"settings": settings}), "axolotl", out=file)

    assert read_by_tool(AXOLOTL, file)["flattens"] is flattens
