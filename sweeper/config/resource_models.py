"""The `resources` and `failures` sections: what trials run on, and what becomes of those that fail."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sweeper.config.section import Float, Section

GRACE_S = 25.0  # Kubernetes kills 30 s after its SIGTERM, and the lease has to be handed back before


class FailureSection(Section):
    """How often a failed trial is tried again, and when the sweep gives up."""

    retries: int = Field(default=1, ge=0)  # further attempts of one trial
    max_consecutive: int = Field(default=5, ge=1)  # trials that FAIL in a row before the sweep stops
    grace_s: Float = Field(
        default=GRACE_S, gt=0
    )  # for running trials to save a checkpoint once a signal ends the sweep


class ResourceSection(Section):
    """What one trial gets, and how many run at a time."""

    slots: int | None = Field(default=None, ge=1)  # trials at a time; None: as many as fit
    # None: 1 for each worker where there are GPUs, else 0. Above 1: a worker for each.
    gpus_per_trial: Annotated[Float, Field(ge=0)] | None = None
    cpus_per_trial: int = Field(default=1, ge=1)  # of all its workers together; default: 1 for each
    threads_per_trial: int | None = Field(default=None, ge=1)  # None: cpus_per_trial
    workers_per_trial: int | None = Field(default=None, ge=1)  # None: gpus_per_trial, at least 1
    sharding: Literal["fsdp2"] | None = None  # None: every worker holds the whole model (DDP)
    placement: Literal["pack", "spread"] | None = None  # of a trial's workers; None: pack
    # Further Ray resources of every worker, for example {"accelerator_type:A100": 0.001}.
    custom_resources: dict[str, Annotated[Float, Field(gt=0)]] = Field(default_factory=dict)
    address: str | None = None  # a running Ray cluster
    # How much more memory than after its first trial a worker may hold between trials before it is replaced.
    worker_growth_gb: Float = Field(default=2.0, gt=0)
    # Wall-clock seconds of a launch, and of each resume, after which the sweep ends as at an interrupt.
    time_budget_s: Annotated[Float, Field(gt=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _resolve_cpus(cls, data: object) -> object:
        """Write out that every worker has a core, so that a recorded config means the same ever after."""
        if not isinstance(data, dict) or data.get("cpus_per_trial") is not None:
            return data
        counts = [data.get("workers_per_trial"), data.get("gpus_per_trial")]
        numbers = [int(n) for n in counts if isinstance(n, (int, float)) and n > 1]
        return {**data, "cpus_per_trial": numbers[0]} if numbers else data

    @property
    def n_workers(self) -> int:
        """Return how many processes train one trial together, each on data of its own."""
        return self.workers_per_trial or max(1, int(self.gpus_per_trial or 0))

    def gpus_where(self, has_gpus: bool) -> float:
        """Return the GPUs that a trial gets, given whether there are any."""
        if self.gpus_per_trial is not None:
            return self.gpus_per_trial
        return float(self.n_workers) if has_gpus else 0.0

    def share(self, gpus_per_trial: float) -> dict[str, float]:
        """Return the Ray resources of each worker, given the GPUs that a trial gets."""
        gpus = {"GPU": gpus_per_trial / self.n_workers} if gpus_per_trial else {}
        return {"CPU": self.cpus_per_trial / self.n_workers, **gpus, **self.custom_resources}

    @property
    def threads_per_worker(self) -> int:
        """Return how many threads a worker computes with; sums of floats differ with it."""
        return max(1, (self.threads_per_trial or self.cpus_per_trial) // self.n_workers)
