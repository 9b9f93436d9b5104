"""What a launch does with what the nodes answer: which of it keeps a sweep from starting, and which is told."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError, Problem
from sweeper.preflight.asked import asked_of
from sweeper.preflight.cluster import SlotPlan
from sweeper.preflight.diagnosis import Finding, NodeReport, Wanted, diagnose, release_of
from sweeper.preflight.kept import kept_in_study
from sweeper.preflight.nodes import ask_nodes, own_versions, written_token
from sweeper.room import Node


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
    asked = asked_of(config, function)
    with written_token(directory) as token:
        reports, left = ask_nodes(asked, token, nodes=_able(config, slots))
    if left and not reports:
        raise ConfigError(
            f"All nodes that can hold a trial left the cluster while they were asked: {', '.join(left)}. "
            "Start it again when there are others."
        )
    kept = kept_in_study(config, function)
    wanted = Wanted(
        versions=own_versions(), share={}, study_dir=str(directory), kept=kept, packages=asked.packages,
        compiles=kept.is_built_in and slots.gpus_per_trial > 0,
    )  # fmt: skip
    refused, told = sorted_out(reports, wanted)
    if refused:
        raise ConfigError([Problem(text) for text in refused])
    return [*(f"Node {name} left the cluster while it was asked." for name in left), *told]


def _able(config: SweepConfig, slots: SlotPlan) -> list[dict[str, Any]]:
    """Return the nodes that can hold a worker."""
    from sweeper.executors.ray_session import described_nodes

    share = config.resources.share(slots.gpus_per_trial)
    return [node for node in described_nodes() if Node(name="", resources=node["Resources"]).holds(share)]


def sorted_out(reports: Sequence[NodeReport], wanted: Wanted) -> tuple[list[str], list[str]]:
    """Return what keeps a sweep from starting on the nodes, and what should be known of them, a sentence each. Pure."""
    others = _other_versions(reports, wanted)
    refused: list[str] = []
    told: list[str] = []
    for finding in diagnose(reports, wanted):
        is_fatal = _is_fatal(finding, wanted, others)
        if not finding.is_fine and is_fatal is not None:
            (refused if is_fatal else told).append(_in_words(finding))
    return refused, told


def _other_versions(reports: Sequence[NodeReport], wanted: Wanted) -> set[str]:
    """Return the nodes where another version is of what that can break; of the rest, it is told."""
    needed = ("sweeper", "torch") if wanted.kept.is_built_in else ("sweeper",)
    return {
        report.name
        for report in reports
        if any(release_of(report.versions.get(name)) != release_of(wanted.versions[name]) for name in needed)
    }


def _is_fatal(finding: Finding, wanted: Wanted, other_versions: set[str]) -> bool | None:
    """Whether a sweep cannot start with what was found; None: a launch looks at that by other means."""
    return {
        "paths": True, "code": True, "packages": True, "compiler": True, "shared": wanted.kept.is_needed,
        "versions": finding.where in other_versions,
    }.get(finding.check)  # fmt: skip


def _in_words(finding: Finding) -> str:
    return f"Node {finding.where}: {finding.text.rstrip('.')}. {finding.remedy}".rstrip()
