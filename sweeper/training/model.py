"""The model of a trial, its precision and its adapters."""

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import transformers

from sweeper.config.models import TrainSettings, TrialSection
from sweeper.errors import ConfigError
from sweeper.training.tokenizer import first_line

# A pristine copy in memory makes a trial's set-up quick where the model is small. A larger one is read again
# from its files, which the system keeps cached: a second 28 GB copy of a 7B model per worker would cost more
# than it saves.
KEEP_BELOW_BYTES = 1 << 30
_models: dict[tuple[Any, ...], Any] = {}


def load_model(trial: TrialSection, settings: TrainSettings) -> Any:
    """Return a fresh model on the CPU that the caller may change.

    Trained parameters are kept in float32 and computed in the trial's precision: an update of a rate of 1e-6
    is below bfloat16's resolution of a weight and would be lost. Weights that LoRA freezes are kept in the
    precision itself; with QLoRA those of linear layers, but for the head, in 4 bits.
    """
    if settings.method == "qlora":
        return _read_model(trial, settings, precision_dtype(settings), **_in_4_bits(settings))
    frozen = settings.method == "lora"
    dtype = precision_dtype(settings) if frozen else torch.float32
    key = (trial.model, trial.revision, trial.trust_remote_code, dtype, settings.attn_implementation)
    if key in _models:
        return copy.deepcopy(_models[key])
    model = _read_model(trial, settings, dtype)
    if sum(p.numel() * p.element_size() for p in model.parameters()) < KEEP_BELOW_BYTES:
        _models[key] = copy.deepcopy(model)
    return model


def _in_4_bits(settings: TrainSettings) -> dict[str, Any]:
    """Return how the model is read in 4 bits, which only the device that computes with them can do.

    Source: Dettmers et al., arXiv:2305.14314, section 3. Differs: adapters are kept in float32.
    """
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precision_dtype(settings),
    )
    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": device}}


def _read_model(trial: TrialSection, settings: TrainSettings, dtype: torch.dtype, **options: Any) -> Any:
    progress = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        return transformers.AutoModelForCausalLM.from_pretrained(
            trial.model,
            revision=trial.revision,
            trust_remote_code=trial.trust_remote_code,
            dtype=dtype,
            attn_implementation=settings.attn_implementation,
            **options,
        )
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"The model `{trial.model}` could not be loaded: {first_line(error)}") from error
    finally:
        if progress:
            transformers.utils.logging.enable_progress_bar()


def precision(settings: TrainSettings) -> str:
    """Return the precision that passes are computed in: bf16, fp16 or fp32.

    Raises:
        ConfigError: If this machine cannot compute in what the settings ask for.
    """
    on_gpu = torch.cuda.is_available()
    if settings.precision == "auto":
        return "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "fp32"
    if settings.precision == "fp16" and not on_gpu:
        raise ConfigError("`precision: fp16` needs a GPU, and there is none. Use `fp32`, `bf16` or `auto`.")
    if settings.precision == "bf16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise ConfigError("`precision: bf16` is not supported by this GPU. Use `fp16`, `fp32` or `auto`.")
    return settings.precision


def precision_dtype(settings: TrainSettings) -> torch.dtype:
    """Return the precision as torch's type."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision(settings)]


@contextlib.contextmanager
def without_peft_warning() -> Iterator[None]:
    """Let adapters be put on a model without a warning."""
    with warnings.catch_warnings():
        # peft 0.21.2 reads a property that transformers 5.23 renamed; to be deleted with a later peft.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def lora_config(settings: TrainSettings) -> Any:
    """Return peft's config of the adapters, or None for full fine-tuning."""
    if settings.method == "full":
        return None
    import peft

    return peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.lora_target_modules,
        task_type="CAUSAL_LM",
    )
