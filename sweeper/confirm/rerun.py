"""`sweeper rerun`: train one trial again from its record, and say how close it came."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sweeper import api
from sweeper.confirm.again import points_config, train_or_read
from sweeper.errors import StudyMismatchError
from sweeper.executors.attempt import TrialFunction
from sweeper.moved import follow
from sweeper.records import HOST, TrialRecord
from sweeper.reporting.formats import jsonable, plural, short
from sweeper.reporting.origins import origin_text
from sweeper.study.environment import environment_of
from sweeper.study.study import Study
from sweeper.study.view import StudyView

_SIGNALS = ("loss", "grad_norm", "learning_rate", "samples", "tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rerun:
    """Two trainings of one trial, compared over the steps that the first one has."""

    study: str
    trial: int
    again: str  # the directory of the study that trained it again
    n_steps: int  # compared
    n_missing: int  # steps that the first one has and the second one has not
    first_difference: int | None  # step; None where every value of every compared step is the same
    largest: Mapping[str, float]  # difference of each signal, absolute
    values: tuple[float | None, float | None]  # the study's metric at the end, then and now
    changed: Mapping[str, tuple[str | None, str | None]]  # versions, then and now
    devices: tuple[str | None, str | None]  # what each trained on; None: it left no word

    @property
    def is_identical(self) -> bool:
        """Whether the curves are the same bit for bit, and so are the final values where both have one."""
        same_end = None in self.values or self.values[0] == self.values[1]
        return self.first_difference is None and not self.n_missing and same_end


def rerun(
    place: str,
    number: int,
    *,
    options: api.LaunchOptions | None = None,
    name: str | None = None,
    function: TrialFunction | None = None,
) -> Rerun:
    """Train a trial again as a study of its own, to the end of its budget, and compare the curves.

    Raises:
        StudyMismatchError: If there is no such trial, or it was never trained, or not from scratch, or its data is
            not there as it was.
        SweeperError: As `api.launch` does.
    """
    options = options or api.LaunchOptions()
    study = Study.open(place, url=options.storage)
    follow(study)
    view = study.view()
    record = _record(view, number)
    config = points_config(view, [record.params], name=name, suffix=f"-rerun-{number}")
    again = train_or_read(config, study, options, function)
    return compare_curves(view, record, again)


def compare_curves(view: StudyView, record: TrialRecord, again: StudyView) -> Rerun:
    """Compare a trial with the only one of another study."""
    (repeated,) = again.records
    first, second = view.curve(record.number), again.curve(repeated.number)
    n_steps = min(len(first), len(second))
    differs = np.zeros(n_steps, dtype=bool)
    largest = {}
    for signal in _SIGNALS:
        before, after = (_column(frame, signal, n_steps) for frame in (first, second))
        unequal = ~((before == after) | (np.isnan(before) & np.isnan(after)))
        differs |= unequal
        largest[signal] = float(np.abs(before - after)[unequal].max()) if unequal.any() else 0.0
    changed = {
        package: (view.versions.get(package), again.versions.get(package))
        for package in {**view.versions, **again.versions}
        if view.versions.get(package) != again.versions.get(package)
    }
    return Rerun(
        study=view.name, trial=record.number, again=str(again.directory), n_steps=n_steps,
        n_missing=len(first) - n_steps,
        first_difference=int(first["step"].iloc[int(differs.argmax())]) if differs.any() else None,
        largest=largest, values=(record.value, repeated.value), changed=changed,
        devices=(
            environment_of(view, record).get("device"), environment_of(again, repeated).get("device")
        ),
    )  # fmt: skip


def rerun_text(found: Rerun) -> str:
    """Return the comparison for people."""
    head = f"Trial {found.trial} of study `{found.study}` was trained again in {found.again}."
    steps = plural(found.n_steps, "step")
    then, now = found.values
    ends = f" Final value: {short(then)} then, {short(now)} now." if then is not None else ""
    if found.is_identical:
        only = "" if then is not None else " (it was stopped there; the new one was trained to its end)"
        return f"{head}\nIdentical: all {steps}, bit for bit{only}.{ends}"
    parts = []
    if found.first_difference is not None:
        far = ", ".join(f"{name} by {short(size)}" for name, size in found.largest.items() if size)
        parts.append(
            f"the curves part at step {found.first_difference} of {found.n_steps}; at most: {far or 'NaN'}"
        )
    if found.n_missing:
        parts.append(f"the new curve lacks the last {plural(found.n_missing, 'step')}")
    lines = [head, f"Not identical: {'; '.join(parts) or 'the curves are the same, the ends differ'}.{ends}"]
    if found.changed:
        each = ", ".join(f"{name} {was} -> {now}" for name, (was, now) in sorted(found.changed.items()))
        lines.append(f"Versions that changed: {each}.")
    if any(device not in (None, HOST) for device in found.devices):
        was, now_on = (device or "a device that left no word" for device in found.devices)
        trained_on = was if was == now_on else f"{was}, then {now_on}"
        lines.append(
            f"It was trained on {trained_on}: kernels of GPUs may add in no fixed order, so that a sound trial need "
            "not repeat itself. Hold the distance against that between two seeds (`sweeper confirm`)."
        )
    return "\n".join(lines)


def rerun_json(found: Rerun) -> dict[str, Any]:
    """Return the comparison as JSON-able data."""
    return {**jsonable(dataclasses.asdict(found)), "is_identical": found.is_identical}


def _record(view: StudyView, number: int) -> TrialRecord:
    record = view.record(number)
    if not len(view.curve(number)):
        raise StudyMismatchError(
            f"Trial {number} of study `{view.name}` is {record.state.value} and has no curve, so there is nothing to "
            "compare with. Choose one that was trained."
        )
    if record.is_continued or record.is_warm_started:
        raise StudyMismatchError(
            f"Trial {number} of study `{view.name}` was not trained from scratch ({origin_text(record)}), as a rerun "
            "would train it, to the study's budget: the curves would differ by that. Choose another trial."
        )
    return record


def _column(frame: pd.DataFrame, name: str, n_steps: int) -> Any:
    return frame[name].to_numpy(dtype=float, na_value=np.nan)[:n_steps]
