"""Arguments and options that several commands share."""

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeper import completion
from sweeper.errors import ConfigError


class ExecutorChoice(StrEnum):
    """Where trials run."""

    RAY = "ray"
    IN_PROCESS = "in-process"


StudyPlace = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A study's directory, its name in studies/, or with --storage its name there.",
        autocompletion=completion.studies,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace those of the file."),
]
Alpha = Annotated[
    float, typer.Option("--alpha", min=1e-6, max=0.5, help="Risk of claiming any difference falsely.")
]
Storage = Annotated[
    str | None,
    typer.Option("--storage", metavar="URL", help="Optuna storage, e.g. postgresql://user@host/db."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="ADDR",
        help="A running Ray cluster, e.g. auto or 10.0.0.1:6379; local: this machine. Default: as file or study say.",
    ),
]
ExecutorOption = Annotated[ExecutorChoice, typer.Option("--executor", help="Where trials run.")]


def out_path(text: str) -> Path:
    """Return the path that `--out` names.

    Raises:
        ConfigError: If it is empty, as that of a variable that is not set: it would mean the working directory.
    """
    if not text:
        raise ConfigError("`--out` is empty. Give a path, or leave the option out.")
    return Path(text)


def run_options(
    executor: ExecutorChoice, *, storage: str | None, address: str | None, directory: str | None = None
) -> Any:
    """Return the `LaunchOptions` that a command was given."""
    from sweeper.readiness import LaunchOptions

    return LaunchOptions(dir=directory, storage=storage, address=address, executor=executor.value)


def tell(document: Callable[[], Any], text: Callable[[], Any], *, as_json: bool) -> None:
    """Print a document as JSON, or text as it is; what is none for a rich console. Only what is printed is made."""
    if as_json:
        print(json.dumps(document(), indent=2))
        return
    made = text()
    if isinstance(made, str):
        print(made)
    else:
        console().print(made)


def console(*, stderr: bool = False) -> Any:
    """Return a rich console that prints text as it is: names of metrics and params may look like its markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False)
