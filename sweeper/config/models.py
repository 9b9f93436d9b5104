"""A whole sweep file, as frozen data; its sections lie in `*_models.py`, by what changes together.

Every field is documented in docs/sweep-file.md. Rules that need one value stand with their section; rules that
need several sections stand in `rules_*.py`, so that all of a file's problems can be told at once.
"""

from typing import Annotated, Any

from pydantic import Field, field_validator

from sweeper.config.benchmark_models import BenchmarkSection
from sweeper.config.names import MAX_STUDY_NAME
from sweeper.config.pruner_models import DivergenceSection, PrunerSection, RungSection
from sweeper.config.resource_models import FailureSection, ResourceSection
from sweeper.config.section import Section
from sweeper.config.space_models import Dimension, SamplerSection
from sweeper.config.trial_models import TrialSection
from sweeper.config.values import TrackerName
from sweeper.records import Direction


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
    dir: str | None = Field(default=None, min_length=1)  # the study's directory; None: studies/<study>

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

    @property
    def trusts_function_with_budget(self) -> bool:
        """Whether the data are equal only where the user's own function keeps to the budget."""
        return self.trial.function is not None and self.trial.compare == "equal"
