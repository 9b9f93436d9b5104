"""A file of transformers' TrainingArguments, for scripts that read them with HfArgumentParser."""

from sweeper.reporting.export.chosen import ChosenTrial
from sweeper.reporting.export.form import Body, Format, Target
from sweeper.reporting.export.lost import lost_everywhere, lost_order
from sweeper.reporting.export.template import lost_date
from sweeper.reporting.export.trainer_keys import trainer_keys
from sweeper.reporting.export.yaml_text import scalar, yaml_text


def build(chosen: ChosenTrial, target: Target) -> Body:
    """Return the file. Model, data and method are no TrainingArguments, so its header names them."""
    content = trainer_keys(chosen) | {
        "gradient_checkpointing": chosen.settings.gradient_checkpointing,
        "train_sampling_strategy": "random" if target.rows is None else "sequential",
    }
    if chosen.settings.use_liger_kernel:
        content["use_liger_kernel"] = True
    lost = [*_outside(chosen, target), *lost_everywhere(chosen), *lost_order(chosen, target)]
    if target.rows is None:
        lost += lost_date(chosen.read_here)
    return Body(text=yaml_text(content), lost=tuple(lost))


def _outside(chosen: ChosenTrial, target: Target) -> list[str]:
    settings, trial = chosen.settings, chosen.trial
    data = [source.path for source in trial.sources] if target.rows is None else [str(target.rows.absolute())]
    revision = f" at revision {trial.revision}" if trial.revision is not None else ""
    dtype = "the frozen ones in the precision" if chosen.is_lora else "in float32"
    said = [
        f"Model and data, which the script loads itself: {trial.model}{revision}; {', '.join(data)}.",
        f"max_length = {settings.max_length}, packing = {scalar(settings.packing)}, loss_on = {settings.loss_on}; "
        f"the trial kept the weights {dtype}.",
    ]
    if chosen.is_lora:
        said.append(
            f"LoRA: rank {settings.lora_rank}, alpha {settings.lora_alpha:g}, dropout {settings.lora_dropout:g}, "
            f"target modules {settings.lora_target_modules}."
        )
    if chosen.is_in_4_bits:
        said.append(
            "QLoRA: the base model in 4 bits, NF4 with double quantisation, which the script loads so."
        )
    if settings.attn_implementation is not None:
        said.append(f"attn_implementation = {settings.attn_implementation}.")
    return said


FORMAT = Format(
    name="training-args",
    tool="transformers 5.23, HfArgumentParser(TrainingArguments).parse_yaml_file",
    command="HfArgumentParser(TrainingArguments).parse_yaml_file({path!r})",
    row_kind="tokens",
    build=build,
)
