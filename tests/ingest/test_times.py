from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest.dialects import times
from rebu_ray.ingest.dialects.times import NotATimeError, milliseconds
from rebu_ray.records import MAX_TIME_MS
from tests.ingest.promises import seeded

EIGHT = 1_772_352_000_000
"""2026-03-01T08:00:00Z."""


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-01T08:00:00Z",
        "2026-03-01T08:00:00.000Z",
        "2026-03-01t08:00:00z",
        "2026-03-01 08:00:00Z",
        "2026-03-01T08:00:00",
        "2026-03-01T08:00Z",
        "2026-03-01T09:00:00+01:00",
        "2026-03-01T02:30:00-05:30",
        "2026-03-01T02:30:00.000000-0530",
        "2026-03-01T10:00:00+02",
        "2026-03-01 08:00:00 +0000",
        "2026-03-01 08:00:00 UTC",
        "2026-03-01 08:00:00,000",
        "2026-03-01T07:59:60Z",
        " 2026-03-01T08:00:00Z ",
        "2026-03-01 00:00:00 -0800",
        "01/Mar/2026:09:00:00 +0100",
        "28/Feb/2026:20:30:00 -1130",
        EIGHT,
        float(EIGHT),
        EIGHT // 1000,
        EIGHT / 1000,
        str(EIGHT),
        str(EIGHT // 1000),
        "1772352000.000",
    ],
)
def test_one_instant_in_many_spellings(value: object) -> None:
    assert milliseconds(value) == EIGHT


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-03-01T08:00:00.1Z", EIGHT + 100),
        ("2026-03-01T08:00:00.123456789Z", EIGHT + 123),
        ("2026-03-01T08:00:00.9999Z", EIGHT + 999),
        ("2026-03-01T08:00:00.1239999+00:00", EIGHT + 123),
        ("2026-03-01", EIGHT - 8 * 3_600_000),
        ("1970-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59.999Z", MAX_TIME_MS),
        (1_772_352_000.123, EIGHT + 123),
        (0, 0),
        (99_999_999_999, 99_999_999_999_000),
        (100_000_000_000, 100_000_000_000),
        (MAX_TIME_MS, MAX_TIME_MS),
    ],
)
def test_fractions_and_borders(value: object, expected: int) -> None:
    assert milliseconds(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "2026-13-01T08:00:00Z",
        "2026-02-30T08:00:00Z",
        "2026-03-01T25:00:00Z",
        "2026-03-01T08:61:00Z",
        "2026-03-01T08:00:00+24:00",
        "2026-03-01T08:00:00+01:00 and more",
        "2026-W09-7T08:00:00Z",
        "0001-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999Z",
        "9999-12-31T23:59:59-01:00",
        "１７７２３５２０００",
        "1e9",
        "01/Foo/2026:09:00:00 +0100",
        -1,
        MAX_TIME_MS + 1,
        10**400,
        float("inf"),
        float("-inf"),
        float("nan"),
        True,
        None,
        [],
        {},
    ],
)
def test_what_is_no_time(value: object) -> None:
    with pytest.raises(NotATimeError):
        milliseconds(value)


@seeded
@given(st.integers(0, MAX_TIME_MS))
def test_text_is_read_back(ms: int) -> None:
    written = times.text(ms)
    assert len(written) == 24
    assert milliseconds(written) == ms


def test_text() -> None:
    assert times.text(EIGHT) == "2026-03-01T08:00:00.000Z"
    assert times.text(5) == "1970-01-01T00:00:00.005Z"


@seeded
@given(
    st.datetimes(datetime(1971, 1, 1), datetime(9998, 1, 1)),
    st.integers(-23 * 60, 23 * 60),
    st.sampled_from("T "),
    st.sampled_from(["auto", "milliseconds", "microseconds", "seconds"]),
)
def test_any_offset(moment: datetime, minutes: int, separator: str, timespec: str) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    precision = timedelta(seconds=1) if timespec == "seconds" else timedelta(milliseconds=1)
    since = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // precision
    written = aware.isoformat(separator, timespec)
    assert milliseconds(written) == since * (1000 if timespec == "seconds" else 1)


@seeded
@given(st.text(max_size=40) | st.floats() | st.integers() | st.from_regex(r"[0-9:TZ.+/ -]{1,30}", fullmatch=True))
def test_anything_is_a_time_within_bounds_or_none(value: str | float) -> None:
    for parse in (milliseconds, times.common_log, times.nginx_error, times.apache_error):
        try:
            found = parse(value) if parse is milliseconds else parse(str(value))
        except NotATimeError:
            continue
        assert 0 <= found <= MAX_TIME_MS


def test_server_formats() -> None:
    assert times.common_log("01/Mar/2026:09:00:00 +0100") == EIGHT
    assert times.common_log("01/Mar/2026:07:59:60 +0000") == EIGHT
    assert times.nginx_error("2026/03/01 08:00:00") == EIGHT
    assert times.apache_error("Sun Mar 01 08:00:00 2026") == EIGHT
    assert times.apache_error("Sun Mar  1 08:00:00.123456 2026") == EIGHT + 123
