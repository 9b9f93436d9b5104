"""A sweep on PostgreSQL whose server goes away, whose driver is killed, and whose password is nobody's business."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from chaos_sweeps import MADE_UP, RATES, kill, outcome, run, start, write_sweep
from optuna.study import StudyDirection
from postgres import PASSWORD, QUOTED, Postgres, binaries
from sweeps import merged
from waiting import wait_for

from sweeper.study.storage import open_storage
from sweeper.study.study import Study

pytestmark = [pytest.mark.chaos, pytest.mark.database]
IN_PROCESS = ["--executor", "in-process"]


@pytest.fixture(scope="module")
def server():
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL's programs are not installed")
    server = Postgres(programs)
    yield server
    server.remove()


def make_sweep(directory, name, **changes):
    config = merged(
        MADE_UP, {"study": name, "search_space": {"learning_rate": {"grid": RATES[:4]}}, **changes}
    )
    return write_sweep(directory / f"{name}.yaml", config)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What the same sweep comes to, undisturbed, on a journal."""
    directory = tmp_path_factory.mktemp("calm")
    done = run(["launch", str(make_sweep(directory, "calm")), "--dir", str(directory / "study"), *IN_PROCESS])
    assert done.returncode == 0, done.stderr
    return outcome(directory / "study")


def test_a_server_that_is_away_for_half_a_minute_is_waited_for(server, tmp_path, calm):
    sweep, study, log = make_sweep(tmp_path, "away"), tmp_path / "study", tmp_path / "log"
    driver = start(["launch", str(sweep), "--dir", str(study), "--storage", server.url, *IN_PROCESS], log)
    wait_for("two curves", lambda: len(list(study.glob("curves/*.parquet"))) >= 2, process=driver, log=log)
    server.stop()
    time.sleep(30)  # the length of the outage is what is tested
    server.start()

    assert driver.wait(180) == 0, log.read_text()
    assert outcome(study, server.url) == calm
    assert "does not answer; waiting for it" in log.read_text()
    assert "answers again" in log.read_text()


def test_a_driver_is_killed_and_the_study_is_gone_on_with_by_its_name(server, tmp_path, calm):
    sweep, study, log = make_sweep(tmp_path, "killed"), tmp_path / "study", tmp_path / "log"
    for n_curves in (1, 3):
        words = ["launch", str(sweep), "--dir", str(study), "--storage", server.url]
        driver = start([*words, *IN_PROCESS], log)
        wait_for(
            "more curves",
            lambda n=n_curves: len(list(study.glob("curves/*.parquet"))) >= n,
            process=driver, log=log,
        )  # fmt: skip
        kill(driver)

    resumed = run(["resume", "killed", "--storage", server.url, *IN_PROCESS])

    assert resumed.returncode == 0, resumed.stderr
    assert outcome(study, server.url) == calm
    assert max(record.attempts for record in Study.open("killed", url=server.url).records().values()) > 1


def test_the_password_is_written_nowhere(server, tmp_path):
    sweep, study, log = make_sweep(tmp_path, "secret"), tmp_path / "study", tmp_path / "log"
    driver = start(["launch", str(sweep), "--dir", str(study), "--storage", server.url, *IN_PROCESS], log)
    wait_for("the first curve", lambda: list(study.glob("curves/*.parquet")), process=driver, log=log)
    shown = b"".join(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    assert driver.wait(120) == 0, log.read_text()
    reported = run(["report", str(study), "--storage", server.url])
    assert reported.returncode == 0, reported.stderr
    refused = run(["status", str(study), "--storage", server.url.replace(QUOTED, "another")])

    written = b"".join(path.read_bytes() for path in study.rglob("*") if path.is_file())
    said = "".join(
        [log.read_text(), reported.stdout, reported.stderr, refused.stdout, refused.stderr, server.dump()]
    )
    for spelling in (PASSWORD, QUOTED):
        assert spelling.encode() not in shown
        assert spelling.encode() not in written
        assert spelling not in said
    assert refused.returncode == 2
    assert "another" not in refused.stderr
    assert "A study keeps no password" in refused.stderr


def test_a_study_is_gone_on_with_when_the_password_comes_from_the_environment(server, tmp_path):
    sweep, study, log = make_sweep(tmp_path, "environment"), tmp_path / "study", tmp_path / "log"
    driver = start(["launch", str(sweep), "--dir", str(study), "--storage", server.url, *IN_PROCESS], log)
    wait_for("the first curve", lambda: list(study.glob("curves/*.parquet")), process=driver, log=log)
    kill(driver)

    resumed = run(["resume", str(study), *IN_PROCESS], PGPASSWORD=PASSWORD)

    assert resumed.returncode == 0, resumed.stderr


def test_connections_to_a_server_that_takes_no_changes_any_more_are_left_for_another(server, tmp_path):
    storage = open_storage(server.url, tmp_path)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "demoted")
    engine = storage._inner._backend.engine
    pooled = [engine.connect() for _ in range(engine.pool.checkedin())]
    for connection in pooled:
        connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        connection.commit()
        connection.close()

    storage.set_study_user_attr(study_id, "a", 1)

    assert storage.get_study_user_attrs(study_id) == {"a": 1}


def test_of_many_that_replace_what_they_have_seen_at_once_one_does(server, tmp_path):
    storages = [open_storage(server.url, tmp_path) for _ in range(4)]
    study_id = storages[0].create_new_study([StudyDirection.MINIMIZE], "at-once")
    storages[0].set_study_user_attr(study_id, "a", {"beat": 0, "host": "größer"})
    for beat in range(20):
        seen = storages[0].get_study_user_attrs(study_id)["a"]
        at_once = threading.Barrier(len(storages))

        def replace(storage, *, at_once=at_once, seen=seen, beat=beat):
            at_once.wait(30)
            value = {"beat": beat + 1, "host": "größer", "by": id(storage)}
            return storage.replace_study_user_attr(study_id, "a", value, seen=seen)

        with ThreadPoolExecutor(len(storages)) as threads:
            done = list(threads.map(replace, storages))
        assert sum(done) == 1
        assert storages[0].get_study_user_attrs(study_id)["a"]["by"] == id(storages[done.index(True)])
