"""A PostgreSQL server of the test's own, that can be stopped and started."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

PASSWORD = "s3cr/et-Pa%ss"
QUOTED = "s3cr%2Fet-Pa%25ss"


def binaries() -> Path | None:
    """Return where PostgreSQL's programs are, or None."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return places[-1].parent if places else None


class Postgres:
    """A server on a free port with one user and one database, both called sweeper."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._root = Path(tempfile.mkdtemp(prefix="sweeper-pg-"))
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:  # the server refuses to run as root
            names = {entry.pw_name: entry for entry in pwd.getpwall()}
            user = names.get("postgres") or names["nobody"]
            os.chown(self._root, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        password_file = self._root / "password"
        password_file.write_text(PASSWORD)
        os.chmod(password_file, 0o644)
        self._run("initdb", "-D", str(self._data), "-U", "sweeper", "--auth=scram-sha-256",
                  f"--pwfile={password_file}", "--no-sync")  # fmt: skip
        with open(self._data / "postgresql.conf", "a") as file:
            file.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n"
            )
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "sweeper", "sweeper")

    @property
    def _data(self) -> Path:
        return self._root / "data"

    @property
    def url(self) -> str:
        return f"postgresql://sweeper:{QUOTED}@127.0.0.1:{self.port}/sweeper"

    def start(self) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self._root / "log"), "-w", "start")

    def stop(self) -> None:
        """Stop it as a crash would, without waiting for clients."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "stop")

    def dump(self) -> str:
        """Return all that it holds."""
        return self._run("pg_dump", "-h", "127.0.0.1", "-p", str(self.port), "-U", "sweeper", "sweeper")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._root)

    def _run(self, program: str, *words: str) -> str:
        log = self._root / "out"
        with open(log, "wb+") as output:
            subprocess.run(
                [str(self._programs / program), *words], check=True, stdout=output, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, cwd="/", env={**os.environ, "PGPASSWORD": PASSWORD}, **self._as,
            )  # fmt: skip
            output.seek(0)
            return output.read().decode(errors="replace")
