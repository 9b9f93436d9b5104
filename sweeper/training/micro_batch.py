"""`micro_batch_size: auto`: the largest micro-batch that fits, found by trying, once for each model and kind of GPU.

What is tried is the worst that a trial meets: the longest rows, with the optimiser's state in place and gradients of a
pass before. On CPUs memory is not what bounds a pass, and the setting's default is taken.
"""

import dataclasses
import gc
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import trl
from transformers.trainer_callback import TrainerCallback

from sweeper.batch import Known, halvings, largest_that_fits
from sweeper.config.models import TrainSettings, TrialSection
from sweeper.files import write_text
from sweeper.training.memory import device_name, free_memory, is_out_of_memory
from sweeper.training.model import load_model
from sweeper.training.stream import MicroBatches
from sweeper.training.tokens import JoinedTables, cache_dir, one_at_a_time
from sweeper.training.trainer import make_trainer, training_arguments

logger = logging.getLogger(__name__)

ON_CPU = 8
_HEADROOM = 0.95  # of the memory: what is cut up and cannot be used grows over a trial
_STEPS, _ACCUMULATION = 2, 2  # the second pass of the second step has all in memory that a trial ever has
# Settings that change how much memory a pass takes.
_SETTINGS = (
    "method", "lora_rank", "lora_target_modules", "precision", "gradient_checkpointing", "attn_implementation",
    "packing", "max_length", "optimizer",
)  # fmt: skip


def is_on_gpu() -> bool:
    return torch.cuda.is_available()


class MicroBatchSearch:
    """Finds the largest micro-batch of one trial.

    Args:
        trial: With the model.
        settings: Of the trial.
        tokenizer: Of the model.
        rows: The training data.
        collate: Makes a batch of rows.
        gpu_share: Of the GPU's memory that the trial may have.
    """

    def __init__(
        self,
        trial: TrialSection,
        settings: TrainSettings,
        tokenizer: Any,
        rows: JoinedTables,
        collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
        *,
        gpu_share: float,
    ) -> None:
        self._trial = trial
        self._settings = settings
        self._tokenizer = tokenizer
        self._rows = rows
        self._collate = collate
        self._gpu_share = gpu_share

    def find(self, largest: int) -> int:
        """Return the largest micro-batch that fits, `largest` or what halving makes of it."""
        sizes = list(halvings(largest))
        if not is_on_gpu():
            return next((size for size in sizes if size <= ON_CPU), sizes[-1])
        path = cache_dir() / "micro_batches" / f"{self._key()}.json"
        with one_at_a_time(path):
            known = Known(**json.loads(path.read_text())) if path.exists() else Known()
            before = dataclasses.replace(known)
            found = largest_that_fits(sizes, self._fits, known)
            if known != before:
                write_text(path, json.dumps(dataclasses.asdict(known)))
        logger.info("micro_batch_size: auto is %d on %s", found, device_name())
        return found

    def _key(self) -> str:
        """Return a text that changes with whatever changes how much fits."""
        config = Path(self._trial.model or "") / "config.json"
        facts = {
            "model": [
                self._trial.model,
                self._trial.revision,
                config.read_text() if config.is_file() else None,
            ],
            "settings": {name: getattr(self._settings, name) for name in _SETTINGS},
            "longest": self._rows.stats.longest,
            "gpu": [device_name(), torch.cuda.get_device_properties(0).total_memory, self._gpu_share],
            "versions": [torch.__version__, transformers.__version__, trl.__version__],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def _fits(self, size: int) -> bool:
        with _limited_memory(self._gpu_share * _HEADROOM):
            try:
                self.train(size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                fits = False  # what the error holds of the trial is free only behind this block
            else:
                fits = True
            gc.collect()
            free_memory()
        logger.info("micro_batch_size %d %s", size, "fits" if fits else "does not fit")
        return fits

    def train(self, size: int) -> None:
        """Train a fresh model on the longest rows for as many steps as fill the memory."""
        with tempfile.TemporaryDirectory(prefix="sweeper-") as scratch:
            trainer = make_trainer(
                model=load_model(self._trial, self._settings),
                tokenizer=self._tokenizer,
                settings=self._settings,
                arguments=training_arguments(
                    self._settings,
                    output_dir=Path(scratch),
                    micro_batch_size=size,
                    gradient_accumulation_steps=_ACCUMULATION,
                    total_steps=_STEPS,
                    seed=0,
                ),
                batches=MicroBatches(
                    self._rows,
                    _LongestFirst(self._rows.lengths(), size),
                    self._collate,
                    start=0,
                    stop=size * _ACCUMULATION * _STEPS,
                    micro_batch_size=size,
                ),
                train_dataset=self._rows.dataset,
                collate=self._collate,
                callback=TrainerCallback(),
            )
            trainer.train()


class _LongestFirst:
    """The order that fills every micro-batch with the longest rows there are."""

    def __init__(self, lengths: np.ndarray[Any, np.dtype[np.int64]], size: int) -> None:
        self._longest = np.argsort(-lengths, kind="stable")[:size]

    def indices(self, start: int, stop: int) -> list[int]:
        return [int(self._longest[position % len(self._longest)]) for position in range(start, stop)]


@contextmanager
def _limited_memory(share: float) -> Iterator[None]:
    """Let this process have so much of the GPU's memory, and no more."""
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
