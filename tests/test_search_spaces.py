"""The shipped search spaces, each in a small sweep."""

import re
from pathlib import Path

import pytest
import training_fixtures
from sweep_files import config_of

from sweeper import api
from sweeper.config import parse_config
from sweeper.plan import plan_sweep

tiny = training_fixtures.tiny
FOLDER = Path(__file__).parents[1] / "search_spaces"
FILES = sorted(FOLDER.glob("*.yaml"))

SWEEP = """\
study: demo
metric: dev/loss
direction: minimize
trial:
  model: org/model
  train_data: train.jsonl
  eval_data: {dev: dev.jsonl}
  budget: {samples: 230400}
"""
# What a sweep file has instead of plain `train_data` where a search space trains on named data sets.
DATA_SETS = {"stacked_phased": "data_sets: {instruction: org/a, knowledge: org/b, skills: org/c}"}


def sweep_for(name: str) -> str:
    return SWEEP.replace("train_data: train.jsonl", DATA_SETS.get(name, "train_data: train.jsonl"))


def test_the_search_spaces_are_there() -> None:
    assert [file.stem for file in FILES] == [
        "batch_beta2",
        "batch_lr_grid",
        "lora_rank_lr",
        "lr_batch_tpe",
        "paper_granite",
        "paper_llama",
        "paper_mistral",
        "schedule_warmup",
        "stacked_phased",
        "tulu_lab",
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_search_space_plans_as_its_header_says(file: Path) -> None:
    header = file.read_text(encoding="utf-8").split("\n\n", 1)[0]
    promised = int(re.search(r"(\d+) points", header)[1])  # type: ignore[index]
    plan = plan_sweep(config_of(sweep_for(file.stem) + f"search_space: {file.stem}\n"))
    assert plan.n_trials == promised
    assert plan.budget_samples == 230_400
    assert not [text for text in plan.warnings if "skips" in text or "rounds" in text]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_search_space_says_what_it_needs_costs_and_how_to_launch_it(file: Path) -> None:
    header = file.read_text(encoding="utf-8").split("\n\n", 1)[0]
    for word in ("# What:", "# Needs:", "# Costs:"):
        assert word in header
    assert f"# Launch: sweeper launch sweep.yaml search_space={file.stem}" in header


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_launch_command_of_a_search_space_is_accepted(file: Path) -> None:
    command = re.search(r"# Launch: sweeper launch sweep\.yaml (.*)", file.read_text(encoding="utf-8"))
    assert command is not None
    with_a_space = sweep_for(file.stem) + "search_space: {learning_rate: {grid: [1e-4]}}\n"
    assert plan_sweep(config_of(with_a_space, *command[1].split())).n_trials > 1


@pytest.mark.parametrize("name", ["paper_granite", "paper_llama"])
def test_the_papers_rates_and_batches_are_the_papers(name: str) -> None:
    config = config_of(SWEEP + f"search_space: {name}\n")
    assert config.search_space["effective_batch_size"].grid == [128, 3840, 7680]
    assert config.search_space["learning_rate"].grid == [1e-6, 5e-6, 2e-5, 3e-5, 4e-5, 6e-5, 8e-5, 1e-4]
    assert config.trial.settings["lr_scheduler_type"] == "constant"


# What makes each small enough for a model of 2 layers and 40 rows; all else is the file's own.
SMALL = {
    "batch_beta2": "search_space.effective_batch_size.grid=[4, 8]",
    "paper_granite": "search_space.effective_batch_size.grid=[4, 8, 16]",
    "paper_llama": "search_space.effective_batch_size.grid=[4, 8, 16]",
    "paper_mistral": "search_space.effective_batch_size.grid=[4, 8, 16]",
    "schedule_warmup": "search_space.warmup_steps.grid=[0, 1, 2]",
    "stacked_phased": "effective_batch_size=4",
    "tulu_lab": "search_space.effective_batch_size.grid=[4, 8]",
}


@pytest.mark.train
@pytest.mark.parametrize(
    "name",
    # Most of each one's seconds is the preflight's process of its own; the core has one of a grid and one in phases.
    [
        pytest.param(name, marks=() if name in ("paper_granite", "stacked_phased") else pytest.mark.slow)
        for name in SMALL
    ],
)
def test_an_experiment_of_the_paper_runs_to_its_end_with_one_override(
    name: str, tiny: training_fixtures.Tiny, tmp_path: Path
) -> None:
    data = f"train_data: {tiny.train}"
    if name in DATA_SETS:
        data = f"data_sets: {{instruction: {tiny.train}, knowledge: {tiny.dev}, skills: {tiny.train}}}"
    text = (
        f"study: small\nmetric: dev/loss\ndirection: minimize\ndir: {tmp_path / 'small'}\nsearch_space: {name}\n"
        f"trial:\n  model: {tiny.model}\n  {data}\n  eval_data: {{dev: {tiny.dev}}}\n"
        "  budget: {samples: 16}\n  evaluation: {at: end, generate: false}\n"
        "  settings: {micro_batch_size: 4, max_length: 64"
        + ("" if "effective_batch_size" in SMALL[name] else ", effective_batch_size: 4")
        + "}\npruner: nop\nresources: {slots: 1}\n"
    )
    config = parse_config(text, file="sweep.yaml", base_dir=tmp_path, overrides=[SMALL[name]])
    view = api.launch(config, options=api.LaunchOptions(executor="in-process"))
    assert view.state == "finished"
    assert {record.state.value for record in view.records} == {"COMPLETE"}
    assert {record.samples for record in view.records} == {16}
    assert len(view.records) == plan_sweep(config).n_trials
