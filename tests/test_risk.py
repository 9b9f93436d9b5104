"""The declared risk holds in simulated studies, and the probe mode ends the same in any order.

The long form of the first is `python tests/benchmarks/pruners.py --studies 1000 --orders 1 --only learned`.
"""

import dataclasses
import random
import sys
from pathlib import Path

import pytest
from scipy.stats import binom

from sweeper.replay import Replay, replay_config

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

from families import FAMILIES, make_sweep

RISK = 0.05
N_STUDIES = 5  # of each family


@pytest.mark.simulation
def test_the_share_of_failed_studies_is_within_the_declared_risk():
    failed = []
    for family in FAMILIES:
        for seed in range(N_STUDIES):
            sweep = make_sweep(family, 100 + seed)
            pruner = {"name": "early_dynamics", "directions": "learned", "risk": RISK}
            outcome = Replay(sweep, replay_config(sweep, pruner)).play(slots=4, tolerance=sweep.seed_sd)
            if not outcome.is_hit:
                failed.append(sweep.name)

    n = N_STUDIES * len(FAMILIES)
    assert binom.sf(len(failed) - 1, n, RISK) > 0.01, failed
    assert max(sum(name.startswith(family) for name in failed) for family in FAMILIES) <= 2, failed


@pytest.mark.simulation
def test_the_probe_modes_survivors_are_the_same_for_200_orders():
    sweep = make_sweep("honest", 0)
    sweep = dataclasses.replace(sweep, points=sweep.points[::3])
    pruner = {
        "name": "early_dynamics",
        "mode": "probe",
        "keep_frac": 0.3,
        "signals": {"score": {"direction": "maximize"}, "loss": {"direction": "minimize"}},
    }
    replay = Replay(sweep, replay_config(sweep, pruner, sections={"rungs": {"fractions": [0.1, 0.3]}}))
    draw = random.Random(0)
    survivors, spent = set(), set()
    n = len(sweep.points)
    for index in range(200):
        order = draw.sample(range(n), n)
        speeds = {number: draw.uniform(0.5, 2.0) for number in range(n)}
        outcome = replay.play(order, slots=(1, 4, n)[index % 3], speeds=speeds)
        survivors.add(outcome.survivors)
        spent.add(outcome.spent_samples)

    assert len(survivors) == 1
    assert len(spent) == 1
    assert spent.pop() < 0.5 * sum(point.budget_samples for point in sweep.points)
