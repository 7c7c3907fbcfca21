"""Days of time zones, as instants."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

_HOUR_MS: Final = 3_600_000


def begin(day: date, zone: str) -> int:
    """The first instant (ms) of a day in a zone. Where clocks skip midnight it is the one at which they do."""
    # PEP 495: fold 0 is the earlier of two midnights, and within a gap counts by the offset before it.
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    return round(midnight.astimezone(UTC).timestamp() * 1000)


def bounds(dates: Sequence[date], zone: str) -> list[int]:
    """The first instants (ms) of successive days, and that of the day after them."""
    return [begin(day, zone) for day in (*dates, dates[-1] + timedelta(1))]


def hours(days: Sequence[int]) -> list[int]:
    """The instants (ms) at which each hour of successive days begins, and the last day ends, given their `bounds`.

    Where clocks were changed by half an hour the last hour of the day has half.
    """
    found = [at for begins, ends in pairwise(days) for at in range(begins, ends, _HOUR_MS)]
    return [*found, days[-1]]
