"""The example of plain Optuna with the transformers Trainer, run as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.train

EXAMPLE = Path(__file__).parents[1] / "examples" / "plain_optuna.py"


@pytest.mark.parametrize("options", [[], pytest.param(["--rank"], marks=pytest.mark.slow)])
def test_the_plain_optuna_example_stops_poor_points_and_names_a_best_one(options):
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--budget", "256", *options],
        capture_output=True,
        text=True,
        timeout=500,
    )

    assert done.returncode == 0, done.stderr
    n_complete, n_pruned = (int(line.split()[0]) for line in done.stdout.splitlines()[:2])
    assert n_complete + n_pruned == 24
    assert n_pruned > 0
    assert "best: {'effective_batch_size':" in done.stdout
