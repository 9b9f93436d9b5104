"""The commands that steer a running sweep."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from sweeper import completion
from sweeper.cli_words import AsJson, Storage, StudyPlace, tell
from sweeper.errors import ConfigError, NothingToDoError
from sweeper.help_text import examples
from sweeper.study.control_records import Verb

Trial = Annotated[
    int,
    typer.Option("--trial", metavar="N", min=0, help="The trial's number.", autocompletion=completion.trials),
]
Trials = Annotated[
    list[int],
    typer.Option(
        "--trial",
        metavar="N",
        min=0,
        help="Its number; may be given again.",
        autocompletion=completion.trials,
    ),
]
OptionalTrials = Annotated[
    list[int] | None,
    typer.Option(
        "--trial", metavar="N", min=0, help="End it as PRUNED; may be given again.",
        autocompletion=completion.trials,
    ),
]  # fmt: skip
Values = Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="Values of the search space.")]
OptionalValues = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values of the search space.")
]
Setting = Annotated[str, typer.Argument(metavar="KEY=VALUE", help="max_concurrent=N|none: trials at a time.")]


def stop(
    study: StudyPlace,
    trial: OptionalTrials = None,
    everything: Annotated[
        bool, typer.Option("--all", help="End the whole sweep; `sweeper resume` goes on with it.")
    ] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Stop some trials of a sweep, or all of it."""
    if bool(trial) == everything:
        raise ConfigError("`sweeper stop` needs either `--trial N` or `--all`.")
    if everything:
        _send(study, Verb.STOP_ALL, {}, storage, as_json=as_json)
    else:
        _send_for_trials(study, Verb.STOP, trial or [], storage, as_json=as_json)


def keep(study: StudyPlace, trial: Trials, storage: Storage = None, as_json: AsJson = False) -> None:
    """Let the pruner stop a trial no more; one that diverges still is."""
    _send_for_trials(study, Verb.KEEP, trial, storage, as_json=as_json)


def add(
    study: StudyPlace,
    values: OptionalValues = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Add the points beyond the edge where the best one lies.")
    ] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Train one more point, after those that wait already; with --suggest, what lies beyond the best one's edge."""
    from sweeper.control.send import parse_pairs

    if bool(values) == suggest:
        raise ConfigError("`sweeper add` needs either `KEY=VALUE ...` or `--suggest`.")
    if suggest:
        each = [{"params": point} for point in _suggested(study, storage)]
        _send_each(study, Verb.ADD, each, storage, as_json=as_json)
    else:
        _send(study, Verb.ADD, {"params": parse_pairs(values or [])}, storage, as_json=as_json)


def _suggested(study: str, storage: str | None) -> list[dict[str, Any]]:
    from sweeper.optimum.edge import points_beyond
    from sweeper.study.study import Study

    view = Study.open(study, url=storage).view()
    points = points_beyond(view)
    if not points:
        where = (
            "there is no best trial yet"
            if view.best is None
            else "no trial from scratch is complete yet"
            if not view.from_scratch
            else "no point beyond the best one is left to try"
        )
        raise NothingToDoError(
            f"Nothing is suggested for study `{view.name}`: {where}. `sweeper report` says where its best point lies."
        )
    return points


def clone(
    study: StudyPlace,
    values: Values,
    trial: Trial,
    warm_start: Annotated[
        bool, typer.Option("--warm-start", help="Begin at the newest checkpoint of that trial.")
    ] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Train a trial's point once more, with other values."""
    from sweeper.control.send import parse_pairs

    arguments = {"trial": trial, "params": parse_pairs(values), "warm_start": warm_start}
    _send(study, Verb.CLONE, arguments, storage, as_json=as_json)


def pause(
    study: StudyPlace,
    off: Annotated[bool, typer.Option("--off", help="Start trials again.")] = False,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Start no more trials; those that run go on to their end."""
    _send(study, Verb.UNPAUSE if off else Verb.PAUSE, {}, storage, as_json=as_json)


def set_setting(
    study: StudyPlace, setting: Setting, storage: Storage = None, as_json: AsJson = False
) -> None:
    """Change how many trials run at a time."""
    from sweeper.control.send import parse_pairs

    ((name, value),) = parse_pairs([setting]).items()
    _send(study, Verb.SET, {"setting": name, "value": value}, storage, as_json=as_json)


def _send(
    study: str, verb: Verb, arguments: Mapping[str, Any], storage: str | None, *, as_json: bool
) -> None:
    from sweeper.control.send import outcome_text, send_request

    sent = send_request(study, verb, arguments, storage=storage)
    tell(sent.event.as_dict, lambda: outcome_text(sent), as_json=as_json)


def _send_each(
    study: str, verb: Verb, each: Sequence[Mapping[str, Any]], storage: str | None, *, as_json: bool
) -> None:
    """Send a request for each of the arguments, and print what became of them; as JSON a list."""
    from sweeper.control.send import outcome_text, send_requests

    sent = send_requests(study, verb, each, storage=storage)
    if as_json:
        print(json.dumps([one.event.as_dict() for one in sent], indent=2))
        return
    for one in sent:  # what was met is told before what is refused
        print(outcome_text(one))


def _send_for_trials(
    study: str, verb: Verb, trials: Sequence[int], storage: str | None, *, as_json: bool
) -> None:
    """Send a request for each trial; as JSON one object where one trial is named, else a list."""
    each = [{"trial": number} for number in dict.fromkeys(trials)]
    if len(each) == 1:
        _send(study, verb, each[0], storage, as_json=as_json)
    else:
        _send_each(study, verb, each, storage, as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (stop, keep, add, clone, pause):
        app.command(epilog=examples(command.__name__))(command)
    app.command(name="set", epilog=examples("set"))(set_setting)
