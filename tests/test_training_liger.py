"""Liger's kernels: on a trial's model, and on no other. They are compiled for GPUs, and Triton can interpret them."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import training_fixtures
from sweep_files import config_of
from training_fixtures import RecordingChannel, Tiny, all_rows, make_context

from sweeper.errors import ConfigError
from sweeper.preflight.facts import run_preflight

tiny = training_fixtures.tiny

SWEEP = """\
study: demo
metric: dev/loss
direction: minimize
trial:
  model: org/model
  train_data: org/train
  eval_data: {dev: org/dev}
  budget: {samples: 1024}
  settings: {use_liger_kernel: true}
search_space:
  learning_rate: {grid: [1e-5, 1e-4]}
resources: {gpus_per_trial: 0}
"""
KERNELS = Path(sys.prefix) / "liger"
LIGER = {"use_liger_kernel": True}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Put a package in Liger's place that patches as it does, and notes what is called."""
    import transformers.integrations.liger
    from transformers.models.llama import modeling_llama

    rotated = modeling_llama.apply_rotary_pos_emb
    noted: list[str] = []

    def rotary(*arguments: Any, **words: Any) -> Any:
        noted.append("rotary")
        return rotated(*arguments, **words)

    def apply(model: Any, config: dict[str, bool]) -> None:
        assert config == {"cross_entropy": False, "fused_linear_cross_entropy": False}
        modeling_llama.apply_rotary_pos_emb = rotary
        modeling_llama.LlamaMLP = type("FusedMLP", (), {})

    kinds = types.ModuleType("liger_kernel.transformers.monkey_patch")
    vars(kinds)["MODEL_TYPE_TO_APPLY_LIGER_FN"] = {"llama": apply}
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, kinds.__name__, kinds)
    monkeypatch.setattr(transformers.integrations.liger, "apply_liger_kernel", apply)
    yield noted
    assert modeling_llama.apply_rotary_pos_emb is rotated
    assert modeling_llama.LlamaMLP.__name__ == "LlamaMLP"


def test_a_trial_without_a_gpu_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="`use_liger_kernel: true` needs a GPU, but trials get none: this machine has"
    ):
        run_preflight(config_of(SWEEP))


@pytest.mark.train
def test_the_kernels_are_used_by_their_trial_alone(tiny: Tiny, tmp_path: Path, calls: list[str]) -> None:
    from sweeper.training import finetune

    def train(name: str, **settings: Any) -> list[Any]:
        context = make_context(tiny.model, tiny.train, tmp_path / name, settings=settings)
        finetune.run(context)
        return all_rows(context)

    plain = train("plain")
    assert calls == []
    fused = train("fused", **LIGER)
    used = len(calls)
    after = train("after")

    assert used > 0
    assert len(calls) == used
    assert [row.loss for row in fused] == [row.loss for row in plain]  # the stand-ins compute the same
    assert [(row.loss, row.grad_norm) for row in after] == [(row.loss, row.grad_norm) for row in plain]


@pytest.mark.train
def test_a_trial_that_fails_or_is_stopped_leaves_no_kernels_behind(
    tiny: Tiny, tmp_path: Path, calls: list[str]
) -> None:
    from sweeper.channel import TrialStopped
    from sweeper.training import finetune

    for channel, error in (
        (RecordingChannel(raise_at_step=2), RuntimeError),
        (RecordingChannel(stop_at_step=2), TrialStopped),
    ):
        context = make_context(
            tiny.model,
            tiny.train,
            tmp_path / error.__name__,
            settings=LIGER,
            channel=channel,
            step_marks=(2,),
        )
        with pytest.raises(error):
            finetune.run(context)
    assert calls  # what is left behind the fixture looks for


@pytest.mark.train
@pytest.mark.usefixtures("calls")
def test_a_model_that_liger_has_nothing_for_is_refused() -> None:
    import transformers

    from sweeper.training.liger import liger_problem, put_liger_on

    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=16, n_positions=8)
    )
    assert liger_problem("llama") is None
    with pytest.raises(ConfigError, match=r"Liger has no kernels for models of type `gpt2`\. Leave it out\."):
        put_liger_on(model)


@pytest.mark.train
def test_what_cannot_be_taken_off_again_is_refused(
    tiny: Tiny, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    from sweeper.training.liger import put_liger_on

    apply = transformers.integrations.liger.apply_liger_kernel
    late = types.ModuleType("transformers.models.late.modeling_late")

    def reaches_further(model: Any, config: dict[str, bool]) -> None:
        apply(model, config)
        monkeypatch.setitem(sys.modules, late.__name__, late)

    monkeypatch.setattr(transformers.integrations.liger, "apply_liger_kernel", reaches_further)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny.model)
    with pytest.raises(
        ConfigError, match=r"type `llama` again: Liger changes transformers\.models\.late\.modeling_late"
    ):
        put_liger_on(model)


# Triton's interpreter (3.9) leaves numbers that are no integers as Python's, and has none of CUDA's own functions, both
# of which its compiler turns into its own.
INTERPRETED = """
import importlib
import json
import sys
from pathlib import Path
import numpy as np
from training_fixtures import all_rows, make_context
from triton import language
from triton.runtime import interpreter
from sweeper.training import finetune

def train(name, **settings):
    model, rows, root = map(Path, sys.argv[1:])
    context = make_context(model, rows, root / name, settings=settings, total_steps=3)
    finetune.run(context)
    return [(row.loss, row.grad_norm) for row in all_rows(context)]

def as_compiled(value):
    if not isinstance(value, float):
        return convert(value)
    handle = interpreter.TensorHandle(np.array([value], dtype=np.float32), language.float32)
    return language.tensor(handle, language.float32)

plain, adapted = train("plain"), train("adapted", method="lora", lora_rank=2)
assert "liger_kernel" not in sys.modules
convert, interpreter._implicit_cvt = interpreter._implicit_cvt, as_compiled
importlib.import_module("liger_kernel.ops.rms_norm").rsqrt = lambda x: language.math.rsqrt(x)
fused = train("fused", use_liger_kernel=True)
fused_adapted = train("fused_adapted", method="lora", lora_rank=2, use_liger_kernel=True)
assert train("after") == plain
print("ROWS", json.dumps([plain, fused, adapted, fused_adapted]))
"""


@pytest.mark.train
@pytest.mark.slow
def test_the_interpreted_kernels_give_the_same_losses_and_norms(tiny: Tiny, tmp_path: Path) -> None:
    if not KERNELS.is_dir():
        pytest.skip("Liger's kernels are not installed: tests/run.sh --all does")
    path = f"{Path(__file__).parent}:{KERNELS}:{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED, str(tiny.model), str(tiny.train), str(tmp_path)],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("ROWS "))
    plain, fused, adapted, fused_adapted = json.loads(line.removeprefix("ROWS "))
    for with_kernels, without in ((fused, plain), (fused_adapted, adapted)):
        assert with_kernels != without  # they were used: they round otherwise
        for ours, theirs in zip(with_kernels, without, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.gpu
def test_the_kernels_give_the_same_losses_on_a_gpu(tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("liger_kernel")
    from sweeper.training import finetune

    rows = {}
    for name, settings in (("plain", {}), ("fused", LIGER), ("after", {})):
        context = make_context(
            tiny.model, tiny.train, tmp_path / name, settings={"precision": "fp32"} | settings, gpu_share=1.0
        )
        finetune.run(context)
        rows[name] = [(row.loss, row.grad_norm) for row in all_rows(context)]
    assert rows["after"] == rows["plain"]
    assert rows["fused"] != rows["plain"]
    for fused, plain in zip(rows["fused"], rows["plain"], strict=True):
        assert fused == pytest.approx(plain, rel=1e-2)
