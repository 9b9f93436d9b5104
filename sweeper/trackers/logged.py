"""Which steps a tracker has already, kept with the study, so that a resumed sweep does not hand them on again."""

import contextlib
from pathlib import Path


class LoggedSteps:
    """The last step of each trial that a tracker was handed. Each is a line of a file, appended once it was taken.

    A driver that dies in between leaves at most one window to be handed on again, or half a line: a number of another
    trial's, or a step below one that is there.

    Args:
        path: The file; made with the first step.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: dict[int, int] = {}
        text = ""
        with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii", errors="replace") as file:
            text = file.read()
        for line in text.splitlines(keepends=True):
            with contextlib.suppress(ValueError):
                number, step = map(int, line.split())
                if line.endswith("\n"):
                    self._last[number] = max(step, self.last(number))
        self._ending = "" if text.endswith("\n") or not text else "\n"  # of half a line

    def last(self, number: int) -> int:
        """Return a trial's last step that the tracker has; 0 where it has none."""
        return self._last.get(number, 0)

    def forget(self, number: int) -> None:
        """Take it that the tracker has nothing of a trial: its run is a new one."""
        self._last.pop(number, None)

    def note(self, number: int, step: int) -> None:
        """Keep that the tracker has a trial up to a step."""
        self._last[number] = step
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="ascii") as file:
            file.write(f"{self._ending}{number} {step}\n")
        self._ending = ""
