"""TensorBoard's event files, below the study's directory: `tensorboard --logdir STUDY/tensorboard`.

Written by tensorboardX, which Ray Tune brings along and which needs neither torch nor TensorFlow in the driver.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

from sweeper.looking import is_directory
from sweeper.reporting.formats import params_text
from sweeper.trackers.base import BY_SAMPLES, Point, Run


class TensorBoardTracker:
    """A directory per trial; a trial that is tried again adds a file to its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writers: dict[int, SummaryWriter] = {}

    def start(self, run: Run) -> bool:
        was_there = is_directory(self._place(run))
        writer = self._writer(run)
        writer.add_text("params", params_text(run.params), run.step)
        return was_there

    def log(self, run: Run, points: Sequence[Point]) -> None:
        writer = self._writer(run)
        for point in points:
            for name, value in point.values.items():
                writer.add_scalar(name, value, point.step)
                writer.add_scalar(BY_SAMPLES + name, value, point.samples)
        writer.flush()

    def tag(self, run: Run, tags: Mapping[str, str]) -> None:
        writer = self._writer(run)
        for name, text in tags.items():
            writer.add_text(name, text, run.step)
        writer.flush()

    def end(self, run: Run) -> None:
        if run.number in self._writers:
            self._writers.pop(run.number).close()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, run: Run) -> SummaryWriter:
        if run.number not in self._writers:
            self._writers[run.number] = SummaryWriter(str(self._place(run)))
        return self._writers[run.number]

    def _place(self, run: Run) -> Path:
        return self._directory / f"trial-{run.number:05d}"
