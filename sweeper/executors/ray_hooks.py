"""What Tune calls: where it asks for trials, tells results and ends. All of it is handed on to the bridge."""

import contextlib
import signal
import threading
from pathlib import Path
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweeper.executors.ray_bridge import Bridge


class StudySearcher(Searcher):  # type: ignore[misc]  # ray ships no types
    """Gives Tune the points that the study has left."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(metric=None, mode=None)
        self._bridge = bridge

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        return self._bridge.guarded(lambda: self._bridge.suggest(trial_id), Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing to do: the scheduler has carried everything in already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the study is the truth."""


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]  # ray ships no types
    """Carries results to the orchestrator, and its decisions to Tune."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        stop = str(TrialScheduler.STOP)
        return self._bridge.guarded(lambda: self._bridge.on_result(trial.trial_id, result), stop)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        def carry_in() -> None:
            self._bridge.on_lost(trial.trial_id, f"the worker process ended: {_last_words(trial)}")

        self._bridge.guarded(carry_in, None)


def _last_words(trial: Trial) -> str:
    """Return what Ray wrote down about a trial's error: the last line that says something."""
    lines: list[str] = []
    if trial.error_file:
        with contextlib.suppress(OSError):  # it was never written, or cannot be read
            lines = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "Ray gave no reason")


class SweepEnd(Stopper):  # type: ignore[misc]  # ray ships no types
    """Ends Tune's run where all that it waits for is room on the cluster: it would do so for ever (ray 2.60)."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._bridge.hand_back()


class SweepWatch(Callback):  # type: ignore[misc]  # ray ships no types
    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def setup(
        self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any
    ) -> None:
        """Take SIGUSR1 back: Tune takes it whatever its settings say, and would end the sweep as if it were done."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._bridge.on_sigusr1)

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._bridge.drain()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._bridge.on_started(trial.trial_id)
