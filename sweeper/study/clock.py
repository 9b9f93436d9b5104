"""The wall clock, for people to read."""

from datetime import UTC, datetime


def wall_clock() -> datetime:
    """Return the wall clock's time, in UTC; nothing that a sweep does is computed from it."""
    return datetime.now(UTC)


def utc_now() -> str:
    """Return the wall clock's time as it is kept: ISO 8601, in milliseconds."""
    return wall_clock().isoformat(timespec="milliseconds")
