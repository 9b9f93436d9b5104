"""The GPU of this process and its memory: which it is, how much a trial may take, running out of it. Imports torch
nowhere: most trials of a user's own function have none."""

import gc
import os
import sys

from sweeper.records import HOST

_CONTEXT_BYTES = (
    600_000_000  # what CUDA itself takes for a process, kernels and libraries, beside its tensors
)
_WORDS = (
    "out of memory",  # CUDA, HIP, MPS
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",  # torch's allocator on the host
    "not enough memory",
)
# What libraries say that found no room for their own workspace; where there is room, the GPU is lost to this process.
_WORDS_OF_FULL = ("CUBLAS_STATUS_NOT_INITIALIZED", "CUDNN_STATUS_NOT_INITIALIZED")
_FULL_BYTES = 256 << 20


def device_name() -> str:
    """Return the kind of GPU that this process trains on, or that it trains on the host's CPUs."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return HOST
    return str(torch.cuda.get_device_name())


def computes_in_bf16() -> bool:
    """Whether this process trains on a GPU that computes in bf16. Those before Ampere emulate it, many times slower
    than float32."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return False
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def hide_gpus() -> None:
    """Let this process train on CPUs, whatever GPUs its machine has; to be called before it uses one.

    Ray 2.60 lets a worker that was given no GPU see all of them, and every slot would train on the first one.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def unusable_gpu() -> str | None:
    """Say that torch can use no GPU, in a process that is to train on one; None where it can, or is not loaded."""
    torch = sys.modules.get("torch")
    if torch is None or torch.cuda.is_available():
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        f"Trials are given GPUs, but torch {torch.__version__} cannot use any here (CUDA_VISIBLE_DEVICES is "
        f"{'not set' if visible is None else repr(visible)}). Install a torch that fits the driver of the GPUs "
        "(`nvidia-smi` names it), or set `resources.gpus_per_trial: 0` to train on CPUs."
    )


def limit_gpu_memory(share: float, *, headroom: float = 1.0) -> None:
    """Let this process take no more than a share of its GPU's memory, so that a neighbour keeps its own.

    A share of 0 asks for no GPU: a process that sees one all the same, as with the in-process executor, is not bounded.

    Args:
        share: Of the GPU.
        headroom: The part of that share that may be taken.
    """
    torch = sys.modules.get("torch")
    if share > 0 and torch is not None and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(tensors_share(share) * headroom)


def tensors_share(share: float) -> float:
    """Return what a share of a GPU leaves to tensors, which alone are bounded, as a part of all of its memory.

    Where several processes share a GPU, the CUDA context of each has to fit beside the tensors of all.
    """
    if share >= 1:
        return 1.0
    total = int(sys.modules["torch"].cuda.get_device_properties(0).total_memory)
    return max(share - _CONTEXT_BYTES / total, share / 2)


def peak_gb() -> float | None:
    """Return the most that tensors of this process have taken of its GPU, in GB; None on a CPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return float(torch.cuda.max_memory_allocated()) / 1e9


def forget_peak() -> None:
    """Let `peak_gb` count from now on."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is that memory, of the GPU or of the host, did not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if not isinstance(error, RuntimeError):
        return False
    said = str(error)
    return any(words in said for words in _WORDS) or (
        any(words in said for words in _WORDS_OF_FULL) and _is_gpu_full()
    )


def _is_gpu_full() -> bool:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return False
    try:
        free, _ = torch.cuda.mem_get_info()
    except RuntimeError:  # the GPU answers no more: that was not its memory
        return False
    return bool(free < _FULL_BYTES)


def free_memory() -> None:
    """Give back what a failed attempt held: the next one in this process needs the room."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def forget_8_bit_overrides() -> None:
    """Let bitsandbytes forget the embeddings of the trial before.

    transformers registers each with a manager of the whole process, to train it with 32 bits. It keeps them in memory,
    and goes by an index that may be another parameter's in the next trial (bitsandbytes 0.50, transformers 5.23).
    """
    optim = getattr(sys.modules.get("bitsandbytes"), "optim", None)
    manager = getattr(getattr(optim, "GlobalOptimManager", None), "_instance", None)
    for name in ("module_weight_config_triple", "pid2config", "index2config"):
        kept = getattr(manager, name, None)
        if isinstance(kept, list | dict):
            kept.clear()
