"""Rules of warm-up and of a beta2 that follows from a half-life, be they fixed or swept."""

from sweeper.config.draft import Draft
from sweeper.config.messages import join
from sweeper.config.models import SweepConfig
from sweeper.config.trial_models import TrainSettings
from sweeper.optimizer import BETA2, HALF_LIFE, WARMUP_FORMS

_CHANGES_TOKENS = ("max_length", "loss_on", "model")  # of one sample


def check_optimizer(draft: Draft) -> None:
    """Check the optimiser's settings that need more than one value."""
    if draft.settings is None or not draft.knows("trial.function"):
        return
    _check_warmup(draft, draft.settings)
    _check_half_life(draft, draft.settings)


def unused_settings(config: SweepConfig) -> tuple[str, ...]:
    """Return the settings of which no point makes use, so that a written config does not name them."""
    return () if _uses_beta2(config) else (BETA2,)


def _uses_beta2(config: SweepConfig) -> bool:
    """Whether some point trains with the given beta2: unless a half-life replaces it in all of them."""
    swept = config.search_space.get(HALF_LIFE)
    if swept is None:
        return config.trial.settings.get(HALF_LIFE) is None
    return swept.listed is not None and None in swept.listed


def _check_warmup(draft: Draft, settings: TrainSettings) -> None:
    """Tell where a point would have its warm-up in two forms."""
    space = draft.config.search_space
    names = [name for name in WARMUP_FORMS if draft.knows_setting(name)]
    varied = [name for name in names if name in space]
    fixed = [name for name in names if name not in space and getattr(settings, name)]
    if len(varied) + len(fixed) < 2:
        return
    if varied:
        draft.tell(
            f"{join([*varied, *fixed])} exclude each other, but the points would have both. Remove one of them.",
            *("search_space", varied[0]),
        )
        return
    given = " and ".join(f"`{name}` = {getattr(settings, name):g}" for name in fixed)
    draft.tell(f"{given} exclude each other. Remove one of them.", *("trial", "settings", fixed[-1]))


def _check_half_life(draft: Draft, settings: TrainSettings) -> None:
    config = draft.config
    is_swept = HALF_LIFE in config.search_space
    if not draft.knows_setting(HALF_LIFE):
        return
    if not is_swept and settings.adam_beta2_half_life_tokens is None:
        return
    place = draft.place_of(HALF_LIFE)
    if BETA2 in config.search_space or (BETA2 in config.trial.settings and not _uses_beta2(config)):
        draft.tell(
            f"`{BETA2}` and `{HALF_LIFE}` exclude each other: beta2 follows from the half-life. Remove one "
            "of them.",
            *place,
        )
    for name in _CHANGES_TOKENS:
        if name in config.search_space:
            draft.tell(
                f"`{HALF_LIFE}` needs to know the target tokens of a sample, which `{name}` in the search space "
                f"changes from point to point. Fix `{name}`, or set `{BETA2}`.",
                *place,
            )
    _check_has_beta2(draft, place)


def _check_has_beta2(draft: Draft, place: tuple[str, ...]) -> None:
    names = [str(name) for _, name in draft.values("optimizer")]
    # Each of transformers' optimisers that squares gradients by a beta2 has Adam in its name.
    others = [name for name in names if not any(kind in name for kind in ("adam", "ademamix"))]
    if others:
        draft.tell(
            f"`{HALF_LIFE}` is for Adam and its kin, but {join(others)} {'has' if len(others) == 1 else 'have'} "
            "no such beta2. Remove it, or choose for example `adamw_torch`.",
            *place,
        )
