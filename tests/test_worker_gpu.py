"""What a worker makes of the GPU that it was given, with a stand-in for torch's view of it."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_fixtures import RecordingChannel

from sweeper.checkpoint import DirectoryCheckpoints
from sweeper.context import TrialContext
from sweeper.errors import SweeperError
from sweeper.executors.worker_memory import asked_of_driver, take_gpu, wait_for_free_gpu
from sweeper.training.functions import run_function
from sweeper.training.memory import forget_8_bit_overrides, is_out_of_memory, limit_gpu_memory
from sweeper.training.warm import ask_the_driver_once
from sweeper.trial_spec import TrialSpec

GB = 1_000_000_000


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The bounds that were set on a GPU of 80 GB, by a process that has torch."""
    found: list[float] = []
    cuda = types.SimpleNamespace(
        is_available=lambda: True,
        get_device_properties=lambda _: types.SimpleNamespace(total_memory=80 * GB),
        set_per_process_memory_fraction=found.append,
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    return found


@pytest.fixture
def torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = types.SimpleNamespace(is_available=lambda: False)
    stand_in = types.SimpleNamespace(cuda=cuda, __version__="2.13.0+cpu")
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("PATH", "")  # nor is there a driver


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a program in the place of NVIDIA's, and hides torch from this process."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1a,GPU-2b")

    def make(body: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return make


@pytest.mark.usefixtures("torch_without_cuda")
def test_a_gpu_that_torch_cannot_use_is_told_of_and_not_trained_beside() -> None:
    with pytest.raises(
        SweeperError,
        match=r"^Trials are given GPUs, but torch 2\.13\.0\+cpu cannot use any here \(CUDA_VISIBLE_DEVICES is '3'\)\. "
        r"Install a torch that fits the driver of the GPUs .* or set `resources\.gpus_per_trial: 0`",
    ):
        take_gpu(0.5, is_built_in=True)


@pytest.mark.usefixtures("torch_without_cuda")
def test_a_worker_without_a_gpu_or_with_a_function_of_its_own_may_have_such_a_torch() -> None:
    take_gpu(0.0, is_built_in=True)
    take_gpu(1.0, is_built_in=False)


def test_where_torch_is_not_loaded_the_driver_tells_whether_a_gpu_is_free(
    driver: Callable[[str], None],
) -> None:
    driver("""[ "$1" = --id=GPU-1a ] && echo '20000, 81920'""")
    assert asked_of_driver() == (20000 << 20, 81920 << 20)
    waited: list[float] = []
    with pytest.raises(SweeperError, match=r"64\.9 of its 85\.9 GB are held by other processes"):
        wait_for_free_gpu(1.0, wait=waited.append)
    assert sum(waited) == 60.0


@pytest.mark.parametrize("body", ["exit 6", "echo '[N/A], [N/A]'", "echo No devices were found"])
def test_a_driver_that_cannot_tell_is_not_waited_for(driver: Callable[[str], None], body: str) -> None:
    driver(body)
    assert asked_of_driver() is None
    take_gpu(1.0, is_built_in=False)


def test_shares_of_a_gpu_leave_room_for_what_cuda_takes_for_each_process(shares: list[float]) -> None:
    for _ in range(4):
        limit_gpu_memory(0.25)
    assert sum(shares) * 80 + 4 * 0.6 == pytest.approx(80)
    shares.clear()

    limit_gpu_memory(1.0)
    limit_gpu_memory(0.5, headroom=0.95)
    limit_gpu_memory(0.01)  # little more than CUDA alone takes
    limit_gpu_memory(0.0)  # none at all, which asks for no GPU
    assert shares == pytest.approx([1.0, (0.5 - 0.6 / 80) * 0.95, 0.005])


@pytest.mark.parametrize(("share", "bounds"), [(0.0, []), (0.5, [0.5 - 0.6 / 80]), (1.0, [])])
def test_a_function_gets_its_share_of_a_gpu(
    tmp_path: Path, shares: list[float], share: float, bounds: list[float]
) -> None:
    spec = TrialSpec(
        number=0, attempt=1, study="s", params={}, settings={}, trial={}, seed=0, budget_samples=10, total_steps=10,
        micro_batch_size=1, gradient_accumulation_steps=1, marks=(), evaluation_marks=(), checkpoint_marks=(),
        metric="score", gpu_share=share,
    )  # fmt: skip
    context = TrialContext(spec=spec, channel=RecordingChannel(), checkpoint=DirectoryCheckpoints(tmp_path))
    assert run_function(lambda _: 1.0, context) == {"score": 1.0}
    assert shares == pytest.approx(bounds)


def test_bitsandbytes_forgets_the_embeddings_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = types.SimpleNamespace(
        module_weight_config_triple=[(object(), "weight", {"optim_bits": 32})], pid2config={1: {}},
        index2config={(0, 1): {}}, uses_config_override=False,
    )  # fmt: skip
    optim: Any = types.SimpleNamespace(GlobalOptimManager=types.SimpleNamespace(_instance=manager))
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.SimpleNamespace(optim=optim))
    forget_8_bit_overrides()
    assert (manager.module_weight_config_triple, manager.pid2config, manager.index2config) == ([], {}, {})

    optim.GlobalOptimManager._instance = None  # no trial has used it
    forget_8_bit_overrides()
    monkeypatch.delitem(sys.modules, "bitsandbytes")
    forget_8_bit_overrides()


def test_the_driver_is_asked_for_the_kind_of_gpus_once() -> None:
    asked = []
    state = types.SimpleNamespace(check_cuda_p2p_ib_support=lambda: bool(asked.append(1)) or True)
    ask_the_driver_once(state)
    once = state.check_cuda_p2p_ib_support
    ask_the_driver_once(state)
    assert state.check_cuda_p2p_ib_support is once
    assert (once(), once(), len(asked)) == (True, True, 1)
    ask_the_driver_once(types.SimpleNamespace())  # an accelerate that does not ask


@pytest.mark.parametrize(("free", "is_memory"), [(100 << 20, True), (40 * GB, False)])
@pytest.mark.parametrize("library", ["CUBLAS", "CUDNN"])
def test_a_library_that_could_not_begin_on_a_full_gpu_had_no_memory(
    library: str, free: int, is_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = types.SimpleNamespace(is_available=lambda: True, mem_get_info=lambda: (free, 80 * GB))
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    error = RuntimeError(f"CUDA error: {library}_STATUS_NOT_INITIALIZED when calling `create(handle)`")
    assert is_out_of_memory(error) is is_memory


def test_a_lost_gpu_is_not_asked_for_its_memory_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> tuple[int, int]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    cuda = types.SimpleNamespace(is_available=lambda: True, mem_get_info=fails)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    assert not is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED"))


def test_a_gpu_that_a_desktop_holds_a_little_of_is_trained_on_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    waited: list[float] = []
    wait_for_free_gpu(1.0, read=lambda: (21 * GB, 24 * GB), wait=waited.append)
    assert sum(waited) == 60.0
    assert caplog.messages == [
        "3.0 of the 24.0 GB of this worker's GPU are held by other processes, for example a desktop; trials get the "
        "rest."
    ]
