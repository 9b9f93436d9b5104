"""Arguments and options that several commands share."""

from typing import Annotated, Any

import typer

from sweeper import completion

StudyPlace = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A study's directory, or its name with --storage.",
        autocompletion=completion.studies,
    ),
]
Storage = Annotated[
    str | None,
    typer.Option("--storage", metavar="URL", help="Optuna storage, e.g. postgresql://user@host/db."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def console(*, stderr: bool = False) -> Any:
    """Return a rich console."""
    from rich.console import Console

    return Console(stderr=stderr)
