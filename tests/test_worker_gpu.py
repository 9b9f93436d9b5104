"""What a worker makes of the GPU that it was given, with a stand-in for torch's view of it."""

import sys
import types
from pathlib import Path

import pytest
from training_fixtures import RecordingChannel

from sweeper.checkpoint import DirectoryCheckpoints
from sweeper.context import TrialContext, TrialSpec
from sweeper.training.functions import run_function
from sweeper.training.memory import limit_gpu_memory

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
