"""What a trial's code is given: its settings, its marks, and the way to report.

The built-in fine-tuning and a user's own `module:function` use the same context; neither knows who runs it.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from sweeper.channel import Channel, CheckpointStore, TrialStopped
from sweeper.gang import Gang
from sweeper.records import LOSS, Report, StepRow
from sweeper.trial_spec import TrialSpec

__all__ = ["TrialContext", "TrialStopped"]  # what a user's own trial imports from here


@dataclasses.dataclass(kw_only=True)
class TrialContext:
    """A trial's view of the sweep.

    A window of steps is closed and sent when a mark is reached, when a step looks divergent, when metrics come
    with it, or when `report_every_s` has passed; so `report` may be called at every step and is cheap.
    """

    spec: TrialSpec
    channel: Channel
    checkpoint: CheckpointStore
    gang: Gang | None = None  # where several workers train the trial; it is then the channel too
    report_every_s: float = 1.0
    clock: Callable[[], float] = time.monotonic
    newest: dict[str, float] = dataclasses.field(
        default_factory=dict
    )  # of each reported metric, and of the loss
    micro_batch_size: int | None = None  # that it trains with, once that is known
    _rows: list[StepRow] = dataclasses.field(default_factory=list)
    _samples: int = 0
    _step: int = 0
    _sent_at: float | None = None
    _evaluation_s: float = 0.0
    _started_at: float | None = None
    _asks_when_to_save: bool = False
    _last_save_at: int | None = (
        None  # samples at which the checkpoint was asked for that comes before a pause
    )

    @property
    def params(self) -> Mapping[str, Any]:
        """The sampled values only."""
        return self.spec.params

    @property
    def settings(self) -> Mapping[str, Any]:
        """The fixed settings with the sampled values applied."""
        return self.spec.settings

    @property
    def seed(self) -> int:
        return self.spec.seed

    @property
    def rank(self) -> int:
        """Which of the trial's workers this is, from 0. Rank 0 reports and saves for all."""
        return 0 if self.gang is None else self.gang.ranks.rank

    @property
    def world_size(self) -> int:
        """How many workers train the trial, each on a share of every step's samples."""
        return 1 if self.gang is None else self.gang.ranks.size

    @property
    def budget_samples(self) -> int:
        return self.spec.budget_samples

    def report(
        self,
        *,
        step: int,
        samples: int,
        loss: float | None = None,
        grad_norm: float | None = None,
        tokens: int = 0,
        learning_rate: float | None = None,
        **metrics: float,
    ) -> None:
        """Report one optimiser step, with whatever metrics were evaluated after it.

        Where several workers train the trial, every one of them reports every step, so that all end at the same one;
        what rank 0 says counts.

        Args:
            step: Completed optimiser steps, from 1, strictly increasing.
            samples: Training sequences seen so far.
            loss: Mean over the target tokens of this step. NaN means divergence; leave it out where there is none.
            grad_norm: Norm of the whole step's gradient before clipping.
            tokens: Target tokens seen so far.
            learning_rate: Of this step.
            metrics: Values by name, for example the study's metric.

        Raises:
            TrialStopped: If the trial is to end. Let it through.
            ValueError: If step or samples do not grow.
        """
        row = StepRow(step, samples, tokens, _number(loss), _number(grad_norm), _number(learning_rate))
        self.report_rows([row], {name: float(value) for name, value in metrics.items()})
        if self.gang is not None:
            self.gang.agree()

    def report_rows(
        self,
        rows: list[StepRow],
        metrics: Mapping[str, float] | None = None,
        *,
        checkpoint: str | None = None,
    ) -> None:
        """Report several optimiser steps at once. `metrics` belong to the last of them."""
        if self._started_at is None:
            self._started_at = self._sent_at = self.clock()
        mark_passed = False
        for row in rows:
            if row.step <= self._step or row.samples < self._samples:
                raise ValueError(
                    f"Steps must grow: step {row.step} at {row.samples} samples was reported after step "
                    f"{self._step} at {self._samples} samples."
                )
            mark_passed = mark_passed or self._passes_mark(row)
            self._step, self._samples = row.step, row.samples
            self._rows.append(row)
            if row.loss is not None:
                self.newest[LOSS] = row.loss
        self.newest.update(metrics or {})
        if self.channel.should_stop():
            raise TrialStopped
        pausing = self.channel.should_pause() and self._samples < self.budget_samples
        due = pausing or self._sent_at is None or self.clock() - self._sent_at >= self.report_every_s
        judged = mark_passed or self._looks_divergent(rows)
        if judged or metrics or checkpoint or due:
            # Training beyond a rung while its judge thinks would be wasted where the trial is stopped. And a
            # checkpoint is no use before the curve up to it is recorded: the one before it has to last until then.
            wait = judged or checkpoint is not None
            self.channel.send(self.take_report(metrics, checkpoint=checkpoint), wait=wait)
        if pausing and (checkpoint is not None or not self._is_about_to_save()):
            if self.gang is None:
                raise TrialStopped
            self.gang.stop()  # not alone: only rank 0 may have saved

    def take_report(
        self, metrics: Mapping[str, float] | None = None, *, checkpoint: str | None = None
    ) -> Report:
        """Return what was not sent yet as a report, and forget it. For whoever ends the trial."""
        now = self.clock()
        started = now if self._started_at is None else self._started_at
        report = Report(
            rows=tuple(self._rows),
            metrics=dict(metrics or {}),
            checkpoint=checkpoint,
            train_s=now - started - self._evaluation_s,
            evaluation_s=self._evaluation_s,
            micro_batch_size=self.micro_batch_size,
        )
        self._rows = []
        self._sent_at = now
        return report

    def start_from(self, *, step: int, samples: int) -> None:
        """Say where a loaded checkpoint stands, so that rows go on from there."""
        self._step, self._samples = step, samples

    def add_evaluation_s(self, seconds: float) -> None:
        """Count seconds as evaluation, not training."""
        self._evaluation_s += seconds

    def is_evaluation_due(self, samples: int) -> bool:
        """Whether a step that ends at `samples` is the first at or past an evaluation mark.

        Ask before reporting that step: reporting moves the position on.
        """
        return any(self._samples < mark <= samples for mark in self.spec.evaluation_marks)

    def is_checkpoint_due(self, samples: int) -> bool:
        """Whether a step that ends at `samples` is the first at or past a checkpoint mark, or the sweep is interrupted.

        Ask at every step, before reporting it: an interrupted trial is ended by the report of this checkpoint, or else
        of the next step.
        """
        self._asks_when_to_save = True
        if self._last_save_at is None and samples < self.budget_samples and self.channel.should_pause():
            self._last_save_at = samples
            return True
        return any(self._samples < mark <= samples for mark in self.spec.checkpoint_marks)

    def _is_about_to_save(self) -> bool:
        """Whether the trial's code was asked for a last checkpoint, or will be at its next step."""
        if self._last_save_at is None:
            return self._asks_when_to_save
        return self._samples <= self._last_save_at

    def _passes_mark(self, row: StepRow) -> bool:
        return any(self._samples < mark <= row.samples for mark in self.spec.marks) or any(
            self._step < mark <= row.step for mark in self.spec.step_marks
        )

    @staticmethod
    def _looks_divergent(rows: list[StepRow]) -> bool:
        """A NaN or Inf where a number was reported. The orchestrator judges; this only hurries."""
        return any(
            value is not None and not math.isfinite(value)
            for row in rows
            for value in (row.loss, row.grad_norm)
        )


def _number(value: float | None) -> float | None:
    """Turn numpy and torch scalars into plain floats; they must not travel to the driver."""
    return None if value is None else float(value)
