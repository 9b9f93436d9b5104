"""A judge that is built anew from what the storage holds goes on as the one that lived through it all."""

import copy
import math
import os
import random

import pytest
from sweeps import make_config, make_study, reopened
from trial_functions import HILL_SPACE, hill_end

from sweeper.orchestrator import Orchestrator
from sweeper.plan import plan_sweep
from sweeper.pruners.judge import LearningJudge, divergence_rules, make_judge
from sweeper.records import (
    LoggedRecords,
    Outcome,
    OutcomeKind,
    Report,
    RungRecord,
    StepRow,
    TrialRecord,
    TrialState,
)

MARKS = (64, 192, 320, 448, 640)
RANK = {"signals": {"score": {"direction": "maximize"}, "loss": {"direction": "minimize"}}}
HALVING = {"min_resource": 64, "reduction_factor": 2}
PRUNERS = {
    "nop": {"name": "nop"},
    "median": {"name": "median", "options": {"n_startup_trials": 2}},
    "percentile": {"name": "percentile", "options": {"percentile": 40.0, "n_startup_trials": 2}},
    "threshold": {"name": "threshold", "options": {"lower": 0.05}},
    "wilcoxon": {"name": "wilcoxon", "options": {"p_threshold": 0.3}},
    "halving": {"name": "successive_halving", "options": HALVING},
    "halving, auto": {"name": "successive_halving", "options": {"reduction_factor": 2}},
    "hyperband": {"name": "hyperband", "options": {**HALVING, "max_resource": 640}},
    "hyperband, auto": {"name": "hyperband", "options": HALVING},
    "patient": {
        "name": "patient", "options": {"wrapped_pruner": {"name": "successive_halving", **HALVING}, "patience": 0}
    },
    "eager": {"name": "early_dynamics", "min_peers": 3, **RANK},
    "certain": {"name": "early_dynamics", "mode": "certain", **RANK},
    "probe": {"name": "early_dynamics", "mode": "probe", **RANK},
    "learned": {"name": "early_dynamics", "set_aside": False, "audit_frac": 0.3},
    "learned, set aside": {"name": "early_dynamics", "set_aside": True, "audit_frac": 0.3},
    "learned, slots filled": {"name": "early_dynamics", "set_aside": True, "fill_slots": True},
}  # fmt: skip


@pytest.fixture(autouse=True)
def unsynced(monkeypatch):
    """No machine dies here, so that nothing needs to be on the disk: most of the time would go there."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Witness:
    """Asks the judge that lives, and beside it one that was built from the storage a while ago."""

    def __init__(self, config, study):
        self.config, self.study = config, study
        self.living = make_judge(config)
        self.rebuilt, self.stored, self.n_seen = None, None, 0
        self.n_compared = self.n_stops = 0

    def cut(self, records):
        """Build a judge anew, and let it catch up, as a driver does that takes the study up."""
        self.rebuilt = make_judge(self.config)
        self.stored, self.n_seen = LoggedRecords(reopened(self.study).records()), len(records.changed)
        if isinstance(self.rebuilt, LearningJudge):
            self.rebuilt.judge_again(self.stored)

    def _catch_up(self, records):
        fresh = records.changed[self.n_seen :]
        self.n_seen += len(fresh)
        for number in fresh:
            self.stored[number] = copy.deepcopy(records[number])

    def _ask(self, call, records):
        found = call(self.living, records)
        if self.rebuilt is not None:
            self._catch_up(records)
            self.n_compared += 1
            assert told(found) == told(call(self.rebuilt, self.stored))
        return found

    def judge(self, numbers, rung, records):
        decisions = self._ask(lambda judge, known: judge.judge(numbers, rung, known), records)
        self.n_stops += sum(decision.stop or decision.aside for decision in decisions)
        return decisions


class LearningWitness(Witness):
    def judge_again(self, records):
        decisions = self._ask(lambda judge, known: judge.judge_again(known), records)
        self.n_stops += sum(decision.stop for decision in decisions)
        return decisions

    def next_of(self, waiting, records):
        return self._ask(lambda judge, known: judge.next_of(waiting, known), records)


def told(answer):
    if answer is None or isinstance(answer, int):
        return answer
    return [
        (one.trial, one.stop, one.aside, one.rule, one.rung, one.details.get("asked"),
         pytest.approx(one.details.get("chance", 0.0), rel=1e-6))
        for one in answer
    ]  # fmt: skip


class Life:
    """A sweep whose trials report, end, fail and diverge in random order. Now and then its driver is cut off."""

    def __init__(self, tmp_path, pruner, *, seed, slots, cut_every):
        self.draw, self.slots, self.cut_every = random.Random(seed), slots, cut_every
        rates = HILL_SPACE["learning_rate"]["grid"]
        rates = (
            rates if "set_aside" in pruner else rates[1::2]
        )  # the learned mode takes 20 points to learn from
        space = {**HILL_SPACE, "learning_rate": {"grid": rates}}
        config = make_config(
            pruner=pruner, metric="score", rungs={"samples": MARKS[:-1]}, search_space=space,
            trial={"budget": {"samples": MARKS[-1]}, "settings": {}}, failures={"retries": 1},
        )  # fmt: skip
        study = make_study(tmp_path / "study", config)
        kind = LearningWitness if isinstance(make_judge(config), LearningJudge) else Witness
        self.witness = kind(config, study)
        self.orchestrator = Orchestrator(
            study=study, plan=plan_sweep(config), judge=self.witness, rules=divergence_rules(config)
        )
        self.position = {}  # of each trial that holds a slot: marks that it has passed

    def run(self):
        n_events = 0
        while True:
            while len(self.position) < self.slots and (spec := self.orchestrator.next_trial()) is not None:
                self.orchestrator.on_worker(spec.number, {"node": "here", "pid": 1})
                self.position[spec.number] = 0
            if not self.position:
                return
            n_events += 1
            if n_events % self.cut_every == 0:
                self.witness.cut(self.orchestrator.records)
            self.go_on(self.draw.choice(list(self.position)))

    def go_on(self, number):
        first, fate = self.position[number], self.draw.random()
        last = min(len(MARKS), first + self.draw.choice((1, 1, 2)))
        self.position[number] = last
        if fate < 0.02:
            self.end(number, Outcome(kind=OutcomeKind.FAILED, error="bad luck"))
            return
        report = self.report(number, range(first, last), diverges=fate > 0.98)
        if last == len(MARKS):
            self.end(number, Outcome(kind=OutcomeKind.DONE, report=report))
        else:
            self.obey(self.orchestrator.on_report(number, report))

    def report(self, number, passed, *, diverges):
        params = self.orchestrator.records[number].params
        final, _ = hill_end(params)
        rows, score = [], 0.0
        for index in passed:
            samples = MARKS[index]
            noise = random.Random(1000 * number + index)
            score = final * (1 - math.exp(-3 * samples / MARKS[-1])) + 0.02 * noise.random()
            loss = math.nan if diverges else 2 - score + 0.02 * noise.random()
            rows.append(StepRow(samples // params["effective_batch_size"], samples, 0, loss, 1.0, 1e-3))
        return Report(rows=tuple(rows), metrics={"score": score})

    def end(self, number, outcome):
        self.position.pop(number)
        self.obey(self.orchestrator.on_end(number, outcome))

    def obey(self, decisions):
        for decision in decisions:
            if decision.trial in self.position:
                self.end(decision.trial, Outcome(kind=OutcomeKind.STOPPED))


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_rebuilt_judge_goes_on_as_the_one_that_lived(pruner, tmp_path):
    life = Life(tmp_path, PRUNERS[pruner], seed=3, slots=4, cut_every=7)

    life.run()

    assert all(record.state.is_finished for record in life.orchestrator.records.values())
    assert life.witness.n_compared > 15
    assert pruner == "nop" or life.witness.n_stops > 0


def test_hyperband_puts_a_trial_into_the_same_bracket_in_every_study():
    config, records = make_config(pruner=PRUNERS["hyperband"]), {}
    judges, answers = [make_judge(config) for _ in range(3)], [[], [], []]
    for number in range(40):
        rung = RungRecord(rung=0, mark=64, step=1, samples=64, signals={"score": float(number % 5)})
        records[number] = TrialRecord(
            number=number, state=TrialState.RUNNING, params={}, point_id="", rungs={0: rung}
        )
        for judge, stops in zip(judges, answers, strict=True):
            stops.append(judge.judge([number], 0, records)[0].stop)

    assert answers[0] == answers[1] == answers[2]
    assert 0 < sum(answers[0]) < 40


def test_a_trial_that_comes_to_two_rungs_at_once_is_judged_at_the_first_by_what_it_showed_there():
    config = make_config(pruner={"name": "threshold", "options": {"lower": 1.0}})
    rungs = {
        index: RungRecord(rung=index, mark=mark, step=mark, samples=mark, signals={"score": score})
        for index, mark, score in ((0, 20, 2.0), (1, 50, 0.5))
    }
    records = {0: TrialRecord(number=0, state=TrialState.RUNNING, params={}, point_id="", rungs=rungs)}
    judge = make_judge(config)

    assert [judge.judge([0], rung, records)[0].stop for rung in (0, 1)] == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_judge_rebuilt_at_any_event_goes_on_as_the_one_that_lived(pruner, seed, tmp_path):
    Life(tmp_path, PRUNERS[pruner], seed=seed, slots=(1, 3, 8)[seed % 3], cut_every=1 + seed % 4).run()
