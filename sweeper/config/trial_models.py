"""The `trial` section: model, data, budget and settings of one training."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from sweeper.config.section import Float, Section
from sweeper.config.values import NAME_PATTERN, Fraction, OptimizerName, ScheduleName

BUDGET_KINDS = ("samples", "tokens", "epochs", "steps")


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
    use_liger_kernel: bool = (
        False  # Liger's fused norms, rotary positions and feed-forward layers; needs a GPU
    )
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
    max_gb: Float | None = Field(default=None, gt=0, le=1e9)  # for all of a study's checkpoints together
    size_gb: Float | None = Field(
        default=None, gt=0, le=1e9
    )  # of one; None: worked out, where the fine-tuning is built in


class TrialSection(Section):
    """What one trial does: the built-in fine-tuning, or the user's own function."""

    function: str | None = None  # `module:function`; then model and data are the function's own business
    function_dir: str | None = None  # where its module may lie; default: the sweep file's directory
    model: str | None = Field(default=None, min_length=1)  # local path or hub id
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
