"""Rules of settings that only some methods or optimisers make use of, or cannot be had with, so that none is given or
swept in vain."""

from typing import Any

from sweeper.config.draft import Draft
from sweeper.config.messages import join
from sweeper.config.rules_space import possible_values
from sweeper.config.trial_models import TrainSettings

_BETA2 = "adam_beta2"
_WITH_BETA2 = ("adam", "ademamix", "lion")  # parts of the names of transformers' optimisers that take it


def check_method(draft: Draft) -> None:
    """Tell of settings that methods or optimisers make no use of, and of an optimiser that a precision excludes."""
    if draft.settings is None or not draft.knows("trial.function"):
        return
    methods = _values(draft, draft.settings, "method")
    if methods and all(method == "full" for method in methods):
        _refuse_adapters(draft, draft.settings)
    _check_swept_beta2(draft, draft.settings)
    _refuse_fused_in_fp16(draft, draft.settings)


def _refuse_adapters(draft: Draft, settings: TrainSettings) -> None:
    """Tell of what is set for adapters; what has its default is left alone, since recorded configs name all."""
    for name, field in TrainSettings.model_fields.items():
        if not name.startswith("lora_") or not draft.knows(f"trial.settings.{name}", f"search_space.{name}"):
            continue
        is_swept = name in draft.config.search_space
        if not is_swept and getattr(settings, name) == field.default:
            continue
        place = ("search_space", name) if is_swept else ("trial", "settings", name)
        draft.tell(
            f"`{name}` is for adapters, but no point trains any: `method` is `full`. Write `method: lora` in "
            f"`trial.settings`, or remove `{name}`.",
            *place,
        )


def _check_swept_beta2(draft: Draft, settings: TrainSettings) -> None:
    if _BETA2 not in draft.config.search_space or not draft.knows(f"search_space.{_BETA2}"):
        return
    names = [str(name) for name in _values(draft, settings, "optimizer")]
    others = [name for name in names if not any(kind in name for kind in _WITH_BETA2)]
    if others:
        draft.tell(
            f"`{_BETA2}` varies in `search_space`, but {join(others)} {'has' if len(others) == 1 else 'have'} no "
            "beta2, so points that are the same would be trained again. "
            f"Remove `{_BETA2}`, or choose for example `adamw_torch`.",
            *("search_space", _BETA2),
        )


def _refuse_fused_in_fp16(draft: Draft, settings: TrainSettings) -> None:
    fused = [str(name) for name in _values(draft, settings, "optimizer") if "fused" in str(name)]
    if fused and "fp16" in _values(draft, settings, "precision"):
        draft.tell(
            f"`optimizer: {fused[0]}` does not go together with `precision: fp16`: it leaves out a step whose gradient "
            "has overflowed without a word, and the trial would be taken for a diverged one. Choose `adamw_torch`, or "
            "bf16 or fp32.",
            *(("search_space",) if "optimizer" in draft.config.search_space else ("trial", "settings")),
            "optimizer",
        )


def _values(draft: Draft, settings: TrainSettings, name: str) -> list[Any]:
    """Return the values that a setting takes; none of a broken one."""
    if not draft.knows(f"trial.settings.{name}", f"search_space.{name}"):
        return []
    swept = draft.config.search_space.get(name)
    return [getattr(settings, name)] if swept is None else possible_values(swept) or []
