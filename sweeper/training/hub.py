"""Data sets of the Hugging Face hub: the one door to them."""

import logging
import re
from pathlib import Path
from typing import Any

from sweeper.config.trial_models import DataSource
from sweeper.errors import ConfigError

logger = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WAIT_S = 10.0


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a commit, which stands for the same rows ever after; a branch or a tag may move."""
    return _COMMIT.fullmatch(revision or "") is not None


def hub_commit(source: DataSource) -> str | None:
    """Return the commit that a data set's name and revision stand for now.

    Where the hub does not answer, that of the newest rows in the local cache, which are then the ones that get loaded;
    None where that does not tell it either.

    Raises:
        ConfigError: If the hub does not answer and the data set cannot be loaded.
    """
    import huggingface_hub

    if is_commit(source.revision):
        return source.revision
    try:
        found = huggingface_hub.dataset_info(source.path, revision=source.revision, timeout=_WAIT_S).sha
    except Exception as error:  # noqa: BLE001 - of three libraries; what is wrong with the data set, loading it tells
        logger.debug("The hub does not tell the commit of %s: %s", source.path, error)
        found = None
    if found is None:
        found = _commit_of(_load(source))
    return found


def load_split(source: DataSource) -> tuple[str, Any]:
    """Return the name of the split that a source means, and its rows.

    Raises:
        ConfigError: If it cannot be loaded, or only at another commit than the one that it asks for.
    """
    loaded = _load(source)
    split = source.split or (next(iter(loaded)) if len(loaded) == 1 else "train")
    if split not in loaded:
        raise ConfigError(
            f"The data set `{source.path}` has no split `{split}`; it has {', '.join(loaded)}. Set `split`."
        )
    commit = _commit_of(loaded)
    if commit is not None and is_commit(source.revision) and commit != source.revision:
        # datasets 5.2 does not look at the revision where the hub does not answer.
        raise ConfigError(
            f"The data set `{source.path}` is to be read at commit {source.revision}, but the hub does not answer and "
            f"the local cache has only commit {commit}. Let the hub be reached once, or copy the cache of a machine "
            "that has it."
        )
    return split, loaded[split]


def _load(source: DataSource) -> Any:
    import datasets

    try:
        return datasets.load_dataset(source.path, source.name, revision=source.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        said = " ".join(str(error).split()).removesuffix(".")
        raise ConfigError(
            f"The data set `{source.path}` is no local path and could not be loaded from the hub: {said}. "
            f"{_remedy(source, error)}"
        ) from error


def _commit_of(loaded: Any) -> str | None:
    """Return the commit of loaded rows: the directory in which datasets 5.2 caches them has its name."""
    files = [Path(file["filename"]) for rows in loaded.values() for file in rows.cache_files]
    names = {file.parent.name for file in files}
    return next((name for name in names if len(names) == 1 and _COMMIT.fullmatch(name)), None)


def _remedy(source: DataSource, error: Exception) -> str:
    """Return what to do about a data set that cannot be loaded, by the words of datasets 5.2."""
    words = str(error)
    if "Config name is missing" in words:
        return "Set `name` to one of these."
    if "BuilderConfig" in words and "not found" in words:
        return f"Set `name`, which is `{source.name}`, to one of these."
    if "Revision" in words and source.revision is not None:
        return f"Correct `revision`, which is `{source.revision}`."
    if "scripts are no longer supported" in words:
        return (
            "Choose a data set that is stored as data files, or download this one's rows and give their path."
        )
    if type(error).__name__.startswith("DatasetGeneration"):
        cause = error.__cause__
        said = (
            "" if cause is None else f"The cause was: {type(cause).__name__}: {' '.join(str(cause).split())} "
        )
        return (
            f"{said}Choose other files with `name`, or download the data set and give the path of its rows."
        )
    return "Correct `path`, or download it and give its path."
