"""The command line: words and exit codes; nothing else."""

import contextlib
import errno
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

import sweeper
from sweeper import cli_again, cli_control, cli_doctor, cli_judging, cli_reading
from sweeper.cli_words import (
    Address,
    AsJson,
    ExecutorChoice,
    ExecutorOption,
    Overrides,
    Storage,
    StudyPlace,
    console,
    run_options,
)
from sweeper.errors import EXIT_OK, ConfigError, InterruptedSweepError, SweeperError
from sweeper.help_text import examples
from sweeper.reporting.formats import plain
from sweeper.storage_url import hide_password_of_command_line
from sweeper.study import layout

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Hyperparameter sweeps for fine-tuning small language models.",
    epilog="Exit codes: 0 done; 2 the config cannot be run; 3 nothing to do; 4 the study does not match; "
    "6 the sweep failed; 130 interrupted.",
)


SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep file.")]
StudyDir = Annotated[str | None, typer.Option("--dir", metavar="DIR", help="The study's directory.")]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"sweeper {sweeper.__version__}")
        raise typer.Exit


@app.callback()
def common(
    ctx: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; stands before the command.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and end."),
    ] = False,
) -> None:
    """Keep what every command shares."""
    ctx.ensure_object(dict)["debug"] = debug


@app.command(epilog=examples("plan"))
def plan(
    sweep: SweepFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    preflight: Annotated[
        bool, typer.Option("--preflight", help="Also check model and data, and count rows, tokens and slots.")
    ] = False,
    directory: StudyDir = None,
    storage: Storage = None,
    address: Address = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also train a few steps, and estimate hours and GPU-hours.")
    ] = False,
    price: Annotated[
        float | None, typer.Option("--price", min=0, help="Of one GPU-hour, for --measure.")
    ] = None,
) -> None:
    """Check a sweep file and print what would run; starts no trial."""
    from sweeper import api, readiness
    from sweeper.planning import PlanRequest, plan_in_full

    options = readiness.LaunchOptions(dir=directory, storage=storage, address=address)
    config = readiness.with_options(api.read_config(sweep, overrides or ()), options)
    request = PlanRequest(preflight=preflight or address is not None, measure=measure, price=price)
    full = plan_in_full(config, request)
    if as_json:
        print(json.dumps(full.as_json(), indent=2))
    else:
        _print_plan(full)


def _print_plan(full: Any) -> None:
    from sweeper.plan_text import format_plan

    console().print(format_plan(full.plan))
    if full.disk is not None:
        console().print(f"\n{full.disk.line()}", soft_wrap=True)
    if full.found is not None:
        console().print("\n".join(full.found.lines()))
    if full.cost is not None:
        console().print("\n".join(full.cost.lines()), soft_wrap=True, highlight=False)
    if full.hours_line is not None:
        console().print(full.hours_line, soft_wrap=True, highlight=False)


@app.command(epilog=examples("launch"))
def launch(
    sweep: SweepFile,
    overrides: Overrides = None,
    directory: StudyDir = None,
    storage: Storage = None,
    address: Address = None,
    executor: ExecutorOption = ExecutorChoice.RAY,
    as_json: AsJson = False,
) -> None:
    """Run a sweep; a study that exists already with the same config is gone on with."""
    from sweeper import api

    options = run_options(executor, storage=storage, address=address, directory=directory)
    _finish(api.launch(sweep, overrides or (), options=options), as_json=as_json)


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
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Train the points of failed trials once more.")
    ] = False,
    storage: Storage = None,
    address: Address = None,
    executor: ExecutorOption = ExecutorChoice.RAY,
    as_json: AsJson = False,
) -> None:
    """Go on with a study where it stopped; with KEY=VALUE, --continue or --retry-failed, extend it."""
    from sweeper import api

    options = run_options(executor, storage=storage, address=address)
    view = api.resume(
        study, overrides or (), continues=continues or (), retry_failed=retry_failed, options=options
    )
    _finish(view, as_json=as_json)


def _finish(view: Any, *, as_json: bool) -> None:
    """Write the report of a sweep that ended, and say where it is."""
    from sweeper.reporting import write_report
    from sweeper.reporting.status import status_json, status_text

    path = write_report(view, view.directory / layout.REPORT)
    # Where the terminal went away while the sweep ran, nobody is there to be told, and the report says it all.
    try:
        console(stderr=True).print(status_text(view))
    except OSError:
        _leave(sys.stderr)
    document = (
        json.dumps(status_json(view) | {"report": str(path)}, indent=2) if as_json else f"report: {path}"
    )
    try:
        print(document, flush=True)
    except OSError as error:
        if error.errno != errno.EIO:  # what a terminal says that is gone
            raise
        _leave(sys.stdout)


def _leave(stream: TextIO) -> None:
    """Write no more to a stream that cannot be written to: Python would fail when it flushes it at the end."""
    with contextlib.suppress(OSError):  # a stream without a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


for commands in (cli_again, cli_judging, cli_reading, cli_control, cli_doctor):
    commands.register(app)


def main() -> None:
    """Run the command line; turn errors into one message and an exit code."""
    shared = {"debug": False}
    hide_password_of_command_line(sys.argv[1:])
    try:
        code = _run(shared)
        sys.stdout.flush()
    except SweeperError as error:
        if shared["debug"]:
            traceback.print_exc()
        print(f"error: {plain(str(error))}", file=sys.stderr)  # it may hold what a trial's function said
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = InterruptedSweepError.exit_code
    except BrokenPipeError:
        # Whoever read our output has enough of it, such as `head`; Python must not complain when it flushes.
        _leave(sys.stdout)
        code = SweeperError.exit_code
    except Exception as error:  # noqa: BLE001 - a mistake of ours: told in full, with an exit code of its own kind
        traceback.print_exc()
        print(
            f"error: {type(error).__name__}: {plain(str(error))}. This is a mistake in sweeper, not in the sweep. "
            "A study that had begun is saved; `sweeper resume` goes on with it.",
            file=sys.stderr,
        )
        code = SweeperError.exit_code
    sys.exit(code)


def _run(shared: dict[str, bool]) -> int:
    """Run the command that was given; return its exit code. Wrong usage is told here.

    Args:
        shared: Is filled with what stands before the command.
    """
    try:
        code = app(prog_name="sweeper", standalone_mode=False, obj=shared)
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort as error:  # what typer makes of Ctrl-C
        raise KeyboardInterrupt from error
    except Exception as error:
        # Usage errors of the command line come from click, which typer vendors.
        if not hasattr(error, "show"):
            raise
        error.show()
        return int(getattr(error, "exit_code", ConfigError.exit_code))
    return code if isinstance(code, int) else EXIT_OK


if __name__ == "__main__":
    main()
