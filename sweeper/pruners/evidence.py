"""Evidence: what each early signal was worth in this study, measured over the trials that finished. Pure.

A signal may kill only where it predicts this study's own final metric, and it is worth its trouble only where it says
more than the rate and the batch size do, which are known before the first step.
"""

import dataclasses
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sweeper.params import is_number
from sweeper.pruners.correlation import Array, Correlation, partial, spearman, within_groups
from sweeper.records import GRAD_NORM, Direction, RungRecord, TrialRecord, goodness_sign

RATE, BATCH = "learning_rate", "effective_batch_size"
SLOPE = " slope"
DENOISED_NORM = "grad_norm without noise"
_SAME_WITHIN = 1e-12  # spread of a setting's values, in logarithms, that is none


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What one signal at one rung was worth. Positive: a high signal goes with a better result.

    A correlation is None where too few trials finished or the sweep does not vary what it needs.
    """

    signal: str  # a rung's signal, its slope since the rung before, or the norm without the batch's noise
    rung: int
    frac: float  # of the budget, where the rung's mark lies; the mean over its trials
    overall: Correlation | None
    within_batch: Correlation | None  # mean over the batch sizes
    within_rate: Correlation | None  # mean over the learning rates
    partial: Correlation | None  # what is left beside log rate and log batch
    by_rate: Correlation | None  # the trivial predictor: -log rate
    by_batch: Correlation | None  # the trivial predictor: +log batch

    @property
    def place(self) -> str:
        """Where in the budget its rung lies, so that early rungs of a long training are told apart: `0.2 %`."""
        return f"{100 * self.frac:.3g} %"

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Evidence":
        """Read what `as_dict` gave."""
        read: dict[str, Any] = {
            key: Correlation(**value) if isinstance(value, Mapping) else value for key, value in data.items()
        }
        return cls(**read)


def evidence_of(records: Iterable[TrialRecord], *, direction: Direction, seed: int = 0) -> list[Evidence]:
    """Measure every signal at every rung over the COMPLETE trials; by rung, then by strength.

    Trials that a pruner stopped have no final metric and are left out, so after much pruning this describes the better
    part of the grid only. The same records and seed give the same numbers.
    """
    finished = sorted((r for r in records if r.has_result), key=lambda record: record.number)
    found: list[Evidence] = []
    settings: dict[tuple[int, ...], _Settings] = {}  # by the trials; nearly all signals are of the same ones
    for rung in sorted({index for record in finished for index in record.rungs}):
        there = [record for record in finished if rung in record.rungs]
        frac = _mean_frac(there, rung)
        for signal, values in _signals_at(there, rung).items():
            kept = [index for index, value in enumerate(values) if math.isfinite(value)]
            trials = [there[k] for k in kept]
            key = tuple(record.number for record in trials)
            if key not in settings:
                settings[key] = _Settings.of(trials, direction, seed)
            evidence = _measure(signal, rung, frac, values[kept], settings[key], seed)
            if evidence.overall is not None:
                found.append(evidence)
    return sorted(found, key=lambda e: (e.rung, -abs(e.overall.rho if e.overall else 0.0), e.signal))


def in_words(evidence: Evidence) -> str:
    """Say in one sentence what a signal was worth.

    For example "at 10 % of the budget, low loss goes with a better result (0.62, 0.31 to 0.81, 14 trials), but adds
    nothing to the rate".
    """
    overall = evidence.overall
    place = f"at {evidence.place} of the budget"
    if overall is None:
        return f"{place}, too few trials have finished to say what {evidence.signal} is worth"
    name = _spoken(evidence.signal)
    if overall.sign == 0:
        said = f"{place}, {name} says nothing sure about the result ({_numbers(overall, 1)})"
    else:
        side = "high" if overall.sign > 0 else "low"
        said = f"{place}, {side} {name} goes with a better result ({_numbers(overall, overall.sign)})"
    return said + _addition(evidence, overall)


def _addition(evidence: Evidence, overall: Correlation) -> str:
    """Say what the signal adds to the rate and the batch size."""
    trivial = {"the rate": evidence.by_rate, "the batch size": evidence.by_batch}
    names = " and ".join(name for name, found in trivial.items() if found is not None)
    left = evidence.partial
    if left is None or not names:
        return ""
    if left.sign == 0:
        joint = ", but" if overall.sign else ", and"
        return f"{joint} adds nothing to {names}"
    shown = _numbers(left, left.sign, with_n=False)
    if overall.sign and left.sign != overall.sign:
        side = "high" if left.sign > 0 else "low"
        return f", but with {names} taken out it is {side} that is good ({shown})"
    if overall.sign:
        return f", and adds to {names} ({shown})"
    side = "high" if left.sign > 0 else "low"
    return f", but with {names} taken out {side} is good ({shown})"


def _numbers(correlation: Correlation, sign: int, *, with_n: bool = True) -> str:
    low, high = sorted((sign * correlation.low, sign * correlation.high))
    trials = f", {correlation.n} trials" if with_n else ""
    return f"{sign * correlation.rho:.2f}, {low:.2f} to {high:.2f}{trials}"


def _spoken(signal: str) -> str:
    if signal.endswith(SLOPE):
        return f"slope of {_spoken(signal.removesuffix(SLOPE))}"
    return signal.replace(GRAD_NORM, "gradient norm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    """What is the same for all signals of the same trials: their results, and what the settings alone say of them."""

    goodness: Array
    rate: Array | None
    batch: Array | None
    by_rate: Correlation | None
    by_batch: Correlation | None

    @classmethod
    def of(cls, trials: Sequence[TrialRecord], direction: Direction, seed: int) -> "_Settings":
        sign = goodness_sign(direction)
        goodness = np.array([sign * (record.value or 0.0) for record in trials])
        rate, batch = _log_column(trials, RATE), _log_column(trials, BATCH)
        return cls(
            goodness=goodness,
            rate=rate,
            batch=batch,
            by_rate=None if rate is None else spearman(-rate, goodness, seed=seed),
            by_batch=None if batch is None else spearman(batch, goodness, seed=seed),
        )


def _measure(
    signal: str,
    rung: int,
    frac: float,
    values: Array,
    settings: _Settings,
    seed: int,
) -> Evidence:
    goodness, rate, batch = settings.goodness, settings.rate, settings.batch
    # Each signal draws its own resamples, so that adding one does not change the others' intervals.
    own_seed = seed + zlib.crc32(f"{signal}@{rung}".encode())
    varied = [column for column in (rate, batch) if column is not None]
    return Evidence(
        signal=signal,
        rung=rung,
        frac=float(f"{frac:.4g}"),
        overall=spearman(values, goodness, seed=own_seed),
        within_batch=None if batch is None else within_groups(values, goodness, batch, seed=own_seed),
        within_rate=None if rate is None else within_groups(values, goodness, rate, seed=own_seed),
        partial=partial(values, goodness, np.stack(varied, axis=1), seed=own_seed) if varied else None,
        by_rate=settings.by_rate,
        by_batch=settings.by_batch,
    )


def _signals_at(trials: Sequence[TrialRecord], rung: int) -> dict[str, Array]:
    """Return each signal's values, one per trial, NaN where a trial lacks it."""
    names = sorted({name for record in trials for name in record.rungs[rung].signals})
    found = {name: _column(trials, rung, name) for name in names}
    for name in names:
        before = _column(trials, rung - 1, name)
        if np.isfinite(before).any():
            found[name + SLOPE] = _slope(trials, rung, name, before, found[name])
    if GRAD_NORM in found:
        found[DENOISED_NORM] = denoised_norms(trials, found[GRAD_NORM])
    return found


def _column(trials: Sequence[TrialRecord], rung: int, name: str) -> Array:
    return np.array(
        [r.rungs[rung].signals.get(name, math.nan) if rung in r.rungs else math.nan for r in trials]
    )


def _slope(trials: Sequence[TrialRecord], rung: int, name: str, before: Array, now: Array) -> Array:
    """Return the change per sample since the rung before; of the norm, that of its logarithm."""
    gone = np.array(
        [r.rungs[rung].samples - r.rungs[rung - 1].samples if rung - 1 in r.rungs else 0 for r in trials]
    )
    if name == GRAD_NORM:
        before, now = _safe_log(before), _safe_log(now)
    # Two rungs that fell on one step have no slope between them.
    return np.where(gone > 0, (now - before) / np.maximum(gone, 1), math.nan)


def denoised_norms(trials: Sequence[TrialRecord], norms: Array) -> Array:
    """Return |g|^2 - S / B: the squared gradient norm without the noise of the batch; NaN without a second batch.

    S is the mean over all pairs of batch sizes of trials that are equal in everything else. With two batch sizes
    this is |G|^2 of the source. The windows hold the mean norm, whose square is a little below the mean of the squares.

    Source: McCandlish et al., arXiv:1812.06162, Appendix A.1: |G|^2 = (B2 |g2|^2 - B1 |g1|^2) / (B2 - B1) and
        S = (|g1|^2 - |g2|^2) / (1/B1 - 1/B2).
    """
    batches = np.array([_setting(record, BATCH) for record in trials])
    squares = norms**2
    result = np.full(len(trials), math.nan)
    groups: dict[str, list[int]] = {}
    for index, record in enumerate(trials):
        key = repr(sorted((k, v) for k, v in record.params.items() if k != BATCH))
        groups.setdefault(key, []).append(index)
    for members in groups.values():
        noises = [
            (squares[i] - squares[j]) / (1 / batches[i] - 1 / batches[j])
            for i in members
            for j in members
            if batches[i] < batches[j] and math.isfinite(squares[i] - squares[j])
        ]
        if noises:
            result[members] = squares[members] - np.mean(noises) / batches[members]
    return result


def _log_column(trials: Sequence[TrialRecord], name: str) -> Array | None:
    """Return the logarithm of a setting; None where some trial lacks it or all have the same."""
    values = _safe_log(np.array([_setting(record, name) for record in trials]))
    if not len(values) or not np.isfinite(values).all() or np.ptp(values) < _SAME_WITHIN:
        return None
    return values


def _setting(record: TrialRecord, name: str) -> float:
    value = record.params.get(name, record.settings.get(name))
    return float(value) if is_number(value) else math.nan


def _safe_log(values: Array) -> Array:
    return np.where(values > 0, np.log(np.where(values > 0, values, 1.0)), math.nan)


def _mean_frac(trials: Sequence[TrialRecord], rung: int) -> float:
    return float(np.mean([_frac(record, record.rungs[rung]) for record in trials]))


def _frac(record: TrialRecord, rung: RungRecord) -> float:
    """Return where a rung's mark lies in a trial's budget."""
    # A mark in steps is the step itself; one in samples is so at batch size 1 alone, where both give the same.
    if rung.step == rung.mark and record.total_steps:
        return rung.mark / record.total_steps
    return rung.mark / (record.budget_samples or record.samples or 1)
