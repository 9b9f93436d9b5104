"""What is left of the checkpoints of a sweep: by the sweep file's policy, over all of its trials."""

import pytest
import trial_functions
from sweeps import RATES, make_config, make_orchestrator, make_study, reopened

from sweeper.checkpoint import DirectoryCheckpoints, RemoteCheckpoints
from sweeper.events import EventKind
from sweeper.executors.in_process import InProcessExecutor
from sweeper.orchestrator import Orchestrator
from sweeper.plan import plan_sweep
from sweeper.pruners.judge import divergence_rules
from sweeper.records import Decision, Outcome, OutcomeKind, TrialState
from sweeper.study.control_records import ControlRequest, Verb


def run(directory, *listeners, slots=2, function=trial_functions.steady, **changes):
    study = make_study(directory, make_config(**changes))
    InProcessExecutor(slots=slots, function=function).run(make_orchestrator(study, *listeners))
    return reopened(study)


def saved(study):
    return {
        number: sorted(path.name for path in study.directory.glob(f"trials/{number}/checkpoints/step-*"))
        for number in range(len(RATES))
    }


def test_without_a_policy_every_complete_trial_keeps_its_newest_two(tmp_path):
    study = run(tmp_path, trial={"checkpoint": {"every_samples": 20}})

    assert saved(study) == {number: ["step-00000006", "step-00000008"] for number in range(4)}


def test_only_the_best_keep_theirs(tmp_path):
    study = run(tmp_path, trial={"checkpoint": {"every_samples": 20, "keep_best": 1}})

    best = max(study.records().values(), key=lambda record: record.value).number
    assert {number for number, names in saved(study).items() if names} == {best}


def test_a_budget_of_bytes_holds_over_the_whole_sweep(tmp_path):
    bound = 100  # a checkpoint has 18 bytes
    study = run(tmp_path, trial={"checkpoint": {"every_samples": 20, "max_gb": bound / 1e9}})

    sizes = [path.stat().st_size for path in study.directory.glob("trials/*/checkpoints/*/state.txt")]
    best = max(study.records().values(), key=lambda record: record.value).number
    assert 0 < sum(sizes) <= bound
    assert len(saved(study)[best]) == 2


class AsideAtFirst:
    """A judge that sets each trial aside at its first rung."""

    def judge(self, numbers, rung, records):
        return [
            Decision(trial=numbers[0], stop=False, rule="made up", reason="so", rung=rung, aside=rung == 0)
        ]


class CountsAside:
    """Notes how many trials waited at most, and what all checkpoints took."""

    def __init__(self, directory):
        self._directory = directory
        self._aside = set()
        self.n_most = self.n_most_bytes = 0

    def on_event(self, event):
        if event.kind is EventKind.NOTE and "set aside at" in event.message:
            self._aside.add(event.record.number)
        elif event.kind is EventKind.TRIAL_STARTED:
            self._aside.discard(event.record.number)
        self.n_most = max(self.n_most, len(self._aside))
        sizes = [path.stat().st_size for path in self._directory.glob("trials/*/checkpoints/*/state.txt")]
        self.n_most_bytes = max(self.n_most_bytes, sum(sizes))


@pytest.mark.parametrize(
    ("slots", "fit", "n_aside"), [(1, None, 8), (1, 4, 3), (2, 4, 2), (2, 1, 1), (1, 9, 8)]
)
def test_nobody_is_set_aside_once_the_bound_is_reached(tmp_path, slots, fit, n_aside):
    checkpoint = {"at": [90]} if fit is None else {"at": [90], "max_gb": fit * 18 / 1e9}  # 18 bytes each
    rates = [1e-5 * (number + 1) for number in range(8)]
    config = make_config(trial={"checkpoint": checkpoint}, search_space={"learning_rate": {"grid": rates}})
    study, counts = make_study(tmp_path, config), CountsAside(tmp_path)
    orchestrator = Orchestrator(
        study=study, plan=plan_sweep(config), judge=AsideAtFirst(), rules=divergence_rules(config),
        listeners=[counts],
    )  # fmt: skip
    InProcessExecutor(slots=slots, function=trial_functions.steady).run(orchestrator)

    records = reopened(study).records()
    assert {record.state for record in records.values()} == {TrialState.COMPLETE}
    assert counts.n_most == n_aside
    gone_on = [r.decisions[0]["reason"] for r in records.values() if not r.decisions[0]["aside"]]
    assert len(gone_on) == sum(len(r.history) == 1 for r in records.values())
    assert all(why.startswith("not set aside, since `trial.checkpoint.max_gb` leaves") for why in gone_on)
    if fit is not None:
        assert counts.n_most_bytes <= 18 * (max(fit, slots + 1) + slots)  # what is being written comes on top


class Looks:
    """Notes what a trial that was stopped has left at that moment."""

    def __init__(self, directory):
        self._directory = directory
        self.left = {}

    def on_event(self, event):
        if event.kind is EventKind.TRIAL_ENDED and event.record.state is TrialState.PRUNED:
            place = self._directory / f"trials/{event.record.number}/checkpoints"
            self.left[event.record.number] = list(place.glob("step-*")) if place.exists() else []


@pytest.mark.parametrize("slots", [1, 2])
def test_a_pruned_trials_checkpoints_go_at_once(tmp_path, slots):
    looks = Looks(tmp_path)
    study = run(
        tmp_path, looks, slots=slots,
        trial={"checkpoint": {"every_samples": 20}},
        search_space={"learning_rate": {"grid": RATES[::-1]}},
        pruner={
            "name": "early_dynamics", "signals": {"score": {"direction": "maximize"}}, "keep_frac": 0.5,
            "min_peers": 2, "window_steps": 1,
        },
    )  # fmt: skip

    pruned = [number for number, record in study.records().items() if record.state is TrialState.PRUNED]
    assert pruned
    assert looks.left == {number: [] for number in pruned}
    assert all(not names for number, names in saved(study).items() if number in pruned)


def kept_by(study, number, step):
    source = study.directory / "source"
    source.mkdir()
    (source / "state.txt").write_text("x" * 18)
    DirectoryCheckpoints(study.directory / f"trials/{number}/checkpoints").save(
        source, step=step, samples=step * 10
    )


def test_what_a_killed_driver_left_of_a_stopped_trial_is_removed_by_the_next_one(tmp_path):
    study = run(
        tmp_path, function=trial_functions.diverges_at_high_rate, trial={"checkpoint": {"every_samples": 20}}
    )
    pruned = [number for number, record in study.records().items() if record.state is TrialState.PRUNED]
    before = saved(study)
    kept_by(study, pruned[0], 3)
    assert saved(study) != before

    make_orchestrator(study)
    assert saved(study) == before
    assert any(before.values())


def test_in_an_object_store_only_the_trials_that_have_anything_are_looked_at(tmp_path, monkeypatch):
    place = "memory://of-stopped"
    study = run(
        tmp_path, function=trial_functions.diverges_at_high_rate,
        trial={"checkpoint": {"every_samples": 20, "url": place}},
    )  # fmt: skip
    pruned = [number for number, record in study.records().items() if record.state is TrialState.PRUNED]
    left = RemoteCheckpoints(f"{place}/{study.name}/trials/{pruned[0]}/checkpoints")
    source = tmp_path / "source"
    source.mkdir()
    (source / "state.txt").write_text("x")
    left.save(source, step=3, samples=30)
    cleared = []
    clear = RemoteCheckpoints.clear
    monkeypatch.setattr(RemoteCheckpoints, "clear", lambda self: (cleared.append(self._url), clear(self)))

    make_orchestrator(study)

    assert cleared == [left._url]
    assert left.saved() == []


def test_a_trial_between_two_attempts_is_pruned_once_its_checkpoints_are_gone(tmp_path, monkeypatch):
    study = make_study(tmp_path, make_config())
    orchestrator = make_orchestrator(study)
    orchestrator.next_trial()
    kept_by(study, 0, 1)
    orchestrator.on_end(0, Outcome(kind=OutcomeKind.FAILED, error="boom"))
    reopened(study).control_box.send(
        ControlRequest.new(Verb.STOP, {"trial": 0}, at="2026-11-22T12:00:00.000+00:00")
    )
    clear, seen = DirectoryCheckpoints.clear, []

    def looks(self):
        record = reopened(study).records()[0]
        seen.append((record.state, record.decisions[-1]["stop"]))
        clear(self)

    monkeypatch.setattr(DirectoryCheckpoints, "clear", looks)
    make_orchestrator(reopened(study))

    assert seen == [(TrialState.RUNNING, True)]
    assert reopened(study).records()[0].state is TrialState.PRUNED
    assert saved(study)[0] == []
