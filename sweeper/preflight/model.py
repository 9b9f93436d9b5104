"""The model of a sweep and the settings that depend on it, checked without loading its weights."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import TrialSection
from sweeper.errors import ConfigError, first_line
from sweeper.looking import is_directory, is_file, is_there
from sweeper.model_files import PICKLE, PICKLE_INDEX, SAFETENSORS, SAFETENSORS_INDEX
from sweeper.preflight.settings import empty_model, setting_problems
from sweeper.preflight.weights import (
    WeightFacts,
    count_weights,
    read_index,
    read_weights,
    refuse_pointer,
)

logger = logging.getLogger(__name__)

_INDEXES = (SAFETENSORS_INDEX, PICKLE_INDEX)
_WEIGHTS = (SAFETENSORS, PICKLE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a model's files say."""

    architecture: str
    n_parameters: int
    adapter_width: int  # see `weights.WeightFacts`
    vocab_size: int
    n_layers: int
    hidden_size: int
    max_positions: int | None


def check_model(config: SweepConfig, model_config: Any) -> ModelFacts:
    """Check that the model can be trained with the sweep's settings, given what `read_model_config` has read.

    Raises:
        ConfigError: With every problem that was found.
    """
    problems = setting_problems(config, model_config)
    if problems:
        raise ConfigError(problems)
    _refuse_missing_weights(config.trial, model_config)
    text = model_config.get_text_config()
    weights = read_weights(_path(config.trial)) or _planned_weights(model_config, config.trial)
    return ModelFacts(
        architecture=(model_config.architectures or [type(model_config).__name__])[0],
        n_parameters=weights.n_parameters,
        adapter_width=weights.adapter_width,
        vocab_size=int(text.vocab_size),
        n_layers=int(text.num_hidden_layers),
        hidden_size=int(text.hidden_size),
        max_positions=getattr(text, "max_position_embeddings", None),
    )


def read_model_config(trial: TrialSection) -> Any:
    """Return what transformers reads of the model, whose files are all there.

    Raises:
        ConfigError: If they are not, or it cannot be read.
    """
    path = _path(trial)
    if path.is_absolute() or is_there(path):
        _check_files(path)
    return _model_config(trial)


def _path(trial: TrialSection) -> Path:
    assert trial.model is not None, "the config's own rules ask for a model"
    return Path(trial.model)


def _check_files(path: Path) -> None:
    if not is_directory(path):
        raise ConfigError(f"The model directory `{path}` does not exist. Correct `trial.model`.")
    if not is_file(path / "config.json"):
        raise ConfigError(f"The model directory `{path}` has no `config.json`. Correct `trial.model`.")
    for name in _INDEXES:
        if is_file(path / name):
            refuse_pointer(path / name)
            shards = read_index(path / name)
            missing = [shard for shard in shards if not is_file(path / shard)]
            if missing:
                raise ConfigError(
                    f"The model directory `{path}` lacks {len(missing)} of its {len(shards)} weight files, "
                    "the first "
                    f"being `{missing[0]}`. Download it again."
                )
            for shard in shards:
                refuse_pointer(path / shard)
            return
    whole = [path / name for name in _WEIGHTS if is_file(path / name)]
    if not whole:
        raise ConfigError(
            f"The model directory `{path}` has no weights (`{SAFETENSORS}`). Download it again."
        )
    refuse_pointer(whole[0])


def _model_config(trial: TrialSection) -> Any:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        found = transformers.AutoConfig.from_pretrained(
            trial.model, revision=trial.revision, trust_remote_code=trial.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"The model `{trial.model}` could not be loaded: {first_line(error)} Correct `trial.model`."
        ) from error
    if found.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not hasattr(found, "auto_map"):
        raise ConfigError(
            f"The model `{trial.model}` is of type `{found.model_type}`, which is no causal language model. "
            "Choose another `trial.model`."
        )
    return found


def _refuse_missing_weights(trial: TrialSection, model_config: Any) -> None:
    """Read the model as its trials do, but for the weights themselves: 0.1 s for 300M of them (2 cores, November 2026).

    Only where that is sure to say the same: of safetensors files that are on this machine, by transformers' own code.
    Where it cannot be read so, the trials that read it say why.

    Raises:
        ConfigError: If the files lack weights, which each trial would make up for itself.
    """
    if trial.trust_remote_code or getattr(model_config, "quantization_config", None) is not None:
        return
    import transformers

    from sweeper.training.model import refuse_made_up

    level = transformers.logging.get_verbosity()
    progress = transformers.utils.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()  # of what is missing it makes a table, which is an error here
    transformers.utils.logging.disable_progress_bar()
    try:
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            trial.model, revision=trial.revision, device_map="meta", use_safetensors=True, local_files_only=True,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - a hub's model that is not here yet, for one
        logger.debug("The weights of %s cannot be looked over: %s", trial.model, error)
        return
    finally:
        transformers.logging.set_verbosity(level)
        if progress:
            transformers.utils.logging.enable_progress_bar()
    refuse_made_up(trial, model, found["missing_keys"])


def _planned_weights(model_config: Any, trial: TrialSection) -> WeightFacts:
    """Count the weights of a model whose files are not on this machine yet, or are no safetensors files."""
    model = empty_model(model_config, trust_remote_code=trial.trust_remote_code)
    return count_weights({name: tuple(tensor.shape) for name, tensor in model.named_parameters()})
