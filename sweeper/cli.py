"""The command line: words and exit codes; nothing else."""

import json
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeper.errors import EXIT_OK, SweeperError

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Hyperparameter sweeps for fine-tuning small language models.",
    epilog="Exit codes: 0 done; 2 the config cannot be run; 3 nothing to do; 4 the study does not match; "
    "6 the sweep failed; 130 interrupted.",
)


class ExecutorChoice(StrEnum):
    """Where trials run."""

    RAY = "ray"
    IN_PROCESS = "in-process"


SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace those of the file."),
]
StudyPlace = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study's directory, or its name with --storage.")
]
Storage = Annotated[
    str | None,
    typer.Option("--storage", metavar="URL", help="Optuna storage, e.g. postgresql://user@host/db."),
]
Address = Annotated[
    str | None,
    typer.Option("--address", metavar="ADDR", help="A running Ray cluster, e.g. auto or 10.0.0.1:6379."),
]
ExecutorOption = Annotated[ExecutorChoice, typer.Option("--executor", help="Where trials run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def common(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Keep what every command shares."""
    ctx.obj = {"debug": debug}


@app.command()
def plan(
    sweep: SweepFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Check a sweep file and print what would run; starts no trial."""
    from sweeper import api
    from sweeper.plan import plan_sweep
    from sweeper.plan_text import format_plan, plan_json
    from sweeper.preflight.cluster import plan_slots, probe_cluster

    config = api.with_options(api.read_config(sweep, overrides or ()), api.LaunchOptions(address=address))
    planned = plan_sweep(config)
    if address is not None:
        slots = plan_slots(config.resources, probe_cluster(address))
        _console(stderr=True).print(f"{slots.slots} trials fit on {address} at a time.")
    if as_json:
        print(json.dumps(plan_json(planned), indent=2))
    else:
        _console().print(format_plan(planned))


@app.command()
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


@app.command()
def resume(
    study: StudyPlace,
    storage: Storage = None,
    address: Address = None,
    executor: ExecutorOption = ExecutorChoice.RAY,
) -> None:
    """Go on with a study where it stopped."""
    from sweeper import api

    options = api.LaunchOptions(storage=storage, address=address, executor=executor.value)
    _finish(api.resume(study, options=options))


@app.command()
def status(
    study: StudyPlace,
    storage: Storage = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow until the study ends.")] = False,
) -> None:
    """Print where a study stands."""
    from sweeper.api import load_study
    from sweeper.reporting.status import status_json, status_text

    if watch:
        _watch(study, storage)
        return
    view = load_study(study, storage=storage)
    if as_json:
        print(json.dumps(status_json(view), indent=2))
    else:
        _console().print(status_text(view))


@app.command()
def report(
    study: StudyPlace,
    storage: Storage = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: report/ of the study.")
    ] = None,
) -> None:
    """Write index.html, report.md, trials.csv, best.yaml and report.json; print the path of the first."""
    from sweeper.api import load_study
    from sweeper.reporting import write_report

    view = load_study(study, storage=storage)
    print(write_report(view, out or view.directory / "report"))


def _finish(view: Any) -> None:
    """Write the report of a sweep that ended, and say where it is."""
    from sweeper.reporting import write_report
    from sweeper.reporting.status import status_text

    _console(stderr=True).print(status_text(view))
    path = write_report(view, view.directory / "report")
    print(f"report: {path}")


def _watch(study: str, storage: str | None) -> None:
    """Print the status again and again until the study ends; in a pipe, whenever it changes."""
    from rich.live import Live

    from sweeper.api import load_study
    from sweeper.reporting.status import status_text

    console = _console()
    if not console.is_terminal:
        _watch_piped(study, storage)
        return
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            view = load_study(study, storage=storage)
            live.update(status_text(view))
            if view.state != "running":
                return
            time.sleep(1.0)


def _watch_piped(study: str, storage: str | None) -> None:
    from sweeper.api import load_study
    from sweeper.records import TrialState

    last = ""
    while True:
        view = load_study(study, storage=storage)
        counts = ", ".join(f"{view.count(state)} {state.value}" for state in TrialState)
        if (line := f"{view.state}: {counts}") != last:
            print(line, flush=True)
            last = line
        if view.state != "running":
            return
        time.sleep(1.0)


def _console(*, stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr)


def main() -> None:
    """Run the command line; turn errors into one message and an exit code."""
    debug = "--debug" in sys.argv
    try:
        code = app(standalone_mode=False)
    except SweeperError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        # Usage errors of the command line come from click, which typer vendors.
        if debug or not hasattr(error, "show"):
            raise
        error.show()
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(code if isinstance(code, int) else EXIT_OK)


if __name__ == "__main__":
    main()
