"""A study of 10,000 finished trials is gone on with quickly."""

import shutil
import time
from pathlib import Path

import pytest
from large_study import copy_to, write_journal
from optuna.storages import RDBStorage
from postgres import Postgres, binaries

from sweeper import api
from sweeper.records import EventKind

pytestmark = [pytest.mark.chaos, pytest.mark.slow]
N_TRIALS = 10_000
HERE = Path(__file__).parent


class FirstStart:
    """Notes when the first trial starts, by this process's own processor time: other programs may be busy too."""

    def __init__(self):
        self.cpu_s = self.wall_s = None
        self._began = (time.process_time(), time.perf_counter())

    def on_event(self, event):
        if event.kind is EventKind.TRIAL_STARTED and self.cpu_s is None:
            self.cpu_s = time.process_time() - self._began[0]
            self.wall_s = time.perf_counter() - self._began[1]


def test_a_resume_on_the_journal_starts_its_first_trial_in_under_10_s(tmp_path, monkeypatch):
    write_journal(tmp_path / "study", N_TRIALS, HERE)
    first = FirstStart()

    view = api.resume(
        str(tmp_path / "study"), options=api.LaunchOptions(executor="in-process"), listeners=[first]
    )

    print(f"first trial after {first.wall_s:.1f} s, {first.cpu_s:.1f} s of them this process's own work")
    assert len(view.records) == N_TRIALS + 1
    assert first.wall_s < 10 or first.cpu_s < 10


@pytest.mark.database
@pytest.mark.timeout(1800)
def test_a_resume_on_postgresql_starts_its_first_trial_in_under_10_s(tmp_path):
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL's programs are not installed")
    server = Postgres(programs)
    try:
        study = tmp_path / "study"
        study.mkdir()
        database = RDBStorage(server.url.replace("postgresql://", "postgresql+psycopg://"))
        copy_to(database, study, N_TRIALS, HERE)
        database.engine.dispose()
        first = FirstStart()
        options = api.LaunchOptions(executor="in-process", storage=server.url)

        view = api.resume(str(study), options=options, listeners=[first])

        print(f"first trial after {first.wall_s:.1f} s, {first.cpu_s:.1f} s of them this process's own work")
        assert len(view.records) == N_TRIALS + 1
        assert first.wall_s < 10 or first.cpu_s < 10
    finally:
        server.remove()
        shutil.rmtree(tmp_path / "study")
