"""Benchmarks: their config, their numbers side by side, and lm-evaluation-harness on the tiny model."""

import contextlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_fixtures import cli
from report_fixtures import make_config, make_record, make_view
from sweep_files import BASE, config_of
from sweeps import BROUGHT
from trial_functions import scores_its_rate

from sweeper import api
from sweeper.benchmarks.measure import check_benchmarks
from sweeper.benchmarks.one_number import mean_score, rank_means
from sweeper.benchmarks.run import BenchmarkRequest, chosen_trials
from sweeper.benchmarks.task_entry import check_entry
from sweeper.config import dump_config, load_config
from sweeper.config.benchmark_models import BenchmarkSection, TaskBenchmark
from sweeper.errors import ConfigError, NothingToDoError
from sweeper.items import Items, paired, read_items, write_items
from sweeper.records import Origin, TrialState
from sweeper.reporting import write_report
from sweeper.reporting.benchmarks import benchmark_table, benchmarks_json
from sweeper.reporting.status import status_json
from sweeper.study.benchmark_box import BenchmarkBox
from sweeper.study.benchmark_records import BenchmarkRun, Score
from sweeper.study.study import Study

TINY = Path(__file__).resolve().parent.parent / "examples" / "tiny"
OPTIONS = api.LaunchOptions(executor="in-process")
TASKS = """\
benchmarks:
  tasks:
    mmlu: {num_fewshot: 5, limit: 100}
    arc: {task: arc_challenge, metric: acc_norm}
"""
FUNCTION_SWEEP = BROUGHT | {"benchmarks": {"tasks": {"a": {}, "b": {}}}}


def section(**given: Any) -> BenchmarkSection:
    return BenchmarkSection.model_validate(given)


def test_the_section_reads_back_from_its_dump() -> None:
    config = config_of(BASE + TASKS)
    assert config.benchmarks is not None
    assert config.benchmarks.names == ("mmlu", "arc")
    assert config_of(dump_config(config)) == config


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("benchmarks: {}\n", "must name a benchmark in `tasks` or `judged`"),
        ("benchmarks: {tasks: {a: {weight: 2}}}\n", "only read with `benchmarks.score: weighted`"),
        ("benchmarks: {tasks: {a: {}}, top: 2}\n", "`benchmarks.top` is only read with"),
        ("benchmarks: {tasks: {score: {}}}\n", "`score` cannot name a benchmark"),
        ("benchmarks: {tasks: {a: {}}, when: finalists}\n", "`trial.checkpoint.save_model` is false"),
        ("benchmarks: {tasks: {a: {few: 5}}}\n", "unknown key"),
        ("benchmarks: {judged: {a: {questions: q.jsonl, model: m, base_url: x}}}\n", "base_url"),
    ],
)
def test_what_means_nothing_or_cannot_run_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(BASE + text)
    assert told in str(caught.value)


def test_files_of_benchmarks_must_be_there(tmp_path: Path) -> None:
    judged = "judged: {j: {questions: q.jsonl, model: m, base_url: 'http://x/v1'}}"
    (tmp_path / "sweep.yaml").write_text(
        f"{BASE}benchmarks: {{tasks: {{a: {{}}}}, include_path: no, {judged}}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "sweep.yaml")
    assert "`benchmarks.include_path` names `no`" in str(caught.value)
    assert "`benchmarks.judged.j.questions` names `q.jsonl`" in str(caught.value)


def test_a_metric_may_be_a_benchmark_that_every_trial_runs() -> None:
    text = BASE.replace("metric: dev/loss", "metric: bench/score")
    assert config_of(text + TASKS + "  when: completed\n").metric == "bench/score"
    with pytest.raises(ConfigError, match="`metric` must name"):
        config_of(text + TASKS)
    with pytest.raises(ConfigError, match="`metric` must name"):
        config_of(text + TASKS + "  when: completed\n  score: rank_mean\n")


def test_the_mean_and_its_standard_error_are_weighted() -> None:
    ways = section(tasks={"a": {"weight": 3.0}, "b": {}}, score="weighted")
    found = mean_score(ways, {"a": Score(value=0.4, stderr=0.02), "b": Score(value=0.8, stderr=0.04)})
    assert found is not None
    assert found.value == pytest.approx(0.5)
    assert found.stderr == pytest.approx(math.hypot(3 * 0.02, 0.04) / 4)


def test_a_mean_needs_every_benchmark_and_one_direction() -> None:
    plain = section(tasks={"a": {}, "b": {}})
    good, low = Score(value=0.5, stderr=0.1), Score(value=9.0, stderr=0.1, higher_is_better=False)
    assert mean_score(plain, {"a": good}) is None
    assert mean_score(plain, {"a": good, "b": low}) is None


def test_ratings_enter_a_mean_as_tenths() -> None:
    found = mean_score(
        section(tasks={"a": {}, "b": {}}),
        {"a": Score(value=0.5, stderr=0.1), "b": Score(value=7.0, stderr=1.0, scale=10.0)},
    )
    assert found is not None
    assert (found.value, found.stderr) == (pytest.approx(0.6), pytest.approx(math.hypot(0.1, 0.1) / 2))


def test_ranks_know_which_direction_is_better_and_share_ties() -> None:
    def scores(accuracy: float, perplexity: float) -> dict[str, Score]:
        return {
            "a": Score(value=accuracy, stderr=0.1),
            "b": Score(value=perplexity, stderr=0.1, higher_is_better=False),
        }

    models = {
        0: scores(0.9, 9.0),
        1: scores(0.5, 5.0),
        2: scores(0.5, 7.0),
        3: {"a": Score(value=1.0, stderr=0)},
    }
    found = rank_means(section(tasks={"a": {}, "b": {}}, score="rank_mean"), models)
    assert {number: score.value for number, score in found.items()} == {0: 2.0, 1: 1.75, 2: 2.25}


def test_the_best_are_chosen_as_everywhere_and_as_many_as_the_request_or_the_section_says() -> None:
    config = make_config({"learning_rate": {"grid": [1e-4]}}, benchmarks={"tasks": {"a": {}}})
    records = [
        make_record(n, TrialState.COMPLETE, {"learning_rate": 1e-4}, value=value)
        for n, value in enumerate((0.5, 0.9, 0.7, 0.99))
    ]
    records[3].origin = Origin(by="me@here", continues=0)  # it has had more data
    view = make_view(records, config)

    def chosen(of_section: int | None = None, **request: Any) -> list[int]:
        ways = section(tasks={"a": {}}, when="finalists", top=of_section)
        return [one.number for one in chosen_trials(view, ways, BenchmarkRequest(**request))]

    assert chosen() == [1, 2, 0] == [one.number for one in view.ranked]
    assert chosen(2) == [1, 2]
    assert chosen(2, top=1) == [1]
    assert chosen(2, trials=(3,)) == [3]


@pytest.fixture
def measured(tmp_path: Path) -> Study:
    """A study whose trials 0 and 2 were measured after their end."""
    api.launch(FUNCTION_SWEEP | {"dir": str(tmp_path / "s")}, options=OPTIONS, function=scores_its_rate)
    study = Study.open(str(tmp_path / "s"))
    for trial, name, value in ((0, "a", 0.25), (0, "b", 0.75), (2, "a", 0.5)):
        score = Score(value=value, stderr=0.125 if name == "a" else math.nan, facts={"task": name})
        run = BenchmarkRun(trial=trial, benchmark=name, step=None, score=score, identity="x", at="2026-01-01")
        study.benchmark_box.write(run)
    return study


def test_whoever_goes_on_with_a_finished_study_is_told_which_finalists_are_not_measured(
    measured: Study,
) -> None:
    place = str(measured.directory)
    with pytest.raises(NothingToDoError) as asked_by_nobody:
        api.resume(place, options=OPTIONS)
    assert "not measured" not in str(asked_by_nobody.value)

    told = rf"trials not measured yet: 2, 1\. `sweeper benchmark {place}` measures them"
    with pytest.raises(NothingToDoError, match=told):
        api.resume(place, ["benchmarks.when=finalists"], options=OPTIONS)
    with pytest.raises(NothingToDoError, match=told):
        api.resume(place, options=OPTIONS)


def test_results_are_shown_in_report_and_status(measured: Study, tmp_path: Path) -> None:
    view = measured.view()
    trials = status_json(view)["trials"]
    assert trials[0]["benchmarks"]["a"] == {"value": 0.25, "stderr": 0.125, "higher_is_better": True}
    assert trials[0]["benchmarks"]["score"]["value"] == 0.5
    assert "benchmarks" not in trials[1]
    assert "score" not in trials[2]["benchmarks"], "benchmark b is missing"

    write_report(view, tmp_path / "report")
    assert "| 0 | 0.25 ± 0.125 | 0.75 | 0.5 |" in (tmp_path / "report" / "report.md").read_text()
    page = (tmp_path / "report" / "index.html").read_text()
    assert '<h2 id="benchmarks">Benchmarks</h2>' in page
    told = json.loads((tmp_path / "report" / "report.json").read_text())["benchmarks"]
    assert told["models"][0]["benchmarks"]["a"]["facts"] == {"task": "a"}


def test_a_later_result_replaces_an_earlier_one_and_a_checkpoint_stands_beside(measured: Study) -> None:
    run = measured.benchmark_box.read()[0]
    better = Score(value=0.9, stderr=0.1)
    for step in (None, 64):
        measured.benchmark_box.write(
            BenchmarkRun(trial=0, benchmark="a", step=step, score=better, identity="y", at=run.at)
        )
    table = benchmark_table(measured.view())
    assert table is not None
    assert [(row.trial, row.step, row.scores["a"].value) for row in table.rows] == [
        (0, 64, 0.9), (0, None, 0.9), (2, None, 0.5),
    ]  # fmt: skip


def test_without_benchmarks_nothing_is_said_of_them(tmp_path: Path) -> None:
    view = api.launch(BROUGHT | {"dir": str(tmp_path / "s")}, options=OPTIONS, function=scores_its_rate)
    write_report(view, tmp_path / "report")
    assert "Benchmarks" not in (tmp_path / "report" / "index.html").read_text()
    assert benchmarks_json(view)["models"] == []
    assert cli("benchmark", tmp_path / "s").code == 2


@pytest.mark.train
def test_that_a_models_own_code_is_run_is_said_before(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps({"question_id": 1, "turns": ["Who?"]}) + "\n")
    judged = {"questions": str(tmp_path / "q.jsonl"), "base_url": "http://127.0.0.1:9/v1", "model": "m"}
    sweep = FUNCTION_SWEEP | {"dir": str(tmp_path / "s"), "benchmarks": {"judged": {"mt": judged}}}
    sweep["trial"] = sweep["trial"] | {"trust_remote_code": True}
    api.launch(sweep, options=OPTIONS, function=scores_its_rate)
    (tmp_path / "s/trials/0/model").mkdir(parents=True)

    run = cli("benchmark", tmp_path / "s", "--trial", "0")

    assert run.code == 6, run.err  # the directory is empty
    assert run.err.startswith("the study trusts the code that its models bring: it is run in this process\n")


def test_a_damaged_result_is_left_alone(measured: Study, caplog: pytest.LogCaptureFixture) -> None:
    measured.benchmark_box._storage.set_study_user_attr(measured._id, "sweeper:bench:9::a", "{}")
    assert len(measured.benchmark_box.read()) == 3
    assert "cannot be read and is left alone" in caplog.text
    assert isinstance(measured.benchmark_box, BenchmarkBox)


def test_items_are_paired_by_id_whatever_their_order(tmp_path: Path) -> None:
    first = Items(
        source="dev", ids=("x", "y", "z"), measures={"loss": (1.0, math.nan, 3.0)}, lower_is_better=("loss",)
    )
    second = Items(source="dev", ids=("z", "x", "y"), measures={"loss": (30.0, 10.0, 20.0)})
    write_items(tmp_path, first)
    kept = read_items(tmp_path)["dev"]
    assert (kept.ids, kept.lower_is_better) == (first.ids, ("loss",))
    assert paired(kept, second, "loss") == ([1.0, 3.0], [10.0, 30.0])


def entry(kind: str, name: str, **cfg: Any) -> Any:
    """Return what the harness's index holds of a task."""
    return SimpleNamespace(kind=SimpleNamespace(name=kind), name=name, cfg=cfg, tags=set(cfg.pop("tags", ())))


@pytest.mark.parametrize(
    ("kind", "cfg", "told"),
    [
        ("TAG", {"tags": ["b", "a"]}, "names the tag `t` of .* Name each of what it holds instead: `a`, `b`"),
        (
            "GROUP",
            {"task": ["a", {"task": "b"}, {"group": "c", "task": ["d"]}, {"group": "e"}]},
            "names the group `t` .*`a`, `b`, `d`, `e`",
        ),
    ],
)
def test_names_of_several_tasks_without_a_number_are_refused_with_their_members(
    kind: str, cfg: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=rf"`benchmarks\.tasks\.mine` {told}"):
        check_entry(entry(kind, "t", **cfg), TaskBenchmark(task="t"), "mine")


ACC = [{"metric": "acc"}, {"metric": "acc_norm"}]


@pytest.mark.parametrize(
    ("kind", "cfg", "metric", "is_known"),
    [
        ("TASK", {"metric_list": ACC}, "acc_norm", True),
        ("TASK", {"metric_list": ACC}, "acc_norm,none", True),
        ("TASK", {"metric_list": ACC}, "acc_nrom", False),
        ("TASK", {"metric_list": ACC, "filter_list": [{"name": "strict"}]}, "acc,none", False),
        ("GROUP", {"aggregate_metric_list": ACC[0]}, "acc,none", True),
        ("GROUP", {"aggregate_metric_list": ACC[0]}, "acc_norm", False),
        ("TASK", {"metric_list": ACC, "process_results": "x.f"}, "anything", True),
        ("TASK", {"metric_list": [{"metric": "/x/utils.rouge"}]}, "anything", True),
        ("PY_TASK", {"metric_list": ACC}, "anything", True),
        ("TASK", {}, "anything", True),
    ],
)
def test_a_metric_is_refused_before_the_task_runs_where_its_file_lists_others(
    kind: str, cfg: dict[str, Any], metric: str, is_known: bool
) -> None:
    refused = (
        contextlib.nullcontext() if is_known else pytest.raises(ConfigError, match=r"gives `acc.* Choose")
    )
    with refused:
        check_entry(entry(kind, "t", **cfg), TaskBenchmark(metric=metric), "t")


@pytest.mark.train
def test_tasks_are_looked_up_before_anything_starts(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="the extra `lm-eval` is not installed")
    task = "task: {name}\ntag: mine\noutput_type: generate_until\nmetric_list: [{{metric: exact_match}}]\n"
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(task.format(name=name))
    (tmp_path / "both.yaml").write_text("group: both\ntask: [one, two]\n")

    check_benchmarks(section(tasks={"one": {"metric": "exact_match"}}, include_path=str(tmp_path)))
    for name in ("mine", "both"):
        with pytest.raises(
            ConfigError, match=rf"`{name}` of .* Name each of what it holds instead: `one`, `two`"
        ):
            check_benchmarks(section(tasks={name: {}}, include_path=str(tmp_path)))
    with pytest.raises(ConfigError, match="but the task `two` gives `exact_match,none`"):
        check_benchmarks(section(tasks={"x": {"task": "two", "metric": "acc"}}, include_path=str(tmp_path)))


# -- lm-evaluation-harness itself ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short trials of the tiny model that keep model and checkpoint and measure themselves."""
    pytest.importorskip("lm_eval", reason="the extra `lm-eval` is not installed")
    root = tmp_path_factory.mktemp("harness")
    sweep = f"""\
study: tiny
metric: bench/score
direction: maximize
trial:
  model: {TINY}/model
  train_data: {TINY}/data/train.jsonl
  eval_data: {{new: {TINY}/data/eval_new.jsonl}}
  budget: {{samples: 768}}
  evaluation: {{at: end, batch_size: 96, max_new_tokens: 16}}
  checkpoint: {{save_model: true, at: [384]}}
  settings: {{effective_batch_size: 32, micro_batch_size: 32, max_length: 64}}
search_space:
  learning_rate: {{grid: [1e-4, 3e-3]}}
rungs: {{samples: [384]}}
pruner: nop
resources: {{slots: 1, gpus_per_trial: 0}}
benchmarks:
  include_path: {TINY}/tasks
  apply_chat_template: true
  batch_size: 96
  when: completed
  tasks:
    new: {{task: tiny_new}}
    tiny_kept: {{}}
"""
    (root / "sweep.yaml").write_text(sweep)
    environment = {"SWEEPER_CACHE": str(root / "cache")}
    _sweeper(
        "launch", root / "sweep.yaml", "--dir", root / "tiny", "--executor", "in-process", env=environment
    )
    return root / "tiny"


def _sweeper(*words: Any, env: dict[str, str] | None = None) -> str:
    """Run a command in a process of its own, offline: the harness brings many a warning of its packages."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from sweeper.cli import main; main()", *map(str, words)]
    done = subprocess.run(command, env=os.environ | offline | (env or {}), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_a_trial_s_own_benchmarks_are_its_metrics_and_may_be_the_study_s(tiny_study: Path) -> None:
    view = api.load_study(str(tiny_study))
    for record in view.records:
        assert record.value == record.metrics["bench/score"]
        assert record.metrics["bench/new"] == pytest.approx(record.metrics["new/exact_match"], abs=0.02)
        assert 0.0 < record.metrics["bench/new/stderr"] < 0.1 or record.metrics["bench/new"] in (0.0, 1.0)
    items = read_items(tiny_study / "trials" / "1")
    assert sum(items["bench/new"].measures["exact_match"]) / 96 == pytest.approx(
        view.records[1].metrics["bench/new"]
    )


@pytest.mark.slow
def test_the_numbers_equal_those_of_lm_eval_s_own_command_on_the_exported_model(
    tiny_study: Path, tmp_path: Path
) -> None:
    told = json.loads(_sweeper("benchmark", tiny_study, "--trial", 1, "--again", "--json"))
    (ours,) = [model for model in told["models"] if model["trial"] == 1]
    own = api.load_study(str(tiny_study)).records[1].metrics
    _sweeper("export", tiny_study, "--trial", 1, "--model", tmp_path / "model")
    command = [
        Path(sys.executable).with_name("lm_eval"), "run", "--model", "hf",
        "--model_args", f"pretrained={tmp_path / 'model'}", "--tasks", "tiny_new,tiny_kept",
        "--include_path", TINY / "tasks", "--apply_chat_template", "--batch_size", "96", "--device", "cpu",
        "--output_path", tmp_path / "out.json",
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), env=os.environ | offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (out,) = tmp_path.rglob("out*.json")
    theirs = json.loads(out.read_text())["results"]
    for name, task in (("new", "tiny_new"), ("tiny_kept", "tiny_kept")):
        value, stderr = (theirs[task][f"exact_match{part},none"] for part in ("", "_stderr"))
        found = ours["benchmarks"][name]
        assert (found["value"], found["stderr"]) == (value, stderr)
        assert (own[f"bench/{name}"], own[f"bench/{name}/stderr"]) == (value, stderr)


@pytest.mark.slow
def test_a_checkpoint_is_measured_and_a_second_call_measures_nothing(tiny_study: Path) -> None:
    words = (
        "benchmark",
        tiny_study,
        "--trial",
        1,
        "--checkpoint",
        12,
        "benchmarks.tasks={new: {task: tiny_new}}",
    )
    first = json.loads(_sweeper(*words, "--json"))
    (row,) = [model for model in first["models"] if model["checkpoint"] == 12]
    final = next(model for model in first["models"] if model["trial"] == 1 and model["checkpoint"] is None)
    assert row["benchmarks"]["new"]["value"] != final["benchmarks"]["new"]["value"]
    assert json.loads(_sweeper(*words, "--json")) == first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--trial", "1", "--checkpoint", "7"), "has no checkpoint of step 7: it has those of steps 12"),
        (("--trial", "9"), "has no trial 9: its trials are"),
        (("benchmarks.tasks={tiny_nwe: {}}",), "has no task `tiny_nwe`, but `tiny_new`"),
        (("benchmarks.tasks={tiny_new: {metric: acc}}",), "gives `exact_match,none`"),
    ],
)
def test_what_cannot_be_measured_is_told(words: tuple[str, ...], told: str, tiny_study: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from sweeper.cli import main; main()",
        "benchmark",
        str(tiny_study),
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (2, 4), done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
