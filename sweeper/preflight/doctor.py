"""`sweeper doctor`: asks every node of a cluster, lets them compute together, and tells what is wrong."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sweeper.cache import cache_dir
from sweeper.checkpoint import check_url
from sweeper.config.models import SweepConfig
from sweeper.errors import ConfigError, last_line
from sweeper.preflight.asked import Asked, asked_of
from sweeper.preflight.diagnosis import Finding, NodeReport, Wanted, diagnose
from sweeper.preflight.kept import kept_in_study
from sweeper.preflight.nodes import ask_nodes, on_node, own_versions, written_token
from sweeper.preflight.packages import needed_packages
from sweeper.storage_url import mask_url

_COLLECTIVE_S = 120.0


def examine(
    config: SweepConfig | None, *, address: str | None, storage: str | None, directory: Path
) -> list[Finding]:
    """Check a cluster, or this machine, and what a sweep needs of it.

    Args:
        config: The sweep; None checks what every sweep needs.
        address: A running cluster; None starts Ray on this machine, and ends it.
        storage: The study's storage; None: the journal in its directory.
        directory: Where the study will lie.

    Raises:
        ConfigError: If the cluster cannot be joined.
    """
    from sweeper.executors import ray_session
    from sweeper.executors.user_code import code_of

    asked = Asked() if config is None else asked_of(config)
    findings = [*_storage(storage), *_checkpoints(config)]
    try:
        if address is None:
            ray_session.start_local(n_cpus=max(2, os.cpu_count() or 1))
        else:
            ray_session.connect(address, None if config is None else code_of(config))
        disks = (str(directory), tempfile.gettempdir(), str(cache_dir()))
        with written_token(directory) as token:
            nodes = ray_session.described_nodes()
            reports, left = ask_nodes(asked, token, nodes=nodes, disks=disks, counts_gpus=True)
        findings += [
            Finding(check="nodes", where=name, is_fine=False, text="left the cluster while it was asked")
            for name in left
        ]
        findings += diagnose(reports, _wanted(config, reports, directory))
        findings.append(_collective())
    finally:
        ray_session.end()
    return findings


def _wanted(config: SweepConfig | None, reports: Sequence[NodeReport], directory: Path) -> Wanted:
    versions = own_versions()
    if config is None:
        return Wanted(versions=versions, share={}, study_dir=str(directory))
    resources = config.resources
    gpus = resources.gpus_where(any(report.resources.get("GPU") for report in reports))
    return Wanted(
        versions=versions, share=resources.share(gpus), n_workers=resources.n_workers, study_dir=str(directory),
        kept=kept_in_study(config), packages=needed_packages(config),
        compiles=bool(gpus) and config.trial.function is None,
    )  # fmt: skip


def _storage(storage: str | None) -> Iterator[Finding]:
    if storage is None:
        return
    from sweeper.study.storage import open_storage

    try:
        open_storage(storage, Path())
    except ConfigError as error:
        yield Finding(check="storage", where="driver", is_fine=False, text=str(error))
    else:
        yield Finding(
            check="storage", where="driver", is_fine=True, text=f"{mask_url(storage)} can be opened"
        )


def _checkpoints(config: SweepConfig | None) -> Iterator[Finding]:
    url = None if config is None else config.trial.checkpoint.url
    if url is None:
        return
    try:
        check_url(url)
    except ConfigError as error:
        yield Finding(check="checkpoints", where="driver", is_fine=False, text=str(error))
    else:
        yield Finding(check="checkpoints", where="driver", is_fine=True, text=f"{url} can be written")


def _collective() -> Finding:
    """Let a process on every node join the others and sum their numbers."""
    import ray

    from sweeper.executors.ray_attempt import WorkerSetup
    from sweeper.executors.ray_gang import RankWorker
    from sweeper.executors.ray_session import described_nodes

    nodes = described_nodes()
    places = nodes if len(nodes) > 1 else nodes * 2
    actors = [
        ray.remote(RankWorker).options(num_cpus=0, scheduling_strategy=on_node(node["NodeID"])).remote(
            rank, WorkerSetup(board=None, paths=[], growth_gb=2.0, preload=False)
        )
        for rank, node in enumerate(places)
    ]  # fmt: skip
    try:
        meeting = ray.get(actors[0].meet.remote(len(actors)), timeout=_COLLECTIVE_S)
        ray.get([actor.join.remote(meeting, on_gpu=False) for actor in actors], timeout=_COLLECTIVE_S)
        sums = ray.get([actor.count.remote() for actor in actors], timeout=_COLLECTIVE_S)
    except ray.exceptions.RayError as error:
        return Finding(
            check="collective", where="cluster", is_fine=False,
            text=f"the nodes cannot compute together: {last_line(error)}",
            remedy="Open all TCP ports between the nodes; if they have several networks, set GLOO_SOCKET_IFNAME and "
            "NCCL_SOCKET_IFNAME on each to the one that they share.",
        )  # fmt: skip
    finally:
        for actor in actors:
            ray.kill(actor, no_restart=True)
    text = f"{len(actors)} processes on {len(nodes)} node{'s' if len(nodes) > 1 else ''} computed together (gloo)"
    return Finding(
        check="collective", where="cluster", is_fine=sums == [len(actors)] * len(actors), text=text
    )
