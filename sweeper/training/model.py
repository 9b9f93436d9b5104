"""The model of a trial, its precision and its adapters."""

import contextlib
import copy
import dataclasses
import json
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers

from sweeper.config.trial_models import TrainSettings, TrialSection
from sweeper.errors import ConfigError, first_line
from sweeper.training.memory import computes_in_bf16

# A copy of a small model is made sooner than it is read: 3 ms against 17 ms for 4 MiB. From 32 MiB on reading is as
# quick (2 cores, November 2026), and what is read from safetensors files as it is stored lies in the system's cache of
# files: once on a node, for all processes, where a copy of our own would be one more for each of them.
KEEP_BELOW_BYTES = 32 << 20
_models: dict[tuple[Any, ...], Any] = {}


def load_model(trial: TrialSection, settings: TrainSettings, *, device: int | None = None) -> Any:
    """Return a fresh model that the caller may change.

    Trained parameters are kept in float32 and computed in the trial's precision: an update of a rate of 1e-6
    is below bfloat16's resolution of a weight and would be lost. Weights that LoRA freezes are kept in the
    precision itself; with QLoRA those of linear layers, but for the head, in 4 bits.

    Args:
        trial: With the model.
        settings: Of the trial.
        device: The GPU that trains it, where it may be read straight to there; else it is on the CPU.
    """
    if "flash" in (settings.attn_implementation or "") and precision(settings) == "fp32":
        raise ConfigError(
            f"`attn_implementation: {settings.attn_implementation}` computes in 16 bits, but `precision: "
            f"{settings.precision}` is fp32 on this machine. Choose `fp16`, or `attn_implementation: sdpa`."
        )
    if settings.method == "qlora":
        return _read_model(trial, settings, precision_dtype(settings), **_in_4_bits(settings))
    frozen = settings.method == "lora"
    dtype = precision_dtype(settings) if frozen else torch.float32
    key = (trial.model, trial.revision, trial.trust_remote_code, dtype, settings.attn_implementation)
    if key in _models:
        return copy.deepcopy(_models[key])
    model = _read_model(trial, settings, dtype) if frozen else _read_in_float32(trial, settings, device)
    if sum(p.numel() * p.element_size() for p in model.parameters()) < KEEP_BELOW_BYTES:
        _models[key] = copy.deepcopy(model)
    return model


def single_device() -> int | None:
    """Return the GPU that a trainer of one process puts its model on; None on a machine without."""
    return torch.cuda.current_device() if torch.cuda.is_available() else None


def _read_in_float32(trial: TrialSection, settings: TrainSettings, device: int | None) -> Any:
    """Read a model whose weights are all trained.

    Weights stored in 16 bits are turned into float32, which loses nothing, on the device that trains them: half as much
    travels there, and no copy is made on the host, where turning 500M weights takes over a second.
    """
    key = (trial.model, trial.revision)
    stored = None if key in _not_shortened else stored_in_16_bits(trial)
    if stored is not None:
        model = _read_model(trial, settings, stored.dtype)
        if (
            _is_as_looked_at(model) and stored_in_16_bits(trial) == stored
        ):  # a hub may have a newer one than was here
            _say_float32(model.config)
            return (model if device is None else model.to(device)).float()
        _not_shortened.add(key)  # or each trial would read it twice
    model = _read_model(trial, settings, torch.float32)
    return model if device is None else model.to(device)


_not_shortened: set[tuple[str | None, str | None]] = set()


def _is_as_looked_at(model: Any) -> bool:
    """Whether a model that was read as its files seemed to be stored has lost nothing by it."""
    is_named = (
        getattr(model.config, "transformers_weights", None) is not None
    )  # another file than was looked at
    # A model may make buffers, which are not stored, in the precision it is read in.
    buffers = (b.dtype for b in model.buffers() if b.is_floating_point())
    return not is_named and all(dtype == torch.float32 for dtype in buffers)


def _say_float32(config: Any) -> None:
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if part is not None:
            part.dtype = torch.float32


@dataclasses.dataclass(frozen=True)
class Stored:
    """How a model's weights lie on this machine."""

    dtype: torch.dtype
    commit: str | None  # of the hub; None for a directory


def stored_in_16_bits(trial: TrialSection) -> Stored | None:
    """Return the 16-bit type of all weights of a model, by its safetensors files; None where it has others or none."""
    files = _weight_files(trial)
    found = {kind for file in files for kind in _kinds_in(file)}
    dtype = _HALF.get(found.pop()) if len(found) == 1 else None
    if dtype is None:
        return None
    is_local = Path(trial.model or "").is_dir()
    return Stored(dtype, None if is_local else Path(files[0]).parent.name)  # .../snapshots/COMMIT/FILE


_HALF = {"BF16": torch.bfloat16, "F16": torch.float16}  # by their names in safetensors files


def _weight_files(trial: TrialSection) -> list[str]:
    """Return a model's safetensors files on this machine; none where one is missing."""
    whole = _local_file(trial, transformers.utils.SAFE_WEIGHTS_NAME)
    if whole is not None:
        return [whole]
    index = _local_file(trial, transformers.utils.SAFE_WEIGHTS_INDEX_NAME)
    if index is None:
        return []
    names = set(json.loads(Path(index).read_text())["weight_map"].values())
    files = [_local_file(trial, name) for name in sorted(names)]
    return [file for file in files if file is not None] if None not in files else []


def _local_file(trial: TrialSection, name: str) -> str | None:
    try:
        found: str | None = transformers.utils.cached_file(
            trial.model, name, revision=trial.revision, local_files_only=True,
            _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
    except OSError:
        return None  # there is no such model, which reading it says better
    return found


def _kinds_in(file: str) -> set[str]:
    with safetensors.safe_open(file, framework="pt") as tensors:
        return {str(tensors.get_slice(name).get_dtype()) for name in tensors.keys()}  # noqa: SIM118 - no mapping


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
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            trial.model,
            revision=trial.revision,
            trust_remote_code=trial.trust_remote_code,
            dtype=dtype,
            attn_implementation=settings.attn_implementation,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"The model `{trial.model}` could not be loaded: {first_line(error)}") from error
    finally:
        if progress:
            transformers.utils.logging.enable_progress_bar()
    refuse_made_up(trial, model, found["missing_keys"])
    return model


def refuse_made_up(trial: TrialSection, model: Any, missing: Collection[str]) -> None:
    """Refuse a model some of whose weights its files lack: most are drawn, before any seed is set.

    What is missing of buffers is worked out and not drawn.

    Raises:
        ConfigError: If there are any.
    """
    lost = sorted(set(missing) & {name for name, _ in model.named_parameters()})
    if lost:
        raise ConfigError(
            f"The files of the model `{trial.model}` lack {len(lost)} of its weights, the first being `{lost[0]}`, "
            "which each trial would make up for itself. Download it again, or choose a `trial.model` "
            "that was trained as a causal language model."
        )


def precision(settings: TrainSettings) -> str:
    """Return the precision that passes are computed in: bf16, fp16 or fp32.

    Raises:
        ConfigError: If this machine cannot compute in what the settings ask for.
    """
    on_gpu = torch.cuda.is_available()
    if settings.precision == "auto":
        return "bf16" if computes_in_bf16() else "fp32"
    if settings.precision == "fp16" and not on_gpu:
        raise ConfigError("`precision: fp16` needs a GPU, and there is none. Use `fp32`, `bf16` or `auto`.")
    if settings.precision == "bf16" and on_gpu and not computes_in_bf16():
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


def lora_config(settings: TrainSettings, *, revision: str | None) -> Any:
    """Return peft's config of the adapters, or None for full fine-tuning. `revision` is that of their base."""
    if settings.method == "full":
        return None
    import peft

    return peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.lora_target_modules,
        revision=revision,
        task_type="CAUSAL_LM",
    )
