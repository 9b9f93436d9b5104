"""What people read of a study: the report, `status`, and the words that they share."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeper.study.view import StudyView


def write_report(view: "StudyView", out: Path) -> Path:
    """Write index.html, report.md, trials.csv, trials.parquet, best.yaml and report.json; return the first's path.

    Each file is whole or absent. Where no trial is complete there is no best.yaml, and one of an earlier
    report is removed.
    """
    # Imported here: `status` and the live view need this package's words, not its tables and plots.
    from sweeper.reporting.report import write_report as write

    return write(view, out)


__all__ = ["write_report"]
