"""How much disk a sweep will need, and whether it is there."""

import dataclasses
import itertools
import math
import shutil
from pathlib import Path
from typing import Any

from sweeper.checkpoint.manifest import KEPT
from sweeper.config.models import SweepConfig
from sweeper.config.names import EARLY_DYNAMICS
from sweeper.config.space_values import setting_values
from sweeper.errors import ConfigError
from sweeper.files import nearest_existing
from sweeper.learning import LEARNED_MIN_OWN, LEARNED_MIN_POINTS, calibration_size
from sweeper.plan.marks import n_points
from sweeper.preflight.weights import WeightFacts, read_weights
from sweeper.rungs import n_going_on
from sweeper.study import layout

_FLOAT32 = 4  # what trained weights are kept in
# Bytes of an optimiser's state per trained weight: Adam's two moments are the rule, and the bound for what is not here.
_STATE_BYTES = {
    "sgd": 0, "lion_8bit": 1, "adamw_8bit": 2, "paged_adamw_8bit": 2, "adafactor": 4, "lion_32bit": 4, "ademamix": 12,
}  # fmt: skip
_ADAM_BYTES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiskNeed:
    """The most that a sweep's checkpoints and models can take. In bytes; None where it cannot be told."""

    checkpoint_bytes: int | None  # one of them
    model_bytes: int | None  # one trained model; 0 where none is kept
    n_checkpoints: int  # at a time, at most
    n_aside: int  # of them, of trials that are set aside and wait
    n_models: int
    checkpoints_bytes: int | None  # all of them, as `keep_best` and `max_gb` bound them
    local_bytes: int | None  # what the study's disk has to hold
    place: str  # of the checkpoints: the study's directory or an object store
    directory: str
    free_bytes: int  # on the study's disk

    def line(self) -> str:
        """Return the need as a sentence, for `plan`."""
        free = f"{size_text(self.free_bytes)} are free at {self.directory}"
        if self.checkpoints_bytes is None or self.checkpoint_bytes is None:
            unknown = "unknown: give the size of one checkpoint as `trial.checkpoint.size_gb`"
            return f"disk: {unknown}; {free}."
        text = (
            f"disk: at most {size_text(self.checkpoints_bytes)} for {self.n_checkpoints:,} checkpoints of "
            f"{size_text(self.checkpoint_bytes)} in {self.place}"
        )
        if self.n_aside:
            text += f" (up to {self.n_aside:,} of trials that are set aside)"
        if self.n_models and self.model_bytes is not None:
            text += f", and {size_text(self.n_models * self.model_bytes)} for {self.n_models:,} models"
        return f"{text}; {free}."


def disk_need(
    config: SweepConfig, *, slots: int, directory: Path, weights: WeightFacts | None = None,
    counts_aside: bool = True,
) -> DiskNeed | None:  # fmt: skip
    """Work out what a sweep's checkpoints and models take at most: as if no trial were pruned but by `probe`.

    Returns None where the trials are a function of the user's that is asked for no checkpoints.

    Args:
        config: The sweep.
        slots: Trials at a time.
        directory: The study's; it need not exist.
        weights: Of the model; None looks into the model's directory, if it is one.
        counts_aside: Whether trials may still be set aside, as many as there are.
    """
    policy = config.trial.checkpoint
    if config.trial.function is not None and not policy.at and policy.every_samples is None:
        return None
    if weights is None and config.trial.model is not None:
        weights = read_weights(Path(config.trial.model))
    size = int(policy.size_gb * 1e9) if policy.size_gb is not None else _checkpoint_bytes(config, weights)
    n_trials = n_points(config)
    waiting = _waiting(config, n_trials) if counts_aside else []
    n_aside = _held_aside(config, waiting)
    n_checkpoints = _n_checkpoints(config, n_trials, slots, n_aside=n_aside)
    total = None if size is None else n_checkpoints * size
    if total and size and policy.max_gb is not None:
        bound = max(int(policy.max_gb * 1e9), _n_never_removed(config, slots, waiting) * size)
        total, n_checkpoints = min(total, bound), min(n_checkpoints, bound // size)
        n_aside = min(n_aside, n_checkpoints)
    model = _model_bytes(config, weights) if policy.save_model else 0
    n_models = n_trials if policy.save_model else 0
    local = total
    if total is not None and size is not None and policy.url is not None:
        local = slots * size  # written there before they are sent
    return DiskNeed(
        checkpoint_bytes=size, model_bytes=model, n_checkpoints=n_checkpoints, n_models=n_models,
        n_aside=n_aside, checkpoints_bytes=total,
        local_bytes=None if local is None or model is None else local + n_models * model,
        place=policy.url or str(directory), directory=str(directory), free_bytes=_free_bytes(directory),
    )  # fmt: skip


def check_disk(need: DiskNeed | None) -> None:
    """Refuse a sweep whose checkpoints and models may not fit on the study's disk.

    What an earlier part of the sweep has written there already is not needed once more.

    Raises:
        ConfigError: If so, with what would help.
    """
    if need is None or need.local_bytes is None or need.local_bytes <= need.free_bytes:
        return
    if need.local_bytes <= need.free_bytes + _used_bytes(layout.trials_dir(Path(need.directory))):
        return
    aside = (
        "set no trial aside (`pruner.set_aside: false`, or another `pruner.mode` than `probe`), "
        if need.n_aside
        else ""
    )
    raise ConfigError(
        f"The sweep may need {size_text(need.local_bytes)} at {need.directory}, where {size_text(need.free_bytes)} are "
        f"free: {need.line()[len('disk: ') :]} Keep the checkpoints of fewer trials (`trial.checkpoint.keep_best`), "
        f"bound them all (`trial.checkpoint.max_gb`), {aside}keep them in an object store "
        "(`trial.checkpoint.url`), or choose another directory (`--dir`)."
    )


def size_text(n_bytes: int) -> str:
    """Return a size in the unit that suits it.

    >>> size_text(28_000_000_000)
    '28 GB'
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            size = n_bytes / factor
            return f"{size:,.0f} {unit}" if size >= 100 else f"{size:.3g} {unit}"
    return f"{n_bytes} bytes"


def _n_checkpoints(config: SweepConfig, n_trials: int, slots: int, *, n_aside: int) -> int:
    """Count what may lie there at a time: of ended trials, of running ones, of those aside, and the ones being written.

    Without marks a trial saves one when it is interrupted or set aside, and not else.
    """
    policy = config.trial.checkpoint
    at_a_time = min(slots, n_trials)
    ended = n_trials - at_a_time if policy.keep_best is None else min(policy.keep_best, n_trials - at_a_time)
    by_marks = (ended + at_a_time) * min(KEPT, _n_marks(config))
    return max(by_marks, n_aside) + at_a_time


def _held_aside(config: SweepConfig, waiting: list[int]) -> int:
    """Count the checkpoints of trials that wait: each has saved one at every rung it has come to, and keeps the newest.

    Those that complete later keep theirs, unless `keep_best` says otherwise, and are no more than have waited.
    """
    each = (_n_marks(config) + n_rungs for n_rungs in itertools.count(1))
    counts = zip(waiting, each, strict=False)
    return max((n_waiting * min(KEPT, n_saved) for n_waiting, n_saved in counts), default=0)


def _waiting(config: SweepConfig, n_trials: int) -> list[int]:
    """Return how many trials at most may wait at the first rung, at the second one and so on, as far as it matters."""
    pruner, rungs = config.pruner, config.rungs
    if pruner.name != EARLY_DYNAMICS:
        return []
    given = next(
        (marks for marks in (rungs.fractions, rungs.samples, rungs.steps) if marks is not None), None
    )
    n_rungs = KEPT if given is None else min(KEPT, len(given))  # from then on a trial's oldest one is removed
    if pruner.directions != "learned":
        return [n_trials, n_going_on(pruner.keep_frac, n_trials)][:n_rungs] if pruner.mode == "probe" else []
    if not config.sets_aside or (n_trials < LEARNED_MIN_POINTS and pruner.prior is None):
        return []
    least = LEARNED_MIN_OWN if pruner.prior is not None else calibration_size(n_trials)
    to_the_end = 0 if _n_marks(config) else pruner.n_calibration or least  # they are never set aside
    return [max(0, n_trials - to_the_end)] * n_rungs


def _n_never_removed(config: SweepConfig, slots: int, waiting: list[int]) -> int:
    """Count the trials that keep their newest checkpoint under any bound: those that run, and those that wait.

    Nobody is set aside once the bound is reached; until the first one was saved, one trial at a time is. In
    `mode: probe` all wait, whatever that takes.
    """
    if config.pruner.mode == "probe":
        return max([slots, *waiting])
    return slots + 1 if waiting else slots


def _n_marks(config: SweepConfig) -> int:
    policy = config.trial.checkpoint
    return len(policy.at) if policy.every_samples is None else KEPT


def _checkpoint_bytes(config: SweepConfig, weights: WeightFacts | None) -> int | None:
    if weights is None or config.trial.function is not None:
        return None
    state = max(_STATE_BYTES.get(name, _ADAM_BYTES) for name in _values(config, "optimizer", "adamw_torch"))
    size = _trained(config, weights) * (_FLOAT32 + state)
    return 2 * size if _keeps_best(config) else size


def _keeps_best(config: SweepConfig) -> bool:
    """Whether checkpoints may also hold the best weights of a phase, with the optimiser's state."""
    phases = config.trial.phases or ()
    return any(phase.start == "best" for phase in phases) or (
        bool(phases) and "best" in _values(config, "phase_start", "last")
    )


def _model_bytes(config: SweepConfig, weights: WeightFacts | None) -> int | None:
    if weights is None or config.trial.function is not None:
        return None if weights is None else 0
    return _trained(config, weights) * _FLOAT32


def _trained(config: SweepConfig, weights: WeightFacts) -> int:
    """Count the trained weights, at most: of the whole model, or of the adapters of all linear layers."""
    counts = []
    for method in _values(config, "method", "full"):
        ranks = [int(rank) for rank in _values(config, "lora_rank", 16)]
        counts.append(weights.n_parameters if method == "full" else max(ranks) * weights.adapter_width)
    return max(counts)


def _values(config: SweepConfig, name: str, default: Any) -> list[Any]:
    """Return the values that a setting takes; of a range its upper end."""
    found = setting_values(config, name, default)
    if found:
        return found
    dimension = config.search_space[name]
    return [math.ceil(getattr(dimension, dimension.kind)[1])]


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(nearest_existing(directory)).free


def _used_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
