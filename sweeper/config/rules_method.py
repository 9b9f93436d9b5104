"""Rules of settings that only some methods or optimisers make use of, or cannot be had with, so that none is given or
swept in vain."""

from typing import Any

from sweeper.config.draft import Draft
from sweeper.config.messages import join
from sweeper.config.trial_models import TrainSettings
from sweeper.optimizer import BETA2

_WITH_BETA2 = ("adam", "ademamix", "lion")  # parts of the names of transformers' optimisers that take it


def check_method(draft: Draft) -> None:
    """Tell of settings that methods or optimisers make no use of, and of an optimiser that a precision excludes."""
    if draft.settings is None or not draft.knows("trial.function"):
        return
    methods = _taken(draft, "method")
    if methods and all(method == "full" for method in methods):
        _refuse_adapters(draft, draft.settings)
    _check_swept_beta2(draft)
    _refuse_fused_in_fp16(draft)
    _refuse_flash_in_fp32(draft)


def _refuse_adapters(draft: Draft, settings: TrainSettings) -> None:
    """Tell of what is set for adapters; what has its default is left alone, since recorded configs name all."""
    for name, field in TrainSettings.model_fields.items():
        if not name.startswith("lora_") or not draft.knows_setting(name):
            continue
        is_swept = name in draft.config.search_space
        if not is_swept and getattr(settings, name) == field.default:
            continue
        draft.tell(
            f"`{name}` is for adapters, but no point trains any: `method` is `full`. Write `method: lora` in "
            f"`trial.settings`, or remove `{name}`.",
            *draft.place_of(name),
        )


def _check_swept_beta2(draft: Draft) -> None:
    if BETA2 not in draft.config.search_space or not draft.knows(f"search_space.{BETA2}"):
        return
    names = [str(name) for name in _taken(draft, "optimizer")]
    others = [name for name in names if not any(kind in name for kind in _WITH_BETA2)]
    if others:
        draft.tell(
            f"`{BETA2}` varies in `search_space`, but {join(others)} {'has' if len(others) == 1 else 'have'} no "
            "beta2, so points that are the same would be trained again. "
            f"Remove `{BETA2}`, or choose for example `adamw_torch`.",
            *("search_space", BETA2),
        )


def _refuse_flash_in_fp32(draft: Draft) -> None:
    flash = [str(name) for name in _taken(draft, "attn_implementation") if "flash" in str(name)]
    if flash and "fp32" in _taken(draft, "precision"):
        draft.tell(
            f"`attn_implementation: {flash[0]}` computes in 16 bits, but `precision` is fp32. Choose bf16 or fp16, or "
            "`attn_implementation: sdpa`.",
            *draft.place_of("attn_implementation"),
        )


def _refuse_fused_in_fp16(draft: Draft) -> None:
    fused = [str(name) for name in _taken(draft, "optimizer") if "fused" in str(name)]
    if fused and "fp16" in _taken(draft, "precision"):
        draft.tell(
            f"`optimizer: {fused[0]}` does not go together with `precision: fp16`: it leaves out a step whose gradient "
            "has overflowed without a word, and the trial would be taken for a diverged one. Choose `adamw_torch`, or "
            "bf16 or fp32.",
            *draft.place_of("optimizer"),
        )


def _taken(draft: Draft, name: str) -> list[Any]:
    return [value for _, value in draft.values(name)]
