"""Several base models side by side in one study."""

from pathlib import Path

import pytest
import training_fixtures
from sweep_files import config_of

from sweeper import api
from sweeper.config import parse_config
from sweeper.config.trial_models import TrialSection
from sweeper.errors import ConfigError
from sweeper.plan import plan_sweep

tiny = training_fixtures.tiny

SWEEP = """\
study: demo
metric: dev/loss
direction: minimize
trial:
  train_data: org/train
  eval_data: {dev: org/dev}
  budget: {samples: 1024}
search_space:
  model: {grid: [org/small, org/large@v2]}
"""


def test_each_model_is_a_point_of_its_own() -> None:
    points = plan_sweep(config_of(SWEEP)).points
    assert [point.params for point in points] == [{"model": "org/small"}, {"model": "org/large@v2"}]
    assert len({point.point_id for point in points}) == 2


@pytest.mark.parametrize(
    ("name", "model", "revision"),
    [
        ("org/large", "org/large", None),
        ("org/large@v2", "org/large", "v2"),
        ("/models/a@b", "/models/a@b", None),
    ],
)
def test_a_name_may_carry_a_revision(name: str, model: str, revision: str | None) -> None:
    trial = TrialSection(revision="main").with_model(name)
    assert (trial.model, trial.revision) == (model, revision)


def test_a_local_model_is_looked_up_beside_the_sweep_file(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    text = SWEEP.replace("org/small", "./here")
    config = parse_config(text, file="sweep.yaml", base_dir=tmp_path)
    assert config.search_space["model"].grid == [str(tmp_path / "here"), "org/large@v2"]
    with pytest.raises(ConfigError, match=r"sweep.yaml:9: `search_space.model.grid` names `./there`"):
        parse_config(text.replace("./here", "./there"), file="sweep.yaml", base_dir=tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("  train_data", "  model: org/a\n  train_data", "`trial.model` is fixed, but `model` varies"),
        ("  train_data", "  revision: v1\n  train_data", "Write `id@revision` in the search space"),
        ("{samples: 1024}", "{tokens: 1024}", "models with different tokenizers different amounts of data"),
        (
            "search_space",
            "  settings: {model: org/a}\nsearch_space",
            "`model` is no setting: write `trial.model`",
        ),
        ("[org/small, org/large@v2]", "[1, 2]", "`search_space.model.grid[0]` must be text"),
    ],
)
def test_what_several_models_exclude_is_told(old: str, new: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(SWEEP.replace(old, new, 1))
    assert told in str(error.value)


@pytest.mark.train
@pytest.mark.slow
def test_two_models_are_trained_side_by_side(tiny: training_fixtures.Tiny, tmp_path: Path) -> None:
    other = training_fixtures.make_model_dir(tmp_path / "other", seed=5)
    text = (
        f"study: two\nmetric: dev/loss\ndirection: minimize\ndir: {tmp_path / 'two'}\n"
        f"trial:\n  train_data: {tiny.train}\n  eval_data: {{dev: {tiny.dev}}}\n  budget: {{samples: 16}}\n"
        "  evaluation: {at: end, generate: false}\n  checkpoint: {save_model: true}\n"
        "  settings: {effective_batch_size: 8, micro_batch_size: 8, max_length: 64}\n"
        f"search_space: {{model: {{grid: [{tiny.model}, {other}]}}}}\npruner: nop\nresources: {{slots: 1}}\n"
    )
    config = parse_config(text, file="sweep.yaml", base_dir=tmp_path)
    view = api.launch(config, options=api.LaunchOptions(executor="in-process"))
    assert {record.state.value for record in view.records} == {"COMPLETE"}
    values = [record.value for record in view.records]
    assert values[0] != values[1]
    first = [view.curve(record.number)["loss"].iloc[0] for record in view.records]
    assert first[0] != first[1]  # from the first step on, which sees the same rows
