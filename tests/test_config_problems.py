"""What a wrong sweep file is told: all of it, each with its line, value, rule and remedy."""

import os
import re
from pathlib import Path

import pytest
from config_problem_cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_files import BASE, FUNCTION, config_of, replaced, write_data

from sweeper.config import config_from_dict, load_config, local_paths
from sweeper.errors import ConfigError


def problems_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config_of(text, *overrides)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("base", "edits", "told"), CASES, ids=[" + ".join(e[1] for e in c[1]) for c in CASES]
)
def test_a_wrong_file_is_told_with_line_value_rule_and_remedy(
    base: str, edits: list[tuple[str, str]], told: list[str]
) -> None:
    assert problems_of(replaced(base, *edits)) == told


def test_an_override_is_named_without_the_password_of_its_url() -> None:
    assert problems_of(FUNCTION, "trial.checkpoint.url=ftp://u:s3cret@h/x") == [
        "override `trial.checkpoint.url=ftp://u:***@h/x`: `trial.checkpoint.url` must not hold a password, since the "
        "study keeps and shows it. Give the password by the store's own environment variables, or by fsspec's "
        "configuration files.",
    ]


def test_a_url_may_name_a_user_or_a_container_of_a_store() -> None:
    for url in ("sftp://me@h/x", "abfs://box@account.dfs.core.windows.net/x"):
        assert config_of(FUNCTION, f"trial.checkpoint.url={url}").trial.checkpoint.url == url


def test_both_right_files_are_accepted() -> None:
    assert config_of(BASE).study == config_of(FUNCTION).study == "demo"


def test_a_large_directory_is_looked_into_only_until_a_data_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    home = tmp_path / "home"
    (home / "a" / "b").mkdir(parents=True)
    write_data(home)  # beside the directories, whatever lies in them
    real = os.scandir
    listed: list[str] = []
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or real(path))
    text = replaced(BASE, ("model: org/model", f"model: {tmp_path}"), ("train.jsonl", "./home"))
    config_of(text, folder=tmp_path, check_files=True)
    assert [path for path in listed if path.startswith(str(home))] == [str(home)]

    monkeypatch.setattr(local_paths, "_MAX_LOOKS", 2)
    for name in ("train.jsonl", "dev.jsonl"):
        (home / name).rename(home / "a" / "b" / name)
    with pytest.raises(
        ConfigError, match=r"`\./home` .* without any file .* the first 2 are looked at\)\. Name one"
    ):
        config_of(text, folder=tmp_path, check_files=True)


@pytest.mark.parametrize(
    "section",
    [
        "sampler: {name: tpe, n_trials: 9, options: {n_startup_trials: 200, multivariate: true, prior_weight: 2}}",
        "sampler: {name: cmaes, n_trials: 9, options: {x0: {rate: 0.4}, sigma0: 1, popsize: 6}}",
        "sampler: {name: qmc, n_trials: 9, options: {qmc_type: halton, scramble: true}}",
        "sampler: {name: gp, n_trials: 9, options: {n_startup_trials: 3}}",
        "pruner: {name: hyperband, options: {max_resource: 10, bootstrap_count: 2}}",
        "pruner: {name: successive_halving, options: {min_resource: auto, reduction_factor: 2}}",
        "pruner: {name: patient, options: {patience: 2, wrapped_pruner: {name: percentile, percentile: 25}}}",
        "pruner: {name: patient, options: {patience: 2, min_delta: 1, wrapped_pruner: 'mine:Pruner'}}",
        "pruner: {name: threshold, options: {upper: 2, lower: null}}",
    ],
)
def test_options_of_the_right_kind_are_accepted(section: str) -> None:
    key = section.partition(":")[0]
    text = FUNCTION.replace("sampler: {name: tpe, n_trials: 10}\n", "") if key == "sampler" else FUNCTION
    text += section + "\n"
    assert getattr(config_of(text), key).options


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("trial.metrics={path: x}", "`trial.metrics.path` must be a mapping, but got the text `x`"),
        (
            "trial.metrics={score: {path: x}}",
            "`trial.metrics.score.path` must be a number, but got the text `x`",
        ),
        ("trial.eval_data={path: 3}", "`trial.eval_data.path` must be a mapping, but got 3"),
        ("search_space=" + "x" * 5000, "cannot be looked for: File name too long. Name a file or a shipped"),
        ("trial.checkpoint.max_gb=1e300", "`trial.checkpoint.max_gb` must be at most"),
        ("trial.checkpoint.size_gb=1e300", "`trial.checkpoint.size_gb` must be at most"),
        ("seed=0x" + "f" * 5000, "cannot be read as int. Correct it"),
        ("learning_rate=1" + "0" * 320, "cannot be read as int. Correct it"),
        ("points.²=1", "`points` is a list of 1, counted from 0, so that this names none of them."),
        ("points." + "9" * 5000 + "=1", "`points` is a list of 1, counted from 0"),
        ("points.1=1", "`points` is a list of 1, counted from 0"),
        (
            "trial..settings=1",
            "The key `trial..settings` has an empty part. Write names with one `.` between them.",
        ),
        ("seed", "An override has the form `key=value`. Write for example `seed=1`."),
        (r'study="\ud800"', r"The text `\ud800` holds half a character"),
        (r'search_space={"\ud800": {grid: [1]}}', r"The text `\ud800` holds half a character"),
        (r'study="a\nb"', r"but got the text `a\nb`."),
    ],
    ids=lambda text: text[:30],
)
def test_an_odd_override_is_told_in_one_line_of_bounded_length(override: str, told: str) -> None:
    points = "points: [{learning_rate: 1e-5, effective_batch_size: 32}]\n"
    (problem,) = problems_of(BASE + points, override)
    assert told in problem
    assert len(problem.encode().splitlines()) == 1
    assert len(problem) < 800


@pytest.mark.parametrize(
    "dimension",
    [
        "{uniform: [0, 1e308], step: 0.25}",
        "{uniform: [-1e308, 1e308]}",
        "{int: [0, 1000000000000000000000000000000], step: 2}",
    ],
)
def test_a_range_that_floats_cannot_count_is_refused(dimension: str) -> None:
    (problem,) = problems_of(FUNCTION, f"search_space.rate={dimension}")
    assert "is too wide to draw from, or has too many steps" in problem


@pytest.mark.parametrize(
    ("base", "override", "place"),
    [
        (FUNCTION, "trial.settings={a: .nan}", "trial.settings.a"),
        (
            FUNCTION,
            "search_space.rate={choice: [{deep: [1, -.inf]}, 2]}",
            "search_space.rate.choice[0].deep[1]",
        ),
        (BASE, "lr_scheduler_kwargs={num_cycles: .inf}", "trial.settings.lr_scheduler_kwargs.num_cycles"),
        (BASE, "learning_rate=.nan", "trial.settings.learning_rate"),
        (BASE, "pruner={name: 'my:Pruner', options: {lower: .nan}}", "pruner.options.lower"),
        (BASE, "pruner={name: threshold, options: {upper: .nan}}", "pruner.options.upper"),
    ],
)
def test_no_value_at_any_depth_may_be_nan_or_infinite(base: str, override: str, place: str) -> None:
    (problem,) = problems_of(base, override)
    assert f"`{place}` must be a finite number, but got " in problem


@pytest.mark.parametrize(
    ("base", "override", "told"),
    [
        (
            BASE,
            "search_space={weight_decay: 0.1}",
            "Write `{grid: [...]}`, or fix the value in `trial.settings`.",
        ),
        (BASE, "search_space={weight_decay: [0, 0.1]}", "Write a list of values as `{grid: [...]}`."),
        (
            BASE,
            "resources=[1]",
            "`resources` must be a mapping, but got [1]. Write `key: value` lines below it.",
        ),
        (BASE, "seed=1000000000000", "`seed` must be less than 2147483648, but got 1000000000000."),
        (FUNCTION, "trial=[]", "`trial` must be a mapping, but got []. Write `key: value` lines below it."),
    ],
)
def test_the_remedy_is_one_for_the_place(base: str, override: str, told: str) -> None:
    (problem,) = problems_of(base, override)
    assert told in problem


def test_two_spellings_of_one_value_are_refused_but_not_true_beside_1() -> None:
    told = problems_of(BASE, "search_space.replay_frac={grid: [null, 0.0]}")[0]
    assert "`search_space.replay_frac.grid` holds nothing and 0.0, which mean the same." in told
    assert config_of(FUNCTION, "search_space.rate={choice: [1, true, null, 0]}").search_space["rate"].choice


def test_a_function_without_an_effective_batch_gives_the_sizes_its_own_meaning() -> None:
    text = replaced(FUNCTION, ("{depth: 3}", "{micro_batch_size: half, effective_batch_size: null}"))
    assert config_of(text).trial.settings["micro_batch_size"] == "half"


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    text = replaced(
        BASE,
        ("direction: minimize", "direction: max"),
        ("budget: {samples: 8192}", "budget: {samples: 0}"),
        ("micro_batch_size: 8", "mikro_batch_size: 8"),
        ("grid: [32, 128]", "grid: [32, 60]"),
        ("fractions: [0.1, 0.3]", "fractions: [0.3, 0.1]"),
        ("gpus_per_trial: 1", "gpus_per_trial: 1.5"),
    )
    told = problems_of(text)
    assert [int(re.match(r"sweep\.yaml:(\d+):", line)[1]) for line in told] == [3, 8, 9, 14, 16]  # type: ignore[index]


def test_a_broken_value_is_not_told_twice_by_a_rule_that_needs_it() -> None:
    told = problems_of(replaced(BASE, ("budget: {samples: 8192}", "budget: {samples: -1}")))
    assert told == [
        "sweep.yaml:8: `trial.budget.samples` must be at least 1, but got -1. Choose a larger value."
    ]


def test_a_misspelt_key_counts_as_the_one_that_was_meant() -> None:
    told = problems_of(replaced(BASE, ("budget: {samples: 8192}", "budget: {sample: 8192}")))
    assert told == ["sweep.yaml:8: unknown key `sample`. Did you mean `samples`?"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "metric: dev/loss",
            "learning_rate: 1e-4\nmetric: dev/loss",
            "It belongs in `trial.settings`; move it there.",
        ),
        (
            "pruner: early_dynamics",
            "pruner: early_dynamics\nlr: 1",
            "Did you mean `learning_rate`? It belongs in",
        ),
        (
            "settings: {micro",
            "settings: {per_device_train_batch_size: 4, micro",
            "Did you mean `micro_batch_size`?",
        ),
        (
            "sampler: grid",
            "sampler: {kind: grid}",
            "unknown key `kind`. Allowed: `name`, `n_trials` and `options`.",
        ),
    ],
)
def test_an_unknown_key_is_told_what_was_meant_or_where_it_belongs(old: str, new: str, told: str) -> None:
    assert any(told in line for line in problems_of(replaced(BASE, (old, new))))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "study: [1,\nmetric: x",
            r"^sweep\.yaml:2: The YAML cannot be read: .* Correct the text at this place\.$",
        ),
        ("study:\n\t- b", r"^sweep\.yaml:2: The YAML cannot be read: .*'\\t' that cannot start any token"),
        ("study: 'x", r"^sweep\.yaml:1: The YAML cannot be read: .*unexpected end of stream"),
        ("study: *x", r"^sweep\.yaml:1: The YAML cannot be read: found undefined alias 'x'"),
        (
            "\nstudy: a\x00",
            r"^sweep\.yaml:2: The YAML cannot be read: it holds the control character U\+0000\. Remove it",
        ),
        ("--- {a: 1}\n--- {b: 1}", r"^sweep\.yaml:2: The YAML cannot be read: expected a single document"),
        (
            "study: a\nstudy: b",
            r"^sweep\.yaml:2: The key `study` stands twice in one mapping, first in line 1\. Remove",
        ),
        (
            "a: !!python/name:os.system x",
            r"^sweep\.yaml:1: The tag `!!python/name:os.system` is not allowed.*Remove",
        ),
        (
            "a: !!python/object/apply:os.system [x]",
            r"The tag `!!python/object/apply:os.system` is not allowed",
        ),
        ("a: 1\nb: !mine {c: d}", r"^sweep\.yaml:2: The tag `!mine` is not allowed"),
        ("a: !!set {b, c}", r"The tag `!!set` is not allowed"),
        ("1: a", r"^sweep\.yaml:1: A key must be text, but got 1\. Put the key in quotes\."),
        ("? [a]\n: b", r"A key must be text, but got a list or mapping"),
        ("a: !!int x", r"`x` cannot be read as int\. Correct it, or put it in quotes to make it text\."),
        ("%YAML 1.1\n---\na: yes", r"^sweep\.yaml:1: The file asks for YAML 1\.1; only YAML 1\.2 is read\."),
        ("a: &a [*a]", r"An alias stands inside its own anchor"),
        ("a: &a\n  <<: *a", r"^sweep\.yaml:1: A merge key `<<` must name other mappings"),
        ("a:\n  <<: 3", r"A merge key `<<` must name other mappings"),
        ("[" * 600, r"The YAML is nested too deeply\. Flatten it\."),
        ("", r"^sweep\.yaml:1: A sweep file must be a mapping of sections, but it is empty\.$"),
        ("- study: a", r"^sweep\.yaml:1: A sweep file must be a mapping of sections, but it holds \["),
    ],
)
def test_text_that_is_no_plain_yaml_is_refused_with_its_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config_of(text)


def test_syntax_errors_are_told_alone() -> None:
    assert len(problems_of("study: 5\nwrong: [1,\n")) == 1


def test_every_repeated_key_and_tag_is_told() -> None:
    assert len(problems_of("a: 1\na: 2\nb: !x 3\nc: {d: 1, d: 2}")) == 3


def test_aliases_of_aliases_are_refused_before_they_fill_the_memory() -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match=r"more than 100,000 values once its aliases are expanded"):
        config_of("l0: &l0 [x, x]\n" + "\n".join(levels))


def test_merge_keys_of_merge_keys_are_refused_before_they_fill_the_memory() -> None:
    levels = [f"l{n}: &l{n}\n  <<: [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match=r"more than 100,000 values"):
        config_of("l0: &l0 {x: 1}\n" + "\n".join(levels))


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no file `.*nothing\.yaml`\. Check the path"):
        load_config(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match=r"is a directory\. Name the sweep file in it"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("study: é".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: The file is no UTF-8 text: byte 7 cannot be read"):
        load_config(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * 2_000_001)
    with pytest.raises(ConfigError, match=r"is larger than 2,000,000 bytes"):
        load_config(tmp_path / "large.yaml")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "model: org/model",
            "model: ./model",
            r"sweep\.yaml:5: `trial\.model` names `\./model` .*, which does not exist",
        ),
        (
            "train.jsonl",
            "trian.jsonl",
            r"sweep\.yaml:6: `trial\.train_data` names `trian\.jsonl` .* does not exist",
        ),
        (
            "{dev: dev.jsonl}",
            "{dev: empty.jsonl}",
            r"`trial\.eval_data\.dev` names `empty\.jsonl` .*, which is empty",
        ),
        (
            "{dev: dev.jsonl}",
            "{dev: {path: ./d}}",
            r"`trial\.eval_data\.dev\.path` names `\./d` .*does not exist",
        ),
        (
            "train.jsonl",
            "./folder",
            r"names `\./folder` .*, a directory without any file of \.jsonl, \.ndjson, \.json, \.parquet",
        ),
        (
            "model: org/model",
            "model: ./train.jsonl",
            r"names `\./train\.jsonl`, which is a file\. Name the model's dir",
        ),
        (
            "model: org/model",
            "model: org/model\n  chat_template: chat.jinja",
            r":6: `trial\.chat_template` names",
        ),
    ],
)
def test_local_paths_must_be_there(tmp_path: Path, old: str, new: str, told: str) -> None:
    write_data(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=told) as caught:
        config_of(replaced(BASE, (old, new)), folder=tmp_path, check_files=True)
    assert len(caught.value.problems) == 1


def test_a_config_from_python_is_told_without_a_place() -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict({"study": "a", "metric": "m", "direction": "up", "trial": {}, "search_space": {}})
    assert "`direction` must be one of `minimize` and `maximize`" in str(caught.value)
    assert all(problem.file is None for problem in caught.value.problems)


def test_a_config_from_python_must_be_plain_data() -> None:
    with pytest.raises(
        ConfigError, match=r"`trial\.settings\.x` must be plain data, but got an object of type object"
    ):
        config_from_dict({"trial": {"settings": {"x": object()}}})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=10,
    ),
    st.sampled_from(
        [
            *(
                "study",
                "metric",
                "direction",
                "trial",
                "search_space",
                "sampler",
                "rungs",
                "pruner",
                "resources",
            ),
            *("trial.budget", "trial.settings", "trial.train_data", "trial.eval_data", "trial.metrics"),
            *("trial.evaluation", "trial.evaluation.at", "trial.function", "trial.model", "trial.checkpoint"),
            *("trial.settings.learning_rate", "sampler.options", "pruner.signals", "pruner.options"),
            *("search_space.learning_rate", "search_space.effective_batch_size.grid"),
        ]
    ),
)
@settings(max_examples=100)
def test_whatever_stands_in_a_place_is_accepted_or_told(value: object, place: str) -> None:
    data = {
        "study": "demo",
        "metric": "dev/loss",
        "direction": "minimize",
        "trial": {
            "model": "org/model",
            "train_data": "train.jsonl",
            "eval_data": {"dev": "dev.jsonl"},
            "budget": {"samples": 8192},
        },
        "search_space": {
            "learning_rate": {"grid": [1e-5, 1e-4]},
            "effective_batch_size": {"grid": [32, 128]},
        },
    }
    holder = data
    *parents, last = place.split(".")
    for key in parents:
        holder = holder.setdefault(key, {})  # type: ignore[assignment,attr-defined]
    holder[last] = value  # type: ignore[assignment]
    try:
        config_from_dict(data, check_files=False)
    except ConfigError as error:
        told = [problem.message for problem in error.problems]
    else:
        told = ["Accepted."]
    assert all(message.endswith((".", "?")) for message in told)
