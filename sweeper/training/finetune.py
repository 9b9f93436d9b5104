"""The built-in trial: fine-tune a causal language model and measure it."""

import dataclasses
import gc
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any, cast

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sweeper.batch import AUTO
from sweeper.channel import LoadedCheckpoint, TrialStopped
from sweeper.config.benchmark_models import BenchmarkSection
from sweeper.config.trial_models import TrainSettings, TrialSection
from sweeper.context import TrialContext
from sweeper.errors import ConfigError
from sweeper.files import publish_directory
from sweeper.items import write_items
from sweeper.records import LOSS
from sweeper.training.arguments import training_arguments
from sweeper.training.boundary import StepBoundary
from sweeper.training.checkpoints import load_weights, put_weights, read_best, read_end, read_state
from sweeper.training.data_identity import check_identities, pinned
from sweeper.training.evaluation import Evaluator, undisturbed
from sweeper.training.kept_model import end_answers, save_model
from sweeper.training.legs import Carried, Leg, leg_at, legs_of, sample_order
from sweeper.training.liger import take_liger_off
from sweeper.training.memory import forget_8_bit_overrides, limit_gpu_memory
from sweeper.training.micro_batch import MicroBatchSearch
from sweeper.training.model import load_model, precision, precision_dtype, single_device
from sweeper.training.ranks import TorchRanks
from sweeper.training.sharding import is_sharded, shard, whole_on_first
from sweeper.training.stream import MicroBatches
from sweeper.training.tokenizer import load_tokenizer
from sweeper.training.tokens import load_train_rows
from sweeper.training.trainer import SweepTrainer, make_trainer


def run(context: TrialContext) -> dict[str, float]:
    """Train one trial to the end of its budget and return its final metrics.

    Raises:
        TrialStopped: If the trial was told to stop.
        ConfigError: If data, model or settings cannot be used.
    """
    torch.set_num_threads(context.spec.threads)
    limit_gpu_memory(context.spec.gpu_share)
    try:
        metrics = _Finetuning(context).run()
    except TrialStopped:
        metrics = None
    finally:
        take_liger_off()  # also where the trial fails: the next one may be tried in this process
    _release()
    if metrics is None:
        raise TrialStopped  # anew, since the first one's traceback keeps the trial's model on the device
    return metrics


def _release() -> None:
    """Free what the trial held: trainer and model refer to each other, so only the collector finds them."""
    forget_8_bit_overrides()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


_Loaded = tuple[LoadedCheckpoint, dict[str, Any]]  # with its state


class _Finetuning:
    """One attempt of one trial: its parts, put together."""

    def __init__(self, context: TrialContext) -> None:
        spec = context.spec
        self._legs = legs_of(spec)
        self._context = context
        self._shares_model = spec.sharding is not None
        self._settings = TrainSettings.model_validate(spec.settings)
        section = TrialSection.model_validate(spec.trial).with_model(self._settings.model)
        check_identities(section, spec.data_identities)
        self._trial = pinned(section, spec.data_identities)
        self._tokenizer = load_tokenizer(self._trial)
        self._rows = load_train_rows(self._trial, self._settings, self._tokenizer)
        self._order = sample_order(
            self._trial,
            sizes=self._rows.sizes,
            weights=self._settings.data_weights,
            phases=spec.phases,
            samples=self._legs[-1].stop_samples,
            seed=context.seed,
        )
        self._collate = DataCollatorForLanguageModeling(
            pad_token_id=self._tokenizer.pad_token_id, padding_free=self._settings.packing
        )
        self._fit_micro_batch()
        context.micro_batch_size = self._legs[0].batch.micro_batch_size
        self._gang = context.gang
        self._ranks = None if context.gang is None else cast(TorchRanks, context.gang.ranks)
        self._evaluator = Evaluator(
            self._trial, self._settings, self._tokenizer, self._collate, ranks=self._ranks
        )
        # What the next leg starts with: the checkpoint inside it, or what the one before has handed over.
        self._inside: _Loaded | None = None
        self._carried: Carried | None = None
        self._steps = StepBoundary(
            context, self._evaluator, total_steps=self._legs[-1].stop_step, keep=self._keep
        )

    def _fit_micro_batch(self) -> None:
        """Where the micro-batch is `auto`, cut every leg's batch into what fits."""
        if self._settings.micro_batch_size != AUTO:
            return
        largest = max(leg.batch.micro_batch_size for leg in self._legs)
        search = MicroBatchSearch(
            self._trial, self._settings, self._tokenizer, self._rows, self._collate,
            gpu_share=self._context.spec.gpu_share, should_stop=self._context.channel.should_stop,
        )  # fmt: skip
        limit = search.find(largest)
        self._legs = [dataclasses.replace(leg, batch=leg.batch.cut(limit)) for leg in self._legs]

    def run(self) -> dict[str, float]:
        loaded = self._context.checkpoint.load()
        first = 0 if loaded is None else self._resume(loaded)
        model: Any = None
        for index in range(first, len(self._legs)):
            if model is not None:
                model = None  # before the next one is made: there may be no room for two
                _release()
            model = self._train(self._legs[index], is_last=index + 1 == len(self._legs))
        if self._gang is not None:
            self._gang.agree()  # the last step's report may have been answered by a stop
        metrics = self._steps.finish()
        if self._context.spec.metric == LOSS:
            metrics[LOSS] = self._steps.last_losses_mean()
        end_answers(model, self._tokenizer)
        self._keep(model, Path(self._context.spec.trial_dir))
        return metrics | self._benchmark(model)

    def _benchmark(self, model: Any) -> dict[str, float]:
        """Measure the trained model where the sweep asks for it; return the benchmarks' metrics."""
        spec = self._context.spec
        if spec.benchmarks is None or self._context.rank:
            return {}
        # Imported here: most sweeps have no benchmarks.
        from sweeper.benchmarks.loaded import LoadedModel
        from sweeper.benchmarks.measure import measure_trial

        section = BenchmarkSection.model_validate(spec.benchmarks)
        started = self._context.clock()
        autocast = None if precision(self._settings) == "fp32" else precision_dtype(self._settings)
        loaded = LoadedModel(model=model, tokenizer=self._tokenizer, autocast_dtype=autocast)
        with undisturbed(model):
            metrics = measure_trial(loaded, section, Path(spec.trial_dir), metric=spec.metric)
        self._context.add_evaluation_s(self._context.clock() - started)
        return metrics

    def _resume(self, loaded: LoadedCheckpoint) -> int:
        """Return the index of the leg to go on with, and take from the checkpoint what it starts with."""
        index = leg_at(self._legs, loaded.step)
        leg = self._legs[index]
        if loaded.samples != leg.samples_at(loaded.step):
            raise ConfigError(
                f"The checkpoint stands at {loaded.samples} samples after {loaded.step} steps, which is not "
                f"`effective_batch_size` = {leg.batch.effective_batch_size} a step. It belongs to other settings; "
                "remove it."
            )
        state = read_state(loaded.path)
        self._steps.stand_at(loaded, state)
        if loaded.step < leg.stop_step or index + 1 == len(self._legs):
            self._inside = (loaded, state)
            return index
        best = read_best(loaded.path, state) if leg.tracks_best else None
        self._carried = best.carried if best is not None else read_end(loaded.path, state)
        return index + 1

    def _train(self, leg: Leg, *, is_last: bool) -> Any:
        """Train one leg and return its model."""
        inside, self._inside = self._inside, None
        carried, self._carried = self._carried, None
        with tempfile.TemporaryDirectory(prefix="sweeper-") as scratch:
            trainer = self._make_trainer(leg, inside, Path(scratch))
            if inside is not None:
                load_weights(trainer.model, inside[0].path)
            elif carried is not None:
                put_weights(trainer.model, carried.weights, source="The phase before")
            if self._shares_model:
                shard(trainer.model, precision_dtype(leg.settings))
            moments = carried.moments if carried is not None and leg.keeps_moments else None
            self._steps.enter(leg, trainer, moments=moments, loaded=inside)
            is_over = inside is not None and inside[0].step >= leg.stop_step  # only what comes after is left
            del inside, carried, moments  # as large as model and optimiser, and no longer needed
            if not is_over:
                trainer.train()
            trainer.end()
        self._carried = None if is_last else self._steps.leave()
        return trainer.model

    def _make_trainer(self, leg: Leg, inside: _Loaded | None, scratch: Path) -> SweepTrainer:
        size, accumulation = leg.batch.micro_batch_size, leg.batch.gradient_accumulation_steps
        return make_trainer(
            model=load_model(
                self._trial, leg.settings, device=None if self._shares_model else single_device()
            ),
            tokenizer=self._tokenizer,
            settings=leg.settings,
            revision=self._trial.revision,
            arguments=training_arguments(
                leg.settings,
                output_dir=scratch,
                micro_batch_size=size,
                gradient_accumulation_steps=accumulation,
                total_steps=leg.steps,
                seed=self._context.seed,
                n_ranks=self._context.world_size,
            ),
            batches=MicroBatches(
                self._rows,
                self._order,
                self._collate,
                start=leg.start_samples if inside is None else inside[0].samples,
                stop=leg.stop_samples,
                micro_batch_size=size,
                rank=self._context.rank,
                n_ranks=self._context.world_size,
            ),
            train_dataset=self._rows.dataset,
            collate=self._collate,
            callback=self._steps,
            ranks=self._ranks,
            agree=None if self._gang is None else self._steps.agree,
            is_sharded=self._shares_model,
        )

    def _keep(self, model: Any, trial_dir: Path) -> None:
        """Keep what a trial ends with: its newest values of every item, and its model where that is asked for."""
        if self._context.rank == 0:
            for items in self._evaluator.items.values():
                write_items(trial_dir, items)
        if self._trial.checkpoint.save_model:
            self._save_model(model, trial_dir / "model")

    def _save_model(self, model: Any, target: Path) -> None:
        # All ranks put it together.
        is_first = self._context.rank == 0
        weights = whole_on_first(model.state_dict(), is_first=is_first) if is_sharded(model) else None
        if self._context.rank != 0:
            return
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            save_model(model, self._tokenizer, beside, weights=weights)
            publish_directory(beside, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
