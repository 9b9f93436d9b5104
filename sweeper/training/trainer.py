"""TRL's trainer with an exact batch, exact signals and nothing else."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import transformers
import trl
from peft import PeftModel
from transformers.trainer_callback import PrinterCallback, TrainerCallback
from trl.trainer.utils import add_fused_lm_head

from sweeper.config.trial_models import TrainSettings
from sweeper.errors import SweeperError
from sweeper.training.encode import IGNORED
from sweeper.training.liger import put_liger_on
from sweeper.training.model import lora_config, without_peft_warning
from sweeper.training.ranks import TorchRanks
from sweeper.training.sharding import sharded_by_us, whole
from sweeper.training.stream import MicroBatches


class SweepTrainer(trl.SFTTrainer):  # type: ignore[misc]
    """An SFTTrainer that trains on a given stream of micro-batches.

    The loss of a step is the mean over all its target tokens, whatever the number of micro-steps; its
    gradient norm is that of the whole step's gradient before clipping. Both stay on the device. TRL's own
    `compute_loss` also computes entropy and accuracy and moves four numbers to the host in every micro-step.
    """

    loss_is_scaled_for_ga = True  # `compute_loss` divides by the target tokens of the whole step

    def __init__(
        self,
        *,
        batches: MicroBatches,
        ranks: TorchRanks | None = None,
        agree: Callable[[int], int] | None = None,
        is_sharded: bool = False,
        **arguments: Any,
    ) -> None:
        """Make a trainer.

        Args:
            batches: This rank's part of the stream.
            ranks: The workers that train together; None where there is one.
            agree: Called by all ranks before a step, with the target tokens of each; returns their sum.
            is_sharded: Whether the model will be shared out before training.
            arguments: TRL's.
        """
        self._batches = batches
        self._ranks = ranks
        self._agree = agree
        self._is_sharded = is_sharded
        self.step_loss: torch.Tensor | None = None  # of the step in work, summed over its micro-steps
        self.step_tokens = 0
        self.step_grad_norm: torch.Tensor | None = None
        self.step_learning_rate: float | None = None
        self._use_cache = getattr(arguments["model"].config, "use_cache", None)
        super().__init__(**arguments)
        for parameter in self.model.parameters():
            if parameter.requires_grad and parameter.dtype != torch.float32:
                # TRL 1.16 turns QLoRA's adapters into bfloat16, where an update of a small rate is lost.
                parameter.data = parameter.data.float()
        if is_sharded:
            sharded_by_us(self)
        self.remove_callback(PrinterCallback)
        # Put TRL's fused head on again, without the entropy that it also computes in every pass.
        base = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        del base.forward
        add_fused_lm_head(base, outputs=("log_probs", "is_top1"))

    def end(self) -> None:
        """Give the model back what transformers set for the training alone: a kept one generates as its base does."""
        if self._use_cache is not None:
            self.model.config.use_cache = self._use_cache

    def forget_step(self) -> None:
        """Forget the measures of a step that was taken, once they were read.

        Raises:
            SweeperError: If this version of transformers has not asked for them: it may call its hooks by other names.
        """
        for hook, was_called in (
            ("get_batch_samples", self.step_tokens > 0),
            ("_get_grad_norm", self.step_learning_rate is not None),
        ):
            if not was_called:
                raise SweeperError(
                    f"transformers {transformers.__version__} does not call `{hook}`, by which a step is measured. "
                    "Install an earlier one, such as 5.23."
                )
        self.step_tokens, self.step_learning_rate = 0, None

    def get_train_dataloader(self) -> MicroBatches:
        """Return the stream itself; moving a batch to the device is `_prepare_inputs`' work."""
        return self._batches

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], int]:
        """Take one optimiser step's micro-batches and count their target tokens, on the host."""
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        tokens = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches)
        self.step_tokens = tokens if self._agree is None else self._agree(tokens)
        self.step_loss = None
        return batches, self.step_tokens

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Send a micro-batch to the GPU without waiting for the passes that are queued there."""
        if self.args.device.type != "cuda":
            prepared: dict[str, Any] = super()._prepare_inputs(inputs)
            return prepared
        return {
            name: value.pin_memory().to(self.args.device, non_blocking=True)
            if isinstance(value, torch.Tensor)
            else value
            for name, value in inputs.items()
            if name != "attention_mask"  # which `target_log_probs` has no use for
        }

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return a micro-batch's part of the step's mean loss."""
        loss: torch.Tensor = -target_log_probs(model, inputs)[0].sum() / num_items_in_batch
        part = loss.detach()
        self.step_loss = part if self.step_loss is None else self.step_loss + part
        # Gradients are averaged over the ranks, and the loss is divided by the tokens of all of them already.
        return loss if self._ranks is None else loss * self._ranks.size

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        # `grad_norm` is what clipping measured, before it clipped; without clipping it is measured here.
        if grad_norm is None:
            self.accelerator.unscale_gradients()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            grad_norm = torch.nn.utils.get_total_norm(gradients)
        grad_norm = whole(grad_norm)  # that of a share alone is what others report for FSDP2
        if self._ranks is not None and self.step_loss is not None:
            self.step_loss = self._ranks.summed(self.step_loss)
        self.step_grad_norm = grad_norm
        self.step_learning_rate = float(self.optimizer.param_groups[0]["lr"])
        return grad_norm

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        if not self._is_sharded:  # else each layer is moved when it is shared out: the whole may not fit
            super()._move_model_to_device(model, device)

    def _defer_fsdp_gradient_reduction(self) -> contextlib.AbstractContextManager[None]:
        # Nothing is put off in a model that was shared out by us: until it is reduced, every GPU would hold the whole
        # gradient in float32, 4 bytes for each parameter, and half a micro-batch, which means accumulation, would take
        # more memory than the whole one. The price is that every micro-step reduces, beside its backward pass.
        return contextlib.nullcontext()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Count nothing: the estimate walks over all parameters in every micro-step."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log nothing: signals go through the trial's context."""


def target_log_probs(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of each target token, and whether it is the likeliest; in no set shape.

    Rows are padded on the right, which a causal model's tokens never look at, so no attention mask is needed;
    without one the quicker causal kernel is used (10.5 against 12.5 ms a step for the tests' model). On CUDA TRL's
    fused head never holds the whole logits; its fallback for CPUs is slower than plain logits (29 against 23 ms a
    step for examples/tiny at batch 32). Both on 2 cores, November 2026.
    """
    seen = {name: value for name, value in inputs.items() if name != "attention_mask"}
    return fused_log_probs(model, seen) if inputs["input_ids"].is_cuda else plain_log_probs(model, seen)


def fused_log_probs(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Score the targets with TRL's fused head; zero at all other positions."""
    outputs = model(**inputs, use_cache=False, fused_lm_head=True)
    return outputs.log_probs, outputs.is_top1


def plain_log_probs(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Score the targets with the model's own logits, in float32; one value per target."""
    targets = inputs["labels"][:, 1:]
    is_target = targets != IGNORED
    seen = {name: value for name, value in inputs.items() if name != "labels"}
    logits = model(**seen, use_cache=False).logits[:, :-1][is_target].float()
    log_probs = -torch.nn.functional.cross_entropy(logits, targets[is_target], reduction="none")
    return log_probs, logits.argmax(-1) == targets[is_target]


def make_trainer(
    *,
    model: Any,
    tokenizer: Any,
    settings: TrainSettings,
    revision: str | None,
    arguments: Any,
    batches: MicroBatches,
    train_dataset: Any,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    callback: TrainerCallback,
    ranks: TorchRanks | None = None,
    agree: Callable[[int], int] | None = None,
    is_sharded: bool = False,
) -> SweepTrainer:
    """Return a trainer whose model, adapters and dropout depend on the seed alone."""
    transformers.set_seed(arguments.seed)
    if settings.use_liger_kernel:
        put_liger_on(model)
    with without_peft_warning():
        return SweepTrainer(
            batches=batches,
            model=model,
            args=arguments,
            train_dataset=train_dataset,
            processing_class=tokenizer,
            data_collator=collate,
            peft_config=lora_config(settings, revision=revision),
            callbacks=[callback],
            ranks=ranks,
            agree=agree,
            is_sharded=is_sharded,
        )
