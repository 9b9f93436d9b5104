"""The trial that is exported, with everything about it that another trainer has to be told."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sweeper.batch import AUTO, AUTO_ON_CPU, BatchPlan
from sweeper.config.resource_models import ResourceSection
from sweeper.config.trial_models import TrainSettings, TrialSection
from sweeper.errors import ConfigError, StudyMismatchError
from sweeper.optimizer import BETA2, warmup_in_steps
from sweeper.plan import DataFacts, Point
from sweeper.plan.phases import is_phased
from sweeper.plan.points import plan_point
from sweeper.records import HOST, TrialRecord, TrialState
from sweeper.study.environment import environment_of
from sweeper.study.view import StudyView
from sweeper.training.data_identity import pinned


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precision:
    """What passes are computed in, and how that is known."""

    name: str  # bf16, fp16 or fp32
    has_gpu: bool  # one that computes in bf16
    note: str | None = None  # a sentence, where it was not given


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChosenTrial:
    """One trial of a study, resolved."""

    view: StudyView
    record: TrialRecord
    trial: TrialSection
    settings: TrainSettings  # every default written out
    point_id: str
    batch: BatchPlan
    total_steps: int
    precision: Precision
    trusts_code: bool = False  # whether who exports lets the model's own code run, as the study did

    @property
    def read_here(self) -> TrialSection:
        """The trial section to load a tokenizer by: the study's word alone lets no code run in this process."""
        return self.trial.model_copy(
            update={"trust_remote_code": self.trial.trust_remote_code and self.trusts_code}
        )

    @property
    def name(self) -> str:
        """What its output is called: study and number."""
        return f"{self.view.name}-trial-{self.record.number}"

    @property
    def samples(self) -> int:
        """The budget in whole steps."""
        return self.total_steps * self.batch.effective_batch_size

    @property
    def warmup_steps(self) -> int:
        """Steps of warm-up, however it was given."""
        return warmup_in_steps(
            steps=self.settings.warmup_steps,
            samples=self.settings.warmup_samples,
            frac=self.settings.warmup_frac,
            effective_batch_size=self.batch.effective_batch_size,
            total_steps=self.total_steps,
        )

    @property
    def learns_answers_only(self) -> bool:
        return self.settings.loss_on == "answers"

    @property
    def is_lora(self) -> bool:
        return self.settings.method != "full"

    @property
    def is_in_4_bits(self) -> bool:
        """Whether the frozen weights are: NF4 with double quantisation."""
        return self.settings.method == "qlora"

    def module_names(self, tool: str) -> list[str] | None:
        """Return the modules that get adapters, for a tool that knows names alone; None: all linear ones.

        Raises:
            ConfigError: If they are given as a pattern.
        """
        modules = self.settings.lora_target_modules
        if modules == "all-linear":
            return None
        if isinstance(modules, str):
            raise ConfigError(
                f"`lora_target_modules` = {modules!r} is a pattern, and {tool} takes names of modules alone. Choose "
                "`--format trl` or `axolotl`, which take patterns."
            )
        return list(modules)


def chosen_record(view: StudyView, number: int | None) -> TrialRecord:
    """Return the best trial, or the one with a number.

    Raises:
        StudyMismatchError: If no trial has completed, or there is none of this number.
    """
    if number is not None:
        return view.record(number)
    if view.best is None:
        counts = ", ".join(
            f"{view.count(state)} {state.name.lower()}" for state in TrialState if view.count(state)
        )
        raise StudyMismatchError(
            f"No trial of study `{view.name}` has completed: {counts or 'it has no trials'}. There is no best trial "
            "yet; give one with `--trial N`, or wait until one is complete."
        )
    return view.best


def choose_trial(
    view: StudyView, facts: DataFacts | None, number: int | None, *, trusts_code: bool = False
) -> ChosenTrial:
    """Resolve the best trial of a study, or the one with a number.

    Raises:
        ConfigError: If the study trains with a function of its own, or the trial was trained in phases.
        StudyMismatchError: If there is no such trial, or its data was not counted yet.
    """
    config = view.config
    record, point = _sayable(view, facts, number)
    total_steps = record.total_steps or point.total_steps
    assert point.batch is not None, "the built-in fine-tuning has a batch"
    if total_steps is None:
        raise StudyMismatchError(
            f"Trial {record.number} of study `{view.name}` has a budget in {' or '.join(config.trial.budget.kinds)} "
            "and its data was not counted yet, so its steps are not known. Launch the study first."
        )
    if point.settings[BETA2] is None:
        raise StudyMismatchError(
            f"Trial {record.number} of study `{view.name}` takes its beta2 from a half-life in tokens, and its data "
            "was not counted yet. Launch the study first."
        )
    settings = TrainSettings.model_validate(point.settings)
    return ChosenTrial(
        view=view,
        record=record,
        trial=pinned(config.trial.with_model(settings.model), facts.sources if facts is not None else {}),
        settings=settings,
        point_id=record.point_id or point.point_id,
        batch=_trained(point.batch, view, record, settings),
        total_steps=total_steps,
        precision=used_precision(
            settings, config.resources, environment_of(view, _trained_one(view, record))
        ),
        trusts_code=trusts_code,
    )


def _sayable(view: StudyView, facts: DataFacts | None, number: int | None) -> tuple[TrialRecord, Point]:
    """Return the chosen trial and its point, if another trainer's file can say how it was trained.

    Raises:
        ConfigError: If not.
    """
    config = view.config
    if config.trial.function is not None:
        raise ConfigError(
            f"Study `{view.name}` trains with the function `{config.trial.function}`, whose settings only that "
            "function knows, so no other trainer's file can be written. `sweeper report` writes best.yaml, which "
            "trains the best point again; `--lock` and `--model` work for every study."
        )
    record = chosen_record(view, number)
    point = plan_point(config, record.params, facts=facts)
    if is_phased(config, point.settings):
        raise ConfigError(
            f"Trial {record.number} of study `{view.name}` was trained in phases, which no other trainer's file can "
            "say. `sweeper report` writes best.yaml, which trains it again; `--lock` and `--model` work too."
        )
    return record, point


def _trained(batch: BatchPlan, view: StudyView, record: TrialRecord, settings: TrainSettings) -> BatchPlan:
    """Return the batch as the trial cut it, where that was written down."""
    source = _trained_one(view, record)
    size = source.history[-1].get("micro_batch_size") if source.history else None
    if settings.micro_batch_size == AUTO:
        return batch.cut(size if isinstance(size, int) else AUTO_ON_CPU)
    return batch.within(size if isinstance(size, int) else None)


def _trained_one(view: StudyView, record: TrialRecord) -> TrialRecord:
    """Return the trial that was trained: another one, where this one was read off it."""
    number = record.number if record.read_off is None else record.read_off
    return view.record(number)


def used_precision(
    settings: TrainSettings, resources: ResourceSection, environment: Mapping[str, Any]
) -> Precision:
    """Return the precision that the trial computed in.

    `auto` is taken from what its newest attempt ran on. Where that left no word, it is taken from the GPUs that each
    trial was given, and where the file does not say how many, from this machine.

    Args:
        settings: Of the trial.
        resources: Of the study.
        environment: What the trial's newest attempt stands on, as `environment_of` returns it.
    """
    if settings.precision in ("fp32", "fp16"):
        return Precision(name=settings.precision, has_gpu=settings.precision == "fp16")
    device = environment.get("device")
    if device is not None:
        # A version that did not write down whether a GPU computes in bf16 is taken to have had one that does.
        has_gpu = device != HOST and bool(environment.get("computes_in_bf16", True))
        told_by = "the CPU that it ran on" if device == HOST else f"the {device} that it ran on"
    elif resources.gpus_per_trial is not None:
        has_gpu, told_by = resources.gpus_per_trial > 0, f"gpus_per_trial = {resources.gpus_per_trial:g}"
    else:
        has_gpu, told_by = _has_bf16_gpu(), "this machine, where the file was written"
    if settings.precision == "bf16":
        return Precision(name="bf16", has_gpu=has_gpu)
    name = "bf16" if has_gpu else "fp32"
    return Precision(
        name=name, has_gpu=has_gpu, note=f"`precision: auto` was taken as {name}, going by {told_by}."
    )


def _has_bf16_gpu() -> bool:
    # Imported here: it loads torch, which takes seconds.
    from sweeper.training.model import precision

    return precision(TrainSettings(precision="auto")) == "bf16"
