"""Days of a time zone: what the routes of daily numbers ask for, and the instants at which the days begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from rebu_ray.records import BadRequest

FIRST: Final = date(1970, 1, 2)
LAST: Final = date(9998, 12, 31)
"""Days that `today` may be: a day more or less is a date in every zone."""

Clock = Callable[[], datetime]
"""The time now, with a zone."""


class Days(NamedTuple):
    """What is asked: so many days, in a zone, up to and with today or after it."""

    days: int
    zone: str
    today: date

    def dates(self) -> list[date]:
        """The days up to and with today, oldest first; none before 1970-01-02."""
        count = min(self.days, (self.today - FIRST).days + 1)
        return [self.today - timedelta(n) for n in range(count - 1, -1, -1)]


def asked(params: Mapping[str, str], default: int, most: int, clock: Clock) -> Days:
    """`days`, `tz` and `today` of a request. Raises BadRequest 400."""
    text = params.get("days", str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= most):
        raise BadRequest(400, "invalid_days", f"days is {text!r}: it must be a whole number from 1 to {most}")
    zone = params.get("tz", "UTC")
    if zone not in _zones():
        raise BadRequest(
            400, "invalid_tz", f"tz is {zone!r}: it must be a time zone of IANA's, as Europe/Berlin or UTC"
        )
    today = clock().astimezone(ZoneInfo(zone)).date()
    if "today" in params:
        today = _date(params["today"])
    return Days(int(text), zone, today)


def utc_now() -> datetime:
    """The time now."""
    return datetime.now(UTC)


def _date(text: str) -> date:
    try:
        day = date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        day = None
    if day is None or not FIRST <= day <= LAST:
        raise BadRequest(400, "invalid_today", f"today is {text!r}: write a date from {FIRST} on, as 2026-03-01")
    return day


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
