"""A checkpoint's weights as a model's directory, so that it can be used like a final model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.config.trial_models import TrainSettings, TrialSection
from sweeper.training.checkpoints import load_weights
from sweeper.training.kept_model import end_answers, save_model
from sweeper.training.model import load_model, lora_config, without_peft_warning
from sweeper.training.tokenizer import load_tokenizer


def write_checkpoint_model(
    trial: TrialSection, settings: Mapping[str, Any], checkpoint: Path, target: Path
) -> None:
    """Write model and tokenizer as they were when a checkpoint was saved.

    Raises:
        SweeperError: If the checkpoint is another model's.
    """
    resolved = TrainSettings.model_validate(dict(settings))
    model = load_model(trial, resolved)
    adapters = lora_config(resolved, revision=trial.revision)
    if adapters is not None:
        import peft

        with without_peft_warning():
            model = peft.get_peft_model(model, adapters)
    load_weights(model, checkpoint)
    tokenizer = load_tokenizer(trial)
    end_answers(model, tokenizer)
    save_model(model, tokenizer, target)
