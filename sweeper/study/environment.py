"""What a study's results stand on beside its config: recorded by every driver, and by every attempt.

A driver records a session: its machine, the state of the user's code, and hashes of what the trials read. Each attempt
leaves what it ran on in its trial's directory, since a trial may run on another machine than its driver.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.differences import differing
from sweeper.records import TrialRecord
from sweeper.study import layout
from sweeper.study.machine import ATTEMPT_FILE
from sweeper.study.view import StudyView

logger = logging.getLogger(__name__)


def environment_of(view: StudyView, record: TrialRecord) -> dict[str, Any]:
    """Return what a trial's newest attempt stands on; of the driver's machine where the attempt left nothing."""
    session = _session_of(view.environments, record)
    found = {name: value for name, value in session.items() if name != "at"}
    path = layout.trial_dir(view.directory, record.number) / ATTEMPT_FILE
    try:
        found |= json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        logger.debug("Trial %d left no environment", record.number)
    except (ValueError, TypeError) as error:
        logger.warning("%s cannot be read and is left alone: %s", path, error)
    return found


def changed_since(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """Return what changed between two sessions, a sentence each; where the driver and the trials run is no change."""
    if before is None:
        return []
    found = differing(dict(before), dict(now))
    return [
        f"{place} was {was} and is now {is_now}"
        for place, (was, is_now) in found.items()
        if place not in ("at", "machine.node", "executor")
    ]


def _session_of(sessions: Sequence[Mapping[str, Any]], record: TrialRecord) -> Mapping[str, Any]:
    """Return the last session that had begun when the newest attempt did."""
    started = str((record.history[-1] if record.history else {}).get("started") or "")
    begun = [session for session in sessions if str(session.get("at", "")) <= started]
    return begun[-1] if begun else (sessions[0] if sessions else {})
