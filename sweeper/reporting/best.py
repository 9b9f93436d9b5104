"""The best point as a sweep file of its own, that trains it in full."""

import shlex
from pathlib import Path

from sweeper.config import dump_config
from sweeper.config.models import SweepConfig
from sweeper.config.names import MAX_STUDY_NAME
from sweeper.config.pruner_models import PrunerSection
from sweeper.config.space_models import Dimension, SamplerSection
from sweeper.config.trial_models import Budget
from sweeper.records import TrialRecord
from sweeper.reporting.formats import exact, one_line, params_text
from sweeper.reporting.origins import warm_text
from sweeper.reporting.report_files import BEST
from sweeper.study import layout
from sweeper.study.view import StudyView


def best_config(config: SweepConfig, best: TrialRecord) -> SweepConfig:
    """Return a sweep of one trial: `best`'s params, each fixed by a grid of one value, no pruning, its model kept.

    Its budget is what `best` had: the sweep's own was rounded to whole steps of every batch size. A user's function
    keeps what it writes.
    """
    trial = config.trial
    if trial.function is None:
        kept = trial.checkpoint.model_copy(update={"save_model": True})
        trial = trial.model_copy(update={"checkpoint": kept})
    if best.budget_samples is not None and trial.budget.kinds and trial.budget.steps is None:
        trial = trial.model_copy(update={"budget": Budget(samples=best.budget_samples)})
    return config.model_copy(
        update={
            "trial": trial,
            "study": f"{config.study[: MAX_STUDY_NAME - len('-best')]}-best",
            "search_space": {name: Dimension(grid=[value]) for name, value in best.params.items()},
            "points": None,
            "sampler": SamplerSection(name="grid"),
            "pruner": PrunerSection(name="nop"),
            # The study's own directory holds the sweep; this is another study.
            "dir": None,
            # Nor has its cluster to be there any more when this one is launched.
            "resources": config.resources.model_copy(update={"address": None}),
        }
    )


def best_yaml(view: StudyView, best: TrialRecord) -> str:
    """Return the sweep file of the best point, with a header that says where it comes from."""
    config = best_config(view.config, best)
    keeping = " and keep its model" if config.trial.checkpoint.save_model else ""
    header = [
        f"# The best point of study {view.name}: trial {best.number} of {len(view.records)}.",
        f"# {one_line(view.config.metric)} = {exact(best.value)} ({view.config.direction})",
        f"# {params_text(best.params)}",
        *(
            [f"# It {warm_text(best)}. This file trains from scratch, which need not give that value."]
            if best.is_warm_started
            else []
        ),
        f"# Train it in full{keeping}:  sweeper launch {BEST}",
        f"# The study {config.study} lies in {layout.STUDIES}/ of where that is launched, unless `--dir DIR` is given.",
    ]
    if view.config.resources.address is not None:
        header.append(f"# On a cluster, as the sweep: --address {view.config.resources.address}")
    return "\n".join(header) + "\n" + dump_config(config)


def launch_command(out: Path) -> str:
    """Return the command that trains the best point in full."""
    return f"sweeper launch {shlex.quote(str(out / BEST))}"
