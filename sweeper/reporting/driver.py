"""Who drives a study: for programs, and in words where it has not stirred for long."""

import dataclasses
from datetime import datetime
from typing import Any

from sweeper.reporting.formats import duration, parse_time
from sweeper.study.lease import LeaseTimes
from sweeper.study.view import StudyView


def driver_json(view: StudyView) -> dict[str, Any] | None:
    """Return who drives a study, since when, and when it last gave a sign of life; None while nobody does."""
    return None if view.driver is None else dataclasses.asdict(view.driver)


def without_beat(view: StudyView) -> StudyView:
    """Return a view that is equal as long as nothing but the driver's beat has changed."""
    if view.driver is None:
        return view
    return dataclasses.replace(view, driver=dataclasses.replace(view.driver, last_beat=None))


def silence(view: StudyView, now: datetime) -> str | None:
    """Return for how long a study's driver has given no sign of life; None where that is not long, or not told.

    By the wall clocks of two machines, which may differ: words for people, from which nothing follows.
    """
    beat = parse_time(None if view.driver is None else view.driver.last_beat)
    if beat is None or (now - beat).total_seconds() < LeaseTimes().expiry_s:
        return None
    return duration((now - beat).total_seconds())
