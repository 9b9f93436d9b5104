"""From a sweep file to a checked, frozen config."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sweeper.config.document import Document, KeyPath, parse_document
from sweeper.config.draft import Draft, dotted, draft_config
from sweeper.config.dump import config_to_dict
from sweeper.config.include import include_search_space
from sweeper.config.local_paths import resolve_paths
from sweeper.config.messages import show
from sweeper.config.models import SweepConfig
from sweeper.config.overrides import apply_overrides
from sweeper.config.rules_benchmarks import check_benchmarks
from sweeper.config.rules_data import check_data_strategy
from sweeper.config.rules_finite import check_finite
from sweeper.config.rules_method import check_method
from sweeper.config.rules_metric import check_metric
from sweeper.config.rules_optimizer import check_optimizer, unused_settings
from sweeper.config.rules_points import check_points
from sweeper.config.rules_pruner import check_divergence, check_pruner, check_rungs, check_sampler
from sweeper.config.rules_space import check_search_space
from sweeper.config.rules_trial import check_trial
from sweeper.config.rules_urls import check_urls
from sweeper.config.trial_models import TrainSettings
from sweeper.errors import ConfigError, Problem

_RULES: tuple[Callable[[Draft], None], ...] = (
    check_trial,
    check_search_space,
    check_points,
    check_optimizer,
    check_method,
    check_data_strategy,
    check_metric,
    check_benchmarks,
    check_urls,
    check_sampler,
    check_rungs,
    check_pruner,
    check_divergence,
    check_finite,
)
_MAX_BYTES = 2_000_000


def load_config(path: str | Path, overrides: Sequence[str] = (), *, check_files: bool = True) -> SweepConfig:
    """Read a sweep file and check all of it.

    Args:
        path: The YAML 1.2 file. Relative paths in it start at its directory.
        overrides: `key=value` each, or one alone; see `sweeper.config.overrides`.
        check_files: Whether local model and data must be there. A report on another machine needs neither.

    Raises:
        ConfigError: With every problem that was found.
    """
    path = Path(path)
    return parse_config(
        _read(path), file=str(path), base_dir=path.parent, overrides=overrides, check_files=check_files
    )


def parse_config(
    text: str, *, file: str, base_dir: Path, overrides: Sequence[str] = (), check_files: bool = True
) -> SweepConfig:
    """Check a sweep file's text. `file` is how messages call it; see `load_config`.

    Raises:
        ConfigError: With every problem that was found.
    """
    return _resolve(parse_document(text, file=file), base_dir, overrides, check_files=check_files)


def config_from_dict(
    data: Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    check_files: bool = True,
) -> SweepConfig:
    """Check a config that was made in Python. Relative paths start at the working directory.

    Raises:
        ConfigError: With every problem that was found.
    """
    document = Document(data=_plain_data(data, ()))
    return _resolve(document, Path.cwd(), overrides, check_files=check_files)


def override_recorded(config: SweepConfig, overrides: Sequence[str]) -> SweepConfig:
    """Return a recorded config with overrides laid over it, checked for what these make wrong.

    What an earlier version allowed and today's rules refuse stays as it was recorded, and settings that the record
    lacks stay away: its study goes on as it began.

    Raises:
        ConfigError: With every problem that the overrides bring.
    """
    recorded = config_to_dict(config)
    changed = _checked(Document(data=_plain_data(recorded, ())), Path.cwd(), overrides, check_files=False)
    if changed.problems:
        before = _checked(Document(data=_plain_data(recorded, ())), Path.cwd(), (), check_files=False)
        new = [problem for problem in changed.problems if problem not in before.problems]
        if new or changed.broken:  # what is broken could not be kept: a default stands in its place
            raise ConfigError(_in_order(new or changed.problems, None))
    return _with_settings(changed, left_out=TrainSettings.model_fields.keys() - changed.config.trial.settings)


def _plain_data(value: Any, path: KeyPath) -> Any:
    """Return Python's values, and numpy's, as a file could hold them: mappings, lists, text, numbers."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, Mapping):
        return {str(key): _plain_data(item, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_plain_data(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    # Numpy's scalars and arrays, without loading it. Some scalars (longdouble) have no plain form and give themselves.
    plain = value.tolist() if hasattr(type(value), "tolist") else value
    if type(plain) is not type(value):
        return _plain_data(plain, path)
    kind = type(value).__name__
    raise ConfigError(
        f"`{dotted(path)}` must be plain data, but got an object of type {kind}. Give text, a number, true "
        "or false, a list or a mapping."
    )


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(
                f"`{path}` is larger than {_MAX_BYTES:,} bytes, which no sweep file is. Check the name."
            )
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file `{path}`. Check the path of the sweep file.") from error
    except IsADirectoryError as error:
        raise ConfigError(f"`{path}` is a directory. Name the sweep file in it.") from error
    except UnicodeDecodeError as error:
        message = f"The file is no UTF-8 text: byte {error.start} cannot be read. Save it as UTF-8."
        raise ConfigError(Problem(message, str(path))) from error
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be read: {error.strerror}.") from error


def _resolve(
    document: Document, base_dir: Path, overrides: Sequence[str], *, check_files: bool
) -> SweepConfig:
    if not isinstance(document.data, dict):
        got = "it is empty" if document.data is None else f"it holds {show(document.data)}"
        raise ConfigError(document.problem(f"A sweep file must be a mapping of sections, but {got}."))
    base_dir = Path(os.path.abspath(base_dir))
    draft = _checked(document, base_dir, overrides, check_files=check_files)
    if draft.problems:
        raise ConfigError(_in_order(draft.problems, document.file))
    return _with_settings(draft, left_out=_unnamed_settings(draft.config))


def _checked(document: Document, base_dir: Path, overrides: Sequence[str], *, check_files: bool) -> Draft:
    """Put the file's parts together and check them by all rules."""
    draft = _draft(document, base_dir, overrides, check_files=check_files)
    for check in _RULES:
        check(draft)
    return draft


def _draft(document: Document, base_dir: Path, overrides: Sequence[str], *, check_files: bool) -> Draft:
    """Put the file's parts together and check each section on its own."""
    which_space, others = _split(overrides)
    problems = apply_overrides(document, which_space)
    told, is_missing = include_search_space(document, base_dir)
    broken: set[KeyPath] = {("search_space",)} if is_missing else set()
    if which_space and not is_missing:
        # As with a single dimension: what an override lets vary is no longer fixed.
        for name in document.get(("search_space",)) or ():
            document.remove(("trial", "settings", str(name)))
    problems += told + apply_overrides(document, others)
    told, broken_paths = resolve_paths(document, base_dir, check_files=check_files)
    # A path that names nothing is still text in the right place, so the sections are checked with it.
    draft = draft_config(document, problems=problems + told, broken=broken)
    draft.broken |= broken_paths
    return draft


def _split(overrides: Iterable[str]) -> tuple[list[str], list[str]]:
    """Separate the overrides that choose the search space file: the others come after it was read."""
    first: list[str] = []
    others: list[str] = []
    for override in [overrides] if isinstance(overrides, str) else overrides:
        key = override.partition("=")[0].strip()
        (first if key in ("search_space", "search_space.file") else others).append(override)
    return first, others


def _unnamed_settings(config: SweepConfig) -> set[str]:
    """Return the built-in trial's settings that a written config does not name: those that vary or mean nothing.

    `seed` is one of them unless it was given: it follows the study's.
    """
    is_seeded = "seed" in config.trial.settings
    return {*config.search_space, *unused_settings(config), *(() if is_seeded else ("seed",))}


def _with_settings(draft: Draft, *, left_out: Set[str]) -> SweepConfig:
    """Return the config with the built-in trial's settings written out, but for some.

    Written out, so that a study goes on with its old defaults under a newer version.
    """
    config = draft.config
    if draft.settings is None:
        return config
    settings = {key: value for key, value in draft.settings.model_dump().items() if key not in left_out}
    return config.model_copy(update={"trial": config.trial.model_copy(update={"settings": settings})})


def _in_order(problems: Iterable[Problem], main_file: str | None) -> list[Problem]:
    """Sort problems as a reader goes: the sweep file first, top to bottom; each is told once."""
    unique = list(dict.fromkeys(problems))
    return sorted(
        unique, key=lambda problem: (problem.file != main_file, problem.file or "", problem.line or 0)
    )
