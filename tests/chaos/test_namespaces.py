"""Trials of two workers across hosts: real `ray start` in network namespaces, one cut off, one added."""

import os
import subprocess
from pathlib import Path

import pytest
from chaos_sweeps import MADE_UP, command, environment, write_sweep
from namespaces import Namespaces, may_make_namespaces
from sweeps import merged
from test_gang_nodes import PAIRS, SLOWLY, TOGETHER, check_pairs
from waiting import wait_for

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not os.environ.get("SWEEPER_NAMESPACES") or not may_make_namespaces(),
        reason="set SWEEPER_NAMESPACES=1, as root: the test makes network namespaces",
    ),
]


def test_pairs_across_hosts_survive_one_that_is_cut_off_and_use_one_that_joins(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep.yaml", merged(MADE_UP, merged(PAIRS, TOGETHER)))
    study, log = tmp_path / "study", tmp_path / "log"
    hosts = Namespaces(tmp_path)
    try:
        second = hosts.add()
        hosts.wait_for_nodes(2)
        words = hosts.inside(*command("launch", str(sweep), "--dir", str(study), "--address", hosts.address))
        with open(log, "wb") as output:
            driver = subprocess.Popen(
                words, stdout=output, stderr=subprocess.STDOUT, env=environment(RAY_AUTH_MODE="disabled"),
                start_new_session=True,
            )  # fmt: skip
        try:
            wait_for("the first curve", (study / "curves").exists, process=driver, log=log, **SLOWLY)
            hosts.pull_the_plug(second)
            hosts.add()
            assert driver.wait(600) == 0, log.read_text()
        finally:
            driver.kill()
    finally:
        hosts.end()

    check_pairs(study)
