"""The commands that judge trained models: benchmarks, and one against another."""

from typing import Annotated

import typer

from sweeper import completion
from sweeper.cli_words import Alpha, AsJson, Storage, StudyPlace, tell
from sweeper.help_text import examples

MeasuredTrials = Annotated[
    list[int] | None,
    typer.Option(
        "--trial",
        metavar="N",
        help="May be given again; default: the best ones, see --top.",
        autocompletion=completion.trials,
    ),
]


def benchmark(
    study: StudyPlace,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of `benchmarks` that replace the study's."),
    ] = None,
    trial: MeasuredTrials = None,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="How many of the best; default: `benchmarks.top`, else 3."),
    ] = None,
    checkpoint: Annotated[
        int | None,
        typer.Option(
            "--checkpoint", metavar="STEP", min=1, help="Measure this checkpoint, not the final model."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also what was measured before in the same way.")
    ] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Measure kept models with the study's benchmarks, on this machine; the study keeps the numbers."""
    from sweeper.benchmarks.run import BenchmarkRequest
    from sweeper.benchmarks.run import benchmark as run_benchmark
    from sweeper.reporting.benchmarks import benchmark_table, benchmarks_json, benchmarks_text

    request = BenchmarkRequest(
        trials=tuple(trial or ()),
        top=top,
        checkpoint=checkpoint,
        again=again,
        overrides=tuple(overrides or ()),
    )
    view = run_benchmark(study, request, storage=storage)
    table = benchmark_table(view)
    assert table is not None, "at least one trial was measured"
    tell(lambda: benchmarks_json(view), lambda: benchmarks_text(table), as_json=as_json)


def compare(
    study: StudyPlace,
    a: Annotated[
        int, typer.Argument(metavar="A", min=0, help="A trial's number.", autocompletion=completion.trials)
    ],
    b: Annotated[
        int, typer.Argument(metavar="B", min=0, help="Another one's.", autocompletion=completion.trials)
    ],
    alpha: Alpha = 0.05,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Compare two trials on the items they were measured on, and say what differs between them."""
    from sweeper.api import load_study
    from sweeper.compare.run import compare_trials
    from sweeper.compare.words import compared_json, compared_text

    found = compare_trials(load_study(study, storage=storage), a, b, alpha=alpha)
    tell(lambda: compared_json(found), lambda: compared_text(found), as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(epilog=examples("benchmark"))(benchmark)
    app.command(epilog=examples("compare"))(compare)
