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

from sweeper.batch import AUTO_ON_CPU, MEMORY_SETTINGS, Known, cuts, largest_that_fits
from sweeper.cache import cache_dir
from sweeper.channel import TrialStopped
from sweeper.config.trial_models import TrainSettings, TrialSection
from sweeper.files import write_text
from sweeper.training.arguments import training_arguments
from sweeper.training.memory import (
    device_name,
    forget_peak,
    free_memory,
    is_out_of_memory,
    limit_gpu_memory,
    tensors_share,
)
from sweeper.training.model import load_model, precision, single_device
from sweeper.training.stream import MicroBatches
from sweeper.training.tokens import JoinedTables, one_at_a_time
from sweeper.training.trainer import make_trainer

logger = logging.getLogger(__name__)

_HEADROOM = 0.95  # of the memory: what is cut up and cannot be used grows over a trial
_STEPS, _ACCUMULATION = 2, 2  # the second pass of the second step has all in memory that a trial ever has
_STEPS_FP16 = (
    6  # its scale begins too high: the first steps are skipped, and leave the optimiser without a state
)
_CONTEXT_BYTES = 2 << 30  # what CUDA itself holds of a GPU
_MOST = 512  # sequences of a pass: beyond, no GPU gets quicker, and some attention kernels refuse it


def is_on_gpu() -> bool:
    """Whether this process trains on a GPU; which micro-batch fits is only tried there."""
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
        should_stop: Whether the trial is to end; asked before each try.
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
        should_stop: Callable[[], bool],
    ) -> None:
        self._trial = trial
        self._settings = settings
        self._tokenizer = tokenizer
        self._rows = rows
        self._collate = collate
        self._gpu_share = gpu_share
        self._should_stop = should_stop

    def find(self, sequences: int) -> int:
        """Return the largest micro-batch of so many sequences a step that fits."""
        sizes = [size for size in cuts(sequences) if size <= _MOST]
        if not is_on_gpu():
            return next(size for size in sizes if size <= AUTO_ON_CPU)
        path = cache_dir() / "micro_batches" / f"{self._key()}.json"
        with one_at_a_time(path):
            known = Known(**json.loads(path.read_text())) if path.exists() else Known()
            # What does not fit beside others on a busy GPU is no fact about the model.
            has_room = has_free_memory(self._gpu_share * _HEADROOM)

            def fits(size: int) -> bool:
                found = self._fits(size)
                if found or has_room:
                    lasting.learn(size, fits=found)
                    write_text(path, json.dumps(dataclasses.asdict(lasting)))
                return found

            lasting = dataclasses.replace(known)
            found = largest_that_fits(sizes, fits, known)
        forget_peak()  # what was tried out is not what the trial takes
        logger.info("micro_batch_size: auto is %d on %s", found, device_name())
        return found

    def _key(self) -> str:
        """Return a text that changes with whatever changes how much fits."""
        config = Path(self._trial.model or "") / "config.json"
        packs = self._settings.packing
        facts = {
            "model": [
                self._trial.model,
                self._trial.revision,
                config.read_text() if config.is_file() else None,
            ],
            "settings": {name: getattr(self._settings, name) for name in MEMORY_SETTINGS},
            # A padded pass is as long as its longest row, a packed one as all of them together.
            "longest": int(np.sort(self._rows.lengths())[-_MOST:].sum())
            if packs
            else self._rows.stats.longest,
            "gpu": [
                device_name(),
                torch.cuda.get_device_properties(0).total_memory,
                tensors_share(self._gpu_share),
            ],
            "versions": [torch.__version__, transformers.__version__, trl.__version__],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def _fits(self, size: int) -> bool:
        if self._should_stop():
            raise TrialStopped
        with self._limited_memory():
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

    @contextmanager
    def _limited_memory(self) -> Iterator[None]:
        """Let this process have a little less of the GPU's memory than the trial may."""
        limit_gpu_memory(self._gpu_share, headroom=_HEADROOM)
        try:
            yield
        finally:
            limit_gpu_memory(self._gpu_share)

    def train(self, size: int) -> None:
        """Train a fresh model on the longest rows for as many steps as fill the memory."""
        n_steps = _STEPS_FP16 if precision(self._settings) == "fp16" else _STEPS
        with tempfile.TemporaryDirectory(prefix="sweeper-") as scratch:
            trainer = make_trainer(
                model=load_model(self._trial, self._settings, device=single_device()),
                tokenizer=self._tokenizer,
                settings=self._settings,
                revision=self._trial.revision,
                arguments=training_arguments(
                    self._settings,
                    output_dir=Path(scratch),
                    micro_batch_size=size,
                    gradient_accumulation_steps=_ACCUMULATION,
                    total_steps=n_steps,
                    seed=0,
                ),
                batches=MicroBatches(
                    self._rows,
                    _LongestFirst(self._rows.lengths(), size),
                    self._collate,
                    start=0,
                    stop=size * _ACCUMULATION * n_steps,
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


def has_free_memory(share: float) -> bool:
    """Whether so much of the GPU's memory is free, or held by this process."""
    free, total = torch.cuda.mem_get_info()
    return free + torch.cuda.memory_reserved() >= share * total - _CONTEXT_BYTES
