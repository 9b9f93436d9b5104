"""Learned pruning that starts from an earlier study's evidence."""

import dataclasses
import shutil

import pytest
import sweeps
from recorded_sweeps import MARKS, make_point, make_recorded
from sweep_files import config_of
from test_learned_sweep import hill
from trial_functions import HILL_SPACE

from sweeper import api
from sweeper.driving import complete
from sweeper.errors import ConfigError, SweeperError
from sweeper.plan import plan_sweep
from sweeper.prior import PriorSpace, prior_records, read_prior
from sweeper.records import TrialState
from sweeper.replay.run import ReplayOptions, replay
from sweeper.study.recorded import RecordedSweep
from sweeper.study.recorded_files import write_recorded
from sweeper.study.study import Study


def config_for(directory, *, name="learned", prior=None, **changes):
    pruner = {"name": "early_dynamics", "audit_frac": 0.0}
    if prior is not None:
        pruner["prior"] = str(prior)
    trial = {"budget": {"samples": 640}, "settings": {}, **changes.pop("trial", {})}
    return sweeps.make_config(
        study=name, dir=str(directory / name), pruner=pruner, trial=trial, rungs={}, search_space=HILL_SPACE,
        resources={"slots": 1}, **changes,
    )  # fmt: skip


def launch(config):
    return api.launch(config, options=api.LaunchOptions(executor="in-process"), function=hill)


def test_a_point_stands_at_the_rungs_as_it_would_have_in_this_sweep():
    sweep = make_recorded([0.2, 0.8])
    found = prior_records(sweep, marks=(25, 50, 100), unit="samples", budget_samples=100, window_steps=2)

    assert list(found) == [-1, -2]
    record = found[-2]
    assert (record.state, record.value, sorted(record.rungs)) == (TrialState.COMPLETE, 0.8, [0, 1])
    rows = {row.samples: row for row in sweep.points[1].rows}
    assert (record.rungs[0].samples, record.rungs[1].samples) == (30, 50)
    assert record.rungs[0].signals["loss"] == pytest.approx((rows[20].loss + rows[30].loss) / 2)
    assert record.rungs[0].signals["score"] == pytest.approx(0.8 * MARKS[0] / 100)  # the newest known there


def test_what_diverged_teaches_nothing_and_other_budgets_are_refused():
    sweep = make_recorded([0.2, 0.8])
    mixed = dataclasses.replace(sweep, points=(*sweep.points, make_point(2, 0.1, nan_at=30)))

    assert len(prior_records(mixed, marks=(20,), unit="samples", budget_samples=100, window_steps=2)) == 2
    with pytest.raises(ConfigError, match="for 100 samples, but the budget of this sweep is 640 samples"):
        prior_records(sweep, marks=(20,), unit="samples", budget_samples=640, window_steps=2)


def seen_in(space, points):
    """Return the params of an earlier study's points as a sweep of another space sees them, and the warnings."""
    sweep = RecordedSweep(name="earlier", metric="score", direction="maximize", points=tuple(points))
    found = prior_records(sweep, marks=(20,), unit="samples", budget_samples=100, window_steps=2, space=space)
    return [record.params for record in found.values()]


def earlier_point(index, params, settings):
    return dataclasses.replace(
        make_point(index, 0.1 * index + 0.1), params=params, settings={**settings, **params}
    )


def space_of(params, **settings):
    points = plan_sweep(sweeps.make_config(search_space=params, trial={"settings": settings})).points
    return PriorSpace.of(points)


def test_what_an_earlier_study_had_fixed_is_a_value_of_this_sweeps_dimension():
    points = [
        earlier_point(n, {"learning_rate": rate}, {"effective_batch_size": 20})
        for n, rate in enumerate((1e-4, 1e-3))
    ]
    space = space_of({"learning_rate": {"grid": [1e-4]}, "effective_batch_size": {"grid": [10, 20]}})

    assert seen_in(space, points) == [
        {"learning_rate": 1e-4, "effective_batch_size": 20}, {"learning_rate": 1e-3, "effective_batch_size": 20},
    ]  # fmt: skip


def test_of_what_an_earlier_study_varied_only_this_sweeps_own_value_teaches(caplog):
    points = [
        earlier_point(n, {"learning_rate": 1e-4, "effective_batch_size": size, "seed": n}, {})
        for n, size in enumerate((10, 20, 10.0))
    ]
    space = space_of({"learning_rate": {"grid": [1e-4, 1e-3]}}, effective_batch_size=10)

    assert seen_in(space, points) == [{"learning_rate": 1e-4}] * 2
    assert (
        "1 of 3 points of the earlier study `earlier` are left out: they have other values of" in caplog.text
    )


def test_an_earlier_study_that_shares_no_value_is_refused():
    points = [earlier_point(0, {"learning_rate": 1e-4}, {})]
    space = space_of({"learning_rate": {"grid": [1e-4]}, "depth": {"grid": [1, 2]}})

    with pytest.raises(
        ConfigError, match=r"No point of the earlier study `earlier` lies in this sweep's space.*`depth`"
    ):
        seen_in(space, points)


def test_a_sweep_with_a_prior_trains_less_and_finds_the_best(tmp_path):
    first = launch(config_for(tmp_path, name="first"))
    again = launch(config_for(tmp_path, name="again", prior=tmp_path / "first", seed=1))

    assert again.best.value == first.best.value == pytest.approx(1.0)
    assert again.spent_samples < 0.7 * first.spent_samples
    n_complete = again.count(TrialState.COMPLETE)
    assert 2 <= n_complete < first.count(TrialState.COMPLETE)
    assert any("starts from the evidence of" in note for note in plan_sweep(again.config).notes)


def test_a_small_grid_with_a_prior_has_the_rungs_of_learned_pruning(tmp_path):
    def planned(**pruner):
        pruner = {"name": "early_dynamics", **pruner}
        return plan_sweep(sweeps.make_config(rungs={}, pruner=pruner))

    alone, informed = planned(), planned(prior=str(_made(tmp_path / "earlier")))
    assert (alone.rung_marks, informed.rung_marks) == ((10, 30), (10, 20, 30, 50, 70))
    assert any("4 points are too few to learn from" in note for note in alone.notes)
    told = "Where those and the 4 points of this sweep are fewer than 20 together, only what diverges is stopped."
    assert any(told in note for note in informed.notes)


def test_the_evidence_is_kept_with_the_study(tmp_path):
    launch(config_for(tmp_path, name="first"))
    study = Study.create(
        config_for(tmp_path, name="again", prior=tmp_path / "first"), directory=_made(tmp_path / "again")
    )

    complete(study, None)
    shutil.rmtree(tmp_path / "first")
    kept = Study.find(name="again", url=None, directory=tmp_path / "again")

    assert kept is not None
    assert kept.prior()
    assert {number: record.value for number, record in kept.prior().items()} == {
        number: record.value for number, record in study.prior().items()
    }
    options = api.LaunchOptions(executor="in-process")
    assert api.resume(str(tmp_path / "again"), options=options, function=hill).best.value == pytest.approx(
        1.0
    )


def test_an_earlier_study_that_moved_is_not_needed_any_more(tmp_path, capsys):
    launch(config_for(tmp_path, name="first"))
    study = Study.create(
        config_for(tmp_path, name="again", prior=tmp_path / "first"), directory=_made(tmp_path / "again")
    )
    complete(study, None)
    (tmp_path / "first").rename(tmp_path / "elsewhere")

    assert launch(config_for(tmp_path, name="again", prior=tmp_path / "elsewhere")).state == "finished"
    assert f"`pruner.prior` stays {tmp_path}/first, which is gone: what was read" in capsys.readouterr().err


def _made(directory):
    directory.mkdir(parents=True)
    return directory


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"direction": "minimize"},
            "whose metric is `score` \\(maximize\\), but this sweep's is `score` \\(minimize\\)",
        ),
        (
            {"trial": {"budget": {"samples": 1280}}},
            "trained for 640 samples, but the budget of this sweep is 1,280",
        ),
        ({"trial": {"function": "trial_functions:leaks"}}, "trained something else: its `trial.function` is"),
    ],
)
def test_what_says_nothing_of_this_sweep_is_refused_before_anything_starts(tmp_path, changes, text):
    launch(config_for(tmp_path, name="first"))

    with pytest.raises(ConfigError, match=text):
        launch(config_for(tmp_path, name="again", prior=tmp_path / "first", **changes))
    assert not (tmp_path / "again").exists()


def test_a_place_without_a_study_is_refused(tmp_path):
    with pytest.raises(SweeperError, match="is not a study's directory"):
        read_prior(config_for(tmp_path, prior=tmp_path))
    with pytest.raises(ConfigError, match=r"`pruner.prior` names .*, which does not exist"):
        config_for(tmp_path, prior=tmp_path / "nothing")


def test_a_prior_belongs_to_learned_pruning():
    with pytest.raises(ConfigError, match=r"`pruner.prior` .*learned"):
        config_of(sweeps_text())


def sweeps_text():
    from sweep_files import BASE

    return BASE.replace(
        "pruner: early_dynamics", "pruner: {name: early_dynamics, keep_frac: 0.5, prior: studies/a}"
    )


def test_a_replay_starts_from_a_prior_too(tmp_path):
    sweep = make_recorded([0.1 + 0.03 * index for index in range(24)])
    write_recorded(sweep, tmp_path / "earlier.parquet")
    pruner = {"name": "early_dynamics", "audit_frac": 0.0}

    alone = replay(sweep, pruner, ReplayOptions(orders=3, slots=1))
    informed = replay(
        sweep, {**pruner, "prior": str(tmp_path / "earlier.parquet")}, ReplayOptions(orders=3, slots=1)
    )

    assert informed.hit == 1.0
    assert informed.cost < alone.cost
