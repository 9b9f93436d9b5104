"""What the nodes of a cluster answer: to `doctor`, and to a launch before its first trial."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError, Problem, last_line
from sweeper.executors.user_code import code_of, driver_paths, import_error
from sweeper.files import nearest_existing
from sweeper.preflight import node as node_module
from sweeper.preflight.cluster import SlotPlan
from sweeper.preflight.diagnosis import PACKAGES, Finding, NodeReport, Wanted, diagnose, release_of
from sweeper.preflight.kept import kept_in_study
from sweeper.preflight.packages import needed_packages
from sweeper.room import Node

_NODE_S = 180.0  # how long a node may take to answer


def check_nodes(
    config: SweepConfig, slots: SlotPlan, directory: Path, function: Callable[..., Any] | None = None
) -> list[str]:
    """Ask every node of the joined cluster that trials can run on whether it has what they need.

    Args:
        config: The sweep.
        slots: What a trial gets.
        directory: Where the study will lie.
        function: Run instead of what the config names.

    Returns:
        What should be known of them, a sentence each.

    Raises:
        ConfigError: If a node lacks something, with the node's name; once for each node and thing.
    """
    from sweeper.executors.ray_session import described_nodes

    share = config.resources.share(slots.gpus_per_trial)
    able = [node for node in described_nodes() if Node(name="", resources=node["Resources"]).holds(share)]
    with written_token(directory) as token:
        reports, left = ask_nodes(config, token, nodes=able, function=function)
    if left and not reports:
        raise ConfigError(
            f"All nodes that can hold a trial left the cluster while they were asked: {', '.join(left)}. "
            "Start it again when there are others."
        )
    versions = own_versions()
    # What another version of can break; of the rest, it is told.
    is_built_in = config.trial.function is None and function is None
    needed = ("sweeper", "torch") if is_built_in else ("sweeper",)
    other_versions = {
        report.name
        for report in reports
        if any(release_of(report.versions.get(name)) != release_of(versions[name]) for name in needed)
    }
    kept = kept_in_study(config, function)
    refused: list[str] = []
    told = [f"Node {name} left the cluster while it was asked." for name in left]
    packages = () if function is not None else needed_packages(config)
    wanted = Wanted(versions=versions, share={}, study_dir=str(directory), kept=kept, packages=packages)
    for finding in diagnose(reports, wanted):
        is_fatal = {
            "paths": True, "code": True, "packages": True, "shared": kept.is_needed,
            "versions": finding.where in other_versions,
        }.get(finding.check)  # fmt: skip
        if not finding.is_fine and is_fatal is not None:
            (refused if is_fatal else told).append(_in_words(finding))
    if refused:
        raise ConfigError([Problem(text) for text in refused])
    return told


def _in_words(finding: Finding) -> str:
    return f"Node {finding.where}: {finding.text.rstrip('.')}. {finding.remedy}".rstrip()


def ask_nodes(
    config: SweepConfig | None, token: Path, *, nodes: Sequence[dict[str, Any]], disks: Sequence[str] = (),
    counts_gpus: bool = False, function: Callable[..., Any] | None = None,
) -> tuple[list[NodeReport], list[str]]:  # fmt: skip
    """Let nodes of the joined cluster say what they have, all at a time; none of them gives a core for it.

    A node that dies is listed for some seconds more: one that is gone when it should answer is no node of the cluster.

    Args:
        config: The sweep, whose paths and trial function should be there; None asks for neither.
        token: A file just written where the study will lie.
        nodes: As Ray describes them.
        disks: Directories whose free room is asked for.
        counts_gpus: Whether torch is asked for the GPUs of nodes that have any, which takes seconds.
        function: Run instead of what the config names.

    Returns:
        What each node says, and the names of those that have left the cluster meanwhile.

    Raises:
        ConfigError: If some of the others do not answer, with their names.
    """
    import ray

    needed = () if config is None or function is not None else needed_packages(config)
    cloudpickle.register_pickle_by_value(node_module)  # the node may have another sweeper, or none
    try:
        look = ray.remote(num_cpus=0)(node_module.look)
        asked = {
            index: look.options(scheduling_strategy=on_node(node["NodeID"])).remote(
                packages=PACKAGES, paths=_paths_of(config, function), token=str(token), disks=tuple(disks),
                counts_gpus=counts_gpus and bool(node["Resources"].get("GPU")),
                modules=tuple(one.module for one in needed),
            )
            for index, node in enumerate(nodes)
        }  # fmt: skip
        said = _answers(dict(enumerate(nodes)), asked)
    finally:
        cloudpickle.unregister_pickle_by_value(node_module)
    errors = _code_errors(config, function, {n: nodes[n] for n in said}, said)
    names = [node["NodeManagerHostname"] for node in nodes]
    told = [
        name if names.count(name) == 1 else f"{name} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})"
        for name, node in zip(names, nodes, strict=True)
    ]
    reports = [
        NodeReport(
            name=told[n], resources=nodes[n]["Resources"], versions=said[n]["versions"], missing=said[n]["missing"],
            lacking=said[n]["lacking"],
            free_bytes=said[n]["free_bytes"], sees_study=said[n]["token"] == token.name,
            torch_gpus=said[n]["torch_gpus"], code_error=error,
        )
        for n, error in errors.items()
    ]  # fmt: skip
    return reports, [name for n, name in enumerate(told) if n not in errors]


def _answers(nodes: Mapping[int, dict[str, Any]], asked: Mapping[int, Any]) -> dict[int, Any]:
    """Return what nodes answer, without those that have left the cluster.

    Raises:
        ConfigError: If some of the others do not, with their names.
    """
    import ray

    deadline = time.monotonic() + _NODE_S
    found, silent = {}, {}
    for index, reference in asked.items():
        try:
            found[index] = ray.get(reference, timeout=max(0.0, deadline - time.monotonic()))
        except ray.exceptions.RayError as error:
            silent[index] = last_line(error).rstrip(".")
    if not silent:
        return found
    from sweeper.executors.ray_session import described_nodes

    alive = {node["NodeID"] for node in described_nodes()}
    problems = [
        Problem(
            f"Node {nodes[index]['NodeManagerHostname']} ({nodes[index]['NodeManagerAddress']}) did not answer: {why}. "
            "Mend it, or take it out of the cluster."
        )
        for index, why in silent.items()
        if nodes[index]["NodeID"] in alive
    ]
    if problems:
        raise ConfigError(problems)
    return found


def _code_errors(
    config: SweepConfig | None,
    function: Callable[..., Any] | None,
    nodes: Mapping[int, dict[str, Any]],
    said: Mapping[int, Any],
) -> dict[int, str | None]:
    """Let each node that has this sweeper load the trial function; return what went wrong there."""
    import ray

    if config is None or (function is None and config.trial.function is None):
        return dict.fromkeys(nodes)
    own = own_versions()["sweeper"]
    pickled = None if function is None else cloudpickle.dumps(function)
    load = ray.remote(num_cpus=0)(import_error)
    asked = {
        index: load.options(scheduling_strategy=on_node(node["NodeID"])).remote(
            config.trial.function, config.trial.function_dir, pickled, driver_paths()
        )
        for index, node in nodes.items()
        if said[index]["versions"]["sweeper"] == own
    }
    answers = _answers(nodes, asked)
    return {index: answers.get(index) for index in nodes if index in answers or index not in asked}


def own_versions() -> dict[str, str | None]:
    """Return the driver's."""
    found: dict[str, str | None] = node_module.look(
        packages=PACKAGES, paths=(), disks=(), token=None, counts_gpus=False
    )["versions"]
    return found


def on_node(node_id: str) -> Any:
    """Return Ray's word for: on this node and no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _paths_of(config: SweepConfig | None, function: Callable[..., Any] | None) -> tuple[str, ...]:
    """Return the local paths that trials read on their nodes; their own code travels."""
    if config is None:
        return ()
    trial = config.trial
    models = config.search_space["model"].listed if "model" in config.search_space else None
    named = [trial.model, *(models or ()), trial.chat_template]
    named += [source.path for source in (*trial.sources, *trial.eval_data.values())]
    if function is None and trial.function is not None and code_of(config) is None:
        named.append(trial.function_dir)
    return tuple(dict.fromkeys(path for path in named if isinstance(path, str) and path.startswith("/")))


@contextmanager
def written_token(directory: Path) -> Iterator[Path]:
    """Write a file where the study will lie, for as long as the nodes are asked.

    Raises:
        ConfigError: If it cannot be written.
    """
    path = nearest_existing(directory) / f".sweeper-token-{uuid.uuid4().hex[:8]}"
    try:
        path.write_text(path.name)
    except OSError as error:
        raise ConfigError(
            f"The study's directory {directory} cannot be written: {error.strerror}. Give another one with `--dir`."
        ) from error
    try:
        yield path
    finally:
        path.unlink()
