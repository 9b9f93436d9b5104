"""Adapters on a base model in 4 bits. bitsandbytes computes on CPUs too, slowly, so the training itself is tested."""

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
search_space:
  method: {grid: [lora, qlora]}
resources: {gpus_per_trial: 0}
"""


def test_a_trial_without_a_gpu_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="`method: qlora` needs a GPU, but trials get none: this machine has"
    ):
        run_preflight(config_of(SWEEP))


@pytest.mark.train
@pytest.mark.slow
def test_adapters_learn_on_a_frozen_base_in_4_bits_and_go_on_bitwise(tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    import safetensors.torch
    import torch

    from sweeper.training import finetune
    from sweeper.training.checkpoints import WEIGHTS

    options: dict[str, Any] = {"settings": {"method": "qlora", "lora_rank": 4}, "total_steps": 6}
    whole = make_context(tiny.model, tiny.train, tmp_path / "whole", checkpoint_marks=(8, 40), **options)
    finetune.run(whole)
    killed = make_context(
        tiny.model, tiny.train, tmp_path / "cut", channel=RecordingChannel(raise_at_step=4), step_marks=(4,),
        checkpoint_marks=(24,), **options,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="killed"):
        finetune.run(killed)
    resumed = make_context(tiny.model, tiny.train, tmp_path / "cut", **options)
    finetune.run(resumed)

    rows = all_rows(whole)
    assert rows[-1].loss < rows[0].loss  # type: ignore[operator]
    assert all_rows(resumed) == rows[3:]
    trained = safetensors.torch.load_file(next((tmp_path / "whole" / "checkpoints").glob("*")) / WEIGHTS)
    assert {tensor.dtype for tensor in trained.values()} == {torch.float32}
    assert all("lora_" in name for name in trained)
