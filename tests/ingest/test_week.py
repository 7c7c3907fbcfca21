"""What is learned of a week, with clocks of our own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.clock import ClockError, week_clock
from rebu_ray.ingest.week import STEP_MS, STEPS, Expected, Saved, Week, step_of

MINUTE_MS = 60_000
BERLIN = ZoneInfo("Europe/Berlin")


def ms(text: str) -> int:
    return round(1000 * datetime.fromisoformat(text).timestamp())


def lived(week: Week, begin: int, end: int, at_once: float, bytes_s: float = 0.0) -> int:
    """Look every ten seconds; how many steps ended."""
    return sum(week.observe(at, at_once, bytes_s) for at in range(begin, end + 1, 10_000))


def test_a_step_is_the_average_of_what_was_seen_in_it() -> None:
    week, begin = Week("UTC"), ms("2026-03-02T08:00:00Z")
    lived(week, begin, begin + 2 * MINUTE_MS, 10, 1000)
    lived(week, begin + 2 * MINUTE_MS + 10_000, begin + 5 * MINUTE_MS, 20, 2000)
    found = week.saved().steps
    assert list(found) == [step_of(begin, ZoneInfo("UTC"))]
    (step,) = found.values()
    assert step.at_once == pytest.approx(16, abs=0.4)
    assert step.bytes_s == pytest.approx(100 * step.at_once)


def test_the_most_of_all_steps_until_then_is_expected() -> None:
    week, begin = Week("UTC"), ms("2026-03-02T08:00:00Z")
    for step, at_once in enumerate((1, 2, 50, 3, 3)):
        lived(week, begin + step * STEP_MS + 1, begin + (step + 1) * STEP_MS, at_once)
    later = begin + 7 * 86_400_000
    assert week.expected(later, later).at_once == pytest.approx(1)
    assert week.expected(later, later + STEP_MS).at_once == pytest.approx(2, abs=0.1)
    assert week.expected(later, later + 2 * STEP_MS).at_once == pytest.approx(50, abs=2)
    assert week.expected(later + 3 * STEP_MS, later + 4 * STEP_MS).at_once == pytest.approx(3)


def test_the_newest_week_counts_as_much_as_all_before_it() -> None:
    week, begin = Week("UTC"), ms("2026-03-02T08:00:00Z")
    for number, at_once in enumerate((8, 16, 4)):
        day = begin + number * 7 * 86_400_000
        lived(week, day, day + STEP_MS, at_once)
    assert week.expected(begin, begin).at_once == pytest.approx(8)


def test_until_a_week_is_known_the_days_before_are_taken_for_it() -> None:
    week, monday = Week("UTC"), ms("2026-03-02T08:00:00Z")
    assert week.expected(monday, monday + STEP_MS) == Expected()
    lived(week, monday, monday + STEP_MS, 8)
    for day in range(7):
        at = monday + day * 86_400_000
        assert week.expected(at, at).at_once == pytest.approx(8)
    wednesday = monday + 2 * 86_400_000
    lived(week, wednesday, wednesday + STEP_MS, 2)
    assert week.expected(wednesday + 86_400_000, wednesday + 86_400_000).at_once == pytest.approx(2)
    assert week.expected(monday + 86_400_000, monday + 86_400_000).at_once == pytest.approx(8)


def test_the_rush_stays_where_the_clocks_have_it() -> None:
    week, before = Week("Europe/Berlin"), ms("2026-03-23T08:00:00+01:00")
    lived(week, before, before + STEP_MS, 30)
    after = ms("2026-03-30T08:00:00+02:00")  # clocks went forward on the 29th
    assert after - before != 7 * 86_400_000
    assert week.expected(after, after).at_once == pytest.approx(30)
    assert week.expected(after + 3_600_000, after + 3_600_000) == Expected()


def test_what_was_not_seen_for_long_enough_does_not_count() -> None:
    week, begin = Week("UTC"), ms("2026-03-02T08:00:00Z")
    assert lived(week, begin + 3 * MINUTE_MS, begin + STEP_MS, 99) == 0
    assert week.saved() == Saved()
    # A platform that was down for days, and one whose clock was set back.
    assert lived(week, begin + 86_400_000, begin + 86_400_000 + 2 * MINUTE_MS, 99) == 0
    assert lived(week, begin, begin + 2 * MINUTE_MS, 99) == 0


def test_what_is_saved_is_known_again() -> None:
    week, begin = Week("UTC"), ms("2026-03-02T08:00:00Z")
    lived(week, begin, begin + 3 * STEP_MS, 7, 70)
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(week.saved()), type=Saved)
    assert Week("UTC", kept).expected(begin, begin + 2 * STEP_MS) == week.expected(begin, begin + 2 * STEP_MS)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
    st.integers(0, 10 * 86_400_000),
)
def test_every_instant_has_its_step_and_expectations_never_fail(begin: datetime, length: int) -> None:
    at = round(1000 * begin.timestamp())
    assert 0 <= step_of(at, BERLIN) < STEPS
    week = Week("Europe/Berlin")
    week.observe(at, 5, 50)
    week.observe(at + min(length, STEP_MS), 5, 50)
    week.observe(at + length, 5, 50)
    found = week.expected(at, at + length)
    assert found.at_once in (0, pytest.approx(5))


def test_a_clock_for_rehearsals() -> None:
    wall = ms("2026-11-20T09:00:00Z") / 1000
    now, speed = week_clock("2026-03-02T05:00:00Z*60@2026-11-20T09:00:00Z", lambda: wall)
    assert (now(), speed) == (ms("2026-03-02T05:00:00Z"), 60)
    wall += 10
    assert now() == ms("2026-03-02T05:10:00Z")
    real, speed = week_clock("", lambda: wall)
    assert (real(), speed) == (ms("2026-11-20T09:00:10Z"), 1)


@pytest.mark.parametrize(
    "text",
    [
        "60",
        "2026-03-02T05:00:00Z*60",
        "2026-03-02T05:00:00*60@2026-11-20T09:00:00Z",
        "2026-03-02T05:00:00Z*60@2026-11-20T09:00:00",
        "2026-03-02T05:00:00Z*0@2026-11-20T09:00:00Z",
        "soon*2@now",
    ],
)
def test_what_is_no_clock(text: str) -> None:
    with pytest.raises(ClockError, match="no clock"):
        week_clock(text)


def test_the_week_has_no_hole() -> None:
    begin = datetime(2026, 3, 2, tzinfo=UTC)
    steps = [
        step_of(round(1000 * (begin + timedelta(minutes=5 * n)).timestamp()), ZoneInfo("UTC")) for n in range(STEPS)
    ]
    assert steps == list(range(STEPS))
