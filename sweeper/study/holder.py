"""Who holds something: a process, named so that another process can tell whether it still lives."""

import contextlib
import dataclasses
import functools
import os
import socket
from pathlib import Path
from typing import Any, Self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    """One process. Its number alone would not do: numbers are used again, and every container has its own."""

    host: str
    pid: int
    machine: str  # boot of a machine and its space of process numbers; "" where the system does not tell
    started: int  # when the process started, in the kernel's ticks since boot; 0 where not known

    @classmethod
    def me(cls) -> Self:
        pid = os.getpid()
        return cls(host=socket.gethostname(), pid=pid, machine=this_machine(), started=_own_start(pid))

    @classmethod
    def read(cls, facts: Any) -> Self | None:
        """Return the holder that `facts` name, or None where they name none."""
        try:
            return cls(
                host=str(facts["host"]),
                pid=int(facts["pid"]),
                machine=str(facts["machine"]),
                started=int(facts["started"]),
            )
        except (KeyError, TypeError, ValueError):
            return None

    def facts(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def is_here(self) -> bool:
        """Whether this process can see the holder's process number."""
        return bool(self.machine) and self.machine == this_machine()

    @property
    def is_dead(self) -> bool:
        """Whether the holder certainly lives no more. False says nothing about a process of another machine."""
        try:
            return self.is_here and _started(self.pid) != self.started
        except OSError:  # no descriptor is free, or it is not shown to this user
            return False


@functools.cache
def this_machine() -> str:
    """Return what tells this boot of this machine, and this container, from all others.

    A host's name would not do: containers that share a disk often share the name, and each sees only its own
    processes.
    """
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.readlink('/proc/self/ns/pid')}"
    return ""


@functools.cache
def _own_start(pid: int) -> int:
    return _started(pid)


def _started(pid: int) -> int:
    """Return a process's start in ticks since boot, 0 where there is no such process or it has ended.

    Raises:
        OSError: If that cannot be told.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The name, in brackets, may hold anything; after it come the state (field 3) and, as field 22, the start.
    fields = text.rpartition(")")[2].split()
    is_over = fields[0] in ("Z", "X")
    return 0 if is_over else int(fields[19])
