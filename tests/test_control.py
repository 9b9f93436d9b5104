"""Live control: what is asked for from outside is written, checked, acted on and kept."""

import itertools
import json
import math
import time

import pytest
import trial_functions
from cli_fixtures import cli
from sweep_files import BASE, config_of, replaced
from sweeps import RATES, Recorder, make_config, make_orchestrator, make_study, reopened

from sweeper import encoding
from sweeper.api import LaunchOptions, launch, resume
from sweeper.config.messages import show
from sweeper.control.check import check_request
from sweeper.control.send import parse_pairs, send_request
from sweeper.driving import driving
from sweeper.errors import (
    ConfigError,
    InterruptedSweepError,
    NothingToDoError,
    StudyMismatchError,
    SweeperError,
)
from sweeper.events import EventKind
from sweeper.executors.in_process import InProcessExecutor
from sweeper.extend import plan_extension
from sweeper.optimum.edge import points_beyond
from sweeper.orchestrator import Orchestrator
from sweeper.plan import plan_point, plan_sweep
from sweeper.pruners.judge import divergence_rules, make_judge
from sweeper.records import Origin, Outcome, OutcomeKind, Report, StepRow, TrialRecord, TrialState
from sweeper.study.control_records import ControlRequest, Verb, max_concurrent
from sweeper.study.memory import MemoryStudy


def ask(study, verb, **arguments):
    """Write a request as another process does, without a look at whether it can be met."""
    request = ControlRequest.new(verb, arguments, at="2026-11-22T12:00:00.000+00:00")
    study.control_box.send(request)
    return request


def seconds():
    """A clock by which every look is a second after the one before."""
    return itertools.count().__next__


class AskAt:
    """Sends requests when a trial comes to its first rung."""

    def __init__(self, study, *requests, trial=0):
        self._study, self._requests, self._trial = study, list(requests), trial

    def on_event(self, event):
        if event.kind is EventKind.RUNG and event.record.number == self._trial:
            while self._requests:
                verb, arguments = self._requests.pop(0)
                ask(self._study, verb, **arguments)


def steer(directory, *requests, before=(), slots=2, function=trial_functions.steady, **changes):
    """Run a sweep to which requests come when trial 0 is at its first rung; return study and orchestrator.

    Those of `before` come before it begins.
    """
    study = make_study(directory, make_config(**changes))
    for verb, arguments in before:
        ask(study, verb, **arguments)
    orchestrator = make_orchestrator(study, AskAt(reopened(study), *requests), clock=seconds())
    InProcessExecutor(slots=slots, function=function).run(orchestrator)
    return reopened(study), orchestrator


def events(study):
    return [event.as_dict() for event in study.control_box.events()]


# -- in memory: the verbs as the orchestrator sees them ------------------------------------------------------


def in_memory(**changes):
    config = make_config(**changes)
    study = MemoryStudy(config, plan_sweep(config).points)
    orchestrator = Orchestrator(
        study=study, plan=plan_sweep(config), judge=make_judge(config), rules=divergence_rules(config),
        clock=seconds(),
    )  # fmt: skip
    return study, orchestrator


def window(*steps):
    return Report(rows=tuple(StepRow(step, step * 10, 0, 1.0, 1.0, None) for step in steps))


def test_a_running_trial_that_is_stopped_is_pruned_with_who_asked():
    study, orchestrator = in_memory()
    orchestrator.next_trial()
    request = ask(study, Verb.STOP, trial=0)

    (stop,) = orchestrator.poll()

    assert (stop.trial, stop.stop, stop.rule) == (0, True, "user")
    assert stop.reason == f"stopped by {request.by}"
    assert stop.details == {"request": request.id, "pid": request.pid, "at": request.at}
    assert orchestrator.records[0].state is TrialState.PRUNED
    assert orchestrator.on_report(0, window(1, 2)) == []
    assert orchestrator.on_end(0, Outcome(kind=OutcomeKind.STOPPED)) == []


def test_a_waiting_trial_that_is_stopped_is_never_started():
    study, orchestrator = in_memory()
    ask(study, Verb.STOP, trial=0)

    assert orchestrator.poll() == []

    assert orchestrator.records[0].state is TrialState.PRUNED
    assert orchestrator.next_trial().number == 1


def test_a_trial_between_two_attempts_can_be_stopped():
    study, orchestrator = in_memory()
    orchestrator.next_trial()
    orchestrator.on_end(0, Outcome(kind=OutcomeKind.FAILED, error="boom"))
    ask(study, Verb.STOP, trial=0)

    orchestrator.poll()

    assert orchestrator.records[0].state is TrialState.PRUNED
    assert orchestrator.next_trial().number == 1


def test_an_added_point_is_trained_after_those_that_wait():
    study, orchestrator = in_memory()
    ask(study, Verb.ADD, params={"learning_rate": 3e-3})

    orchestrator.poll()

    started = [orchestrator.next_trial() for _ in range(5)]
    assert [spec.params["learning_rate"] for spec in started] == [*RATES, 3e-3]
    assert orchestrator.records[4].origin.by == study.control_box.events()[0].request.by


def test_a_pause_starts_nothing_until_it_is_ended():
    study, orchestrator = in_memory()
    orchestrator.next_trial()
    ask(study, Verb.PAUSE)
    orchestrator.poll()

    assert orchestrator.next_trial() is None
    orchestrator.on_end(0, Outcome(kind=OutcomeKind.DONE, report=Report(rows=(), metrics={"score": 1.0})))
    assert not orchestrator.is_done

    ask(study, Verb.UNPAUSE)
    orchestrator.poll()
    assert orchestrator.next_trial().number == 1


def test_trials_at_a_time_can_be_set_as_far_as_the_machines_hold_them():
    study, orchestrator = in_memory()
    orchestrator.set_capacity(lambda: 3)
    ask(study, Verb.SET, setting="max_concurrent", value=4)
    ask(study, Verb.SET, setting="max_concurrent", value=1)

    orchestrator.poll()

    first, second = study.control_box.events()
    assert not first.outcome.is_done
    assert "`max_concurrent` = 4 does not fit: there is room for 3 trials" in first.outcome.message
    assert second.outcome.is_done
    assert second.outcome.message == "at most 1 trial runs at a time"
    assert orchestrator.slots(2, room=3) == 1
    assert [orchestrator.next_trial() is None for _ in range(2)] == [False, True]


def test_while_a_sweep_ends_a_trial_can_be_stopped_and_all_else_waits_for_the_next_driver():
    study, orchestrator = in_memory()
    orchestrator.next_trial()
    orchestrator.interrupt()
    ask(study, Verb.PAUSE)
    ask(study, Verb.STOP, trial=0)

    (stop,) = orchestrator.poll()

    assert (stop.trial, stop.stop) == (0, True)
    assert [event["outcome"] for event in events(study)] == [None, "done"]


@pytest.mark.parametrize("value", ["none", None])
def test_what_was_set_for_trials_at_a_time_is_lifted_by_none(value):
    study, orchestrator = in_memory()
    ask(study, Verb.SET, setting="max_concurrent", value=1)
    ask(study, Verb.SET, setting="max_concurrent", value=value)

    orchestrator.poll()

    assert orchestrator.slots(2, room=3) == 2
    assert [orchestrator.next_trial() is None for _ in range(2)] == [False, False]
    assert max_concurrent(study.control_box.events()) is None
    assert events(study)[1]["request"] == "set max_concurrent=none"
    assert events(study)[1]["message"] == "as many trials run at a time as there are slots"


def test_what_was_set_for_trials_at_a_time_is_told_to_the_next_driver_and_bounded_by_its_machines(tmp_path):
    study = make_study(tmp_path, make_config())
    ask(study, Verb.SET, setting="max_concurrent", value=4)
    most = MostRunning()
    orchestrator = make_orchestrator(study, most)
    most.orchestrator = orchestrator

    InProcessExecutor(slots=2, function=trial_functions.steady).run(orchestrator)

    assert most.n == 2
    told = "at most 4 trials run at a time, of which there is room for 2, as was set by `max_concurrent`; "
    assert [line for line in most.told if line.startswith("at most")] == [
        told + "`sweeper set STUDY max_concurrent=none` lifts that"
    ]


class MostRunning:
    """A listener that keeps how many trials ran at a time, and the words that were told."""

    def __init__(self):
        self.orchestrator, self.n, self.told = None, 0, []

    def on_event(self, event):
        self.told.append(event.message)
        if self.orchestrator is not None:
            self.n = max(self.n, self.orchestrator.n_running)


def test_a_look_comes_at_most_twice_a_second():
    now = [0.0]
    config = make_config()
    study = MemoryStudy(config, plan_sweep(config).points)
    orchestrator = Orchestrator(
        study=study, plan=plan_sweep(config), judge=make_judge(config), rules=divergence_rules(config),
        clock=lambda: now[0],
    )  # fmt: skip
    ask(study, Verb.STOP, trial=0)

    now[0] = 0.4
    orchestrator.poll()
    assert orchestrator.records[0].state is TrialState.WAITING
    now[0] = 0.5
    orchestrator.poll()
    assert orchestrator.records[0].state is TrialState.PRUNED


# -- a sweep in its journal ----------------------------------------------------------------------------------

LOW_LOSS = {"signals": {"loss": {"direction": "minimize"}}, "min_peers": 2, "keep_frac": 0.3}


def test_a_trial_that_is_kept_is_not_pruned_and_the_record_says_so(tmp_path):
    space = {"learning_rate": {"grid": [1e-3, 1e-5]}}
    plain, _ = steer(tmp_path / "plain", pruner=LOW_LOSS, search_space=space)
    assert plain.records()[1].state is TrialState.PRUNED

    study, _ = steer(
        tmp_path / "kept", before=[(Verb.KEEP, {"trial": 1})], pruner=LOW_LOSS, search_space=space
    )

    record = study.records()[1]
    assert record.state is TrialState.COMPLETE
    kept = [decision for decision in record.decisions if decision["rule"] == "keep"]
    assert kept
    assert all(not decision["stop"] for decision in kept)
    assert kept[0]["reason"].startswith("kept by ")
    assert "early_dynamics would stop it" in kept[0]["reason"]


def test_a_kept_trial_that_diverges_is_still_stopped(tmp_path):
    study, _ = steer(
        tmp_path, before=[(Verb.KEEP, {"trial": 3})], slots=4, function=trial_functions.diverges_at_high_rate
    )

    assert study.records()[3].reason.startswith("diverged")


def test_a_stop_from_outside_reaches_a_running_trial_and_the_rest_goes_on(tmp_path):
    study, _ = steer(tmp_path, (Verb.STOP, {"trial": 1}))

    records = study.records()
    assert [record.state.value for record in records.values()] == [
        "COMPLETE",
        "PRUNED",
        "COMPLETE",
        "COMPLETE",
    ]
    assert records[1].samples < 100
    (event,) = events(study)
    assert event["outcome"] == "done"
    assert event["message"] == f"trial 1 is PRUNED: {records[1].reason}"


def test_stop_all_ends_the_sweep_and_a_resume_trains_the_rest(tmp_path):
    study, orchestrator = steer(tmp_path, (Verb.STOP_ALL, {}))

    assert orchestrator.is_interrupted
    assert {record.state for record in study.records().values()} == {TrialState.RUNNING, TrialState.WAITING}

    again = make_orchestrator(reopened(study))
    InProcessExecutor(slots=2, function=trial_functions.steady).run(again)
    assert all(record.state is TrialState.COMPLETE for record in again.records.values())


def test_a_point_outside_of_the_grid_is_kept_whole_and_read_back(tmp_path):
    study, _ = steer(tmp_path, (Verb.ADD, {"params": {"learning_rate": 3e-3}}))

    record = study.records()[4]
    assert record.params == {"learning_rate": 3e-3}
    assert record.settings["learning_rate"] == 3e-3
    assert record.state is TrialState.COMPLETE
    assert record.value == trial_functions.value_of(record.params)


def test_added_points_do_not_count_against_those_that_a_sampler_draws(tmp_path):
    study, _ = steer(
        tmp_path, (Verb.ADD, {"params": {"learning_rate": 3e-3}}),
        search_space={"learning_rate": {"log_uniform": [1e-5, 1e-2]}},
        sampler={"name": "random", "n_trials": 3},
    )  # fmt: skip

    records = study.records()
    assert len(records) == 4
    assert sum(record.origin is None for record in records.values()) == 3


def test_a_clone_has_the_other_values_and_names_where_it_comes_from(tmp_path):
    study, _ = steer(tmp_path, (Verb.CLONE, {"trial": 2, "params": {"learning_rate": 2e-3}}))

    record = study.records()[4]
    assert (record.params, record.origin.cloned_from, record.origin.warm_start) == (
        {"learning_rate": 2e-3},
        2,
        False,
    )
    assert record.samples == 100


def test_a_warm_start_begins_at_the_checkpoint_of_its_source(tmp_path):
    arguments = {"trial": 0, "params": {"learning_rate": 2e-5}, "warm_start": True}
    study, _ = steer(
        tmp_path, (Verb.CLONE, arguments), slots=1, trial={"checkpoint": {"at": [20]}}, rungs={"samples": [30, 50]}
    )  # fmt: skip

    clone = study.records()[4]
    assert (clone.origin.from_step, clone.origin.from_samples, clone.origin.source) == (2, 20, 0)
    ours, theirs = study.curves.rows(4), study.curves.rows(0)
    assert ours[:2] == theirs[:2]
    assert [row.step for row in ours] == list(range(1, 11))
    assert ours[2] != theirs[2]
    assert (clone.state, sorted(clone.rungs)) == (TrialState.COMPLETE, [0, 1])


def test_a_warm_start_that_is_stopped_before_its_start_leaves_no_checkpoint(tmp_path):
    study, _ = steer(tmp_path, slots=1, trial={"checkpoint": {"at": [20]}})
    ask(study, Verb.CLONE, trial=0, params={"learning_rate": 2e-5}, warm_start=True)
    make_orchestrator(reopened(study))
    place = study.directory / "trials/4/checkpoints"
    assert list(place.glob("step-*"))

    ask(study, Verb.STOP, trial=4)
    again = make_orchestrator(reopened(study))
    assert again.records[4].state is TrialState.PRUNED
    assert not list(place.glob("step-*"))


class RemovesOnceAnswered:
    """A listener that removes a file as soon as a request was answered, and keeps the answer."""

    def __init__(self, path):
        self._path, self.answer = path, ""

    def on_event(self, event):
        if "asked for" in event.message:
            self._path.unlink()
            self.answer = event.message


def test_a_clone_whose_checkpoint_could_not_be_copied_is_in_the_study_and_gets_it_at_its_start(tmp_path):
    study = make_study(tmp_path, make_config(trial={"checkpoint": {"at": [20]}}, rungs={"samples": [30, 50]}))
    in_the_way = tmp_path / "trials" / "4"
    in_the_way.parent.mkdir()
    in_the_way.touch()
    clone = (Verb.CLONE, {"trial": 0, "params": {"learning_rate": 2e-5}, "warm_start": True})
    removes = RemovesOnceAnswered(in_the_way)
    orchestrator = make_orchestrator(study, removes, AskAt(reopened(study), clone), clock=seconds())

    InProcessExecutor(function=trial_functions.steady).run(orchestrator)

    (event,) = events(study)
    assert (event["outcome"], event["added_trial"]) == ("done", 4)
    assert "trial 4 waits to be trained; what it begins with could not be copied" in removes.answer
    assert reopened(study).records()[4].origin.from_step == 2


def test_a_warm_start_without_a_checkpoint_is_refused(tmp_path):
    arguments = {"trial": 0, "params": {"learning_rate": 2e-5}, "warm_start": True}
    study, _ = steer(tmp_path, (Verb.CLONE, arguments))

    (event,) = events(study)
    assert event["outcome"] == "refused"
    assert "Trial 0 has no checkpoint" in event["message"]
    assert len(study.records()) == 4


@pytest.mark.parametrize(
    ("dimension", "changed", "is_refused"),
    [
        ("model: {grid: [org/a, org/b]}", {"model": "org/b"}, True),
        ("method: {grid: [lora, full]}", {"method": "full"}, True),
        ("lora_rank: {grid: [8, 16]}", {"lora_rank": 16}, True),
        (
            "lora_target_modules: {grid: [[q_proj], [q_proj, v_proj]]}",
            {"lora_target_modules": ["q_proj", "v_proj"]},
            True,
        ),
        ("lora_dropout: {grid: [0.0, 0.1]}", {"lora_dropout": 0.1}, False),
    ],
)
def test_a_warm_start_whose_weights_are_of_another_kind_is_refused(dimension, changed, is_refused):
    (name,) = changed
    edits = [
        ("learning_rate: {grid: [1e-5, 1e-4]}", dimension),
        ("micro_batch_size: 8", "micro_batch_size: 8, method: lora"),
    ]
    if name == "model":
        edits.append(("  model: org/model\n", ""))
    if name == "method":
        edits.pop()
    config = config_of(replaced(BASE, *edits))
    params = {name: config.search_space[name].grid[0], "effective_batch_size": 32}
    point = plan_point(config, params)
    source = TrialRecord(
        number=0, state=TrialState.COMPLETE, params=params, point_id=point.point_id, settings=dict(point.settings),
        checkpoint="step-00000002",
    )  # fmt: skip
    arguments = {"trial": 0, "params": changed, "warm_start": True}
    request = ControlRequest.new(Verb.CLONE, arguments, at="2026-11-22T12:00:00.000+00:00")
    asked = {"config": config, "facts": None, "records": {0: source}}
    if not is_refused:
        assert check_request(request, **asked).params == {**params, **changed}
        return
    with pytest.raises(ConfigError) as caught:
        check_request(request, **asked)
    was, now = (show(value) for value in (params[name], changed[name]))
    assert str(caught.value) == (
        f"`{name}` was {was} in trial 0 and is {now} in its clone: the weights of its checkpoint are not those that "
        "the clone trains. Clone with the same one, or without `--warm-start`."
    )


def test_what_was_asked_for_lasts_over_a_restart(tmp_path):
    study, _ = steer(
        tmp_path, (Verb.KEEP, {"trial": 3}), (Verb.SET, {"setting": "max_concurrent", "value": 1}),
        (Verb.PAUSE, {}), (Verb.STOP_ALL, {}),
    )  # fmt: skip

    recorder = Recorder()
    again = make_orchestrator(reopened(study), recorder)

    assert again.next_trial() is None
    assert again.slots(4, room=4) == 1
    assert again._state.kept == {3: study.control_box.events()[0].request.by}
    again.tell(EventKind.NOTE, "")
    ask(study, Verb.UNPAUSE)
    assert again._steering.act() == []
    assert again.next_trial().number == 0


def test_a_pause_and_a_limit_are_told_where_the_study_stands_until_they_end(tmp_path):
    study, _ = steer(
        tmp_path, (Verb.SET, {"setting": "max_concurrent", "value": 1}), (Verb.PAUSE, {}), (Verb.STOP_ALL, {})
    )
    who = study.control_box.events()[0].request.by

    assert (study.view().paused_by, study.view().max_concurrent) == (who, 1)
    first = cli("status", tmp_path).out.replace("\n", " ")
    assert first.startswith(f"made-up: interrupted, paused by {who}, at most 1 at a time; ")
    watched = cli("status", tmp_path, "--watch")
    assert watched.code == 130
    assert watched.err.endswith(f"nobody drives it. Go on with: sweeper resume {tmp_path}\n")
    assert watched.out.startswith(f"interrupted, paused by {who}, at most 1 at a time: ")
    told = json.loads(cli("status", tmp_path, "--json").out)
    assert (told["paused_by"], told["max_concurrent"]) == (who, 1)

    ask(study, Verb.UNPAUSE)
    assert study.view().paused_by == who  # no driver has acted on it yet
    make_orchestrator(reopened(study))
    assert study.view().paused_by is None


def test_requests_without_a_driver_are_acted_on_by_the_next_one(tmp_path):
    study = make_study(tmp_path, make_config())
    ask(study, Verb.STOP, trial=1)
    ask(study, Verb.STOP_ALL)

    with driving(again := reopened(study)):
        orchestrator = make_orchestrator(again)

    assert orchestrator.records[1].state is TrialState.PRUNED
    assert not orchestrator.is_interrupted
    assert [event["outcome"] for event in events(study)] == ["refused", "done"]


@pytest.mark.parametrize("when", ["it waits for the lease", "it makes ready"])
def test_a_sweep_is_stopped_though_its_driver_only_begins(tmp_path, when, monkeypatch):
    study = make_study(tmp_path, make_config())
    again = reopened(study)
    if when == "it waits for the lease":
        ask_at(monkeypatch, again, "take", study)

    with driving(again):
        if when == "it makes ready":
            ask(study, Verb.STOP_ALL)
        orchestrator = make_orchestrator(again)
        InProcessExecutor(function=trial_functions.steady).run(orchestrator)

    assert orchestrator.is_interrupted
    assert {record.state for record in orchestrator.records.values()} == {TrialState.WAITING}
    assert [event["message"] for event in events(study)] == [
        "the sweep ends; `sweeper resume` goes on with it"
    ]


def ask_at(monkeypatch, study, name, asked):
    """Ask for an end of the sweep just before a method of its driver's study is called."""
    call = getattr(study, name)

    def asked_then_called():
        ask(asked, Verb.STOP_ALL)
        call()

    monkeypatch.setattr(study, name, asked_then_called)


def test_what_lies_beyond_the_edge_of_the_grid_is_added_and_trained(tmp_path):
    rates = {"learning_rate": {"grid": [1e-5, 1e-4, 3e-4]}}  # the best one is 1e-3
    study, _ = steer(tmp_path, search_space=rates)

    told = cli("add", study.directory, "--suggest")
    assert (told.code, told.out) == (
        0, "Written. No driver runs this study now: it is acted on at the next `sweeper resume`.\n",
    )  # fmt: skip
    resume(study.directory, options=LaunchOptions(executor="in-process"), function=trial_functions.steady)
    assert reopened(study).records()[3].params == {"learning_rate": 9e-4}

    twice = cli("add", study.directory, "--suggest", "learning_rate=1e-3")
    assert (twice.code, "needs either `KEY=VALUE ...` or `--suggest`" in twice.err) == (2, True)


def test_all_points_that_are_suggested_are_one_json_document(tmp_path):
    rates = {"learning_rate": {"grid": [1e-5, 1e-4, 3e-4]}, "effective_batch_size": {"grid": [10, 20, 50]}}

    def best_at_small_batches(context):
        told = trial_functions.steady(context)
        return {"score": told["score"] - 1e-3 * context.params["effective_batch_size"]}

    study, _ = steer(tmp_path, function=best_at_small_batches, search_space=rates)

    asked = json.loads(cli("add", study.directory, "--suggest", "--json").out)

    assert [(one["verb"], one["outcome"]) for one in asked] == [("add", None)] * 3
    assert [one["arguments"]["params"] for one in asked] == points_beyond(study.view())


def test_nothing_is_suggested_where_the_best_lies_inside_the_grid(tmp_path):
    study, _ = steer(tmp_path)
    told = cli("add", study.directory, "--suggest")
    assert (told.code, "Nothing is suggested for study" in told.err) == (3, True)


def test_a_driver_that_died_before_it_answered_adds_no_point_twice(tmp_path):
    study = make_study(tmp_path, make_config())
    ask(study, Verb.ADD, params={"learning_rate": 3e-3})
    ask(study, Verb.STOP, trial=1)
    first = reopened(study)
    first.control_box.answer = lambda request, outcome: None
    make_orchestrator(first)

    again = make_orchestrator(reopened(study))

    assert len(again.records) == 5
    assert again.records[1].state is TrialState.PRUNED
    assert len(again.records[1].decisions) == 1
    assert [event["outcome"] for event in events(study)] == ["done", "done"]


def test_a_request_that_cannot_be_read_is_left_alone(tmp_path, caplog):
    study = make_study(tmp_path, make_config())
    study._storage.set_study_user_attr(study._id, "sweeper:control:1", {"verb": "fly"})
    ask(study, Verb.STOP, trial=0)

    orchestrator = make_orchestrator(reopened(study))

    assert orchestrator.records[0].state is TrialState.PRUNED
    assert "cannot be read" in caplog.text


# -- what is refused before it is written --------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two trials that are complete, two that wait."""
    directory = tmp_path_factory.mktemp("study")
    made = make_study(directory, make_config())
    orchestrator = make_orchestrator(made)
    for number in (0, 1):
        orchestrator.next_trial()
        report = Report(rows=window(1, 2, 3, 4, 5, 6, 7, 8, 9, 10).rows, metrics={"score": 1.0 - number})
        orchestrator.on_end(number, Outcome(kind=OutcomeKind.DONE, report=report))
    return str(directory)


@pytest.mark.parametrize(
    ("verb", "arguments", "error", "text"),
    [
        (Verb.STOP, {"trial": 9}, StudyMismatchError, "has no trial 9: its trials are 0 to 3"),
        (
            Verb.STOP,
            {"trial": 0},
            StudyMismatchError,
            "Trial 0 of study `made-up` has ended (COMPLETE), so it",
        ),
        (Verb.KEEP, {"trial": 1}, StudyMismatchError, "it cannot be kept"),
        (Verb.SET, {"setting": "max_concurent", "value": 2}, ConfigError, "Did you mean `max_concurrent`?"),
        (Verb.SET, {"setting": "metric", "value": 2}, ConfigError, "It can change `max_concurrent`"),
        (
            Verb.SET,
            {"setting": "max_concurrent", "value": 0},
            ConfigError,
            "whole number of at least 1, but got 0",
        ),
        (Verb.SET, {"setting": "max_concurrent", "value": "x"}, ConfigError, "but got the text `x`"),
        (Verb.ADD, {"params": {"learning_rat": 1e-4}}, ConfigError, "Did you mean `learning_rate`?"),
        (Verb.ADD, {"params": {"effective_batch_size": 4}}, ConfigError, "It is fixed in `trial.settings`."),
        (Verb.ADD, {"params": {}}, ConfigError, "`learning_rate` has none"),
        (Verb.ADD, {"params": {"learning_rate": "fast"}}, ConfigError, "must be a number"),
        (
            Verb.ADD,
            {"params": {"learning_rate": math.nan}},
            ConfigError,
            "must be a finite number, but got nan",
        ),
        (
            Verb.ADD,
            {"params": {"learning_rate": 1e-5}},
            StudyMismatchError,
            "is trial 0 of study `made-up` already",
        ),
        (Verb.CLONE, {"trial": 0, "params": {}}, ConfigError, "needs at least one other value"),
        (
            Verb.CLONE,
            {"trial": 0, "params": {"learning_rate": 2e-5}, "warm_start": True},
            StudyMismatchError,
            "has no checkpoint to start from",
        ),
        (Verb.STOP_ALL, {}, NothingToDoError, "nothing to stop"),
    ],
)
def test_what_cannot_be_met_is_refused_and_not_written(study, verb, arguments, error, text):
    with pytest.raises(error) as caught:
        send_request(study, verb, arguments)

    assert text in str(caught.value)
    from sweeper.study.study import Study

    assert Study.open(study).control_box.events() == []


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.KEEP])
def test_of_a_trial_that_is_named_no_other_one_is_read(tmp_path, verb):
    study = make_study(tmp_path, make_config())
    study._storage.set_trial_user_attr(study._trial_id(1), encoding.POINT, "damaged")

    sent = send_request(str(tmp_path), verb, {"trial": 2})

    assert sent.event.request.trial == 2
    with pytest.raises(SweeperError, match="trial 1 of study `made-up` is damaged"):
        send_request(str(tmp_path), verb, {"trial": 1})


@pytest.mark.parametrize("number", [-1, 4, 10**12])
@pytest.mark.parametrize("storage", [None, "sqlite:///{}/s.db"])
def test_a_number_that_no_trial_has_is_refused_with_those_that_there_are(tmp_path, storage, number):
    url = None if storage is None else storage.format(tmp_path)
    study = make_study(tmp_path, make_config(storage=url))

    with pytest.raises(StudyMismatchError, match=f"has no trial {number}: its trials are 0 to 3"):
        send_request(str(study.directory), Verb.STOP, {"trial": number}, storage=url)


@pytest.mark.parametrize(
    ("dimension", "value", "text"),
    [
        ({"log_uniform": [1e-5, 1e-2]}, 1.0, "must be a number from 1e-05 to 0.01"),
        ({"choice": [1e-5, 1e-2]}, 1e-3, "must be one of `1e-05` and `0.01`"),
        ({"int": [1, 8]}, 2.5, "must be a whole number from 1 to 8"),
        (
            {"uniform": [0, 1], "step": 0.25},
            0.1,
            "0 plus whole steps of 0.25, as `search_space` says, but got 0.1",
        ),
        ({"int": [1, 9], "step": 4}, 8, "but got 8. The nearest such value is 9."),
        ({"uniform": [0, 1]}, math.inf, "must be a finite number, but got inf"),
    ],
)
def test_a_point_that_the_sampler_could_not_draw_is_refused(tmp_path, dimension, value, text):
    config = make_config(search_space={"learning_rate": dimension}, sampler={"name": "random", "n_trials": 3})
    make_study(tmp_path, config)

    with pytest.raises(ConfigError) as caught:
        send_request(str(tmp_path), Verb.ADD, {"params": {"learning_rate": value}})

    assert text in str(caught.value)


def test_a_point_is_the_same_however_its_numbers_are_written_and_whatever_its_id(tmp_path):
    config = make_config(search_space={"x": {"grid": [1, 2]}, "y": {"grid": [[1, 2]]}})
    study = make_study(tmp_path, config)
    study.update_config(
        config.model_copy(update={"resources": config.resources.model_copy(update={"cpus_per_trial": 2})})
    )

    for x in (1, 1.0):
        with pytest.raises(StudyMismatchError, match="is trial 0 of study `made-up` already"):
            send_request(str(tmp_path), Verb.ADD, {"params": {"x": x, "y": [1.0, 2]}})

    assert plan_extension(reopened(study), ["search_space.x.grid=[1.0, 2.0]"], []).n_points == 0


def test_a_failed_point_can_be_added_though_the_sampler_has_drawn_it_once_more(tmp_path):
    space = {"learning_rate": {"choice": [1e-4]}}
    study, _ = steer(
        tmp_path, function=raises, failures={"retries": 0}, search_space=space,
        sampler={"name": "random", "n_trials": 3},
    )  # fmt: skip
    ask(study, Verb.ADD, params={"learning_rate": 1e-4})

    InProcessExecutor(slots=1, function=trial_functions.steady).run(make_orchestrator(reopened(study)))

    records = reopened(study).records()
    assert [record.state.value for record in records.values()] == ["FAIL", "PRUNED", "PRUNED", "COMPLETE"]
    assert records[3].origin.retries == 0


def raises(context):
    raise RuntimeError("not today")


def test_an_added_value_is_the_one_that_a_sampler_would_draw(tmp_path):
    """Of steps of 0.1 from 0.1, the third is 0.30000000000000004 to a sampler."""
    space = {"learning_rate": {"uniform": [0.1, 0.9], "step": 0.1}}
    study, _ = steer(tmp_path, search_space=space, sampler={"name": "random", "n_trials": 40})
    drawn = {record.params["learning_rate"] for record in study.records().values()}
    assert 0.30000000000000004 in drawn

    with pytest.raises(StudyMismatchError, match=r"This point is trial \d+ of study"):
        send_request(str(tmp_path), Verb.ADD, {"params": {"learning_rate": 0.3}})


def test_a_point_whose_trial_failed_can_be_added_once_more(tmp_path):
    study, _ = steer(tmp_path, function=trial_functions.raises_at_high_rate, failures={"retries": 0})
    for _ in range(2):
        ask(study, Verb.ADD, params={"learning_rate": 0.01})

    InProcessExecutor(slots=1, function=trial_functions.steady).run(make_orchestrator(reopened(study)))

    records = reopened(study).records()
    assert [records[number].state.value for number in (3, 4)] == ["FAIL", "COMPLETE"]
    assert records[4].origin.retries == 3
    assert [event.outcome.is_done for event in reopened(study).control_box.events()] == [True, False]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "must be a finite number, but got nan"),
        (math.inf, "must be a finite number, but got inf"),
        (-5, "`samples` must be at least 1, but got -5"),
        (2.5, "`samples` must be a whole number"),
    ],
)
def test_a_budget_that_no_sweep_file_could_give_is_refused(tmp_path, value, text):
    config = make_config(
        search_space={"samples": {"grid": [50, 100]}},
        trial={"budget": {"samples": None}, "compare": "unequal"},
    )
    make_study(tmp_path, config)

    with pytest.raises(ConfigError, match=text):
        send_request(str(tmp_path), Verb.ADD, {"params": {"samples": value}})


@pytest.mark.parametrize(
    ("dimension", "value"), [({"uniform": [0, 1], "step": 0.25}, 0.1), ({"int": [1, 9], "step": 4}, 8)]
)
def test_a_value_between_two_steps_does_no_harm_to_a_study_that_holds_it(tmp_path, dimension, value):
    study = make_study(
        tmp_path, make_config(search_space={"x": dimension}, sampler={"name": "random", "n_trials": 3})
    )
    ask(study, Verb.ADD, params={"x": value})

    make_orchestrator(reopened(study))

    assert "plus whole steps of" in events(study)[0]["message"]
    number = study.add_trial(plan_point(study.config, {"x": value}), Origin(by="somebody"))
    assert reopened(study).records()[number].params == {"x": value}


def test_values_are_read_as_a_sweep_file_reads_them():
    assert parse_pairs(["a=1e-4", "b=8", "c=[1, 2]", "d=x"]) == {"a": 1e-4, "b": 8, "c": [1, 2], "d": "x"}
    with pytest.raises(ConfigError, match="given twice"):
        parse_pairs(["a=1", "a=2"])


# -- the surface ---------------------------------------------------------------------------------------------


def test_a_command_without_a_driver_says_when_it_is_acted_on(tmp_path):
    make_study(tmp_path, make_config())

    run = cli("stop", tmp_path, "--trial", 2)

    assert run.code == 0
    assert run.out == "Written. No driver runs this study now: it is acted on at the next `sweeper resume`.\n"
    assert cli("stop", tmp_path).code == 2
    assert cli("stop", tmp_path, "--trial", 77).code == 4
    asked = json.loads(cli("add", tmp_path, "learning_rate=5e-4", "--json").out)
    assert (asked["verb"], asked["outcome"]) == ("add", None)
    controls = json.loads(cli("status", tmp_path, "--json").out)["controls"]
    assert [control["request"] for control in controls] == ["stop --trial 2", "add learning_rate=0.0005"]


def test_several_trials_are_stopped_and_kept_by_one_command_or_none_of_them(tmp_path):
    study = make_study(tmp_path, make_config())

    refused = cli("stop", tmp_path, "--trial", 0, "--trial", 99)
    assert (refused.code, "has no trial 99" in refused.err) == (4, True)
    assert study.control_box.events() == []

    assert cli("stop", tmp_path, "--trial", 0, "--trial", 1, "--trial", 0).code == 0
    kept = json.loads(cli("keep", tmp_path, "--trial", 2, "--trial", 3, "--json").out)

    assert [event["request"] for event in events(study)] == [
        "stop --trial 0", "stop --trial 1", "keep --trial 2", "keep --trial 3",
    ]  # fmt: skip
    assert [event["trial"] for event in kept] == [2, 3]


def test_a_finished_study_goes_on_where_a_point_was_added_since(tmp_path):
    options = LaunchOptions(dir=str(tmp_path / "s"), executor="in-process")
    launch(make_config(), options=options, function=trial_functions.steady)
    place = str(tmp_path / "s")
    with pytest.raises(NothingToDoError, match="is finished: nothing is left to train"):
        resume(place, options=options, function=trial_functions.steady)
    send_request(place, Verb.ADD, {"params": {"learning_rate": 3e-3}})

    view = resume(place, options=options, function=trial_functions.steady)

    assert view.state == "finished"
    assert len(view.records) == 5
    assert view.records[4].state is TrialState.COMPLETE


class AddAtTheEnd:
    """A listener that asks for two more points once all others have ended, one of them not to be had."""

    def __init__(self, place):
        self._place, self._n_ended = place, 0

    def on_event(self, event):
        self._n_ended += event.kind is EventKind.TRIAL_ENDED
        if event.kind is EventKind.TRIAL_ENDED and self._n_ended == len(RATES):
            for rate in (RATES[0], 3e-3):
                ask(reopened_at(self._place), Verb.ADD, params={"learning_rate": rate})


def test_a_point_that_is_added_as_the_last_trial_ends_is_trained_by_the_same_driver(tmp_path):
    place = tmp_path / "s"
    options = LaunchOptions(dir=str(place), executor="in-process")

    view = launch(
        make_config(), options=options, function=trial_functions.steady, listeners=[AddAtTheEnd(place)]
    )

    assert view.state == "finished"
    assert [record.state for record in view.records] == [TrialState.COMPLETE] * 5
    assert [event["outcome"] for event in events(reopened_at(place))] == ["refused", "done"]


def test_a_sweep_that_was_stopped_from_outside_ends_as_an_interrupted_one(tmp_path):
    class StopAll:
        def on_event(self, event):
            if event.kind is EventKind.RUNG and event.record.number == 0:
                ask(reopened_at(tmp_path / "s"), Verb.STOP_ALL)
                time.sleep(0.5)  # the driver looks by the real clock here

    options = LaunchOptions(dir=str(tmp_path / "s"), executor="in-process")
    with pytest.raises(InterruptedSweepError, match="sweeper resume"):
        launch(make_config(), options=options, function=trial_functions.steady, listeners=[StopAll()])


def reopened_at(directory):
    from sweeper.study.study import Study

    return Study.open(str(directory))


def test_a_sweep_whose_time_is_over_ends_as_an_interrupted_one_and_a_resume_has_its_time_anew(tmp_path):
    class Slow:
        def on_event(self, event):
            if event.kind is EventKind.RUNG and event.record.number == 1:
                time.sleep(0.6)  # the driver looks by the real clock here

    place = tmp_path / "s"
    options = LaunchOptions(dir=str(place), executor="in-process")
    config = make_config(resources={"slots": 1, "time_budget_s": 0.5})
    with pytest.raises(
        InterruptedSweepError,
        match=r"^Out of time \(`resources.time_budget_s`\): 1 of 4 .*Go on with: sweeper resume",
    ):
        launch(config, options=options, function=trial_functions.steady, listeners=[Slow()])

    told = (place / "events.log").read_text()
    assert "the sweep ends: `resources.time_budget_s` of 0.5 s is over" in told
    states = [record.state for record in reopened_at(place).records().values()]
    assert states == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING, TrialState.WAITING]
    view = resume(str(place), options=options, function=trial_functions.steady)
    assert (view.state, view.count(TrialState.COMPLETE)) == ("finished", 4)


@pytest.mark.parametrize(
    ("budget", "n_looks", "is_over"), [(30.0, 10, False), (None, 100, False), (30.0, 100, True)]
)
def test_a_time_is_over_when_its_driver_has_had_the_sweep_so_long(budget, n_looks, is_over):
    _, orchestrator = in_memory(resources={"time_budget_s": budget})
    spec = orchestrator.next_trial()
    for _ in range(n_looks):
        orchestrator.poll()
    assert orchestrator.is_out_of_time is orchestrator.is_interrupted is is_over
    assert orchestrator.n_running == 1  # what runs is the executor's to end
    assert spec is not None
    assert (orchestrator.next_trial() is None) is is_over
