"""What is kept between judgements is a cache: it says what a look at everything says, and does not grow in cost."""

import random

import numpy as np
import pytest
from learning_sweeps import FRACTIONS, complete, show, waiting_records

from sweeper.learning import LearnedOptions
from sweeper.pruners import forecast, teachers
from sweeper.pruners.learned import LearnedRule
from sweeper.pruners.outlook import LEVELS, OutlookTable
from sweeper.records import LoggedRecords, TrialState

N, SLOTS = 150, 8
POINTS = [
    {"effective_batch_size": batch, "learning_rate": float(rate)}
    for batch in (8, 16, 32)
    for rate in np.geomspace(1e-5, 1e-2, N // 3)
]


class Sweep:
    """A simulated sweep whose records keep a log. What is asked of its rule is now and then asked of a new one too."""

    def __init__(self, *, set_aside, honesty, seed):
        self.options = LearnedOptions(set_aside=set_aside, audit_frac=0.3, seed=1)
        self.records, self.draw = LoggedRecords(waiting_records(POINTS)), random.Random(seed)
        self.rule, self.running = self.new_rule(), []
        noise = np.random.default_rng(seed).normal(size=(N, len(FRACTIONS) + 1))
        self.values = honesty * noise[:, :1] + (1 - honesty) * noise
        self.n_compared = self.n_ended = self.n_stopped = 0

    def new_rule(self):
        return LearnedRule(metric="score", direction="maximize", options=self.options)

    def ask(self, call):
        found = call(self.rule, self.records)
        if self.draw.random() < 0.1:
            self.n_compared += 1
            assert told(found) == told(call(self.new_rule(), dict(self.records)))
        return found

    def run(self):
        while True:
            self.fill()
            if not self.running:
                return
            self.go_on(self.draw.choice(self.running))

    def fill(self):
        resting = [n for n, r in self.records.items() if not r.state.is_finished and n not in self.running]
        while resting and len(self.running) < SLOTS:
            number = self.ask(lambda rule, records: rule.next_of(resting, records))
            if number is None and self.running:
                return
            number = resting[0] if number is None else number
            resting.remove(number)
            self.records[number].state, self.records[number].is_set_aside = TrialState.RUNNING, False
            self.records.note(number)
            self.running.append(number)

    def go_on(self, number):
        record, rung = self.records[number], len(self.records[number].rungs)
        if rung < len(FRACTIONS):
            score = float(self.values[number, rung])
            show(record, rung, {"score": score, "loss": -score, "grad_norm": 1.0})
            self.records.note(number)
            others = [n for n in self.running if n != number and len(self.records[n].rungs) == rung + 1]
            self.carry_out(self.ask(lambda rule, records: rule.judge([number, *others], rung, records)))
        else:
            self.end(record)
        again = self.rule.judge_again(self.records)
        if again and self.draw.random() < 0.3:
            self.n_compared += 1
            assert told(again) == told(self.new_rule().judge_again(dict(self.records)))
        self.carry_out(again)

    def end(self, record):
        self.n_ended += 1
        complete(record, float(self.values[record.number, -1]))
        record.ended = f"{self.n_ended:04d}"
        if self.draw.random() < 0.1:
            record.state, record.value = TrialState.PRUNED, None
            record.decisions.append({"rule": "nan", "stop": True, "rung": None, "details": {}})
        self.running.remove(record.number)
        self.records.note(record.number)

    def carry_out(self, decisions):
        for decision in decisions:
            record = self.records[decision.trial]
            record.decisions.append(decision.entry())
            if decision.stop:
                self.n_stopped += 1
                record.state = TrialState.PRUNED
            record.is_set_aside = decision.aside
            if (decision.stop or decision.aside) and decision.trial in self.running:
                self.running.remove(decision.trial)
            self.records.note(decision.trial)


def told(answer):
    if answer is None or isinstance(answer, int):
        return answer
    return [
        (
            one.trial,
            one.stop,
            one.aside,
            one.rule,
            one.rung,
            pytest.approx(one.details.get("chance", 0.0), rel=1e-6),
        )
        for one in answer
    ]


@pytest.mark.parametrize(
    ("set_aside", "honesty"),
    [
        (True, 0.97),
        (False, 0.0),
        pytest.param(True, 0.0, marks=pytest.mark.slow),
        pytest.param(False, 0.97, marks=pytest.mark.slow),
    ],
)
def test_a_rule_that_reads_on_decides_as_one_that_reads_everything(set_aside, honesty):
    sweep = Sweep(set_aside=set_aside, honesty=honesty, seed=3)

    sweep.run()

    assert sweep.n_compared > 20
    if honesty:
        assert sweep.n_stopped > 5
    else:
        assert sweep.n_ended > 100  # more than a fit learns from at once


def test_a_fit_is_renewed_ever_more_rarely_and_learns_from_a_part_of_what_has_ended(monkeypatch):
    made = []
    fit = forecast.Fit
    monkeypatch.setattr(
        forecast, "Fit", lambda chosen, *given, **named: made.append(chosen) or fit(chosen, *given, **named)
    )
    sweep = Sweep(set_aside=False, honesty=0.0, seed=5)
    sweep.ask = lambda call: call(sweep.rule, sweep.records)

    sweep.run()

    assert sweep.n_ended > 100
    assert len(made) < 70
    assert max(map(len, made)) == teachers._MOST_TEACHERS
    assert made[-1] == sorted(made[-1])


def test_a_report_looks_at_no_trial_that_cannot_be_stopped(monkeypatch):
    sweep, looked_at = Sweep(set_aside=True, honesty=0.0, seed=1), []
    outlook = OutlookTable.outlook
    monkeypatch.setattr(OutlookTable, "outlook", lambda table, n: looked_at.append(n) or outlook(table, n))
    monkeypatch.setattr(sweep.draw, "random", lambda: 1.0)  # nothing is compared, nobody diverges

    sweep.run()

    n_reports = sum(len(record.rungs) for record in sweep.records.values())
    assert sweep.n_ended > 100, "nothing is predicted, so nobody is stopped"
    assert len(looked_at) < 8 * n_reports  # of 150 open trials


@pytest.mark.parametrize("skip_waiting", [False, True])
def test_who_may_be_stopped_is_who_is_trusted_and_unlikely(skip_waiting):
    n, draw = 40, np.random.default_rng(0)
    table = OutlookTable(list(range(n)), n_complete=5)
    rungs, doubts = draw.integers(-1, 3, size=n), draw.choice([0.01, 0.5], size=n)
    above = np.sort(0.2 * draw.random((n, len(LEVELS))), axis=1)[:, ::-1]
    for k in range(n):
        one = np.array([0.0])
        table.put([k], int(rungs[k]), doubt=doubts[k], means=one, reaches=one, above=above[k : k + 1])
        table.mark(k, is_audited=k % 7 == 0, is_at_rest=False, is_training=True)
    table.drop(3, n_complete=6)
    limit = float(np.median([table.outlook(k).chance for k in range(n) if k in table]))

    found = table.stoppable(skip_waiting=skip_waiting, at_most=limit)

    may = {k for k in range(n) if doubts[k] < 0.05 and (skip_waiting or rungs[k] >= 0)}
    assert found == [k for k in table.judged() if k in may and table.outlook(k).chance <= limit]
    assert 0 < len(found) < len(may)
    among = range(20)
    assert table.stoppable(among, skip_waiting=skip_waiting, at_most=limit) == [
        k for k in found if k in among
    ]


def test_the_best_half_of_the_teachers_are_the_best_of_all():
    records = waiting_records(POINTS)
    for number, record in records.items():
        complete(record, float((number * 37) % N))

    chosen = teachers.chosen_teachers(list(records), records, -1.0)

    lowest = sorted(records, key=lambda number: records[number].value)[: teachers._MOST_TEACHERS // 2]
    assert len(chosen) == teachers._MOST_TEACHERS
    assert set(lowest) <= set(chosen)
    assert max(records[number].value for number in chosen) == N - 1
