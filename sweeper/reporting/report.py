"""Writes a study's report: one door for all its files."""

import json
from pathlib import Path

from sweeper.files import write_text
from sweeper.reporting.best import best_yaml
from sweeper.reporting.markdown import report_markdown
from sweeper.reporting.page import report_page
from sweeper.reporting.tables import report_json, trials_frame
from sweeper.study.view import StudyView


def write_report(view: StudyView, out: Path) -> Path:
    """Write index.html, report.md, trials.csv, best.yaml and report.json; return the path of index.html."""
    out.mkdir(parents=True, exist_ok=True)
    best = view.best
    if best is None:
        # One of an earlier report would say that there is a best point.
        (out / "best.yaml").unlink(missing_ok=True)
    else:
        write_text(out / "best.yaml", best_yaml(view, best))
    write_text(out / "trials.csv", trials_frame(view).to_csv(index=False))
    write_text(out / "report.json", json.dumps(report_json(view), indent=1, allow_nan=False) + "\n")
    write_text(out / "report.md", report_markdown(view))
    index = out / "index.html"
    write_text(index, report_page(view, out))
    return index
