"""The command line: words and exit codes; nothing else."""

import dataclasses
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeper import cli_control, completion
from sweeper.cli_words import AsJson, Storage, StudyPlace, console
from sweeper.errors import EXIT_OK, ConfigError, InterruptedSweepError, SweeperError
from sweeper.help_text import examples
from sweeper.storage_url import hide_password_of_command_line

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Hyperparameter sweeps for fine-tuning small language models.",
    epilog="Exit codes: 0 done; 2 the config cannot be run; 3 nothing to do; 4 the study does not match; "
    "6 the sweep failed; 130 interrupted.",
)


_WATCH_S = 1.0  # between two looks of `status --watch`


class TestChoice(StrEnum):
    """What a comparison over seeds is made with."""

    T = "t"
    PERMUTATION = "permutation"


class ExecutorChoice(StrEnum):
    """Where trials run."""

    RAY = "ray"
    IN_PROCESS = "in-process"


SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace those of the file."),
]
Address = Annotated[
    str | None,
    typer.Option("--address", metavar="ADDR", help="A running Ray cluster, e.g. auto or 10.0.0.1:6379."),
]
ExecutorOption = Annotated[ExecutorChoice, typer.Option("--executor", help="Where trials run.")]


@app.callback()
def common(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Keep what every command shares."""
    ctx.obj = {"debug": debug}


@app.command(epilog=examples("plan"))
def plan(
    sweep: SweepFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    preflight: Annotated[
        bool, typer.Option("--preflight", help="Also check model and data, and count rows, tokens and slots.")
    ] = False,
    address: Address = None,
) -> None:
    """Check a sweep file and print what would run; starts no trial."""
    from sweeper import api
    from sweeper.plan import plan_sweep
    from sweeper.plan_text import format_plan, plan_json
    from sweeper.preflight.facts import run_preflight

    config = api.with_options(api.read_config(sweep, overrides or ()), api.LaunchOptions(address=address))
    api.check_pruner(config)
    found = run_preflight(config) if preflight or address is not None else None
    planned = plan_sweep(config, facts=found.facts if found is not None else None)
    disk = api.plan_disk(config, found)
    if as_json:
        measured = {"preflight": found.as_json()} if found is not None else {}
        told = {"disk": None if disk is None else dataclasses.asdict(disk)}
        print(json.dumps(plan_json(planned) | told | measured, indent=2))
        return
    console().print(format_plan(planned))
    if disk is not None:
        console().print(f"\n{disk.line()}", soft_wrap=True)
    if found is not None:
        console().print("\n".join(found.lines()))


@app.command(epilog=examples("launch"))
def launch(
    sweep: SweepFile,
    overrides: Overrides = None,
    directory: Annotated[
        str | None, typer.Option("--dir", metavar="DIR", help="The study's directory.")
    ] = None,
    storage: Storage = None,
    address: Address = None,
    executor: ExecutorOption = ExecutorChoice.RAY,
) -> None:
    """Run a sweep; a study that exists already with the same config is gone on with."""
    from sweeper import api

    options = api.LaunchOptions(dir=directory, storage=storage, address=address, executor=executor.value)
    _finish(api.launch(sweep, overrides or (), options=options))


@app.command(epilog=examples("resume"))
def resume(
    study: StudyPlace,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Extend it: more values of a grid, more trials, another pruner."
        ),
    ] = None,
    continues: Annotated[
        list[str] | None,
        typer.Option(
            "--continue", metavar="N", help="Train a completed trial, or `all`, on to `trial.budget.…=…`."
        ),
    ] = None,
    storage: Storage = None,
    address: Address = None,
    executor: ExecutorOption = ExecutorChoice.RAY,
) -> None:
    """Go on with a study where it stopped; with KEY=VALUE or --continue, extend it."""
    from sweeper import api

    options = api.LaunchOptions(storage=storage, address=address, executor=executor.value)
    _finish(api.resume(study, overrides or (), continues=continues or (), options=options))


@app.command(epilog=examples("confirm"))
def confirm(
    study: StudyPlace,
    top: Annotated[int, typer.Option("--top", min=1, help="How many of the best points.")] = 3,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="New seeds for each of them.")] = 8,
    baseline: Annotated[
        int | None,
        typer.Option(
            "--baseline",
            metavar="TRIAL",
            help="Trial that the others are compared with; default: the best.",
            autocompletion=completion.trials,
        ),
    ] = None,
    test: Annotated[
        TestChoice,
        typer.Option("--test", help="Paired t, or the permutation of signs: no normal noise, more seeds."),
    ] = TestChoice.T,
    alpha: Annotated[
        float, typer.Option("--alpha", min=1e-6, max=0.5, help="Risk of claiming any difference falsely.")
    ] = 0.05,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the study that trains them; default: STUDY-confirm.")
    ] = None,
    storage: Storage = None,
    address: Address = None,
    executor: ExecutorOption = ExecutorChoice.RAY,
    as_json: AsJson = False,
) -> None:
    """Train a study's best points again with new seeds, and say whether they differ beyond chance."""
    from sweeper import api
    from sweeper.confirm.outcome import outcome_json, outcome_text
    from sweeper.confirm.run import ConfirmRequest
    from sweeper.confirm.run import confirm as run_confirm

    request = ConfirmRequest(
        top=top, n_seeds=seeds, baseline=baseline, test=test.value, alpha=alpha, name=name
    )  # fmt: skip
    options = api.LaunchOptions(storage=storage, address=address, executor=executor.value)
    outcome = run_confirm(study, request, options=options)
    if as_json:
        print(json.dumps(outcome_json(outcome), indent=2))
    else:
        print(outcome_text(outcome))
    print(f"study: {outcome.view.directory}", file=sys.stderr)


@app.command(epilog=examples("rerun"))
def rerun(
    study: StudyPlace,
    trial: Annotated[
        int, typer.Option("--trial", metavar="N", min=0, help="Its number.", autocompletion=completion.trials)
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Of the study that trains it; default: STUDY-rerun-N.")
    ] = None,
    storage: Storage = None,
    address: Address = None,
    executor: ExecutorOption = ExecutorChoice.RAY,
    as_json: AsJson = False,
) -> None:
    """Train one trial again from its record, and say whether its curve is identical."""
    from sweeper import api
    from sweeper.confirm.rerun import rerun as run_again
    from sweeper.confirm.rerun import rerun_json, rerun_text

    options = api.LaunchOptions(storage=storage, address=address, executor=executor.value)
    found = run_again(study, trial, options=options, name=name)
    print(json.dumps(rerun_json(found), indent=2) if as_json else rerun_text(found))


@app.command(epilog=examples("status"))
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
        _watch(study, storage, as_json=as_json)
        return
    view = load_study(study, storage=storage)
    if as_json:
        print(json.dumps(status_json(view), indent=2))
    else:
        console().print(status_text(view))


@app.command(epilog=examples("evidence"))
def evidence(study: StudyPlace, storage: Storage = None, as_json: AsJson = False) -> None:
    """Print what each early signal was worth: how far it predicted the final metric."""
    from sweeper.api import load_study
    from sweeper.evidence_text import evidence_json, format_evidence

    view = load_study(study, storage=storage)
    if as_json:
        print(json.dumps(evidence_json(view), indent=2))
    else:
        console().print(format_evidence(view))


@app.command(epilog=examples("report"))
def report(
    study: StudyPlace,
    storage: Storage = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: report/ of the study.")
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
    place = out or view.directory / "report"
    pictures = []
    if png:
        from sweeper.reporting.pictures import write_pictures

        pictures = write_pictures(view, place)
    index = write_report(view, place)
    if as_json:
        print(json.dumps({"report": str(index), "pictures": [str(path) for path in pictures]}, indent=2))
    else:
        print("\n".join(str(path) for path in [index, *pictures]))


@app.command(epilog=examples("ui"))
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
            "--dashboard", help="Also serve optuna-dashboard, on loopback; unlike this page it can write."
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


@app.command(epilog=examples("export"))
def export(
    study: StudyPlace,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="trl, axolotl, llamafactory, training-args or training-hub.",
            autocompletion=completion.export_formats,
        ),
    ] = None,
    trial: Annotated[
        int | None,
        typer.Option("--trial", metavar="N", help="Default: the best.", autocompletion=completion.trials),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Default: printed.")] = None,
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
    storage: Storage = None,
) -> None:
    """Write the best trial as another trainer's file, its lock file, or its model."""
    from sweeper.reporting.export.run import ExportRequest, run_export

    request = ExportRequest(
        format_name=format_name, number=trial, out=out, rows=data, lock=lock, model=model
    )  # fmt: skip
    done = run_export(study, request, storage=storage)
    for line in done.said:
        print(line, file=sys.stderr)
    print(done.text, end="")


@app.command(name="ls", epilog=examples("ls"))
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
    if as_json:
        print(json.dumps(studies_json(found), indent=2))
    elif found:
        console().print(studies_table(found))
    else:
        place = mask_url(storage) if storage is not None else directory or "studies/"
        print(f"No studies in {place}.", file=sys.stderr)


@app.command(epilog=examples("replay"))
def replay(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="A study, or a .parquet or .jsonl file of recorded curves.",
            autocompletion=completion.studies,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of every pruner; `rungs.…` sets the rungs."),
    ] = None,
    pruner: Annotated[
        list[str] | None,
        typer.Option(
            "--pruner",
            metavar="NAME",
            help="May be given again; 'NAME key=value' sets it alone.",
            autocompletion=completion.pruners,
        ),
    ] = None,
    storage: Storage = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Judge by another recorded metric.")] = None,
    direction: Annotated[str | None, typer.Option("--direction", help="Of it: minimize or maximize.")] = None,
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
    from sweeper.replay.request import open_recorded, replay_all
    from sweeper.replay.table import replay_json, replay_text

    sweep = open_recorded(study, storage=storage, metric=metric, direction=direction)
    results = replay_all(
        sweep, pruner or ["early_dynamics"], overrides or (), orders=orders, slots=slots, seed=seed,
        tolerance=tolerance,
    )  # fmt: skip
    if as_json:
        print(json.dumps(replay_json(sweep, results, slots=slots), indent=2))
    else:
        console().print(replay_text(sweep, results, slots=slots))


def _finish(view: Any) -> None:
    """Write the report of a sweep that ended, and say where it is."""
    from sweeper.reporting import write_report
    from sweeper.reporting.status import status_text

    console(stderr=True).print(status_text(view))
    path = write_report(view, view.directory / "report")
    print(f"report: {path}")


def _watch(study: str, storage: str | None, *, as_json: bool) -> None:
    """Print the status again and again until the study ends; in a pipe, whenever it changes."""
    from rich.live import Live

    from sweeper.reporting.status import status_json
    from sweeper.reporting.watch import WatchView

    terminal = console()
    if as_json:
        _print_changes(study, storage, lambda view: json.dumps(status_json(view)))
    elif not terminal.is_terminal:
        _print_changes(study, storage, _counts_line)
    else:
        with Live(console=terminal, refresh_per_second=4) as live:
            for view in _views(study, storage):
                live.update(WatchView(view))


def _print_changes(study: str, storage: str | None, line_of: Callable[[Any], str]) -> None:
    last = ""
    for view in _views(study, storage):
        if (line := line_of(view)) != last:
            print(line, flush=True)
            last = line


def _counts_line(view: Any) -> str:
    from sweeper.records import TrialState

    return f"{view.state}: " + ", ".join(f"{view.count(state)} {state.value}" for state in TrialState)


def _views(study: str, storage: str | None) -> Iterator[Any]:
    """Yield the study as it stands, every second; the last one no longer runs."""
    from sweeper.api import load_study

    while True:
        view = load_study(study, storage=storage)
        yield view
        if view.state != "running":
            return
        time.sleep(_WATCH_S)


cli_control.register(app)


def main() -> None:
    """Run the command line; turn errors into one message and an exit code."""
    debug = "--debug" in sys.argv
    hide_password_of_command_line(sys.argv[1:])
    try:
        code = _run()
        sys.stdout.flush()
    except SweeperError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = InterruptedSweepError.exit_code
    except BrokenPipeError:
        # Whoever read our output has enough of it, such as `head`; Python must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = SweeperError.exit_code
    except Exception as error:  # noqa: BLE001 - a mistake of ours: told in full, with an exit code of its own kind
        traceback.print_exc()
        print(
            f"error: {type(error).__name__}: {error}. This is a mistake in sweeper, not in the sweep. "
            "A study that had begun is saved; `sweeper resume` goes on with it.",
            file=sys.stderr,
        )
        code = SweeperError.exit_code
    sys.exit(code)


def _run() -> int:
    """Run the command that was given; return its exit code. Wrong usage is told here."""
    try:
        code = app(prog_name="sweeper", standalone_mode=False)
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        return InterruptedSweepError.exit_code
    except Exception as error:
        # Usage errors of the command line come from click, which typer vendors.
        if not hasattr(error, "show"):
            raise
        error.show()
        return int(getattr(error, "exit_code", ConfigError.exit_code))
    return code if isinstance(code, int) else EXIT_OK


if __name__ == "__main__":
    main()
