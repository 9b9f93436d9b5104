"""The wall clock, for people to read."""

from datetime import UTC, datetime


def utc_now() -> str:
    """Return the wall clock's time; nothing is computed from it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
