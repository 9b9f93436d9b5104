"""Certain mode: the survivors are a function of the values, whatever the order and the number of slots."""

import math
import random

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.pruners import EarlyDynamicsPruner, RankedSignal, level, report_rung
from sweeper.records import LoggedRecords, Origin, RungRecord, TrialRecord, TrialState

TWO = {"loss": RankedSignal(direction="minimize"), "score": RankedSignal(direction="maximize", weight=0.7)}
N_RUNGS = 2


def make_pruner(n, keep_frac=0.4, signals=TWO):
    return EarlyDynamicsPruner(signals=signals, keep_frac=keep_frac, mode="certain", n_points=n)


def play(pruner, values, *, order, slots, seed, diverges=()):
    """Run trials in turns of random length; return their records at the end, and who was stopped."""
    draw = random.Random(seed)
    records = {
        n: TrialRecord(number=n, state=TrialState.WAITING, params={}, point_id=str(n))
        for n in range(len(values))
    }
    waiting, running, stopped = list(order), [], set()

    def carry_out(decisions):
        for decision in decisions:
            if decision.stop and not records[decision.trial].state.is_finished:
                records[decision.trial].state = TrialState.PRUNED
                records[decision.trial].decisions.append({"rule": decision.rule, "stop": True})
                stopped.add(decision.trial)
                if decision.trial in running:
                    running.remove(decision.trial)

    while waiting or running:
        while waiting and len(running) < slots:
            number = waiting.pop(0)
            records[number].state = TrialState.RUNNING
            running.append(number)
        number = draw.choice(running)
        record = records[number]
        rung = len(record.rungs)
        if number in diverges and rung == diverges[number]:
            record.state = TrialState.PRUNED
            record.decisions.append({"rule": "nan", "stop": True})
            running.remove(number)
        elif rung < N_RUNGS:
            record.rungs[rung] = RungRecord(
                rung=rung, mark=100 * (rung + 1), step=rung + 1, samples=100 * (rung + 1),
                signals=dict(zip(TWO, values[number][rung], strict=True)),
            )  # fmt: skip
            carry_out(pruner.judge([number], rung, records))
        else:
            record.state = TrialState.COMPLETE
            running.remove(number)
        carry_out(pruner.judge_again(records))
    return records, stopped


def drawn_values(n, seed):
    draw = random.Random(seed)
    return [
        [(draw.random(), draw.choice([0.1, 0.2, draw.random()])) for _ in range(N_RUNGS)] for _ in range(n)
    ]


def in_order(n):
    return list(range(n))


def test_the_survivors_are_the_same_for_200_orders_of_reports():
    n, values, diverges = 11, drawn_values(11, seed=1), {3: 0, 7: 1}
    pruner, found = make_pruner(n), set()
    for seed in range(200):
        order = in_order(n)
        random.Random(seed).shuffle(order)
        records, stopped = play(
            pruner, values, order=order, slots=(1, 4, n)[seed % 3], seed=seed, diverges=diverges
        )
        survivors = pruner.survivors(records)
        found.add(tuple(survivors))
        assert stopped.isdisjoint(survivors)

    assert len(found) == 1
    assert 0 < len(found.pop()) < n


@settings(max_examples=30)
@given(st.data())
def test_any_values_orders_and_slots_leave_the_same_survivors(data):
    n = data.draw(st.integers(4, 10))
    level = st.sampled_from([0.0, 0.1, 0.2, 0.3, math.nan])  # few levels: ties everywhere
    values = [[(data.draw(level), data.draw(level)) for _ in range(N_RUNGS)] for _ in range(n)]
    pruner = make_pruner(n, keep_frac=data.draw(st.sampled_from([0.2, 0.34, 0.5, 0.8])))
    order = data.draw(st.permutations(in_order(n)))

    one, _ = play(pruner, values, order=in_order(n), slots=n, seed=0)
    other, stopped = play(
        pruner, values, order=order, slots=data.draw(st.integers(1, n)), seed=data.draw(st.integers(0, 99))
    )

    assert pruner.survivors(one) == pruner.survivors(other)
    assert stopped.isdisjoint(pruner.survivors(one))


def test_the_survivors_at_one_rung_are_the_best_fraction():
    loss = {"loss": RankedSignal(direction="minimize")}
    pruner = make_pruner(6, keep_frac=0.5, signals=loss)
    records = {
        n: TrialRecord(number=n, state=TrialState.RUNNING, params={}, point_id=str(n)) for n in range(6)
    }
    for n, record in records.items():
        record.rungs[0] = RungRecord(rung=0, mark=100, step=1, samples=100, signals={"loss": float(n)})

    assert pruner.survivors(records) == [0, 1, 2]


def test_nobody_is_stopped_while_too_few_peers_are_known_to_be_better():
    loss = {"loss": RankedSignal(direction="minimize")}
    pruner = make_pruner(6, keep_frac=0.5, signals=loss)
    records = {
        n: TrialRecord(number=n, state=TrialState.WAITING, params={}, point_id=str(n)) for n in range(6)
    }
    for n, value in ((0, 0.3), (1, 0.1), (2, 0.2)):
        records[n].state = TrialState.RUNNING
        records[n].rungs[0] = RungRecord(rung=0, mark=100, step=1, samples=100, signals={"loss": value})

    assert not pruner.judge([0], 0, records)[0].stop
    records[3].state = TrialState.RUNNING
    records[3].rungs[0] = RungRecord(rung=0, mark=100, step=1, samples=100, signals={"loss": 0.0})
    (decision,) = pruner.judge_again(records)
    assert decision.trial == 0
    assert decision.reason == (
        "loss 0.3 (low is good): at rung 0 surely 3 are better of the at most 6 that enter, of which the best 3 go on"
    )


@pytest.mark.parametrize("mode", ["certain", "probe"])
def test_the_reason_tells_who_is_surely_kept_from_who_is_not_sure_yet_to_be_stopped(mode):
    loss = {"loss": RankedSignal(direction="minimize")}
    pruner = EarlyDynamicsPruner(signals=loss, keep_frac=0.5, mode=mode, n_points=4)
    records = {
        n: TrialRecord(number=n, state=TrialState.RUNNING, params={}, point_id=str(n)) for n in range(4)
    }
    said = []
    for n, value in enumerate((0.3, 0.2, 0.1, 0.4)):
        records[n].rungs[0] = RungRecord(rung=0, mark=100, step=1, samples=100, signals={"loss": value})
        said.append(pruner.judge([n], 0, records)[0].reason.partition(": at rung 0 ")[2])

    assert said == [
        "not sure yet to be outside the kept",
        "not sure yet to be outside the kept",
        "surely among the kept",
        "surely 3 are better of the at most 4 that enter, of which the best 2 go on",
    ]
    decision = pruner.judge([1], 0, records)[0]
    assert decision.reason.endswith("at rung 0 surely among the kept")
    assert decision.details["mode"] == mode


def test_in_lockstep_exactly_the_survivors_complete():
    n, values = 12, drawn_values(12, seed=5)
    pruner = make_pruner(n)
    records = {
        i: TrialRecord(number=i, state=TrialState.RUNNING, params={}, point_id=str(i)) for i in range(n)
    }
    for rung in range(N_RUNGS):
        for i, record in records.items():
            if record.state is TrialState.RUNNING:
                record.rungs[rung] = RungRecord(
                    rung=rung,
                    mark=100,
                    step=1,
                    samples=100,
                    signals=dict(zip(TWO, values[i][rung], strict=True)),
                )
        for decision in pruner.judge_again(records):
            records[decision.trial].state = TrialState.PRUNED

    assert [i for i in records if records[i].state is TrialState.RUNNING] == pruner.survivors(records)


def test_plain_optuna_is_told_to_say_how_many_points_there_are():
    pruner = EarlyDynamicsPruner(mode="certain")
    study = optuna.create_study(pruner=pruner)
    trial = study.ask()
    report_rung(trial, rung=0, mark=100, step=1, samples=100, signals={"loss": 1.0, "grad_norm": 1.0})

    with pytest.raises(ValueError, match=r"must know how many points the study has\. Pass `n_points`"):
        trial.should_prune()


def moving_records(n, seed):
    """Yield the records of a sweep after every change, with the trial that changed; nobody is stopped in it."""
    draw = random.Random(seed)
    records = LoggedRecords({
        number: TrialRecord(number=number, state=TrialState.RUNNING, params={}, point_id=str(number))
        for number in range(n)
    })  # fmt: skip
    still_open = list(records)
    while still_open:
        record = records[draw.choice(still_open)]
        rung = len(record.rungs)
        if rung < 3 and draw.random() < 0.95:
            signals = {"loss": draw.random(), "score": draw.choice([0.1, math.nan, draw.random()])}
            record.rungs[rung] = RungRecord(rung=rung, mark=rung, step=rung, samples=rung, signals=signals)
        else:
            record.state = TrialState.COMPLETE if rung == 3 else TrialState.PRUNED
            still_open.remove(record.number)
        records.note(record.number)
        yield records


@pytest.mark.parametrize("seed", range(8))
def test_a_rule_that_reads_on_is_as_sure_as_one_that_reads_everything(seed):
    n = 12 + 3 * seed
    used, n_sure = make_pruner(n), 0
    for records in moving_records(n, seed):
        kept, anew = used.survivors(records), make_pruner(n).survivors(dict(records))
        assert kept == anew
        n_sure += n - len(kept)
    assert n_sure > n


def test_in_a_large_study_who_is_sure_is_looked_for_less_often_and_the_survivors_are_the_same(monkeypatch):
    n, rare = 40, make_pruner(40)
    monkeypatch.setattr(level, "_PAIRS_A_REPORT", n)  # every 40th change
    for records in moving_records(n, seed=1):
        late = rare.survivors(records)
    monkeypatch.undo()

    assert late == make_pruner(n).survivors(records)
    assert 0 < len(late) < n


def cloned_records(from_rung):
    """Return records of eight trials; the last one is a clone that begins after a rung of trial 0."""
    records = LoggedRecords({
        n: TrialRecord(number=n, state=TrialState.RUNNING, params={}, point_id=str(n)) for n in range(8)
    })  # fmt: skip
    records[7].origin = Origin(by="user", cloned_from=0, warm_start=True, from_step=from_rung + 1)
    return records


def play_in_order(pruner, values, order, *, from_rung):
    """Let trials report in an order, each trial's rungs one by one; nobody is stopped."""
    records = cloned_records(from_rung)
    passed = dict.fromkeys(records, 0) | {7: from_rung + 1}
    for number in order:
        record, rung = records[number], passed[number]
        if rung < 3:
            record.rungs[rung] = RungRecord(
                rung=rung, mark=10 * rung, step=rung + 1, samples=10, signals={"score": values[number][rung]}
            )
        else:
            record.state = TrialState.COMPLETE
        passed[number] += 1
        records.note(number)
        pruner.judge_again(records)
    return records


@pytest.mark.parametrize("from_rung", [0, 1])
def test_a_clone_counts_at_no_rung_that_it_began_past(from_rung):
    draw, found = random.Random(from_rung), set()
    values = [[0.1 * n + 0.01 * rung for rung in range(3)] for n in range(7)] + [[9.0] * 3]
    signals = {"score": RankedSignal(direction="maximize")}
    for _ in range(60):
        # The one that it comes from has reported before it begins.
        rest = [n for n in range(1, 7) for _ in range(4)] + [0] * (3 - from_rung) + [7] * (3 - from_rung)
        draw.shuffle(rest)
        pruner = make_pruner(7, keep_frac=0.5, signals=signals)
        records = play_in_order(pruner, values, [0] * (from_rung + 1) + rest, from_rung=from_rung)
        found.add(tuple(pruner.survivors(records)))
        assert make_pruner(7, keep_frac=0.5, signals=signals).survivors(dict(records)) == list(max(found))

    # Of the 7 at the first rung 4 go on; then 3 of 5 and 2 of 3 with the clone, or 2 of 4 without and 2 of 3 with it.
    assert found == {(6, 7)}
