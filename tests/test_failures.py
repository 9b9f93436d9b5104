"""What counts as a trial's failure and what does not; and that no attempt ends without a word."""

import dataclasses
import functools
import os
import sys
import threading
import types

import pytest
import trial_functions
from sweeps import Recorder, make_config, make_orchestrator, make_study, reopened

from sweeper.channel import TrialStopped
from sweeper.checkpoint import DirectoryCheckpoints
from sweeper.errors import StudyMismatchError
from sweeper.events import EventKind
from sweeper.executors import attempt as attempt_module
from sweeper.executors import worker_memory
from sweeper.executors.in_process import InProcessExecutor
from sweeper.executors.ray_rest import RestingSlots
from sweeper.plan import DataFacts
from sweeper.records import Decision, FailureCause, Outcome, OutcomeKind, Report, StepRow, TrialState
from sweeper.study.changes import check_same_data

FEW = {"retries": 1, "max_consecutive": 2}
ONE = {"search_space": {"learning_rate": {"grid": [1e-3]}}}


def rows(*steps):
    return tuple(StepRow(step, step * 10, 0, 1.0, 1.0, 1e-3) for step in steps)


def started(tmp_path, **changes):
    study = make_study(tmp_path, make_config(**changes))
    recorder = Recorder()
    orchestrator = make_orchestrator(study, recorder)
    return study, orchestrator, recorder


def run(tmp_path, function, *, slots=1, judge=None, **changes):
    study, orchestrator, _ = started(tmp_path, **changes)
    if judge is not None:
        orchestrator._judging._judge = judge
    InProcessExecutor(slots=slots, function=function).run(orchestrator)
    return reopened(study).records(), orchestrator


# -- an attempt always says how it ended ---------------------------------------------------------------------


def test_an_exit_in_the_users_code_ends_its_attempt_alone(tmp_path):
    def exits(context):
        if context.params["learning_rate"] > 5e-3:
            sys.exit(3)
        return trial_functions.steady(context)

    records, _ = run(tmp_path, exits, slots=2, failures=FEW)

    assert [record.state.value for record in records.values()] == ["COMPLETE"] * 3 + ["FAIL"]
    assert records[3].reason == "SystemExit: 3"
    assert records[3].attempts == 2


@pytest.mark.parametrize("broken", ["device_name", "open_checkpoints"])
def test_what_fails_before_the_users_code_is_told_too(tmp_path, monkeypatch, broken):
    def fails(*_, **__):
        raise OSError("the store is gone")

    monkeypatch.setattr(attempt_module, broken, fails)

    records, _ = run(tmp_path, trial_functions.steady, failures=FEW)

    assert {record.reason for record in records.values() if record.state is TrialState.FAIL} == {
        "OSError: the store is gone"
    }


def test_memory_that_cannot_be_freed_does_not_hide_what_came_first(tmp_path, monkeypatch):
    def fails():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(attempt_module, "free_memory", fails)

    records, _ = run(tmp_path, trial_functions.raises_at_high_rate, failures=FEW)

    assert records[3].reason == "RuntimeError: the rate is too high for this function"


def test_a_trial_that_ends_as_if_it_were_told_to_is_tried_again_and_then_fails(tmp_path):
    def gives_up(context):
        raise TrialStopped

    records, _ = run(tmp_path, gives_up, failures=FEW, **ONE)

    assert (records[0].state, records[0].attempts) == (TrialState.FAIL, 2)
    assert "nobody had told it" in records[0].reason


class AsideThenOn:
    """A judge that sets each trial aside at its first rung, and lets it go on at the next one."""

    def judge(self, numbers, rung, records):
        return [
            Decision(trial=numbers[0], stop=False, rule="made up", reason="so", rung=rung, aside=rung == 0)
        ]


def test_a_trial_that_was_judged_again_before_it_was_set_aside_goes_on(tmp_path):
    def coarse(context):
        """Comes to both rungs before it looks whether it is to save and end."""
        is_first = context.spec.attempt == 1
        context.report_rows(list(rows(1, 2)), {"score": 0.5})
        context.report_rows(list(rows(3, 4, 5)), {"score": 0.5})
        if is_first and context.channel.should_pause():
            raise TrialStopped
        context.report_rows(list(rows(6, 7, 8, 9, 10)), {"score": 0.5})
        return {"score": 0.5}

    records, orchestrator = run(tmp_path, coarse, judge=AsideThenOn(), **ONE)

    assert orchestrator.is_done
    assert (records[0].state, records[0].attempts, records[0].errors) == (TrialState.COMPLETE, 2, [])


def set_aside_once(context, *, then):
    """Be set aside at the first rung; do something else when the trial is taken up again."""
    if context.spec.attempt > 1:
        then()
    context.report_rows(list(rows(1, 2)), {"score": 0.5})
    assert context.channel.should_pause()
    raise TrialStopped


def test_a_trial_that_was_set_aside_once_is_not_so_for_ever(tmp_path):
    def gives_up():
        raise TrialStopped

    records, _ = run(
        tmp_path, functools.partial(set_aside_once, then=gives_up), judge=AsideThenOn(), failures=FEW, **ONE
    )

    assert (records[0].state, records[0].attempts) == (TrialState.FAIL, 3)
    assert "nobody had told it" in records[0].reason


def test_a_trial_that_is_interrupted_after_it_was_set_aside_is_taken_up_first(tmp_path):
    study, orchestrator, _ = started(tmp_path, **ONE)
    orchestrator._judging._judge = AsideThenOn()

    def interrupts():
        orchestrator.interrupt()
        raise TrialStopped

    InProcessExecutor(function=functools.partial(set_aside_once, then=interrupts)).run(orchestrator)

    record = reopened(study).records()[0]
    assert [attempt["outcome"] for attempt in record.history] == ["set aside", "interrupted"]
    assert not record.is_set_aside


# -- what counts ---------------------------------------------------------------------------------------------


def test_a_worker_that_never_came_to_train_is_not_held_against_its_trial(tmp_path):
    study, orchestrator, recorder = started(tmp_path, failures=FEW)

    for _ in range(3):
        spec = orchestrator.next_trial()
        assert not orchestrator.on_lost(spec.number, "the GPU of this worker is not free")

    assert orchestrator.failure is None
    assert spec.number == 0
    assert reopened(study).records()[0].errors == []
    notes = [event.message for event in recorder.events if event.kind is EventKind.NOTE]
    assert notes[-1] == "not begun, is given out again: the GPU of this worker is not free"
    orchestrator.on_lost(orchestrator.next_trial().number, "the GPU of this worker is not free")
    assert "4 workers in a row did not come to train, the last one: the GPU" in orchestrator.failure


def come(orchestrator, pid):
    """Let a worker come to train the next trial, and give it back."""
    spec = orchestrator.next_trial()
    orchestrator.on_worker(spec.number, {"node": "a", "pid": pid})
    orchestrator.on_returned(spec.number, "a worker is replaced")


def test_a_worker_that_comes_to_train_ends_the_row(tmp_path):
    _, orchestrator, _ = started(tmp_path, failures=FEW)

    for pid in range(6):
        orchestrator.on_lost(orchestrator.next_trial().number, "gone")
        come(orchestrator, pid)

    assert orchestrator.failure is None


def test_where_some_train_each_slot_may_try_as_often_as_failures_are_borne(tmp_path):
    _, orchestrator, _ = started(tmp_path, failures=FEW)
    come(orchestrator, 1)

    for _ in range(4 * 3 - 1):
        orchestrator.on_lost(orchestrator.next_trial().number, "gone", slots=3)
    assert orchestrator.failure is None
    orchestrator.on_lost(orchestrator.next_trial().number, "gone", slots=3)

    assert "12 workers in a row" in orchestrator.failure


def test_what_ends_a_sweep_says_how_the_failed_trials_are_trained_after_all(tmp_path):
    once = {"retries": 0, "max_consecutive": 2}
    _, by_trials = run(tmp_path / "a", trial_functions.forgets_the_metric, failures=once)
    _, by_workers, _ = started(tmp_path / "b", failures=once)
    failing = by_workers.next_trial()
    by_workers.on_end(failing.number, Outcome(kind=OutcomeKind.FAILED, error="no GPU"))
    for _ in range(2):
        by_workers.on_lost(by_workers.next_trial().number, "gone")

    again = "go on with `sweeper resume`; `--retry-failed` also trains the"
    assert by_trials.failure.endswith(f"{again} 2 that failed once more.")
    assert by_workers.failure.endswith(f"{again} 1 that failed once more.")


def test_a_first_wave_on_many_slots_does_not_end_the_sweep(tmp_path):
    _, orchestrator, _ = started(tmp_path, failures=FEW)

    for _ in range(16):
        orchestrator.on_lost(orchestrator.next_trial().number, "gone", slots=16)
    assert orchestrator.failure is None
    orchestrator.on_lost(orchestrator.next_trial().number, "gone", slots=16)

    assert orchestrator.failure is not None


def test_slots_rest_longer_each_time_until_a_new_worker_comes():
    now = [0.0]
    resting = RestingSlots(clock=lambda: now[0])

    for seconds in (30.0, 60.0, 120.0):
        resting.rest()
        now[0] += seconds - 1
        assert resting.count == 1
        now[0] += 1
        assert resting.count == 0
    for _ in range(8):
        resting.rest()
    now[0] += 900.0
    assert resting.count == 0
    resting.wake()
    resting.rest()
    now[0] += 30.0
    assert resting.count == 0


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_a_process_that_dies_once_it_was_told_to_end_counts_nothing(tmp_path, is_interrupted):
    study, orchestrator, _ = started(tmp_path, failures={"retries": 0}, **ONE)
    spec = begun(orchestrator)
    if is_interrupted:
        orchestrator.interrupt()
    else:
        orchestrator._judging._judge = AsideThenOn()
        orchestrator.on_report(spec.number, Report(rows=rows(1, 2, 3)))

    orchestrator.on_lost(spec.number, "the node is gone")

    record = reopened(study).records()[0]
    assert (record.state, record.errors) == (TrialState.RUNNING, [])
    assert record.is_set_aside is not is_interrupted


def test_a_full_disk_is_not_held_against_a_trial(tmp_path):
    study, orchestrator, _ = started(tmp_path, failures={"retries": 0}, **ONE)
    spec = begun(orchestrator)

    orchestrator.on_end(
        spec.number, Outcome(kind=OutcomeKind.FAILED, error="No space", cause=FailureCause.DISK_FULL)
    )

    record = reopened(study).records()[0]
    assert (record.state, record.errors) == (TrialState.RUNNING, [])
    assert "The disk is full: trial 0 on a could not write (No space)" in orchestrator.failure


def test_every_attempt_is_told_what_the_data_held_when_the_study_began(tmp_path):
    study = make_study(tmp_path, make_config(**ONE))
    study.set_facts(DataFacts(rows=8, target_tokens=80, sources={"train_data[0]": "sha256 1"}))
    spec = make_orchestrator(study).next_trial()
    assert spec.data_identities == {"train_data[0]": "sha256 1"}


def test_a_study_goes_on_with_the_data_that_it_began_with_alone(tmp_path):
    study = make_study(tmp_path, make_config(**ONE))
    began = DataFacts(
        rows=8, target_tokens=80, sources={"train_data[0]": "sha256 1", "eval_data.dev": "sha256 2"}
    )
    study.set_facts(began)
    check_same_data(study, began)
    check_same_data(study, None)
    edited = dataclasses.replace(began, sources={**began.sources, "eval_data.dev": "sha256 3"})
    with pytest.raises(
        StudyMismatchError, match=r"`trial\.eval_data\.dev` has other content .* Restore the data or"
    ):
        check_same_data(study, edited)


def test_data_that_changed_ends_the_sweep_and_is_not_held_against_a_trial(tmp_path):
    study, orchestrator, _ = started(tmp_path, failures={"retries": 0}, **ONE)
    spec = begun(orchestrator)

    orchestrator.on_end(
        spec.number, Outcome(kind=OutcomeKind.FAILED, error="other rows", cause=FailureCause.DATA_CHANGED)
    )

    record = reopened(study).records()[0]
    assert (record.state, record.errors) == (TrialState.RUNNING, [])
    assert "The data has changed: trial 0 on a was not trained (other rows)" in orchestrator.failure
    assert orchestrator.next_trial() is None


def begun(orchestrator):
    """Return the next trial, which a worker has come to train."""
    spec = orchestrator.next_trial()
    orchestrator.on_worker(spec.number, {"node": "a", "pid": spec.attempt})
    return spec


def save(tmp_path, orchestrator, spec, step):
    saving = tmp_path / "saving"
    saving.mkdir()
    (saving / "a").write_text("a")
    name = DirectoryCheckpoints(tmp_path / "trials/0/checkpoints").save(saving, step=step, samples=10 * step)
    orchestrator.on_report(spec.number, Report(rows=rows(*range(1, step + 1)), checkpoint=name))


def test_a_process_that_died_counts_until_a_newer_checkpoint_was_saved(tmp_path):
    study, orchestrator, _ = started(tmp_path, failures={"retries": 1}, **ONE)

    for step in (1, 2, 4):  # pre-empted again and again, and each time a little further
        spec = begun(orchestrator)
        save(tmp_path, orchestrator, spec, step)
        orchestrator.on_lost(spec.number, "the node is gone")
        orchestrator = make_orchestrator(reopened(study), Recorder())
    assert reopened(study).records()[0].state is TrialState.RUNNING

    orchestrator.on_lost(begun(orchestrator).number, "the node is gone")  # no further than before

    record = reopened(study).records()[0]
    assert (record.state, record.reason) == (TrialState.FAIL, "the node is gone")


def test_what_the_code_raises_counts_whatever_it_saved(tmp_path):
    _, orchestrator, _ = started(tmp_path, failures={"retries": 1}, **ONE)

    for step in (1, 2):
        spec = begun(orchestrator)
        save(tmp_path, orchestrator, spec, step)
        orchestrator.on_end(spec.number, Outcome(kind=OutcomeKind.FAILED, error="ValueError: no"))

    assert orchestrator.records[0].state is TrialState.FAIL


def test_a_pruned_trial_ends_a_row_of_failures(tmp_path):
    rates = [1e-5, 2e-5, 3e-5, 1e-4, 2e-4, 3e-4]
    _, orchestrator, _ = started(
        tmp_path,
        failures={"retries": 0, "max_consecutive": 2},
        search_space={"learning_rate": {"grid": rates}},
    )

    for number in range(len(rates)):
        spec = orchestrator.next_trial()
        if number % 2:
            nan = StepRow(1, 10, 0, float("nan"), 1.0, 1e-3)
            orchestrator.on_report(spec.number, Report(rows=(nan,)))
            orchestrator.on_end(spec.number, Outcome(kind=OutcomeKind.STOPPED))
        else:
            orchestrator.on_end(spec.number, Outcome(kind=OutcomeKind.FAILED, error="ValueError: no"))

    states = [record.state.value for record in orchestrator.records.values()]
    assert states == ["FAIL", "PRUNED"] * 3
    assert orchestrator.failure is None


# -- workers that cannot go on -------------------------------------------------------------------------------


def test_a_gpu_that_answers_no_more_replaces_its_process(monkeypatch):
    def fails():
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    cuda = types.SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, synchronize=lambda: None
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    assert worker_memory.lost_gpu(7) is None
    cuda.synchronize = fails

    assert worker_memory.lost_gpu(7).endswith(
        "after trial 7 its GPU answers no more: CUDA error: an illegal memory access was encountered"
    )


@pytest.mark.parametrize("ends", [True, False])
def test_a_trial_that_hangs_long_after_it_was_told_ends_its_process(monkeypatch, ends):
    from sweeper.executors.ray_attempt import ThreadAttempt

    exits = []
    monkeypatch.setattr(os, "_exit", exits.append)
    hung = ThreadAttempt.__new__(ThreadAttempt)
    hung.spec, hung._ended = types.SimpleNamespace(number=7), threading.Event()
    if ends:
        hung._ended.set()

    hung._give_up(0.01)

    assert exits == ([] if ends else [1])


def test_a_trial_that_says_nothing_is_told_of_after_10_minutes_and_twice_as_long_again(tmp_path):
    from sweeper.executors.ray_silence import Silence

    _, orchestrator, recorder = started(tmp_path)
    number, other = (orchestrator.next_trial().number for _ in range(2))
    orchestrator.on_worker(number, {"node": "far", "pid": 17})
    now = [0.0]
    silence = Silence(orchestrator, clock=lambda: now[0])

    for minute in range(45):
        now[0] = 60.0 * minute
        silence.heard(other)
        silence.look([number, other])
    silence.heard(number)
    now[0] += 300.0
    silence.look([number, other])

    told = [event.message for event in recorder.events if event.kind is EventKind.NOTE]
    assert [message.split(": ")[0] for message in told] == [
        f"trial {number} has said nothing for {minutes} minutes (node far, process 17)"
        for minutes in (10, 20, 40)
    ]


# -- around Ray ----------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # what ends the thread
def test_a_ray_that_ends_its_thread_while_it_starts_is_not_waited_for(monkeypatch):
    from sweeper.executors import ray_session
    from sweeper.executors.ray_tune import RayTuneExecutor

    def ends(**_):
        raise SystemExit(1)

    monkeypatch.setattr(ray_session, "start_local", ends)
    with RayTuneExecutor(slots=1).starting():
        pass


def test_what_ray_wrote_down_of_a_lost_worker_is_read_whatever_its_bytes(tmp_path):
    from sweeper.executors.ray_hooks import _last_words

    path = tmp_path / "error.txt"
    path.write_bytes(b"Traceback\nOSError: caf\xe9 is gone\n\n")

    assert _last_words(types.SimpleNamespace(error_file=str(path))) == "OSError: caf\ufffd is gone"
    for nothing in (None, str(tmp_path), str(tmp_path / "gone")):
        assert _last_words(types.SimpleNamespace(error_file=nothing)) == "Ray gave no reason"


def test_what_fails_while_a_lost_worker_is_told_of_ends_the_sweep_and_not_tune(tmp_path):
    from sweeper.executors.ray_bridge import Bridge
    from sweeper.executors.ray_hooks import StudyScheduler

    _, orchestrator, _ = started(tmp_path)
    bridge = Bridge(orchestrator, board=None, waiting=None)

    StudyScheduler(bridge).on_trial_error(
        None, types.SimpleNamespace(trial_id="1")
    )  # without an `error_file`

    assert isinstance(bridge.error, AttributeError)
