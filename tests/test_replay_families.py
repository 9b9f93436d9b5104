"""The synthetic families are what their names say; a benchmark stands on them."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

from families import FAMILIES, HONEST, MARKS, make_sweep
from pruners import METRICS, RECORDED, Task, run


def early_correlation(sweep, mark):
    """Spearman's correlation of the metric at a mark with goodness at the end, over the points that got there."""
    there = [
        point
        for point in sweep.points
        if math.isfinite(point.value) and len(point.measured) > MARKS.index(mark)
    ]
    early = [sweep.sign * point.measured[MARKS.index(mark)].metrics["score"] for point in there]
    return spearmanr(early, [sweep.sign * point.value for point in there]).statistic


def mean_correlation(family, mark):
    return np.mean([early_correlation(make_sweep(family, seed), mark) for seed in range(3)])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_a_full_grid_and_the_same_for_the_same_seed(family):
    sweep, again, other = make_sweep(family, 1), make_sweep(family, 1), make_sweep(family, 2)

    assert repr(sweep) == repr(again)  # not ==: NaN differs from itself
    assert repr(sweep) != repr(other)
    assert 32 <= len(sweep.points) <= 56
    assert sweep.seed_sd > 0


@pytest.mark.parametrize("family", HONEST)
def test_the_early_metric_is_honest(family):
    assert mean_correlation(family, 0.1) > 0.8


@pytest.mark.parametrize("family", ["anti_correlated", "paper"])
def test_the_early_metric_points_the_other_way_and_turns(family):
    assert mean_correlation(family, 0.1) < -0.5
    assert mean_correlation(family, 0.8) > 0.9


@pytest.mark.parametrize("family", ["no_signal", "late_bloomers", "two_optima", "crossing"])
def test_the_early_metric_says_little(family):
    assert abs(mean_correlation(family, 0.1)) < 0.35


def test_in_the_paper_s_family_a_high_loss_and_a_low_norm_go_with_a_better_end():
    sweep = make_sweep("paper", 0)
    early = [[row for row in point.rows if row.samples <= 256] for point in sweep.points]
    values = [point.value for point in sweep.points]

    assert spearmanr([np.mean([r.loss for r in rows]) for rows in early], values).statistic > 0.6
    assert spearmanr([np.mean([r.grad_norm for r in rows]) for rows in early], values).statistic < -0.4


def test_in_the_diverging_corner_points_that_lead_early_become_nan():
    sweep = make_sweep("diverging_corner", 0)
    at = MARKS.index(0.2)
    ranked = sorted(sweep.points, key=lambda point: -point.measured[at].metrics["score"])

    assert math.isnan(ranked[0].value)
    assert math.isnan(ranked[0].rows[-1].loss)


@pytest.mark.slow
def test_the_benchmark_plays_every_pruner(tmp_path):
    script = Path(__file__).parent / "benchmarks" / "pruners.py"
    options = [
        "--groups",
        "honest_loss",
        "--studies",
        "1",
        "--orders",
        "1",
        "--json",
        str(tmp_path / "out.json"),
    ]

    done = subprocess.run(
        [sys.executable, str(script), *options], capture_output=True, text=True, timeout=250
    )

    assert done.returncode == 0, done.stderr
    results = {one["pruner"]: one for one in json.loads((tmp_path / "out.json").read_text())}
    assert {"eager: metric", "paper's rule", "Optuna Wilcoxon", "Ray ASHA", "none"} <= set(results)
    assert (results["none"]["cost"], results["none"]["hit"]) == (1.0, 1.0)
    assert results["Ray ASHA"]["cost"] < 0.6
    assert "share of training spent, and hit rate in %" in done.stdout


@pytest.mark.slow
def test_the_default_finds_the_best_of_the_recorded_sweeps_for_less_than_half_of_the_training():
    found = [
        run(Task(group=path.stem, source=f"{path}|{metric}", contender="learned", orders=1))
        for path in sorted(RECORDED.glob("*.parquet"))
        for metric in METRICS
    ]

    costs = [one["cost"] for one in found]
    print(
        f"cost: median {np.median(costs):.2f}, worst {max(costs):.2f}; hits {sum(one['hit'] for one in found)}"
    )
    assert len(found) == 24
    assert np.median(costs) <= 0.40
    assert max(costs) <= 0.70
    assert sum(one["hit"] for one in found) >= 23
