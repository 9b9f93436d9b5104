"""What tests share: sweeps over made-up trial functions, without torch and Ray."""

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from sweeper.training.memory import hide_gpus

# A property holds or not; how long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("sweeper", deadline=None)
hypothesis.settings.load_profile("sweeper")


@pytest.fixture(autouse=True)
def _private_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test in a folder of its own, so that `studies/` never lands in the checkout."""
    monkeypatch.chdir(tmp_path)


def _go_on(number: int, frame: object) -> None:
    """Go on as before: what was asked for by nohup."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep GPUs out of sight, unless the tests that need one are asked for: curves of CPUs are compared bit for bit.

    A shell that starts something in the background switches Ctrl-C off for it, and nohup the end of its terminal, for
    all that it starts too; some tests send both signals. What is handled here is as ever in who is started from here.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _go_on)
    if not re.search(r"(?<!not )\bgpu\b", config.option.markexpr):
        hide_gpus()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU on a machine without one."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, and `-m gpu`")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB: a report alone takes 5."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(scope="session")
def ray_session():
    """One Ray for all tests that only need some Ray; executors use it as it is and leave it running."""
    from sweeper.executors.ray_session import ray

    # Not one that somebody else runs on this machine, which Ray would join.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # its workers have to hide GPUs from themselves
        ray.init(
            address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
    yield
    ray.shutdown()
