"""What no other tool takes over from a trial, as sentences for a file's header."""

from sweeper.reporting.export.chosen import ChosenTrial
from sweeper.reporting.export.form import Target


def lost_everywhere(chosen: ChosenTrial, *, holds_batch: bool = False) -> list[str]:
    """Say what is the study's own business; `holds_batch`: the tool keeps the effective batch whatever runs it."""
    batch = chosen.batch
    per_process = batch.micro_batch_size * batch.gradient_accumulation_steps
    said = [
        f"The number of processes: it is made for {batch.data_parallel_size}, "
        + (
            f"and any other number shares out the same effective batch of {batch.effective_batch_size}."
            if holds_batch
            else f"and each further one adds {per_process} sequences to the effective batch of "
            f"{batch.effective_batch_size}."
        ),
        "Early stopping of poor and diverged runs, and the trial's checkpoints.",
    ]
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
