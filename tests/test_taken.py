"""What training takes and what stopping early saves, where trials share their training."""

import dataclasses

import pytest
from report_fixtures import make_view
from sweep_files import config_of
from test_same_training import SWEEP

from sweeper.plan import plan_sweep
from sweeper.records import Origin, TrialRecord, TrialState
from sweeper.reporting.plot_spent import spent_parts
from sweeper.reporting.summary import savings_of
from sweeper.study.view import StudyView

TWO_LENGTHS = "search_space.samples.grid=[1024, 2048]"
WAITING, RUNNING, COMPLETE, PRUNED, FAIL = (
    TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
)  # fmt: skip


def view_of(
    *trained: tuple[TrialState, int] | tuple[TrialState, int, int], override: str = "pruner=nop"
) -> StudyView:
    """Return trials by rate, and by length within: state, samples, and of which trial it was read off, if it was."""
    config = config_of(SWEEP, TWO_LENGTHS, override)
    records = [
        TrialRecord(
            number=number, state=state, params=point.params, point_id=point.point_id, samples=samples,
            budget_samples=point.budget_samples, read_off=source[0] if source else None,
        )
        for number, (point, (state, samples, *source)) in enumerate(
            zip(plan_sweep(config).points, trained, strict=True)
        )
    ]  # fmt: skip
    return make_view(records, config)


@pytest.mark.parametrize(
    ("trained", "told"),
    [
        # spent, saved, not trained, full
        ([(WAITING, 0)] * 4, (0, 0, 4096, 4096)),
        ([(WAITING, 0), (RUNNING, 512), (COMPLETE, 1024, 3), (RUNNING, 1500)], (2012, 0, 2084, 4096)),
        ([(COMPLETE, 1024, 1), (COMPLETE, 2048)] * 2, (4096, 0, 0, 4096)),
        # The longer one was stopped, so the shorter one was trained for itself, or will be.
        ([(COMPLETE, 1024), (PRUNED, 224), (COMPLETE, 1024, 3), (COMPLETE, 2048)], (3296, 800, 0, 4096)),
        ([(WAITING, 0), (PRUNED, 224), (COMPLETE, 1024, 3), (COMPLETE, 2048)], (2272, 800, 1024, 4096)),
        ([(PRUNED, 96), (PRUNED, 224), (COMPLETE, 1024, 3), (COMPLETE, 2048)], (2368, 1728, 0, 4096)),
        # Both together took more than the longer one alone would have.
        ([(COMPLETE, 1024, 1), (PRUNED, 1900), (COMPLETE, 1024), (PRUNED, 1024)], (3948, 148, 0, 4096)),
        ([(COMPLETE, 1024), (PRUNED, 1900), (COMPLETE, 1024), (FAIL, 224)], (4172, 0, 800, 4972)),
    ],
)  # fmt: skip
def test_training_that_trials_share_counts_once(
    trained: list[tuple[TrialState, int]], told: tuple[int, int, int, int]
) -> None:
    view = view_of(*trained)

    savings = savings_of(view)

    assert (savings.spent, savings.saved, savings.not_trained, savings.full) == told
    assert sum(spent_parts(view).values()) == savings.full


def test_points_that_share_nothing_count_each() -> None:
    view = view_of(*[(WAITING, 0)] * 4, override="trial.settings.lr_scheduler_type=cosine")

    assert savings_of(view).full == 2 * (1024 + 2048)


def test_an_added_trial_counts_for_itself() -> None:
    view = view_of(*[(WAITING, 0)] * 4)
    added = dataclasses.replace(view.records[0], number=4, origin=Origin(by="me"))

    assert savings_of(make_view([*view.records, added], view.config)).full == 4096 + 1024


def test_a_warm_clone_that_is_stopped_before_its_start_saves_only_its_own_training() -> None:
    view = view_of(*[(COMPLETE, 1024, 1), (COMPLETE, 2048)] * 2)
    origin = Origin(by="me", cloned_from=1, warm_start=True, from_step=64, from_samples=1024)
    clone = dataclasses.replace(view.records[1], number=4, state=PRUNED, samples=0, origin=origin)

    savings = savings_of(make_view([*view.records, clone], view.config))

    assert (savings.spent, savings.saved, savings.full) == (4096, 1024, 4096 + 1024)
