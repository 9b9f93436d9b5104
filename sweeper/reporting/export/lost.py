"""What no other tool takes over from a trial, as sentences for a file's header."""

from sweeper.reporting.export.chosen import ChosenTrial
from sweeper.reporting.export.form import Target


def lost_everywhere(chosen: ChosenTrial) -> list[str]:
    """Say what is the study's own business."""
    said = [
        f"The number of processes: it is made for {chosen.batch.data_parallel_size}, and each further one adds "
        f"{chosen.batch.micro_batch_size * chosen.batch.gradient_accumulation_steps} sequences to the effective "
        f"batch of {chosen.batch.effective_batch_size}.",
        "Early stopping of poor and diverged runs, and the trial's checkpoints.",
    ]
    if chosen.settings.method == "qlora":
        said.append(
            "The base model's 4 bits (NF4 with double quantisation): this trains adapters on the whole weights."
        )
    if chosen.trial.eval_data:
        sets = ", ".join(chosen.trial.eval_data)
        said.append(f"Evaluation: the eval sets ({sets}) and the metric `{chosen.view.config.metric}`.")
    if chosen.precision.note is not None:
        said.append(f"Precision: {chosen.precision.note}")
    return said


def lost_order(chosen: ChosenTrial, target: Target) -> list[str]:
    """Say that rows come in another order and mixture, unless they are written in the trial's."""
    if target.rows is not None:
        return []
    weights = chosen.settings.data_weights
    shares = "" if weights is None else ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    weighed = [f"The weights of the data sets ({shares}); `--data FILE` writes the rows as they were mixed."]
    return [
        *(weighed if shares else []),
        "The order of rows: they are shuffled in another way, and an epoch may end with a smaller step. "
        "`--data FILE` writes them in the trial's order.",
    ]


def lost_adapters(chosen: ChosenTrial) -> list[str]:
    """Say that adapters start elsewhere."""
    return ["The adapters' first random values."] if chosen.is_lora else []
