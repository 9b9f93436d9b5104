"""Checkpoints in an object store: a real client against a local S3 server."""

import json
import signal
import socket

import pytest
from chaos_sweeps import MADE_UP, RATES, kill, outcome, run, start, write_sweep
from sweeps import merged
from waiting import wait_for

from sweeper.checkpoint import RemoteCheckpoints, check_url
from sweeper.errors import ConfigError

pytestmark = pytest.mark.chaos
IN_PROCESS = ["--executor", "in-process"]


@pytest.fixture(scope="module")
def s3():
    """A local S3 server with a bucket; returns the environment that reaches it."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem(use_listings_cache=False).mkdir("bucket")
        yield environment
    server.stop()


def make_source(tmp_path, text):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/state.txt").write_text(text)
    return source


def test_a_checkpoint_comes_back_as_it_was_and_older_ones_go(s3, tmp_path):
    store = RemoteCheckpoints("s3://bucket/back/checkpoints")
    for step in (1, 2, 3):
        assert (
            store.save(make_source(tmp_path, f"after {step}"), step=step, samples=step * 8)
            == f"step-0000000{step}"
        )

    assert [saved.step for saved in store.saved()] == [2, 3]
    loaded = RemoteCheckpoints("s3://bucket/back/checkpoints").load()
    assert (loaded.step, loaded.samples) == (3, 24)
    store.clear()
    assert store.saved() == []


def test_a_damaged_object_is_noticed_and_the_checkpoint_before_it_used(s3, tmp_path):
    import s3fs

    store = RemoteCheckpoints("s3://bucket/damaged/checkpoints")
    for step in (1, 2):
        store.save(make_source(tmp_path, f"after {step}"), step=step, samples=step)
    path = "bucket/damaged/checkpoints/step-00000002/sub/state.txt"
    s3fs.S3FileSystem(use_listings_cache=False).pipe_file(path, b"after X")

    loaded = RemoteCheckpoints("s3://bucket/damaged/checkpoints").load()
    assert loaded.step == 1


def test_a_checkpoint_whose_manifest_never_came_is_absent(s3, tmp_path):
    import s3fs

    store = RemoteCheckpoints("s3://bucket/half/checkpoints")
    store.save(make_source(tmp_path, "after 1"), step=1, samples=1)
    s3fs.S3FileSystem(use_listings_cache=False).pipe_file("bucket/half/checkpoints/step-00000002/a", b"part")

    assert [saved.step for saved in store.saved()] == [1]
    assert RemoteCheckpoints("s3://bucket/half/checkpoints").load().step == 1


def test_a_manifest_cannot_name_files_outside_the_checkpoint(s3, tmp_path):
    import s3fs

    from sweeper.checkpoint.manifest import FileFacts, Manifest

    evil = Manifest(step=1, samples=1, files={"../../evil": FileFacts(n_bytes=1, sha256="0")})
    system = s3fs.S3FileSystem(use_listings_cache=False)
    system.pipe_file("bucket/evil/checkpoints/step-00000001/MANIFEST.json", evil.dump().encode())

    assert RemoteCheckpoints("s3://bucket/evil/checkpoints").load() is None


def test_a_bucket_that_is_not_there_is_refused_before_anything_runs(s3):
    with pytest.raises(ConfigError, match=r"`trial.checkpoint.url` = s3://nobucket/x cannot be written"):
        check_url("s3://nobucket/x")


def test_a_place_that_nobody_knows_is_refused():
    with pytest.raises(ConfigError, match="no file system is known by `nowhere://`"):
        check_url("nowhere://x")


@pytest.mark.slow
def test_a_sweep_with_checkpoints_on_s3_is_killed_and_resumed(s3, tmp_path):
    changes = {
        "trial": {"checkpoint": {"url": "s3://bucket/sweeps"}, "settings": {"step_s": 0.05}},
        "search_space": {"learning_rate": {"grid": RATES[:2]}},
    }
    calm = merged(MADE_UP, {"search_space": changes["search_space"]})
    run(
        [
            "launch",
            str(write_sweep(tmp_path / "calm.yaml", calm)),
            "--dir",
            str(tmp_path / "calm"),
            *IN_PROCESS,
        ]
    )
    sweep = write_sweep(tmp_path / "sweep.yaml", merged(MADE_UP, changes))
    study, log = tmp_path / "study", tmp_path / "log"
    driver = start(["launch", str(sweep), "--dir", str(study), *IN_PROCESS], log)
    store = RemoteCheckpoints("s3://bucket/sweeps/chaos/trials/1/checkpoints")
    wait_for("a checkpoint", store.saved, process=driver, log=log)
    kill(driver, signal.SIGKILL)

    resumed = run(["resume", str(study), *IN_PROCESS])

    assert resumed.returncode == 0, resumed.stderr
    assert "going on from" in (study / "events.log").read_text()
    assert not list(study.glob("trials/*/checkpoints"))
    found, expected = outcome(study), outcome(tmp_path / "calm")
    assert found == expected, json.dumps([found, expected], default=str)[:500]
