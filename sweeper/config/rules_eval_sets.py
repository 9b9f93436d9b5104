"""Rules of the names of eval sets, each of which is a file's name in every trial's directory."""

import re

from sweeper.config.benchmark_models import BENCH
from sweeper.config.draft import Draft
from sweeper.config.values import NAME_PATTERN

_MAX_CHARACTERS = 100  # a file's name may have 255
_OF_BENCHMARKS = f"{BENCH}--"  # how the file of a benchmark's items begins


def check_eval_sets(draft: Draft) -> None:
    """Check that every eval set's name can be a file's, and that of no other source."""
    seen: dict[str, str] = {}
    for name in draft.config.trial.eval_data:
        problem = _problem(name, seen)
        if problem is not None:
            draft.tell(problem, "trial", "eval_data", name)
        seen.setdefault(name.casefold(), name)


def _problem(name: str, seen: dict[str, str]) -> str | None:
    if not re.fullmatch(NAME_PATTERN, name):
        return f"`{name}` is no valid name of an eval set. Use letters, digits, `_`, `.` and `-`."
    if len(name) > _MAX_CHARACTERS:
        return (
            f"The name of an eval set may have {_MAX_CHARACTERS} characters, but `{name[:20]}…` has {len(name)}. "
            "Shorten it."
        )
    if name.casefold().startswith(_OF_BENCHMARKS):
        return (
            f"`{name}` cannot name an eval set: files of benchmarks begin with `{_OF_BENCHMARKS}`. Rename it."
        )
    if name.casefold() in seen:
        return (
            f"The eval sets `{seen[name.casefold()]}` and `{name}` differ only in upper and lower case, so that their "
            "files are one on some disks. Rename one of them."
        )
    return None
