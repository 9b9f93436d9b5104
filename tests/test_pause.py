"""How a trial's code is asked to save a checkpoint and end, when its sweep is interrupted."""

import dataclasses

import pytest

from sweeper.context import TrialContext, TrialStopped
from sweeper.executors.attempt import run_attempt
from sweeper.trial_spec import TrialSpec


@dataclasses.dataclass
class Pausing:
    """A channel on which the pause comes when told."""

    pause: bool = False
    reports: list = dataclasses.field(default_factory=list)

    def send(self, report, *, wait):
        self.reports.append(report)

    def should_stop(self):
        return False

    def should_pause(self):
        return self.pause


@pytest.fixture
def context():
    spec = TrialSpec(
        number=0, attempt=1, study="s", params={}, settings={}, trial={}, seed=0, budget_samples=100, total_steps=10,
        micro_batch_size=None, gradient_accumulation_steps=None, marks=(), evaluation_marks=(), checkpoint_marks=(50,),
    )  # fmt: skip
    return TrialContext(spec=spec, channel=Pausing(), checkpoint=None, report_every_s=1e9)


def step(context, number):
    context.report(step=number, samples=10 * number, loss=1.0)


def sent(context):
    return [row.step for report in context.channel.reports for row in report.rows]


def test_code_that_never_asks_ends_with_its_next_report_and_nothing_of_it_is_lost(context):
    step(context, 1)
    context.channel.pause = True
    with pytest.raises(TrialStopped):
        step(context, 2)
    assert sent(context) == [1, 2]


def test_code_that_asks_is_told_to_save_at_its_next_step_and_ends_once_it_has(context):
    assert not context.is_checkpoint_due(10)
    context.channel.pause = True
    step(context, 1)  # the pause came after it had asked
    assert context.is_checkpoint_due(20)
    step(context, 2)
    with pytest.raises(TrialStopped):
        context.report_rows([], checkpoint="step-00000002")
    assert sent(context) == [1, 2]
    assert context.channel.reports[-1].checkpoint == "step-00000002"


def test_code_that_saves_before_it_reports_ends_with_that_report(context):
    context.channel.pause = True
    assert context.is_checkpoint_due(10)
    with pytest.raises(TrialStopped):
        context.report_rows([], checkpoint="step-00000001")


def test_code_that_saves_without_a_word_ends_with_the_report_of_the_next_step(context):
    context.channel.pause = True
    assert context.is_checkpoint_due(10)
    step(context, 1)
    assert not context.is_checkpoint_due(20)  # asked once
    with pytest.raises(TrialStopped):
        step(context, 2)


def test_a_trial_at_its_last_step_is_left_to_end(context):
    step(context, 9)
    context.channel.pause = True
    assert not context.is_checkpoint_due(100)
    step(context, 10)


def test_marks_count_as_before(context):
    assert [context.is_checkpoint_due(samples) for samples in (40, 50)] == [False, True]


def test_a_window_that_only_time_closes_is_closed_as_often_as_the_spec_says(context, tmp_path):
    spec = dataclasses.replace(context.spec, report_every_s=7.0, checkpoint_place=str(tmp_path))
    told = []

    run_attempt(spec, context.channel, function=lambda context: told.append(context.report_every_s))

    assert told == [7.0]
