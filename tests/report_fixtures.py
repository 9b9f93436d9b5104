"""Synthetic studies for what people read: made of records and tables, no training, no storage."""

import datetime
import math
import random
from pathlib import Path
from typing import Any

import pandas as pd

from sweeper.config.models import SweepConfig
from sweeper.records import RungRecord, StepRow, TrialRecord, TrialState
from sweeper.study.view import StudyState, StudyView

BUDGET = 2048
MARKS = (205, 615)
START = datetime.datetime(2026, 11, 3, 12, 0, tzinfo=datetime.UTC)
VERSIONS = {"sweeper": "0.1.0", "optuna": "5.0.0", "ray": "2.60.0", "python": "3.11.2"}


def make_config(search_space: dict[str, Any], **changes: Any) -> SweepConfig:
    """Return a sweep of the built-in fine-tuning over a search space."""
    base: dict[str, Any] = {
        "study": "tiny-batch-rate",
        "metric": "accuracy",
        "direction": "maximize",
        "trial": {
            "model": "models/tiny",
            "train_data": "data/train.jsonl",
            "eval_data": {"held_out": "data/held_out.jsonl"},
            "budget": {"samples": BUDGET},
        },
        "search_space": search_space,
        "rungs": {"fractions": [0.1, 0.3]},
    }
    return SweepConfig.model_validate({**base, **changes})


def quality(batch: int, rate: float) -> float:
    """Return a made-up accuracy with one best point: batch 32 and rate 3e-4."""
    return 0.9 * math.exp(-0.25 * math.log2(batch / 32) ** 2 - 0.4 * math.log10(rate / 3e-4) ** 2)


def make_curve(record: TrialRecord, *, diverges: bool = False) -> pd.DataFrame:
    """Return a loss and gradient norm for every optimiser step that a record says was trained."""
    batch = int(record.params.get("effective_batch_size", 32))
    target = 1.2 - quality(batch, float(record.params.get("learning_rate", 3e-4)))
    noise = random.Random(record.number)
    rows = []
    for step in range(1, record.step + 1):
        samples = step * batch
        loss = target + 3.0 * math.exp(-samples / 400) + noise.gauss(0, 0.6 / batch**0.5)
        norm = 0.4 + 4.0 / batch**0.5 * math.exp(-samples / 900) + abs(noise.gauss(0, 0.05))
        is_last = diverges and step == record.step
        rows.append((step, samples, samples * 40, math.nan if is_last else loss, norm, 3e-4))
    return pd.DataFrame(rows, columns=list(StepRow._fields))


def make_record(
    number: int, state: TrialState, params: dict[str, Any], *, stopped_at: int | None = None, **changes: Any
) -> TrialRecord:
    """Return a trial that trained as far as its state says: to its end, to a rung, half way, or not."""
    batch = int(params.get("effective_batch_size", 32))
    goal = {TrialState.COMPLETE: BUDGET, TrialState.WAITING: 0}.get(state, BUDGET // 2)
    if stopped_at is not None:
        goal = MARKS[stopped_at]
    step = -(-goal // batch)
    value = quality(batch, float(params.get("learning_rate", 3e-4)))
    record = TrialRecord(
        number=number,
        state=state,
        params=params,
        point_id=f"p{number:07x}",
        budget_samples=BUDGET,
        total_steps=BUDGET // batch,
        step=step,
        samples=step * batch,
        tokens=step * batch * 40,
        attempts=0 if state is TrialState.WAITING else 1,
        train_s=step * 0.05,
        evaluation_s=1.5,
    )
    if state is not TrialState.WAITING:
        _run(record, value)
    for name, changed in changes.items():
        setattr(record, name, changed)
    return record


def _run(record: TrialRecord, value: float) -> None:
    """Fill in what a trial that has started shows."""
    batch = int(record.params.get("effective_batch_size", 32))
    for rung, mark in enumerate(MARKS):
        if record.samples >= mark:
            step = -(-mark // batch)
            signals = {"loss": 2.5 - value, "grad_norm": 1.0, "accuracy": round(value * 0.4 * (rung + 1), 4)}
            record.rungs[rung] = RungRecord(
                rung=rung, mark=mark, step=step, samples=step * batch, signals=signals
            )
            record.decisions.append(_decision(record, rung, stop=False))
    begin = START + datetime.timedelta(seconds=30 * (record.number // 2))
    record.worker = {"node": "node-a", "pid": 4000 + record.number % 2}
    record.started = begin.isoformat()
    if record.state is TrialState.COMPLETE:
        record.value = round(value, 4)
        record.metrics = {"accuracy": round(value, 4), "held_out/loss": round(1.2 - value, 4)}
    if record.state is TrialState.PRUNED:
        record.decisions[-1] = _decision(record, max(record.rungs), stop=True)
        record.reason = record.decisions[-1]["reason"]
    if record.state is TrialState.FAIL:
        record.reason = "RuntimeError: the data loader lost its worker"
        record.errors = [{"attempt": 1, "error": record.reason}]
    if record.state.is_finished:
        record.ended = (begin + datetime.timedelta(seconds=4 + record.samples / 100)).isoformat()


def _decision(record: TrialRecord, rung: int, *, stop: bool) -> dict[str, Any]:
    place = "5 of 6" if stop else "2 of 6"
    return {
        "trial": record.number,
        "stop": stop,
        "rule": "early_dynamics",
        "reason": f"loss 2.31 and gradient norm 1.4 rank {place} at rung {rung}; the best 3 go on",
        "rung": rung,
        "samples": record.samples,
        "details": {"rank": 5 if stop else 2, "n_peers": 6},
    }


def make_view(
    records: list[TrialRecord],
    config: SweepConfig,
    *,
    state: StudyState = "finished",
    diverged: frozenset[int] = frozenset(),
) -> StudyView:
    """Return a view of records whose curves are made when they are asked for."""
    by_number = {record.number: record for record in records}
    return StudyView(
        name=config.study,
        config=config,
        state=state,
        records=tuple(records),
        directory=Path("studies") / config.study,
        curve=lambda number: make_curve(by_number[number], diverges=number in diverged),
        versions=VERSIONS,
        created=START.isoformat(),
    )


def view_of_16() -> StudyView:
    """A finished 4 x 4 grid of batch and rate: 8 complete, 7 pruned (one diverged), 1 failed."""
    batches, rates = [8, 16, 32, 64], [1e-5, 1e-4, 3e-4, 1e-3]
    config = make_config({"effective_batch_size": {"grid": batches}, "learning_rate": {"grid": rates}})
    points = [{"effective_batch_size": b, "learning_rate": r} for b in batches for r in rates]
    good = {number for number, p in enumerate(points) if quality(*p.values()) > 0.6}
    records = []
    for number, point in enumerate(points):
        if number == 15:
            records.append(make_record(number, TrialState.FAIL, point, attempts=2))
        elif number in good:
            records.append(make_record(number, TrialState.COMPLETE, point))
        else:
            records.append(make_record(number, TrialState.PRUNED, point, stopped_at=number % 2))
    diverged = records[3]
    diverged.decisions[-1] |= {"rule": "nan", "rung": None, "reason": "the loss became NaN at step 77"}
    diverged.reason = diverged.decisions[-1]["reason"]
    return make_view(records, config, diverged=frozenset({3}))


def view_of_5(*, state: StudyState = "running") -> StudyView:
    """One rate axis: a trial in each state, the sweep still going."""
    config = make_config({"learning_rate": {"grid": [1e-6, 1e-5, 1e-4, 3e-4, 1e-3]}})
    states = [TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING]
    rates = [1e-6, 1e-5, 1e-4, 3e-4, 1e-3]
    records = [
        make_record(
            number, kind, {"learning_rate": rate}, stopped_at=0 if kind is TrialState.PRUNED else None
        )
        for number, (kind, rate) in enumerate(zip(states, rates, strict=True))
    ]
    return make_view(records, config, state=state)


def view_of_many(n_trials: int = 300) -> StudyView:
    """A random search over four params, one of them categorical."""
    space = {
        "effective_batch_size": {"choice": [8, 16, 32, 64, 128]},
        "learning_rate": {"log_uniform": (1e-6, 1e-2)},
        "lr_scheduler_type": {"choice": ["constant", "cosine"]},
        "warmup_steps": {"int": (0, 100)},
    }
    config = make_config(space, sampler={"name": "random", "n_trials": n_trials})
    drawn = random.Random(0)
    records = []
    for number in range(n_trials):
        point = {
            "effective_batch_size": drawn.choice([8, 16, 32, 64, 128]),
            "learning_rate": 10 ** drawn.uniform(-6, -2),
            "lr_scheduler_type": drawn.choice(["constant", "cosine"]),
            "warmup_steps": drawn.randint(0, 100),
        }
        if number % 4 == 0:
            records.append(make_record(number, TrialState.COMPLETE, point))
        else:
            records.append(make_record(number, TrialState.PRUNED, point, stopped_at=number % 2))
    return make_view(records, config)
