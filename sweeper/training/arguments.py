"""The arguments of TRL's trainer that a trial's settings stand for."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
import transformers
import trl

from sweeper.config.trial_models import TrainSettings
from sweeper.errors import SweeperError
from sweeper.optimizer import warmup_in_steps
from sweeper.training.model import precision

# transformers renamed it between 5.17 and 5.23, and warns of the older name.
CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in {field.name for field in dataclasses.fields(trl.SFTConfig)}
)


def training_arguments(
    settings: TrainSettings,
    *,
    output_dir: Path,
    micro_batch_size: int,
    gradient_accumulation_steps: int,
    total_steps: int,
    seed: int,
    n_ranks: int = 1,
) -> Any:
    """Return the trainer's arguments, with everything switched off that a trial does not need."""
    used = precision(settings)
    on_gpu = torch.cuda.is_available()
    arguments = trl.SFTConfig(
        output_dir=str(output_dir),
        per_device_train_batch_size=micro_batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        max_steps=total_steps,
        seed=seed,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        lr_scheduler_kwargs=dict(settings.lr_scheduler_kwargs),
        warmup_steps=warmup_in_steps(
            steps=settings.warmup_steps,
            samples=settings.warmup_samples,
            frac=settings.warmup_frac,
            effective_batch_size=micro_batch_size * gradient_accumulation_steps * n_ranks,
            total_steps=total_steps,
        ),
        **_optimizer_arguments(settings, used),
        use_cpu=not on_gpu,
        ddp_backend=None if n_ranks == 1 else "nccl" if on_gpu else "gloo",
        bf16=used == "bf16",
        fp16=used == "fp16",
        **{CHECKPOINTING: settings.gradient_checkpointing},
        **_switched_off(),
    )
    if on_gpu and n_ranks == 1:
        use_one_gpu(arguments)
    return arguments


def use_one_gpu(arguments: Any) -> None:
    """Let a process that sees several GPUs use one: the trainer would share each batch out over all (DataParallel).

    Raises:
        SweeperError: If this version of transformers does not listen.
    """
    arguments._n_gpu = min(1, arguments.n_gpu)
    if arguments.n_gpu > 1:
        raise SweeperError(
            f"transformers {transformers.__version__} would share each batch out over {arguments.n_gpu} GPUs of this "
            "process, which changes the loss and the memory of a trial. Let the process see one GPU "
            "(CUDA_VISIBLE_DEVICES), or install an earlier transformers, such as 5.23."
        )


def _optimizer_arguments(settings: TrainSettings, used_precision: str) -> dict[str, Any]:
    return {
        "optim": _optimizer_name(settings.optimizer, used_precision),
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.adam_beta1,
        "adam_beta2": settings.adam_beta2,
        "adam_epsilon": settings.adam_epsilon,
        "max_grad_norm": settings.max_grad_norm or 0.0,
    }


def _switched_off() -> dict[str, Any]:
    """Return what a trial does not need, anew each time: the arguments keep the list and the dict."""
    return {
        "ddp_find_unused_parameters": False,  # a search in every step for what a causal model has not
        "ddp_broadcast_buffers": False,  # nor do its buffers change
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "router_aux_loss_coef": 0.0,  # the loss is that of the target tokens alone
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,  # the default logs a NaN loss as 0.0
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
        "dataloader_pin_memory": False,
        "average_tokens_across_devices": False,
    }


def _optimizer_name(name: str, used_precision: str) -> str:
    # The fused kernel is the same AdamW; elsewhere than on CUDA the plain one is kept. So it is in fp16: the fused one
    # leaves a step out inside its kernel, where accelerate (1.15) cannot see that the gradient had overflowed.
    is_fused = name == "adamw_torch" and torch.cuda.is_available() and used_precision != "fp16"
    return "adamw_torch_fused" if is_fused else name
