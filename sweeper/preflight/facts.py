"""Everything that only the machine can tell, asked before a sweep starts and when `plan` is told to."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sweeper.config.models import SweepConfig
from sweeper.config.space_values import setting_values
from sweeper.errors import ConfigError
from sweeper.executors.user_code import code_of
from sweeper.plan import DataFacts
from sweeper.preflight.child import checking_in_child
from sweeper.preflight.cluster import ClusterFacts, SlotPlan, plan_slots, probe_cluster, probe_machine
from sweeper.preflight.data_report import DataReport, SetReport
from sweeper.preflight.weights import WeightFacts
from sweeper.training.functions import TrialFunction

# At 6 operations for each parameter and token, a step of 64 sequences of 1,024 tokens takes 4e13 of them: minutes on
# the cores of one machine.
_LARGE_PARAMETERS = 100_000_000
# Of a trial that is interrupted: its last two results, and a curve of 20,000 steps. 0.03 s on a local disk (2 cores,
# November 2026); a shared file system takes twice that, and the trials have to save before.
_RECORDED_S = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreflightFacts:
    """What was found; nothing has been started."""

    cluster: ClusterFacts
    slots: SlotPlan
    data: DataReport | None  # None where a Python function was handed over
    cpu_warning: str | None = None  # where a large model would be trained on CPUs, and nobody asked for that
    grace_warning: str | None = (
        None  # where more trials run at a time than an interrupt leaves time to record
    )

    @property
    def warnings(self) -> list[str]:
        """What was found that is no error."""
        found = [] if self.data is None else list(self.data.warnings)
        return found + [one for one in (self.cpu_warning, self.grace_warning) if one is not None]

    @property
    def facts(self) -> DataFacts | None:
        """What budgets in epochs or tokens stand on; None where the trial reads its own data."""
        if self.data is None or self.data.train is None:
            return None
        return DataFacts(
            rows=self.data.rows, target_tokens=self.data.target_tokens, sets=self.data.sets, sources=self.data.sources,
        )  # fmt: skip

    @property
    def weights(self) -> WeightFacts | None:
        """The model's; None where the trial has a model of its own."""
        model = self.data.model if self.data is not None else None
        if model is None:
            return None
        return WeightFacts(n_parameters=model.n_parameters, adapter_width=model.adapter_width)

    def lines(self) -> list[str]:
        """Return what was found as sentences, for `plan`."""
        found = [
            f"{self.cluster.place} has {self.cluster.cpus} CPUs and {self.cluster.gpus} GPUs: "
            f"{self.slots.slots} trials at a time, each with {self.slots.of_each}."
        ]
        if self.data is not None and self.data.train is not None:
            found.append(f"training data: {_in_words(self.data.train)}")
            found += [f"eval set {name}: {_in_words(one)}" for name, one in self.data.evaluation.items()]
        return found + [f"warning: {warning}" for warning in self.warnings]

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _in_words(rows: SetReport) -> str:
    return (
        f"{rows.rows:,} rows, {rows.target_tokens:,} target tokens of {rows.tokens:,}; the longest has "
        f"{rows.longest:,} tokens, {rows.n_truncated:,} are truncated."
    )


def run_preflight(config: SweepConfig) -> PreflightFacts:
    """Count slots, and check model and data in a child process.

    Raises:
        ConfigError: With every problem that was found.
    """
    with checking(config, count_slots(config)) as found:
        return found()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    """What the machine or the cluster has for trials."""

    cluster: ClusterFacts
    slots: SlotPlan


def count_slots(config: SweepConfig, function: TrialFunction | None = None) -> Room:
    """Return how many trials run at a time; a cluster is joined for that. Takes no time to speak of.

    Raises:
        ConfigError: If there is no room for one, or none of what it trains with.
    """
    address = config.resources.address
    cluster = probe_machine() if address is None else probe_cluster(address, code_of(config, function))
    try:
        slots = plan_slots(config.resources, cluster)
        if slots.gpus_per_trial == 0:
            _refuse_without_gpu(config, cluster)
    except ConfigError:
        if address is not None:  # the next launch of this process is to bring its own code
            from sweeper.executors.ray_session import end

            end()
        raise
    return Room(cluster=cluster, slots=slots)


@contextlib.contextmanager
def checking(
    config: SweepConfig, room: Room, function: TrialFunction | None = None
) -> Iterator[Callable[[], PreflightFacts]]:
    """Check model and data in a child process while the block runs; yield what waits for it, and raises as above.

    Of a function that runs instead of what the config names, model and data are its own business.
    """
    if function is not None:
        warning = _grace_warning(config, room)
        yield lambda: PreflightFacts(cluster=room.cluster, slots=room.slots, data=None, grace_warning=warning)
        return
    place = config.trial.function_dir
    on_gpu = config.resources.address is None and room.slots.gpus_per_trial > 0
    with checking_in_child(config, directory=Path(place) if place else None, trains_on_gpu=on_gpu) as report:
        yield lambda: _facts(config, room, report())


def _facts(config: SweepConfig, room: Room, data: DataReport) -> PreflightFacts:
    return PreflightFacts(
        cluster=room.cluster, slots=room.slots, data=data, cpu_warning=_cpu_warning(config, room, data),
        grace_warning=_grace_warning(config, room),
    )  # fmt: skip


def _grace_warning(config: SweepConfig, room: Room) -> str | None:
    """Say that an interrupt may end before all running trials are recorded; None where there is time for them."""
    n_trials, grace_s = room.slots.slots, config.failures.grace_s
    needed_s = n_trials * _RECORDED_S
    if needed_s <= grace_s:
        return None
    return (
        f"{n_trials} trials run at a time, and once a signal ends the sweep, recording where one of them stands takes "
        f"up to {_RECORDED_S:g} s, all of them {needed_s:.0f} s, but `failures.grace_s` is {grace_s:g}. The last ones "
        f"would go on from an earlier checkpoint. Set it to {math.ceil(needed_s)} or more where what ends the sweep "
        "waits that long, or save on the way by `trial.checkpoint.every_samples`."
    )


def _cpu_warning(config: SweepConfig, room: Room, data: DataReport) -> str | None:
    """Say that a large model would be trained on CPUs for want of a GPU; None where it would not, or is meant to."""
    is_asked_for = config.resources.gpus_per_trial is not None
    if is_asked_for or room.slots.gpus_per_trial or data.model is None:
        return None
    if data.model.n_parameters <= _LARGE_PARAMETERS:
        return None
    if config.resources.address is not None:
        remedy = "Add nodes with GPUs"
    else:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        remedy = f"Launch where GPUs can be seen{hidden}, join a cluster that has some by `--address`"
    return (
        f"{room.cluster.place} shows no GPU, so trials train on CPUs: with {data.model.n_parameters / 1e6:,.0f} "
        f"million parameters that takes many times as long. {remedy}, or set `resources.gpus_per_trial` to 0 "
        "if CPUs are meant."
    )


def _refuse_without_gpu(config: SweepConfig, cluster: ClusterFacts) -> None:
    """Refuse what is made for GPUs.

    Raises:
        ConfigError: If a trial would train in 4 bits on a CPU, which takes many times as long as without them, or with
            kernels that are compiled for GPUs alone.
    """
    if config.trial.function is not None:
        return
    for name, value, instead in (
        ("method", "qlora", "Use `lora`"),
        ("use_liger_kernel", True, "Leave it out"),
    ):
        if value in setting_values(config, name):
            asked = config.resources.gpus_per_trial
            wanted = "" if asked is None else f" and `resources.gpus_per_trial` is {asked:g}"
            raise ConfigError(
                f"`{name}: {str(value).lower()}` needs a GPU, but trials get none: {cluster.place} has "
                f"{cluster.gpus} GPUs{wanted}. {instead}, or run where there are GPUs."
            )
