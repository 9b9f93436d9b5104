"""`micro_batch_size: auto`: what is tried, what is remembered, and that a trial trains with what was found."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import training_fixtures
from training_fixtures import Tiny, all_rows, make_context

from sweeper.context import TrialContext
from sweeper.training.memory import limit_gpu_memory

pytestmark = pytest.mark.train
tiny = training_fixtures.tiny


def auto(tiny: Tiny, root: Path, **spec: Any) -> TrialContext:
    return make_context(
        tiny.model, tiny.train, root, settings={"micro_batch_size": "auto", "effective_batch_size": 16},
        micro_batch_size=16, gradient_accumulation_steps=1, total_steps=3, **spec,
    )  # fmt: skip


def test_on_a_cpu_it_is_the_usual_size_and_the_curve_is_that_of_it(tiny: Tiny, tmp_path: Path) -> None:
    from sweeper.training import finetune

    context = auto(tiny, tmp_path / "auto")
    finetune.run(context)
    assert context.micro_batch_size == 8

    fixed = make_context(
        tiny.model,
        tiny.train,
        tmp_path / "fixed",
        micro_batch_size=8,
        gradient_accumulation_steps=2,
        total_steps=3,
    )
    finetune.run(fixed)
    assert all_rows(context) == all_rows(fixed)


def test_where_there_is_a_gpu_the_trial_trains_with_what_was_tried_out(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from sweeper.training import finetune, micro_batch

    tried = []
    really_train = micro_batch.MicroBatchSearch.train

    def train(self: Any, size: int) -> None:
        tried.append(size)
        really_train(self, size)  # the longest rows really go through the trainer
        if size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    @dataclasses.dataclass
    class Properties:
        total_memory: int = 1 << 30

    monkeypatch.setattr(micro_batch.MicroBatchSearch, "train", train)
    monkeypatch.setattr(micro_batch, "is_on_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties())
    shares = []
    monkeypatch.setattr(
        micro_batch, "limit_gpu_memory", lambda share, headroom=1.0: shares.append(share * headroom)
    )
    free = [1 << 30]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free[0], 1 << 40))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 0)
    monkeypatch.setattr(micro_batch, "_CONTEXT_BYTES", 1 << 41)

    context = auto(tiny, tmp_path / "first", gpu_share=0.5)
    finetune.run(context)
    assert tried == [16, 8, 4, 2]
    assert context.micro_batch_size == 2
    assert shares == [0.475, 0.5] * 4
    (kept,) = (Path(tiny.model).parent / "cache" / "micro_batches").glob("*.json")
    assert json.loads(kept.read_text()) == {"fits": 2, "fails": 4}

    tried.clear()
    again = auto(tiny, tmp_path / "again", gpu_share=0.5)
    finetune.run(again)
    assert (tried, again.micro_batch_size) == ([], 2)
    monkeypatch.setattr(micro_batch, "_CONTEXT_BYTES", 0)
    free[0] = 0  # somebody else holds the GPU's memory
    busy = auto(tiny, tmp_path / "other", gpu_share=1.0)  # another share of the GPU is another room
    finetune.run(busy)
    assert (tried, busy.micro_batch_size) == ([16, 8, 4, 2], 2)
    kept_too = next(p for p in kept.parent.glob("*.json") if p != kept)
    assert json.loads(kept_too.read_text()) == {
        "fits": 2,
        "fails": None,
    }  # that the others did not fit says nothing of the model


@pytest.mark.gpu
def test_on_a_gpu_with_little_memory_a_smaller_micro_batch_is_found(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from sweeper.training import finetune, memory

    monkeypatch.setattr(
        memory, "_CONTEXT_BYTES", 0
    )  # what CUDA takes is more than all of what is trained here
    total = torch.cuda.get_device_properties(0).total_memory
    taken = {}
    for rows in (16, 1):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()  # other trainings of this process may have taken more
        place = tmp_path / f"rows-{rows}"
        finetune.run(make_context(tiny.model, tiny.train, place, micro_batch_size=rows, total_steps=3))
        taken[rows] = torch.cuda.max_memory_reserved()
    held = torch.cuda.memory_allocated()
    assert taken[16] - taken[1] > 20 * 2**20, "less than the blocks that the allocator takes memory in"

    # Between what one row takes in a pass and what all of them take; the search itself leaves 5 % free.
    context = auto(tiny, tmp_path / "auto", gpu_share=(taken[1] + taken[16]) / 2 / 0.95 / total)
    finetune.run(context)
    assert context.micro_batch_size is not None
    assert context.micro_batch_size < 16
    (kept,) = (Path(tiny.model).parent / "cache" / "micro_batches").glob("*.json")
    assert json.loads(kept.read_text())["fails"] is not None
    assert torch.cuda.memory_allocated() <= held  # nothing of what was tried stays
    limit_gpu_memory(1.0)
