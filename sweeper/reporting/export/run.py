"""An export as the command line asks for it."""

import dataclasses
from pathlib import Path

from sweeper.errors import ConfigError
from sweeper.files import write_text
from sweeper.reporting.export.chosen import choose_trial, chosen_record
from sweeper.reporting.export.lock import lock_text
from sweeper.reporting.export.model_dir import push_command, write_model
from sweeper.reporting.export.write import FORMATS, export_trial, find_format
from sweeper.study.study import Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is wanted of a trial."""

    format_name: str | None = None
    number: int | None = None  # None: the best trial
    out: Path | None = None  # None: the text is returned
    rows: Path | None = None
    lock: Path | None = None
    model: Path | None = None
    trusts_code: bool = False  # lets the model's own code run in this process, where the study did


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportDone:
    """What there is to print."""

    text: str  # the file that was asked for without a place
    said: tuple[str, ...]  # what was written, and what to do with it


def run_export(place: str, request: ExportRequest, *, storage: str | None = None) -> ExportDone:
    """Write everything that is wanted of a study's trial.

    Raises:
        ConfigError: If nothing is wanted, or it cannot be written so.
        StudyMismatchError: If there is no such study or trial, or it kept no model.
    """
    _refuse_useless(request)
    format = find_format(request.format_name) if request.format_name is not None else None
    study = Study.open(place, url=storage)
    view, facts = study.view(), study.facts()
    record = chosen_record(view, request.number)
    text, said = "", []
    if format is not None:
        made = export_trial(
            choose_trial(view, facts, request.number, trusts_code=request.trusts_code), format,
            out=request.out, rows=request.rows,
        )  # fmt: skip
        if view.config.trial.trust_remote_code and not request.trusts_code:
            said.append(
                "not run: the code that the model brings, which the study trusts. Where it has the tokenizer, nothing "
                "was read from the chat template; `--trust-remote-code` lets it run"
            )
        said += [f"wrote {path}" for path in made.written]
        if request.out is None:
            text = made.text
        else:
            said.append(f"run it: {made.command}")
    if request.lock is not None:
        write_text(request.lock, lock_text(view, facts, record))
        said.append(f"wrote {request.lock}")
    if request.model is not None:
        write_model(view, record, request.model)
        said += [f"wrote {request.model}", f"publish it: {push_command(view, record, request.model)}"]
    return ExportDone(text=text, said=tuple(said))


def _refuse_useless(request: ExportRequest) -> None:
    if request.format_name is None:
        if request.out is not None or request.rows is not None:
            option = "--out" if request.out is not None else "--data"
            raise ConfigError(f"`{option}` needs `--format`: {', '.join(FORMATS)}.")
        if request.lock is None and request.model is None:
            raise ConfigError(
                f"Say what to export: `--format` ({', '.join(FORMATS)}), `--lock FILE` or `--model DIR`."
            )
    places = [path.absolute() for path in (request.out, request.rows, request.lock) if path is not None]
    if len(set(places)) < len(places):
        raise ConfigError("`--out`, `--data` and `--lock` must be different files.")
