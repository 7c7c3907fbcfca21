"""Days of time zones: they begin where the calendar of the zone says, and what is asked for is checked."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.access.days import Days, asked
from rebu_ray.records import BadRequest
from rebu_ray.zones import bounds
from tests.records import seeded

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Africa/Monrovia",
)


def clock() -> datetime:
    return datetime(2026, 3, 29, 23, 30, tzinfo=UTC)


@seeded
@given(st.sampled_from(ZONES), st.dates(date(1970, 1, 10), date(2037, 12, 1)), st.integers(1, 400), st.data())
def test_an_instant_is_in_the_span_of_its_date(zone: str, today: date, count: int, data: st.DataObject) -> None:
    dates = Days(count, zone, today).dates()
    edges = bounds(dates, zone)
    assert dates[-1] == today
    assert all(b - a == timedelta(1) for a, b in itertools.pairwise(dates))
    assert edges == sorted(edges)
    for edge in data.draw(st.lists(st.sampled_from(edges[:-1]), max_size=5)):
        for at in (edge - 1, edge, edge + data.draw(st.integers(0, 90_000_000))):
            local = datetime.fromtimestamp(at / 1000, UTC).astimezone(ZoneInfo(zone)).date()
            span = sum(e <= at for e in edges) - 1
            if 0 <= span < len(dates):
                assert dates[span] == local
            else:
                assert local not in dates


def test_days_on_which_clocks_are_changed_are_an_hour_shorter_and_longer() -> None:
    spring = bounds([date(2026, 3, 28), date(2026, 3, 29), date(2026, 3, 30)], "Europe/Berlin")
    autumn = bounds([date(2026, 10, 25)], "Europe/Berlin")
    assert [(b - a) // 3_600_000 for a, b in itertools.pairwise(spring)] == [24, 23, 24]
    assert (autumn[1] - autumn[0]) // 3_600_000 == 25


def test_today_is_that_of_the_zone() -> None:
    assert asked({}, 31, 99, clock) == Days(31, "UTC", date(2026, 3, 29))
    assert asked({"tz": "Europe/Berlin", "days": "2"}, 31, 99, clock) == Days(2, "Europe/Berlin", date(2026, 3, 30))
    assert asked({"today": "2026-01-02"}, 31, 99, clock).today == date(2026, 1, 2)


@pytest.mark.parametrize(
    ("params", "code"),
    [
        *(({"days": text}, "invalid_days") for text in ("0", "-1", "100", "many", "1.5", "٣", "", "1" * 5000)),
        *(({"tz": text}, "invalid_tz") for text in ("", "Mars/Base", "../etc/passwd", "+02:00", "europe/berlin", "\0")),
        *(
            ({"today": text}, "invalid_today")
            for text in ("", "today", "2026-02-30", "20260301", "1969-12-31", "9999-12-31", "2026-03-01T00:00:00Z")
        ),
    ],
)
def test_what_is_not_understood_is_refused(params: dict[str, str], code: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        asked(params, 31, 99, clock)
    assert (refusal.value.status, refusal.value.code) == (400, code)
