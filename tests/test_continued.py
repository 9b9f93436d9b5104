"""A trial that trains another one on takes no part in the others' comparison, and is started whatever they show."""

import copy

import pytest
from learning_sweeps import complete, honest, show, waiting_records
from sweeps import make_config, make_study, reopened
from trial_functions import steady

from sweeper.executors.in_process import InProcessExecutor
from sweeper.learning import LearnedOptions
from sweeper.orchestrator import Orchestrator
from sweeper.plan import plan_longer, plan_sweep
from sweeper.pruners import EarlyDynamicsPruner, RankedSignal
from sweeper.pruners.judge import divergence_rules
from sweeper.records import Decision, LoggedRecords, Origin, TrialRecord, TrialState

SCORE = {"score": RankedSignal(direction="maximize")}
PRUNERS = {
    "learned": {"learned": LearnedOptions(audit_frac=0.0), "metric": "score", "direction": "maximize"},
    "set aside": {
        "learned": LearnedOptions(audit_frac=0.0, set_aside=True), "metric": "score", "direction": "maximize"
    },
    "eager": {"signals": SCORE},
    "certain": {"signals": SCORE, "mode": "certain"},
    "probe": {"signals": SCORE, "mode": "probe"},
}  # fmt: skip


def half_trained():
    """Return the records of a grid in which every second trial has ended and the others stand at a rung."""
    final, signals = honest(0)
    records = LoggedRecords(waiting_records())
    for number, record in records.items():
        for rung in range(5 if number % 2 else 3):
            show(record, rung, signals(number, rung))
        record.state = TrialState.RUNNING
        if number % 2:
            complete(record, final[number])
            record.ended = f"{number:03d}"
    return records


def continued(number, state):
    return TrialRecord(
        number=number, state=state, params={"effective_batch_size": 16, "learning_rate": 1e-3}, point_id="longer",
        budget_samples=2000, value=5.0 if state is TrialState.COMPLETE else None, ended="100",
        origin=Origin(by="user", continues=1, from_step=5, from_samples=1000),
    )  # fmt: skip


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.WAITING, TrialState.RUNNING])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_continued_trial_changes_no_decision_on_others(pruner, state):
    plain = half_trained()
    more = LoggedRecords({**copy.deepcopy(plain), len(plain): continued(len(plain), state)})
    rule, other = EarlyDynamicsPruner(**PRUNERS[pruner]), EarlyDynamicsPruner(**PRUNERS[pruner])

    for number in (0, 6, 14, 22):
        assert other.judge([number], 2, more) == rule.judge([number], 2, plain)
    assert other.judge_again(more) == rule.judge_again(plain)
    resting = [n for n, record in plain.items() if not record.state.is_finished]
    assert other.next_of(resting, more) == rule.next_of(resting, plain)
    if pruner in ("certain", "probe"):
        assert other.survivors(more) == rule.survivors(plain)


class Holding:
    """Would start nobody."""

    def judge(self, numbers, rung, records):
        return [Decision(trial=numbers[0], stop=False, rule="holding", reason="", rung=rung)]

    def judge_again(self, records):
        return []

    def next_of(self, waiting, records):
        assert not any(records[number].is_continued for number in waiting)


def test_a_continued_trial_is_started_though_the_judge_lets_the_others_wait(tmp_path):
    config = make_config(rungs={"samples": [20]})
    study = make_study(tmp_path / "study", config)
    longer = plan_longer(config, {"learning_rate": 1e-3}, samples=200)
    number = study.add_trial(longer, Origin(by="user", continues=2))

    def driver():
        return Orchestrator(
            study=reopened(study), plan=plan_sweep(config), judge=Holding(), rules=divergence_rules(config)
        )

    orchestrator = driver()

    assert orchestrator.next_trial().number == number
    assert orchestrator.next_trial() is None
    InProcessExecutor(slots=1, function=steady).run(driver())
    assert all(record.state is TrialState.COMPLETE for record in reopened(study).records().values())
