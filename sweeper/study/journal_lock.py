"""The lock of a journal file: a symbolic link, which every file system makes whole or not at all."""

import contextlib
import fcntl
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from sweeper.study.holder import Holder

logger = logging.getLogger(__name__)

FOREIGN_GRACE_S = 30.0  # how long a lock may stand unchanged whose holder cannot be looked up


class JournalLock:
    """Excludes all other writers of a journal file, on NFS too.

    The link's target names the holder, so that the lock of a process that was killed on this machine is broken at
    once; Optuna's own lock (5.0.0) is broken after 30 s whoever held it. It stands at the same path as Optuna's,
    so that a program that writes the journal through Optuna is excluded as well.

    Args:
        path: The journal file.
        grace_s: When to break a lock whose holder is elsewhere or unknown, in seconds of this process's own clock.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, path: Path, *, grace_s: float = FOREIGN_GRACE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._journal = path
        self._link = path.with_name(path.name + ".lock")
        self._grace_s = grace_s
        self._clock = clock

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[], bool]]:
        """Hold the lock while the block runs; yield how to ask whether it still stands.

        A holder that stalls for longer than the grace is taken for dead, and another one writes meanwhile.
        """
        target = self._acquire()
        try:
            yield lambda: self._read() == target
        finally:
            self._release(target)

    def _acquire(self) -> str:
        target = json.dumps({**Holder.me().facts(), "token": uuid.uuid4().hex})
        wait_s = 0.0005
        seen, since = None, self._clock()
        while True:
            try:
                os.symlink(target, self._link)
            except FileExistsError:
                found = self._read()
            else:
                return target
            if found != seen:
                seen, since = found, self._clock()
            if found is not None and (self._is_dead(found) or self._clock() - since > self._grace_s):
                self._break(found)
                continue
            time.sleep(wait_s)
            wait_s = min(wait_s * 2, 0.05)

    def _read(self) -> str | None:
        try:
            return os.readlink(self._link)
        except OSError:  # gone meanwhile, or no link
            return None

    @staticmethod
    def _is_dead(target: str) -> bool:
        try:
            holder = Holder.read(json.loads(target))
        except ValueError:  # Optuna's own lock: the target is the journal's path
            return False
        return holder is not None and holder.is_dead

    def _break(self, target: str) -> None:
        """Remove a dead holder's lock, and no other that was taken meanwhile."""
        with open(self._journal, "rb") as journal:
            # Only breakers take this one, so that of two of them the slower cannot remove the quicker one's new lock.
            # Where the file system has no such lock, the short time between look and removal has to do.
            with contextlib.suppress(OSError):
                fcntl.flock(journal, fcntl.LOCK_EX)
            if self._read() == target:
                logger.warning("Breaking the lock %s, whose holder is gone.", self._link)
                self._link.unlink(missing_ok=True)

    def _release(self, target: str) -> None:
        if self._read() == target:
            self._link.unlink(missing_ok=True)
        else:
            logger.warning("The lock %s was broken by another process while it was held.", self._link)
