"""What lm-evaluation-harness says of a task before it runs it. Pure: knows only an entry of the harness's index."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.config.benchmark_models import TaskBenchmark
from sweeper.errors import ConfigError

_SHOWN = 8  # members of a group in a message
# Metrics that come out under the name that they have in a task's file; others may be functions that return several.
_PLAIN = {
    "acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "f1", "mcc", "brier_score", "perplexity",
    "word_perplexity", "byte_perplexity", "bits_per_byte", "bleu", "chrf", "ter",
}  # fmt: skip


def check_entry(entry: Any, benchmark: TaskBenchmark, name: str) -> None:
    """Check that an entry gives a number, and the metric that is wanted, where its file says which it gives.

    Args:
        entry: Of the harness's index.
        benchmark: What is wanted of it.
        name: Of the benchmark.

    Raises:
        ConfigError: If not.
    """
    kind, described = entry.kind.name, entry.cfg or {}
    if kind == "TAG" or (kind == "GROUP" and not described.get("aggregate_metric_list")):
        raise ConfigError(
            f"`benchmarks.tasks.{name}` names the {kind.lower()} `{entry.name}` of lm-evaluation-harness, which gives "
            f"no number of its own. Name each of what it holds instead: {_listed(members(entry))}."
        )
    known = _metrics_of(kind, described)
    wanted = benchmark.metric
    if wanted is None or not known:
        return
    if wanted not in known and wanted not in [key.partition(",")[0] for key in known]:
        if "," in wanted and wanted.partition(",")[0] in known:
            return  # a group whose file leaves the filters to its tasks
        raise no_such_metric(name, benchmark, entry.name, known)


def members(entry: Any) -> list[str]:
    """Return the names of what a tag or a group holds; none for a task."""
    if entry.kind.name == "TAG":
        return sorted(entry.tags)
    return _names_in((entry.cfg or {}).get("task")) if entry.kind.name == "GROUP" else []


def _names_in(listed: Any) -> list[str]:
    """Return the names in a group's `task`: names, or mappings of one name or of a list."""
    if isinstance(listed, str):
        return [listed]
    if isinstance(listed, Mapping):
        return _names_in(listed.get("task") or listed.get("group"))
    return [name for one in listed or () for name in _names_in(one)]


def no_such_metric(name: str, benchmark: TaskBenchmark, task: str, known: Sequence[str]) -> ConfigError:
    """Return the error that a task has no such metric."""
    return ConfigError(
        f"`benchmarks.tasks.{name}.metric` names `{benchmark.metric}`, but the task `{task}` gives {_listed(known)}. "
        "Choose one of these."
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN]) or "none"
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _metrics_of(kind: str, described: Mapping[str, Any]) -> list[str]:
    """Return the keys of an entry's results, `METRIC,FILTER`, of some groups `METRIC`; none where not known."""
    if kind not in ("TASK", "GROUP") or "process_results" in described:
        return []
    listed = described.get("metric_list" if kind == "TASK" else "aggregate_metric_list") or []
    each = [listed] if isinstance(listed, Mapping) else listed
    if not all(isinstance(one, Mapping) and one.get("metric") in _PLAIN for one in each):
        return []
    filters = [one["name"] for one in described.get("filter_list") or ()] or ["none"]
    found = []
    for one in each:
        its_own = filters if kind == "TASK" else one.get("filter_list") or []
        chosen = [its_own] if isinstance(its_own, str) else its_own
        found += [f"{one['metric']},{label}" for label in chosen] or [one["metric"]]
    return found
