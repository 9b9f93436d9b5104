"""Sweeps on clusters of several nodes that come, go, are too small or are busy."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_sweeps import MADE_UP, RATES, outcome, records_of, run, start, write_sweep
from nodes import Nodes
from sweeps import merged
from waiting import wait_for

from sweeper.records import TrialState

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(900)]
SLOWLY = {"timeout_s": 240.0, "every_s": 0.2}  # how trials that start on several nodes are waited for
PAIRS = {"resources": {"workers_per_trial": 2, "gpus_per_trial": 0, "slots": None}}
TOGETHER = {"trial": {"function": "chaos_functions:noisy_together"}, "failures": {"retries": 5}}


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    cluster = Nodes()  # two nodes with a core each
    yield cluster
    cluster.end()


def check_pairs(study: Path) -> None:
    """Every point was trained to its end on two nodes, some of them in a second attempt."""
    records = records_of(study)
    assert [record.state for record in records.values()] == [TrialState.COMPLETE] * len(RATES)
    assert len({record.point_id for record in records.values()}) == len(RATES)
    assert any(record.attempts > 1 for record in records.values())
    for record in records.values():
        assert record.worker is not None
        assert len({rank["ray_node"] for rank in record.worker["ranks"]}) == 2
    assert all(len(found["curve"]) == 20 for found in outcome(study).values())


def test_pairs_across_nodes_survive_a_node_that_dies_and_use_one_that_joins(
    tmp_path: Path, nodes: Nodes
) -> None:
    config = merged(MADE_UP, merged(PAIRS, TOGETHER))
    sweep = write_sweep(tmp_path / "sweep.yaml", config)
    study, log = tmp_path / "study", tmp_path / "log"
    driver = start(["launch", str(sweep), "--dir", str(study), "--address", nodes.address], log)
    try:
        wait_for("the first curve", (study / "curves").exists, process=driver, log=log, **SLOWLY)
        nodes.kill_second()  # and adds another one
        assert driver.wait(600) == 0, log.read_text()
    finally:
        driver.kill()

    check_pairs(study)


def test_more_trials_run_at_a_time_once_nodes_have_joined(tmp_path: Path, nodes: Nodes) -> None:
    config = merged(MADE_UP, {"resources": {"slots": None}, "trial": {"settings": {"step_s": 0.5}}})
    sweep = write_sweep(tmp_path / "sweep.yaml", config)
    study, log = tmp_path / "study", tmp_path / "log"
    driver = start(["launch", str(sweep), "--dir", str(study), "--address", nodes.address], log)

    def n_running() -> int:
        return sum(record.state is TrialState.RUNNING for record in records_of(study).values())

    try:
        wait_for("the first curve", (study / "curves").exists, process=driver, log=log, **SLOWLY)
        nodes.add(2)
        wait_for("four trials", lambda: n_running() == 4, process=driver, log=log, **SLOWLY)
        assert driver.wait(600) == 0, log.read_text()
    finally:
        driver.kill()


def test_a_cluster_too_small_is_told_at_once_and_a_busy_one_is_waited_for(
    tmp_path: Path, nodes: Nodes
) -> None:
    big = write_sweep(
        tmp_path / "big.yaml",
        merged(
            MADE_UP,
            {
                "resources": {"workers_per_trial": 3, "slots": None},
                "trial": {"settings": {"effective_batch_size": 30}},
            },
        ),
    )
    refused = run(["launch", str(big), "--dir", str(tmp_path / "big"), "--address", nodes.address])
    assert refused.returncode == 2
    assert "It needs 3 workers with 1 CPU each, and there is room for 2." in refused.stderr
    assert not (tmp_path / "big").exists()

    one = {"search_space": {"learning_rate": {"grid": RATES[:1]}}}
    sweep = write_sweep(tmp_path / "sweep.yaml", merged(MADE_UP, merged(merged(PAIRS, TOGETHER), one)))
    log = tmp_path / "log"
    with nodes.busy():
        driver = start(["launch", str(sweep), "--dir", str(tmp_path / "s"), "--address", nodes.address], log)
        try:
            words = "waiting for the cluster: the next trial needs 2 workers with 1 CPU each; free now: 1 of 2 CPU"
            wait_for(words, lambda: words in log.read_text(), process=driver, log=log, **SLOWLY)
        except BaseException:
            driver.kill()
            raise
    assert driver.wait(300) == 0, log.read_text()
    assert "the cluster has room again" in log.read_text()
