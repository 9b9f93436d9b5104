"""One model, some benchmarks: by whichever means each is made."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeper.benchmarks.harness import check_harness, check_tasks, run_tasks, task_files_hash
from sweeper.benchmarks.judge.ask import check_client
from sweeper.benchmarks.judge.prompt import PROMPT_VERSION
from sweeper.benchmarks.judge.questions import load_questions
from sweeper.benchmarks.judge.run import run_judged
from sweeper.benchmarks.loaded import LoadedModel, Measured
from sweeper.benchmarks.one_number import mean_score
from sweeper.config.benchmark_models import BENCH, SCORE, BenchmarkSection
from sweeper.errors import ConfigError, SweeperError
from sweeper.items import write_items
from sweeper.study.benchmark_records import as_metrics, write_scores

logger = logging.getLogger(__name__)


def check_benchmarks(section: BenchmarkSection) -> None:
    """Find out before anything starts whether the benchmarks can be run from here.

    Raises:
        ConfigError: If a package or a key is missing, a task or its metric is unknown, or a file of questions holds
            something else.
    """
    if section.tasks:
        check_harness()
    if section.judged:
        check_client()
    for name, entry in section.judged.items():
        if entry.api_key_env is not None and not os.environ.get(entry.api_key_env):
            raise ConfigError(
                f"`benchmarks.judged.{name}.api_key_env` names the environment variable `{entry.api_key_env}`, which "
                "is not set. Set it to the key of the judge's endpoint."
            )
        load_questions(Path(entry.questions), limit=entry.limit)
    if section.tasks:
        check_tasks(section)  # last: it takes the longest


def measure(loaded: LoadedModel, section: BenchmarkSection, names: Sequence[str]) -> dict[str, Measured]:
    """Measure a model with some of the section's benchmarks.

    Raises:
        ConfigError: If a benchmark cannot be run as it is set.
        SweeperError: If one fails.
    """
    tasks = [name for name in names if name in section.tasks]
    found = run_tasks(loaded, section, tasks) if tasks else {}
    for name in names:
        if name in section.judged:
            found[name] = run_judged(loaded, section.judged[name], name=name, batch_size=section.batch_size)
    return {name: found[name] for name in names}


def measure_trial(
    loaded: LoadedModel, section: BenchmarkSection, trial_dir: Path, *, metric: str
) -> dict[str, float]:
    """Measure a trial's model before the trial ends: keep items and facts beside it, return its metrics.

    A benchmark that fails is run once more. Where it fails again, and the study's `metric` can do without it, the trial
    ends without that number, since all that was trained would be lost with it.

    Raises:
        ConfigError, SweeperError: As `measure`, if the study's metric needs the benchmark.
    """
    measured: dict[str, Measured] = {}
    for name in section.names:
        try:
            measured[name] = _measure_twice(loaded, section, name)
        except SweeperError as error:
            if f"{metric}/".startswith((f"{BENCH}/{name}/", f"{BENCH}/{SCORE}/")):
                raise
            logger.warning("The trial ends without the benchmark `%s`: %s", name, error)
    scores = {name: one.score for name, one in measured.items()}
    for one in measured.values():
        if one.items is not None:
            write_items(trial_dir, one.items)
    write_scores(trial_dir, scores)
    together = None if section.score == "rank_mean" else mean_score(section, scores)
    return as_metrics(scores | ({} if together is None else {SCORE: together}))


def _measure_twice(loaded: LoadedModel, section: BenchmarkSection, name: str) -> Measured:
    try:
        return measure(loaded, section, [name])[name]
    except ConfigError:
        raise
    except SweeperError as error:
        logger.warning("The benchmark `%s` is run once more: %s", name, error)
        return measure(loaded, section, [name])[name]


def identity(section: BenchmarkSection, name: str) -> str:
    """Return a hash of all that a benchmark's number depends on beside the model; a judge's mood is not in it."""
    parts: dict[str, Any]
    if name in section.tasks:
        from importlib import metadata

        parts = {
            "task": section.tasks[name].model_dump(exclude={"weight"}), "name": name,
            "chat": section.apply_chat_template, "files": task_files_hash(section),
            "lm_eval": metadata.version("lm_eval"),
        }  # fmt: skip
    else:
        entry = section.judged[name]
        asked = entry.model_dump(
            exclude={"weight", "concurrency", "attempts", "timeout_s", "api_key_env", "questions"}
        )
        parts = {
            "judged": asked, "prompt": PROMPT_VERSION,
            "questions": hashlib.sha256(Path(entry.questions).read_bytes()).hexdigest(),
        }  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
