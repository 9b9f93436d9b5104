"""Settings under the names of transformers' TrainingArguments, which TRL and LLaMA-Factory share."""

from typing import Any

from sweeper.reporting.export.chosen import ChosenTrial


def trainer_keys(chosen: ChosenTrial) -> dict[str, Any]:
    """Return what every descendant of transformers' Trainer is told alike."""
    settings, batch, used = chosen.settings, chosen.batch, chosen.precision
    keys: dict[str, Any] = {
        "output_dir": chosen.name,
        "per_device_train_batch_size": batch.micro_batch_size,
        "gradient_accumulation_steps": batch.gradient_accumulation_steps,
        "max_steps": chosen.total_steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
    }
    if settings.lr_scheduler_kwargs:
        keys["lr_scheduler_kwargs"] = dict(settings.lr_scheduler_kwargs)
    keys |= {
        "warmup_steps": chosen.warmup_steps,
        "optim": settings.optimizer,
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.adam_beta1,
        "adam_beta2": settings.adam_beta2,
        "adam_epsilon": settings.adam_epsilon,
        "max_grad_norm": settings.max_grad_norm or 0.0,  # 0 is the Trainer's word for no clipping
        "bf16": used.name == "bf16",
        "fp16": used.name == "fp16",
    }
    if used.name == "bf16" and not used.has_gpu:
        keys["use_cpu"] = True  # without a GPU the Trainer takes bf16 only so
    return keys | {
        "seed": settings.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # the default logs a NaN loss as 0
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
    }
