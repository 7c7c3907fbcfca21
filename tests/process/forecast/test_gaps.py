"""Reporting gaps: hours whose rides never came are found; what chance, nights and growth do is not taken for one."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.process.forecast.gaps import by_hour, missing_days
from rebu_ray.process.forecast.question import answered, of_hours
from rebu_ray.zones import bounds, hours
from tests.records import seeded

FIRST = date(2026, 1, 5)
DAY = np.array([2, 1, 0, 0, 1, 3, 9, 20, 25, 18, 12, 12, 14, 15, 14, 16, 20, 28, 30, 22, 15, 12, 9, 5], float)


class History:
    """Rides by the hour of so many days in a zone."""

    def __init__(self, days: int, zone: str = "UTC", level: float = 1.0, seed: int = 1) -> None:
        self.days = [FIRST + timedelta(n) for n in range(days)]
        self.begins = bounds(self.days, zone)
        self.edges = hours(self.begins)
        hour = [(at - FIRST_MS) // 3_600_000 % 24 for at in self.edges[:-1]]
        self.rides = np.random.default_rng(seed).poisson(level * DAY[hour])

    def missing(self) -> list[int]:
        found = missing_days(FIRST, self.rides.tolist(), self.edges, self.begins)
        return [(day - FIRST).days for day in found]

    def lose(self, day: int, start: int, end: int) -> None:
        self.rides[day * 24 + start : day * 24 + end] = 0


FIRST_MS = bounds([FIRST], "UTC")[0]


@seeded
@given(st.integers(0, 999), st.sampled_from([0.02, 0.3, 1.0, 20.0]))
def test_chance_and_quiet_nights_are_no_gaps(seed: int, level: float) -> None:
    assert History(70, level=level, seed=seed).missing() == []


@seeded
@given(st.integers(0, 69), st.integers(6, 20), st.integers(3, 24))
def test_hours_that_never_came_are_a_gap_wherever_they_lie(day: int, start: int, count: int) -> None:
    history = History(70)
    history.lose(day, start, min(start + count, 24))
    assert history.missing() == [day]


def test_a_gap_over_midnight_takes_the_days_of_which_it_takes_a_part() -> None:
    history = History(70)
    history.lose(30, 17, 24)
    history.lose(31, 0, 9)
    # Of the next day little is missing: two rides at three in the morning.
    history.lose(50, 15, 24)
    history.lose(51, 0, 3)
    assert history.missing() == [30, 31, 50]


def test_what_comes_late_fills_the_gap() -> None:
    history = History(70)
    late = history.rides[30 * 24 + 10 : 30 * 24 + 20].copy()
    history.lose(30, 10, 20)
    assert history.missing() == [30]
    history.rides[30 * 24 + 10 : 30 * 24 + 20] = late // 2
    assert history.missing() == []


def test_an_hour_of_a_large_platform_is_not_worth_a_day() -> None:
    history = History(70, level=50)
    history.lose(30, 3, 5)
    assert history.missing() == []


def test_a_platform_that_grows_or_ends_has_no_gaps() -> None:
    history = History(70)
    history.rides[: 20 * 24] = 0
    history.rides[60 * 24 :] = 0
    assert [day for day in history.missing() if 0 < day < 60] == []
    grown = History(70, level=40)
    grown.rides[: 35 * 24] //= 40
    assert grown.missing() == []


@pytest.mark.parametrize("zone", ["Europe/Riga", "America/St_Johns", "Australia/Lord_Howe"])
def test_days_of_23_and_25_hours_have_no_gaps_of_their_own(zone: str) -> None:
    for level in (1.0, 30.0):
        history = History(330, zone, level)
        assert history.missing() == []
        table = by_hour(history.rides.tolist(), history.edges, history.begins)
        assert np.nansum(table) == history.rides.sum()
        assert {int(np.isnan(row).sum()) for row in table} <= {0, 1}


def test_a_gap_is_not_learned() -> None:
    history = History(60)
    today = FIRST + timedelta(60)

    def said() -> list[float]:
        question = of_hours("UTC", today, 7, FIRST, history.begins, history.rides.tolist())
        return [day.mean for day in answered(question).items]

    whole = said()
    for day in range(48, 60, 3):
        history.lose(day, 7, 21)
    assert said() == pytest.approx(whole, rel=0.1)


def test_no_history_has_no_gaps() -> None:
    assert missing_days(FIRST, [], [FIRST_MS], [FIRST_MS]) == ()
