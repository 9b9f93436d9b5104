"""A local cluster of nodes that are killed, added and used by others."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator


class Nodes:
    """A local cluster of two nodes: the first holds the driver's needs, both hold workers."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        self._second = self._cluster.add_node(num_cpus=1)
        self.address: str = self._cluster.address

    def kill_second(self) -> None:
        """Kill the raylet of the second node, and put another node in its place."""
        for process in self._second.all_processes["raylet"]:
            process.process.kill()
            process.process.wait()
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = self._cluster.add_node(num_cpus=1)

    def add(self, n_nodes: int) -> None:
        """Let more nodes join."""
        for _ in range(n_nodes):
            self._cluster.add_node(num_cpus=1)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Let somebody else hold a core while the block runs."""
        program = (
            "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False)\n"
            "holder = ray.remote(num_cpus=1)(type('Holder', (), {'is_there': lambda self: True})).remote()\n"
            "ray.get(holder.is_there.remote()); print('holds', flush=True); sys.stdin.read()"
        )
        words = [sys.executable, "-c", program, self.address]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert "holds" in other.stdout.readline()
            try:
                yield
            finally:
                assert other.stdin is not None
                other.stdin.close()

    def end(self) -> None:
        self._cluster.shutdown()
