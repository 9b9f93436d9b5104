"""What a worker process loads once, before its first trial. Loads nothing itself when it is imported."""

import functools
import gc
import importlib
from typing import Any


def load_torch() -> None:
    """Import torch alone: which device this process trains on can be asked only then."""
    importlib.import_module("torch")


def preload() -> None:
    """Import all that the built-in fine-tuning needs, so that a trial starts in tenths of a second.

    What was imported is then hidden from the garbage collector: the trainer collects at the start of every
    trial, which took 0.3 s of the 0.35 s of a trial's set-up (2 cores, November 2026).
    """
    import torch

    torch.set_num_threads(1)  # until a trial says how many it has
    importlib.import_module("sweeper.training.finetune")
    ask_the_driver_once(importlib.import_module("accelerate.state"))
    gc.collect()
    gc.freeze()


def ask_the_driver_once(state: Any) -> None:
    """Let accelerate ask NVIDIA's driver for the kind of GPUs once in this process, and not with every trainer.

    Each trainer sets its state anew, which starts `nvidia-smi`, and waits for it (accelerate 1.15, transformers 5.23).

    Args:
        state: accelerate's module.
    """
    name = "check_cuda_p2p_ib_support"
    ask = getattr(state, name, None)
    if ask is not None and not hasattr(ask, "cache_info"):
        setattr(state, name, functools.cache(ask))
