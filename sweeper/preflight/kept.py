"""What a sweep's trials keep in the study's directory from the nodes that they run on. Pure."""

import dataclasses
from collections.abc import Callable
from typing import Any

from sweeper.config.models import SweepConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptInStudy:
    """What is written there on a node, and lost with the node where it does not share the directory."""

    checkpoints: bool = True  # not where they go to an object store
    models: bool = False  # final ones, which `sweeper export --model` or a benchmark reads afterwards
    is_built_in: bool = True  # else only the trial's function knows whether it saves a checkpoint

    @property
    def is_needed(self) -> bool:
        """Whether the sweep, or what its config asks for afterwards, cannot do without."""
        return self.models or (self.checkpoints and self.is_built_in)

    @property
    def in_words(self) -> str:
        kept = ["checkpoints"] if self.checkpoints else []
        kept += ["final models"] if self.models else []
        kept += ["the scores by item that `sweeper compare` reads"] if self.is_built_in else []
        return f"{', '.join(kept)} and what each ran on" if kept else "what each ran on"

    @property
    def way_out(self) -> str:
        """Return what object stores can do about it, as the end of a sentence."""
        if not self.checkpoints:
            return "; the object store of `trial.checkpoint.url` takes checkpoints alone"
        return "" if self.models else ", or keep checkpoints in an object store (`trial.checkpoint.url`)"


def kept_in_study(config: SweepConfig, function: Callable[..., Any] | None = None) -> KeptInStudy:
    """Return what a sweep's trials keep there; a function may run instead of what the config names."""
    policy, benchmarks = config.trial.checkpoint, config.benchmarks
    is_built_in = config.trial.function is None and function is None
    measures_models = benchmarks is not None and benchmarks.when == "finalists"
    return KeptInStudy(
        checkpoints=policy.url is None, models=measures_models or (is_built_in and policy.save_model),
        is_built_in=is_built_in,
    )  # fmt: skip
