"""Whether a model keeps apart the rows that `packing` puts into one sequence. Loads transformers."""

import inspect
from typing import Any

from sweeper.config.trial_models import TrialSection
from sweeper.errors import ConfigError


def check_packing(trial: TrialSection, model_config: Any) -> None:
    """Check that a model is told where the rows of a packed sequence begin; ask only where the sweep packs.

    That is what `position_ids` say. Whatever else a model is handed it takes without a word (transformers 5.23).

    Raises:
        ConfigError: If it is not told, so that rows would see each other.
    """
    model = _model_class(trial, model_config)
    if model is None or "position_ids" in inspect.signature(model.forward).parameters:
        return
    raise ConfigError(
        f"`packing: true` puts several rows into one sequence, but `{model.__name__}` of `{trial.model}` takes no "
        "`position_ids` and cannot keep them apart: each row would be trained on as what follows the one before. Set "
        "`packing: false`, or choose another `trial.model`."
    )


def _model_class(trial: TrialSection, model_config: Any) -> Any:
    """Return the model's class; None where transformers knows none, which loading it will tell."""
    import transformers

    own_code = getattr(model_config, "auto_map", None) or {}
    if trial.trust_remote_code and "AutoModelForCausalLM" in own_code:
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        name = own_code["AutoModelForCausalLM"]
        return get_class_from_dynamic_module(name, trial.model, revision=trial.revision)
    found = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(model_config), None)
    return found[0] if isinstance(found, (list, tuple)) else found
