"""Arguments and options that several commands share."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from sweeper import completion


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
        help="A running Ray cluster, e.g. auto or 10.0.0.1:6379; local: this machine. Default: as recorded.",
    ),
]
ExecutorOption = Annotated[ExecutorChoice, typer.Option("--executor", help="Where trials run.")]


def console(*, stderr: bool = False) -> Any:
    """Return a rich console that prints text as it is: names of metrics and params may look like its markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False)
