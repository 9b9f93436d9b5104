"""A Ray cluster whose nodes are network namespaces of this machine: each has its own address, ports and loopback."""

import os
import subprocess
import sys
from pathlib import Path

from waiting import wait_for

_BRIDGE = "sweeper0"
_NETWORK = "10.213.77"
_PORT = 6379


def may_make_namespaces() -> bool:
    """Whether this process may make network namespaces."""
    if os.geteuid() != 0:
        return False
    made = subprocess.run(["ip", "netns", "add", "sweeper-try"], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "delete", "sweeper-try"], check=False, capture_output=True)
    return made.returncode == 0


class Namespaces:
    """Hosts on one bridge, each with a real `ray start`; the first has the head, and drivers run there.

    Args:
        folder: For what the nodes write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        self._n_made = 0
        _ip("link", "add", _BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{_NETWORK}.254/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        self.address = f"{_NETWORK}.1:{_PORT}"
        self.add()

    def inside(self, *command: str) -> list[str]:
        """Return a command as it runs on the first host."""
        return ["ip", "netns", "exec", _name(1), *command]

    def add(self) -> int:
        """Let another host join, with one core for trials; return its number."""
        self._n_made += 1
        number = self._n_made
        name, own, others = _name(number), f"sw{number}a", f"sw{number}b"
        _ip("netns", "add", name)
        _ip("link", "add", own, "type", "veth", "peer", "name", others)
        _ip("link", "set", own, "netns", name)
        _ip("link", "set", others, "master", _BRIDGE, "up")
        _ip("-n", name, "addr", "add", f"{_NETWORK}.{number}/24", "dev", own)
        _ip("-n", name, "link", "set", own, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        head = [f"--address={self.address}"]
        if number == 1:
            head = ["--head", f"--port={_PORT}", "--include-dashboard=false"]
        ray = str(Path(sys.executable).with_name("ray"))
        words = [ray, "start", *head, f"--node-ip-address={_NETWORK}.{number}", "--num-cpus=1", "--block"]
        with open(self._folder / f"{name}.log", "wb") as log:
            self._nodes[number] = subprocess.Popen(
                ["ip", "netns", "exec", name, *words],
                stdout=log, stderr=subprocess.STDOUT, env=_environment(), start_new_session=True,
            )  # fmt: skip
        return number

    def pull_the_plug(self, number: int) -> None:
        """Cut a host off, and kill what runs there."""
        _ip("link", "delete", f"sw{number}b")
        for pid in _ip("netns", "pids", _name(number)).split():
            subprocess.run(["kill", "-KILL", pid], check=False)
        self._nodes.pop(number).wait()

    def wait_for_nodes(self, n_nodes: int) -> None:
        """Wait until so many nodes are in the cluster."""
        program = (
            "import sys; from sweeper.executors import ray_session as ray; ray.connect(sys.argv[1]); "
            "print(len(ray.nodes()))"
        )

        def has_them() -> bool:
            asked = subprocess.run(
                self.inside(sys.executable, "-c", program, self.address),
                check=False, capture_output=True, text=True, env=_environment(),
            )  # fmt: skip
            print(f"nodes: {asked.stdout.strip() or asked.stderr}")
            return asked.stdout.strip() == str(n_nodes)

        wait_for(f"a cluster of {n_nodes} nodes", has_them)

    def end(self) -> None:
        """Kill everything and take the hosts away."""
        for number in range(1, self._n_made + 1):
            for pid in _ip("netns", "pids", _name(number), check=False).split():
                subprocess.run(["kill", "-KILL", pid], check=False)
        for node in self._nodes.values():
            node.wait()
        for number in range(1, self._n_made + 1):
            _ip("netns", "delete", _name(number), check=False)
            _ip("link", "delete", f"sw{number}b", check=False)
        _ip("link", "delete", _BRIDGE, check=False)


def _name(number: int) -> str:
    return f"sweeper-{number}"


def _environment() -> dict[str, str]:
    return os.environ | {"RAY_AUTH_MODE": "disabled"}


def _ip(*words: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0 or not check, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout
