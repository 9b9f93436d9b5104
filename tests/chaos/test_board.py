"""What all workers look at must not go with another node than the driver's."""

import subprocess
import sys

import pytest
from chaos_sweeps import environment

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow]

PROGRAM = """
import ray
from ray.cluster_utils import Cluster
from sweeper.executors.ray_board import make_board

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False)
boards = [make_board() for _ in range(4)]
places = ray.get([board.__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id()) for board in boards])
assert set(places) == {ray.get_runtime_context().get_node_id()}, places
ray.shutdown()
cluster.shutdown()
print("done")
"""


def test_the_board_lives_on_the_drivers_node():
    words = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(words, capture_output=True, text=True, env=environment(), check=False, timeout=180)

    assert run.stdout.splitlines()[-1:] == ["done"], run.stderr[-3000:]
