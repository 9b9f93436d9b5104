"""Writes a trial as the file of another trainer."""

import dataclasses
import shlex
from importlib import metadata
from pathlib import Path

from sweeper.config.messages import unknown_name
from sweeper.errors import ConfigError
from sweeper.files import write_text
from sweeper.records import TrialState
from sweeper.reporting.export import axolotl, llamafactory, training_args, training_hub, trl
from sweeper.reporting.export.chosen import ChosenTrial
from sweeper.reporting.export.form import Format, Target
from sweeper.reporting.export.rows import write_rows
from sweeper.reporting.formats import exact, one_line, params_text
from sweeper.reporting.origins import warm_text

_ALL: tuple[Format, ...] = (
    trl.FORMAT, axolotl.FORMAT, llamafactory.FORMAT, training_args.FORMAT, training_hub.FORMAT,
)  # fmt: skip
FORMATS = {format.name: format for format in _ALL}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """What was made."""

    text: str  # the file, with its header
    command: str  # that runs it
    written: tuple[Path, ...]  # the file itself first, unless it is to be printed


def find_format(name: str) -> Format:
    """Return a format by name.

    Raises:
        ConfigError: If there is none of this name.
    """
    if name not in FORMATS:
        raise ConfigError(f"`--format`: {unknown_name(name, FORMATS, what='format')}")
    return FORMATS[name]


def export_trial(
    chosen: ChosenTrial, format: Format, *, out: Path | None = None, rows: Path | None = None
) -> Export:
    """Make the file, and write it and what it needs.

    Args:
        chosen: The trial.
        format: Of which tool.
        out: Where the file goes; None returns its text alone.
        rows: Where the training rows go, in the trial's order; None leaves the data where it is.

    Raises:
        ConfigError: If the trial cannot be told in this format.
    """
    if format.needs_out and out is None:
        raise ConfigError(f"`--format {format.name}` is more than one file. Say where with `--out FILE`.")
    body = format.build(chosen, Target(out=out, rows=rows))
    command = (body.command or format.command).format(
        file=shlex.quote(str(out or "FILE")), path=str(out or "FILE")
    )
    text = header(chosen, format, command, body.lost) + body.text
    written = []
    if rows is not None:
        write_rows(rows, chosen, format)
        written.append(rows)
    for path, content in body.beside.items():
        write_text(path, content)
        written.append(path)
    if out is not None:
        write_text(out, text)
        written.insert(0, out)
    return Export(text=text, command=command, written=tuple(written))


def header(chosen: ChosenTrial, format: Format, command: str, lost: tuple[str, ...]) -> str:
    """Return the comment that says where a file comes from and what it does not say."""
    view, record, batch = chosen.view, chosen.record, chosen.batch
    accumulated = f"{batch.gradient_accumulation_steps} passes a step"
    lines = [
        f"Trial {record.number} of study {view.name} for {format.tool}, by sweeper {metadata.version('sweeper')}.",
        _result(chosen),
        one_line(params_text(record.params)),
        f"Effective batch {batch.effective_batch_size}: {batch.micro_batch_size} sequences a pass, {accumulated}; "
        f"{chosen.total_steps} steps are {chosen.samples} samples.",
        f"Run it:  {command}",
        "What does not carry over:",
        *(f"- {one_line(sentence)}" for sentence in lost),
    ]
    return "".join(f"# {line}\n" for line in lines) + "\n"


def _result(chosen: ChosenTrial) -> str:
    view, record = chosen.view, chosen.record
    if record.state is TrialState.COMPLETE and record.value is not None:
        best = ", the study's best" if view.best is not None and view.best.number == record.number else ""
        warm = f". It {warm_text(record)}; this trains from scratch" if record.is_warm_started else ""
        return f"{one_line(view.config.metric)} = {exact(record.value)} ({view.config.direction}{best}){warm}"
    reason = f": {one_line(record.reason)}" if record.reason else ""
    return f"It is {record.state.value} and has no final value{reason}."
