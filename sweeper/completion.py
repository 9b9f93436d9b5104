"""What a shell offers after a tab: studies, trial numbers, names. Never raises: a tab must not print a traceback."""

import contextlib
import functools
import itertools
import logging
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sweeper.storage_url import keep_password
from sweeper.study import layout

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def _never_raising(offer: Callable[P, list[T]]) -> Callable[P, list[T]]:
    """Let whatever goes wrong offer nothing."""

    @functools.wraps(offer)
    def offered(*args: P.args, **kwargs: P.kwargs) -> list[T]:
        try:
            return offer(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the line that is being written is no place for it
            logger.debug("Nothing to offer: %s", error)
            return []

    return offered


@_never_raising
def studies(ctx: Any, incomplete: str) -> list[str]:
    """Return the studies of `--storage`, or those in `studies/` and the directories that lead to one."""
    if (url := ctx.params.get("storage")) is not None:
        return [name for name in _names_in(url) if name.startswith(incomplete)]
    return [*_local_names(incomplete), *_directories(incomplete)]


@_never_raising
def trials(ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    """Return the numbers of the study's trials, each with its state and params."""
    from sweeper.api import load_study
    from sweeper.reporting.formats import params_text

    place, storage = _study_of(ctx)
    if place is None:
        return []
    return [
        (str(record.number), f"{record.state.value} {params_text(record.params)}")
        for record in load_study(place, storage=storage).records
        if str(record.number).startswith(incomplete)
    ]


def _study_of(ctx: Any) -> tuple[str | None, str | None]:
    """Return the study and the storage that the command line names so far.

    click gives up reading a line at an option that waits for its value, so the words are looked at here.
    """
    if place := ctx.params.get("study"):
        return str(place), ctx.params.get("storage")
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    try:
        words = shlex.split(line)[2:]  # without `sweeper` and the command
    except ValueError:  # a quote that is still open
        return None, None
    after = dict(itertools.pairwise(words))
    storage = after.get("--storage")
    places = [word for word in words if not word.startswith("-") and word != storage]
    return (places[0] if places else None), storage


@_never_raising
def export_formats(incomplete: str) -> list[str]:
    """Return the formats of `export`."""
    from sweeper.reporting.export.write import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]


@_never_raising
def pruners(incomplete: str) -> list[str]:
    """Return the pruners that go by a name."""
    from sweeper.config.names import EARLY_DYNAMICS, OPTUNA_PRUNERS

    return [name for name in (EARLY_DYNAMICS, *OPTUNA_PRUNERS) if name.startswith(incomplete)]


def _names_in(url: str) -> list[str]:
    from sweeper.study.storage import open_storage

    storage = open_storage(keep_password(url), Path.cwd())
    return sorted(study.study_name for study in storage.get_all_studies())


def _local_names(incomplete: str) -> list[str]:
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found = sorted(layout.STUDIES.glob(f"*/{layout.MARKER}"))
    return [marker.parent.name for marker in found if marker.parent.name.startswith(incomplete)]


def _directories(incomplete: str) -> list[str]:
    """Return the directories that begin so and are a study, or may hold one."""
    head, _, start = incomplete.rpartition("/")
    base = Path(head or ("/" if incomplete.startswith("/") else "."))
    found: list[Path] = []
    with contextlib.suppress(OSError):  # one that is not there, or that this user may not list
        found = sorted(path for path in base.iterdir() if path.name.startswith(start) and _is(path.is_dir))
    prefix = f"{head}/" if "/" in incomplete else ""
    return [
        f"{prefix}{path.name}{'' if _is((path / layout.MARKER).exists) else '/'}"
        for path in found
        if start.startswith(".") or not path.name.startswith(".")
    ]


def _is(question: Callable[[], bool]) -> bool:
    """Return a path's answer about itself; no where this user may not look."""
    with contextlib.suppress(OSError):
        return question()
    return False
