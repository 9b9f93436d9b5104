"""The journal file is whole whatever happens while it is written; a database that is away is waited for."""

import errno
import itertools
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import types

import optuna
import pytest
import sqlalchemy
import sqlalchemy.exc
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from sqlalchemy.engine import make_url
from sweeps import make_config, make_study, reopened

from sweeper import looking, storage_url
from sweeper.driving import complete
from sweeper.errors import ConfigError, StudyMismatchError, SweeperError
from sweeper.plan import plan_sweep
from sweeper.readiness import LaunchOptions, with_options
from sweeper.storage_url import (
    hide,
    hide_password_of_command_line,
    keep_password,
    mask_url,
    password_of,
    with_password,
    without_password,
)
from sweeper.study.holder import Holder
from sweeper.study.journal import JournalBackend
from sweeper.study.journal_lock import JournalLock
from sweeper.study.lease import LeaseTimes
from sweeper.study.patient import PatientStorage
from sweeper.study.storage import open_storage
from sweeper.study.study import Study
from sweeper.study.transaction import enter_together

HOLD_LOCK = """
import sys, time
from pathlib import Path
from sweeper.study.journal_lock import JournalLock
with JournalLock(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _own_passwords(monkeypatch):
    """Let every test keep passwords that no later one finds."""
    monkeypatch.setattr(storage_url, "_kept", {})
    monkeypatch.setattr(storage_url, "_given", [])


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "a.journal"
    path.touch()
    return path


def lock_and_kill(journal):
    """Leave the journal's lock behind as a driver does that is killed while it writes."""
    child = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(journal)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"held\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()


def test_the_lock_of_a_killed_process_of_this_machine_is_broken_at_once(journal):
    lock_and_kill(journal)
    assert os.path.lexists(f"{journal}.lock")
    started = time.monotonic()

    JournalBackend(journal).append_logs([{"a": 1}])

    assert time.monotonic() - started < 5  # Optuna's own waits 30 s
    assert not os.path.lexists(f"{journal}.lock")


def test_optunas_own_lock_still_waits_half_a_minute_for_a_dead_holder():
    """The reason for ours. When this fails, Optuna mends it, and `JournalLock` can go."""
    lock = optuna.storages.journal.JournalFileSymlinkLock("a")
    assert lock.grace_period == 30


def test_the_lock_of_a_living_process_is_waited_for(journal):
    lock = JournalLock(journal)
    released = []

    def wait_for_it():
        with JournalLock(journal).held():
            released.append(time.monotonic())

    with lock.held():
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        time.sleep(0.1)  # for the other to meet the lock; too short a time would make the test pass, not fail
        held_until = time.monotonic()
    waiting.join(20)
    assert released[0] >= held_until


@pytest.mark.parametrize(
    "target",
    [
        "a.journal",  # Optuna's own lock
        json.dumps({"host": "far", "pid": 1, "machine": "other", "started": 1, "token": "x"}),
    ],
)
def test_a_lock_whose_holder_cannot_be_looked_up_is_broken_after_its_time(journal, target):
    os.symlink(target, f"{journal}.lock")
    now = itertools.count(step=10)

    with JournalLock(journal, grace_s=30, clock=lambda: next(now)).held():
        assert next(now) > 30


def test_the_lock_of_another_container_on_this_machine_is_not_taken_for_dead(journal):
    here = Holder.me().facts()
    os.symlink(json.dumps({**here, "machine": "other", "pid": 2**22 + 1, "token": "x"}), f"{journal}.lock")
    now = itertools.count(step=10)

    with JournalLock(journal, grace_s=30, clock=lambda: next(now)).held():
        assert next(now) > 30


def test_many_writers_lose_and_tear_nothing(journal):
    backends = [JournalBackend(journal) for _ in range(4)]

    def write(index):
        for number in range(25):
            backends[index].append_logs([{"writer": index, "number": number}])

    threads = [threading.Thread(target=write, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    lines = list(JournalBackend(journal).read_logs(0))
    assert sorted((line["writer"], line["number"]) for line in lines) == [
        (w, n) for w in range(4) for n in range(25)
    ]


class Stalls(JournalLock):
    """A lock whose holder stalls once for so long that another process takes it over, writes and lets it go."""

    def __init__(self, journal):
        super().__init__(journal)
        self._other = JournalBackend(journal)
        self._is_first = True

    def _acquire(self):
        target = super()._acquire()
        if self._is_first:
            self._is_first = False
            os.unlink(f"{self._other.path}.lock")
            self._other.append_logs([{"other": "x" * 100}])
        return target


@pytest.mark.parametrize("tail", [b"", b'{"torn": '])
def test_a_writer_that_stalls_overwrites_nothing_that_others_wrote_meanwhile(journal, tail):
    JournalBackend(journal).append_logs([{"first": 1}])
    with open(journal, "ab") as file:
        file.write(tail)

    JournalBackend(journal, lock=Stalls(journal)).append_logs([{"own": 1}])

    lines = list(JournalBackend(journal).read_logs(0))
    assert lines == [{"first": 1}, {"other": "x" * 100}, {"own": 1}]
    assert not os.path.lexists(f"{journal}.lock")


WRITE_TOO_MUCH = """
import resource, sys
from pathlib import Path
from sweeper import looking, storage_url
from sweeper.driving import complete
from sweeper.errors import ConfigError, SweeperError
from sweeper.plan import plan_sweep
from sweeper.study.journal import JournalBackend
backend = JournalBackend(Path(sys.argv[1]))
backend.append_logs([{"first": 1}])
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
try:
    backend.append_logs([{"long": "x" * 1000}])
except SweeperError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
backend.append_logs([{"second": 2}])
"""


def test_a_write_that_fails_half_way_leaves_the_journal_as_it_was(journal):
    done = subprocess.run(
        [sys.executable, "-c", WRITE_TOO_MUCH, str(journal)], capture_output=True, text=True, check=True
    )

    assert "The disk is full" in done.stdout
    assert "sweeper resume" in done.stdout
    assert list(JournalBackend(journal).read_logs(0)) == [{"first": 1}, {"second": 2}]


def test_a_curve_that_cannot_be_written_leaves_the_old_one(tmp_path):
    study = make_study(tmp_path, make_config())
    study.curves.write(0, [])
    before = study.curves.path(0).read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limit[1]))
    try:
        with pytest.raises(SweeperError, match="The disk is full"):
            study.curves.write(0, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    assert study.curves.path(0).read_bytes() == before
    assert [path.name for path in study.curves.path(0).parent.iterdir()] == ["00000.parquet"]


def test_a_curve_that_cannot_be_set_aside_is_told_with_its_place(tmp_path):
    study = make_study(tmp_path, make_config())
    study.curves.write(0, [])
    aside = study.curves.path(0).with_name("00000.parquet.damaged")
    aside.mkdir()

    with pytest.raises(SweeperError, match=f"{aside} cannot be written: Is a directory.*`sweeper resume`"):
        study.curves.set_aside(0)


def test_a_study_whose_making_was_cut_short_is_gone_on_with(tmp_path):
    config = make_config()
    study = make_study(tmp_path / "whole", config)
    lines = (tmp_path / "whole/study.journal").read_bytes().splitlines(keepends=True)
    for n_lines in range(len(lines)):
        directory = tmp_path / str(n_lines)
        directory.mkdir()
        (directory / "study.journal").write_bytes(b"".join(lines[:n_lines]))
        found = type(study).find(name=config.study, url=None, directory=directory)
        if found is None:
            found = type(study).create(config, directory=directory)
        found.add_points(plan_sweep(config).entered_points)
        points = [record.point_id for record in found.records().values()]
        assert points == [record.point_id for record in study.records().values()]


# -- many points at once ----------------------------------------------------------------------------------------


def many_points(storage=None):
    changes = {} if storage is None else {"storage": storage}
    rates = [1e-5 * (1 + index / 100) for index in range(20)]
    space = {"learning_rate": {"grid": rates}, "weight_decay": {"grid": [index / 100 for index in range(15)]}}
    return make_config(search_space=space, **changes)


def test_the_points_of_a_grid_are_appended_to_the_journal_together(tmp_path, monkeypatch):
    config = many_points()
    study, n_synced, real = Study.create(config, directory=tmp_path), [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (n_synced.append(descriptor), real(descriptor)))

    study.add_points(plan_sweep(config).entered_points)

    assert len(n_synced) == 3  # the first, all others, and that these are all
    (tmp_path / "study.json").write_text('{"study": "made-up", "storage": null}')
    found = [record.point_id for record in reopened(study).records().values()]
    assert found == [point.point_id for point in plan_sweep(config).points]
    assert len(found) == 300


def test_the_points_of_a_grid_are_committed_to_a_database_in_few_transactions(tmp_path):
    config = many_points(f"sqlite:///{tmp_path}/s.db")
    study, commits = Study.create(config, directory=tmp_path), []
    noted = commits.append
    points = plan_sweep(config).points

    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", noted)
    try:
        study.add_points(points[:250])
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "commit", noted)

    assert len(commits) < 10
    found = Study.find(name=config.study, url=config.storage, directory=tmp_path)
    assert [record.point_id for record in found.records().values()] == [one.point_id for one in points[:250]]
    found.expect_points()
    found.add_points(points)
    assert [record.point_id for record in found.records().values()] == [one.point_id for one in points]
    assert [record.number for record in found.records().values()] == list(range(300))


@pytest.fixture
def database(tmp_path):
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/s.db")
    yield storage
    storage.engine.dispose()


def test_trials_are_entered_into_a_database_all_or_none(database):
    study_id = database.create_new_study([StudyDirection.MINIMIZE], "s")
    other = create_trial(
        state=TrialState.WAITING, params={"a": 1}, distributions={"a": IntDistribution(0, 1)}
    )

    with pytest.raises(ValueError, match="different distribution kind"):
        enter_together(database, study_id, [waiting_trial(), waiting_trial(), other])

    assert database.get_all_trials(study_id) == []
    enter_together(database, study_id, [waiting_trial(), waiting_trial()])
    database.create_new_trial(study_id)
    assert [trial.number for trial in database.get_all_trials(study_id)] == [0, 1, 2]


def points_of(study_id, number):
    """Return a trial as a point of a grid is entered, and what Optuna keeps of it."""
    dimensions = {
        "rate": FloatDistribution(1e-6, 1e-2, log=True),
        "depth": IntDistribution(1, 9),
        "kind": CategoricalDistribution(["a", None, 2.5]),
    }
    params = {"rate": 1e-5 * (number + 1), "depth": number % 9 + 1, "kind": ["a", None, 2.5][number % 3]}
    if number == 4:
        del params["kind"]  # held beside Optuna's params
    return create_trial(
        state=TrialState.WAITING, params=params, distributions={name: dimensions[name] for name in params},
        user_attrs={"point": {"point_id": f"p{number}", "extra": [1, float("inf")]}},
        system_attrs={"study": str(study_id)},
    )  # fmt: skip


def test_trials_that_are_entered_together_are_those_that_optuna_would_enter(database):
    together, alone = (database.create_new_study([StudyDirection.MINIMIZE], name) for name in ("a", "b"))
    for study_id in (together, alone):
        database.create_new_trial(study_id)  # one that was there before

    enter_together(database, together, [points_of(0, number) for number in range(7)])
    for number in range(7):
        database.create_new_trial(alone, points_of(0, number))

    found, expected = (
        [
            (one.number, one.state, one.params, one.distributions, one.user_attrs, one.system_attrs, one.values,
             one.datetime_start, one.datetime_complete, one.intermediate_values)
            for one in database.get_all_trials(study_id)[1:]
        ]
        for study_id in (together, alone)
    )  # fmt: skip
    assert found == expected
    assert database.set_trial_state_values(database.get_all_trials(together)[3]._trial_id, TrialState.RUNNING)


def test_more_trials_take_one_more_statement_each_at_most(database):
    counts = []
    for n_trials in (10, 500):
        study_id, made = database.create_new_study([StudyDirection.MINIMIZE], str(n_trials)), []
        trials = [points_of(study_id, number % 4) for number in range(n_trials)]

        def noted(connection, cursor, statement, *others, made=made):
            made.append(statement)

        sqlalchemy.event.listen(database.engine, "before_cursor_execute", noted)
        enter_together(database, study_id, trials)
        sqlalchemy.event.remove(database.engine, "before_cursor_execute", noted)
        counts.append(len(made))

    assert counts[0] < 40
    assert counts[1] - counts[0] <= 490  # SQLite gives each its id by itself; Optuna makes 15 to 18


# -- a database that is away ------------------------------------------------------------------------------------


class Unsteady(optuna.storages.InMemoryStorage):
    """A storage that loses its connection `n_faults` times, before or after the change was made."""

    def __init__(self, *, n_faults, after):
        super().__init__()
        self.n_faults, self.after = n_faults, after

    def _unsteadily(self, call):
        if self.n_faults > 0:
            self.n_faults -= 1
            if self.after:
                call()
            cause = sqlalchemy.exc.OperationalError("select", {}, Exception("gone"))
            raise StorageInternalError("lost") from cause
        return call()

    def create_new_trial(self, *args, **kwargs):
        return self._unsteadily(lambda: super(Unsteady, self).create_new_trial(*args, **kwargs))

    def set_trial_state_values(self, *args, **kwargs):
        return self._unsteadily(lambda: super(Unsteady, self).set_trial_state_values(*args, **kwargs))

    def set_trial_user_attr(self, *args, **kwargs):
        return self._unsteadily(lambda: super(Unsteady, self).set_trial_user_attr(*args, **kwargs))


def waiting_trial():
    return create_trial(
        state=TrialState.WAITING, params={"a": 0.5}, distributions={"a": FloatDistribution(0, 1)}
    )


def patient(inner, **options):
    return PatientStorage(inner, place="postgresql://db/x", sleep=lambda seconds: None, **options)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("n_faults", [1, 3])
def test_what_was_to_be_changed_while_the_storage_was_away_is_changed_once(n_faults, after):
    inner = Unsteady(n_faults=0, after=after)
    storage = patient(inner)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    first_claim = []

    for number in range(3):
        inner.n_faults = n_faults
        trial_id = storage.create_new_trial(study_id, waiting_trial())
        inner.n_faults = n_faults
        first_claim.append(storage.set_trial_state_values(trial_id, TrialState.RUNNING))
        inner.n_faults = n_faults
        storage.set_trial_user_attr(trial_id, "number", number)
        inner.n_faults = n_faults
        storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [float(number)])

    trials = storage.get_all_trials(study_id)
    assert [(trial.value, trial.user_attrs["number"]) for trial in trials] == [(0.0, 0), (1.0, 1), (2.0, 2)]
    assert first_claim == [True, True, True]


@pytest.mark.parametrize("after", [False, True])
def test_trials_that_were_to_be_entered_together_while_the_storage_was_away_are_entered_once(database, after):
    study_id = database.create_new_study([StudyDirection.MINIMIZE], "s")
    faults, checked = [True], []

    def unsteadily(*arguments):
        if after:
            enter_together(database, *arguments)
        faults.pop()
        raise StorageInternalError("lost")

    storage = patient(database, enter_together=unsteadily)
    storage.check_again = checked.append

    storage.create_new_trials(study_id, [waiting_trial() for _ in range(3)])

    assert [trial.number for trial in database.get_all_trials(study_id)] == [0, 1, 2]
    assert (faults, checked) == ([], [database])


def test_a_trial_that_somebody_else_claimed_is_not_claimed_again():
    storage = patient(Unsteady(n_faults=0, after=False))
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    trial_id = storage.create_new_trial(study_id, waiting_trial())
    assert storage.set_trial_state_values(trial_id, TrialState.RUNNING)

    assert not storage.set_trial_state_values(trial_id, TrialState.RUNNING)


def test_a_storage_that_stays_away_ends_the_sweep_with_a_message():
    inner = Unsteady(n_faults=0, after=False)
    now = [0.0]
    storage = PatientStorage(
        inner, place="postgresql://db/x", patience_s=60, clock=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )  # fmt: skip
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    inner.n_faults = 10**9

    with pytest.raises(
        SweeperError, match=r"The storage postgresql://db/x has not answered for 6\d s.*sweeper resume"
    ):
        storage.create_new_trial(study_id, waiting_trial())


def test_a_storage_that_was_given_up_is_waited_for_again_only_once_it_has_answered():
    inner = Unsteady(n_faults=0, after=False)
    now = [0.0]
    storage = PatientStorage(
        inner, place="postgresql://db/x", patience_s=60, clock=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )  # fmt: skip
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    inner.n_faults = 10**9
    with pytest.raises(SweeperError, match=r"has not answered for 6\d s"):
        storage.create_new_trial(study_id, waiting_trial())

    with pytest.raises(SweeperError, match="has not answered for 0 s"):  # as when the study is handed back
        storage.create_new_trial(study_id, waiting_trial())
    inner.n_faults = 0
    storage.create_new_trial(study_id, waiting_trial())
    inner.n_faults = 3
    assert storage.create_new_trial(study_id, waiting_trial()) == 1


def test_a_sweep_that_is_interrupted_waits_for_its_storage_for_seconds_and_once():
    inner = Unsteady(n_faults=0, after=False)
    now = [0.0]
    storage = PatientStorage(
        inner, place="postgresql://db/x", clock=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )  # fmt: skip
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    storage.is_unwanted = lambda: True
    inner.n_faults = 3  # a deadlock, a reset, a lock of SQLite
    assert storage.create_new_trial(study_id, waiting_trial()) == 0

    inner.n_faults = 10**9
    with pytest.raises(SweeperError, match=r"has not answered for 1\d s"):
        storage.create_new_trial(study_id, waiting_trial())
    with pytest.raises(SweeperError, match="has not answered for 0 s"):  # as when the study is handed back
        storage.create_new_trial(study_id, waiting_trial())


def test_a_wrong_question_is_not_asked_again():
    storage = patient(Unsteady(n_faults=0, after=False))

    with pytest.raises(KeyError, match="No such study none"):
        storage.get_study_id_from_name("none")


# -- passwords --------------------------------------------------------------------------------------------------

URLS = [
    (
        "postgresql://me:s%2Fec@db:5432/x",
        "s/ec",
        "postgresql://me:***@db:5432/x",
        "postgresql://me@db:5432/x",
    ),
    (
        "postgresql://h/x?user=me&password=s3",
        "s3",
        "postgresql://h/x?user=me&password=***",
        "postgresql://h/x?user=me",
    ),
    *(
        (
            f"postgresql://me:{secret}@db.host:5432/x?a=b",
            secret,
            "postgresql://me:***@db.host:5432/x?a=b",
            "postgresql://me@db.host:5432/x?a=b",
        )
        for secret in ("pa#ss", "p/s", "p?s", "p[s", "p]s", "p:s", "p@s", "p#1@2", "p s")
    ),
    ("postgresql://me@corp:s3@db/x", "s3", "postgresql://me@corp:***@db/x", "postgresql://me@corp@db/x"),
    (
        "mysql+pymysql://me:s#@[::1]:3306/x",
        "s#",
        "mysql+pymysql://me:***@[::1]:3306/x",
        "mysql+pymysql://me@[::1]:3306/x",
    ),
    ("postgresql://me@db/x", None, "postgresql://me@db/x", "postgresql://me@db/x"),
    ("sqlite:////tmp/a:b@c?x#1.db", None, "sqlite:////tmp/a:b@c?x#1.db", "sqlite:////tmp/a:b@c?x#1.db"),
    ("https://host:80/v1/a@main", None, "https://host:80/v1/a@main", "https://host:80/v1/a@main"),
    ("http://[abc", None, "http://[abc", "http://[abc"),
    ("s3-x://me:s3@host/x#y", "s3", "s3-x://me:***@host/x#y", "s3-x://me@host/x#y"),
    ("sqlite:///a.db", None, "sqlite:///a.db", "sqlite:///a.db"),
    ("PostgreSQL://u:p/w@h/db", "p/w", "PostgreSQL://u:***@h/db", "PostgreSQL://u@h/db"),
    (" postgresql://u:p/w@h/db", "p/w", " postgresql://u:***@h/db", " postgresql://u@h/db"),
    ("redis://:p/w@h", "p/w", "redis://:***@h", "redis://h"),
    ("ftp://u:p/w@h/x", "p/w", "ftp://u:***@h/x", "ftp://u@h/x"),
    ("http://[::1]:80/v1/a@main", None, "http://[::1]:80/v1/a@main", "http://[::1]:80/v1/a@main"),
    *(
        (
            f"postgresql://u@h/db?{key}=zz&a=b",
            "zz",
            f"postgresql://u@h/db?{key}=***&a=b",
            "postgresql://u@h/db?a=b",
        )
        for key in ("sslpassword", "passwd", "PWD")
    ),
    ("postgresql://u:a@h/db?password=b", "a", "postgresql://u:***@h/db?password=***", "postgresql://u@h/db"),
]


@pytest.mark.parametrize(("url", "password", "masked", "public"), URLS)
def test_a_password_is_found_hidden_and_left_out(url, password, masked, public):
    assert (password_of(url), mask_url(url), without_password(url)) == (password, masked, public)


@pytest.mark.parametrize(("url", "password", "masked", "public"), URLS)
def test_a_password_that_was_kept_comes_back(url, password, masked, public):
    assert keep_password(url) == public
    assert password_of(with_password(public)) == password


def test_the_password_of_a_tls_key_does_not_stand_for_that_of_the_user(monkeypatch):
    monkeypatch.setenv(storage_url.PASSWORD_VARIABLE, "s/ec")
    public = keep_password("postgresql://u@h/db?sslpassword=zz")
    assert with_password(public) == "postgresql://u:s%2Fec@h/db?sslpassword=zz"


def test_a_password_within_an_option_of_odbc_is_hidden_with_it():
    url = "mssql+pyodbc:///?odbc_connect=UID%3Du%3BPWD%3Ds3%2Bx%3B"

    assert mask_url(url) == "mssql+pyodbc:///?odbc_connect=***"
    assert without_password(url) == "mssql+pyodbc:///"
    assert hide("login s3+x failed", url) == "login *** failed"


def test_what_is_no_url_is_neither_shown_nor_opened(tmp_path):
    with pytest.raises(ConfigError, match=r"must start with postgresql://, .* but got postgresql:\*\*\*\."):
        open_storage("postgresql:/me:secret@h/db", tmp_path)


def test_a_password_is_given_to_its_own_url_alone():
    keep_password("postgresql://me:s3@db/x")

    assert with_password("postgresql://me@elsewhere/x") == "postgresql://me@elsewhere/x"
    assert with_password("postgresql://me@db/x") == "postgresql://me:s3@db/x"


def test_the_password_of_the_environment_is_for_every_url_with_a_user(monkeypatch):
    monkeypatch.setenv(storage_url.PASSWORD_VARIABLE, "s/ec")
    hide_password_of_command_line(["status", "x"])

    assert with_password("postgresql://me@db/x") == "postgresql://me:s%2Fec@db/x"
    assert with_password("postgresql://h/x?user=me") == "postgresql://h/x?user=me&password=s%2Fec"
    assert with_password("postgresql://h/x") == "postgresql://h/x"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--storage", "postgresql://me:s3@db/x"], ["--storage", "postgresql://me@db/x"]),
        (["--storage=postgresql://me:s3@db/x"], ["--storage=postgresql://me@db/x"]),
        (["storage=postgresql://me:s3@db/x"], ["storage=postgresql://me@db/x"]),
        (["storage='postgresql://me:s3@db/x'"], ["storage='postgresql://me@db/x'"]),
        (
            ["--storage", "postgresql://me:s3@db/x", "trial.settings.data=ftp://u:ftppw@h/x"],
            ["--storage", "postgresql://me@db/x", "trial.settings.data=ftp://u:ftppw@h/x"],
        ),
    ],
)
def test_a_command_line_is_rid_of_the_storages_password_and_no_other_url_is_changed(
    words, shown, monkeypatch
):
    class ReplacedError(Exception):
        """What `exec` does: nothing after it runs."""

    started = []

    def execv(program, arguments):
        started.extend(arguments[4:])
        raise ReplacedError

    monkeypatch.setattr(storage_url.os, "execv", execv)
    monkeypatch.setenv("SWEEPER_STORAGE_URLS", "[]")
    with pytest.raises(ReplacedError):
        hide_password_of_command_line(["launch", *words])
    hide_password_of_command_line(started)

    assert started == ["launch", *shown]
    assert with_password("postgresql://me@db/x") == "postgresql://me:s3@db/x"
    assert with_password("postgresql://me@evil/x") == "postgresql://me@evil/x"
    assert "SWEEPER_STORAGE_URLS" not in os.environ


def test_a_sqlite_file_is_the_same_from_every_directory(tmp_path, monkeypatch):
    here, there = tmp_path / "100%?", tmp_path / "there"
    for place in (here, there):
        place.mkdir()
    monkeypatch.chdir(here)
    config = with_options(
        make_config(dir=str(tmp_path / "s")), LaunchOptions(storage="sqlite:///s.db?timeout=9")
    )
    study = Study.create(config, directory=tmp_path / "s")
    complete(study, None)

    monkeypatch.chdir(there)

    assert len(reopened(study).records()) == 4
    assert [path.name for path in here.iterdir()] == ["s.db"]
    assert not list(there.iterdir())


def test_a_word_of_the_command_line_that_only_looks_like_a_url_is_let_by():
    hide_password_of_command_line(
        ["plan", "x.yaml", "trial.model=http://[abc", "x=https://host:80/v1/a@main"]
    )


@pytest.mark.parametrize(
    ("url", "password", "masked", "public"),
    [
        words
        for words in URLS
        if words[0].startswith(("postgresql:", "mysql+pymysql:", "sqlite:")) and "=zz" not in words[0]
    ],
)
def test_sqlalchemy_is_given_the_password_and_the_host_that_were_meant(url, password, masked, public):
    keep_password(url)
    parsed = make_url(with_password(public))

    assert (parsed.password or parsed.query.get("password")) == password
    assert parsed.host in (None, "db", "h", "db.host", "::1")


def test_a_drivers_message_is_shown_without_the_password_in_any_spelling():
    url = "postgresql://me:s%2Fec@db/x"
    assert hide("s%2Fec s/ec", url) == "*** ***"


def test_a_full_disk_is_told_from_other_errors(tmp_path):
    from sweeper.files import is_disk_full

    assert is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    assert is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))
    assert reopened(make_study(tmp_path, make_config())).name == "made-up"


def test_while_something_is_gathered_the_file_is_not_read(tmp_path):
    backend = JournalBackend(tmp_path / "study.journal")
    backend.append_logs([{"n": 0}])

    with backend.together():
        assert [log["n"] for log in backend.read_logs(0)] == [0]
        backend.append_logs([{"n": 1}])
        backend.path.rename(tmp_path / "elsewhere")
        assert list(backend.read_logs(1)) == []
        (tmp_path / "elsewhere").rename(backend.path)

    assert [log["n"] for log in backend.read_logs(1)] == [1]


def test_what_is_gathered_is_appended_as_one_write_and_in_order(tmp_path):
    backend = JournalBackend(tmp_path / "study.journal")

    with backend.together():
        backend.append_logs([{"n": 0}])
        assert list(backend.read_logs(0)) == []
        backend.commit()
        backend.append_logs([{"n": 1}])
        with backend.apart():
            backend.append_logs([{"n": 2}])
            assert [log["n"] for log in backend.read_logs(0)] == [0, 1, 2]
        backend.append_logs([{"n": 3}])

    assert [log["n"] for log in backend.read_logs(0)] == [0, 1, 2, 3]


def test_a_server_that_takes_no_changes_any_more_is_waited_for_over_another_connection(tmp_path):
    """As after a failover, which leaves connections to the old primary."""

    class ReadOnlySqlTransaction(sqlite3.InternalError):
        sqlstate = "25006"

    def refuse(cursor, statement, parameters, context):
        if faults and statement.startswith(("INSERT", "UPDATE")):
            demoted.append(faults.pop() or context.root_connection.connection.dbapi_connection)
            raise ReadOnlySqlTransaction("cannot execute UPDATE in a read-only transaction")

    def connect(connection, record):
        connected.append(connection)

    storage = open_storage(f"sqlite:///{tmp_path}/s.db", tmp_path)
    storage._sleep = lambda seconds: None
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    faults, demoted, connected = [None, None], [], []
    sqlalchemy.event.listen(storage._inner._backend.engine, "do_execute", refuse)
    sqlalchemy.event.listen(storage._inner._backend.engine, "connect", connect)

    storage.set_study_user_attr(study_id, "a", 1)

    assert storage.get_study_user_attrs(study_id) == {"a": 1}
    assert demoted[1] in connected  # the second try was made over a new one
    assert demoted[0] not in connected


class Full(optuna.storages.InMemoryStorage):
    """A database without room; the statement's own values say something else."""

    def set_trial_user_attr(self, *args, **kwargs):
        error = Exception("database or disk is full")
        raise StorageInternalError("failed") from sqlalchemy.exc.OperationalError("insert", {}, error)


def test_a_database_without_room_ends_the_sweep_at_once():
    storage = patient(Full())
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    trial_id = storage.create_new_trial(study_id, waiting_trial())

    with pytest.raises(
        SweeperError, match="The disk is full: the storage postgresql://db/x takes nothing more"
    ):
        storage.set_trial_user_attr(trial_id, "a", 1)


def test_a_value_that_speaks_of_a_full_disk_does_not_make_an_outage_one():
    inner = Unsteady(n_faults=0, after=False)
    storage = patient(inner)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    trial_id = storage.create_new_trial(study_id, waiting_trial())
    inner.n_faults = 1

    storage.set_trial_user_attr(trial_id, "reason", "The disk is full")

    assert storage.get_trial(trial_id).user_attrs == {"reason": "The disk is full"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can ask as another user")
@pytest.mark.parametrize("name", ["study.journal", "study.json", "."])
def test_a_study_that_one_may_not_read_is_not_called_damaged(tmp_path, name):
    study = make_study(tmp_path / "study", make_config())
    for path in [tmp_path, *tmp_path.parents[:3], *tmp_path.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o055)
    (study.directory / name).chmod(0)
    os.seteuid(65534)  # nobody
    try:
        with pytest.raises(SweeperError, match=r"cannot be read: .*Permission denied"):
            Study.open(str(study.directory))
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("number", "is_waited_for"), [(errno.ESTALE, True), (errno.EIO, True), (errno.ENODEV, False)]
)
def test_a_shared_file_system_that_stumbles_is_read_again(journal, monkeypatch, number, is_waited_for):
    backend = JournalBackend(journal)
    backend.append_logs([{"a": 1}, {"a": 2}])
    real, faults = open, [1, 2]

    def stumbling(path, *words, **more):
        if path == journal and faults:
            faults.pop()
            raise OSError(number, os.strerror(number))
        return real(path, *words, **more)

    monkeypatch.setattr("builtins.open", stumbling)
    monkeypatch.setattr(looking, "_AGAIN_S", 0.0)

    if is_waited_for:
        assert list(backend.read_logs(0)) == [{"a": 1}, {"a": 2}]
    else:
        with pytest.raises(SweeperError, match=r"cannot be read: .*sweeper resume"):
            list(backend.read_logs(0))


# -- a shared file system that stumbles while it is written -----------------------------------------------------


class Stumbling:
    """Something of the system that fails at its first calls; `first` is what it has done by then."""

    def __init__(self, real, *faults, first=lambda real, *arguments: None):
        self._real, self._faults, self._first = real, list(faults), first

    def __call__(self, *arguments, **more):
        if not self._faults:
            return self._real(*arguments, **more)
        number = self._faults.pop(0)
        self._first(self._real, *arguments)
        raise OSError(number, os.strerror(number))


@pytest.fixture
def meanwhile(monkeypatch):
    """What happens while a try is waited for, a call each."""
    calls = []
    time_ = types.SimpleNamespace(
        monotonic=time.monotonic, sleep=lambda seconds: calls.pop(0)() if calls else None
    )
    monkeypatch.setattr(looking, "time", time_)
    return calls


def all_of_it(real, *arguments):
    real(*arguments)


def a_part(real, descriptor, data):
    real(descriptor, data[:-5])


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("open", lambda real, *arguments: os.close(real(*arguments))),
        ("write", lambda real, *arguments: None),
        ("write", a_part),
        ("write", all_of_it),
        ("fsync", all_of_it),
        ("symlink", lambda real, *arguments: None),
        ("unlink", lambda real, *arguments: None),
        ("unlink", all_of_it),
    ],
)
@pytest.mark.parametrize("n_others", [0, 1, 2])
def test_a_journal_that_stumbles_while_it_is_written_takes_every_operation_once(
    journal, monkeypatch, meanwhile, name, first, n_others
):
    backend = JournalBackend(journal, lock=JournalLock(journal, grace_s=0.0))
    backend.append_logs([{"n": 0}])
    reader, seen, appended = JournalBackend(journal), [], []

    def others():
        seen.extend(reader.read_logs(len(seen)))
        if n_others:
            with open(journal, "rb+") as file:  # as another process cuts a torn line and appends
                file.truncate(file.read().rfind(b"\n") + 1)
                file.seek(0, 2)
                file.write(b'{"other": 1}\n')
            appended.append(1)
        seen.extend(reader.read_logs(len(seen)))

    meanwhile.extend([others] * max(1, n_others))
    faults = Stumbling(getattr(os, name), errno.EIO, errno.ESTALE, first=first)
    monkeypatch.setattr(os, name, faults)

    backend.append_logs([{"n": 1}, {"n": 2}])

    lines = list(JournalBackend(journal).read_logs(0))
    assert [line["n"] for line in lines if "n" in line] == [0, 1, 2]
    assert lines.count({"other": 1}) == len(appended)
    seen.extend(reader.read_logs(len(seen)))
    assert seen == lines  # nothing that was read was taken away again


def test_a_journal_that_never_comes_back_ends_the_sweep_with_a_message(journal, monkeypatch, meanwhile):
    backend = JournalBackend(journal)
    now = itertools.count(step=50)
    monkeypatch.setattr(looking.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(os, "fsync", Stumbling(os.fsync, *[errno.EIO] * 100))

    with pytest.raises(SweeperError, match=r"a\.journal cannot be written: Input/output error.*resume"):
        backend.append_logs([{"n": 0}])
    assert not os.path.lexists(f"{journal}.lock")


def test_an_error_that_does_not_pass_is_not_waited_for(journal, monkeypatch, meanwhile):
    backend = JournalBackend(journal)
    meanwhile.append(lambda: pytest.fail("waited"))
    monkeypatch.setattr(os, "fsync", Stumbling(os.fsync, errno.EACCES))

    with pytest.raises(SweeperError, match="Permission denied"):
        backend.append_logs([{"n": 0}])
    assert journal.read_bytes() == b""


def test_a_curve_is_written_again_while_this_driver_holds_the_study(tmp_path, monkeypatch, meanwhile):
    study = make_study(tmp_path, make_config())
    asked = []
    monkeypatch.setattr(study.curves, "_check", lambda: asked.append(1))
    monkeypatch.setattr(os, "fsync", Stumbling(os.fsync, errno.EIO, errno.ESTALE))

    study.curves.write(0, [])
    assert len(asked) == 3
    assert [path.name for path in study.curves.path(0).parent.iterdir()] == ["00000.parquet"]


def test_a_curve_that_another_driver_may_have_written_by_now_is_not_written_again(
    tmp_path, monkeypatch, meanwhile
):
    study = make_study(tmp_path, make_config())
    study.take(times=LeaseTimes(beat_s=600.0, settle_s=0.0, expiry_s=0.0))
    other = reopened(study)
    driver = {"state": "running", "host": "far", "pid": 17, "since": "noon", "token": "t"}
    meanwhile.append(lambda: other._storage.set_study_user_attr(other._id, "sweeper:driver", driver))
    monkeypatch.setattr(os, "fsync", Stumbling(os.fsync, errno.EIO))

    with pytest.raises(StudyMismatchError, match="process 17 on far"):
        study.curves.write(0, [])
    assert list(study.curves.path(0).parent.iterdir()) == []
