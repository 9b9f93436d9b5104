"""The commands that read a study and change nothing."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeper import completion
from sweeper.cli_watch import watch as watch_study
from sweeper.cli_words import AsJson, Storage, StudyPlace, out_path, tell
from sweeper.errors import SweeperError
from sweeper.help_text import examples
from sweeper.study import layout

FormatName = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="trl, axolotl, llamafactory, training-args or training-hub.",
        autocompletion=completion.export_formats,
    ),
]
ChosenTrial = Annotated[
    int | None,
    typer.Option("--trial", metavar="N", help="Default: the best.", autocompletion=completion.trials),
]
Recorded = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A study, or a .parquet or .jsonl file of recorded curves.",
        autocompletion=completion.studies,
    ),
]
PrunerNames = Annotated[
    list[str] | None,
    typer.Option(
        "--pruner",
        metavar="NAME",
        help="May be given again; 'NAME key=value' sets it alone.",
        autocompletion=completion.pruners,
    ),
]


def status(
    study: StudyPlace,
    storage: Storage = None,
    as_json: AsJson = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Follow until the study ends; with --json a line for every change."),
    ] = False,
) -> None:
    """Print where a study stands."""
    from sweeper.api import load_study
    from sweeper.reporting.status import status_json, status_text

    if watch:
        watch_study(study, storage, as_json=as_json)
        return
    view = load_study(study, storage=storage)
    tell(lambda: status_json(view), lambda: status_text(view), as_json=as_json)


def evidence(study: StudyPlace, storage: Storage = None, as_json: AsJson = False) -> None:
    """Print what each early signal was worth: how far it predicted the final metric."""
    from sweeper.api import load_study
    from sweeper.evidence_text import evidence_json, format_evidence

    view = load_study(study, storage=storage)
    tell(lambda: evidence_json(view), lambda: format_evidence(view), as_json=as_json)


def report(
    study: StudyPlace,
    storage: Storage = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=out_path, metavar="DIR", help="Default: report/ of the study."),
    ] = None,
    png: Annotated[
        bool, typer.Option("--png", help="Also draw the main plots as PNGs; needs the extra `png`.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write index.html, report.md, trials.csv, trials.parquet, best.yaml and report.json; print the first's path."""
    from sweeper.api import load_study
    from sweeper.reporting import write_report

    view = load_study(study, storage=storage)
    place = out or view.directory / layout.REPORT
    pictures = []
    if png:
        from sweeper.reporting.pictures import write_pictures

        pictures = write_pictures(view, place)
    index = write_report(view, place)
    told = {"report": str(index), "pictures": [str(path) for path in pictures]}
    tell(lambda: told, lambda: "\n".join(str(path) for path in [index, *pictures]), as_json=as_json)


def ui(
    study: StudyPlace,
    storage: Storage = None,
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Beyond loopback a token is needed; it is printed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8266,
    refresh: Annotated[
        float, typer.Option("--refresh", min=1, metavar="SECONDS", help="Between two looks of a page.")
    ] = 5.0,
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard",
            help="Also serve optuna-dashboard, on loopback; unlike this page it can write, so both ask for the token.",
        ),
    ] = False,
    browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Serve a study's report, refreshing and read-only, until Ctrl-C."""
    from sweeper.ui.run import serve

    serve(
        study, storage=storage, host=host, port=port, refresh_s=refresh, with_dashboard=dashboard,
        opens_browser=browser, say=lambda address: print(address, flush=True),
    )  # fmt: skip


def export(
    study: StudyPlace,
    format_name: FormatName = None,
    trial: ChosenTrial = None,
    out: Annotated[
        Path | None, typer.Option("--out", parser=out_path, metavar="FILE", help="Default: printed.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="FILE", help="Also write the training rows, in the trial's order (JSONL)."
        ),
    ] = None,
    lock: Annotated[
        Path | None,
        typer.Option(
            "--lock", metavar="FILE", help="Write versions, seed, and hashes of model and data (JSON)."
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="DIR", help="Copy the trained model, with a model card.")
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="Let the tokenizer's own code run here, where the study's trials did."
        ),
    ] = False,
    storage: Storage = None,
) -> None:
    """Write the best trial as another trainer's file, its lock file, or its model."""
    from sweeper.reporting.export.run import ExportRequest, run_export

    request = ExportRequest(
        format_name=format_name, number=trial, out=out, rows=data, lock=lock, model=model,
        trusts_code=trust_remote_code,
    )  # fmt: skip
    done = run_export(study, request, storage=storage)
    for line in done.said:
        print(line, file=sys.stderr)
    print(done.text, end="")


def list_studies(
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Holds the studies; default: studies/.")
    ] = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """List the studies in a directory or a storage: state, trials, best value."""
    from sweeper.reporting.studies import find_studies, studies_json, studies_table
    from sweeper.storage_url import mask_url

    found = find_studies(directory, storage)
    if found or as_json:
        tell(lambda: studies_json(found), lambda: studies_table(found), as_json=as_json)
        return
    place = mask_url(storage) if storage is not None else directory or "studies/"
    print(f"No studies in {place}.", file=sys.stderr)


def replay(
    study: Recorded,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of every pruner; `rungs.…` sets the rungs."),
    ] = None,
    pruner: PrunerNames = None,
    storage: Storage = None,
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="NAME", help="Judge by another recorded metric.")
    ] = None,
    direction: Annotated[
        str | None,
        typer.Option("--direction", metavar="minimize|maximize", help="Which way that metric is good."),
    ] = None,
    orders: Annotated[int, typer.Option("--orders", min=1, help="Random orders of the points.")] = 200,
    slots: Annotated[int, typer.Option("--slots", min=1, help="Trials at a time.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the orders.")] = 0,
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", min=0, help="How far from the best is a hit, in the metric's units."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Play a finished study under other pruners: what each would have saved and lost."""
    from sweeper.config.names import EARLY_DYNAMICS
    from sweeper.replay import ReplayOptions
    from sweeper.replay.request import replay_all
    from sweeper.replay.table import replay_json, replay_text
    from sweeper.study.recorded_open import open_recorded

    sweep = open_recorded(study, storage=storage, metric=metric, direction=direction)
    options = ReplayOptions(orders=orders, slots=slots, seed=seed, tolerance=tolerance)
    results = replay_all(sweep, pruner or [EARLY_DYNAMICS], overrides or (), options)
    document = replay_json(sweep, results, slots=slots)
    tell(lambda: document, lambda: replay_text(sweep, results, slots=slots), as_json=as_json)
    _keep_for_report(study, document, storage)


def _keep_for_report(study: str, document: dict[str, Any], storage: str | None) -> None:
    """Keep a replay where the study's report finds it, and say so; to be printed it needs no more than reading."""
    from sweeper.reporting.kept import keep_replay

    try:
        kept = keep_replay(study, document, storage=storage)
    except SweeperError as error:  # who may only read the study has read it
        print(f"The report will not show this: {error}", file=sys.stderr)
    else:
        if kept is not None:
            print(f"`sweeper report {shlex.quote(study)}` shows this; kept in {kept}", file=sys.stderr)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for command in (status, evidence, report, ui, export, replay):
        app.command(epilog=examples(command.__name__))(command)
    app.command(name="ls", epilog=examples("ls"))(list_studies)
