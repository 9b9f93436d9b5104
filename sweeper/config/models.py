"""The sections of a sweep file, as frozen data with their rules.

Every field is documented in docs/sweep-file.md. Rules that need one value stand here; rules that need
several sections stand in `rules_*.py`, so that all of a file's problems can be told at once.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from sweeper.config.benchmark_models import BenchmarkSection
from sweeper.config.names import (
    EARLY_DYNAMICS,
    MAX_STUDY_NAME,
    METRIC_SCHEDULES,
    OPTIMIZERS,
    SCHEDULER_TYPES,
    TRACKERS,
)
from sweeper.config.section import Float, Section

Direction = Literal["minimize", "maximize"]
SamplerName = Literal["grid", "random", "tpe", "qmc", "gp", "cmaes"]
BUDGET_KINDS = ("samples", "tokens", "epochs", "steps")
DIMENSION_KINDS = ("grid", "choice", "uniform", "log_uniform", "int")
PRUNER_KEYS_RANK = (
    "signals",
    "keep_frac",
    "min_peers",
    "mode",
    "max_gpu_hours",
)  # of early_dynamics, judging by rank
PRUNER_KEYS_LEARNED = (
    "risk",
    "tolerance",
    "n_calibration",
    "skip_waiting",
    "set_aside",
    "fill_slots",
    "audit_frac",
    "prior",
)  # by prediction
PRUNER_KEYS_OWN = (*PRUNER_KEYS_RANK, "directions", *PRUNER_KEYS_LEARNED)
PRUNER_KEYS_FOREIGN = ("signal", "direction", "options")  # of every other pruner
NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"  # of data sets and phases
RUNG_FORMS = ("fractions", "samples", "steps", "first")
GRACE_S = 25.0  # Kubernetes kills 30 s after its SIGTERM, and the lease has to be handed back before


Fraction = Annotated[Float, Field(ge=0, le=1)]


def _as_bounds(value: object) -> object:
    """Let YAML's list of two stand for a pair."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return tuple(value)
    raise PydanticCustomError("bounds", "must be two numbers, [lower, upper]")


def _one_of(names: tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in names:
            raise PydanticCustomError("unknown_name", "must be a known name", {"names": list(names)})
        return value

    return AfterValidator(check)


def _follows_the_step(value: str) -> str:
    if value in METRIC_SCHEDULES:
        raise PydanticCustomError(
            "follows_metric",
            "it follows a metric, not the step, so trials could not be compared; choose for example "
            "`constant`, `linear` or `cosine`",
        )
    return value


def _is_evaluated_as_it_is(value: str) -> str:
    if value.startswith("schedule_free_"):
        raise PydanticCustomError(
            "schedule_free",
            "its weights between steps are not those that it is to be judged by, and a trial is evaluated between "
            "steps; choose for example `adamw_torch` with a constant schedule",
        )
    return value


ScheduleName = Annotated[str, AfterValidator(_follows_the_step), _one_of(SCHEDULER_TYPES)]
OptimizerName = Annotated[str, AfterValidator(_is_evaluated_as_it_is), _one_of(OPTIMIZERS)]
TrackerName = Annotated[str, _one_of(TRACKERS)]
FloatBounds = Annotated[tuple[Float, Float], BeforeValidator(_as_bounds)]
IntBounds = Annotated[tuple[int, int], BeforeValidator(_as_bounds)]


class DataSource(Section):
    """Where rows come from: a local file or directory, or a data set of the hub."""

    path: str = Field(min_length=1)  # JSONL or Parquet file, a directory of them, or a hub id
    name: str | None = None  # the hub data set's configuration
    split: str | None = None  # default: the only split, else `train`
    revision: str | None = None
    limit: int | None = Field(default=None, ge=1)  # only the first rows


def _as_names(value: object) -> object:
    """Let one name stand for a list of one."""
    return [value] if isinstance(value, str) else value


class Phase(Section):
    """One part of a trial that trains in phases: its data, its share of the budget, and its own settings."""

    name: str = Field(pattern=NAME_PATTERN)
    data: Annotated[list[str], BeforeValidator(_as_names), Field(min_length=1)]  # names of `data_sets`
    # Of all phases the same one; neither: equal shares.
    budget_frac: Annotated[Float, Field(gt=0, le=1)] | None = None
    samples: int | None = Field(default=None, ge=1)
    # Not for the first phase. None: `replay_frac`, `phase_start` and `phase_optimizer_state` of the settings.
    replay_frac: Fraction | None = None
    start: Literal["last", "best"] | None = None
    optimizer_state: Literal["fresh", "keep"] | None = None
    # None: the trial's. A schedule and its warm-up are laid out over the phase.
    effective_batch_size: int | None = Field(default=None, ge=1)
    learning_rate: Annotated[Float, Field(gt=0)] | None = None
    lr_scheduler_type: ScheduleName | None = None
    lr_scheduler_kwargs: dict[str, Any] | None = None
    warmup_steps: int | None = Field(default=None, ge=0)
    warmup_samples: int | None = Field(default=None, ge=1)
    warmup_frac: Fraction | None = None


class Budget(Section):
    """How long every point trains. Exactly one is set."""

    samples: int | None = Field(default=None, ge=1)  # training sequences
    tokens: int | None = Field(default=None, ge=1)  # target tokens
    epochs: Float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)  # optimiser steps; not equal data when the batch varies

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kinds that are set; one, unless the search space sweeps the budget."""
        return tuple(kind for kind in BUDGET_KINDS if getattr(self, kind) is not None)


class TrainSettings(Section):
    """The built-in fine-tuning's settings. Each may be fixed here or vary in the search space."""

    model: str | None = Field(default=None, min_length=1)  # of the search space alone; else `trial.model`
    effective_batch_size: int = Field(default=64, ge=1)  # sequences per optimiser step
    # Sequences per pass and rank, at most; `auto`: as many as fit on the GPU that the trial gets, found by trying.
    micro_batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = 8
    learning_rate: Float = Field(default=2e-5, gt=0)
    lr_scheduler_type: ScheduleName = "constant"  # any schedule of transformers that follows the step
    lr_scheduler_kwargs: dict[str, Any] = Field(default_factory=dict)
    warmup_steps: int = Field(default=0, ge=0)
    warmup_samples: int | None = Field(default=None, ge=1)  # of the three forms of warm-up, one at most
    warmup_frac: Fraction = 0.0  # share of the budget
    optimizer: OptimizerName = "adamw_torch"  # any `optim` of transformers
    weight_decay: Float = Field(default=0.0, ge=0)
    adam_beta1: Float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: Float = Field(default=0.95, ge=0, lt=1)
    # Instead of adam_beta2: the target tokens in which a squared gradient's weight halves, at every batch size.
    adam_beta2_half_life_tokens: Float | None = Field(default=None, gt=0, le=1e15)
    adam_epsilon: Float = Field(default=1e-8, gt=0)
    max_grad_norm: Float | None = Field(default=1.0, gt=0)  # None: no clipping; the norm is measured anyway
    max_length: int = Field(default=1024, ge=2)  # tokens; longer rows are truncated
    # How several `data_sets` are trained on. None is `stacked`: all at once; `phased`: as `trial.phases` says.
    data_strategy: Literal["stacked", "phased"] | None = None
    data_weights: dict[str, Annotated[Float, Field(ge=0)]] | None = None  # None: by their rows
    replay_frac: Fraction | None = None  # of a phase's samples, drawn from the phases before; None: 0
    phase_start: Literal["last", "best"] | None = None  # weights that a phase goes on from; None: last
    phase_optimizer_state: Literal["fresh", "keep"] | None = None  # at a phase's start; None: fresh
    packing: bool = False  # rows of a pass joined without padding; needs flash attention to be fast
    loss_on: Literal["answers", "all"] = "answers"  # assistant turns or completion only, or every token
    # qlora: adapters on a base model whose linear layers are kept in 4 bits (NF4, scales quantised once more)
    method: Literal["full", "lora", "qlora"] = "full"
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: Float = Field(default=32.0, gt=0)
    lora_dropout: Float = Field(default=0.0, ge=0, lt=1)
    lora_target_modules: str | list[str] = "all-linear"
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"  # auto: bf16 on GPUs that have it, else fp32
    gradient_checkpointing: bool = False
    attn_implementation: str | None = None  # None: the model's own choice
    seed: int = Field(default=0, ge=0, lt=2**31)  # set to the study's seed unless given


class Evaluation(Section):
    """When and how the eval sets are read."""

    at: Literal["rungs", "end"] | list[Annotated[int, Field(ge=1)]] = (
        "rungs"  # or sample counts; the end is always evaluated
    )
    batch_size: int = Field(default=32, ge=1)
    generate: bool = True  # exact match of greedily generated answers (messages and prompt/completion rows)
    max_new_tokens: int = Field(default=64, ge=1)
    max_rows: int | None = Field(default=None, ge=1)  # per eval set; None: all


class CheckpointPolicy(Section):
    """When a trial saves a checkpoint it can go on from. In samples."""

    every_samples: int | None = Field(default=None, ge=1)
    at: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)
    save_model: bool = False  # keep the final model of every completed trial
    url: str | None = Field(
        default=None, pattern=r"^[a-z0-9+]+://.+"
    )  # by fsspec; None: the study's directory
    keep_best: int | None = Field(default=None, ge=0)  # completed trials that keep theirs; None: all
    max_gb: Float | None = Field(default=None, gt=0)  # for all of a study's checkpoints together
    size_gb: Float | None = Field(
        default=None, gt=0
    )  # of one; None: worked out, where the fine-tuning is built in


class TrialSection(Section):
    """What one trial does: the built-in fine-tuning, or the user's own function."""

    function: str | None = None  # `module:function`; then model and data are the function's own business
    function_dir: str | None = None  # where its module may lie; default: the sweep file's directory
    model: str | None = None  # local path or hub id
    revision: str | None = None  # the hub model's revision
    trust_remote_code: bool = False
    chat_template: str | None = None  # a Jinja file that replaces the tokenizer's own
    train_data: Annotated[list[DataSource], Field(min_length=1)] | None = None  # one after the other
    data_sets: Annotated[dict[str, DataSource], Field(min_length=1)] | None = None  # or several, by name
    phases: Annotated[list[Phase], Field(min_length=1)] | None = None  # of points whose strategy is `phased`
    eval_data: dict[str, DataSource] = Field(default_factory=dict)
    metrics: dict[str, dict[str, Float]] = Field(default_factory=dict)  # name: weighted mean of `set/measure`
    budget: Budget = Field(default_factory=Budget)
    compare: Literal["equal", "unequal"] = "equal"
    evaluation: Evaluation = Field(default_factory=Evaluation)
    checkpoint: CheckpointPolicy = Field(default_factory=CheckpointPolicy)
    settings: dict[str, Any] = Field(default_factory=dict)  # TrainSettings, or free for `function`

    @field_validator("train_data", mode="before")
    @classmethod
    def _as_list(cls, value: object) -> object:
        """Let one source stand for a list of one, and a plain string for `{path: ...}`."""
        if value is None:
            return None
        return [_as_source(item) for item in (value if isinstance(value, list) else [value])]

    @field_validator("eval_data", "data_sets", mode="before")
    @classmethod
    def _plain_paths(cls, value: object) -> object:
        """Let a plain string stand for `{path: ...}`."""
        return {name: _as_source(item) for name, item in value.items()} if isinstance(value, dict) else value

    def with_model(self, model: str | None) -> "TrialSection":
        """Return the section with a point's own model; `id@revision` names a revision of a hub model."""
        if model is None:
            return self
        name, _, revision = model.partition("@") if not model.startswith(("/", ".")) else (model, "", "")
        return self.model_copy(update={"model": name, "revision": revision or None})

    @property
    def sources(self) -> list[DataSource]:
        """Return all that is trained on, in the file's order."""
        return [*(self.train_data or ()), *(self.data_sets or {}).values()]


def _as_source(item: object) -> object:
    return {"path": item} if isinstance(item, str) else item


_ROUNDING = 1e-8  # of steps; Optuna's own


def is_on_step(value: float, *, low: float, step: float | None) -> bool:
    """Whether a number lies a whole number of steps above a lower bound, as Optuna (5.0) counts them; None: anywhere.

    >>> is_on_step(0.3, low=0.1, step=0.1), is_on_step(0.35, low=0.1, step=0.1)
    (True, False)
    """
    if step is None:
        return True
    n_steps = (value - low) / step
    return abs(n_steps - round(n_steps)) < _ROUNDING


class Dimension(Section):
    """One axis of the search space. Exactly one of the five kinds is set."""

    grid: list[Any] | None = Field(default=None, min_length=1)  # every value, in order
    choice: list[Any] | None = Field(default=None, min_length=1)  # categorical
    uniform: FloatBounds | None = None  # bounds inclusive
    log_uniform: FloatBounds | None = None  # bounds inclusive, both > 0
    int: IntBounds | None = None  # bounds inclusive
    step: Annotated[Float, Field(gt=0)] | None = None  # spacing for `uniform` and `int`
    log: bool = False  # for `int`

    @property
    def kind(self) -> str:
        """Return which of the five kinds is set; the first of them, should a file set several."""
        return next(kind for kind in DIMENSION_KINDS if getattr(self, kind) is not None)

    @property
    def listed(self) -> list[Any] | None:
        """Return the values of a `grid` or `choice`; None for a range."""
        return self.grid if self.grid is not None else self.choice

    def nearest_step(self, value: float) -> float:
        """Return the value of a range's grid of steps that is nearest; the value itself where it has none."""
        low, high = getattr(self, self.kind)
        if self._spacing is None:
            return value
        most = math.floor((high - low) / self._spacing + _ROUNDING)
        n_steps = min(most, max(0, round((value - low) / self._spacing)))
        return float(low + n_steps * self._spacing)

    def is_on_step(self, value: float) -> bool:
        """Whether a number between a range's bounds lies on its grid of steps."""
        return is_on_step(value, low=getattr(self, self.kind)[0], step=self._spacing)

    @property
    def _spacing(self) -> float | None:
        return 1 if self.step is None and self.int is not None else self.step


class SamplerSection(Section):
    """Who proposes points. `grid` takes them all; the others draw `n_trials`."""

    name: SamplerName = "grid"
    n_trials: int | None = Field(default=None, ge=1)  # needed by all but grid
    options: dict[str, Any] = Field(default_factory=dict)  # passed to Optuna's class


class RungSection(Section):
    """Where trials are compared: `fractions`, `samples`, `steps`, or `first` with `reduction_factor`."""

    fractions: list[Annotated[Float, Field(gt=0, lt=1)]] | None = None  # of the budget
    samples: list[Annotated[int, Field(ge=1)]] | None = None
    steps: list[Annotated[int, Field(ge=1)]] | None = None  # needs `compare: unequal` when batches differ
    first: int | None = Field(default=None, ge=1)  # samples
    reduction_factor: int | None = Field(default=None, ge=2)


class SignalWeight(Section):
    """One signal in a rank: which direction is good, and how much it weighs."""

    direction: Direction
    weight: Float = Field(default=1.0, gt=0)


class PrunerSection(Section):
    """Who stops trials: ours, one of Optuna's by name, or `module:Class`."""

    name: str = EARLY_DYNAMICS
    window_steps: int = Field(default=8, ge=1)  # optimiser steps that a windowed signal is the mean of
    # early_dynamics. Without `directions`: `learned`, unless an option of the rank is given.
    directions: Literal["learned", "paper"] | None = None  # None: `signals` has them
    signals: dict[str, SignalWeight] | None = None  # ranked; default: the paper's directions
    keep_frac: Annotated[Float, Field(gt=0, lt=1)] = 0.5  # the best fraction at each rung goes on
    min_peers: int = Field(
        default=4, ge=2
    )  # trials that must have reached a rung before anyone is judged there
    # Judge at once; or only when no later report can change it; or once all have come to the rung and wait there.
    mode: Literal["eager", "certain", "probe"] = "eager"
    # probe: `keep_frac` becomes what so many allow, by measured steps; without GPUs an hour of a slot counts.
    max_gpu_hours: Annotated[Float, Field(gt=0)] | None = None
    risk: Annotated[Float, Field(gt=0, lt=1)] = 0.05  # of missing the grid's best by more than the tolerance
    tolerance: Annotated[Float, Field(ge=0)] | None = None  # in units of the metric; None: by the noise seen
    n_calibration: int | None = Field(
        default=None, ge=4
    )  # points that run to their end first; None: by the grid
    skip_waiting: bool = True  # stop points before their start too
    set_aside: bool | None = (
        None  # give slots to more promising trials; None: where the built-in trial trains
    )
    # Start something on every free slot, instead of waiting for a far likelier trial: sooner done, more training.
    fill_slots: bool = False
    audit_frac: Fraction = 0.1  # of the condemned trials, goes on to check the rule
    # An earlier study's directory, or a recorded sweep's file, of the same model, data, metric and budget.
    prior: str | None = Field(default=None, min_length=1)
    # Optuna's pruners and `module:Class`
    signal: str | None = None  # judged instead of the study's metric
    direction: Direction | None = None  # of that signal
    options: dict[str, Any] = Field(default_factory=dict)  # passed to the pruner's class

    @model_validator(mode="before")
    @classmethod
    def _resolve_directions(cls, data: object) -> object:
        """Write out which way early_dynamics judges, so that a recorded config means the same ever after."""
        if not isinstance(data, dict) or data.get("name", EARLY_DYNAMICS) != EARLY_DYNAMICS:
            return data
        if data.get("directions") is not None or data.get("signals") is not None:
            return data
        is_ranked = any(key in data for key in PRUNER_KEYS_RANK if key != "signals")
        return {**data, "directions": "paper" if is_ranked else "learned"}


class DivergenceSection(Section):
    """What counts as diverged; works beside any pruner. `false` switches a rule off."""

    nan: bool = True  # NaN or Inf in loss or gradient norm
    loss_spike: bool = True
    loss_spike_factor: Float = Field(default=3.0, gt=1)  # times the trial's own best windowed median
    grad_norm_explosion: bool = True
    grad_norm_factor: Float = Field(default=100.0, gt=1)  # times the trial's own median norm
    patience_steps: int = Field(default=8, ge=1)  # so many steps in a row


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

    def share(self, gpus_per_trial: float) -> dict[str, float]:
        """Return the Ray resources of each worker, given the GPUs that a trial gets."""
        gpus = {"GPU": gpus_per_trial / self.n_workers} if gpus_per_trial else {}
        return {"CPU": self.cpus_per_trial / self.n_workers, **gpus, **self.custom_resources}

    @property
    def threads_per_worker(self) -> int:
        """Return how many threads a worker computes with; sums of floats differ with it."""
        return max(1, (self.threads_per_trial or self.cpus_per_trial) // self.n_workers)


class SweepConfig(Section):
    """A whole sweep file."""

    study: str = Field(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_STUDY_NAME - 1}}}$")
    seed: int = Field(default=0, ge=0, lt=2**31)
    metric: str = Field(min_length=1)
    direction: Direction
    trial: TrialSection
    search_space: dict[str, Dimension]  # empty: one point, the settings as they are
    points: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = (
        None  # of the grid; None: all of them
    )
    sampler: SamplerSection = Field(default_factory=SamplerSection)
    rungs: RungSection = Field(default_factory=RungSection)
    pruner: PrunerSection = Field(default_factory=PrunerSection)
    divergence: DivergenceSection = Field(default_factory=DivergenceSection)
    failures: FailureSection = Field(default_factory=FailureSection)
    resources: ResourceSection = Field(default_factory=ResourceSection)
    benchmarks: BenchmarkSection | None = None
    trackers: list[TrackerName] = Field(default_factory=list)  # told of every trial, beside the study
    storage: str | None = None  # Optuna URL; None: the journal file in the study's directory
    dir: str | None = None  # the study's directory; None: studies/<study>

    @field_validator("sampler", "pruner", mode="before")
    @classmethod
    def _plain_names(cls, value: object) -> object:
        """Let a plain string stand for `{name: ...}`."""
        return {"name": value} if isinstance(value, str) else value

    @property
    def sets_aside(self) -> bool:
        """Whether trials may be set aside: as the user says, else where they surely save their work themselves."""
        asked = self.pruner.set_aside
        return self.trial.function is None if asked is None else asked
