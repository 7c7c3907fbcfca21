"""Forecasts that are kept: fitted once for a history, anew for another, and never in the way of who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import ray

from rebu_ray.ingest.forecasts import Forecasts
from rebu_ray.process.forecast.choice import Forecast
from rebu_ray.process.forecast.question import Question, at_once
from rebu_ray.store.cursor import Cursors

TODAY = date(2026, 3, 2)
DAY = timedelta(1)


def question(today: date = TODAY, rides: int = 10, zone: str = "Europe/Riga") -> Question:
    return Question(zone, today, 5, today - timedelta(30), tuple(rides + n % 7 for n in range(30)))


async def no_rides(edges: Sequence[int]) -> list[int]:
    raise AssertionError("nobody is to count rides")


class Fits:
    """What is fitted, when it may be."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.may = asyncio.Event()
        self.may.set()
        self.failing = False

    async def __call__(self, asked: Question) -> Forecast:
        self.asked.append(asked)
        await self.may.wait()
        if self.failing:
            raise ray.exceptions.WorkerCrashedError
        return at_once(asked)


def test_a_history_is_fitted_once_and_another_anew(tmp_path: Path) -> None:
    async def scene() -> None:
        fits = Fits()
        forecasts = Forecasts(Cursors(str(tmp_path)), no_rides, fits)
        first = await forecasts.ask(question(), True, 5)
        assert (first.current, first.past) == (True, [])
        assert first.kept is not None
        assert first.kept.forecast == at_once(question())
        assert await forecasts.ask(question(), True, 5) == first
        # A restart knows it as well.
        again = Forecasts(Cursors(str(tmp_path)), no_rides, fits)
        assert await again.ask(question(), True, 5) == first
        assert len(fits.asked) == 1
        changed = await again.ask(question(rides=11), True, 5)
        assert changed.current
        assert changed.kept != first.kept
        assert len(fits.asked) == 2

    asyncio.run(scene())


def test_nobody_waits_longer_than_told_and_what_was_known_is_said_meanwhile(tmp_path: Path) -> None:
    async def scene() -> None:
        fits = Fits()
        forecasts = Forecasts(Cursors(str(tmp_path)), no_rides, fits)
        fits.may.clear()
        nothing = await asyncio.gather(*(forecasts.ask(question(), True, 0.01) for _ in range(3)))
        assert [known.kept for known in nothing] == [None] * 3
        assert len(fits.asked) == 1
        fits.may.set()
        first = await forecasts.ask(question(), True, 5)
        assert first.current
        fits.may.clear()
        stale = await forecasts.ask(question(rides=50), True, 0.01)
        assert (stale.kept, stale.current) == (first.kept, False)
        fits.may.set()
        assert (await forecasts.ask(question(rides=50), True, 5)).current

    asyncio.run(scene())


def test_a_fit_that_fails_is_tried_again_by_the_next_question(tmp_path: Path) -> None:
    async def scene() -> None:
        fits = Fits()
        fits.failing = True
        forecasts = Forecasts(Cursors(str(tmp_path)), no_rides, fits)
        assert (await forecasts.ask(question(), True, 5)).kept is None
        fits.failing = False
        assert (await forecasts.ask(question(), True, 5)).current

    asyncio.run(scene())


def test_what_was_expected_of_days_before_today_is_kept(tmp_path: Path) -> None:
    async def scene() -> None:
        forecasts = Forecasts(Cursors(str(tmp_path)), no_rides, Fits())
        made = {}
        for n in (3, 2, 0):
            today = TODAY - timedelta(n)
            known = await forecasts.ask(question(today), True, 5)
            assert known.kept is not None
            made[today] = {day.date: day for day in known.kept.forecast.items}
        past = (await forecasts.ask(question(), True, 5)).past
        days = [TODAY - timedelta(n) for n in (2, 1)]
        assert [item.day.date for item in past] == days
        assert [item.made for item in past] == [TODAY - timedelta(3), TODAY - timedelta(2)]
        assert [item.day for item in past] == [made[item.made][item.day.date] for item in past]
        # Other zones, and days that nobody lived through, are none of it.
        assert (await forecasts.ask(question(zone="UTC"), True, 5)).past == []
        await forecasts.ask(question(TODAY + timedelta(9)), False, 5)
        assert (await forecasts.ask(question(TODAY + timedelta(10)), False, 5)).past[-1].made == TODAY

    asyncio.run(scene())


def test_a_day_begins_with_what_was_asked_for_of_late(tmp_path: Path) -> None:
    counted: list[tuple[int, int]] = []

    async def rides(edges: Sequence[int]) -> list[int]:
        counted.append((edges[0], edges[-1]))
        return [0] * (len(edges) - 1 - 30 * 24) + [2] * 30 * 24

    async def scene() -> None:
        fits = Fits()
        forecasts = Forecasts(Cursors(str(tmp_path)), rides, fits, "LV")
        assert await forecasts.refresh(datetime(2026, 3, 2, 12, tzinfo=UTC)) == 0
        await forecasts.ask(question(), True, 5)
        await forecasts.ask(question(zone="UTC"), False, 5)
        # It is the third of March in Riga only.
        assert await forecasts.refresh(datetime(2026, 3, 2, 21, tzinfo=UTC)) == 0
        assert await forecasts.refresh(datetime(2026, 3, 2, 23, tzinfo=UTC)) == 1
        assert await forecasts.refresh(datetime(2026, 3, 2, 23, tzinfo=UTC)) == 0
        asked = fits.asked[-1]
        assert (asked.zone, asked.today, asked.days, asked.country) == ("Europe/Riga", date(2026, 3, 3), 5, "LV")
        assert asked.counts[-31:] == (0, *[48] * 30)
        assert counted[0][1] == round(datetime(2026, 3, 2, 22, tzinfo=UTC).timestamp() * 1000)
        assert await forecasts.refresh(datetime(2026, 3, 12, tzinfo=UTC)) == 0

    asyncio.run(scene())


def test_what_cannot_be_read_is_named_and_goes_unused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        cursors = Cursors(str(tmp_path))
        before = Forecasts(cursors, no_rides, Fits())
        for n in (2, 1, 0):
            await before.ask(question(TODAY - timedelta(n)), True, 5)
        broken = ["forecasts-asked", f"forecasts/Europe~Riga-5/{TODAY}", f"forecasts/Europe~Riga-5/{TODAY - DAY}"]
        for name in broken:
            cursors.save(name, b"\xc1 half")
        fits = Fits()
        forecasts = Forecasts(cursors, no_rides, fits)
        assert await forecasts.refresh(datetime(2026, 3, 2, 12, tzinfo=UTC)) == 0
        known = await forecasts.ask(question(), True, 5)
        assert (known.current, len(fits.asked)) == (True, 1)
        assert [item.made for item in known.past] == [TODAY - 2 * DAY]
        assert all(any(name in message for message in caplog.messages) for name in broken)
        # What was fitted and noted since is in its place.
        again = Forecasts(cursors, no_rides, fits)
        assert (await again.ask(question(), True, 5)).kept == known.kept
        assert len(fits.asked) == 1

    asyncio.run(scene())


def test_earlier_days_are_read_once_until_something_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    load = Cursors.load

    def noted(cursors: Cursors, name: str) -> bytes | None:
        read.append(name)
        return load(cursors, name)

    async def scene() -> None:
        forecasts = Forecasts(Cursors(str(tmp_path)), no_rides, Fits())
        await forecasts.ask(question(TODAY - 2 * DAY), True, 5)
        first = await forecasts.ask(question(), True, 5)
        monkeypatch.setattr(Cursors, "load", noted)
        assert await forecasts.ask(question(), True, 5) == first
        assert read == []
        # Fitted for yesterday, and done only now.
        await forecasts.ask(question(TODAY - DAY), True, 5)
        past = (await forecasts.ask(question(), True, 5)).past
        assert [item.made for item in past] == [TODAY - 2 * DAY]
        assert f"forecasts/Europe~Riga-5/{TODAY - DAY}" in read

    asyncio.run(scene())


@pytest.mark.parametrize("days", [70])
def test_old_forecasts_are_let_go(tmp_path: Path, days: int) -> None:
    async def scene() -> None:
        cursors = Cursors(str(tmp_path))
        forecasts = Forecasts(cursors, no_rides, Fits())
        for n in range(days):
            await forecasts.ask(question(TODAY + timedelta(n)), True, 5)
        assert len(cursors.names("forecasts/Europe~Riga-5")) == 62

    asyncio.run(scene())
