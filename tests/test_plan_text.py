"""What `sweeper plan` prints."""

import io
import json

import pytest
from rich.console import Console
from sweep_files import BASE, FUNCTION, config_of

from sweeper.plan import DataFacts, plan_sweep
from sweeper.plan_text import format_plan, plan_json

GRID = """\
study                   demo
trials                  4, every point of the grid
  learning_rate         1e-5, 1e-4
  effective_batch_size  32, 128
trains                  org/model
budget                  8,000 samples per trial, 7,936 samples each, at most
                        31,744 samples in all
metric                  dev/loss, minimize
pruner                  early_dynamics, learns what predicts dev/loss, risk 5%
rungs                   at 794, 2,381 samples

points  batch  micro x accum x ranks  steps  samples  rungs at step
     2     32  8 x 4 x 1                248    7,936         25, 75
     2    128  8 x 16 x 1                62    7,936          7, 19

note: Every point trains 7,936 samples instead of 8,000 (-0.8%), a multiple of
      every effective batch.
note: 4 points are too few to learn from (it takes 20): only what diverges is
      stopped. Set `pruner.signals` to stop by rank.
note: No trained model is kept: `trial.checkpoint.save_model: true` keeps them,
      and best.yaml has it set.
warning: Batch 128 (62 steps) comes to its first rung after 7 steps, fewer than
         `pruner.window_steps` = 8: its signals there are means of fewer steps.
"""

DRAWN = """\
study   demo
trials  10, drawn by the tpe sampler
  rate  0.1 to 0.9
trains  my_code:train
budget  1,000 samples per trial, at most 10,000 samples in all
metric  score, maximize
pruner  early_dynamics, learns what predicts score, risk 5%
rungs   at 100, 300 samples

points  batch  micro x accum x ranks  steps  samples  rungs at step
 drawn      -  -                          ?    1,000              -

note: 10 points are too few to learn from (it takes 20): only what diverges is
      stopped. Set `pruner.signals` to stop by rank.
"""


def printed(text: str, *overrides: str) -> str:
    target = io.StringIO()
    Console(file=target, width=80, color_system=None).print(
        format_plan(plan_sweep(config_of(text, *overrides)))
    )
    return "".join(line.rstrip() + "\n" for line in target.getvalue().splitlines())


def test_a_grid_is_printed_in_eighty_columns() -> None:
    assert printed(BASE, "trial.budget.samples=8000") == GRID


def test_a_drawn_sweep_is_printed_with_its_ranges() -> None:
    assert printed(FUNCTION) == DRAWN


def test_small_shares_are_printed_with_their_digits() -> None:
    text = printed(FUNCTION, "sampler.n_trials=30", "pruner.risk=0.005", "pruner.audit_frac=0.125")
    learned = " ".join(text.split())
    assert "learns what predicts score, risk 0.5% rungs" in learned
    assert "is at most 0.5% if the model's predictions hold; 12.5% of the condemned trials" in learned


@pytest.mark.parametrize(
    ("mode", "when"),
    [
        ("eager", "from 4 peers on"),
        ("certain", "stops once that is certain"),
        ("probe", "once all have come there"),
    ],
)
def test_a_rank_is_printed_with_what_its_mode_does(mode: str, when: str) -> None:
    text = printed(BASE, f"pruner={{name: early_dynamics, mode: {mode}, keep_frac: 0.125}}")
    assert f"early_dynamics, keeps 12.5% at each rung, {when} rungs" in " ".join(text.split())


def test_an_unknown_budget_is_printed_as_unknown() -> None:
    text = printed(BASE, "trial.budget.epochs=3")
    assert "3 epochs per trial, samples known after counting" in text
    assert "rungs                   known after counting" in text


def test_markup_in_values_is_printed_as_it_is() -> None:
    assert "org/[red]x" in printed(BASE, "trial.model=org/[red]x")


def test_everything_in_the_plan_is_in_its_json() -> None:
    plan = plan_sweep(
        config_of(BASE, "trial.budget.epochs=2"), facts=DataFacts(rows=4096, target_tokens=None)
    )
    data = json.loads(json.dumps(plan_json(plan)))
    assert (data["study"], data["n_trials"], data["total_samples"]) == ("demo", 4, 4 * 8192)
    assert data["points"][1]["batch"] == {
        "micro_batch_size": 8,
        "gradient_accumulation_steps": 16,
        "data_parallel_size": 1,
        "effective_batch_size": 128,
    }
    assert data["points"][0]["rungs"][0] == {
        "index": 0,
        "mark": 820,
        "step": 26,
        "samples": 832,
        "unit": "samples",
    }
    assert data["config"]["trial"]["model"] == "org/model"
    assert data["notes"][0] == "2 epochs of 4,096 rows are 8,192 samples."
