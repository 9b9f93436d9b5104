"""`search_space` from a file of its own, inlined before anything is checked."""

import sysconfig
from pathlib import Path

from sweeper.config.document import Document, KeyPath, parse_document
from sweeper.config.messages import show, unknown_name
from sweeper.errors import ConfigError, Problem
from sweeper.looking import is_file

_FILE_KEYS = ("search_space", "sampler", "settings", "compare", "phases")
_IN_CHECKOUT = Path(__file__).resolve().parents[2] / "search_spaces"
_INSTALLED = Path(sysconfig.get_path("data")) / "share" / "sweeper" / "search_spaces"  # of a wheel
_SHIPPED = _IN_CHECKOUT if _IN_CHECKOUT.is_dir() else _INSTALLED


def include_search_space(document: Document, base_dir: Path) -> tuple[list[Problem], bool]:
    """Replace `search_space: name` or `search_space: {file: path}` by what the file holds.

    The file's `sampler`, `settings`, `compare` and `phases` fill in what the sweep file leaves open; what it says wins.
    Places keep naming the file that a value was written in.

    Returns:
        The problems, and whether `search_space` is still without dimensions because of them.
    """
    at: KeyPath = ("search_space",)
    value = document.get(at)
    if isinstance(value, str):
        named, at_name = value, at
    elif isinstance(value, dict) and set(value) == {"file"} and isinstance(value["file"], str):
        named, at_name = value["file"], (*at, "file")
    else:
        return [], False
    try:
        path = find_search_space(named, base_dir)
    except OSError as error:
        message = (
            f"`search_space` names {show(named)}, which cannot be looked for: {error.strerror or error}. Name a file "
            f"or a shipped search space ({_shipped_names()}), or write the dimensions below the key."
        )
        return [document.problem(message, at_name)], True
    if path is None:
        message = (
            f"The search space `{named}` was found neither as a file nor as `search_spaces/{named}.yaml` "
            f"beside {base_dir} or above it. Shipped: {_shipped_names()}."
        )
        return [document.problem(message, at_name)], True
    try:
        included = parse_document(path.read_text(encoding="utf-8"), file=_shown(path, base_dir))
    except ConfigError as error:
        return list(error.problems), True
    except (OSError, UnicodeDecodeError) as error:
        return [document.problem(f"The search space `{named}` cannot be read: {error}.", at_name)], True
    return _inline(document, included)


def find_search_space(name: str, base_dir: Path) -> Path | None:
    """Return the file that a name or relative path stands for, or None.

    Looked for as a path from `base_dir`, then in `search_spaces/` there and in every directory above it, then
    among the shipped ones.

    Raises:
        OSError: If that cannot be told.
    """
    candidates = [base_dir / name, base_dir / f"{name}.yaml"]
    if "/" not in name:
        folders = [folder / "search_spaces" for folder in (base_dir, *base_dir.parents)] + [_SHIPPED]
        candidates += [folder / f"{name.removesuffix('.yaml')}.yaml" for folder in folders]
    return next((path for path in candidates if is_file(path)), None)


def _inline(document: Document, included: Document) -> tuple[list[Problem], bool]:
    content = included.data
    if not isinstance(content, dict) or not isinstance(content.get("search_space"), dict):
        message = (
            "A search space file must hold a mapping `search_space`. Write the dimensions below that key."
        )
        return [included.problem(message)], True
    problems = [
        included.problem(unknown_name(key, _FILE_KEYS, what="key"), (key,))
        for key in content
        if key not in _FILE_KEYS
    ]
    _take(document, included, ("search_space",), ("search_space",))
    if "sampler" in content and document.get(("sampler",)) is None:
        _take(document, included, ("sampler",), ("sampler",))
    trial = document.data.setdefault("trial", {})
    if not isinstance(trial, dict):
        return problems, False  # told when the sections are checked
    for key in ("compare", "phases"):
        if key in content and key not in trial:
            _take(document, included, (key,), ("trial", key))
    return problems + _fill_settings(document, included, trial), False


def _fill_settings(document: Document, included: Document, trial: dict[str, object]) -> list[Problem]:
    settings = included.data.get("settings", {})
    if not isinstance(settings, dict):
        return [
            included.problem(
                "`settings` must be a mapping. Write `key: value` lines below it.", ("settings",)
            )
        ]
    if trial.get("settings") is None:
        trial["settings"] = {}
    own = trial["settings"]
    if isinstance(own, dict):
        for key in settings:
            if key not in own:
                _take(document, included, ("settings", key), ("trial", "settings", key))
    return []


def _take(document: Document, included: Document, source: KeyPath, target: KeyPath) -> None:
    places = {
        path[len(source) :]: place for path, place in included.places.items() if path[: len(source)] == source
    }
    document.graft(target, included.get(source), places)


def _shown(path: Path, base_dir: Path) -> str:
    return str(path.relative_to(base_dir)) if path.is_relative_to(base_dir) else str(path)


def _shipped_names() -> str:
    names = sorted(path.stem for path in _SHIPPED.glob("*.yaml")) if _SHIPPED.is_dir() else []
    return ", ".join(names) if names else "none"
