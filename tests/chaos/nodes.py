"""A local cluster of two nodes, one of which is killed."""


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

    def end(self) -> None:
        self._cluster.shutdown()
