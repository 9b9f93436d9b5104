"""Whatever happens to its trials, a sweep under learned pruning never stands still while points are left."""

import math
import random

import pytest
from sweeps import make_config, make_orchestrator, make_study, reopened

from sweeper.plan import plan_point
from sweeper.records import Origin, Outcome, OutcomeKind, Report, StepRow

LEARNED = {"name": "early_dynamics", "directions": "learned", "n_calibration": 4}
OPTIONS = [{"set_aside": True}, {"set_aside": True, "audit_frac": 0.3}, {"skip_waiting": True}, {}]
N_STEPS = 10  # of 10 samples each


def sweep(directory, dice):
    """Return a study of a grid, or of points that are drawn."""
    pruner = LEARNED | {"risk": dice.choice([0.05, 0.5])} | dice.choice(OPTIONS)
    space = {"grid": [10 ** (-5 + index / 10) for index in range(30)]}
    sampler = {"name": "grid"}
    if dice.random() < 0.4:
        space = {"log_uniform": [1e-5, 1e-2]}
        sampler = {"name": dice.choice(["random", "tpe"]), "n_trials": 24}
    config = make_config(
        search_space={"learning_rate": space}, sampler=sampler, pruner=pruner, rungs={"samples": [20, 50]},
        failures={"retries": 1, "max_consecutive": 100},
        trial={"budget": {"samples": 10 * N_STEPS}, "settings": {"effective_batch_size": 10}},
    )  # fmt: skip
    return make_study(directory, config)


class Play:
    """Trains by saying so: windows of a few steps, in any order, with what may happen to a trial."""

    def __init__(self, study, dice):
        self.study, self.dice = study, dice
        self.slots = dice.choice([1, 2, 4])
        self._begin()

    def _begin(self):
        self.orchestrator, self.steps = make_orchestrator(self.study), {}

    def add(self):
        """Add a point, or a clone of a trial with the weights of that one, as if it had any."""
        records, dice = self.orchestrator.records, self.dice
        warm = bool(records) and dice.random() < 0.5
        source = {"cloned_from": dice.choice(list(records)), "warm_start": True, "from_step": 2}
        origin = Origin(by="me", **(source if warm else {}))
        point = plan_point(self.study.config, {"learning_rate": 10 ** dice.uniform(-5, -2)})
        self.orchestrator._queue.add(point, origin)

    def start(self):
        """Fill the slots as an executor does, and check that one is filled at least."""
        orchestrator = self.orchestrator
        while orchestrator.n_running < self.slots and (spec := orchestrator.next_trial()) is not None:
            rows = orchestrator._state.running[spec.number].rows
            self.steps[spec.number] = rows[-1].step if rows else 0
        self.steps = {n: step for n, step in self.steps.items() if n in orchestrator._state.running}
        assert self.steps or orchestrator.is_done

    def report(self):
        dice, orchestrator = self.dice, self.orchestrator
        number = dice.choice(list(self.steps))
        record, step = orchestrator.records[number], self.steps[number]
        chance = dice.random()
        if chance < 0.04:
            orchestrator.on_end(number, Outcome(kind=OutcomeKind.FAILED, error="made to fail"))
        elif chance < 0.07:
            orchestrator.on_lost(number, "its node died")
        else:
            last = min(N_STEPS, step + dice.randint(1, 4))
            goodness = -((math.log10(record.params["learning_rate"]) + 3.5) ** 2) + 0.01 * dice.gauss(0, 1)
            loss = math.nan if chance < 0.09 else 3.0 - goodness / 10
            rows = tuple(StepRow(n, 10 * n, 0, loss, 1.0, 1e-3) for n in range(step + 1, last + 1))
            report = Report(rows=rows, metrics={"score": goodness}, train_s=1.0)
            stops = [one.trial for one in orchestrator.on_report(number, report)] if last < N_STEPS else []
            self.steps[number] = last
            if last == N_STEPS:
                stops = [
                    one.trial
                    for one in orchestrator.on_end(number, Outcome(kind=OutcomeKind.DONE, report=report))
                ]
            for other in stops:
                orchestrator.on_end(other, Outcome(kind=OutcomeKind.STOPPED))

    def resume(self):
        self.study = reopened(self.study)
        self._begin()


@pytest.mark.parametrize("seed", range(10))
def test_a_learned_sweep_trains_until_nothing_is_left(seed, tmp_path):
    dice = random.Random(seed)
    play = Play(sweep(tmp_path / "study", dice), dice)
    for _ in range(2000):
        play.start()
        if play.orchestrator.is_done:
            break
        play.report()
        chance = dice.random()
        if chance < 0.01:
            play.resume()
        elif chance < 0.03:
            play.add()

    assert all(record.state.is_finished for record in play.orchestrator.records.values())
