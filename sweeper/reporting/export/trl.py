"""A config file of TRL's `trl sft`."""

import re
from typing import Any

from sweeper.config.trial_models import DataSource
from sweeper.reporting.export.chosen import ChosenTrial
from sweeper.reporting.export.form import Body, Format, Target
from sweeper.reporting.export.lost import lost_everywhere, lost_order
from sweeper.reporting.export.rows import Part, RowForm, lost_of_sources, only_form, parts_of
from sweeper.reporting.export.template import lost_date
from sweeper.reporting.export.trainer_keys import trainer_keys
from sweeper.reporting.export.yaml_text import yaml_text

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def build(chosen: ChosenTrial, target: Target) -> Body:
    """Return the file: keys of ScriptArguments, SFTConfig, ModelConfig and the data mixture."""
    lost = lost_everywhere(chosen) + lost_order(chosen, target)
    content = _model_keys(chosen, lost)
    if target.rows is None:
        parts = parts_of(chosen.trial)
        lost += lost_of_sources(parts)
        content |= {"datasets": [_mixture_entry(part) for part in parts]} | _loss_keys(chosen, parts, lost)
    else:
        entry = {"path": "json", "data_files": [str(target.rows.absolute())], "split": "train"}
        content |= {"datasets": [entry]}
    content |= _length_keys(chosen, target, lost)
    content |= trainer_keys(chosen)
    content |= {
        # TRL switches it on unless told. From 5.23 on transformers has a new name, and takes this one until 6.
        "gradient_checkpointing": chosen.settings.gradient_checkpointing,
        "router_aux_loss_coef": 0.0,
        "train_sampling_strategy": "random" if target.rows is None else "sequential",
        "num_processes": chosen.batch.data_parallel_size,  # read by `accelerate launch`, which `trl sft` calls
    }
    return Body(text=yaml_text(content), lost=tuple(lost))


def _model_keys(chosen: ChosenTrial, lost: list[str]) -> dict[str, Any]:
    trial, settings = chosen.trial, chosen.settings
    keys: dict[str, Any] = {"model_name_or_path": trial.model}
    if trial.revision is not None:
        keys["model_revision"] = trial.revision
    keys["trust_remote_code"] = trial.trust_remote_code
    # Trained weights stay in float32, as in the trial; those that adapters freeze are read in its precision.
    keys["dtype"] = _DTYPES[chosen.precision.name] if chosen.is_lora else "float32"
    if settings.attn_implementation is not None:
        keys["attn_implementation"] = settings.attn_implementation
    if settings.use_liger_kernel:
        keys["use_liger_kernel"] = True
    if trial.chat_template is not None:
        if trial.chat_template.endswith((".jinja", ".j2")):
            keys["chat_template_path"] = trial.chat_template
        else:
            lost.append(
                f"The chat template {trial.chat_template}: TRL reads one from a file named .jinja only. "
                "Rename it and set `chat_template_path`."
            )
    if chosen.is_lora:
        keys |= _lora_keys(chosen)
    if chosen.is_in_4_bits:
        keys |= {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "use_bnb_nested_quant": True}
        lost.append("Adapters in float32: on weights of 4 bits TRL keeps them in bfloat16.")
    return keys


def _lora_keys(chosen: ChosenTrial) -> dict[str, Any]:
    settings = chosen.settings
    alpha = settings.lora_alpha
    return {
        "use_peft": True,
        "lora_r": settings.lora_rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": settings.lora_dropout,
        "lora_target_modules": _modules(settings.lora_target_modules),
    }


def _modules(modules: str | list[str]) -> list[str]:
    """Return the modules as a list.

    TRL hands a list of one on as its text, which peft takes as a pattern of whole names: so one name becomes a pattern.
    """
    if isinstance(modules, str):
        return [modules]
    return list(modules) if len(modules) != 1 else [rf"(.*\.)?{re.escape(modules[0])}"]


def _loss_keys(chosen: ChosenTrial, parts: list[Part], lost: list[str]) -> dict[str, Any]:
    form = only_form(parts)
    if form is RowForm.TEXT:
        return {}
    if form is RowForm.MESSAGES:
        if chosen.learns_answers_only:
            lost.append(
                "Which tokens are answers: TRL finds them by the chat template, and refuses one without generation "
                "markers that it does not know. `--data FILE` writes the trial's own tokens and labels."
            )
        lost += lost_date(chosen.read_here)
        return {"assistant_only_loss": chosen.learns_answers_only}
    if form is RowForm.CHAT_PAIR:
        lost += lost_date(chosen.read_here)
    return {"completion_only_loss": chosen.learns_answers_only}


def _length_keys(chosen: ChosenTrial, target: Target, lost: list[str]) -> dict[str, Any]:
    if not chosen.settings.packing:
        return {"max_length": chosen.settings.max_length, "packing": False}
    if target.rows is None:
        lost.append(
            f"`max_length` = {chosen.settings.max_length}: with `padding_free` TRL cuts no row. "
            "`--data FILE` writes rows that are cut already."
        )
    # The trial joins the rows of a micro-batch and counts rows; TRL's `packing` would count full sequences.
    return {"max_length": None, "packing": False, "padding_free": True}


def _mixture_entry(part: Part) -> dict[str, Any]:
    source: DataSource = part.source
    entry: dict[str, Any]
    if part.files:
        entry = {"path": part.loader, "data_files": [str(file) for file in part.files]}
    else:
        entry = {"path": source.path} | ({"name": source.name} if source.name is not None else {})
    split = source.split or "train"
    entry["split"] = split if source.limit is None else f"{split}[:{source.limit}]"
    return entry | {"columns": part.columns}


FORMAT = Format(
    name="trl", tool="TRL 1.16", command="trl sft --config {file}", row_kind="tokens", build=build
)
