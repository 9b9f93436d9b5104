"""Weights & Biases: online where WANDB_MODE says so or WANDB_API_KEY is set, else offline in the study's directory.

`wandb sync STUDY/wandb/offline-run-*` sends what was kept offline.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import wandb

from sweeper.records import TrialState
from sweeper.trackers.base import Point, Run

_MAX_TAG = 64  # characters, by wandb's own rule


class WandbTracker:
    """A group per study's name, a run per trial. `step` and `samples` are both axes.

    Args:
        study: Its name.
        directory: Its directory.
        created: When it was made; runs of an earlier study of this name are not its own.
    """

    def __init__(self, study: str, directory: Path, created: str) -> None:
        self._study = study
        # An id may hold no colon.
        self._ids = f"{study}-{hashlib.sha256(created.encode()).hexdigest()[:8]}"
        self._directory = directory
        self._runs: dict[int, Any] = {}
        is_chosen = "WANDB_MODE" in os.environ or "WANDB_API_KEY" in os.environ
        self._mode: Literal["offline"] | None = None if is_chosen else "offline"

    def start(self, run: Run) -> bool:
        was_open = run.number in self._runs
        # Kept offline, each driver's part is a directory of its own, which may be sent without the others.
        return bool(self._run(run).resumed) or was_open

    def log(self, run: Run, points: Sequence[Point]) -> None:
        opened = self._run(run)
        for point in points:
            opened.log({"step": point.step, "samples": point.samples, **point.values})

    def tag(self, run: Run, tags: Mapping[str, str]) -> None:
        opened = self._run(run)
        short = [text[:_MAX_TAG] for name, text in tags.items() if name != "reason" and text]
        opened.tags = tuple(dict.fromkeys([*(opened.tags or ()), *short]))
        opened.summary.update(dict(tags))

    def end(self, run: Run) -> None:
        opened = self._run(run)
        opened.finish(exit_code=1 if run.state is TrialState.FAIL else 0)
        del self._runs[run.number]

    def close(self) -> None:
        for opened in self._runs.values():
            opened.finish()
        self._runs.clear()

    def _run(self, run: Run) -> Any:
        if run.number not in self._runs:
            opened = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "sweeper"), group=self._study, dir=str(self._directory),
                id=f"{self._ids}-{run.number}", name=f"trial-{run.number}", resume="allow", mode=self._mode,
                config=dict(run.params), reinit="create_new",
                settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True),
            )  # fmt: skip
            opened.define_metric("step", hidden=True)
            opened.define_metric("*", step_metric="step")
            self._runs[run.number] = opened
        return self._runs[run.number]
