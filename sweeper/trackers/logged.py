"""What a tracker has already, kept with the study, so that a resumed sweep hands on what is missing, and only that."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

_ENDED = "ended\n"


class LoggedSteps:
    """The last step of each trial that a tracker was handed, and whose end it was told.

    Each is a line of a file, appended once it was taken. A driver that dies in between leaves at most one window to be
    handed on again, or half a line: a number of another trial's, or a step below one that is there.

    Args:
        path: The file; made with the first step.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: dict[int, int] = {}
        self._ended: set[int] = set()
        text = ""
        with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii", errors="replace") as file:
            text = file.read()
        for line in text.splitlines(keepends=True):
            number, _, what = line.partition(" ")
            with contextlib.suppress(ValueError):
                if what == _ENDED:
                    self._ended.add(int(number))
                elif line.endswith("\n"):
                    self._last[int(number)] = max(int(what), self.last(int(number)))
        self._ending = "" if text.endswith("\n") or not text else "\n"  # of half a line

    def last(self, number: int) -> int:
        """Return a trial's last step that the tracker has; 0 where it has none."""
        return self._last.get(number, 0)

    def forget(self, number: int) -> None:
        """Take it that the tracker has nothing of a trial: its run is a new one."""
        self._last.pop(number, None)

    def lacks(self, number: int, step: int) -> bool:
        """Whether the tracker has not got a trial that has ended at a step.

        Where the file has no ends, a version that kept none has written it: what has its last step has ended there.
        """
        return number not in self._ended and (bool(self._ended) or self.last(number) < step)

    def keep_ends(self, ended: Iterable[tuple[int, int]]) -> None:
        """Keep the ends that a version which kept none has told: numbers of ended trials and their last steps."""
        if not self._ended and self._last:
            for number in [number for number, step in ended if not self.lacks(number, step)]:
                self.note_end(number)

    def note(self, number: int, step: int) -> None:
        """Keep that the tracker has a trial up to a step."""
        self._last[number] = step
        self._append(f"{number} {step}\n")

    def note_end(self, number: int) -> None:
        """Keep that the tracker was told how a trial ended."""
        self._ended.add(number)
        self._append(f"{number} {_ENDED}")

    def _append(self, line: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="ascii") as file:
            file.write(f"{self._ending}{line}")
        self._ending = ""
