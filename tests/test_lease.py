"""One driver per study: who holds it, who may take it over, and what the loser does."""

import contextlib
import dataclasses
import functools
import math
import os
import subprocess
import sys
import threading
import time

import pytest
from sweeps import make_config, make_orchestrator, make_study, reopened

from sweeper.driving import drive
from sweeper.errors import StudyMismatchError
from sweeper.plan import plan_sweep
from sweeper.preflight.cluster import SlotPlan
from sweeper.records import Report, StepRow
from sweeper.study.holder import Holder
from sweeper.study.lease import Lease, LeaseTimes
from sweeper.study.patient import PatientStorage

TIMES = LeaseTimes(beat_s=0.02, expiry_s=60.0, settle_s=0.0, look_s=1.0)


class Register:
    """A lease record in memory, with what happens at its reads."""

    def __init__(self, **facts):
        self.facts = facts
        self.n_reads = 0
        self.at_read = {}

    def read(self):
        self.n_reads += 1
        self.at_read.get(self.n_reads, lambda: None)()
        return dict(self.facts)

    def write(self, facts, *, seen=None):
        self.facts = facts
        return True


class Time:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def make_lease(register, time_=None, times=TIMES):
    passing = time_ or Time()
    return Lease(register, study="s", times=times, clock=passing, sleep=passing.sleep, now=lambda: "noon")


def elsewhere(**changes):
    """The lease of a process on another machine."""
    facts = {
        "state": "running",
        "host": "far",
        "pid": 17,
        "machine": "other",
        "started": 5,
        "token": "t",
        "beat": 3,
    }
    return {**facts, "since": "noon", **changes}


def dead_process():
    """A process of this machine that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    facts = dataclasses.replace(Holder.me(), pid=child.pid, started=1).facts()
    child.kill()
    child.wait()
    child.stdin.close()
    return facts


def check_until_refused(check):
    """Ask until the beat's thread has looked."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        check()
        threading.Event().wait(0.01)


def test_a_free_lease_is_taken_and_handed_back():
    register = Register()
    lease = make_lease(register)
    lease.acquire()
    assert (register.facts["state"], register.facts["pid"]) == ("running", os.getpid())

    lease.release("finished")
    assert register.facts["state"] == "finished"
    make_lease(register).acquire()


def test_a_second_driver_is_refused_with_who_holds_the_study():
    register = Register()
    make_lease(register).acquire()

    with pytest.raises(
        StudyMismatchError, match=rf"held by another driver: process {os.getpid()} on .*, since noon"
    ):
        make_lease(register).acquire()


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_at_once():
    register = Register(**elsewhere(**dead_process()))
    passing = Time()
    make_lease(register, passing).acquire()

    assert passing.now == 1000.0


def test_a_process_number_that_was_used_again_does_not_keep_a_lease():
    facts = {**Holder.me().facts(), "started": 1}
    register = Register(**elsewhere(**facts))

    make_lease(register).acquire()
    assert register.facts["token"] != "t"


def test_a_holder_elsewhere_that_beats_is_refused():
    register = Register(**elsewhere())
    register.at_read[3] = lambda: register.facts.update(beat=4)

    with pytest.raises(StudyMismatchError, match="process 17 on far, since noon"):
        make_lease(register).acquire()


def test_a_holder_elsewhere_that_does_not_stir_loses_the_lease_after_its_time_by_the_observers_clock():
    register = Register(**elsewhere())
    passing = Time()
    make_lease(register, passing).acquire()

    assert 60.0 <= passing.now - 1000.0 <= 62.0


def test_clocks_that_differ_by_years_change_nothing():
    register = Register(**elsewhere(since="1999-01-01T00:00:00+00:00"))
    register.at_read[2] = lambda: register.facts.update(beat=4)

    with pytest.raises(StudyMismatchError, match="since 1999"):
        make_lease(register).acquire()


def test_time_in_which_the_storage_was_away_does_not_count_against_the_holder():
    register = Register(**elsewhere())
    passing = Time()
    register.at_read[30] = lambda: passing.sleep(120.0)  # this read took two minutes
    make_lease(register, passing).acquire()

    assert passing.now - 1000.0 >= 29 + 120 + 59


def test_of_two_that_take_a_free_lease_at_once_the_last_to_write_has_it():
    register = Register()
    other = elsewhere(token="other", beat=0)
    register.at_read[2] = lambda: register.write(other)

    with pytest.raises(StudyMismatchError, match="process 17 on far"):
        make_lease(register).acquire()
    assert register.facts == other


def test_a_holder_that_was_taken_for_dead_notices_it_and_writes_no_more():
    register = Register()
    lease = Lease(register, study="s", times=TIMES)
    lease.acquire()
    lease.check()

    register.write(elsewhere())
    with pytest.raises(StudyMismatchError, match="It took the study over from this process"):
        check_until_refused(lease.check)
    lease.release("finished")
    assert register.facts == elsewhere()


def test_a_lease_that_this_process_could_not_hand_back_does_not_shut_it_out():
    register = Register()
    lease = make_lease(register)
    lease.acquire()
    running = dict(register.facts)
    lease.release("interrupted")
    register.write(running)

    make_lease(register).acquire()


def test_a_holder_beats():
    register = Register()
    lease = Lease(register, study="s", times=TIMES)
    lease.acquire()
    deadline = time.monotonic() + 20
    while register.facts["beat"] < 3 and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    lease.release("interrupted")

    assert register.facts["beat"] >= 3


def test_a_driver_whose_study_was_taken_over_changes_nothing_any_more(tmp_path):
    study = make_study(tmp_path, make_config())
    study.take(times=TIMES)
    orchestrator = make_orchestrator(study)
    other = reopened(study)
    other._storage.set_study_user_attr(other._id, "sweeper:driver", elsewhere())
    with pytest.raises(StudyMismatchError, match="process 17 on far"):
        check_until_refused(orchestrator.check_held)
    before = (tmp_path / "study.journal").read_bytes()

    with pytest.raises(StudyMismatchError, match="writes nothing more"):
        orchestrator.next_trial()
    with pytest.raises(StudyMismatchError, match="writes nothing more"):
        study.curves.write(0, [])
    study.hand_back("finished")

    assert (tmp_path / "study.journal").read_bytes() == before


def test_a_study_whose_driver_is_dead_shows_as_interrupted(tmp_path):
    study = make_study(tmp_path, make_config())
    study._storage.set_study_user_attr(study._id, "sweeper:driver", elsewhere(**dead_process()))

    assert study.state() == "interrupted"


def test_a_beat_that_fails_is_no_end_of_beating(caplog):
    register = Register()
    lease = Lease(register, study="s", times=TIMES)
    lease.acquire()

    def stumble():
        raise OSError("Stale file handle")

    register.at_read[register.n_reads + 1] = stumble
    deadline = time.monotonic() + 20
    while register.facts["beat"] < 3 and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    lease.release("interrupted")

    assert register.facts["beat"] >= 3
    assert "could not be renewed: Stale file handle" in caplog.text


def test_a_holder_whose_beats_did_not_come_through_looks_before_it_writes():
    register, passing = Register(), Time()
    lease = make_lease(register, passing, LeaseTimes(beat_s=600.0, expiry_s=60.0, settle_s=0.0))
    lease.acquire()
    n_reads = register.n_reads
    lease.check()
    assert register.n_reads == n_reads
    passing.now += 61.0

    lease.check()
    assert register.n_reads == n_reads + 1
    register.write(elsewhere())  # at any time now, until a beat comes through
    with pytest.raises(StudyMismatchError, match="process 17 on far"):
        lease.check()


def taken_over(study):
    """Let another driver take a study that is held here, as after an outage."""
    other = reopened(study)
    other._storage.set_study_user_attr(other._id, "sweeper:driver", elsewhere())
    return (study.directory / "study.journal").read_bytes()


UNMOVED = dataclasses.replace(TIMES, beat_s=600.0)  # no beat looks


@pytest.mark.parametrize("gathers", [False, True])
def test_a_driver_that_was_cut_off_finds_another_under_the_journals_lock_and_writes_nothing(
    tmp_path, gathers
):
    study = make_study(tmp_path, make_config())
    study.take(times=UNMOVED)
    study.record_exhausted()  # as long as nobody took over, it may

    def write():
        with study.together() if gathers else contextlib.nullcontext():
            study.record_checkpoint(0, "before")
            found.append(taken_over(study))
            study.record_checkpoint(1, "after")

    found = []
    with pytest.raises(StudyMismatchError, match=r"process 17 on far.*writes nothing more"):
        write()
    study.hand_back("finished")

    assert (tmp_path / "study.journal").read_bytes() == found[0]


def test_a_driver_whose_study_was_taken_over_writes_no_end_into_the_others_log(tmp_path):
    study = make_study(tmp_path, make_config())
    study.take(times=UNMOVED)
    plan, slots = plan_sweep(study.config), SlotPlan(slots=1, cpus_per_trial=1, gpus_per_trial=0)
    before = []

    class TakenOver:
        def run(self, orchestrator):
            taken_over(study)
            before.append((tmp_path / "events.log").read_text())
            orchestrator.next_trial()

    with pytest.raises(StudyMismatchError, match="process 17 on far"):
        drive(study, plan, slots, TakenOver(), [], executor_name="in-process")
    study.hand_back(study.reached)

    assert "sweep_started" in before[0]
    assert (tmp_path / "events.log").read_text() == before[0]


def test_a_driver_that_stalls_while_it_judges_stops_nothing_and_writes_no_curve(tmp_path):
    study = make_study(tmp_path, make_config())
    study.take(times=dataclasses.replace(UNMOVED, expiry_s=0.0))
    orchestrator = make_orchestrator(study)
    number = orchestrator.next_trial().number
    found = []
    write = study.curves.write

    def stall(*arguments):
        found.append(taken_over(study))
        write(*arguments)

    study.curves.write = stall
    diverged = Report(rows=(StepRow(1, 10, 0, math.nan, 1.0, 1e-3),))

    with pytest.raises(StudyMismatchError, match="process 17 on far"):
        orchestrator.on_report(number, diverged)

    assert (tmp_path / "study.journal").read_bytes() == found[0]
    assert not study.curves.path(number).exists()


def test_a_beat_that_stalls_after_its_look_does_not_overwrite_who_took_over(tmp_path):
    study = make_study(tmp_path, make_config())
    study.take(times=UNMOVED)
    lease = study._lease
    lease._now = lambda: taken_over(study) and "noon"  # asked between look and write

    with pytest.raises(StudyMismatchError, match="process 17 on far"):
        lease._beat()

    assert study._storage.get_study_user_attrs(study._id)["sweeper:driver"] == elsewhere()


def in_a_database(tmp_path):
    study = make_study(tmp_path, make_config(storage=f"sqlite:///{tmp_path}/s.db"))
    return study, study._storage._inner  # as another process writes, which waits for nobody


def test_a_beat_that_stalls_after_its_look_does_not_overwrite_who_took_a_database_over(tmp_path):
    study, other = in_a_database(tmp_path)
    study.take(times=UNMOVED)
    lease = study._lease
    take_over = functools.partial(other.set_study_user_attr, study._id, "sweeper:driver", elsewhere())
    lease._now = lambda: take_over() or "noon"  # asked between look and write

    with pytest.raises(StudyMismatchError, match="process 17 on far"):
        lease._beat()
    study.hand_back("finished")

    assert other.get_study_user_attrs(study._id)["sweeper:driver"] == elsewhere()


def test_a_driver_that_comes_late_to_a_free_database_does_not_overwrite_who_took_it(tmp_path):
    study, other = in_a_database(tmp_path)
    study.take(times=UNMOVED)
    study.hand_back("interrupted")
    storage, replace = study._storage, study._storage._replace

    def late(*arguments):
        other.set_study_user_attr(study._id, "sweeper:driver", elsewhere())
        return replace(*arguments)

    storage._replace = late
    with pytest.raises(StudyMismatchError, match="process 17 on far"):
        study.take(times=UNMOVED)

    assert other.get_study_user_attrs(study._id)["sweeper:driver"] == elsewhere()


def test_a_beat_that_went_through_before_its_connection_broke_is_no_loss_of_the_lease(tmp_path):
    study, other = in_a_database(tmp_path)
    study.take(times=UNMOVED)
    storage, replace, breaks = study._storage, study._storage._replace, [True]

    def breaking(*arguments):
        done = replace(*arguments)
        if breaks:
            breaks.pop()
            raise ConnectionError("gone")
        return done

    storage._replace, storage._sleep = breaking, lambda seconds: None
    study._lease._beat()
    study.check_held()
    assert other.get_study_user_attrs(study._id)["sweeper:driver"]["beat"] == 1
    breaks.append(True)
    study.hand_back("finished")

    assert other.get_study_user_attrs(study._id)["sweeper:driver"]["state"] == "finished"


def test_a_beat_whose_look_was_answered_late_looks_again():
    passing = Time()

    class Late(Register):
        def read(self):
            found = super().read()
            self.after_read()
            return found

    register = Late()
    register.after_read = lambda: None
    lease = make_lease(register, passing, UNMOVED)
    lease.acquire()

    def stall():
        passing.now += 120.0
        register.facts = elsewhere()

    register.after_read = stall
    with pytest.raises(StudyMismatchError, match="process 17 on far"):
        lease._beat()
    assert register.facts == elsewhere()


def test_a_driver_that_waited_for_its_storage_writes_nothing_once_another_has_taken_over(tmp_path):
    study = make_study(tmp_path, make_config(storage=f"sqlite:///{tmp_path}/s.db"))
    study.take(times=dataclasses.replace(TIMES, beat_s=600.0))
    storage = study._storage
    assert isinstance(storage, PatientStorage)
    inner, faults, written = storage._inner, [True], []

    def away(*arguments):
        if faults:
            faults.pop()
            inner.set_study_user_attr(study._id, "sweeper:driver", elsewhere())  # meanwhile
            raise ConnectionError("gone")
        written.append(arguments)

    storage._inner = Wrapped(inner, set_trial_user_attr=away)
    storage._sleep = lambda seconds: None

    with pytest.raises(StudyMismatchError, match="process 17 on far"):
        storage.set_trial_user_attr(1, "a", 1)
    assert written == []


class Wrapped:
    """An object with some of its methods replaced."""

    def __init__(self, inner, **methods):
        self._inner = inner
        self.__dict__.update(methods)

    def __getattr__(self, name):
        return getattr(self._inner, name)
