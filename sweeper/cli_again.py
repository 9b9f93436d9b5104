"""The commands that train a study's trials again: other seeds, the same record."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from sweeper import completion
from sweeper.cli_words import (
    Address,
    Alpha,
    AsJson,
    ExecutorChoice,
    ExecutorOption,
    Storage,
    StudyPlace,
    run_options,
    tell,
)
from sweeper.help_text import examples


class TestChoice(StrEnum):
    """What a comparison over seeds is made with."""

    T = "t"
    PERMUTATION = "permutation"


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
    alpha: Alpha = 0.05,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Of the study that trains them; default: STUDY-confirm."),
    ] = None,
    storage: Storage = None,
    address: Address = None,
    executor: ExecutorOption = ExecutorChoice.RAY,
    as_json: AsJson = False,
) -> None:
    """Train a study's best points again with new seeds, and say whether they differ beyond chance."""
    from sweeper.confirm.outcome import outcome_json, outcome_text
    from sweeper.confirm.run import ConfirmRequest
    from sweeper.confirm.run import confirm as run_confirm

    request = ConfirmRequest(
        top=top, n_seeds=seeds, baseline=baseline, test=test.value, alpha=alpha, name=name
    )
    options = run_options(executor, storage=storage, address=address)
    outcome = run_confirm(study, request, options=options)
    tell(lambda: outcome_json(outcome), lambda: outcome_text(outcome), as_json=as_json)
    print(f"study: {outcome.view.directory}", file=sys.stderr)


def rerun(
    study: StudyPlace,
    trial: Annotated[
        int, typer.Option("--trial", metavar="N", min=0, help="Its number.", autocompletion=completion.trials)
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Of the study that trains it; default: STUDY-rerun-N."),
    ] = None,
    storage: Storage = None,
    address: Address = None,
    executor: ExecutorOption = ExecutorChoice.RAY,
    as_json: AsJson = False,
) -> None:
    """Train one trial again from its record, and say whether its curve is identical."""
    from sweeper.confirm.rerun import rerun as run_again
    from sweeper.confirm.rerun import rerun_json, rerun_text

    options = run_options(executor, storage=storage, address=address)
    found = run_again(study, trial, options=options, name=name)
    tell(lambda: rerun_json(found), lambda: rerun_text(found), as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for command in (confirm, rerun):
        app.command(epilog=examples(command.__name__))(command)
