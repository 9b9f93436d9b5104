"""The errors that a user can meet, each with its exit code.

SweeperError              6  the sweep failed
├── ConfigError           2  the config cannot be run
├── StudyMismatchError    4  the study does not match, or somebody else holds it
├── NothingToDoError      3  there is nothing left to do
└── InterruptedSweepError 130  stopped by a signal; state is saved
"""

import dataclasses
from collections.abc import Sequence

EXIT_OK = 0


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a config: a full sentence, and where it stands."""

    message: str  # what is wrong (name and value), what is allowed, what to do
    file: str | None = None
    line: int | None = None  # 1-based

    def __str__(self) -> str:
        if self.file is None:
            return self.message
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}"


def first_line(error: BaseException) -> str:
    """Return the first line of a foreign error, for a message of ours; of one without any text the type's name.

    >>> first_line(OSError("gone.\\nCheck the cable."))
    'gone.'
    >>> first_line(TimeoutError())
    'TimeoutError'
    """
    return _lines(error)[0]


def last_line(error: BaseException) -> str:
    """Return the last line, where the reason of a remote error stands; else as `first_line`."""
    return _lines(error)[-1]


def named_line(error: BaseException) -> str:
    """Return the type's name and the first line, without the full stop.

    >>> named_line(OSError("gone.\\nCheck the cable."))
    'OSError: gone'
    """
    name, line = type(error).__name__, first_line(error).rstrip(".")
    return name if line == name else f"{name}: {line}"


def _lines(error: BaseException) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]


class SweeperError(Exception):
    """Base of every error that `sweeper` raises on purpose; also: the sweep failed."""

    exit_code = 6


class ConfigError(SweeperError):
    """The config cannot be run. Carries every problem that was found, not only the first."""

    exit_code = 2

    def __init__(self, problems: str | Problem | Sequence[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        if isinstance(problems, Problem):
            problems = (problems,)
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(self._text())

    def _text(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        lines = [f"{index}. {problem}" for index, problem in enumerate(self.problems, start=1)]
        return f"{len(lines)} problems were found:\n" + "\n".join(lines)

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[tuple[Problem, ...]]]:
        return (type(self), (self.problems,))


class StudyMismatchError(SweeperError):
    """The study on disk or in the storage is not the one that the config describes, or is held."""

    exit_code = 4


class NothingToDoError(SweeperError):
    """Every point of the study has ended already."""

    exit_code = 3


class InterruptedSweepError(SweeperError):
    """A signal stopped the sweep; its state is saved and `resume` goes on."""

    exit_code = 130
