"""What is wrong with a cluster, and how to mend it: findings from what the nodes said. Pure."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sweeper.preflight.kept import KeptInStudy
from sweeper.preflight.packages import Needed
from sweeper.room import Node, missing, room_for

PACKAGES = ("sweeper", "ray", "torch", "transformers", "trl", "accelerate", "peft", "datasets")
_GB = 1e9
LEAST_FREE_BYTES = 1e9  # a journal, curves and a report take less; checkpoints are counted by `plan`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked."""

    # nodes, versions, gpus, compiler, paths, code, packages, shared, disk, storage, checkpoints, collective, room
    check: str
    where: str  # a node's name, or "driver"
    is_fine: bool
    text: str  # what is so, or what is wrong
    remedy: str = ""


COMPILER_REMEDY = "Install both there, for example by `apt install gcc python3-dev`."


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeReport:
    """What one node said."""

    name: str
    resources: Mapping[str, float]  # Ray's, all of the node
    versions: Mapping[str, str | None]
    missing: Sequence[str] = ()  # paths that are not there
    lacking: Sequence[str] = ()  # modules that are not there
    free_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)  # by directory
    sees_study: bool | None = None  # whether it reads what the driver wrote; None: not asked
    torch_gpus: int | None = None  # that torch can use; None: not asked, or torch could not be
    cannot_compile: str | None = None  # what Triton lacks to compile its kernels; None: nothing, or not asked
    code_error: str | None = (
        None  # why the sweep's own trial function cannot be loaded; None: it can, or there is none
    )

    @classmethod
    def of(
        cls, name: str, resources: Mapping[str, float], said: Mapping[str, Any], *, token: str, code_error: str | None
    ) -> "NodeReport":  # fmt: skip
        """Return the report of a node that has answered `node.look`.

        Args:
            name: The node's.
            resources: Ray's.
            said: Its answer.
            token: What it reads in the token's file where it sees that.
            code_error: See the class.
        """
        return cls(
            name=name, resources=resources, versions=said["versions"], missing=said["missing"],
            lacking=said["lacking"], free_bytes=said["free_bytes"], sees_study=said["token"] == token,
            torch_gpus=said["torch_gpus"], cannot_compile=said["cannot_compile"], code_error=code_error,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a sweep needs of the nodes."""

    versions: Mapping[str, str | None]  # the driver's
    share: Mapping[str, float]  # of each worker; empty where no sweep was named
    n_workers: int = 1
    study_dir: str | None = None
    kept: KeptInStudy = dataclasses.field(default_factory=KeptInStudy)  # what trials keep in it
    packages: Sequence[Needed] = ()  # beside those whose versions are compared
    compiles: bool = True  # whether the built-in fine-tuning is to run on GPUs; so without a sweep


def diagnose(nodes: Sequence[NodeReport], wanted: Wanted) -> list[Finding]:
    """Return what was found on all nodes, node by node, and of the cluster as a whole."""
    findings = [finding for node in nodes for finding in _of_node(node, wanted)]
    if wanted.share:
        findings.append(_room(nodes, wanted))
    return findings


def _of_node(node: NodeReport, wanted: Wanted) -> Iterator[Finding]:
    yield _versions(node, wanted)
    yield from _gpus(node)
    yield from _compiler(node, wanted)
    yield from _packages(node, wanted)
    yield from _paths(node, wanted)
    yield from _disks(node)


def _versions(node: NodeReport, wanted: Wanted) -> Finding:
    others = {
        name: (node.versions.get(name), version)
        for name, version in wanted.versions.items()
        if release_of(node.versions.get(name)) != release_of(version)
    }
    if not others:
        text = ", ".join(f"{name} {version}" for name, version in wanted.versions.items() if version)
        return Finding(check="versions", where=node.name, is_fine=True, text=text)
    told = ", ".join(
        f"{name} {here or 'not installed'} (driver: {there})" for name, (here, there) in others.items()
    )
    wheels = [
        f"'{name}=={there}'"
        for name, (_, there) in others.items()
        if there and name not in ("python", "sweeper")
    ]
    # Not by its name, which another package may have on an index.
    steps = ["sweeper from where the driver's came"] if "sweeper" in others else []
    steps += [f"pip install {' '.join(wheels)}"] if wheels else []
    return Finding(
        check="versions", where=node.name, is_fine=False, text=f"other versions than the driver's: {told}",
        remedy=f"Install the driver's there: {', then '.join(steps)}" if steps else "Use the same Python on all nodes.",
    )  # fmt: skip


def release_of(version: str | None) -> str | None:
    """Return a version without its build, which differs between CPUs and kinds of GPU.

    >>> release_of("2.13.0+cu130")
    '2.13.0'
    """
    return None if version is None else version.partition("+")[0]


def _gpus(node: NodeReport) -> Iterator[Finding]:
    has = int(node.resources.get("GPU", 0))
    if not has and not node.torch_gpus:
        return
    if node.torch_gpus is None:
        yield Finding(
            check="gpus", where=node.name, is_fine=False, text=f"Ray counts {has} GPUs, but torch could not be asked",
            remedy="Install torch there; `python -c 'import torch'` shows what is wrong.",
        )  # fmt: skip
    elif node.torch_gpus < has:
        yield Finding(
            check="gpus", where=node.name, is_fine=False,
            text=f"Ray counts {has} GPUs, torch can use {node.torch_gpus}",
            remedy="Install a torch that fits the driver of the GPUs (`nvidia-smi` names it), or correct `--num-gpus`.",
        )  # fmt: skip
    else:
        yield Finding(
            check="gpus", where=node.name, is_fine=True, text=f"{has} GPUs, torch can use {node.torch_gpus}"
        )


def _compiler(node: NodeReport, wanted: Wanted) -> Iterator[Finding]:
    if node.cannot_compile is not None and node.resources.get("GPU", 0) and wanted.compiles:
        yield Finding(
            check="compiler", where=node.name, is_fine=False,
            text=f"the built-in fine-tuning compiles kernels for GPUs, but {node.cannot_compile}",
            remedy=COMPILER_REMEDY,
        )  # fmt: skip


def _packages(node: NodeReport, wanted: Wanted) -> Iterator[Finding]:
    for needed in wanted.packages:
        if needed.module in node.lacking:
            yield Finding(
                check="packages", where=node.name, is_fine=False,
                text=f"{needed.by} needs {needed.module}, which is not installed", remedy=needed.remedy,
            )  # fmt: skip


def _paths(node: NodeReport, wanted: Wanted) -> Iterator[Finding]:
    if node.missing:
        yield Finding(
            check="paths", where=node.name, is_fine=False, text=f"not there: {', '.join(node.missing)}",
            remedy="Put model and data on a file system that all nodes mount at the same path, or copy them there.",
        )  # fmt: skip
    if node.code_error is not None:
        yield Finding(
            check="code", where=node.name, is_fine=False, text=node.code_error,
            remedy="The code beside its module travels to the nodes; what else it imports has to be installed there.",
        )  # fmt: skip
    if node.sees_study is False:
        yield Finding(
            check="shared", where=node.name, is_fine=False,
            text=f"does not see what the driver writes under {wanted.study_dir}, where trials keep "
            f"{wanted.kept.in_words}",
            remedy=f"Choose a study directory (`dir`) on a file system that all nodes share{wanted.kept.way_out}.",
        )  # fmt: skip
    elif node.sees_study:
        yield Finding(
            check="shared", where=node.name, is_fine=True, text=f"sees the study's place {wanted.study_dir}"
        )


def _disks(node: NodeReport) -> Iterator[Finding]:
    for place, free in node.free_bytes.items():
        is_fine = free >= LEAST_FREE_BYTES
        yield Finding(
            check="disk", where=node.name, is_fine=is_fine, text=f"{free / _GB:.1f} GB are free at {place}",
            remedy="" if is_fine else "Make room there, or move it: `dir` for the study, TMPDIR and SWEEPER_CACHE.",
        )  # fmt: skip


def _room(nodes: Sequence[NodeReport], wanted: Wanted) -> Finding:
    places = [Node(name=node.name, resources=node.resources) for node in nodes]
    room = room_for(places, wanted.share, wanted.n_workers)
    if room:
        return Finding(check="room", where="cluster", is_fine=True, text=f"{room} trials fit at a time")
    return Finding(
        check="room", where="cluster", is_fine=False,
        text=f"no trial fits. {missing(places, wanted.share, wanted.n_workers)}",
        remedy="Ask for less in `resources`, or add nodes.",
    )  # fmt: skip


def findings_text(findings: Sequence[Finding]) -> str:
    """Return findings for people: a line each, with the remedy below, and how many are wrong."""
    lines = []
    for finding in findings:
        word = "ok   " if finding.is_fine else "WRONG"
        lines.append(f"{word}  {finding.where}: {finding.text}".rstrip(".") + ".")
        lines += [f"       {finding.remedy}"] if finding.remedy else []
    n_wrong = sum(not finding.is_fine for finding in findings)
    end = f"{n_wrong} of {len(findings)} checks found something wrong." if n_wrong else "Nothing is wrong."
    return "\n".join([*lines, end])
