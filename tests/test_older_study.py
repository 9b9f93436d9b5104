"""A study that an older version of the package began is read, reported and gone on with.

`data/older_study` was written on 22 November 2026 by the version of that day: six points on a journal,
interrupted after four trials, of which one had come to its end and three were stopped.
"""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_fixtures import cli

from sweeper import api
from sweeper.reporting import write_report

OLDER = Path(__file__).parent / "data" / "older_study"
OPTIONS = api.LaunchOptions(executor="in-process")


def train(context: Any) -> dict[str, float]:
    """Train as the older version's trial function did."""
    rate, batch = context.params["learning_rate"], int(context.settings["effective_batch_size"])
    score = 1.0 - abs(math.log10(rate) + 3.0) / 4.0
    for step in range(1, context.budget_samples // batch + 1):
        metrics = {"score": score} if context.is_evaluation_due(step * batch) else {}
        context.report(
            step=step, samples=step * batch, loss=2.0 - score + 1.0 / step, grad_norm=1.0, **metrics
        )
    return {"score": score}


@pytest.fixture
def older(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLDER, tmp_path / "older"))


def test_it_is_read_and_reported(older: Path) -> None:
    view = api.load_study(str(older))

    assert (view.name, view.state) == ("from-an-older-version", "interrupted")
    states = [record.state.value for record in view.records]
    assert states == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED", "WAITING", "WAITING"]
    assert view.best is not None
    assert (view.best.number, view.best.value) == (0, 1.0)
    assert [len(view.curve(number)) for number in range(4)] == [20, 5, 5, 5]
    assert "interrupted; 1 complete, 3 pruned, 2 waiting" in cli("status", older).out
    assert write_report(view, older / "report").is_file()


def test_it_is_gone_on_with_and_keeps_what_was_decided(older: Path) -> None:
    before = {record.number: record for record in api.load_study(str(older)).records[:4]}

    view = api.resume(str(older), options=OPTIONS, function=train)

    assert view.state == "finished"
    for number, record in before.items():
        now = view.record(number)
        assert (now.point_id, now.state, now.value, now.attempts) == (
            record.point_id, record.state, record.value, record.attempts,
        )  # fmt: skip
        assert now.decisions == record.decisions
    assert [view.record(number).state.value for number in (4, 5)] == ["PRUNED"] * 2
    reasons = [view.record(number).reason for number in (4, 5)]
    assert all(reason is not None and "rank" in reason for reason in reasons)


def test_points_are_the_ones_that_the_older_version_hashed(older: Path) -> None:
    view = api.resume(str(older), options=OPTIONS, function=train)

    assert len(view.records) == 6  # none was entered again under another id
    assert len({record.point_id for record in view.records}) == 6
