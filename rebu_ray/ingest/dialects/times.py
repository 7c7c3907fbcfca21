"""Times as senders write them, to milliseconds since the epoch (UTC) and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from rebu_ray.records import MAX_TIME_MS, MIN_TIME_MS

SECONDS_BELOW: Final = 100_000_000_000
"""A number below this is epoch seconds (up to the year 5138), from here on epoch milliseconds (from 1973)."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH: Final = datetime(1970, 1, 1)

_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt_ ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?"
    r" ?(?:[Zz]|UTC|GMT|([+-])(\d\d):?(\d\d)?)?)?",
    re.ASCII,
)
_NUMBER = re.compile(r"-?\d{1,30}(?:\.\d{1,30})?", re.ASCII)
_COMMON_LOG = re.compile(r"(\d\d)/(\w{3})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d):?(\d\d)", re.ASCII)
_NGINX_ERROR = re.compile(r"(\d{4})/(\d\d)/(\d\d) (\d\d):(\d\d):(\d\d)", re.ASCII)
_APACHE_ERROR = re.compile(r"\w{3} (\w{3}) +(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.(\d+))? (\d{4})", re.ASCII)
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}


class NotATimeError(ValueError):
    """What stands where a time should stand is none, or lies outside 1970 to 9999."""


def milliseconds(value: object) -> int:
    """Milliseconds of an RFC 3339 text (any offset, none means UTC), of a common log's time, or of a number.

    A number, which may come as text, is epoch seconds or milliseconds. Raises NotATimeError.
    """
    if isinstance(value, str):
        # The shape of nearly every time that comes in. The C parser takes other shapes too, so the frame is checked.
        if len(value) > 18 and value[4] == "-" and value[7] == "-" and value[10] in "T ":
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                return _rare_text(value)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            since = moment - _EPOCH
            return _bounded((since.days * 86400 + since.seconds) * 1000 + since.microseconds // 1000)
        return _rare_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    raise NotATimeError("neither text nor number")


def text(ms: int) -> str:
    """RFC 3339 in UTC with milliseconds: ``2026-03-01T08:00:00.000Z``."""
    return (_NAIVE_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds") + "Z"


def common_log(value: str) -> int:
    """Milliseconds of ``01/Mar/2026:08:00:00 +0100``. Raises NotATimeError."""
    match = _COMMON_LOG.fullmatch(value)
    if match is None or match[2] not in _MONTHS:
        raise NotATimeError("not day/Mon/year:hour:minute:second offset")
    day, month, year, hour, minute, second, sign, hours, minutes = match.groups()
    offset = _offset(sign, hours, minutes)
    return _assembled(int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), "", offset)


def nginx_error(value: str) -> int:
    """Milliseconds of ``2026/03/01 08:00:00``, which names no zone and is taken as UTC. Raises NotATimeError."""
    match = _NGINX_ERROR.fullmatch(value)
    if match is None:
        raise NotATimeError("not year/month/day hour:minute:second")
    year, month, day, hour, minute, second = map(int, match.groups())
    return _assembled(year, month, day, hour, minute, second, "", 0)


def apache_error(value: str) -> int:
    """Milliseconds of ``Sun Mar 01 08:00:00.123456 2026``, taken as UTC. Raises NotATimeError."""
    match = _APACHE_ERROR.fullmatch(value)
    if match is None or match[1] not in _MONTHS:
        raise NotATimeError("not weekday Mon day hour:minute:second year")
    month, day, hour, minute, second, fraction, year = match.groups(default="")
    return _assembled(int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), fraction, 0)


def _rare_text(value: str) -> int:
    value = value.strip()
    if value[2:3] == "/":
        return common_log(value)
    if _NUMBER.fullmatch(value):
        return _number(float(value))
    match = _RFC_3339.fullmatch(value)
    if match is None:
        raise NotATimeError("neither RFC 3339 nor a number")
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = match.groups(default="0")
    offset = _offset(sign, hours, minutes)
    return _assembled(int(year), int(month), int(day), int(hour), int(minute), int(second), fraction, offset)


def _assembled(year: int, month: int, day: int, hour: int, minute: int, second: int, fraction: str, offset: int) -> int:
    leap = second == 60  # RFC 3339 allows it; it is the same instant as the next minute's first second
    try:
        moment = datetime(year, month, day, hour, minute, 59 if leap else second)
    except ValueError as error:
        raise NotATimeError(str(error)) from error
    found = (moment - _NAIVE_EPOCH) // timedelta(milliseconds=1) + (1000 if leap else int((fraction + "000")[:3]))
    return _bounded(found - offset)


def _offset(sign: str, hours: str, minutes: str) -> int:
    if int(hours) > 23 or int(minutes) > 59:
        raise NotATimeError("its offset is none")
    ahead = (int(hours) * 60 + int(minutes)) * 60_000
    return -ahead if sign == "-" else ahead


def _number(value: float) -> int:
    # Compared first: infinities and not-a-number end here too.
    if not MIN_TIME_MS <= value <= MAX_TIME_MS:
        raise NotATimeError("outside 1970 to 9999")
    return round(value * 1000) if value < SECONDS_BELOW else int(value)


def _bounded(ms: int) -> int:
    if not MIN_TIME_MS <= ms <= MAX_TIME_MS:
        raise NotATimeError("outside 1970 to 9999")
    return ms
