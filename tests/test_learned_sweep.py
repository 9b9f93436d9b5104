"""Learned and certain pruning in a whole sweep: starts, skips, stops, and what the study and the plan say of them."""

import json
import os

import pytest
from sweep_files import BASE, config_of
from sweeps import Recorder, make_config, make_orchestrator, make_study, reopened
from trial_functions import HILL_SPACE, noisy_hill

from sweeper import api
from sweeper.errors import ConfigError
from sweeper.events import EventKind
from sweeper.evidence_text import evidence_json, format_evidence
from sweeper.executors.in_process import InProcessExecutor
from sweeper.orchestrator import Orchestrator
from sweeper.plan import plan_sweep
from sweeper.pruners.judge import divergence_rules, make_judge
from sweeper.records import Decision, Outcome, OutcomeKind, Report, StepRow, TrialState
from sweeper.study import layout


def hill(context):
    return noisy_hill(context, sd=0.0)


def config_for(pruner, **changes):
    trial = {"budget": {"samples": 640}, "settings": {}}
    return make_config(pruner=pruner, trial=trial, rungs={}, search_space=HILL_SPACE, **changes)


def run(tmp_path, config, *, slots=4):
    recorder = Recorder()
    study = make_study(tmp_path / "study", config)
    orchestrator = make_orchestrator(study, recorder)
    InProcessExecutor(slots=slots, function=hill).run(orchestrator)
    return study, orchestrator, recorder


def test_without_options_the_pruner_learns_and_has_more_rungs():
    plan = plan_sweep(config_for({"name": "early_dynamics"}))

    assert plan.config.pruner.directions == "learned"
    assert plan.rung_marks == (64, 128, 192, 320, 448)


def test_of_listed_points_as_many_count_as_are_listed():
    points = [
        {"effective_batch_size": 8, "learning_rate": rate} for rate in HILL_SPACE["learning_rate"]["grid"][:3]
    ]

    assert plan_sweep(config_for({"name": "early_dynamics"}, points=points)).rung_marks == (64, 192)


def test_the_plan_says_that_a_bound_of_bytes_sets_fewer_aside():
    trial = {"budget": {"samples": 640}, "settings": {}, "checkpoint": {"max_gb": 1}}
    pruner = {"name": "early_dynamics", "set_aside": True}
    bounded = make_config(pruner=pruner, trial=trial, rungs={}, search_space=HILL_SPACE)

    assert "No further trial is set aside once the checkpoints reach `trial.checkpoint.max_gb`." in (
        plan_sweep(bounded).notes
    )


def test_the_plan_names_the_calibration_points_and_the_risk():
    notes = " ".join(plan_sweep(config_for("early_dynamics")).notes)

    assert "Calibration: 7 of 32 points run to their end before any trial is judged" in notes
    assert (
        "The risk of missing the best point by more than the tolerance is at most 5% if the model's" in notes
    )


def test_a_sweep_finds_the_best_point_and_skips_hopeless_ones(tmp_path):
    study, orchestrator, _ = run(tmp_path, config_for({"name": "early_dynamics", "audit_frac": 0.0}))

    records = orchestrator.records
    skipped = [r for r in records.values() if r.state is TrialState.PRUNED and r.attempts == 0]
    assert orchestrator.is_done
    assert study.view().best.value == pytest.approx(1.0)
    assert sum(record.samples for record in records.values()) < 0.6 * 32 * 640
    assert skipped
    assert all(
        record.reason.startswith("by its point alone, score is predicted to end at") for record in skipped
    )


def test_what_was_decided_is_in_the_study(tmp_path):
    study, orchestrator, recorder = run(tmp_path, config_for("early_dynamics"))

    stored = reopened(study).records()
    assert {n: (r.state, r.reason) for n, r in stored.items()} == {
        n: (r.state, r.reason) for n, r in orchestrator.records.items()
    }
    stopped = [r for r in stored.values() if r.state is TrialState.PRUNED]
    assert all(r.decisions[-1]["details"]["chance"] <= r.decisions[-1]["details"]["allowed"] for r in stopped)
    ended = [event for event in recorder.events if event.kind is EventKind.TRIAL_ENDED]
    assert len(ended) == 32


def test_the_same_sweep_twice_decides_the_same(tmp_path):
    states = []
    for name in ("one", "two"):
        _, orchestrator, _ = run(tmp_path / name, config_for("early_dynamics"))
        states.append({n: (r.state, r.samples, r.reason) for n, r in orchestrator.records.items()})

    assert states[0] == states[1]


def test_a_resumed_sweep_keeps_what_was_skipped(tmp_path):
    config = config_for({"name": "early_dynamics", "audit_frac": 0.0})
    study = make_study(tmp_path / "study", config)
    first = make_orchestrator(study)

    class StopsAfter(Recorder):
        def on_event(self, event):
            super().on_event(event)
            if event.message.startswith("pruned before its start"):
                first.interrupt()

    first.listen(StopsAfter())
    InProcessExecutor(slots=4, function=hill).run(first)
    skipped = {n for n, r in first.records.items() if r.state is TrialState.PRUNED and r.attempts == 0}
    assert skipped

    second = make_orchestrator(reopened(study))
    InProcessExecutor(slots=4, function=hill).run(second)

    assert all(second.records[n].attempts == 0 for n in skipped)
    assert second.is_done
    assert max(r.value or 0.0 for r in second.records.values()) == pytest.approx(1.0)


def test_certain_mode_ends_with_the_same_survivors_for_any_number_of_slots(tmp_path):
    pruner = {
        "name": "early_dynamics", "mode": "certain", "keep_frac": 0.25,
        "signals": {"score": {"direction": "maximize"}, "loss": {"direction": "minimize"}},
    }  # fmt: skip
    survivors, costs = [], []
    for slots in (1, 4, 32):
        _, orchestrator, _ = run(tmp_path / str(slots), config_for(pruner), slots=slots)
        survivors.append(make_judge(config_for(pruner)).survivors(orchestrator.records))
        costs.append(sum(record.samples for record in orchestrator.records.values()))
        complete = {n for n, r in orchestrator.records.items() if r.state is TrialState.COMPLETE}
        assert complete >= set(survivors[-1])

    assert survivors[0] == survivors[1] == survivors[2]
    assert costs[2] < costs[0] <= 32 * 640


def test_a_launched_sweep_keeps_its_evidence(tmp_path):
    config = config_for("early_dynamics", dir=str(tmp_path / "launched"))

    view = api.launch(config, options=api.LaunchOptions(executor="in-process"), function=hill)

    found = evidence_json(view)
    assert view.evidence
    assert {"loss", "grad_norm", "score"} <= {one["signal"] for one in found["evidence"]}
    assert json.dumps(found)
    assert format_evidence(view)


@pytest.mark.parametrize(
    ("pruner", "told"),
    [
        ("{keep_frac: 0.3, risk: 0.1}", r"`pruner.risk` belongs to `directions: learned`, but trials are judged by"),
        ("{directions: learned, mode: certain}", r"`pruner.mode` belongs to the rank, but trials are judged by"),
        ("{directions: paper, signals: {loss: {direction: minimize}}}", r"`pruner.signals` says which way each signal"),
    ],
)  # fmt: skip
def test_options_of_rank_and_prediction_do_not_mix(pruner, told):
    with pytest.raises(ConfigError, match=told):
        config_of(BASE, f"pruner={pruner}")


@pytest.mark.parametrize(
    ("pruner", "directions"),
    [("early_dynamics", "learned"), ("{keep_frac: 0.3}", "paper"), ("{mode: certain}", "paper"),
     ("{risk: 0.1}", "learned"), ("{signals: {loss: {direction: minimize}}}", None), ("median", None)],
)  # fmt: skip
def test_the_directions_follow_from_what_is_given(pruner, directions):
    assert config_of(BASE, f"pruner={pruner}").pruner.directions == directions


PROBE = {
    "name": "early_dynamics", "mode": "probe", "keep_frac": 0.25,
    "signals": {"score": {"direction": "maximize"}, "loss": {"direction": "minimize"}},
}  # fmt: skip


def test_probe_mode_trains_no_further_than_it_must_for_any_number_of_slots(tmp_path):
    config = config_for(PROBE)
    certain = config_for({**PROBE, "mode": "certain"})
    _, full, _ = run(tmp_path / "certain", certain, slots=1)
    expected = make_judge(certain).survivors(full.records)
    for slots in (1, 4, 32):
        study, orchestrator, _ = run(tmp_path / str(slots), config, slots=slots)

        complete = [n for n, r in orchestrator.records.items() if r.state is TrialState.COMPLETE]
        assert complete == expected
        assert orchestrator.is_done
        assert not any(record.is_set_aside for record in reopened(study).records().values())


def test_probe_mode_lets_the_sampler_draw_all_points_before_anybody_goes_on(tmp_path):
    space = {"effective_batch_size": {"grid": [8, 16]}, "learning_rate": {"log_uniform": [1e-5, 1e-2]}}
    trial, sampler = {"budget": {"samples": 640}, "settings": {}}, {"name": "random", "n_trials": 12}
    config = make_config(pruner=PROBE, trial=trial, rungs={}, search_space=space, sampler=sampler)

    _, orchestrator, recorder = run(tmp_path, config, slots=2)

    starts = [event for event in recorder.events if event.kind is EventKind.TRIAL_STARTED]
    first_back = next(i for i, event in enumerate(starts) if event.message.startswith("goes on"))
    assert {event.record.number for event in starts[:first_back]} == set(range(12))
    complete = [n for n, r in orchestrator.records.items() if r.state is TrialState.COMPLETE]
    assert complete == make_judge(config).survivors(orchestrator.records)
    assert 0 < len(complete) <= 3
    assert orchestrator.is_done


def test_a_trial_that_was_set_aside_goes_on_after_a_resume(tmp_path):
    config = config_for({"name": "early_dynamics", "audit_frac": 0.0, "set_aside": True})
    study = make_study(tmp_path / "study", config)
    first = make_orchestrator(study)

    class StopsAfter(Recorder):
        def on_event(self, event):
            super().on_event(event)
            if "set aside at" in event.message:
                first.interrupt()

    first.listen(StopsAfter())
    InProcessExecutor(slots=4, function=hill).run(first)
    aside = {n for n, r in reopened(study).records().items() if r.is_set_aside}
    assert aside

    second = make_orchestrator(reopened(study))
    InProcessExecutor(slots=4, function=hill).run(second)

    assert second.is_done
    assert all(record.state.is_finished for record in second.records.values())
    assert max(r.value or 0.0 for r in second.records.values()) == pytest.approx(1.0)


def test_setting_aside_spends_less_than_stopping_at_once(tmp_path):
    spent = {}
    for set_aside in (False, True):
        config = config_for({"name": "early_dynamics", "audit_frac": 0.0, "set_aside": set_aside})
        _, orchestrator, _ = run(tmp_path / str(set_aside), config, slots=2)
        spent[set_aside] = sum(record.samples for record in orchestrator.records.values())
        assert max(r.value or 0.0 for r in orchestrator.records.values()) == pytest.approx(1.0)

    assert spent[True] <= spent[False]


def test_a_trial_that_is_stopped_before_its_worker_speaks_stays_stopped(tmp_path):
    class StopsTheSecond:
        """A judge that stops trial 1 as soon as trial 0 has reached a rung."""

        def judge(self, numbers, rung, records):
            return [Decision(trial=number, stop=False, rule="test", reason="") for number in numbers]

        def judge_again(self, records):
            if not records[0].rungs or records[1].state is not TrialState.RUNNING:
                return []
            return [Decision(trial=1, stop=True, rule="test", reason="hopeless")]

        def next_of(self, waiting, records):
            return min(waiting)

    config = make_config(rungs={"samples": [20]})
    study = make_study(tmp_path / "study", config)
    orchestrator = Orchestrator(
        study=study,
        plan=plan_sweep(config),
        judge=StopsTheSecond(),
        rules=divergence_rules(config),
        listeners=(),
    )
    first, second = orchestrator.next_trial(), orchestrator.next_trial()
    rows = tuple(
        StepRow(step=n, samples=10 * n, tokens=0, loss=1.0, grad_norm=1.0, learning_rate=1e-3) for n in (1, 2)
    )
    stops = orchestrator.on_report(first.number, Report(rows=rows))
    assert [decision.trial for decision in stops] == [second.number]

    orchestrator.on_worker(second.number, {"node": "a", "pid": 1})  # its process has only now come up
    orchestrator.on_end(second.number, Outcome(kind=OutcomeKind.STOPPED))
    record = reopened(study).records()[second.number]
    assert (record.state, record.reason, record.attempts) == (TrialState.PRUNED, "hopeless", 1)


def test_a_slot_that_stays_free_is_told_of_once(tmp_path):
    class Holding:
        """Starts one trial after the other, whatever is free."""

        def judge(self, numbers, rung, records):
            return [Decision(trial=numbers[0], stop=False, rule="holding", reason="", rung=rung)]

        def judge_again(self, records):
            return []

        def next_of(self, waiting, records):
            return None if any(record.is_training for record in records.values()) else waiting[0]

    config, recorder = config_for("nop"), Recorder()
    orchestrator = Orchestrator(
        study=make_study(tmp_path / "study", config), plan=plan_sweep(config), judge=Holding(),
        rules=divergence_rules(config), listeners=[recorder],
    )  # fmt: skip

    orchestrator.next_trial()
    assert [orchestrator.next_trial() for _ in range(3)] == [None] * 3

    notes = [event.message for event in recorder.events if event.kind is EventKind.NOTE]
    assert notes == ["a slot stays free: the pruner lets 31 trials wait for what those in training show"]


def last_words(score, *samples):
    """Return an outcome whose report holds all rows of a trial, evaluated after the last one."""
    rows = tuple(
        StepRow(step=n // 10, samples=n, tokens=0, loss=1.0, grad_norm=1.0, learning_rate=1e-3)
        for n in samples
    )
    return Outcome(kind=OutcomeKind.DONE, report=Report(rows=rows, metrics={"score": score}))


class StopsAllOthers:
    """A judge that finds all but trial 0 hopeless at its first rung; those that wait come before those that run."""

    def judge(self, numbers, rung, records):
        return [Decision(trial=numbers[0], stop=False, rule="test", reason="", rung=rung)]

    def judge_again(self, records):
        hopeless = [n for n in sorted(records, reverse=True) if n and not records[n].state.is_finished]
        return [
            Decision(trial=n, stop=True, rule="test", reason="hopeless") for n in hopeless if records[0].rungs
        ]

    def next_of(self, waiting, records):
        return min(waiting)


class Stored:
    """A listener that looks at what the storage holds when it hears of the first stop of a kind."""

    def __init__(self, study):
        self._study, self.seen = study, {}

    def on_event(self, event):
        if event.kind is EventKind.DECIDED and event.decision.stop:
            self.seen.setdefault(event.message, reopened(self._study).records())


@pytest.mark.parametrize("url", [None, "sqlite:///study.db"])
def test_running_trials_hear_that_they_are_stopped_before_those_that_wait_are_skipped(url, tmp_path):
    config = make_config(storage=url)
    study = make_study(tmp_path / "study", config)
    (study.directory / layout.MARKER).write_text(json.dumps({"study": study.name, "storage": url}))
    stored = Stored(study)
    orchestrator = Orchestrator(
        study=study, plan=plan_sweep(config), judge=StopsAllOthers(), rules=divergence_rules(config),
        listeners=[stored],
    )  # fmt: skip
    first, second, third = (orchestrator.next_trial().number for _ in range(3))
    orchestrator.on_report(second, last_words(1.0, 10).report)

    stops = orchestrator.on_report(first, last_words(1.0, 20).report)

    assert [stop.trial for stop in stops] == [third, second]
    told = stored.seen["stopped: hopeless"]
    assert [told[n].decisions[-1]["stop"] for n in (second, third)] == [True, True]
    assert told[second].samples == 10  # all that the next driver would know, if this one died now
    assert (told[3].state, told[3].decisions) == (TrialState.WAITING, [])
    ended = reopened(study).records()
    assert [ended[n].state for n in (1, 2, 3)] == [TrialState.PRUNED] * 3
    assert stored.seen["not started: hopeless"][3].decisions[-1]["stop"]


def test_points_that_are_skipped_together_are_one_write(tmp_path, monkeypatch):
    rates = [10 ** (-5 + index / 16) for index in range(48)]
    config = make_config(search_space={"learning_rate": {"grid": rates}})
    study = make_study(tmp_path / "study", config)
    orchestrator = Orchestrator(
        study=study, plan=plan_sweep(config), judge=StopsAllOthers(), rules=divergence_rules(config),
    )  # fmt: skip
    number = orchestrator.next_trial().number
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), fsync(descriptor)))

    orchestrator.on_report(number, last_words(1.0, 20).report)

    records = reopened(study).records()
    assert [records[n].state for n in range(48)] == [TrialState.RUNNING, *[TrialState.PRUNED] * 47]
    assert all(
        (records[n].attempts, records[n].decisions[-1]["stop"], records[n].reason) == (0, True, "hopeless")
        for n in range(1, 48)
    )
    assert len(synced) == 2  # what came before the judgement on the others, and they


@pytest.mark.parametrize("mode", ["eager", "certain"])
@pytest.mark.parametrize("rows", [(100,), (20, 50, 100), (20, 60)])
def test_a_trial_that_has_trained_to_its_end_is_not_stopped_by_its_last_report(rows, mode, tmp_path):
    signals = {"score": {"direction": "maximize"}}
    eager = {"min_peers": 2} if mode == "eager" else {}
    pruner = {"name": "early_dynamics", "signals": signals, "keep_frac": 0.25, "mode": mode, **eager}
    orchestrator = make_orchestrator(make_study(tmp_path, make_config(pruner=pruner)))

    for score in (4.0, 3.0, 2.0, 1.0):
        orchestrator.on_end(orchestrator.next_trial().number, last_words(score, *rows))

    assert [record.state for record in orchestrator.records.values()] == [TrialState.COMPLETE] * 4
    reached = {20: 0, 50: 1, 60: 1, 100: None}
    for record in orchestrator.records.values():
        assert sorted(record.rungs) == sorted(reached[n] for n in rows[:-1])


def test_a_trial_that_has_come_to_its_budget_is_not_stopped_before_it_has_said_so(tmp_path):
    signals = {"score": {"direction": "maximize"}}
    pruner = {"name": "early_dynamics", "signals": signals, "keep_frac": 0.25, "min_peers": 2}
    orchestrator = make_orchestrator(make_study(tmp_path, make_config(pruner=pruner)))
    first, second = orchestrator.next_trial().number, orchestrator.next_trial().number

    for number, score in ((first, 1.0), (second, 2.0)):
        assert orchestrator.on_report(number, last_words(score, 20, 100).report) == []
    third = orchestrator.next_trial().number
    stops = orchestrator.on_report(third, last_words(0.5, 20).report)

    assert [decision.trial for decision in stops] == [third]


def test_what_followed_from_the_last_end_is_not_said_again_by_the_next_driver(tmp_path):
    class StopsTwoARound:
        """A judge that finds two waiting trials hopeless whenever one more trial has ended."""

        n_complete = 0

        def judge(self, numbers, rung, records):
            return [Decision(trial=numbers[0], stop=False, rule="test", reason="", rung=rung)]

        def judge_again(self, records):
            n_complete = sum(record.state is TrialState.COMPLETE for record in records.values())
            before, self.n_complete = self.n_complete, n_complete
            waiting = [n for n in records if records[n].state is TrialState.WAITING][
                : 2 * (n_complete > before)
            ]
            return [Decision(trial=n, stop=True, rule="test", reason="hopeless") for n in waiting]

        def next_of(self, waiting, records):
            return min(waiting)

    config = config_for("nop")
    study = make_study(tmp_path / "study", config)

    def driver():
        plan, rules = plan_sweep(config), divergence_rules(config)
        return Orchestrator(study=reopened(study), plan=plan, judge=StopsTwoARound(), rules=rules)

    def end_one(orchestrator):
        orchestrator.on_end(orchestrator.next_trial().number, last_words(1.0, 64, 640))
        return sum(record.state is TrialState.PRUNED for record in orchestrator.records.values())

    assert end_one(driver()) == 2
    assert end_one(driver()) == 4


def test_a_trial_that_stands_between_two_attempts_is_stopped(tmp_path):
    config = make_config()
    study = make_study(tmp_path / "study", config)
    orchestrator = Orchestrator(
        study=study, plan=plan_sweep(config), judge=StopsAllOthers(), rules=divergence_rules(config),
    )  # fmt: skip
    first, second = (orchestrator.next_trial().number for _ in range(2))
    orchestrator.on_report(second, last_words(1.0, 10).report)
    orchestrator.on_lost(second, "its node died")

    orchestrator.on_report(first, last_words(1.0, 20).report)

    record = reopened(study).records()[second]
    assert (record.state, record.reason, record.attempts) == (TrialState.PRUNED, "hopeless", 1)
    assert orchestrator.next_trial() is None
