"""Extending a study when it is resumed: what it takes, and what it refuses."""

import shutil

import pytest
import trial_functions
from cli_fixtures import cli
from sweep_files import BASE as FILE
from sweep_files import config_of
from sweeps import BASE, make_config, make_study, merged, reopened

from sweeper.api import LaunchOptions, launch, resume
from sweeper.config import override_recorded
from sweeper.errors import ConfigError, InterruptedSweepError, NothingToDoError, StudyMismatchError
from sweeper.events import EventKind
from sweeper.extend import plan_extension, with_kept_rungs
from sweeper.plan import plan_sweep
from sweeper.records import TrialState
from sweeper.study.changes import check_same
from sweeper.study.study import Study

MORE = "search_space.learning_rate.grid=[1e-5, 1e-4, 1e-3, 1e-2, 3e-3]"


def finished(directory, **changes):
    """A study of four trials that are complete, each with checkpoints at 40 and 80 of 100 samples."""
    options = LaunchOptions(dir=str(directory), executor="in-process")
    trial = {"checkpoint": {"every_samples": 40}, **changes.pop("trial", {})}
    launch(make_config(trial=trial, **changes), options=options, function=trial_functions.steady)
    return str(directory)


def go_on(place, *overrides, **more):
    options = LaunchOptions(executor="in-process")
    return resume(place, overrides, options=options, function=trial_functions.steady, **more)


def test_a_grown_grid_adds_its_new_points_and_trains_nothing_twice(tmp_path, capsys):
    place = finished(tmp_path / "s")

    view = go_on(place, MORE)

    assert [record.params["learning_rate"] for record in view.records] == [1e-5, 1e-4, 1e-3, 1e-2, 3e-3]
    assert [record.attempts for record in view.records] == [1] * 5
    assert all(record.state is TrialState.COMPLETE for record in view.records)
    assert "extended: 1 more points wait to be trained" in capsys.readouterr().err
    assert (tmp_path / "s" / "sweep.yaml").read_text().count("0.003") == 1
    with pytest.raises(NothingToDoError, match="is finished: nothing is left to train"):
        go_on(place, MORE)
    with pytest.raises(NothingToDoError, match="is finished: nothing is left to train"):
        go_on(place)


def test_a_driver_that_dies_while_it_extends_loses_no_point(tmp_path, monkeypatch):
    place = finished(tmp_path / "s")

    def die(self, points):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Study, "add_points", die)
        with pytest.raises(KeyboardInterrupt):
            go_on(place, MORE)

    assert len(go_on(place).records) == 5


@pytest.mark.parametrize(
    "command",
    [
        lambda options, place: launch(make_config(), options=options, function=trial_functions.steady),
        lambda options, place: go_on(place, "failures.retries=7"),
    ],
    ids=["launch", "resume"],
)
def test_an_extension_by_another_command_is_not_undone_by_one_that_read_the_study_before(
    tmp_path, monkeypatch, command
):
    place = str(tmp_path / "s")
    options = LaunchOptions(dir=place, executor="in-process")
    with pytest.raises(InterruptedSweepError):
        launch(make_config(), options=options, function=trial_functions.steady, listeners=[Interrupt()])
    take = Study.take

    def taken_after_another(study):
        monkeypatch.setattr(Study, "take", take)
        go_on(place, MORE)
        study.take()

    monkeypatch.setattr(Study, "take", taken_after_another)
    told = r"The config of study `made-up` was changed in its storage \(`search_space`\) .* Run this command again"
    with pytest.raises(StudyMismatchError, match=told):
        command(options, place)

    assert Study.open(place).config.search_space["learning_rate"].grid[-1] == 3e-3
    assert Study.open(place).state() == "finished"


def test_whoever_follows_a_study_sees_it_extended(tmp_path):
    place = finished(tmp_path / "s")
    follower = Study.open(str(place))
    before = follower.view()

    go_on(place, MORE)

    assert len(follower.view().records) == 5 != len(before.records)
    assert follower.view().config == Study.open(str(place)).config != before.config


def test_more_trials_of_a_sampler_are_drawn(tmp_path):
    place = finished(
        tmp_path / "s", search_space={"learning_rate": {"log_uniform": [1e-5, 1e-2]}},
        sampler={"name": "random", "n_trials": 2},
    )  # fmt: skip

    assert len(go_on(place, "sampler.n_trials=5").records) == 5
    with pytest.raises(StudyMismatchError, match=r"`sampler.n_trials` was 5 and is now 3"):
        go_on(place, "sampler.n_trials=3")


def test_a_drawn_point_that_cannot_be_trained_is_not_tried_again(tmp_path):
    place = finished(
        tmp_path / "s", search_space={"learning_rate": {"log_uniform": [1e-5, 1e-2]}},
        sampler={"name": "random", "n_trials": 1},
    )  # fmt: skip
    study = Study.open(place)
    study.take()
    study.update_config(override_recorded(study.config, ["sampler.n_trials=2"]))

    def refuse(params):
        raise ConfigError("Too short.")

    assert study.draw(refuse).refused == "this point cannot be trained: Too short."
    study.hand_back("finished")

    assert plan_extension(reopened(study), [], [], retry_failed=True).again == ()
    with pytest.raises(NothingToDoError, match="is finished: nothing is left to train"):
        go_on(place)


class Interrupt:
    """A listener that ends the driver once the first trial has ended."""

    def on_event(self, event):
        if event.kind is EventKind.TRIAL_ENDED and event.record.number == 0:
            raise KeyboardInterrupt


def test_another_pruner_judges_from_now_on_and_old_decisions_stay(tmp_path, capsys):
    space = {"learning_rate": {"grid": [1e-3, 1e-5, 1e-2]}}
    options = LaunchOptions(dir=str(tmp_path / "s"), executor="in-process")
    told = r"1 of 3 trials have ended, everything is saved\. "
    told += r"`sweeper report \S+/s` shows what was found so far\. "
    told += r"Go on with: sweeper resume \S+/s --executor in-process$"
    with pytest.raises(InterruptedSweepError, match=told):
        launch(
            make_config(search_space=space), options=options, function=trial_functions.steady,
            listeners=[Interrupt()],
        )  # fmt: skip

    view = go_on(
        str(tmp_path / "s"), "pruner={signals: {loss: {direction: minimize}}, min_peers: 2, keep_frac: 0.3}"
    )

    assert view.config.pruner.name == "early_dynamics"
    assert [record.state.value for record in view.records] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert 'the pruner was "nop" and is now "early_dynamics"' in capsys.readouterr().err


def begun(directory, **changes):
    """A study whose first trial has begun."""
    study = make_study(directory, make_config(rungs={}, **changes))
    study.claim(0)
    return study


SIZES = {"learning_rate": {"grid": [1e-3]}, "size": {"grid": [1, 2]}}
MORE_SIZES = f"search_space.size.grid={list(range(1, 25))}"


def test_the_rungs_stay_where_they_were_when_more_points_would_move_them(tmp_path):
    study = begun(tmp_path / "s", pruner="early_dynamics", search_space=SIZES)
    assert plan_sweep(study.config).rung_marks == (10, 30)

    found = plan_extension(study, [MORE_SIZES], [])

    assert plan_sweep(found.config).rung_marks == (10, 30)
    assert "the rungs stay where they were, at 10, 30 samples" in found.notes
    found.apply(study)
    assert plan_sweep(plan_extension(study, ["pruner=nop"], []).config).rung_marks == (10, 30)


def test_the_rungs_stay_where_they_were_when_an_earlier_study_is_learned_from_later(tmp_path):
    study = begun(tmp_path / "s", pruner="early_dynamics", search_space=SIZES)

    found = plan_extension(study, [f"pruner.prior={tmp_path / 'earlier'}"], [])

    assert plan_sweep(found.config).rung_marks == (10, 30)


def test_the_rungs_stay_where_they_were_when_a_smaller_budget_would_move_them(tmp_path):
    study = begun(
        tmp_path / "s", trial={"budget": {"samples": None}, "compare": "unequal"},
        search_space={"samples": {"grid": [100, 200]}},
    )  # fmt: skip

    found = plan_extension(study, ["search_space.samples.grid=[100, 200, 50]"], [])

    assert plan_sweep(found.config).rung_marks == (10, 30)


def test_before_a_trial_has_begun_the_rungs_are_those_of_the_new_points(tmp_path):
    study = make_study(tmp_path / "s", make_config(rungs={}, pruner="early_dynamics", search_space=SIZES))

    assert plan_sweep(plan_extension(study, [MORE_SIZES], []).config).rung_marks == (10, 20, 30, 50, 70)


@pytest.fixture
def grown(tmp_path):
    """A study that was extended, so that its rungs would have moved, with one trial that has ended."""
    options = LaunchOptions(dir=str(tmp_path / "s"), executor="in-process")
    with pytest.raises(InterruptedSweepError):
        launch(
            in_two_lengths([100, 200]), options=options, function=trial_functions.steady,
            listeners=[Interrupt()],
        )  # fmt: skip
    study = Study.open(str(tmp_path / "s"))
    plan_extension(study, ["search_space.samples.grid=[100, 200, 50]"], []).apply(study)
    return study


def in_two_lengths(samples, **changes):
    return make_config(
        **{"rungs": {}, **changes}, trial={"budget": {"samples": None}, "compare": "unequal"},
        search_space={"samples": {"grid": samples}, "learning_rate": {"grid": [1e-3]}},
    )  # fmt: skip


@pytest.mark.parametrize("rungs", [{}, {"fractions": [0.1, 0.3]}, {"samples": [10, 30]}])
def test_a_file_that_has_an_extension_s_points_goes_on_with_the_rungs_that_stayed(grown, rungs):
    options = LaunchOptions(dir=str(grown.directory), executor="in-process")

    view = launch(
        in_two_lengths([100, 200, 50], rungs=rungs), options=options, function=trial_functions.steady
    )

    assert [record.state for record in view.records] == [TrialState.COMPLETE] * 3
    assert view.config.rungs.samples == [10, 30]
    with pytest.raises(NothingToDoError):
        launch(in_two_lengths([100, 200, 50], rungs=rungs), options=options)


@pytest.mark.parametrize(
    ("rungs", "told"),
    [({"fractions": [0.2, 0.6]}, "`rungs.fractions` was null"), ({"samples": [5, 15]}, "5, 15")],
)
def test_a_file_whose_rungs_lay_elsewhere_is_refused(grown, rungs, told):
    options = LaunchOptions(dir=str(grown.directory), executor="in-process")

    with pytest.raises(StudyMismatchError) as caught:
        launch(in_two_lengths([100, 200, 50], rungs=rungs), options=options, function=trial_functions.steady)

    assert told in str(caught.value)


def test_a_file_with_more_points_and_the_default_pruner_has_the_rungs_that_stayed(tmp_path):
    study = begun(tmp_path / "s", pruner="early_dynamics", search_space=SIZES)
    plan_extension(study, [MORE_SIZES], []).apply(study)
    space = {"learning_rate": {"grid": [1e-3]}, "size": {"grid": list(range(1, 25))}}
    file = make_config(rungs={}, pruner="early_dynamics", search_space=space)
    assert plan_sweep(file).rung_marks == (10, 20, 30, 50, 70)

    check_same(reopened(study), with_kept_rungs(reopened(study), file))
    with pytest.raises(StudyMismatchError, match=r"`rungs\.samples` was"):
        check_same(study, file)


def recorded(directory, *, without=(), **settings):
    """A study whose config an older version wrote: with settings that are refused now, or without some."""
    config = config_of(FILE)
    kept = {key: value for key, value in config.trial.settings.items() if key not in without}
    trial = config.trial.model_copy(update={"settings": kept | settings})
    return make_study(directory, config.model_copy(update={"trial": trial}))


MORE_RATES = "search_space.learning_rate.grid=[1e-5, 1e-4, 1e-3]"


def test_what_was_wrong_with_a_recorded_config_before_does_not_keep_it_from_being_extended(tmp_path):
    study = recorded(tmp_path, lora_rank=4, lora_dropout=0.1)

    found = plan_extension(study, [MORE_RATES], [])

    assert found.n_points == 2
    assert found.config.trial.settings == study.config.trial.settings


def test_settings_that_a_recorded_config_lacks_stay_away(tmp_path):
    study = recorded(tmp_path, without=("precision", "packing"))

    found = plan_extension(study, [MORE_RATES], [])

    assert found.n_points == 2
    assert found.config.trial.settings == study.config.trial.settings


@pytest.mark.parametrize(
    ("override", "told", "not_told"),
    [
        ("pruner=medien", "Did you mean `median`?", "for adapters"),
        ("lora_rank=64", "override `lora_rank=64`: `lora_rank` is for adapters", "lora_dropout"),
        ("no_such_key=1", "no_such_key", "for adapters"),
    ],
)
def test_only_what_the_overrides_make_wrong_is_told(tmp_path, override, told, not_told):
    study = recorded(tmp_path, lora_rank=4, lora_dropout=0.1)

    with pytest.raises(ConfigError) as caught:
        plan_extension(study, [override], [])

    assert told in str(caught.value)
    assert not_told not in str(caught.value)


def test_a_recorded_value_that_no_trial_could_have_is_told_rather_than_replaced():
    config = config_of(FILE)
    trial = config.trial.model_copy(update={"settings": {**config.trial.settings, "lora_rank": 0}})

    with pytest.raises(ConfigError, match="lora_rank"):
        override_recorded(config.model_copy(update={"trial": trial}), ["seed=7"])


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ('pruner={name: "no_module:Pruner"}', "no_module"),
        ("pruner={prior: /nonexistent/x}", r"`pruner.prior` names `/nonexistent/x`, which cannot be read"),
        ("pruner={prior: /nonexistent/x.jsonl}", r"`pruner.prior`.*no file `/nonexistent/x.jsonl`"),
    ],
)
def test_a_pruner_that_cannot_judge_is_refused_before_it_stands_in_the_study(tmp_path, override, text):
    study = make_study(tmp_path, make_config())

    with pytest.raises(ConfigError, match=text):
        go_on(str(tmp_path), override)

    assert reopened(study).config.pruner.name == "nop"


def test_a_pruners_name_alone_replaces_the_pruner(tmp_path):
    study = make_study(tmp_path, make_config(pruner="early_dynamics"))

    assert plan_extension(study, ["pruner.name=nop"], []).config.pruner.name == "nop"


def test_a_finished_trial_is_trained_on_from_its_checkpoint_under_a_new_number(tmp_path):
    place = finished(tmp_path / "s")

    view = go_on(place, "trial.budget.samples=200", continues=["2"])

    longer = view.records[4]
    assert (longer.origin.continues, longer.origin.from_step, longer.origin.from_samples) == (2, 8, 80)
    assert (longer.state, longer.budget_samples, longer.samples, longer.rungs) == (
        TrialState.COMPLETE,
        200,
        200,
        {},
    )
    study = Study.open(place)
    assert study.frozen_trials()[4].user_attrs["continues"] == 2
    assert [row.step for row in study.curves.rows(4)] == list(range(1, 21))
    assert study.curves.rows(4)[:8] == study.curves.rows(2)[:8]
    assert view.config.trial.budget.samples == 100  # of all others
    assert view.best.number == 2  # what had more data is not compared


def test_all_finished_trials_can_be_trained_on_and_again(tmp_path):
    place = finished(tmp_path / "s")

    view = go_on(place, "trial.budget.samples=200", continues=["all"])
    assert [record.origin.continues for record in view.records[4:]] == [0, 1, 2, 3]

    view = go_on(place, "trial.budget.samples=300", continues=["4"])
    assert (view.records[8].origin.continues, view.records[8].samples) == (4, 300)
    with pytest.raises(NothingToDoError, match="is finished: nothing is left to train"):
        go_on(place)


def test_a_trial_without_a_checkpoint_cannot_be_trained_on(tmp_path):
    place = finished(tmp_path / "s", trial={"checkpoint": {"every_samples": 40, "keep_best": 1}})

    with pytest.raises(StudyMismatchError, match=r"no checkpoint to go on from: 0, 1, 3\. Leave them out"):
        go_on(place, "trial.budget.samples=200", continues=["all"])
    assert len(go_on(place, "trial.budget.samples=200", continues=["2"]).records) == 5


@pytest.mark.parametrize(
    ("overrides", "continues", "error", "text"),
    [
        (["metric=loss"], [], StudyMismatchError, '`metric` was "score" and is now "loss"'),
        (["direction=minimize"], [], StudyMismatchError, '`direction` was "maximize" and is now "minimize"'),
        (["trial.budget.samples=200"], [], StudyMismatchError, "`--continue N` trains a finished trial on"),
        (
            ["search_space.learning_rate.grid=[1e-5, 1e-4]"],
            [],
            StudyMismatchError,
            "`search_space.learning_rate.grid` was [1e-05, 0.0001, 0.001, 0.01] and is now [1e-05, 0.0001]",
        ),
        (["trial.settings.effective_batch_size=20"], [], StudyMismatchError, "was 10 and is now 20"),
        (["rungs={samples: [30]}"], [], StudyMismatchError, "`rungs.samples` was [20, 50] and is now [30]"),
        (["seed=7"], [], StudyMismatchError, "`seed` was 0 and is now 7"),
        (["pruner=medien"], [], ConfigError, "Did you mean `median`?"),
        (["trial.budget.samples=200"], ["9"], StudyMismatchError, "has no trial 9: its trials are 0 to 3"),
        (["trial.budget.samples=200"], ["x"], ConfigError, "takes a trial's number or `all`, but got `x`"),
        ([], ["2"], ConfigError, "Give a larger one, such as `trial.budget.samples=200`"),
    ],
)
def test_what_would_make_trials_incomparable_is_refused(study, overrides, continues, error, text):
    with pytest.raises(error) as caught:
        go_on(study, *overrides, continues=continues)

    assert text in str(caught.value)
    assert len(Study.open(study).records()) == 4


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("study") / "s")


def test_the_command_line_says_what_differs_and_exits_4(study):
    run = cli("resume", study, "metric=loss", "--executor", "in-process")

    assert run.code == 4
    assert run.err.startswith(
        "error: Cannot extend study `made-up`, whose trials would no longer compare: `metric`"
    )


def test_more_batch_sizes_may_not_change_what_the_others_train(tmp_path):
    grid = "search_space.effective_batch_size.grid"
    study = make_study(
        tmp_path / "s", config_of(FILE, f"{grid}=[16, 32]", "trial.budget.samples=2048", "rungs={}")
    )

    with pytest.raises(
        StudyMismatchError, match=r"every trial would train 2016 samples.*but trial 0 has 2048"
    ):
        plan_extension(study, [f"{grid}=[16, 32, 48]"], [])

    assert plan_extension(study, [f"{grid}=[16, 32, 64]"], []).n_points == len(study.records()) // 2


def test_other_resources_enter_no_point_again(tmp_path):
    place = tmp_path / "s"
    options = LaunchOptions(dir=str(place), executor="in-process")
    with pytest.raises(InterruptedSweepError, match="1 of 4 trials have ended, everything is saved"):
        launch(make_config(), options=options, function=trial_functions.steady, listeners=[Interrupt()])

    view = go_on(str(place), "resources.threads_per_trial=4")

    assert len(view.records) == 4
    assert all(record.state is TrialState.COMPLETE for record in view.records)


def test_the_resolved_file_is_that_of_the_newest_driver(tmp_path):
    place = tmp_path / "s"
    options = LaunchOptions(dir=str(place), executor="in-process")
    with pytest.raises(InterruptedSweepError):
        launch(make_config(), options=options, function=trial_functions.steady, listeners=[Interrupt()])

    config = make_config(resources={"threads_per_trial": 4})
    launch(config, options=options, function=trial_functions.steady)

    assert "threads_per_trial: 4" in (place / "sweep.yaml").read_text()


@pytest.mark.parametrize("override", ["dir=/elsewhere", "storage=sqlite:///other.db"])
def test_where_a_study_lies_is_not_changed_by_a_resume(study, override):
    with pytest.raises(ConfigError, match="say where a study lies"):
        go_on(study, override)


def test_a_study_whose_directory_was_given_by_a_relative_path_can_be_extended(tmp_path, monkeypatch):
    place = tmp_path / "s"
    finished(f"../{tmp_path.name}/s")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    view = go_on(str(place), MORE)

    assert (len(view.records), view.config.dir) == (5, str(place))


def test_a_study_that_has_its_directory_recorded_as_a_relative_path_can_be_extended(tmp_path):
    place = finished(tmp_path / "s")
    study = Study.open(place)
    study.update_config(study.config.model_copy(update={"dir": "s"}))
    shutil.move(place, tmp_path / "moved")

    view = go_on(str(tmp_path / "moved"), MORE)

    assert (len(view.records), view.config.dir) == (5, str(tmp_path / "moved"))


def test_a_copied_study_is_gone_on_with_where_it_is(tmp_path):
    finished(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    config = make_config(trial={"checkpoint": {"every_samples": 40}})

    found = Study.find(name=config.study, url=None, directory=tmp_path / "new")

    assert found.directory == tmp_path / "new"
    assert found.curves.path(0).parent == tmp_path / "new" / "curves"


def test_overrides_are_laid_over_mappings_and_configs_too():
    from sweeper.api import read_config

    assert read_config(make_config(), ["seed=7"]).seed == 7
    assert read_config(merged(BASE, {}), ["seed=7"]).seed == 7


# -- failed trials -------------------------------------------------------------------------------------------


@pytest.fixture
def failed(tmp_path):
    """A study whose last trial has failed."""
    options = LaunchOptions(dir=str(tmp_path / "s"), executor="in-process")
    function = trial_functions.raises_at_high_rate
    launch(make_config(failures={"retries": 0}), options=options, function=function)
    return str(tmp_path / "s")


def test_a_failed_trial_is_trained_again_under_a_new_number_where_that_is_asked_for(failed, capsys):
    with pytest.raises(
        NothingToDoError, match=r"1 of its trials failed: `sweeper resume \S+ --retry-failed`"
    ):
        go_on(failed)

    view = go_on(failed, retry_failed=True)

    assert [record.state.value for record in view.records] == [*["COMPLETE"] * 3, "FAIL", "COMPLETE"]
    again = view.records[4]
    assert (again.params, again.point_id) == (view.records[3].params, view.records[3].point_id)
    assert again.origin.retries == 3
    assert again.is_compared
    assert "extended: the points of failed trials are trained again: 3" in capsys.readouterr().err
    assert view.full_samples == 400
    with pytest.raises(NothingToDoError, match=r"nothing is left to train\. `sweeper report"):
        go_on(failed, retry_failed=True)


def test_a_trial_that_fails_once_more_is_trained_once_more_alone(failed):
    options = LaunchOptions(executor="in-process")
    resume(failed, retry_failed=True, options=options, function=trial_functions.raises_at_high_rate)

    view = go_on(failed, retry_failed=True)

    assert [record.state.value for record in view.records[3:]] == ["FAIL", "FAIL", "COMPLETE"]
    assert view.records[5].origin.retries == 4


def test_a_driver_that_dies_after_it_has_entered_a_failed_point_enters_it_once(failed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("sweeper.api._go_on", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go_on(failed, retry_failed=True)

    view = go_on(failed, retry_failed=True)

    assert [record.state.value for record in view.records[3:]] == ["FAIL", "COMPLETE"]


def test_a_trial_that_failed_while_it_trained_another_one_on_goes_on_from_there_again(tmp_path):
    place, options = finished(tmp_path / "s"), LaunchOptions(executor="in-process")
    resume(
        place, ["trial.budget.samples=200", "failures.retries=0"], continues=["0"], options=options,
        function=fails,
    )  # fmt: skip

    again = go_on(place, retry_failed=True).records[5]

    assert again.state is TrialState.COMPLETE
    assert (again.origin.continues, again.origin.retries, again.origin.from_samples) == (0, 4, 80)
    assert again.samples == 200


def fails(context):
    raise RuntimeError("a bad node")


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_a_sweep_that_ends_with_failures_says_how_they_are_trained_again(failed):
    told = "failed: 1 trial; with its cause mended, `sweeper resume --retry-failed` trains them again"

    assert told in " ".join(cli("status", failed).out.split())
    assert "extended: the points of failed trials are trained again: 3" in (
        cli("resume", failed, "--retry-failed", "--executor", "in-process").err
    )
