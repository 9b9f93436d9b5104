"""A Python file that calls Red Hat's training-hub: `sft` (instructlab-training) or `lora_sft` (Unsloth)."""

from pathlib import Path
from typing import Any

from sweeper.errors import ConfigError
from sweeper.reporting.export.chosen import ChosenTrial
from sweeper.reporting.export.form import Body, Format, Target
from sweeper.reporting.export.lost import lost_adapters, lost_everywhere
from sweeper.reporting.export.rows import RowForm, parts_of
from sweeper.reporting.export.template import FIX_DATE, lost_date
from sweeper.training.sources import read_rows


def build(chosen: ChosenTrial, target: Target) -> Body:
    """Return the file."""
    lost = lost_everywhere(chosen, holds_batch=True)
    arguments = _shared(chosen, target, lost)
    if chosen.is_lora:
        function, own = "lora_sft", _lora_arguments(chosen)
        lost += _lost_by_lora(chosen)
    else:
        function, own = "sft", _full_arguments(chosen)
        lost += _lost_by_full(chosen)
    lines = [f"        {name}={value!r}," for name, value in (arguments | own).items()]
    text = "\n".join(
        [
            f"from training_hub import {function}",
            "",
            'if __name__ == "__main__":  # it starts processes that read this file again',
            f"    {function}(",
            *lines,
            "    )",
            "",
        ]
    )
    return Body(text=text, lost=tuple(lost), command=_command(chosen))


def _command(chosen: ChosenTrial) -> str | None:
    """Return how several processes are started for `lora_sft`, which starts none itself; None: as always."""
    n_processes = chosen.batch.data_parallel_size
    return f"torchrun --nproc-per-node {n_processes} {{file}}" if chosen.is_lora and n_processes > 1 else None


def _shared(chosen: ChosenTrial, target: Target, lost: list[str]) -> dict[str, Any]:
    trial, settings = chosen.trial, chosen.settings
    path, n_epochs = _data(chosen, target, lost)
    arguments: dict[str, Any] = {
        "model_path": trial.model,
        "data_path": str(path.absolute()),
        "ckpt_output_dir": chosen.name,
        "num_epochs": n_epochs,
        "effective_batch_size": chosen.batch.effective_batch_size,
        "learning_rate": settings.learning_rate,
        "max_seq_len": settings.max_length,
        "warmup_steps": chosen.warmup_steps,
        "weight_decay": settings.weight_decay,
        "trust_remote_code": trial.trust_remote_code,
        "nproc_per_node": chosen.batch.data_parallel_size,
    }
    if trial.revision is not None:
        lost.append(f"The model's revision `{trial.revision}`: the newest one is read.")
    if trial.chat_template is not None:
        lost.append(f"The chat template {trial.chat_template}: training-hub takes the tokenizer's own.")
    if settings.attn_implementation is not None:
        lost.append(f"attn_implementation = {settings.attn_implementation}: training-hub chooses it itself.")
    return arguments


def _full_arguments(chosen: ChosenTrial) -> dict[str, Any]:
    settings = chosen.settings
    return {
        # Passes are filled up to so many tokens; accumulation follows from it.
        "max_tokens_per_gpu": chosen.batch.micro_batch_size * settings.max_length,
        "beta1": settings.adam_beta1,
        "beta2": settings.adam_beta2,
        "eps": settings.adam_epsilon,
        "random_seed": settings.seed,
        "checkpoint_at_epoch": True,
        "accelerate_full_state_at_epoch": False,
        "use_liger": settings.use_liger_kernel,
    }


def _lora_arguments(chosen: ChosenTrial) -> dict[str, Any]:
    settings = chosen.settings
    modules, alpha = chosen.module_names("training-hub"), settings.lora_alpha
    arguments: dict[str, Any] = {
        "gradient_accumulation_steps": chosen.batch.gradient_accumulation_steps,
        "lora_r": settings.lora_rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": settings.lora_dropout,
        "lr_scheduler": settings.lr_scheduler_type,
        "max_grad_norm": settings.max_grad_norm or 0.0,
        "bf16": chosen.precision.name == "bf16",
        "fp16": chosen.precision.name == "fp16",
        "sample_packing": False,
        "seed": settings.seed,
    }
    if modules is not None:
        arguments["target_modules"] = modules
    if chosen.is_in_4_bits:
        # Unsloth's 4 bits are NF4 with double quantisation; it hands further words about them to the model, which has
        # no such arguments.
        arguments["load_in_4bit"] = True
    return arguments


def _data(chosen: ChosenTrial, target: Target, lost: list[str]) -> tuple[Path, int]:
    """Return the file of chats, and how many epochs of it come nearest to the budget."""
    parts = parts_of(chosen.trial)
    wrong = [part for part in parts if part.form in (RowForm.TEXT, RowForm.PAIR)]
    if wrong:
        raise ConfigError(
            f"training-hub trains chats, but `{wrong[0].source.path}` holds {wrong[0].form.value}. "
            "Choose `--format trl` or `axolotl`."
        )
    lost.append("The order of rows: training-hub always shuffles them.")
    lost += lost_date(chosen.read_here, remedy=FIX_DATE)
    if target.rows is not None:
        return target.rows, 1
    only = parts[0]
    is_fit = len(parts) == 1 and only.form is RowForm.MESSAGES and len(only.files) == 1
    needs_mark = not chosen.learns_answers_only and not chosen.is_lora  # rows that say `unmask`
    if not is_fit or only.loader != "json" or only.source.limit is not None or needs_mark:
        raise ConfigError(
            "training-hub reads one JSONL file of chats in `messages`, which the trial's data is not as it stands. "
            "Write it with `--data FILE`."
        )
    n_rows = sum(1 for _ in read_rows(only.source))
    n_epochs = max(1, round(chosen.samples / n_rows))
    if n_epochs * n_rows != chosen.samples:
        lost.append(
            f"The budget of {chosen.samples} samples: training-hub counts whole epochs, {n_epochs} of {n_rows} rows. "
            "`--data FILE` writes exactly the rows of the budget."
        )
    return only.files[0], n_epochs


def _lost_by_full(chosen: ChosenTrial) -> list[str]:
    settings = chosen.settings
    said = []
    if settings.lr_scheduler_type != "cosine":
        said.append(
            f"The schedule `{settings.lr_scheduler_type}`: instructlab-training always decays by a cosine."
        )
    if settings.max_grad_norm != 1.0:
        shown = "no clipping" if settings.max_grad_norm is None else f"clipping at {settings.max_grad_norm:g}"
        said.append(f"{shown[0].upper()}{shown[1:]}: instructlab-training always clips at 1.")
    if settings.optimizer not in ("adamw_torch", "adamw_torch_fused"):
        said.append(f"The optimizer `{settings.optimizer}`: instructlab-training takes AdamW.")
    if chosen.precision.name != "bf16":
        said.append(f"Precision {chosen.precision.name}: instructlab-training computes in bf16.")
    said.append("Rows longer than `max_length`: they are left out, not cut.")
    return said


def _lost_by_lora(chosen: ChosenTrial) -> list[str]:
    settings = chosen.settings
    said = lost_adapters(chosen)
    if chosen.learns_answers_only:
        said.append("Learning answers only: `lora_sft` learns every token of a chat.")
    said.append(
        f"Adam's betas ({settings.adam_beta1:g}, {settings.adam_beta2:g}) and epsilon ({settings.adam_epsilon:g}), "
        f"and the optimizer `{settings.optimizer}`: `lora_sft` takes its own."
    )
    if settings.lr_scheduler_kwargs:
        said.append("lr_scheduler_kwargs: `lora_sft` takes none.")
    if settings.use_liger_kernel:
        said.append("use_liger_kernel: `lora_sft` trains with Unsloth's own kernels.")
    return said


FORMAT = Format(
    name="training-hub",
    tool="training-hub 0.9",
    command="python {file}",
    row_kind="chats",
    row_if_all={"unmask": True},
    build=build,
)
