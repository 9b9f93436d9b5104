"""What a trial leaves in its worker: no model and no optimiser, however it ended; and on a GPU, no waiting."""

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import training_fixtures
from training_fixtures import RecordingChannel, Tiny, all_rows, make_context

from sweeper.context import TrialContext
from sweeper.executors.attempt import run_attempt
from sweeper.records import OutcomeKind, Report
from sweeper.training.memory import limit_gpu_memory

pytestmark = pytest.mark.train
tiny = training_fixtures.tiny


class _Stopping(RecordingChannel):
    """Tells the trial to end after its second step."""

    def should_stop(self) -> bool:
        return any(report.rows and report.rows[-1].step >= 2 for report in self.reports)


class _Failing(RecordingChannel):
    """Lets the trial run out of memory when it reports its second step."""

    def send(self, report: Report, *, wait: bool) -> None:
        super().send(report, wait=wait)
        if report.rows and report.rows[-1].step >= 2:
            raise MemoryError("out of memory")


ENDS = {
    "done": (RecordingChannel, {}, OutcomeKind.DONE),
    "done, adapters": (RecordingChannel, {"method": "lora", "lora_rank": 2}, OutcomeKind.DONE),
    "stopped": (_Stopping, {}, OutcomeKind.STOPPED),
    "failed": (_Failing, {}, OutcomeKind.FAILED),
}


def attempt(tiny: Tiny, root: Path, end: str) -> OutcomeKind:
    make_channel, settings, _ = ENDS[end]
    context = make_context(
        tiny.model, tiny.train, root, total_steps=4, step_marks=(1, 2, 3), settings=settings, metric="loss"
    )
    return run_attempt(context.spec, make_channel()).kind


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect weak references to every trainer, model and optimiser that trials make."""
    from sweeper.training import finetune
    from sweeper.training.trainer import SweepTrainer

    seen: list[Any] = []
    really_make = finetune.make_trainer
    really_train = SweepTrainer.train

    def make(**parts: Any) -> Any:
        trainer = really_make(**parts)
        seen.extend((weakref.ref(trainer), weakref.ref(trainer.model)))
        return trainer

    def train(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return really_train(self, *args, **options)
        finally:
            seen.append(weakref.ref(getattr(self.optimizer, "optimizer", self.optimizer)))

    monkeypatch.setattr(finetune, "make_trainer", make)
    monkeypatch.setattr(SweepTrainer, "train", train)
    return seen


@pytest.mark.parametrize("end", ENDS)
def test_nothing_of_a_trial_is_left_in_its_process(tiny: Tiny, tmp_path: Path, made: Any, end: str) -> None:
    assert attempt(tiny, tmp_path, end) is ENDS[end][2]
    assert [ref() for ref in made] == [None] * 3


def on_gpu(tiny: Tiny, root: Path, **options: Any) -> TrialContext:
    from sweeper.training import finetune

    context = make_context(tiny.model, tiny.train, root, total_steps=6, **options)
    finetune.run(context)
    return context


@pytest.mark.gpu
@pytest.mark.parametrize("end", ENDS)
def test_a_gpus_memory_is_free_again_after_a_trial(tiny: Tiny, tmp_path: Path, end: str) -> None:
    import torch

    attempt(tiny, tmp_path / "first", end)  # what the libraries themselves keep, once
    gc.collect()
    before = torch.cuda.memory_allocated()
    attempt(tiny, tmp_path / "second", end)
    assert torch.cuda.memory_allocated() == before


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{}, {"packing": True}, {"gradient_checkpointing": True}])
def test_a_gpu_gives_the_losses_of_a_cpu(tiny: Tiny, tmp_path: Path, settings: dict[str, Any]) -> None:
    there = all_rows(on_gpu(tiny, tmp_path / "gpu", settings={"precision": "fp32", **settings}))
    program = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from training_fixtures import make_context, all_rows; from sweeper.training import finetune\n"
        "context = make_context(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), total_steps=6,"
        " settings={'precision': 'fp32'})\n"
        "finetune.run(context); print(json.dumps([row.loss for row in all_rows(context)]))"
    )
    words = [
        sys.executable,
        "-c",
        program,
        str(Path(__file__).parent),
        tiny.model,
        tiny.train,
        tmp_path / "cpu",
    ]
    said = subprocess.run(
        [str(word) for word in words], env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    here = json.loads(said.stdout.splitlines()[-1])
    assert [row.loss for row in there] == pytest.approx(here, rel=1e-3)


@pytest.mark.gpu
def test_a_gpu_in_bf16_trains_in_bf16_and_keeps_float32_weights(
    tiny: Tiny, tmp_path: Path, made: Any
) -> None:
    import torch

    kinds: set[torch.dtype] = set()
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: (
            kinds.add(output.dtype) if isinstance(module, torch.nn.Linear) else None
        )
    )
    try:
        on_gpu(tiny, tmp_path)
    finally:
        handle.remove()
    assert kinds == {torch.bfloat16}


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature:UserWarning")
def test_signals_never_make_the_host_wait_for_a_gpu() -> None:
    import torch

    from sweeper.training.signals import StepSignals

    signals = StepSignals()
    loss, norm = torch.tensor(1.0, device="cuda"), torch.tensor(2.0, device="cuda")
    signals.add(step=1, samples=8, tokens=8, loss=loss, grad_norm=norm, learning_rate=1e-3)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(2, 40):
            signals.add(step=step, samples=8, tokens=8, loss=loss, grad_norm=norm, learning_rate=1e-3)
            assert not signals.saw_non_finite()
        signals.add(
            step=40, samples=8, tokens=8, loss=loss * float("nan"), grad_norm=norm, learning_rate=1e-3
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert signals.saw_non_finite()
    assert len(signals.take()) == 40


@pytest.mark.gpu
def test_a_trial_that_shares_a_gpu_takes_no_more_than_its_share(tiny: Tiny, tmp_path: Path) -> None:
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    try:
        on_gpu(tiny, tmp_path, gpu_share=0.25)
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            torch.empty(int(0.3 * total), dtype=torch.uint8, device="cuda")
    finally:
        limit_gpu_memory(1.0)
