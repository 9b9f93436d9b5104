"""How a sweep file becomes a config: numbers, short forms, paths, overrides, search space files; and back."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_files import BASE, FUNCTION, config_of, replaced, write_data

from sweeper.config import config_from_dict, config_to_dict, dump_config, load_config, parse_config
from sweeper.config.document import parse_document
from sweeper.config.local_paths import DATA_SUFFIXES
from sweeper.config.models import SweepConfig
from sweeper.config.space_models import Dimension
from sweeper.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("5.", 5.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("0o17", 15),
        ("0x1F", 31),
        ("012", 12),
        ("+3", 3),
        ("512_000", 512_000),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("", None),
        ("12:30", "12:30"),
        ("2026-11-01", "2026-11-01"),
        ("'1e-4'", "1e-4"),
        ("!!str 12", "12"),
        ("!!float 3", 3.0),
    ],
)
def test_scalars_are_read_as_yaml_1_2(text: str, value: object) -> None:
    read = parse_document(f"a: {text}", file="x").data["a"]
    assert read == value
    assert type(read) is type(value)


def test_anchors_and_merge_keys_are_expanded_and_own_keys_win() -> None:
    text = "base: &b {x: 1, y: 2}\nother: &o {y: 9, z: 3}\none: {<<: [*b, *o], x: 5}\nsame: *b\n"
    data = parse_document(text, file="x").data
    assert data["one"] == {"x": 5, "y": 2, "z": 3}
    assert data["same"] == {"x": 1, "y": 2}


def test_reading_a_plain_file_loads_no_heavy_library() -> None:
    heavy = ("ray", "torch", "transformers", "trl", "optuna", "pandas", "numpy")
    code = (
        "import sys; from sweep_files import BASE, config_of; from sweeper.plan import plan_sweep; "
        f"plan_sweep(config_of(BASE)); print([name for name in {heavy} if name in sys.modules])"
    )
    roots = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_config_survives_json() -> None:
    config = config_of(BASE, "search_space.weight_decay.uniform=[0, 0.1]", "sampler={name: tpe, n_trials: 5}")
    assert SweepConfig.model_validate_json(config.model_dump_json()) == config


def test_short_forms_stand_for_long_ones() -> None:
    config = config_of(BASE)
    assert config.sampler.name == "grid"
    assert config.pruner.name == "early_dynamics"
    assert [source.path for source in config.trial.train_data or []] == [str(Path.cwd() / "train.jsonl")]
    assert config.trial.eval_data["dev"].path == str(Path.cwd() / "dev.jsonl")


@pytest.mark.parametrize("suffix", DATA_SUFFIXES)
def test_a_name_that_ends_as_data_files_do_is_a_path(suffix: str) -> None:
    (source,) = config_of(replaced(BASE, ("train.jsonl", f"rows{suffix}"))).trial.train_data or []
    assert source.path == str(Path.cwd() / f"rows{suffix}")


def test_settings_are_written_out_but_what_varies_and_the_seed_are_left_open() -> None:
    written = config_of(BASE).trial.settings
    assert written["micro_batch_size"] == 8
    assert written["adam_beta2"] == 0.95
    assert not {"learning_rate", "effective_batch_size", "seed"} & set(written)


def test_a_seed_that_was_given_is_kept() -> None:
    assert config_of(BASE, "trial.settings.seed=7").trial.settings["seed"] == 7


def test_a_function_may_have_any_settings() -> None:
    assert config_of(FUNCTION).trial.settings == {"depth": 3}


def test_an_empty_search_space_is_one_point() -> None:
    config = config_of(BASE, "learning_rate=1e-4", "effective_batch_size=64")
    assert config.search_space == {}


def test_local_paths_start_at_the_sweep_file(tmp_path: Path) -> None:
    write_data(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "sub").mkdir()
    text = replaced(
        BASE, ("org/model", "../model"), ("train.jsonl", "../train.jsonl"), ("dev.jsonl", "../dev.jsonl")
    )
    (tmp_path / "sub" / "sweep.yaml").write_text(text + "dir: ../studies/demo\n", encoding="utf-8")
    config = load_config(tmp_path / "sub" / "sweep.yaml")
    assert config.trial.model == str(tmp_path / "model")
    assert config.trial.train_data is not None
    assert config.trial.train_data[0].path == str(tmp_path / "train.jsonl")
    assert config.dir == str(tmp_path / "studies" / "demo")


def test_a_directory_that_exists_is_a_local_model_and_other_names_are_the_hubs(tmp_path: Path) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert config_of(BASE, folder=tmp_path).trial.model == str(tmp_path / "org" / "model")
    assert config_of(replaced(BASE, ("org/model", "org/other")), folder=tmp_path).trial.model == "org/other"


def test_urls_are_left_as_they_are() -> None:
    config = config_of(BASE + "dir: s3://bucket/studies/demo\n", "trial.train_data=s3://bucket/train.jsonl")
    assert config.dir == "s3://bucket/studies/demo"
    assert config.trial.train_data is not None
    assert config.trial.train_data[0].path == "s3://bucket/train.jsonl"


def test_files_are_not_looked_for_when_asked_not_to(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(BASE, encoding="utf-8")
    assert load_config(tmp_path / "sweep.yaml", check_files=False).study == "demo"
    with pytest.raises(ConfigError, match=r"^2 problems were found"):
        load_config(tmp_path / "sweep.yaml")


def test_paths_of_python_are_accepted(tmp_path: Path) -> None:
    write_data(tmp_path)
    data: dict[str, Any] = parse_document(BASE, file="x").data
    data["trial"]["train_data"] = tmp_path / "train.jsonl"
    data["trial"]["eval_data"] = {"dev": tmp_path / "dev.jsonl"}
    config = config_from_dict(data)
    assert config.trial.eval_data["dev"].path == str(tmp_path / "dev.jsonl")


def test_a_bare_setting_is_fixed_and_leaves_the_search_space() -> None:
    config = config_of(BASE, "learning_rate=1e-4")
    assert config.trial.settings["learning_rate"] == 1e-4
    assert list(config.search_space) == ["effective_batch_size"]


def test_a_bare_param_of_a_function_is_fixed() -> None:
    config = config_of(FUNCTION, "rate=0.5", "depth=4", "sampler=grid")
    assert config.trial.settings == {"rate": 0.5, "depth": 4}
    assert config.search_space == {}


def test_a_dimension_takes_the_fixed_setting_away() -> None:
    config = config_of(BASE, "learning_rate=1e-4", "search_space.learning_rate.grid=[1e-6, 3e-6]")
    assert config.search_space["learning_rate"].grid == [1e-6, 3e-6]
    assert "learning_rate" not in config.trial.settings


def test_a_dimensions_kind_replaces_the_other_kinds() -> None:
    config = config_of(
        BASE, "search_space.learning_rate.log_uniform=[1e-6, 1e-4]", "sampler={name: tpe, n_trials: 9}"
    )
    assert config.search_space["learning_rate"].kind == "log_uniform"
    assert config.sampler.n_trials == 9


@pytest.mark.parametrize(
    ("override", "section", "kept"),
    [
        ("trial.budget.epochs=2", "budget", {"epochs": 2.0}),
        ("trial.budget.samples=512", "budget", {"samples": 512}),
        ("rungs.samples=[512]", "rungs", {"samples": [512]}),
    ],
)
def test_of_keys_that_exclude_each_other_the_override_stays(override: str, section: str, kept: Any) -> None:
    data = config_to_dict(config_of(BASE, override))
    assert data.get(section, data["trial"].get(section)) == kept


def test_another_pruners_keys_go_with_its_name_and_none_that_was_overridden() -> None:
    learned = config_to_dict(config_of(BASE))
    ranked = config_from_dict(
        learned, overrides=["pruner.directions=paper", "pruner.keep_frac=0.3"], check_files=False
    )
    assert (ranked.pruner.directions, ranked.pruner.keep_frac) == ("paper", 0.3)
    median = config_from_dict(
        learned,
        overrides=["pruner.name=median", "pruner.signal=loss", "pruner.direction=minimize"],
        check_files=False,
    )
    back = config_from_dict(
        config_to_dict(median), overrides=["pruner.name=early_dynamics"], check_files=False
    )
    assert back.pruner == config_of(BASE).pruner
    with pytest.raises(ConfigError, match=r"`pruner.keep_frac` belongs to `early_dynamics`, not to `nop`"):
        config_from_dict(learned, overrides=["pruner.keep_frac=0.3", "pruner.name=nop"], check_files=False)


def test_rungs_of_two_keys_can_be_overridden_one_by_one() -> None:
    config = config_of(BASE, "rungs.first=512", "rungs.reduction_factor=4")
    assert (config.rungs.first, config.rungs.reduction_factor, config.rungs.fractions) == (512, 4, None)


def test_sections_that_were_left_out_are_made() -> None:
    config = config_of(BASE, "trial.evaluation.at=end", "failures.retries=3", "seed=5")
    assert (config.trial.evaluation.at, config.failures.retries, config.seed) == ("end", 3, 5)


def test_an_item_of_a_list_is_reached_by_its_index() -> None:
    text = replaced(BASE, ("train.jsonl", "[{path: a.jsonl}, {path: b.jsonl}]"))
    config = config_of(text, "trial.train_data.1.limit=10")
    assert [source.limit for source in config.trial.train_data or []] == [None, 10]


@pytest.mark.parametrize("override", ["learning_rate.grid=[1e-3]", "learning_rate={grid: [1e-3]}"])
def test_a_dimension_that_is_overridden_keeps_its_place_among_the_others(override: str) -> None:
    config = config_of(BASE, f"search_space.{override}")
    assert list(config.search_space) == ["learning_rate", "effective_batch_size"]


def test_the_last_override_of_a_key_wins() -> None:
    assert config_of(BASE, "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("learning_rate", r"^override `learning_rate`: An override has the form `key=value`\. Write for"),
        ("=3", r"An override has the form"),
        ("lr=3", r"^override `lr=3`: unknown key `lr`\. Did you mean `learning_rate`\?$"),
        ("learning_rat=3", r"unknown key `learning_rat`\. Did you mean `learning_rate`\?$"),
        (
            "trial.budget.sampels=512",
            r"^override `trial\.budget\.sampels=512`: unknown key `sampels`\. Did you mean",
        ),
        ("trial.budget.samples=many", r"must be a whole number, but got the text `many`"),
        (
            "trial.settings.learning_rate=0",
            r"must be greater than 0, but got 0\. Rates between 1e-6 and 1e-3",
        ),
        (
            "study.name=x",
            r"^override `study\.name=x`: `study` has no keys below it\. Override `study` as a whole",
        ),
        ("trial.train_data.3.limit=1", r"has no keys below it"),
        ("search_space.learning_rate.grid=[1e-4, ", r"^override `.*`: The YAML cannot be read"),
        ("seed=!!python/none x", r"The tag `!!python/none` is not allowed"),
        (
            "search_space=nothing",
            r"^override `search_space=nothing`: The search space `nothing` was found neither",
        ),
    ],
)
def test_a_wrong_override_is_told_with_itself_as_the_place(override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config_of(BASE, override)


def test_problems_of_overrides_and_of_the_file_are_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(replaced(BASE, ("study: demo", "study: a b")), "seed", "seed=-1")
    assert [problem.file for problem in caught.value.problems] == [
        "sweep.yaml",
        "override `seed=-1`",
        "override `seed`",
    ]


SPACE = """\
search_space:
  learning_rate: {grid: [1e-5, 2e-5]}
sampler: {name: tpe, n_trials: 7}
settings: {weight_decay: 0.1, micro_batch_size: 2}
compare: unequal
"""


def without_space(text: str, reference: str, *, sampler: str = "") -> str:
    start, end = text.index("search_space:"), text.index("rungs:")
    return text[:start] + f"search_space: {reference}\n" + sampler + text[end:]


@pytest.mark.parametrize("reference", ["mine", "{file: spaces/mine.yaml}", "spaces/mine.yaml"])
def test_a_search_space_is_read_from_its_file(tmp_path: Path, reference: str) -> None:
    for folder in ("spaces", "search_spaces"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text(SPACE, encoding="utf-8")
    config = config_of(without_space(BASE, reference), folder=tmp_path)
    assert config.search_space["learning_rate"].grid == [1e-5, 2e-5]
    assert config.sampler.n_trials == 7
    assert config.trial.compare == "unequal"
    assert config.trial.settings["weight_decay"] == 0.1


def test_what_the_sweep_file_says_wins_over_the_search_space_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SPACE, encoding="utf-8")
    text = without_space(BASE, "mine", sampler="sampler: grid\n")
    config = config_of(text.replace("  budget", "  compare: equal\n  budget"), folder=tmp_path)
    assert config.sampler.name == "grid"
    assert config.trial.compare == "equal"
    assert config.trial.settings["micro_batch_size"] == 8


def test_a_search_space_is_looked_for_in_the_directories_above(tmp_path: Path) -> None:
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "search_spaces" / "mine.yaml").write_text(SPACE, encoding="utf-8")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert list(config_of(without_space(BASE, "mine"), folder=below).search_space) == ["learning_rate"]


def test_a_problem_of_a_search_space_file_names_that_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "search_space:\n  learning_rate: {grid: [0]}\nsetings: {}\nsettings:\n  weight_decay: -1\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        config_of(without_space(BASE, "mine"), folder=tmp_path)
    assert [str(problem) for problem in caught.value.problems] == [
        "mine.yaml:2: `search_space.learning_rate.grid[0]` must be greater than 0, but got 0. "
        "Choose a larger value.",
        "mine.yaml:3: unknown key `setings`. Did you mean `settings`?",
        "mine.yaml:5: `trial.settings.weight_decay` must be at least 0, but got -1. Choose a larger value.",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "learning_rate: {grid: [1]}",
            r"mine\.yaml:1: A search space file must hold a mapping `search_space`",
        ),
        ("search_space: [", r"mine\.yaml:1: The YAML cannot be read"),
        ("search_space: {}\nsettings: 3", r"mine\.yaml:2: `settings` must be a mapping"),
    ],
)
def test_a_search_space_file_of_another_form_is_told(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "mine.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        config_of(without_space(BASE, "mine"), folder=tmp_path)


def test_an_override_chooses_the_search_space_and_frees_what_was_fixed(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SPACE, encoding="utf-8")
    text = replaced(
        BASE, ("micro_batch_size: 8", "learning_rate: 1e-3"), ("  learning_rate: {grid: [1e-5, 1e-4]}\n", "")
    )
    config = config_of(
        text, "search_space=mine", "search_space.lora_rank.grid=[8, 16]", "method=lora", folder=tmp_path
    )
    assert list(config.search_space) == ["learning_rate", "lora_rank"]
    assert "learning_rate" not in config.trial.settings


@pytest.mark.parametrize(
    "text", [BASE, FUNCTION, replaced(BASE, ("pruner: early_dynamics", "pruner: median"))]
)
def test_a_dumped_config_reads_back_equal(text: str) -> None:
    config = config_of(text)
    dumped = dump_config(config)
    assert parse_config(dumped, file="x", base_dir=Path("/"), check_files=False) == config
    assert dump_config(parse_config(dumped, file="x", base_dir=Path("/"), check_files=False)) == dumped


def test_a_dumped_config_can_still_be_overridden() -> None:
    dumped = dump_config(config_of(BASE))
    config = parse_config(
        dumped, file="x", base_dir=Path("/"), overrides=["learning_rate=3e-5", "seed=9"], check_files=False
    )
    assert config.trial.settings["learning_rate"] == 3e-5
    assert "seed" not in config.trial.settings


rates = st.floats(min_value=1e-12, max_value=1.0, allow_nan=False)
plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)


def test_an_upper_bound_that_no_whole_steps_lead_to_is_no_value() -> None:
    dimension = Dimension(uniform=(0.0, 1.0), step=0.6)

    assert [dimension.is_on_step(value) for value in (0.0, 0.3, 0.6, 1.0)] == [True, False, True, False]
    assert dimension.nearest_step(1.0) == 0.6


@given(
    grid=st.lists(rates, min_size=1, max_size=4, unique=True),
    settings_=st.dictionaries(
        st.text(min_size=1, max_size=10),
        st.recursive(
            plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
        ),
        max_size=4,
    ),
    study=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    metric=st.text(min_size=1, max_size=20),
)
@settings(max_examples=40)
def test_any_config_survives_being_written_and_read(
    grid: list[float], settings_: dict[str, Any], study: str, metric: str
) -> None:
    settings_.pop("rate", None)
    settings_.pop("effective_batch_size", None)
    config = config_from_dict(
        {
            "study": study,
            "metric": metric,
            "direction": "maximize",
            "trial": {"function": "a:b", "budget": {"samples": 10}, "settings": settings_},
            "search_space": {"rate": {"grid": grid}},
        }
    )
    assert parse_config(dump_config(config), file="x", base_dir=Path("/")) == config


def test_a_config_from_python_may_hold_numbers_and_arrays_of_numpy() -> None:
    data: dict[str, Any] = {
        "study": "demo", "metric": "score", "direction": "maximize",
        "trial": {
            "function": "my_code:train", "budget": {"samples": np.int64(640)},
            "settings": {"depth": np.int32(3), "deep": np.bool_(True), "name": np.str_("a")},
        },
        "search_space": {
            "rate": {"grid": list(np.logspace(-3, -1, 3))}, "weight": {"grid": np.array([[1, 2], [3, 4]])},
        },
    }  # fmt: skip

    config = config_from_dict(data, check_files=False)

    assert config.trial.budget.samples == 640
    assert config.trial.settings == {"depth": 3, "deep": True, "name": "a"}
    assert [type(value) for value in config.trial.settings.values()] == [int, bool, str]
    assert config.search_space["rate"].grid == [0.001, 0.01, 0.1]
    assert config.search_space["weight"].grid == [[1, 2], [3, 4]]


@pytest.mark.parametrize("value", [np.longdouble(1), np.datetime64("2026-11-24"), np.array([object()])])
def test_what_of_numpy_no_file_could_hold_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="must be plain data, but got an object of type"):
        config_from_dict({"trial": {"settings": {"x": value}}})
