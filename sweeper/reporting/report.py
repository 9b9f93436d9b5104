"""Writes a study's report: one door for all its files."""

import json
from pathlib import Path

from sweeper.errors import ConfigError
from sweeper.files import write_bytes, write_error, write_text
from sweeper.reporting import report_files
from sweeper.reporting.best import best_yaml
from sweeper.reporting.findings import findings_of
from sweeper.reporting.formats import jsonable
from sweeper.reporting.markdown import report_markdown
from sweeper.reporting.page import report_page
from sweeper.reporting.tables import parquet_bytes, report_json, trials_frame
from sweeper.study.view import StudyView


def write_report(view: StudyView, out: Path) -> Path:
    """Write index.html, report.md, the tables of trials, best.yaml and report.json; return the path of the first.

    Raises:
        SweeperError: If the directory or a file cannot be written.
    """
    findings = findings_of(view)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError(
            f"`{out}` is a file, but a report is a directory. Give another place with `--out`."
        ) from error
    except OSError as error:
        raise write_error(out, error) from error
    best = view.best
    if best is None:
        # One of an earlier report would say that there is a best point.
        (out / report_files.BEST).unlink(missing_ok=True)
    else:
        write_text(out / report_files.BEST, best_yaml(view, best))
    trials = trials_frame(view)
    write_text(out / report_files.TRIALS_CSV, trials.to_csv(index=False))
    write_bytes(out / report_files.TRIALS_PARQUET, parquet_bytes(trials))
    content = report_json(view) | jsonable(findings.as_json(view))
    write_text(out / report_files.JSON, json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_text(out / report_files.MARKDOWN, report_markdown(view))
    index = out / report_files.INDEX
    write_text(index, report_page(view, out, findings))
    return index
