"""A study that has ended: nothing is left to train, and its trackers get what they were behind with."""

import contextlib
import shlex

from sweeper.driving import driving, is_anything_left, trackers_of, unmeasured
from sweeper.errors import NothingToDoError
from sweeper.study.failed import failures_left
from sweeper.study.study import Study


def has_ended(study: Study) -> bool:
    """Whether a study was handed back as finished and has nothing left to train. Reads no other one's trials."""
    return study.state() == "finished" and not is_anything_left(study)


def nothing_to_do(study: Study, kept: str = "") -> NothingToDoError:
    """Return what to raise where nothing is left to train; `kept` says what was done nevertheless."""
    n_failed = len(failures_left(study.records().values()))
    place = shlex.quote(str(study.directory))
    failed = f"{n_failed} of its trials failed: `sweeper resume {place} --retry-failed` trains them again. "
    numbers = ", ".join(map(str, unmeasured(study)))
    measure = (
        f"Of the finalists, trials not measured yet: {numbers}. `sweeper benchmark {place}` measures them. "
    )
    return NothingToDoError(
        f"Study `{study.name}` is finished: nothing is left to train. {kept}{failed if n_failed else ''}"
        f"{measure if numbers else ''}"
        f"`sweeper report {place}` writes its report; choose another study name to train again."
    )


def hand_on_the_rest(study: Study) -> str:
    """Let the trackers of a study that has ended have what they have not got; return what to tell of that, if anything.

    Raises:
        StudyMismatchError: If another process drives the study.
    """
    if not study.config.trackers:
        return ""
    behind = [tracker for tracker in trackers_of(study, study.records().values()) if tracker.is_behind]
    if not behind:
        return ""
    with driving(study), contextlib.ExitStack() as stack:
        study.reached = "finished"
        for tracker in behind:
            stack.enter_context(tracker)
    if any(tracker.is_behind for tracker in behind):
        return ""  # it has been warned of
    return "What its trackers had not got was handed on. "
