"""What the machine or cluster has, and how many trials fit on it at a time."""

import dataclasses
import os
from pathlib import Path

from sweeper.config.resource_models import ResourceSection
from sweeper.errors import ConfigError
from sweeper.executors.user_code import UserCode
from sweeper.room import Node, missing, room_for, trials_in_words, workers_in_words

_NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")
_DEVICES = Path("/dev")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterFacts:
    """Cores and GPUs that trials can have."""

    cpus: int
    gpus: int
    place: str  # for messages: "this machine" or the address
    nodes: tuple[Node, ...] = ()  # of a cluster


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlotPlan:
    """How many trials run at a time, and what each gets."""

    slots: int
    cpus_per_trial: int
    gpus_per_trial: float
    workers_per_trial: int = 1
    grows: bool = False  # whether nodes that join the cluster later are used too

    @property
    def of_each(self) -> str:
        """What a trial gets, for example "2 workers, 2 CPUs and 2 GPUs"."""
        workers = f"{self.workers_per_trial} workers, " if self.workers_per_trial > 1 else ""
        cpus = f"{self.cpus_per_trial} CPU{'s' if self.cpus_per_trial > 1 else ''}"
        gpus = f"{self.gpus_per_trial:g} GPU{'s' if self.gpus_per_trial > 1 else ''}"
        return f"{workers}{cpus} and {gpus if self.gpus_per_trial else 'no GPU'}"


def probe_machine() -> ClusterFacts:
    """Count this machine's usable cores and GPUs, without loading a GPU library."""
    return ClusterFacts(cpus=len(os.sched_getaffinity(0)), gpus=_visible_gpus(), place="this machine")


def probe_cluster(address: str, code: UserCode | None = None) -> ClusterFacts:
    """Join a running Ray cluster and count what it has. The connection stays, for the executor.

    Args:
        address: `host:port`, or `auto`.
        code: The user's own, sent to the cluster's nodes.

    Raises:
        ConfigError: If no cluster answers there.
    """
    from sweeper.executors.ray_session import connect, nodes  # Ray only where a cluster was asked for

    resources = connect(address, code)
    return ClusterFacts(
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        place=address,
        nodes=tuple(nodes()),
    )


def plan_slots(resources: ResourceSection, facts: ClusterFacts) -> SlotPlan:
    """Work out the number of slots.

    Raises:
        ConfigError: If not even one trial fits, or fewer than the config asks for on GPUs or on a cluster.
    """
    gpus = resources.gpus_where(facts.gpus > 0)
    fitting, limit = (
        _on_nodes(resources, facts, gpus) if facts.nodes else _on_this_machine(resources, facts, gpus)
    )
    slots = resources.slots or fitting
    if limit is not None and slots > limit:
        raise ConfigError(
            f"`resources.slots` = {slots} does not fit: {facts.place} has room for {trials_in_words(limit)} of "
            f"{workers_in_words(resources.share(gpus), resources.n_workers)}. Lower it, or leave it out to use what "
            "fits."
        )
    return SlotPlan(
        slots=slots, cpus_per_trial=resources.cpus_per_trial, gpus_per_trial=gpus,
        workers_per_trial=resources.n_workers, grows=bool(facts.nodes) and resources.slots is None,
    )  # fmt: skip


def _on_this_machine(resources: ResourceSection, facts: ClusterFacts, gpus: float) -> tuple[int, int | None]:
    """Return how many trials fit, and how many may be asked for: more than cores is slow, but works."""
    if resources.custom_resources:
        names = ", ".join(f"`{name}`" for name in resources.custom_resources)
        raise ConfigError(
            f"`resources.custom_resources` asks for {names}, which nodes of a Ray cluster have, but there is no "
            "`resources.address`. Give the cluster's with `--address`, or leave them out."
        )
    by_gpu = Node(name="", resources={"GPU": facts.gpus}).holds({"GPU": gpus}) if gpus else None
    if by_gpu == 0:
        raise ConfigError(
            f"`resources.gpus_per_trial` = {gpus:g} does not fit: {facts.place} has {facts.gpus} GPUs. "
            "Set it to 0 to train on CPUs, or join a cluster with GPUs by `--address`."
        )
    by_cpu = max(facts.cpus // resources.cpus_per_trial, 1)
    return (by_cpu if by_gpu is None else min(by_cpu, by_gpu)), by_gpu


def _on_nodes(resources: ResourceSection, facts: ClusterFacts, gpus: float) -> tuple[int, int]:
    """Return how many trials fit on a cluster's nodes, and how many may be asked for."""
    share = resources.share(gpus)
    fitting = room_for(facts.nodes, share, resources.n_workers)
    if fitting == 0:
        raise ConfigError(
            f"No trial fits on the cluster at {facts.place}. "
            f"{missing(facts.nodes, share, resources.n_workers)} Ask for less in `resources`, or add nodes."
        )
    return fitting, fitting


def _visible_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    if _NVIDIA_GPUS.is_dir():
        return len(list(_NVIDIA_GPUS.iterdir()))
    return len(
        list(_DEVICES.glob("nvidia[0-9]*"))
    )  # in a container that has the devices without the driver's page
