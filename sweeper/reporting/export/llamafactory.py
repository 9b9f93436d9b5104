"""A training file of LLaMA-Factory, with the dataset_info.json that it looks its data up in."""

import json
from pathlib import Path
from typing import Any

from sweeper.errors import ConfigError
from sweeper.reporting.export.chosen import ChosenTrial
from sweeper.reporting.export.form import Body, Format, Target
from sweeper.reporting.export.lost import lost_adapters, lost_everywhere, lost_order
from sweeper.reporting.export.rows import Part, RowForm, lost_of_sources, only_form, parts_of
from sweeper.reporting.export.template import FIX_DATE, lost_date
from sweeper.reporting.export.trainer_keys import trainer_keys
from sweeper.reporting.export.yaml_text import yaml_text

_ATTENTION = {"sdpa": "sdpa", "flash_attention_2": "fa2", "flash_attention_3": "fa3", "eager": "disabled"}
_CHAT_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function_call",
    "system_tag": "system",
}


def build(chosen: ChosenTrial, target: Target) -> Body:
    """Return the file, and the data's description in a directory beside it."""
    assert target.out is not None, "two files cannot be printed as one"
    lost = lost_everywhere(chosen) + lost_order(chosen, target) + lost_adapters(chosen)
    parts = parts_of(chosen.trial)
    form = only_form(parts, in_rows=target.rows is not None)
    info = _dataset_info(chosen, parts, form, target, lost)
    directory = target.out.absolute().parent / f"{target.out.stem}-data"
    content = _model_keys(chosen, lost) | {
        "stage": "pt" if form is RowForm.TEXT else "sft",
        "do_train": True,
        **_method_keys(chosen),
        "dataset": ",".join(info),
        "dataset_dir": str(directory),
        **_template_keys(chosen, form, target, lost),
        "cutoff_len": chosen.settings.max_length,
        "train_on_prompt": not chosen.learns_answers_only and form is not RowForm.TEXT,
        "packing": False,
        "disable_shuffling": target.rows is not None,
        "overwrite_cache": True,
        "disable_gradient_checkpointing": not chosen.settings.gradient_checkpointing,
        **trainer_keys(chosen),
    }
    beside = {directory / "dataset_info.json": json.dumps(info, indent=2) + "\n"}
    return Body(text=yaml_text(content), lost=tuple(lost), beside=beside)


def _model_keys(chosen: ChosenTrial, lost: list[str]) -> dict[str, Any]:
    trial = chosen.trial
    keys: dict[str, Any] = {"model_name_or_path": trial.model}
    if trial.revision is not None:
        keys["model_revision"] = trial.revision
    keys["trust_remote_code"] = trial.trust_remote_code
    attention = chosen.settings.attn_implementation
    if attention in _ATTENTION:
        keys["flash_attn"] = _ATTENTION[attention]
    elif attention is not None:
        lost.append(f"attn_implementation = {attention}, which LLaMA-Factory has no word for.")
    if chosen.settings.use_liger_kernel:
        keys["enable_liger_kernel"] = True
    return keys


def _method_keys(chosen: ChosenTrial) -> dict[str, Any]:
    if not chosen.is_lora:
        return {"finetuning_type": "full"}
    settings = chosen.settings
    modules, alpha = chosen.module_names("LLaMA-Factory"), settings.lora_alpha
    bits = {"quantization_bit": 4, "quantization_type": "nf4", "double_quantization": True}
    return {
        **(bits if chosen.is_in_4_bits else {}),
        "finetuning_type": "lora",
        "lora_rank": settings.lora_rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": settings.lora_dropout,
        "lora_target": "all" if modules is None else ",".join(modules),
    }


def _template_keys(chosen: ChosenTrial, form: RowForm, target: Target, lost: list[str]) -> dict[str, Any]:
    if form is RowForm.PAIR:
        lost += _lost_of_pairs(target)
    if form in (RowForm.TEXT, RowForm.PAIR):
        return {"template": "empty"}  # the text as it is
    lost.append(
        "The chat template: LLaMA-Factory takes the tokenizer's apart and puts texts together itself. Compare a "
        "row's tokens, or set `template` to its own for this model."
    )
    lost += lost_date(chosen.read_here, remedy=FIX_DATE)
    if chosen.trial.chat_template is not None:
        lost.append(f"The file {chosen.trial.chat_template}, which replaces the tokenizer's own template.")
    return {}


def _lost_of_pairs(target: Target) -> list[str]:
    said = [
        "Where prompt and completion meet: LLaMA-Factory makes tokens of each by itself, and there they may be others."
    ]
    if target.rows is None:
        said.append(
            "The token that ends a completion, and the one that begins a text where the tokenizer has one: the "
            "template `empty` writes neither, so the model does not learn to stop. `--data FILE` writes them into the "
            "texts."
        )
    return said


def _dataset_info(
    chosen: ChosenTrial, parts: list[Part], form: RowForm, target: Target, lost: list[str]
) -> dict[str, Any]:
    if target.rows is not None:
        entry = {"file_name": str(target.rows.absolute())}
        has_tools = any(part.has_tools for part in parts)
        return {chosen.name: entry | _columns(form, has_tools=has_tools)}
    if form is RowForm.CHAT_PAIR:
        raise ConfigError(
            f"LLaMA-Factory reads no {form.value}. Write them as `messages` with `--data FILE`."
        )
    lost += lost_of_sources(parts)
    return {f"{chosen.name}-{index}": _entry(part, lost) for index, part in enumerate(parts)}


def _entry(part: Part, lost: list[str]) -> dict[str, Any]:
    source = part.source
    if source.limit is not None:
        lost.append(
            f"`limit` = {source.limit} of {source.path}: all rows are read. `--data FILE` writes the trial's."
        )
    entry: dict[str, Any] = {"file_name": str(Path(source.path).absolute())}
    if not part.files:
        entry = {"hf_hub_url": source.path, "split": source.split or "train"}
        entry |= {"subset": source.name} if source.name is not None else {}
    if part.has_tools:
        lost.append("Tools: LLaMA-Factory reads them as JSON text. `--data FILE` writes them so.")
    return entry | _columns(part.form, has_tools=False)


def _columns(form: RowForm, *, has_tools: bool) -> dict[str, Any]:
    if form is RowForm.TEXT:
        return {"columns": {"prompt": "text"}}
    if form is RowForm.PAIR:
        return {"columns": {"prompt": "prompt", "response": "completion"}}
    columns = {"messages": "messages"} | ({"tools": "tools"} if has_tools else {})
    return {"formatting": "openai", "columns": columns, "tags": dict(_CHAT_TAGS)}


FORMAT = Format(
    name="llamafactory",
    tool="LLaMA-Factory 0.9",
    command="llamafactory-cli train {file}",
    row_kind="chats",
    adds_no_ends=True,
    needs_out=True,
    build=build,
)
