"""Opening a recorded sweep, wherever it lies."""

from sweeper.study.recorded import RecordedSweep, parse_direction, record_study
from sweeper.study.recorded_files import is_recorded_file, load_recorded
from sweeper.study.study import Study


def open_recorded(
    place: str, *, storage: str | None = None, metric: str | None = None, direction: str | None = None
) -> RecordedSweep:
    """Return a recorded sweep: a study, or a Parquet or JSONL file.

    Args:
        place: A study's directory or name, or the file.
        storage: The study's Optuna URL.
        metric: Judge by this metric, which was measured too, instead of the sweep's own.
        direction: Of the metric, where it is not the sweep's own.

    Raises:
        ConfigError: If it does not hold what a replay needs.
        StudyMismatchError: If there is no such study.
    """
    if is_recorded_file(place):
        return load_recorded(place, metric=metric, direction=direction)
    sweep = record_study(Study.open(place, url=storage))
    if metric is None and direction is None:
        return sweep
    return sweep.with_metric(metric or sweep.metric, parse_direction(direction) if direction else None)
