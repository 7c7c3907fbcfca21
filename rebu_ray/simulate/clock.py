"""Instants as whole milliseconds since the epoch (UTC), and how phones and servers write them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

SECOND: Final = 1000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY

# Written out because strftime's %b and %B follow the locale of the process, and the files must not.
MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def millis(moment: datetime) -> int:
    """Milliseconds of a moment; one without a zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def moment(ms: int) -> datetime:
    """The moment of `ms`, cut to whole seconds."""
    return datetime.fromtimestamp(ms // 1000, UTC)


@lru_cache(maxsize=8192)
def _seconds_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(ms: int) -> str:
    """``2026-03-02T06:00:00.000Z``."""
    return f"{_seconds_text(ms // 1000)}.{ms % 1000:03d}Z"


def rfc3339_at(ms: int, offset_minutes: int) -> str:
    """The same instant as a phone writes it that stands `offset_minutes` east of Greenwich."""
    sign = "+" if offset_minutes >= 0 else "-"
    hours, minutes = divmod(abs(offset_minutes), 60)
    return f"{_seconds_text(ms // 1000 + offset_minutes * 60)}.{ms % 1000:03d}{sign}{hours:02d}:{minutes:02d}"


def date_text(ms: int) -> str:
    """``2 March``."""
    at = moment(ms)
    return f"{at.day} {MONTHS[at.month - 1]}"


@lru_cache(maxsize=8192)
def _combined_second(seconds: int) -> str:
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at.day:02d}/{MONTHS[at.month - 1][:3]}/{at.year}:{at:%H:%M:%S} +0000"


def combined(ms: int) -> str:
    """``02/Mar/2026:06:00:00 +0000``, the time of the combined log format (whole seconds)."""
    return _combined_second(ms // 1000)


def nginx(ms: int) -> str:
    """``2026/03/02 06:00:00``, the time of an nginx error log; the servers' clocks are on UTC."""
    return _seconds_text(ms // 1000).replace("-", "/").replace("T", " ")
