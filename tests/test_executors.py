"""What every executor does, in-process and on Ray Tune: one contract."""

import json
import os
import threading
import time
import types
from pathlib import Path

import pytest
import trial_functions
from sweeps import RATES, Recorder, make_config, make_orchestrator, make_study, reopened

from sweeper.errors import ConfigError, SweeperError
from sweeper.events import EventKind
from sweeper.executors.in_process import InProcessExecutor
from sweeper.executors.worker_memory import WorkerMemory, wait_for_free_gpu
from sweeper.records import OutcomeKind, Report, StepRow, TrialState
from sweeper.room import Node
from sweeper.study.control_records import ControlRequest, Verb


def ask(study, verb, **arguments):
    study.control_box.send(ControlRequest.new(verb, arguments, at="2026-11-22T12:00:00.000+00:00"))


def in_process(slots, function):
    return InProcessExecutor(slots=slots, function=function)


def on_ray(slots, function):
    from sweeper.executors.ray_tune import RayTuneExecutor

    return RayTuneExecutor(slots=slots, function=function, preload=False)


def executor_of(request):
    if request.param == "in_process":
        return in_process
    request.getfixturevalue("ray_session")
    return on_ray


@pytest.fixture(params=["in_process", pytest.param("ray", marks=pytest.mark.ray)])
def make_executor(request):
    return executor_of(request)


# For what the orchestrator does with what an executor carries: on Ray only with the long tiers.
@pytest.fixture(params=["in_process", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
def any_executor(request):
    return executor_of(request)


def run(make_executor, directory, function=trial_functions.steady, slots=2, listeners=(), **changes):
    study = make_study(directory, make_config(**changes))
    orchestrator = make_orchestrator(study, *listeners)
    make_executor(slots, function).run(orchestrator)
    return study, orchestrator


def test_every_point_is_trained_once_to_its_end(make_executor, tmp_path):
    study, _ = run(make_executor, tmp_path)

    records = reopened(study).records()
    assert [(record.state, record.errors) for record in records.values()] == [(TrialState.COMPLETE, [])] * 4
    assert [record.params["learning_rate"] for record in records.values()] == RATES
    assert [record.value for record in records.values()] == [
        trial_functions.value_of(r.params) for r in records.values()
    ]
    assert all(record.attempts == 1 and record.samples == 100 for record in records.values())


def test_the_curve_holds_every_step(any_executor, tmp_path):
    study, _ = run(any_executor, tmp_path)

    rows = study.curves.rows(2)
    assert [row.step for row in rows] == list(range(1, 11))
    assert rows[3].loss == pytest.approx(0.25)


def test_the_worker_of_a_trial_is_recorded(any_executor, tmp_path):
    study, _ = run(any_executor, tmp_path)

    assert all(record.worker["pid"] > 0 for record in reopened(study).records().values())


def test_poor_trials_are_stopped_and_show_no_value(any_executor, tmp_path):
    pruner = {"signals": {"loss": {"direction": "minimize"}}, "min_peers": 2, "keep_frac": 0.3}
    # The best comes first: with instant trials a poor first one may be done before it has peers.
    space = {"learning_rate": {"grid": [1e-3, 1e-4, 1e-5, 1e-2]}}
    study, _ = run(any_executor, tmp_path, pruner=pruner, search_space=space)

    records = reopened(study).records()
    pruned = [record for record in records.values() if record.state is TrialState.PRUNED]
    assert pruned
    assert all(record.value is None and record.samples < 100 for record in pruned)
    assert all("low is good" in record.reason and record.decisions[-1]["stop"] for record in pruned)
    assert records[0].state is TrialState.COMPLETE


def test_a_nan_frees_the_slot(any_executor, tmp_path):
    study, _ = run(any_executor, tmp_path, trial_functions.diverges_at_high_rate)

    record = reopened(study).records()[3]
    assert record.state is TrialState.PRUNED
    assert record.reason == "diverged: loss is nan at step 3 (30 samples)"


def test_a_trial_that_raises_is_retried_then_fails_and_the_sweep_goes_on(make_executor, tmp_path):
    study, _ = run(make_executor, tmp_path, trial_functions.raises_at_high_rate, failures={"retries": 2})

    records = reopened(study).records()
    assert [record.state.value for record in records.values()] == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]
    assert records[3].attempts == 3
    assert records[3].reason == "RuntimeError: the rate is too high for this function"
    assert "raises_at_high_rate" in records[3].errors[0]["traceback"]


def exits_at_high_rate(context):
    if context.params["learning_rate"] > 5e-3:
        raise SystemExit(3)  # as a command line's `main` does; no `Exception`
    return trial_functions.steady(context)


def test_an_exit_in_the_users_code_is_a_failure_like_any_other(make_executor, tmp_path):
    study, _ = run(make_executor, tmp_path, exits_at_high_rate, failures={"retries": 0})

    records = reopened(study).records()
    assert [record.state.value for record in records.values()] == ["COMPLETE"] * 3 + ["FAIL"]
    assert records[3].reason == "SystemExit: 3"


class ComesLate:
    """A trial function that the first two worker processes cannot load."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, context):
        return trial_functions.steady(context)

    def __reduce__(self):
        return _loaded, (self.folder,)


def _loaded(folder):
    n_tries = len(list(folder.iterdir()))
    (folder / f"{n_tries}-{time.time_ns()}").touch()
    if n_tries < 2:
        raise OSError("the shared directory is not mounted yet")
    return ComesLate(folder)


@pytest.mark.ray
def test_a_worker_that_does_not_come_to_train_is_no_failure_of_its_trial(ray_session, tmp_path):
    folder = tmp_path / "tries"
    folder.mkdir()
    study, orchestrator = run(on_ray, tmp_path / "study", ComesLate(folder), slots=1, failures={"retries": 0})

    records = reopened(study).records()
    assert orchestrator.failure is None
    assert [(record.state, record.errors) for record in records.values()] == [(TrialState.COMPLETE, [])] * 4
    assert records[0].attempts == 3


def test_a_trial_that_recovers_completes_with_one_curve(any_executor, tmp_path):
    study, _ = run(any_executor, tmp_path, trial_functions.fails_once)

    assert all(record.state is TrialState.COMPLETE for record in reopened(study).records().values())
    assert [row.step for row in study.curves.rows(0)] == list(range(1, 11))


def test_a_missing_metric_is_a_failure_that_names_what_was_reported(any_executor, tmp_path):
    study, _ = run(any_executor, tmp_path, trial_functions.forgets_the_metric, failures={"retries": 0})

    reason = reopened(study).records()[0].reason
    assert reason == "the trial never reported the study's metric `score`; it reported `other`"


def test_a_function_that_reports_elsewhere_is_told_where_to_report(tmp_path):
    study, _ = run(in_process, tmp_path / "study", lambda context: None, failures={"retries": 0})

    assert {record.reason for record in study.records().values()} == {
        "the trial never reported the study's metric `score`; it reported no metric at all; pass it to "
        "`context.report`, or return it"
    }


def test_too_many_failures_in_a_row_stop_the_sweep(any_executor, tmp_path):
    study, orchestrator = run(
        any_executor, tmp_path, trial_functions.forgets_the_metric, slots=1,
        failures={"retries": 0, "max_consecutive": 2},
    )  # fmt: skip

    assert "2 trials failed one after another" in orchestrator.failure
    assert sum(record.state is TrialState.WAITING for record in reopened(study).records().values()) >= 1

    any_executor(1, trial_functions.steady).run(make_orchestrator(reopened(study)))  # the cause is mended

    states = [record.state.value for record in reopened(study).records().values()]
    assert states == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]


def test_an_interrupt_keeps_trials_running_and_a_resume_ends_them(make_executor, tmp_path):
    study = make_study(tmp_path, make_config(trial={"settings": {"step_s": 0.05}}))
    first = make_orchestrator(study)
    first.listen(InterruptAt(first, EventKind.RUNG))
    make_executor(2, trial_functions.steady).run(first)
    states = [record.state for record in reopened(study).records().values()]
    assert TrialState.RUNNING in states

    make_executor(2, trial_functions.steady).run(make_orchestrator(reopened(study)))

    records = reopened(study).records()
    assert all(record.state is TrialState.COMPLETE for record in records.values())
    assert all([row.step for row in study.curves.rows(n)] == list(range(1, 11)) for n in records)


def test_a_sweep_that_was_stopped_before_it_ran_starts_nothing(any_executor, tmp_path):
    study = make_study(tmp_path, make_config())
    orchestrator = make_orchestrator(study)
    orchestrator.interrupt()

    any_executor(2, trial_functions.steady).run(orchestrator)

    assert {record.state for record in reopened(study).records().values()} == {TrialState.WAITING}


def test_an_executor_runs_once_more_where_a_point_was_added_since(any_executor, tmp_path):
    study = make_study(tmp_path, make_config())
    orchestrator = make_orchestrator(study)
    executor = any_executor(2, trial_functions.steady)
    executor.run(orchestrator)
    assert not orchestrator.look_once_more()
    request = ControlRequest.new(
        Verb.ADD, {"params": {"learning_rate": 3e-3}}, at="2026-11-22T12:00:00.000+00:00"
    )
    study.control_box.send(request)

    assert orchestrator.look_once_more()
    executor.run(orchestrator)

    records = reopened(study).records()
    assert [record.state for record in records.values()] == [TrialState.COMPLETE] * 5
    assert all([row.step for row in study.curves.rows(n)] == list(range(1, 11)) for n in records)


def test_an_interrupted_trial_saves_where_it_is_and_goes_on_from_there(make_executor, tmp_path):
    config = make_config(trial={"settings": {"step_s": 0.1}, "checkpoint": {"at": [30]}})
    study = make_study(tmp_path, config)
    first = make_orchestrator(study)
    first.listen(InterruptAt(first, EventKind.RUNG, rung=1))
    make_executor(2, trial_functions.steady).run(first)
    recorder = Starts()

    make_executor(2, trial_functions.steady).run(make_orchestrator(reopened(study), recorder))

    again = [message for message in recorder.messages if message.startswith("attempt 2 started from step ")]
    assert 5 <= max(int(message.rpartition(" ")[2]) for message in again) < 10  # the only mark is at step 3
    assert [row.step for row in study.curves.rows(0)] == list(range(1, 11))


def test_a_trial_that_is_set_aside_goes_on_from_its_checkpoint_when_its_turn_comes(make_executor, tmp_path):
    signals = {"loss": {"direction": "minimize"}}
    pruner = {"name": "early_dynamics", "mode": "probe", "keep_frac": 0.5, "signals": signals}
    recorder = Starts()
    study, _ = run(make_executor, tmp_path, pruner=pruner, listeners=(recorder,), rungs={"samples": [30]},
                   search_space={"learning_rate": {"grid": [1e-5, 1e-4, 1e-3, 3e-3]}})  # fmt: skip

    records = reopened(study).records()
    kept = sorted(records, key=lambda n: -trial_functions.value_of(records[n].params))[:2]
    assert {n for n, r in records.items() if r.state is TrialState.COMPLETE} == set(kept)
    assert all(r.state is TrialState.PRUNED for n, r in records.items() if n not in kept)
    assert all([row.step for row in study.curves.rows(n)] == list(range(1, 11)) for n in kept)
    assert all(row.samples <= 50 for n in records if n not in kept for row in study.curves.rows(n))
    again = [message for message in recorder.messages if message.startswith("goes on from step ")]
    assert again
    assert all(3 <= int(message.rpartition(" ")[2]) <= 5 for message in again)


class InterruptAt:
    """A listener that interrupts the sweep at its first event of a kind."""

    def __init__(self, orchestrator, kind, rung=0):
        self._orchestrator, self._kind, self._rung = orchestrator, kind, rung

    def on_event(self, event):
        if event.kind is self._kind and event.rung is not None and event.rung.rung == self._rung:
            self._orchestrator.interrupt()


class Starts:
    def __init__(self):
        self.messages = []

    def on_event(self, event):
        if event.kind is EventKind.TRIAL_STARTED:
            self.messages.append(event.message)


def traces(folder):
    return [json.loads(path.read_text()) for path in folder.iterdir()]


def most_at_a_time(facts):
    events = sorted([(f["started"], 1) for f in facts] + [(f["ended"], -1) for f in facts])
    running = most = 0
    for _, change in events:
        running += change
        most = max(most, running)
    return most


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("slots", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_as_many_trials_run_at_a_time_as_there_are_slots_though_each_is_shorter_than_a_workers_start(
    slots, tmp_path
):
    trace = tmp_path / "trace"
    trace.mkdir()
    rates = [10 ** (-5 + index / 8) for index in range(24)]
    settings = {"step_s": 0.03, "trace": str(trace)}
    run(on_ray, tmp_path / "study", slots=slots, search_space={"learning_rate": {"grid": rates}},
        trial={"settings": settings})  # fmt: skip

    facts = traces(trace)
    assert len(facts) == 24
    assert len({fact["pid"] for fact in facts}) == slots
    assert most_at_a_time(facts) == slots
    # After the first trials, which may wait for the slowest worker, all slots are busy nearly all the time.
    later = sorted(facts, key=lambda fact: fact["started"])[slots:]
    busy = sum(fact["ended"] - fact["started"] for fact in later)
    span = max(fact["ended"] for fact in later) - min(fact["started"] for fact in later)
    assert busy / span > 0.6 * slots


class LiftTheLimit:
    """A listener that lifts the limit of trials at a time at a rung, and counts those that wait for a worker."""

    def __init__(self, study):
        self._study, self.orchestrator, self.most_waiting, self.most_running = study, None, 0, 0

    def on_event(self, event):
        if event.kind is EventKind.RUNG and event.record.number == 0:
            ask(self._study, Verb.SET, setting="max_concurrent", value="none")
        if event.kind is EventKind.TRIAL_STARTED and self.orchestrator is not None:
            running = [r for r in self.orchestrator.records.values() if r.state is TrialState.RUNNING]
            self.most_running = max(self.most_running, len(running))
            self.most_waiting = max(self.most_waiting, sum(record.worker is None for record in running))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_where_a_limit_is_lifted_all_slots_that_are_free_get_their_trials_at_once(tmp_path):
    study = make_study(tmp_path, make_config(trial={"settings": {"step_s": 0.5}}))
    ask(study, Verb.SET, setting="max_concurrent", value=1)
    lift = LiftTheLimit(study)
    lift.orchestrator = make_orchestrator(study, lift)

    on_ray(4, trial_functions.steady).run(lift.orchestrator)

    assert lift.orchestrator.is_done
    assert (lift.most_waiting, lift.most_running) == (3, 4)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_worker_that_dies_is_replaced_and_its_trial_retried(tmp_path):
    study, _ = run(on_ray, tmp_path, trial_functions.dies_at_high_rate)

    records = reopened(study).records()
    assert all(record.state is TrialState.COMPLETE for record in records.values())
    assert records[3].attempts == 2
    assert "the worker process ended" in records[3].errors[0]["error"]


class InterruptOnceItWaits:
    """A listener that ends the sweep as soon as a trial waits for room on the cluster."""

    def on_event(self, event):
        if event.message.startswith("waiting for the cluster"):
            self.orchestrator.interrupt()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_sweep_that_waits_for_room_on_the_cluster_ends_when_told(tmp_path):
    from sweeper.executors.ray_session import ray

    class Holder:
        def holds(self):
            return True

    holder = ray.remote(num_cpus=4)(Holder).remote()  # all that there is
    assert ray.get(holder.holds.remote())
    interrupt = InterruptOnceItWaits()
    study = make_study(tmp_path, make_config())
    interrupt.orchestrator = make_orchestrator(study, interrupt)
    try:
        on_ray(2, trial_functions.steady).run(interrupt.orchestrator)
    finally:
        ray.kill(holder)

    states = [record.state for record in reopened(study).records().values()]
    assert states == [*[TrialState.RUNNING] * 2, *[TrialState.WAITING] * 2]
    on_ray(2, trial_functions.steady).run(make_orchestrator(reopened(study)))
    ended = reopened(study).records().values()
    assert [(record.state, record.errors) for record in ended] == [(TrialState.COMPLETE, [])] * 4


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_worker_that_leaks_is_replaced_and_nothing_is_held_against_the_next_trial(tmp_path):
    from sweeper.executors.ray_tune import RayTuneExecutor

    recorder = Recorder()
    study = make_study(tmp_path, make_config(failures={"retries": 0}))
    executor = RayTuneExecutor(slots=1, function=trial_functions.leaks, preload=False, worker_growth_gb=0.06)
    executor.run(make_orchestrator(study, recorder))

    records = reopened(study).records()
    assert [record.state for record in records.values()] == [TrialState.COMPLETE] * 4
    pids = [record.worker["pid"] for record in records.values()]
    # 40 MB after the first trial, 80 after the second, 120 after the third: twice the growth that is allowed.
    assert pids[0] == pids[1] == pids[2] != pids[3]
    notes = [event.message for event in recorder.events if "leaks memory" in event.message]
    assert len(notes) == 1
    assert notes[0].startswith(f"process {pids[0]} leaks memory and is replaced: after trial 2 it holds ")


@pytest.mark.ray
def test_a_worker_without_a_gpu_of_its_own_sees_none(ray_session, tmp_path):
    study, _ = run(on_ray, tmp_path, function=trial_functions.sees_gpus, resources={"gpus_per_trial": 0})
    assert [record.value for record in reopened(study).records().values()] == [0.0] * 4


@pytest.mark.parametrize("name", ["GPU", "GPU_group_b57f", "GPU_group_0_b57f"])
def test_the_gpus_of_a_worker_are_known_by_their_name_in_a_placement_group_too(name):
    from sweeper.executors.ray_attempt import gpus_among

    assert gpus_among({"CPU_group_b57f": 1.0, name: 0.5}, 0.5) == 0.5
    assert gpus_among({"CPU_group_b57f": 1.0}, 0.0) == 0.0


def test_a_worker_whose_gpu_ray_names_otherwise_does_not_train_on_the_cpu_unseen():
    from sweeper.executors.ray_attempt import gpus_among

    with pytest.raises(SweeperError, match=r"share has 1 GPU, but Ray .* gave: `CPU_group_b57f`, `gpu:b57f`"):
        gpus_among({"CPU_group_b57f": 1.0, "gpu:b57f": 1.0}, 1.0)


def test_a_ray_that_does_not_read_its_mode_again_is_told_of_with_what_to_set(monkeypatch):
    from sweeper.executors import ray_session

    monkeypatch.setattr(ray_session.ray._raylet, "Config", object())
    monkeypatch.setenv("RAY_AUTH_MODE", "token")

    with pytest.raises(ConfigError, match=r"no `ray\._raylet\.Config\.initialize`.* Set RAY_AUTH_MODE=token"):
        ray_session._set_auth_mode("disabled")

    assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.ray
def test_no_more_trials_run_at_a_time_than_this_machines_ray_has_gpus_for(monkeypatch, caplog):
    from sweeper.executors import ray_session
    from sweeper.executors.ray_tune import RayTuneExecutor

    monkeypatch.setattr(ray_session, "nodes", lambda: [Node(name="here", resources={"CPU": 16, "GPU": 2})])
    executor = RayTuneExecutor(slots=4, share={"CPU": 1, "GPU": 0.5})
    executor._take_what_ray_counts()
    assert (executor._slots, caplog.messages) == (4, [])
    executor = RayTuneExecutor(slots=4, share={"CPU": 1, "GPU": 1})
    executor._take_what_ray_counts()
    assert executor._slots == 2
    assert caplog.messages == ["Ray has room for 2 trials at a time on this machine, not 4."]


def test_a_worker_waits_until_its_gpu_is_free_and_gives_up_in_words():
    free = iter([20_000_000_000, 60_000_000_000, 79_000_000_000])
    waited = []
    wait_for_free_gpu(1.0, read=lambda: (next(free), 80_000_000_000), wait=waited.append)
    assert len(waited) == 2

    wait_for_free_gpu(0.5, read=lambda: (0, 80_000_000_000), wait=waited.append)
    assert len(waited) == 2
    with pytest.raises(SweeperError, match=r"60.0 of its 80.0 GB are held by other processes"):
        wait_for_free_gpu(2.0, read=lambda: (20_000_000_000, 80_000_000_000), wait=waited.append)
    assert sum(waited[2:]) == 60.0


def test_memory_counts_as_leaked_once_it_was_asked_back_in_vain():
    held = iter([100, 150, 260, 190, 260, 260])
    freed = []
    memory = WorkerMemory(100e-9, held=lambda: {"host": next(held)}, free=lambda: freed.append(1))

    assert [memory.leak(after) for after in (0, 1, 2)] == [None, None, None]
    assert freed == [1]
    assert "after trial 3 it holds 0.0 GB on the host" in (memory.leak(3) or "")


def test_a_trial_that_waits_goes_on_by_the_judgement_of_what_it_waits_for_and_no_earlier_one(
    tmp_path, monkeypatch
):
    """A window that time has closed is being judged while the trial comes to a mark."""
    from sweeper.executors import ray_attempt

    monkeypatch.setattr(ray_attempt.ray, "get", lambda answer: answer)
    asked = []
    board = types.SimpleNamespace(
        newest_word=types.SimpleNamespace(remote=lambda key: asked.append(key) or "pause"),
        word_for=types.SimpleNamespace(remote=lambda key, known: threading.Event().wait(0.05) or None),
    )
    by_time, at_mark = (Report(rows=(StepRow(step, step * 10, 0, 1.0, 1.0, None),)) for step in (1, 2))
    comes_to_mark, goes_on = threading.Event(), threading.Event()

    def two_windows(context):
        context.channel.send(by_time, wait=False)
        comes_to_mark.wait()
        context.channel.send(at_mark, wait=True)
        goes_on.set()
        return {"score": 0.5}

    spec = make_orchestrator(make_study(tmp_path, make_config())).next_trial()
    attempt = ray_attempt.ThreadAttempt(spec, board, two_windows)
    attempt.go_on()
    assert attempt.take() == [by_time]
    comes_to_mark.set()
    while attempt._outbox.empty():
        threading.Event().wait(0.01)

    attempt.go_on()
    assert not goes_on.wait(0.2)
    assert attempt.take() == [at_mark]
    assert (goes_on.is_set(), asked) == (False, [])
    attempt.go_on()
    assert goes_on.wait(10)
    assert (attempt.should_pause(), asked) == (True, [ray_attempt.attempt_key(spec)])
    assert [outcome.kind for outcome in attempt.take()] == [OutcomeKind.DONE]


def test_in_process_a_trial_that_hangs_does_not_hold_back_what_went_wrong(tmp_path, monkeypatch, caplog):
    from sweeper.executors import in_process as module

    monkeypatch.setattr(module, "JOIN_S", 0.2)
    released = threading.Event()

    def hangs_at_its_end(context):
        try:
            return trial_functions.steady(context)
        finally:
            if context.spec.number == 0:
                released.wait()

    class Broken:
        def on_event(self, event):
            if event.kind is EventKind.RUNG:
                raise RuntimeError("the listener is broken")

    try:
        with pytest.raises(RuntimeError, match="the listener is broken"):
            run(in_process, tmp_path, hangs_at_its_end, listeners=(Broken(),))
    finally:
        released.set()
    assert "left behind until this process ends: trials 0." in caplog.text


def best_comes_last(context):
    """As `steady`; but the best point begins only once the folder `trace` has a file `go`, and takes two steps."""
    if context.params["learning_rate"] != 1e-3:
        context.report_every_s = 60.0  # reports at its rung alone, and is told between two reports
        return trial_functions.steady(context)
    while not Path(context.settings["trace"], "go").exists():
        time.sleep(0.01)
    for step, samples in ((1, 20), (2, context.budget_samples)):
        context.report(step=step, samples=samples, loss=0.1, grad_norm=1.0)
    return {"score": 1.0}


def test_a_decision_on_a_trial_that_is_not_reporting_reaches_it_within_a_second(make_executor, tmp_path):
    """A poor trial at rung 0 is judged again when a better one arrives there, between its own reports."""
    trace = tmp_path / "trace"
    trace.mkdir()
    watcher = LetsTheBestCome(trace / "go")
    pruner = {"signals": {"loss": {"direction": "minimize"}}, "min_peers": 2, "keep_frac": 0.3}
    step_s, n_steps = 0.1, 40
    study, _ = run(
        make_executor, tmp_path / "study", best_comes_last, listeners=(watcher,), pruner=pruner,
        search_space={"learning_rate": {"grid": [1e-5, 1e-3]}}, rungs={"samples": [20]},
        trial={"budget": {"samples": n_steps * 10}, "settings": {"step_s": step_s, "trace": str(trace)}},
    )  # fmt: skip

    assert reopened(study).records()[0].state is TrialState.PRUNED
    assert watcher.stopped_as_came == 1
    ended = next(json.loads(path.read_text())["ended"] for path in trace.glob("0-*.json"))
    # A second and a step, and one more second for a machine that is busy; to its end it had well over 3 s to go.
    assert ended - watcher.stopped_at <= 1.0 + step_s + 1.0
    assert watcher.threads == {threading.get_ident()}


class LetsTheBestCome:
    """A listener that lets the best trial begin once the poor one has passed its rung, and notes that one's stop."""

    def __init__(self, go):
        self._go = go
        self._newest = None  # the trial that came to a rung last
        self.stopped_at = None
        self.stopped_as_came = None
        self.threads = set()

    def on_event(self, event):
        self.threads.add(threading.get_ident())
        if event.kind is EventKind.RUNG:
            self._newest = event.record.number
        if event.kind is EventKind.REPORTED and event.record.number == 0 and event.record.rungs:
            self._go.touch()
        if event.decision is not None and event.decision.stop:
            self.stopped_at, self.stopped_as_came = time.time(), self._newest
