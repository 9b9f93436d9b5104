"""Local paths, made absolute from the sweep file's directory; a hub's ids are left as they are."""

import itertools
import os
from pathlib import Path
from typing import Any

from sweeper.config.document import Document, KeyPath
from sweeper.errors import Problem
from sweeper.looking import is_directory, is_file, is_there, names_below

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")  # all but the last: one JSON object per line
_MAX_LOOKS = (
    100_000  # names; without a data file among them, what is named is somebody's home rather than data
)


def resolve_paths(
    document: Document, base_dir: Path, *, check_files: bool
) -> tuple[list[Problem], set[KeyPath]]:
    """Make the document's local paths absolute.

    Args:
        document: Changed in place.
        base_dir: Where relative paths start.
        check_files: Whether model, data and chat template must be there; a report needs none of them.

    Returns:
        The problems, and the places they stand at.
    """
    problems: list[Problem] = []
    broken: set[KeyPath] = set()
    _default_function_dir(document)
    for path in _paths_of(document):
        value = document.get(path)
        if not isinstance(value, str) or not value or not _is_local(path, value, base_dir):
            continue
        absolute = Path(
            os.path.abspath(base_dir / Path(value).expanduser())
        )  # keeps links: mounts differ by node
        problem = _problem_seen(path, value, absolute) if check_files else None
        if problem is not None:
            problems.append(document.problem(problem, path))
            broken.add(path)
        _put(document, path, str(absolute))
    return problems, broken


def _default_function_dir(document: Document) -> None:
    """Let the module of a user's function lie beside the sweep file."""
    trial: Any = document.get(("trial",))
    if isinstance(trial, dict) and trial.get("function") is not None and trial.get("function_dir") is None:
        trial["function_dir"] = "."


def _paths_of(document: Document) -> list[KeyPath]:
    """Return where paths stand: a source may be a string or a mapping with `path`."""
    trial = ("trial",)
    paths: list[KeyPath] = [
        ("dir",),
        (*trial, "function_dir"),
        (*trial, "model"),
        (*trial, "chat_template"),
        ("pruner", "prior"),
    ]
    models: Any = document.get(("search_space", "model"))
    for kind in ("grid", "choice"):
        values = models.get(kind) if isinstance(models, dict) else None
        if isinstance(values, list):
            paths += [("search_space", "model", kind, index) for index in range(len(values))]
    train_data: Any = document.get((*trial, "train_data"))
    sources: list[KeyPath] = [(*trial, "train_data")]
    if isinstance(train_data, list):
        sources = [(*trial, "train_data", index) for index in range(len(train_data))]
    for key in ("data_sets", "eval_data"):
        named = document.get((*trial, key))
        if isinstance(named, dict):
            sources += [(*trial, key, name) for name in named]
    benchmarks: KeyPath = ("benchmarks",)
    paths.append((*benchmarks, "include_path"))
    judged = document.get((*benchmarks, "judged"))
    if isinstance(judged, dict):
        paths += [(*benchmarks, "judged", name, "questions") for name in judged]
    return paths + [(*at, "path") if isinstance(document.get(at), dict) else at for at in sources]


def _is_local(path: KeyPath, value: str, base_dir: Path) -> bool:
    if "://" in value:
        return False
    always_local = (("dir",), ("trial", "function_dir"), ("trial", "chat_template"), ("pruner", "prior"))
    if path in always_local or path[0] == "benchmarks" or value.startswith(("./", "../", "/", "~/")):
        return True
    try:
        if _is_model(path):
            return is_directory(base_dir / value)
        return value.endswith(DATA_SUFFIXES) or is_there(base_dir / value)
    except OSError:
        return True  # what is wrong with it is told of a path


def _is_model(path: KeyPath) -> bool:
    return path == ("trial", "model") or path[:2] == ("search_space", "model")


def _problem_seen(path: KeyPath, value: str, absolute: Path) -> str | None:
    """Return what is wrong with what a place names, or that it cannot be looked at."""
    if path == ("dir",):
        return None
    name = ".".join(str(key) for key in path if not isinstance(key, int))
    seen = "" if str(absolute) == value else f" (that is {absolute})"
    try:
        return _problem(path, name, value, seen, absolute)
    except OSError as error:
        return (
            f"`{name}` names `{value}`{seen}, which cannot be looked at: {error.strerror or error}. Make it readable, "
            "or correct the path."
        )


def _problem(path: KeyPath, name: str, value: str, seen: str, absolute: Path) -> str | None:
    if not is_there(absolute):
        return (
            f"`{name}` names `{value}`{seen}, which does not exist. Correct the path, relative to the sweep "
            "file."
        )
    if path == ("pruner", "prior"):
        return None  # a study's directory or a recorded sweep's file: whoever reads it says what is wrong with it
    if path in (("trial", "function_dir"), ("benchmarks", "include_path")):
        return (
            None if is_directory(absolute) else f"`{name}` names `{value}`, which is no directory. Name one."
        )
    if _is_model(path):
        is_fine = is_directory(absolute)
        return None if is_fine else f"`{name}` names `{value}`, which is a file. Name the model's directory."
    if is_file(absolute) and absolute.stat().st_size == 0:
        return f"`{name}` names `{value}`{seen}, which is empty. Put rows into it or name another file."
    if path == ("trial", "chat_template") or path[0] == "benchmarks":
        kind = "Jinja" if path[-1] == "chat_template" else "JSONL"
        return (
            None if is_file(absolute) else f"`{name}` names `{value}`, which is no file. Name a {kind} file."
        )
    if is_directory(absolute) and not _holds_data(absolute):
        kinds = ", ".join(DATA_SUFFIXES)
        return (
            f"`{name}` names `{value}`{seen}, a directory without any file of {kinds} (of many files, the first "
            f"{_MAX_LOOKS:,} are looked at). Name one that has some."
        )
    return None


def _holds_data(directory: Path) -> bool:
    names = names_below(directory, skips_closed=True)
    return any(name.endswith(DATA_SUFFIXES) for name in itertools.islice(names, _MAX_LOOKS))


def _put(document: Document, path: KeyPath, value: str) -> None:
    parent = document.get(path[:-1])
    parent[path[-1]] = value
