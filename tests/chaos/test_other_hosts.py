"""A node that sees other files than the driver: code travels there; what else is missing is told before a trial."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos_sweeps import MADE_UP, command, environment, records_of, run
from sweep_files import write_jsonl
from sweeps import merged
from training_fixtures import chat_rows, make_model_dir
from waiting import wait_for

from sweeper.config import config_from_dict, dump_config
from sweeper.records import TrialState

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="a node with files of its own is made by root"),
]

CODE = """\
import socket
import helper

def train(context):
    for step in range(1, 5):
        context.report(step=step, samples=step * 50, loss=1.0 / step, grad_norm=1.0)
    return {"score": helper.SCORE, "travelled": float("sweeper_trial_code" in __file__)}
"""


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    """Return a directory that the second node does not see the inside of."""
    place = tmp_path / "hidden"
    place.mkdir()
    return place


@pytest.fixture
def address(hidden: Path) -> Iterator[str]:
    """Start a head that holds no trial, and a node with two cores, in a mount namespace of its own."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray = str(Path(sys.executable).with_name("ray"))
    start = f"{ray} start --address={cluster.address} --num-cpus=2 --block"
    words = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs tmpfs {hidden} && exec {start}"]
    env = environment(RAY_AUTH_MODE="disabled")
    with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
        try:
            wait_for_nodes(cluster.address)
            yield cluster.address
        finally:
            node.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(30)
            node.kill()
            cluster.shutdown()


def wait_for_nodes(address: str) -> None:
    program = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False); print(len(ray.nodes()))"

    def has_both() -> bool:
        said = subprocess.run(
            [sys.executable, "-c", program, address], capture_output=True, text=True, check=False,
            env=environment(RAY_AUTH_MODE="disabled"),
        )  # fmt: skip
        print(f"nodes: {said.stdout.strip() or said.stderr}")
        return said.stdout.strip() == "2"

    wait_for("the second node", has_both)


def write_sweep(hidden: Path, name: str) -> Path:
    config = merged(
        MADE_UP, {"study": name, "trial": {"function": "my_code:train", "function_dir": str(hidden)}}
    )
    path = hidden / f"{name}.yaml"
    path.write_text(dump_config(config_from_dict(config)))
    return path


def built_in(model: Path, data: Path) -> dict[str, Any]:
    return {
        "study": "missing", "metric": "dev/loss", "direction": "minimize",
        "trial": {
            "model": str(model), "train_data": [str(data)], "eval_data": {"dev": str(data)},
            "budget": {"samples": 32}, "settings": {"effective_batch_size": 8, "micro_batch_size": 8},
        },
        "search_space": {"learning_rate": {"grid": [1e-4, 1e-3]}}, "rungs": {"fractions": [0.5]}, "pruner": "nop",
    }  # fmt: skip


def launch(sweep: Path, study: Path, address: str) -> subprocess.CompletedProcess[str]:
    return run(["launch", str(sweep), "--dir", str(study), "--address", address], RAY_AUTH_MODE="disabled")


def test_code_travels_and_what_is_missing_on_a_node_is_told_with_its_name(
    tmp_path: Path, hidden: Path, address: str
) -> None:
    (hidden / "my_code.py").write_text(CODE)
    (hidden / "helper.py").write_text("SCORE = 7.0\n")
    done = launch(write_sweep(hidden, "travels"), tmp_path / "study", address)
    assert done.returncode == 0, done.stdout + done.stderr
    records = records_of(tmp_path / "study").values()
    assert {record.state for record in records} == {TrialState.COMPLETE}
    assert all(record.metrics == {"score": 7.0, "travelled": 1.0} for record in records)

    # A package that only the driver has.
    packages = hidden / "packages"
    packages.mkdir()
    (packages / "only_here.py").write_text("")
    (hidden / "my_code.py").write_text("import only_here\n" + CODE)
    (packages / "pyvenv.cfg").write_text("")  # marks a directory that is not sent
    refused = subprocess.run(
        command("launch", str(write_sweep(hidden, "lacks")), "--dir", str(tmp_path / "lacks"), "--address", address),
        capture_output=True, text=True, check=False, timeout=240,
        env=environment(RAY_AUTH_MODE="disabled", PYTHONPATH=f"{packages}:{environment()['PYTHONPATH']}"),
    )  # fmt: skip
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "`my_code` imports `only_here`, which is not installed" in refused.stderr
    assert "Node " in refused.stderr
    assert not (tmp_path / "lacks").exists()

    # A study's directory that only the driver sees is told, and does not keep a function of one's own from running.
    (hidden / "my_code.py").write_text(CODE)
    told = launch(write_sweep(hidden, "again"), hidden / "study", address)
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"does not see what the driver writes under {hidden}/study" in told.stderr


def test_data_that_a_node_does_not_have_is_told_before_the_first_trial(
    tmp_path: Path, hidden: Path, address: str
) -> None:
    model, data = make_model_dir(hidden / "model"), hidden / "train.jsonl"
    write_jsonl(data, chat_rows(64))
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(dump_config(config_from_dict(built_in(model, data))))
    refused = launch(sweep, tmp_path / "study", address)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert f"not there: {model}, {data}" in refused.stderr
    assert "Node " in refused.stderr
    assert not (tmp_path / "study").exists()


def test_models_that_would_stay_on_a_node_are_told_before_the_first_trial(
    tmp_path: Path, hidden: Path, address: str
) -> None:
    model, data = make_model_dir(tmp_path / "model"), tmp_path / "train.jsonl"
    write_jsonl(data, chat_rows(64))
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(dump_config(config_from_dict(built_in(model, data))))
    kept = ["trial.checkpoint.save_model=true", f"trial.checkpoint.url=file://{tmp_path}"]
    refused = run(
        ["launch", str(sweep), *kept, "--dir", str(hidden / "study"), "--address", address],
        RAY_AUTH_MODE="disabled",
    )
    assert refused.returncode == 2, refused.stdout + refused.stderr
    told = f"does not see what the driver writes under {hidden}/study, where trials keep final models"
    assert told in refused.stderr
    assert not (hidden / "study").exists()
