"""The built-in trial: fine-tune a causal language model and measure it."""

import gc
import shutil
import tempfile
import uuid
from collections import deque
from pathlib import Path
from typing import Any, cast

import torch
from transformers.trainer_callback import TrainerCallback
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sweeper.config.models import TrainSettings, TrialSection
from sweeper.context import LoadedCheckpoint, TrialContext, TrialStopped
from sweeper.errors import ConfigError
from sweeper.files import publish_directory
from sweeper.records import LOSS
from sweeper.training.checkpoints import (
    load_state,
    load_weights,
    save_checkpoint,
    seed_rank,
    set_random_state,
)
from sweeper.training.evaluation import Evaluator
from sweeper.training.model import load_model, precision_dtype
from sweeper.training.ranks import TorchRanks
from sweeper.training.sharding import is_sharded, shard, whole
from sweeper.training.signals import StepSignals
from sweeper.training.stream import MicroBatches, SampleStream
from sweeper.training.tokenizer import load_tokenizer
from sweeper.training.tokens import load_train_rows
from sweeper.training.trainer import SweepTrainer, make_trainer, training_arguments

FINAL_LOSS_STEPS = (
    8  # one step's loss is noise; a study whose metric is `loss` compares the mean of the last ones
)


def run(context: TrialContext) -> dict[str, float]:
    """Train one trial to the end of its budget and return its final metrics.

    Raises:
        TrialStopped: If the trial was told to stop.
        ConfigError: If data, model or settings cannot be used.
    """
    torch.set_num_threads(context.spec.threads)
    try:
        metrics = _Finetuning(context).run()
    except TrialStopped:
        metrics = None
    _release()
    if metrics is None:
        raise TrialStopped  # anew, since the first one's traceback keeps the trial's model on the device
    return metrics


def _release() -> None:
    """Free what the trial held: trainer and model refer to each other, so only the collector finds them."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _Finetuning:
    """One attempt of one trial: its parts, put together."""

    def __init__(self, context: TrialContext) -> None:
        spec = context.spec
        if (
            spec.micro_batch_size is None
            or spec.gradient_accumulation_steps is None
            or spec.total_steps is None
        ):
            raise ConfigError(
                "The built-in fine-tuning needs a batch and a budget, which this trial has not."
            )
        self._context = context
        self._trial = TrialSection.model_validate(spec.trial)
        self._settings = TrainSettings.model_validate(spec.settings)
        self._micro_batch_size = spec.micro_batch_size
        self._accumulation = spec.gradient_accumulation_steps
        self._total_steps = spec.total_steps
        self._gang = context.gang
        self._ranks = None if context.gang is None else cast(TorchRanks, context.gang.ranks)
        self._tokenizer = load_tokenizer(self._trial)
        self._rows = load_train_rows(self._trial, self._settings, self._tokenizer)
        self._collate = DataCollatorForLanguageModeling(
            pad_token_id=self._tokenizer.pad_token_id, padding_free=self._settings.packing
        )
        self._evaluator = Evaluator(
            self._trial, self._settings, self._tokenizer, self._collate, ranks=self._ranks
        )

    def run(self) -> dict[str, float]:
        loaded = self._context.checkpoint.load()
        with tempfile.TemporaryDirectory(prefix="sweeper-") as scratch:
            trainer, steps = self._prepare(loaded, Path(scratch))
            trainer.train()
        if self._gang is not None:
            self._gang.agree()  # the last step's report may have been answered by a stop
        metrics = steps.finish(trainer.model)
        if self._context.spec.metric == LOSS:
            metrics[LOSS] = steps.last_losses_mean()
        if self._trial.checkpoint.save_model:
            self._save_model(trainer.model)
        return metrics

    def _prepare(
        self, loaded: LoadedCheckpoint | None, scratch: Path
    ) -> tuple[SweepTrainer, "_StepBoundary"]:
        shares_model = self._context.spec.sharding is not None
        batch = self._micro_batch_size * self._accumulation * self._context.world_size
        steps = _StepBoundary(self._context, self._evaluator, batch, self._total_steps, loaded)
        trainer = make_trainer(
            model=load_model(self._trial, self._settings),
            tokenizer=self._tokenizer,
            settings=self._settings,
            arguments=training_arguments(
                self._settings,
                output_dir=scratch,
                micro_batch_size=self._micro_batch_size,
                gradient_accumulation_steps=self._accumulation,
                total_steps=self._total_steps,
                seed=self._context.seed,
                n_ranks=self._context.world_size,
            ),
            batches=self._batches(batch, loaded),
            train_dataset=self._rows.dataset,
            collate=self._collate,
            callback=steps,
            ranks=self._ranks,
            agree=None if self._gang is None else steps.agree,
            is_sharded=shares_model,
        )
        steps.trainer = trainer
        if loaded is not None:
            load_weights(trainer.model, loaded.path)
        if shares_model:
            shard(trainer.model, precision_dtype(self._settings))
        return trainer, steps

    def _batches(self, batch: int, loaded: LoadedCheckpoint | None) -> MicroBatches:
        start = 0 if loaded is None else loaded.samples
        if loaded is not None and loaded.samples != loaded.step * batch:
            raise ConfigError(
                f"The checkpoint stands at {loaded.samples} samples after {loaded.step} steps, which is not "
                f"`effective_batch_size` = {batch} a step. It belongs to other settings; remove it."
            )
        return MicroBatches(
            self._rows,
            SampleStream(len(self._rows), seed=self._context.seed),
            self._collate,
            start=start,
            stop=self._total_steps * batch,
            micro_batch_size=self._micro_batch_size,
            rank=self._context.rank,
            n_ranks=self._context.world_size,
        )

    def _save_model(self, model: Any) -> None:
        weights = whole(model.state_dict()) if is_sharded(model) else None  # all ranks put it together
        if self._context.rank != 0:
            return
        target = Path(self._context.spec.trial_dir) / "model"
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            model.save_pretrained(beside, **({} if weights is None else {"state_dict": weights}))
            self._tokenizer.save_pretrained(beside)
            publish_directory(beside, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


class _StepBoundary(TrainerCallback):  # type: ignore[misc]
    """What happens after every optimiser step: gather, look whether to stop, evaluate, save, report."""

    def __init__(
        self,
        context: TrialContext,
        evaluator: Evaluator,
        batch: int,
        total_steps: int,
        loaded: LoadedCheckpoint | None,
    ) -> None:
        self.trainer: SweepTrainer | None = None  # set once it is made; it is made with this callback
        self._context = context
        self._evaluator = evaluator
        self._batch = batch
        self._total_steps = total_steps
        self._loaded = loaded
        self._signals = StepSignals()
        self._tokens = 0
        self._flushed_at = 0.0
        self._flushed = (0, 0)  # step and samples
        self._position = (0, 0)  # step and samples
        self._random: Any = None
        self._is_seeded = False
        self._measured: dict[str, float] | None = None  # after the last step
        self._last_losses: deque[float] = deque(maxlen=FINAL_LOSS_STEPS)

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Go on where the checkpoint stands, if there is one."""
        if self._loaded is not None:
            position = (self._loaded.step, self._loaded.samples)
            context = self._context
            self._random, self._tokens = load_state(
                self.trainer, self._loaded.path, is_inherited=self._loaded.step == context.spec.inherited_step,
                rank=context.rank, n_ranks=context.world_size,
            )  # fmt: skip
            state.global_step = self._loaded.step
            self._context.start_from(step=position[0], samples=position[1])
            self._flushed = position
        self._context.report_rows([])  # training time counts from here
        self._flushed_at = self._context.clock()

    def agree(self, tokens: int) -> int:
        """Let all ranks begin the next step; return its target tokens, of all of them.

        Raises:
            TrialStopped: On all ranks, if the trial is to end.
        """
        gang, (step, samples) = self._context.gang, self._position
        assert gang is not None
        try:
            return gang.agree(tokens)
        except TrialStopped:
            self._flush(step, samples)  # keeps the last rows, and raises it again
            raise

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Set the random state as the checkpoint found it, before the first step draws from it."""
        if self._random is not None:
            set_random_state(self._random)
            self._random = None
        elif self._context.rank and not self._is_seeded:
            seed_rank(self._context.seed, rank=self._context.rank, step=state.global_step)
        self._is_seeded = True

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Take the step's signals and do what is due."""
        step, samples = self._position = state.global_step, state.global_step * self._batch
        self._gather(step, samples)
        if self._context.channel.should_stop():
            self._flush(step, samples)
        metrics = self._evaluate() if self._context.is_evaluation_due(samples) else {}
        self._measured = metrics if metrics and step == self._total_steps else None
        checkpoint = self._save(step, samples) if self._context.is_checkpoint_due(samples) else None
        if metrics or checkpoint or step == self._total_steps or self._is_flush_due(step, samples):
            self._flush(step, samples, metrics, checkpoint)

    def finish(self, model: Any) -> dict[str, float]:
        """Return the final metrics, measured now unless they were after the last step."""
        return self._measured if self._measured is not None else self._evaluate()

    def last_losses_mean(self) -> float:
        """Return the mean training loss of the last steps, for a study whose metric is `loss`."""
        return sum(self._last_losses) / len(self._last_losses)

    def _gather(self, step: int, samples: int) -> None:
        trainer = self._made_trainer()
        assert trainer.step_loss is not None
        self._tokens += trainer.step_tokens
        # In fp16 a step whose scaled gradient overflowed is skipped, and the scale is lowered: that is no
        # divergence.
        skipped = trainer.accelerator.optimizer_step_was_skipped
        self._signals.add(
            step=step,
            samples=samples,
            tokens=self._tokens,
            loss=trainer.step_loss,
            grad_norm=None if skipped else trainer.step_grad_norm,
            learning_rate=trainer.step_learning_rate,
        )

    def _is_flush_due(self, step: int, samples: int) -> bool:
        spec = self._context.spec
        before_step, before_samples = self._flushed
        return (
            any(before_samples < mark <= samples for mark in spec.marks)
            or any(before_step < mark <= step for mark in spec.step_marks)
            or self._context.clock() - self._flushed_at >= self._context.report_every_s
            or self._signals.saw_non_finite()
        )

    def _flush(
        self, step: int, samples: int, metrics: dict[str, float] | None = None, checkpoint: str | None = None
    ) -> None:
        self._flushed = (step, samples)
        rows = self._signals.take()
        self._last_losses.extend(row.loss for row in rows if row.loss is not None)
        self._context.report_rows(rows, metrics, checkpoint=checkpoint)
        self._flushed_at = self._context.clock()

    def _evaluate(self) -> dict[str, float]:
        started = self._context.clock()
        metrics = self._evaluator.measure(self._made_trainer().model)
        self._context.add_evaluation_s(self._context.clock() - started)
        return metrics

    def _save(self, step: int, samples: int) -> str:
        directory = self._context.spec.trial_dir
        return save_checkpoint(
            self._made_trainer(),
            self._context.checkpoint,
            step=step,
            samples=samples,
            tokens=self._tokens,
            beside=Path(directory) if directory else None,
            ranks=None if self._context.gang is None else self._context.gang.ranks,
        )

    def _made_trainer(self) -> SweepTrainer:
        assert self.trainer is not None
        return self.trainer
