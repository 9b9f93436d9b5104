"""A clone that began with another trial's weights is not its point: that one is still there to be trained."""

import dataclasses

import pytest
import trial_functions
from sweeps import RATES, make_config

from sweeper.api import LaunchOptions, launch, resume
from sweeper.confirm.finalists import choose_finalists
from sweeper.control.send import send_request
from sweeper.errors import StudyMismatchError
from sweeper.optimum.edge import points_beyond
from sweeper.records import TrialState
from sweeper.study.control_records import Verb
from sweeper.study.failed import warm_start_of
from sweeper.study.study import Study

NEW = 2e-3  # a rate that the grid has not
EXTENDED = f"search_space.learning_rate.grid={[*RATES, NEW]}"


def begun(directory, *, function=trial_functions.steady, **changes):
    """A study whose points are trained, each with a checkpoint at 40 of 100 samples."""
    options = LaunchOptions(dir=str(directory), executor="in-process")
    config = make_config(trial={"checkpoint": {"every_samples": 40}}, **changes)
    launch(config, options=options, function=function)
    return str(directory)


def go_on(place, *overrides, function=trial_functions.steady, **more):
    return resume(place, overrides, options=LaunchOptions(executor="in-process"), function=function, **more)


def looked_at(place):
    return Study.open(place).view()


def clone(place, rate=NEW, *, trial=1):
    arguments = {"trial": trial, "params": {"learning_rate": rate}, "warm_start": True}
    return send_request(place, Verb.CLONE, arguments)


def add(place, rate=NEW):
    return send_request(place, Verb.ADD, {"params": {"learning_rate": rate}})


@pytest.fixture
def cloned(tmp_path):
    """A study of four points, with a clone at a rate that none of them has."""
    place = begun(tmp_path / "s")
    clone(place)
    assert go_on(place).records[4].is_warm_started
    return place


def test_an_extension_trains_the_point_of_a_clone_from_scratch(cloned):
    view = go_on(cloned, EXTENDED)

    warm, scratch = view.records[4:]
    assert (warm.point_id, warm.params) == (scratch.point_id, scratch.params)
    assert (scratch.origin, scratch.own_samples, scratch.state) == (None, 100, TrialState.COMPLETE)
    assert view.full_samples == 520  # of the clone only what it trained itself


def test_a_clone_whose_weights_are_not_copied_yet_is_not_its_point(cloned):
    records = {record.number: record for record in looked_at(cloned).records}
    origin = dataclasses.replace(records[4].origin, from_step=0, from_samples=0)
    waiting = dataclasses.replace(records[4], origin=origin, state=TrialState.WAITING, attempts=0)
    anew = dataclasses.replace(waiting, state=TrialState.RUNNING, attempts=1)  # it had nothing to begin with

    assert warm_start_of(waiting, records) is waiting
    assert warm_start_of(anew, records) is None


def test_the_point_of_a_clone_can_be_added_once(cloned):
    add(cloned)
    view = go_on(cloned)

    assert view.records[5].own_samples == 100
    assert view.records[5].origin.retries is None
    with pytest.raises(StudyMismatchError, match="This point is trial 5 of study `made-up` already"):
        add(cloned)


def test_a_clone_is_not_made_again_from_the_same_trial_but_from_another_one(cloned):
    with pytest.raises(StudyMismatchError, match="This point is trial 4 of study `made-up` already"):
        clone(cloned)
    clone(cloned, trial=2)
    clone(cloned, RATES[0])  # beside the trial that trained this from scratch

    clones = go_on(cloned).records[5:]

    assert [(one.origin.cloned_from, one.origin.retries) for one in clones] == [(2, None), (1, None)]


def test_what_failed_from_scratch_is_not_taken_up_by_a_clone(tmp_path):
    place = begun(
        tmp_path / "s", function=trial_functions.raises_at_high_rate, failures={"retries": 0}
    )  # the last rate
    clone(place, RATES[3])
    assert go_on(place).records[4].origin.retries is None

    assert go_on(place, retry_failed=True).records[5].origin.retries == 3


def test_a_draw_of_the_point_of_a_clone_is_no_repeat(tmp_path):
    sampler = {"name": "random", "n_trials": 1}
    place = begun(tmp_path / "s", search_space={"learning_rate": {"choice": [1e-4, 1e-3]}}, sampler=sampler)
    (rate,) = {1e-4, 1e-3} - {looked_at(place).records[0].params["learning_rate"]}
    clone(place, rate, trial=0)

    drawn = [one for one in go_on(place, "sampler.n_trials=12").records if one.origin is None]

    assert {one.params["learning_rate"] for one in drawn if not one.is_repeat} == {1e-4, 1e-3}
    assert sum(one.own_samples for one in drawn) == 200


def test_a_clone_and_its_point_can_both_be_trained_on(cloned):
    add(cloned)
    go_on(cloned)
    longer = ["trial.budget.samples=200"]

    view = go_on(cloned, *longer, continues=["4", "5"])

    assert [(one.origin.continues, one.samples) for one in view.records[6:]] == [(4, 200), (5, 200)]
    assert len({one.point_id for one in view.records[6:]}) == 1
    assert go_on(cloned, *longer, continues=["0"]).records[8].origin.continues == 0


def test_what_lies_beyond_the_edge_is_suggested_though_a_clone_was_there(tmp_path):
    place = begun(tmp_path / "s", search_space={"learning_rate": {"grid": [1e-5, 1e-4, 1e-3]}})
    (beyond,) = points_beyond(looked_at(place))
    clone(place, beyond["learning_rate"])

    assert points_beyond(go_on(place)) == [beyond]


def test_a_finalist_is_worth_what_its_params_gave_from_scratch(cloned):
    add(cloned)
    view = go_on(cloned)
    view.records[4].value = 100.0

    found = choose_finalists(view, top=5, baseline=None)

    assert next(one for one in found if one.params["learning_rate"] == NEW).trial == 5
    assert max(one.value for one in found) <= 1
