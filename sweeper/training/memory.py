"""Running out of memory: told from other errors, and cleaned up after. Imports torch nowhere: most trials of a
user's own function have none."""

import gc
import sys

from sweeper.records import HOST

_WORDS = (
    "out of memory",  # CUDA, HIP, MPS
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",  # torch's allocator on the host
    "not enough memory",
)


def device_name() -> str:
    """Return the kind of GPU that this process trains on, or that it trains on the host's CPUs."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return HOST
    return str(torch.cuda.get_device_name())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is that memory, of the GPU or of the host, did not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def free_memory() -> None:
    """Give back what a failed attempt held: the next one in this process needs the room."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
