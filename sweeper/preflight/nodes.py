"""What the nodes of a cluster answer: to `doctor`, and to a launch before its first trial."""

import dataclasses
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle

from sweeper.errors import ConfigError, Problem, last_line
from sweeper.executors.user_code import driver_paths, import_error
from sweeper.files import nearest_existing
from sweeper.preflight import node as node_module
from sweeper.preflight.asked import Asked, TrialCode
from sweeper.preflight.diagnosis import PACKAGES, NodeReport

_NODE_S = 180.0  # how long a node may take to answer


def ask_nodes(
    asked: Asked, token: Path, *, nodes: Sequence[dict[str, Any]], disks: Sequence[str] = (),
    counts_gpus: bool = False,
) -> tuple[list[NodeReport], list[str]]:  # fmt: skip
    """Let nodes of the joined cluster say what they have, all at a time; none of them gives a core for it.

    A node that dies is listed for some seconds more: one that is gone when it should answer is no node of the cluster.

    Args:
        asked: What should be there.
        token: A file just written where the study will lie.
        nodes: As Ray describes them.
        disks: Directories whose free room is asked for.
        counts_gpus: Whether torch is asked for the GPUs of nodes that have any, which takes seconds.

    Returns:
        What each node says, and the names of those that have left the cluster meanwhile.

    Raises:
        ConfigError: If some of the others do not answer, with their names.
    """
    places = dict(enumerate(nodes))
    cloudpickle.register_pickle_by_value(node_module)  # the node may have another sweeper, or none
    try:
        said = _on_each(
            node_module.look,
            places,
            {
                index: {
                    "packages": PACKAGES, "paths": asked.paths, "token": str(token), "disks": tuple(disks),
                    "counts_gpus": counts_gpus and bool(node["Resources"].get("GPU")),
                    "modules": tuple(one.module for one in asked.packages),
                }
                for index, node in places.items()
            },
        )  # fmt: skip
    finally:
        cloudpickle.unregister_pickle_by_value(node_module)
    errors = _code_errors(asked.code, {index: places[index] for index in said}, said)
    names = _told_names(nodes)
    reports = [
        NodeReport.of(
            names[index], nodes[index]["Resources"], said[index], token=token.name, code_error=error
        )
        for index, error in errors.items()
    ]
    return reports, [name for index, name in enumerate(names) if index not in errors]


def _told_names(nodes: Sequence[dict[str, Any]]) -> list[str]:
    """Return what nodes are called in messages: their host, and what tells those of one host apart."""
    names = [node["NodeManagerHostname"] for node in nodes]
    return [
        name if names.count(name) == 1 else f"{name} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})"
        for name, node in zip(names, nodes, strict=True)
    ]


def _on_each(
    function: Callable[..., Any], nodes: Mapping[int, dict[str, Any]], calls: Mapping[int, Mapping[str, Any]]
) -> dict[int, Any]:
    """Call a function on nodes, each with arguments of its own; return and raise as `_answers`."""
    import ray

    remote = ray.remote(num_cpus=0)(function)
    asked = {
        index: remote.options(scheduling_strategy=on_node(nodes[index]["NodeID"])).remote(**arguments)
        for index, arguments in calls.items()
    }
    return _answers(nodes, asked)


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
    code: TrialCode | None, nodes: Mapping[int, dict[str, Any]], said: Mapping[int, Any]
) -> dict[int, str | None]:
    """Let each node that has this sweeper load the trial function; return what went wrong there."""
    if code is None:
        return dict.fromkeys(nodes)
    own = own_versions()["sweeper"]
    call = {**dataclasses.asdict(code), "paths": driver_paths()}
    calls = {index: call for index in nodes if said[index]["versions"]["sweeper"] == own}
    answers = _on_each(import_error, nodes, calls)
    return {index: answers.get(index) for index in nodes if index in answers or index not in calls}


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
