"""Times as people give them on a command line: how long ago or when, and for how long."""

import re
from datetime import UTC, datetime, timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"([0-9]{1,9})([smhdw])")


def parse_since(text: str, now: datetime) -> datetime:
    """Read `90s`, `15m`, `2h`, `3d` or `1w` (before `now`), or an ISO 8601 time, local where it names no zone.

    Raises:
        ValueError: with a text that says what would do.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time; give 90s, 15m, 2h, 3d, 1w, or as in 2026-07-01T12:00:00Z") from None


def parse_span(text: str) -> int:
    """Read `90s`, `15m`, `2h`, `3d` or `1w` as seconds. Raises ValueError, with a text that says what would do."""
    span = _AGO.fullmatch(text)
    if span is None:
        raise ValueError(f"{text!r} is no span of time; give 90s, 15m, 2h, 3d or 1w")
    return int(timedelta(**{_UNITS[span[2]]: min(int(span[1]), 10**6)}).total_seconds())
