"""Points that differ only in budget: the longest is trained, the others are read off it."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import training_fixtures
from sweep_files import config_of
from sweeps import Recorder, make_orchestrator, make_study, reopened

from sweeper import api
from sweeper.context import TrialContext
from sweeper.events import EventKind
from sweeper.executors.in_process import InProcessExecutor
from sweeper.orchestrator.sharing import Sharing
from sweeper.plan import Plan, plan_sweep
from sweeper.records import Outcome, OutcomeKind, Report, TrialRecord, TrialState

tiny = training_fixtures.tiny

SWEEP = """\
study: lengths
metric: dev/loss
direction: minimize
trial:
  model: org/small
  train_data: org/train
  eval_data: {dev: org/dev}
  compare: unequal
  checkpoint: {every_samples: 64}
  settings: {effective_batch_size: 16}
search_space:
  learning_rate: {grid: [1e-4, 1e-3]}
  samples: {grid: [64, 128, 256]}
rungs: {samples: [32]}
pruner: nop
"""


def plan_of(*overrides: str) -> Plan:
    return plan_sweep(config_of(SWEEP, *overrides))


def trains(context: TrialContext) -> dict[str, float]:
    """Lower the loss with every step, saving and going on as a real trial does; the longest of 1e-3 may fail."""
    loaded = context.checkpoint.load()
    start = 0 if loaded is None else loaded.step
    if loaded is not None:
        context.start_from(step=loaded.step, samples=loaded.samples)
    for step in range(start + 1, (context.spec.total_steps or 0) + 1):
        samples, loss = step * 16, 1.0 / step
        metrics = {"dev/loss": loss} if context.is_evaluation_due(samples) else {}
        checkpoint = None
        if context.is_checkpoint_due(samples):
            folder = Path(context.spec.trial_dir) / "scratch"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "state.txt").write_text(str(step))
            checkpoint = context.checkpoint.save(folder, step=step, samples=samples)
        context.report_rows(
            [training_fixtures.StepRow(step, samples, 0, loss, 1.0, 1e-3)], metrics, checkpoint=checkpoint
        )
        if context.budget_samples == 256 and context.params["learning_rate"] == 1e-3 and step == 3:
            raise RuntimeError("the longest fails")
    return {"dev/loss": 1.0 / (context.spec.total_steps or 1)}


def run(directory: Path, *overrides: str, slots: int = 2) -> tuple[Any, Recorder]:
    recorder = Recorder()
    study = make_study(directory, config_of(SWEEP, *overrides))
    InProcessExecutor(slots=slots, function=trains).run(make_orchestrator(study, recorder))
    return reopened(study), recorder


def test_the_plan_says_which_points_are_read_off_and_counts_them_once() -> None:
    plan = plan_of()
    budgets = {point.point_id: point.budget_samples for point in plan.points}
    assert [[budgets[point_id] for point_id in group] for group in plan.same_training] == [[256, 128, 64]] * 2
    assert plan.total_samples == 2 * 256
    assert any("4 points differ from a longer one in nothing but the budget" in note for note in plan.notes)


@pytest.mark.parametrize(
    "override",
    [
        "trial.settings.lr_scheduler_type=cosine",
        "trial.settings.warmup_frac=0.1",
        "metric=loss",
    ],
)
def test_what_is_no_beginning_of_a_longer_one_is_trained_itself(override: str) -> None:
    assert plan_of(override).same_training == ()


def test_a_warmup_in_samples_is_the_same_in_a_longer_run() -> None:
    assert len(plan_of("trial.settings.warmup_samples=32").same_training) == 2


@pytest.mark.parametrize("slots", [1, 3])
def test_a_shorter_trial_is_read_off_the_longer_one(tmp_path: Path, slots: int) -> None:
    study, recorder = run(tmp_path, "search_space.learning_rate.grid=[1e-4]", slots=slots)

    records = study.records()
    assert [record.state for record in records.values()] == [TrialState.COMPLETE] * 3
    assert [record.value for record in records.values()] == [1 / 4, 1 / 8, 1 / 16]
    assert [record.read_off for record in records.values()] == [2, 2, None]
    assert [record.own_samples for record in records.values()] == [0, 0, 256]
    assert [[row.samples for row in study.curves.rows(n)][-1] for n in records] == [64, 128, 256]
    assert records[0].rungs == {0: records[2].rungs[0]}
    assert records[0].reason == "read off trial 2, of which it is the beginning"
    started = [
        event.record.number
        for event in recorder.events
        if event.kind is EventKind.TRIAL_STARTED and event.record
    ]
    assert started == [2]


def test_the_beginning_of_a_longer_trial_is_held_until_that_one_comes_by_or_ends(tmp_path: Path) -> None:
    held: list[tuple[bool, bool]] = []

    class Watches(Recorder):
        def on_event(self, event: Any) -> None:
            if event.kind in (EventKind.TRIAL_STARTED, EventKind.TRIAL_ENDED):
                held.append((orchestrator.records[0].is_held, orchestrator.records[1].is_held))

    config = config_of(SWEEP, "search_space.learning_rate.grid=[1e-3]", "failures.retries=0")
    orchestrator = make_orchestrator(make_study(tmp_path, config), Watches())
    InProcessExecutor(slots=1, function=trains).run(orchestrator)

    # The longest begins, and fails at 48 samples; the second begins, passes the first, which ends, and ends itself.
    assert held[0] == (True, True)
    assert held[2] == (True, False)
    assert held[-1] == (False, False)


def test_what_a_failed_longer_trial_did_not_reach_is_trained(tmp_path: Path) -> None:
    study, _ = run(tmp_path, "search_space.learning_rate.grid=[1e-3]", "failures.retries=0")

    records = study.records()
    assert [record.state.value for record in records.values()] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert [record.read_off for record in records.values()] == [1, None, None]


@pytest.mark.parametrize("path", ["org/train", "/moved/train"])
def test_an_interrupted_sweep_goes_on_and_reads_off_as_if_nothing_had_been(path: str, tmp_path: Path) -> None:
    config = config_of(SWEEP, "search_space.learning_rate.grid=[1e-4]")
    study = make_study(tmp_path, config)
    orchestrator = make_orchestrator(study)

    class Interrupts:
        def on_event(self, event: Any) -> None:
            if event.kind is EventKind.TRIAL_ENDED and event.record.number == 0:
                orchestrator.interrupt()

    orchestrator.listen(Interrupts())
    InProcessExecutor(slots=1, function=trains).run(orchestrator)
    before = {number: record.state.value for number, record in reopened(study).records().items()}
    again = reopened(study)
    again.update_config(config_of(SWEEP.replace("org/train", path), "search_space.learning_rate.grid=[1e-4]"))
    InProcessExecutor(slots=1, function=trains).run(make_orchestrator(again))

    assert before == {0: "COMPLETE", 1: "WAITING", 2: "RUNNING"}
    assert [record.read_off for record in reopened(again).records().values()] == [2, 2, None]


def test_what_was_cut_off_while_it_was_read_off_is_trained_and_counts_as_that(tmp_path: Path) -> None:
    config = config_of(SWEEP, "search_space.learning_rate.grid=[1e-4]")
    study = make_study(tmp_path, config)
    study.claim(0)
    study.record_read_off(0, 2, at="2026-11-22T12:00:00.000+00:00")  # and no more: its driver has died

    again = reopened(study)
    InProcessExecutor(slots=1, function=trains).run(make_orchestrator(again))

    records = reopened(study).records()
    assert [record.state for record in records.values()] == [TrialState.COMPLETE] * 3
    assert (records[0].read_off, records[0].own_samples) == (None, 64)


@pytest.mark.parametrize("seed", range(6))
def test_who_is_held_is_kept_up_from_what_changes_as_a_look_at_all_trials_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """However trials start, report, fail and end: one that waits is held while a longer one may still come by."""
    n_held: list[int] = []

    def looked_at(sharing: Sharing, reported: int | None = None) -> None:
        keeps_up(sharing, reported)
        records = orchestrator.records.values()
        held = {
            record.number
            for record in records
            if record.state is TrialState.WAITING
            and any(_may_pass(longer, record) for longer in records if longer.params != record.params)
        }
        assert {record.number for record in records if record.is_held} == held
        n_held.append(len(held))

    keeps_up = Sharing.mark_held
    monkeypatch.setattr(Sharing, "mark_held", looked_at)
    choose = random.Random(seed)
    study = make_study(tmp_path, config_of(SWEEP, "failures.retries=1", "failures.max_consecutive=99"))
    orchestrator = make_orchestrator(study)
    running: dict[int, int] = {}  # samples so far
    while orchestrator.n_left or running:
        if len(running) < 3 and (spec := orchestrator.next_trial()) is not None:
            running[spec.number] = orchestrator.records[spec.number].samples
        number = choose.choice(sorted(running))
        running[number] += 32
        row = training_fixtures.StepRow(running[number] // 16, running[number], 0, 1.0, 1.0, 1e-3)
        report = Report(rows=(row,), metrics={"dev/loss": 1.0})
        if choose.random() < 0.15:
            orchestrator.on_end(
                number, Outcome(kind=OutcomeKind.FAILED, report=report, error="ValueError: no")
            )
        elif running[number] == orchestrator.records[number].budget_samples:
            orchestrator.on_end(number, Outcome(kind=OutcomeKind.DONE, report=report))
        else:
            orchestrator.on_report(number, report)
            continue
        del running[number]

    assert max(n_held) == 4
    assert n_held[-1] == 0
    assert all(record.state.is_finished for record in orchestrator.records.values())


def _may_pass(longer: TrialRecord, record: TrialRecord) -> bool:
    return (
        longer.params["learning_rate"] == record.params["learning_rate"]
        and (longer.budget_samples or 0) > (record.budget_samples or 0) > longer.samples
        and not longer.state.is_finished
    )


@pytest.mark.train
def test_what_is_read_off_is_what_training_it_gives(tiny: training_fixtures.Tiny, tmp_path: Path) -> None:
    def sweep(name: str, *overrides: str) -> dict[int | None, Any]:
        fixed = (
            f"study={name}", f"dir={tmp_path / name}", f"trial.model={tiny.model}", f"trial.train_data={tiny.train}",
            f"trial.eval_data.dev={tiny.dev}", "trial.checkpoint={save_model: true}", "resources.slots=1",
            "trial.evaluation.generate=false", "search_space.learning_rate.grid=[1e-3]",
            "trial.settings.max_length=64",
        )  # fmt: skip
        config = config_of(SWEEP, *fixed, *overrides)
        view = api.launch(config, options=api.LaunchOptions(executor="in-process"))
        return {record.budget_samples: (record, view.curve(record.number)) for record in view.records}

    shared, alone = sweep("shared"), sweep("alone", "search_space.samples.grid=[128]")

    read_off, curve = shared[128]
    trained, its_curve = alone[128]
    assert (read_off.read_off, trained.read_off) == (2, None)
    assert curve.equals(its_curve)
    assert read_off.metrics == trained.metrics
    models = [tmp_path / "shared/trials/1/model", tmp_path / "alone/trials/0/model"]
    weights = [(model / "model.safetensors").read_bytes() for model in models]
    assert weights[0] == weights[1]
    items = [
        json.loads(next(tmp_path.glob(f"{place}/items/*.json")).read_text())
        for place in ("shared/trials/1", "alone/trials/0")
    ]
    assert items[0] == items[1]
