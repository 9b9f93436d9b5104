"""Which rows a sweep trains on: noted before it starts, and held to by every trial. Loads no heavy library."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sweeper.cache import cache_dir
from sweeper.config.trial_models import DataSource, TrialSection
from sweeper.errors import ConfigError, SweeperError
from sweeper.files import write_text
from sweeper.training.hub import hub_commit
from sweeper.training.sources import is_local, local_files

logger = logging.getLogger(__name__)

_COMMIT = "commit "  # how the identity of a data set of the hub begins
_hashes: dict[str, str] = {}  # of files, by path, size and times


class DataChangedError(SweeperError):
    """The data is not what the sweep began with, so that trials could not be compared."""


def data_identities(trial: TrialSection) -> dict[str, str]:
    """Return what each source of a trial holds now, by the source's place in the `trial` section.

    A source that cannot be read is left out: whoever loads it tells what is wrong.
    """
    found = {}
    for place, source in named_sources(trial).items():
        try:
            identity = source_content(source)
        except (ConfigError, OSError) as error:
            logger.debug("%s has no identity: %s", place, error)
            continue
        if identity is not None:
            found[place] = identity
    return found


def pinned(trial: TrialSection, identities: Mapping[str, str]) -> TrialSection:
    """Return the section with every data set of the hub at the commit that was noted of it."""

    def at(place: str, source: DataSource) -> DataSource:
        noted = identities.get(place, "")
        if not noted.startswith(_COMMIT):
            return source
        return source.model_copy(update={"revision": noted.removeprefix(_COMMIT)})

    return with_sources(trial, at)


def with_sources(trial: TrialSection, change: Callable[[str, DataSource], DataSource]) -> TrialSection:
    """Return the section with every source replaced by what `change` makes of its place and it."""
    changes: dict[str, Any] = {
        "eval_data": {name: change(f"eval_data.{name}", source) for name, source in trial.eval_data.items()}
    }
    if trial.train_data is not None:
        changes["train_data"] = [
            change(f"train_data[{index}]", source) for index, source in enumerate(trial.train_data)
        ]
    if trial.data_sets is not None:
        changes["data_sets"] = {
            name: change(f"data_sets.{name}", source) for name, source in trial.data_sets.items()
        }
    return trial.model_copy(update=changes)


def check_identities(trial: TrialSection, identities: Mapping[str, str]) -> None:
    """Refuse data that is not what was noted; sources of which nothing was noted may be anything.

    Raises:
        DataChangedError: If a local file or directory has other content.
    """
    for place, source in named_sources(trial).items():
        noted = identities.get(place)
        if noted is not None and is_local(source) and source_content(source) != noted:
            raise DataChangedError(
                f"`trial.{place}` = `{source.path}` has other content than when the sweep began, so that its trials "
                "could not be compared. Restore the data, or launch a new study with what is there now."
            )


def changed_sources(trial: TrialSection, noted: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the sources of which something else is noted in one than in the other, as messages name them."""
    return [
        f"`trial.{place}` = `{source.path}`"
        for place, source in named_sources(trial).items()
        if place in noted and now.get(place, noted[place]) != noted[place]
    ]


def named_sources(trial: TrialSection) -> dict[str, DataSource]:
    """Return all sources of a trial by their places in the `trial` section."""
    return (
        {f"train_data[{index}]": source for index, source in enumerate(trial.train_data or ())}
        | {f"data_sets.{name}": source for name, source in (trial.data_sets or {}).items()}
        | {f"eval_data.{name}": source for name, source in trial.eval_data.items()}
    )


def source_content(source: DataSource) -> str | None:
    """Return what tells a source's rows from others, wherever they lie; None where the hub does not tell it.

    Raises:
        ConfigError: If it cannot be read.
    """
    if not is_local(source):
        commit = hub_commit(source)
        return None if commit is None else f"{_COMMIT}{commit}"
    digest = hashlib.sha256()
    for file in local_files(source):
        digest.update(_file_hash(file).encode())
    return f"sha256 {digest.hexdigest()[:32]}"


def _file_hash(file: Path) -> str:
    """Return the hash of a file's content, read once by all processes that share the cache of tokens."""
    stat = file.stat()
    stamp = json.dumps([str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    key = hashlib.sha256(stamp.encode()).hexdigest()[:32]
    if key not in _hashes:
        kept = cache_dir() / "hashes" / key
        try:
            _hashes[key] = kept.read_text(encoding="ascii")
        except OSError:
            with open(file, "rb") as opened:
                _hashes[key] = hashlib.file_digest(opened, "sha256").hexdigest()
            _keep(kept, _hashes[key])
    return _hashes[key]


def _keep(place: Path, text: str) -> None:
    try:
        write_text(place, text)
    except SweeperError as error:  # then it is read again next time, which only takes longer
        logger.debug("%s was not kept: %s", place, error)
