"""Points that a sampler draws: repeats, points that cannot be trained, samplers that know no new one, who is judged."""

import contextlib
import io
import math
from collections import Counter

import optuna
import pytest
from rich.console import Console
from sweeps import Recorder, make_config, make_orchestrator, make_study, reopened

from sweeper.api import LaunchOptions, launch, resume
from sweeper.driving import is_anything_left
from sweeper.errors import ConfigError, NothingToDoError
from sweeper.events import EventKind
from sweeper.executors.in_process import InProcessExecutor
from sweeper.files import write_text
from sweeper.plan import plan_point, plan_sweep
from sweeper.plan_text import format_plan
from sweeper.pruners.judge import make_judge
from sweeper.records import LoggedRecords, Origin, Outcome, OutcomeKind, Report, TrialState
from sweeper.reporting.summary import answer_sentences, savings_of, training_sentence
from sweeper.study import layout
from sweeper.study.storage import Journal
from sweeper.study.study import Study

RATES = [1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4]
LISTED = {"effective_batch_size": {"choice": [32, 128, 512]}, "learning_rate": {"choice": RATES}}  # 18 points
RANGE = {"effective_batch_size": {"choice": [32, 128, 512]}, "learning_rate": {"log_uniform": [1e-6, 3e-4]}}
PROBE = {"mode": "probe", "signals": {"score": {"direction": "maximize"}}, "keep_frac": 0.5}


def score_of(params):
    rate, batch = params["learning_rate"], params.get("effective_batch_size", 128)
    return -((math.log10(rate) + 4.5) ** 2) - (math.log2(batch) - 7) ** 2 / 10


def train(context):
    score = score_of(context.params)
    for step in range(1, 11):
        context.report(
            step=step, samples=step * context.budget_samples // 10, loss=-score / step, score=score
        )
    return {"score": score}


def config_for(n_trials, *, pruner="nop", space=LISTED, name="random", **changes):
    sampler = {"name": name, "n_trials": n_trials, **changes.pop("sampler", {})}
    trial = {"budget": {"samples": 10240}, "settings": {}, **changes.pop("trial", {})}
    return make_config(
        search_space=space, sampler=sampler, pruner=pruner, rungs={"fractions": [0.3]}, trial=trial, **changes
    )


def run(directory, config, *, slots=4, before=None):
    """Run a sweep; return study, orchestrator and how many trials ran at each report."""
    study, recorder, n_running = make_study(directory, config), Recorder(), []
    orchestrator = make_orchestrator(study, recorder)
    if before is not None:
        before(orchestrator)

    class Watcher:
        def on_event(self, event):
            if event.kind is EventKind.REPORTED:
                n_running.append(orchestrator.n_running)

    orchestrator.listen(Watcher())
    InProcessExecutor(slots=slots, function=train).run(orchestrator)
    assert orchestrator.is_done
    return study, orchestrator, n_running


def counts(records):
    """Return how many trials are in each state, by whether they were ever begun."""
    return Counter((record.state.value, bool(record.attempts)) for record in records.values())


def end_all(orchestrator):
    while (spec := orchestrator.next_trial()) is not None:
        report = Report(rows=(), metrics={"score": score_of(spec.params)})
        orchestrator.on_end(spec.number, Outcome(kind=OutcomeKind.DONE, report=report))


# -- points that cannot be trained ---------------------------------------------------------------------------


@pytest.mark.parametrize("budgets", [[10240, 300], [300, 10240]])
def test_a_budget_that_is_too_short_for_a_batch_is_refused_with_the_plan(budgets):
    space = {"samples": {"choice": budgets}, **RANGE}
    trial = {"budget": {"samples": None}, "compare": "unequal"}

    with pytest.raises(Exception, match="budget of 300 samples is less than one optimiser step"):
        plan_sweep(config_for(20, space=space, trial=trial))


def begun_before_the_rule(directory, n_trials=2):
    """A study one of whose two budgets is too short for some batches, as one may have begun before that was refused."""
    budgets = {"samples": {"choice": [10240, 300]}, **LISTED}
    trial = {"budget": {"samples": None}, "compare": "unequal"}
    config = config_for(n_trials, space=budgets, trial=trial, resources={"slots": 1, "gpus_per_trial": 0})
    study = Study.create(config, directory=directory)
    write_text(directory / layout.MARKER, f'{{"study": "{config.study}", "storage": null}}')
    study.take()
    study.add_points([])
    study.draw(lambda params: plan_point(config, params))
    study.hand_back("interrupted")
    return study


def test_a_study_that_may_draw_what_cannot_be_trained_is_resumed_and_refused_anew(tmp_path, capsys):
    config, place = begun_before_the_rule(tmp_path, n_trials=12).config, str(tmp_path)
    options = LaunchOptions(executor="in-process")

    for go_on in (
        lambda: resume(place, options=options, function=train),
        lambda: resume(place, ["sampler.n_trials=24"], options=options, function=train),
        lambda: launch(
            config,
            ["sampler.n_trials=24"],
            options=LaunchOptions(dir=place, executor="in-process"),
            function=train,
        ),
    ):
        with contextlib.suppress(NothingToDoError):
            view = go_on()

    told = capsys.readouterr().err
    assert (
        "warning: 1 of the 6 batches and lengths of training that the sampler may draw cannot be trained"
        in told
    )
    assert "the first with samples = 300, effective_batch_size = 512: The budget of 300 samples" in told
    failed = [record for record in view.records if record.state is TrialState.FAIL]
    assert failed
    assert all(record.reason.startswith("this point cannot be trained: ") for record in failed)
    with pytest.raises(ConfigError, match="budget of 300 samples is less than one optimiser step"):
        launch(
            config, options=LaunchOptions(dir=str(tmp_path / "new"), executor="in-process"), function=train
        )


def test_what_an_extension_makes_untrainable_is_refused(tmp_path):
    begun_before_the_rule(tmp_path)

    with pytest.raises(ConfigError, match="effective_batch_size"):
        resume(
            str(tmp_path),
            ["resources.gpus_per_trial=3"],
            options=LaunchOptions(executor="in-process"),
            function=train,
        )


def test_a_drawn_point_that_cannot_be_trained_fails_and_the_sweep_goes_on(tmp_path, monkeypatch):
    from sweeper.orchestrator import queue

    def refuses_512(config, params, **facts):
        if params["effective_batch_size"] == 512:
            raise ConfigError("512 does not fit. Leave it out.")
        return plan_point(config, params, **facts)

    monkeypatch.setattr(queue, "plan_point", refuses_512)
    study, orchestrator, _ = run(tmp_path, config_for(18))

    records = reopened(study).records()
    refused = [record for record in records.values() if record.state is TrialState.FAIL]
    assert refused
    assert {record.params["effective_batch_size"] for record in refused} == {512}
    assert {record.reason for record in refused} == {
        "this point cannot be trained: 512 does not fit. Leave it out."
    }
    assert counts(records)["COMPLETE", True] == counts(orchestrator.records)["COMPLETE", True] > 5
    assert all(record.is_in_vain for record in refused)


# -- repeated draws ------------------------------------------------------------------------------------------


def test_a_repeated_draw_is_neither_saved_nor_stopped(tmp_path):
    study, orchestrator, _ = run(tmp_path, config_for(36))

    view = reopened(study).view()
    n_repeats = sum(record.is_repeat for record in view.records)
    n_complete = view.count(TrialState.COMPLETE)
    assert (
        n_repeats == sum(record.is_repeat for record in orchestrator.records.values()) == 36 - n_complete > 5
    )
    savings = savings_of(view)
    assert (savings.spent, savings.full, savings.saved) == (n_complete * 10240, n_complete * 10240, 0)
    assert "(100 %); no trial was stopped early." in training_sentence(view)
    assert f"{n_complete} complete, {n_repeats} drawn again." in answer_sentences(view)[0]


@pytest.mark.parametrize("n_trials", [18, 36])
def test_a_repeated_draw_is_no_point_in_probe_mode(n_trials, tmp_path):
    study, _, _ = run(tmp_path, config_for(n_trials, pruner=PROBE))

    found = counts(study.records())
    n_points = found["COMPLETE", True] + found["PRUNED", True]
    assert found["COMPLETE", True] == math.ceil(n_points / 2)
    assert found["PRUNED", False] > 0


def test_a_sampler_that_sticks_to_one_point_does_not_end_the_sweep(tmp_path, monkeypatch):
    """As `gp` does: what was PRUNED or failed teaches it nothing."""

    class Stuck(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            return distribution.choices[0]

    monkeypatch.setattr("sweeper.study.space.make_sampler", lambda config, *, n_drawn: Stuck())
    study, orchestrator, _ = run(tmp_path, config_for(200))

    assert counts(study.records()) == {("COMPLETE", True): 18, ("PRUNED", False): 5 * 18 + 1}
    assert orchestrator.records.all_drawn


# -- a sampler that knows no new point -----------------------------------------------------------------------


def test_probe_mode_waits_for_no_more_points_than_there_are(tmp_path):
    study, _, n_running = run(tmp_path, config_for(200, pruner=PROBE))

    found = counts(study.records())
    assert (found["COMPLETE", True], found["PRUNED", True]) == (9, 9)
    assert sum(n == 1 for n in n_running) < len(n_running) / 10


def test_a_study_whose_sampler_knows_no_new_point_is_finished_until_more_are_to_be_drawn(tmp_path):
    options = LaunchOptions(dir=str(tmp_path / "s"), executor="in-process")
    view = launch(config_for(200), options=options, function=train)
    assert view.count(TrialState.COMPLETE) == 18
    place, n_records = str(tmp_path / "s"), len(view.records)

    with pytest.raises(NothingToDoError, match="is finished: nothing is left to train"):
        resume(place, options=options, function=train)
    extended = resume(place, ["sampler.n_trials=300"], options=options, function=train)

    assert extended.count(TrialState.COMPLETE) == 18
    assert len(extended.records) <= n_records + 6
    with pytest.raises(NothingToDoError, match="is finished: nothing is left to train"):
        resume(place, ["sampler.n_trials=300"], options=options, function=train)


def test_a_study_that_was_interrupted_after_its_sampler_knew_no_new_point_draws_no_more(tmp_path):
    study = make_study(tmp_path, config_for(200))
    end_all(make_orchestrator(study))

    again = reopened(study)

    assert not is_anything_left(again)
    assert again.view().n_undrawn == 0
    assert make_orchestrator(again).n_left == 0


# -- added points --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["probe", "certain"])
@pytest.mark.parametrize("seed", [1, 4, 5])
def test_added_points_are_judged_with_those_that_are_still_to_be_drawn(seed, mode, tmp_path):
    config = config_for(20, space=RANGE, pruner={**PROBE, "mode": mode}, seed=seed)

    def add(orchestrator):
        for rate in (2.8e-5, 2.9e-5, 3e-5, 3.1e-5, 3.2e-5, 3.3e-5):
            point = plan_point(config, {"effective_batch_size": 32, "learning_rate": rate})
            orchestrator._queue.add(point, Origin(by="somebody"))

    study, _, _ = run(tmp_path, config, before=add)

    records = study.records()
    survivors = make_judge(config).survivors(records)
    assert len(survivors) == 13
    assert all(records[number].state is TrialState.COMPLETE for number in survivors)


def test_learned_pruning_expects_the_points_to_be_drawn_beside_those_that_were_added(tmp_path):
    config = config_for(30, space=RANGE, pruner="early_dynamics")
    study = make_study(tmp_path, config)
    for rate in (2.8e-5, 2.9e-5):
        point = plan_point(config, {"effective_batch_size": 32, "learning_rate": rate})
        study.add_trial(point, Origin(by="somebody"))
    records = LoggedRecords(study.records())
    rule = make_judge(config)._rule

    rule.judge_again(records)
    assert rule.n_known == 32
    records.all_drawn = True
    rule.judge_again(records)
    assert rule.n_known == 2


# -- what a sampler learns from ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        Origin(by="somebody", continues=0),
        Origin(by="somebody", cloned_from=0, warm_start=True, from_step=3, from_samples=3072),
    ],
)
def test_a_sampler_does_not_learn_from_trials_that_began_with_the_weights_of_others(
    tmp_path, monkeypatch, origin
):
    study = make_study(tmp_path, config_for(2, space=RANGE))
    end_all(make_orchestrator(study))
    longer = plan_point(study.config, study.records()[0].params)
    number = study.add_trial(longer, origin)
    study.claim(number)
    study.finish(number, TrialState.COMPLETE, value=9.0)
    seen = []

    class Looks(optuna.samplers.RandomSampler):
        def sample_independent(self, study, trial, name, distribution):
            seen.append([one.number for one in study.get_trials() if one.state.is_finished()])
            return super().sample_independent(study, trial, name, distribution)

    monkeypatch.setattr("sweeper.study.space.make_sampler", lambda config, *, n_drawn: Looks())
    study.draw(lambda params: plan_point(study.config, params))

    assert seen == [[0, 1], [0, 1]]


@pytest.mark.parametrize("name", ["random", "tpe", "qmc", "cmaes"])
def test_a_draw_reads_the_trials_once(name, tmp_path, monkeypatch):
    space = {"learning_rate": {"uniform": [1e-6, 1e-3]}, "x": {"uniform": [0, 1]}}
    study = make_study(tmp_path, config_for(12, space=space, name=name))
    orchestrator, reads = make_orchestrator(study), []
    for method in (Journal.get_all_trials, Journal.get_n_trials):

        def counted(self, *given, real=method, **named):
            reads.append(1)
            return real(self, *given, **named)

        monkeypatch.setattr(Journal, method.__name__, counted)
    for _ in range(12):
        reads.clear()
        spec = orchestrator.next_trial()
        assert len(reads) == 1
        report = Report(rows=(), metrics={"score": score_of(spec.params)})
        orchestrator.on_end(spec.number, Outcome(kind=OutcomeKind.DONE, report=report))


# -- what the plan says of samplers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "is_told"), [("tpe", True), ("gp", True), ("random", False), ("qmc", False)]
)
def test_the_plan_says_that_a_sampler_learns_nothing_in_probe_mode(name, is_told):
    told = plan_sweep(config_for(9, space=RANGE, pruner=PROBE, name=name)).warnings

    assert any(f"`mode: probe` with the sampler `{name}`" in warning for warning in told) == is_told
    assert not any("with the sampler" in one for one in plan_sweep(config_for(9, name=name)).warnings)


def test_cmaes_says_once_in_the_plan_which_dimensions_it_draws_at_random(tmp_path, caplog, capfd):
    config = config_for(4, space={**RANGE, "x": {"uniform": [0, 1]}}, name="cmaes")
    assert any("`effective_batch_size` is drawn at random" in one for one in plan_sweep(config).warnings)
    study = make_study(tmp_path, config)
    optuna.logging.enable_propagation()
    try:
        end_all(make_orchestrator(study))
    finally:
        optuna.logging.disable_propagation()

    assert "independently" not in caplog.text + capfd.readouterr().err


@pytest.mark.parametrize(("n_trials", "told"), [(2, "the best one goes on, "), (8, "the best 4 go on, ")])
def test_the_plan_says_how_many_go_on_in_probe_mode(n_trials, told):
    notes = plan_sweep(config_for(n_trials, space=RANGE, pruner=PROBE)).notes

    assert any(told in note for note in notes)


FIRST = [
    {"effective_batch_size": 512, "learning_rate": 2e-6},
    {"effective_batch_size": 32, "learning_rate": 3e-5},
]


@pytest.mark.parametrize("name", ["tpe", "random", "qmc"])
def test_a_sampler_begins_with_the_listed_points_and_draws_the_rest(tmp_path, name):
    config = config_for(6, name=name, space=RANGE, points=FIRST)
    study, orchestrator, _ = run(tmp_path / "whole", config, slots=1)
    records = reopened(study).records()

    assert [records[number].params for number in (0, 1)] == FIRST
    assert [record.state for record in records.values()] == [TrialState.COMPLETE] * 6
    assert all(record.origin is None for record in records.values())
    assert len({record.point_id for record in records.values()}) == 6
    assert orchestrator.n_left == 0

    def interrupt_after_three(orchestrator):
        class Stop:
            def on_event(self, event):
                if event.kind is EventKind.TRIAL_ENDED and event.record.number == 2:
                    orchestrator.interrupt()

        orchestrator.listen(Stop())

    cut, _, _ = run(tmp_path / "cut", config, slots=1, before=interrupt_after_three)
    InProcessExecutor(slots=1, function=train).run(make_orchestrator(reopened(cut)))
    again = reopened(cut).records()
    assert [record.params for record in again.values()] == [record.params for record in records.values()]


def test_a_plan_says_with_how_many_points_a_sampler_begins_and_tpe_learns_from_them(tmp_path):
    config = config_for(40, name="tpe", space=RANGE, points=FIRST)
    text = io.StringIO()
    Console(file=text, width=100).print(format_plan(plan_sweep(config)))
    assert "40, drawn by the tpe sampler, which begins with 2 listed points" in " ".join(
        text.getvalue().split()
    )

    others = config_for(
        40, name="tpe", space=RANGE, points=[{**FIRST[0]}, {**FIRST[1], "learning_rate": 1e-6}]
    )
    options = {"n_startup_trials": 1}
    drawn = []
    for place, one in (("a", config), ("b", others)):
        one = one.model_copy(
            update={"sampler": one.sampler.model_copy(update={"n_trials": 3, "options": options})}
        )
        study, _, _ = run(tmp_path / place, one, slots=1)
        drawn.append(reopened(study).records()[2].params)
    assert drawn[0] != drawn[1]
