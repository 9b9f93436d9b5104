"""A config file of axolotl."""

from pathlib import Path
from typing import Any

from sweeper.errors import ConfigError
from sweeper.reporting.export.chosen import ChosenTrial
from sweeper.reporting.export.form import Body, Format, Target
from sweeper.reporting.export.lost import lost_adapters, lost_everywhere, lost_order
from sweeper.reporting.export.rows import Part, RowForm, lost_of_sources, parts_of
from sweeper.reporting.export.template import lost_date, template_facts
from sweeper.reporting.export.yaml_text import yaml_text

_FLASH = (
    "flash_attention_2",
    "flash_attention_3",
    "kernels-community/flash-attn2",
    "kernels-community/flash-attn3",
)
# Liger's layers, as its plugin calls them.
_LIGER = ("liger_rope", "liger_rms_norm", "liger_layer_norm", "liger_glu_activation")


def build(chosen: ChosenTrial, target: Target) -> Body:
    """Return the file."""
    lost = lost_everywhere(chosen) + lost_order(chosen, target) + _lost(chosen)
    content = _model_keys(chosen)
    if target.rows is None:
        parts = parts_of(chosen.trial)
        content["datasets"] = [_dataset(part, chosen) for part in parts]
        lost += lost_of_sources([part for part in parts if part.files])  # it reads a revision of the hub
        forms = {part.form for part in parts}
        if RowForm.MESSAGES in forms:
            content |= _turn_keys(chosen, lost)
        lost += _lost_in_place(chosen, forms)
    else:
        # An empty type: the rows are tokens, attention masks and labels.
        content["datasets"] = [{"path": str(target.rows.absolute()), "ds_type": "json", "type": None}]
    content |= _run_keys(chosen, target)
    return Body(text=yaml_text(content), lost=tuple(lost))


def _model_keys(chosen: ChosenTrial) -> dict[str, Any]:
    trial, settings = chosen.trial, chosen.settings
    keys: dict[str, Any] = {"base_model": trial.model}
    if trial.revision is not None:
        keys["revision_of_model"] = trial.revision
    keys["trust_remote_code"] = trial.trust_remote_code
    if settings.attn_implementation is not None:
        keys["attn_implementation"] = settings.attn_implementation
    if settings.use_liger_kernel:
        keys |= {"plugins": ["axolotl.integrations.liger.LigerPlugin"]} | dict.fromkeys(_LIGER, True)
    if chosen.is_lora:
        modules = settings.lora_target_modules
        alpha = settings.lora_alpha
        keys |= {
            "adapter": "qlora" if chosen.is_in_4_bits else "lora",
            "lora_r": settings.lora_rank,
            "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
            "lora_dropout": settings.lora_dropout,
        }
        keys |= {"lora_target_linear": True} if modules == "all-linear" else {"lora_target_modules": modules}
    if chosen.is_in_4_bits:
        keys["load_in_4bit"] = True  # NF4 with double quantisation, unless told otherwise
    return keys


def _dataset(part: Part, chosen: ChosenTrial) -> dict[str, Any]:
    source = part.source
    entry: dict[str, Any] = {"path": source.path}
    if len(part.files) == 1:
        entry = {"path": str(part.files[0]), "ds_type": part.loader}
    elif part.files:
        files = [str(file) for file in part.files]
        entry = {"path": str(Path(source.path).absolute()), "ds_type": part.loader, "data_files": files}
    if source.name is not None:
        entry["name"] = source.name
    if source.revision is not None:
        entry["revision"] = source.revision
    split = source.split or "train"
    entry["split"] = split if source.limit is None else f"{split}[:{source.limit}]"
    return entry | _dataset_type(part, chosen)


def _dataset_type(part: Part, chosen: ChosenTrial) -> dict[str, Any]:
    if part.form is RowForm.TEXT:
        return {"type": "completion", "field": "text"}
    if part.form is RowForm.PAIR:
        own = {"field_instruction": "prompt", "field_output": "completion", "format": "{instruction}"}
        return {"type": own | {"no_input_format": "{instruction}"}}
    if part.form is RowForm.CHAT_PAIR:
        raise ConfigError(
            f"axolotl reads no {part.form.value}. Write the trial's tokens and labels with `--data FILE`."
        )
    roles = ["assistant"] if chosen.learns_answers_only else ["system", "user", "assistant", "tool"]
    return {"type": "chat_template", "field_messages": "messages", "roles_to_train": roles} | (
        {"chat_template": "jinja", "chat_template_jinja": chosen.trial.chat_template}
        if chosen.trial.chat_template is not None
        else {"chat_template": "tokenizer_default"}
    )


def _turn_keys(chosen: ChosenTrial, lost: list[str]) -> dict[str, Any]:
    """Return the token that ends a turn, which axolotl takes for `eos_token` unless told, and learns alone."""
    facts = template_facts(chosen.read_here)
    if facts is None:
        lost.append(
            "The token that ends a turn: the chat template could not be read here. Where it is not the tokenizer's "
            "`eos_token`, name it in `eot_tokens`, or the model does not learn to stop."
        )
    elif facts.end_of_turn is None:
        lost.append(
            "The end of a turn, which the chat template writes as plain text: axolotl does not learn it. `--data FILE` "
            "writes the trial's tokens and labels."
        )
    elif facts.end_of_turn != facts.eos_token:
        return {"eot_tokens": [facts.end_of_turn]}
    return {}


def _lost_in_place(chosen: ChosenTrial, forms: set[RowForm]) -> list[str]:
    said = []
    if RowForm.MESSAGES in forms:
        whose = "answers" if chosen.learns_answers_only else "messages"
        said += [
            f"Which tokens are learned: of a chat axolotl learns the words of the {whose} and the token that ends "
            "each, and nothing else that the template writes. `--data FILE` writes the trial's tokens and labels.",
            *lost_date(chosen.read_here),
        ]
    if RowForm.PAIR in forms:
        said.append(
            "The white space between prompt and completion is axolotl's own. `--data FILE` keeps the trial's."
        )
    if RowForm.TEXT in forms:
        said.append(
            f"Texts of more than {chosen.settings.max_length} tokens: axolotl makes several rows of one, which the "
            "trial cuts. `--data FILE` writes rows that are cut."
        )
    return said


def _run_keys(chosen: ChosenTrial, target: Target) -> dict[str, Any]:
    settings, batch, used = chosen.settings, chosen.batch, chosen.precision
    in_order = target.rows is not None
    keys: dict[str, Any] = {
        "train_on_inputs": not chosen.learns_answers_only,
        "shuffle_merged_datasets": not in_order,
        "curriculum_sampling": in_order,  # reads the rows one after the other
        "val_set_size": 0.0,
        "sequence_len": settings.max_length,
        "excess_length_strategy": "truncate",
        "sample_packing": False,
        "pad_to_sequence_len": False,
        # It refuses others; without it rows are padded, to the same loss.
        "batch_flattening": settings.packing and _is_flash(settings.attn_implementation),
        "micro_batch_size": batch.micro_batch_size,
        "gradient_accumulation_steps": batch.gradient_accumulation_steps,
        "num_epochs": 1 if in_order else chosen.total_steps,  # more than there can be; max_steps ends it
        "max_steps": chosen.total_steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler": settings.lr_scheduler_type,
    }
    if settings.lr_scheduler_kwargs:
        keys["lr_scheduler_kwargs"] = dict(settings.lr_scheduler_kwargs)
    return keys | {
        "warmup_steps": chosen.warmup_steps,
        "optimizer": settings.optimizer,
        "weight_decay": settings.weight_decay,
        "adam_beta1": settings.adam_beta1,
        "adam_beta2": settings.adam_beta2,
        "adam_epsilon": settings.adam_epsilon,
        "max_grad_norm": settings.max_grad_norm or 0.0,
        "bf16": used.name == "bf16",
        "fp16": used.name == "fp16",
        "tf32": False,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "seed": settings.seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "output_dir": chosen.name,
    }


def _is_flash(attention: str | None) -> bool:
    return (attention or "").partition("@")[0].partition(":")[0] in _FLASH


def _lost(chosen: ChosenTrial) -> list[str]:
    said = lost_adapters(chosen) + _lost_loss(chosen)
    if not chosen.is_lora and chosen.precision.name != "fp32":
        said.append(
            f"Weights in float32: axolotl trains them in {chosen.precision.name} itself, in which the updates of a "
            "small learning rate are partly lost."
        )
    if chosen.warmup_steps == 1:
        said.append("The single step of warm-up: axolotl makes it two.")
    return said


def _lost_loss(chosen: ChosenTrial) -> list[str]:
    batch = chosen.batch
    n_passes, n_ranks = batch.gradient_accumulation_steps, batch.data_parallel_size
    if n_passes * n_ranks == 1:
        return []
    # Its trainer tells no model of the step's count of tokens, and switches off the mean across devices.
    sentence = "The loss: axolotl takes the mean of each pass and then that of the passes"
    if n_ranks > 1:
        sentence += " and processes"
    sentence += (
        ", so a token of a pass with few targets weighs more; in the trial all of a step weigh the same."
    )
    if n_passes > 1:
        largest = batch.effective_batch_size // n_ranks
        sentence += (
            f" The fewer passes, the closer: raise micro_batch_size as far as it fits, up to {largest}, and "
        )
        sentence += "lower gradient_accumulation_steps with it."
    return [sentence]


FORMAT = Format(
    name="axolotl",
    tool="axolotl 0.18",
    command="axolotl train {file}",
    row_kind="tokens",
    has_attention_mask=True,
    build=build,
)
