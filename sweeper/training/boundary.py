"""What happens after every optimiser step of a trial: gather, look whether to stop, evaluate, save, report."""

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers.trainer_callback import TrainerCallback

from sweeper.channel import LoadedCheckpoint, TrialStopped
from sweeper.context import TrialContext
from sweeper.records import StepRow
from sweeper.training.checkpoints import (
    carried_of,
    load_moments,
    load_state,
    random_of,
    read_best,
    save_checkpoint,
    seed_rank,
    set_random_state,
)
from sweeper.training.evaluation import Evaluator
from sweeper.training.legs import Best, Carried, Leg, is_better
from sweeper.training.signals import StepSignals
from sweeper.training.trainer import SweepTrainer

FINAL_LOSS_STEPS = (
    8  # one step's loss is noise; a study whose metric is `loss` compares the mean of the last ones
)


class StepBoundary(TrainerCallback):  # type: ignore[misc]
    """A trial's callback: one for all of its legs, each of which has a trainer of its own.

    Args:
        context: Of the trial.
        evaluator: Measures its model.
        total_steps: Optimiser steps of all legs.
        keep: Keeps what a trial ends with, the model among it, in a trial's directory; all ranks call it.
    """

    def __init__(
        self,
        context: TrialContext,
        evaluator: Evaluator,
        *,
        total_steps: int,
        keep: Callable[[Any, Path], None],
    ) -> None:
        self._trainer: SweepTrainer | None = None  # of the leg in work
        self._leg: Leg | None = None
        self._loaded: tuple[LoadedCheckpoint, dict[str, Any]] | None = None  # to be put in as the leg begins
        self._moments: dict[str, Any] | None = None  # likewise
        self._best: Best | None = None  # of the leg in work
        self._context = context
        self._evaluator = evaluator
        self._total_steps = total_steps
        self._keep = keep
        self._signals = StepSignals()
        self._taken: list[StepRow] = []  # on the host, not reported yet
        self._tokens = 0
        self._flushed_at = 0.0
        self._flushed = (0, 0)  # step and samples
        self._position = (0, 0)  # likewise
        self._random: Any = None
        self._is_seeded = False
        self._measured: dict[str, float] | None = None  # after the last step
        self._last_losses: deque[float] = deque(maxlen=FINAL_LOSS_STEPS)

    def enter(
        self,
        leg: Leg,
        trainer: SweepTrainer,
        *,
        moments: dict[str, Any] | None = None,
        loaded: tuple[LoadedCheckpoint, dict[str, Any]] | None = None,
    ) -> None:
        """Take up a leg with its trainer, which is about to train.

        Args:
            leg: The leg.
            trainer: Fresh, its weights in place.
            moments: Of the optimiser, where the leg goes on with those of the one before.
            loaded: The checkpoint inside this leg from which it goes on, with its state.
        """
        self._leg, self._trainer, self._moments, self._loaded = leg, trainer, moments, loaded
        self._is_seeded = False  # making the trainer has seeded all ranks alike
        self._best = None if loaded is None else read_best(loaded[0].path, loaded[1])

    def stand_at(self, loaded: LoadedCheckpoint, state: Mapping[str, Any]) -> None:
        """Say where the trial goes on from a checkpoint."""
        self._tokens = int(state["tokens"])
        self._last_losses.extend(state.get("last_losses", ()))
        self._context.start_from(step=loaded.step, samples=loaded.samples)
        self._flushed = self._position = (loaded.step, loaded.samples)

    def leave(self) -> Carried:
        """Return what the leg that ended hands to the next one, and forget its trainer."""
        leg, trainer = self._entered(), self._made_trainer()
        self._trainer = None
        if leg.tracks_best:
            assert self._best is not None, (
                "the end of a leg is evaluated if the next one starts from the best"
            )
            return self._best.carried
        return carried_of(trainer, with_moments=leg.hands_moments)

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Go on where the checkpoint stands, if there is one."""
        if self._loaded is not None:
            loaded, saved = self._loaded
            is_inherited = loaded.step == self._context.spec.inherited_step
            load_state(self._made_trainer(), saved, is_inherited=is_inherited)
            context = self._context
            self._random = random_of(saved, rank=context.rank, n_ranks=context.world_size)
            state.global_step = loaded.step - self._entered().start_step
        elif self._moments is not None:
            load_moments(self._made_trainer().optimizer, self._moments)
        self._loaded = self._moments = None
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
        leg = self._entered()
        step = leg.start_step + state.global_step
        samples = leg.samples_at(step)
        self._position = (step, samples)
        self._gather(step, samples)
        if self._context.channel.should_stop():
            self._flush(step, samples)
        metrics = self._evaluate() if self._context.is_evaluation_due(samples) else {}
        self._keep_if_best(metrics)
        self._measured = metrics if metrics and step == self._total_steps else None
        for shorter in self._context.spec.shorter:
            if shorter.samples == samples:
                self._keep(self._made_trainer().model, Path(shorter.trial_dir))
        checkpoint = self._save(step, samples) if self._context.is_checkpoint_due(samples) else None
        if metrics or checkpoint or step == self._total_steps or self._is_flush_due(step, samples):
            self._flush(step, samples, metrics, checkpoint)

    def finish(self) -> dict[str, float]:
        """Return the final metrics, measured now unless they were after the last step."""
        return self._measured if self._measured is not None else self._evaluate()

    def last_losses_mean(self) -> float:
        """Return the mean training loss of the last steps, for a study whose metric is `loss`."""
        return sum(self._last_losses) / len(self._last_losses)

    def _keep_if_best(self, metrics: dict[str, float]) -> None:
        spec, leg = self._context.spec, self._entered()
        if not leg.tracks_best or spec.metric not in metrics:
            return
        value = metrics[spec.metric]
        if is_better(value, None if self._best is None else self._best.value, direction=spec.direction):
            carried = carried_of(self._made_trainer(), with_moments=leg.hands_moments)
            self._best = Best(value=value, carried=carried)

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
        trainer.forget_step()

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
        self._take()
        rows, self._taken = self._taken, []
        self._context.report_rows(rows, metrics, checkpoint=checkpoint)
        self._flushed_at = self._context.clock()

    def _take(self) -> None:
        """Bring the steps' signals to the host, to be reported with the next window."""
        rows = self._signals.take()
        self._last_losses.extend(row.loss for row in rows if row.loss is not None)
        self._taken += rows

    def _evaluate(self) -> dict[str, float]:
        started = self._context.clock()
        metrics = self._evaluator.measure(self._made_trainer().model)
        self._context.add_evaluation_s(self._context.clock() - started)
        return metrics

    def _save(self, step: int, samples: int) -> str:
        directory = self._context.spec.trial_dir
        self._take()
        return save_checkpoint(
            self._made_trainer(),
            self._context.checkpoint,
            step=step,
            samples=samples,
            tokens=self._tokens,
            last_losses=tuple(self._last_losses),
            best=self._best,
            beside=Path(directory) if directory else None,
            ranks=None if self._context.gang is None else self._context.gang.ranks,
        )

    def _made_trainer(self) -> SweepTrainer:
        assert self._trainer is not None
        return self._trainer

    def _entered(self) -> Leg:
        assert self._leg is not None
        return self._leg
