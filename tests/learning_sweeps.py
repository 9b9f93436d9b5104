"""Made-up grids with known ends, and a player that runs them past a judge in turns."""

import math
import random

import numpy as np

from sweeper.records import RungRecord, TrialRecord, TrialState

FRACTIONS = (0.1, 0.2, 0.3, 0.5, 0.7)
RATES = tuple(float(rate) for rate in np.geomspace(1e-5, 1e-2, 9))
BATCHES = (8, 16, 32, 64)
PARAMS = tuple({"effective_batch_size": b, "learning_rate": r} for b in BATCHES for r in RATES)


def quality(params, *, best=1e-3):
    """Best at one rate, which grows with the root of the batch; from 0 to 1."""
    distance = math.log10(params["learning_rate"] / best) - 0.5 * math.log10(
        params["effective_batch_size"] / 16
    )
    return math.exp(-((distance / 0.8) ** 2))


def honest(seed, *, sd=0.01):
    """Return the final values of a grid, and the signals that trial n shows at rung k."""
    draw = np.random.default_rng(seed)
    final = [quality(params) + sd * draw.normal() for params in PARAMS]
    noise = draw.normal(size=(len(PARAMS), len(FRACTIONS), 2))

    def signals(number, rung):
        score = final[number] * (1 - math.exp(-4 * FRACTIONS[rung])) + sd * noise[number, rung, 0]
        return {"score": score, "loss": 2 - score, "grad_norm": math.exp(0.3 * noise[number, rung, 1])}

    return final, signals


def nothing(seed):
    """Return final values that neither the points nor the signals say anything about."""
    draw = np.random.default_rng(seed)
    final = list(draw.beta(2, 3, size=len(PARAMS)))
    noise = draw.normal(size=(len(PARAMS), len(FRACTIONS), 3))
    return final, lambda number, rung: {
        "score": noise[number, rung, 0], "loss": noise[number, rung, 1], "grad_norm": math.exp(noise[number, rung, 2])
    }  # fmt: skip


def waiting_records(params=PARAMS):
    return {
        n: TrialRecord(
            number=n, state=TrialState.WAITING, params=dict(p), point_id=f"point-{n}", budget_samples=1000
        )
        for n, p in enumerate(params)
    }


def show(record, rung, signals):
    samples = round(1000 * FRACTIONS[rung])
    record.samples = samples
    record.rungs[rung] = RungRecord(rung=rung, mark=samples, step=rung + 1, samples=samples, signals=signals)


def complete(record, value):
    record.state, record.value, record.samples = TrialState.COMPLETE, value, 1000


def play(judge, final, signals, *, slots=4, seed=0):
    """Run the grid to its end, the running trials in turns of random order; return the records."""
    draw = random.Random(seed)
    records, running = waiting_records(), []

    def carry_out(decisions):
        for decision in decisions:
            record = records[decision.trial]
            record.decisions.append(decision.entry())
            if decision.stop:
                record.state = TrialState.PRUNED
                if decision.trial in running:
                    running.remove(decision.trial)

    while True:
        waiting = [n for n in records if records[n].state is TrialState.WAITING]
        while waiting and len(running) < slots:
            number = judge.next_of(waiting, records)
            waiting.remove(number)
            records[number].state = TrialState.RUNNING
            running.append(number)
        if not running:
            return records
        number = draw.choice(running)
        rung = len(records[number].rungs)
        if rung < len(FRACTIONS):
            show(records[number], rung, signals(number, rung))
            carry_out(judge.judge([number], rung, records))
        else:
            complete(records[number], final[number])
            running.remove(number)
        carry_out(judge.judge_again(records))


def cost(records):
    return sum(record.samples for record in records.values()) / (1000 * len(records))


def best_found(records):
    return max(record.value for record in records.values() if record.value is not None)
