"""Days of time zones, as instants."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo


def begin(day: date, zone: str) -> int:
    """The first instant (ms) of a day in a zone. Where clocks skip midnight it is the one at which they do."""
    # PEP 495: fold 0 is the earlier of two midnights, and within a gap counts by the offset before it.
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    return round(midnight.astimezone(UTC).timestamp() * 1000)


def bounds(dates: Sequence[date], zone: str) -> list[int]:
    """The first instants (ms) of successive days, and that of the day after them."""
    return [begin(day, zone) for day in (*dates, dates[-1] + timedelta(1))]
