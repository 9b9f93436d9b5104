"""lm-evaluation-harness: one model, some of its tasks. Here alone is lm_eval imported."""

import contextlib
import functools
import hashlib
import importlib.util
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from sweeper.benchmarks.loaded import LoadedModel, Measured
from sweeper.benchmarks.task_entry import check_entry, members, no_such_metric
from sweeper.config.benchmark_models import BENCH, BenchmarkSection, TaskBenchmark
from sweeper.errors import ConfigError, SweeperError, named_line
from sweeper.extras import install_command
from sweeper.items import Items
from sweeper.looking import paths_below
from sweeper.study.benchmark_records import Score

EXTRA = "lm-eval"
_TASK_FILES = (".yaml", ".yml", ".py", ".json", ".jsonl")


def check_harness() -> None:
    """Refuse to go on without lm-evaluation-harness.

    Raises:
        ConfigError: With the extra that brings it.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            "`benchmarks.tasks` needs lm-evaluation-harness, which is not installed. Install it with "
            f"`{install_command(EXTRA)}` where the benchmarks run, or leave the tasks out."
        )


def load_lm(loaded: LoadedModel, section: BenchmarkSection) -> Any:
    """Return the harness's view of a model."""
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it recommends chat templates by the model's name
    return HFLM(
        pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=section.batch_size,
        mixed_precision_dtype=loaded.autocast_dtype,
    )  # fmt: skip


def run_tasks(loaded: LoadedModel, section: BenchmarkSection, names: Sequence[str]) -> dict[str, Measured]:
    """Measure a model with some of the section's tasks.

    Raises:
        ConfigError: If a task is not there, or has no such metric.
        SweeperError: If the harness fails.
    """
    manager = _task_manager(section, names)
    lm = load_lm(loaded, section)
    return {name: _run(lm, section, name, manager) for name in names}


def task_files_hash(section: BenchmarkSection) -> str | None:
    """Return a hash of the user's own task files; None where there are none."""
    if section.include_path is None:
        return None
    root, digest = Path(section.include_path), hashlib.sha256()
    for path in (path for path in paths_below(root, skips_closed=True) if path.suffix in _TASK_FILES):
        digest.update(f"{path.relative_to(root)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def check_tasks(section: BenchmarkSection) -> None:
    """Find out whether the harness has the section's tasks and metrics, as far as it says so before it runs one.

    Raises:
        ConfigError: If it has not, or a name stands for several tasks that give no number together.
    """
    _task_manager(section, list(section.tasks))


def _task(section: BenchmarkSection, name: str) -> str:
    return section.tasks[name].task or name


def _task_manager(section: BenchmarkSection, names: Sequence[str]) -> Any:
    """Return a manager that knows the benchmarks' tasks, which it has checked."""
    manager = _manager_with(section, [_task(section, name) for name in names])
    for name in names:
        check_entry(manager.task_index[_task(section, name)], section.tasks[name], name)
    return manager


def _manager_with(section: BenchmarkSection, tasks: Sequence[str]) -> Any:
    files = task_files_hash(section)
    if section.include_path is not None:
        own = _indexed(section.include_path, files, with_defaults=False)
        if all(_is_whole(task, own.task_index) for task in tasks):
            return own
    manager = _indexed(section.include_path, files, with_defaults=True)
    for task in tasks:
        if task not in manager.task_index:
            near = ", ".join(f"`{name}`" for name in _near(task, manager.task_index))
            raise ConfigError(
                f"lm-evaluation-harness {metadata.version('lm_eval')} has no task `{task}`"
                f"{f', but {near}' if near else ''}. Correct `benchmarks.tasks`; `lm_eval ls tasks` lists them, and "
                "`benchmarks.include_path` names a directory with your own."
            )
    return manager


@functools.lru_cache(maxsize=4)
def _indexed(include_path: str | None, files: str | None, *, with_defaults: bool) -> Any:
    """Look through the task files, of which the harness itself brings 15,000: 20 s (2 cores, November 2026).

    `files` is the hash of the user's own, so that changed ones are read again.
    """
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include_path, include_defaults=with_defaults)


def _is_whole(task: str, index: Mapping[str, Any]) -> bool:
    """Whether a task is in an index with all that it consists of."""
    return task in index and all(member in index for member in members(index[task]))


def _near(name: str, known: Mapping[str, Any]) -> list[str]:
    import difflib

    return difflib.get_close_matches(name, list(known), n=3)


def _run(lm: Any, section: BenchmarkSection, name: str, manager: Any) -> Measured:
    import lm_eval

    entry = section.tasks[name]
    task = _task(section, name)
    try:
        with _few_words():
            results: Mapping[str, Any] = lm_eval.simple_evaluate(
                model=lm, tasks=[task], num_fewshot=entry.num_fewshot, limit=entry.limit, task_manager=manager,
                apply_chat_template=section.apply_chat_template,
            )  # fmt: skip
    except Exception as error:
        raise SweeperError(
            f"The benchmark `{name}` (task `{task}` of lm-evaluation-harness) failed with "
            f"{named_line(error)}. Try the task alone: "
            f"`lm_eval run --model hf --model_args pretrained=MODEL --tasks {task} --limit 2`."
        ) from error
    return _measured(results, entry, name, task)


@contextlib.contextmanager
def _few_words() -> Iterator[None]:
    """Keep transformers from a warning per batch about the two lengths that the harness sets (0.4.13)."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _measured(results: Mapping[str, Any], entry: TaskBenchmark, name: str, task: str) -> Measured:
    row = results["results"][task]
    key = _metric_key(row, entry, name, task)
    metric, _, chosen_filter = key.partition(",")
    stderr = row.get(f"{metric}_stderr,{chosen_filter}", math.nan)
    higher = (results.get("higher_is_better", {}).get(task) or {}).get(metric)
    facts = {
        "task": task, "metric": key, "version": results["versions"].get(task), "n_shot": results["n-shot"].get(task),
        "n": sum(one["effective"] for one in results["n-samples"].values()), "lm_eval": metadata.version("lm_eval"),
        "all": {k: float(v) for k, v in row.items() if "," in k and isinstance(v, (int, float))},
    }  # fmt: skip
    is_higher_better = True if higher is None else bool(higher)
    score = Score(
        value=float(row[key]), stderr=float(stderr) if isinstance(stderr, (int, float)) else math.nan,
        higher_is_better=is_higher_better, facts=facts,
    )  # fmt: skip
    items = _items(results["samples"], f"{BENCH}/{name}", metric, chosen_filter, is_higher_better)
    return Measured(score=score, items=items)


def _metric_key(row: Mapping[str, Any], entry: TaskBenchmark, name: str, task: str) -> str:
    known = [key for key in row if "," in key and "_stderr," not in key]
    if entry.metric is None and known:
        return known[0]
    for key in known:
        if entry.metric in (key, key.partition(",")[0]):
            return key
    raise no_such_metric(name, entry, task, known)


def _items(
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    source: str,
    metric: str,
    chosen_filter: str,
    higher: bool,
) -> Items | None:
    """Return the metric of each row; None unless it is one number a row."""
    ids, values = [], []
    for task, rows in samples.items():
        for row in rows:
            if row["filter"] != chosen_filter or metric not in row:
                continue
            value = row[metric]
            if isinstance(value, (list, tuple)):
                return None
            ids.append(f"{task}:{row['doc_id']}:{row['doc_hash'][:12]}")
            values.append(float(value))
    if not ids:
        return None
    lower = () if higher else (metric,)
    return Items(source=source, ids=tuple(ids), measures={metric: tuple(values)}, lower_is_better=lower)
