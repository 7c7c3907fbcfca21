"""Forecasts that are kept: fitted by a task when the history behind a question has changed, never by who asks.

The forecasts of current days are kept beside the cursors, a file a day for each zone and horizon, so that what was
expected can be shown beside what came.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import ray

from rebu_ray.process.forecast.choice import Forecast
from rebu_ray.process.forecast.question import Kept, Known, Past, Question, of_hours
from rebu_ray.process.forecast.series import LONGEST
from rebu_ray.process.tasks import forecast_task, rides_task
from rebu_ray.store.cursor import Cursors
from rebu_ray.store.lake import LakeError
from rebu_ray.zones import bounds, hours

log = logging.getLogger("rebu.forecasts")

FOLDER: Final = "forecasts"
_DAYS_KEPT: Final = 62
_PAST_DAYS: Final = 31
_REMEMBERED: Final = 64
_ASKED: Final = "forecasts-asked"
_ASKED_DAYS: Final = 7
_REFRESH_SECONDS: Final = 600.0
_AT_ONCE: Final = 2
"""Fits under way at a time."""


class _Key(NamedTuple):
    zone: str
    days: int
    today: date

    @property
    def folder(self) -> str:
        return f"{FOLDER}/{self.zone.replace('/', '~')}-{self.days}"


Held = TypeVar("Held")
Rides = Callable[[Sequence[int]], Awaitable[list[int]]]
"""Rides between each edge (ms) and the next."""


def ray_rides(lake_uri: str, partitions: int) -> Rides:
    """Count in a task what is in the lake. Raises RayError."""

    async def counted(edges: Sequence[int]) -> list[int]:
        found: list[int] = await rides_task.remote(lake_uri, partitions, edges)
        return found

    return counted


async def ray_fit(question: Question) -> Forecast:
    """Fit where there is room for it. Raises RayError."""
    found: Any = await forecast_task.remote(question)
    return msgspec.msgpack.decode(found, type=Forecast)


class Forecasts:
    """All forecasts of a platform, on the loop of its coordinator."""

    def __init__(
        self,
        cursors: Cursors,
        rides: Rides,
        fit: Callable[[Question], Awaitable[Forecast]] = ray_fit,
        country: str = "",
    ) -> None:
        """`country` is the one whose holidays count."""
        self._cursors = cursors
        self._rides = rides
        self._fit = fit
        self._country = country
        self._daily: asyncio.Task[None] | None = None
        self._asked: dict[tuple[str, int], date] = {}
        self._noting = asyncio.Lock()
        self._known: OrderedDict[_Key, Kept] = OrderedDict()
        self._under_way: dict[_Key, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._saves = 0
        self._past = lru_cache(maxsize=_REMEMBERED)(self._read_past)

    async def ask(self, question: Question, is_now: bool, wait_seconds: float) -> Known:
        """What is known of a question; what is not of its history is fitted, for which a moment is waited.

        `is_now` tells that its today is the current date: only then it is kept, for nobody could have asked
        otherwise on that day.
        """
        question = msgspec.structs.replace(question, country=self._country)
        key = _Key(question.zone, question.days, question.today)
        if is_now:
            await self._note(key)
        kept = await self._load(key)
        if kept is None or kept.digest != question.digest:
            # The fit goes on when nobody waits any more.
            await asyncio.wait([self._begun(key, question, is_now)], timeout=wait_seconds)
            kept = self._known.get(key, kept)
        past = await asyncio.to_thread(self._past, key, self._saves)
        return Known(kept, kept is not None and kept.digest == question.digest, list(past))

    def resume(self) -> None:
        """Begin each day with the forecasts that were asked for in the past week, in the background."""
        if self._daily is None:
            self._daily = asyncio.create_task(self._every_day())

    def close(self) -> None:
        """Stop."""
        for task in (self._daily, *self._under_way.values()):
            if task is not None:
                task.cancel()

    async def refresh(self, now: datetime) -> int:
        """Fit what was asked for of late and is not fitted for the current date; how many."""
        done = 0
        for (zone, days), asked in (await asyncio.to_thread(self._noted)).items():
            today = now.astimezone(ZoneInfo(zone)).date()
            key = _Key(zone, days, today)
            if (today - asked).days > _ASKED_DAYS or await self._load(key) is not None:
                continue
            first = today - timedelta(LONGEST)
            dates = [first + timedelta(n) for n in range(LONGEST)]
            begins = await asyncio.to_thread(bounds, dates, zone)
            found = of_hours(zone, today, days, first, begins, await self._rides(hours(begins)))
            question = msgspec.structs.replace(found, country=self._country)
            await asyncio.wait([self._begun(key, question, True)])
            done += 1
        return done

    async def _every_day(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            try:
                await self.refresh(datetime.now(UTC))
            except (ray.exceptions.RayError, OSError, LakeError) as error:
                log.warning("the forecasts of the day are tried again later: %s", error)

    def _noted(self) -> dict[tuple[str, int], date]:
        """When which zones and horizons were last asked for."""
        return self._read(_ASKED, dict[tuple[str, int], date]) or {}

    async def _note(self, key: _Key) -> None:
        """Remember that a forecast was asked for today."""
        async with self._noting:
            if self._asked.get((key.zone, key.days)) == key.today:
                return
            self._asked[key.zone, key.days] = key.today
            try:
                noted = await asyncio.to_thread(self._noted) | self._asked
                of_late = {name: asked for name, asked in noted.items() if (key.today - asked).days <= _ASKED_DAYS}
                await asyncio.to_thread(self._cursors.save, _ASKED, msgspec.msgpack.encode(of_late))
            except OSError as error:
                log.warning("that a forecast was asked for is not kept: %s", error)

    def _begun(self, key: _Key, question: Question, is_now: bool) -> asyncio.Task[None]:
        """The fit that is under way for a key, or else a new one: one at a time."""
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._refresh(key, question, is_now))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return task

    async def _refresh(self, key: _Key, question: Question, is_now: bool) -> None:
        try:
            async with self._room:
                forecast = await self._fit(question)
        except ray.exceptions.RayError as error:
            log.warning("no forecast for %s, %d days: %s", key.zone, key.days, error)
            return
        kept = Kept(question.digest, time.time_ns() // 1_000_000, forecast)
        self._remember(key, kept)
        if is_now:
            try:
                await asyncio.to_thread(self._save, key, kept)
            except OSError as error:
                log.warning("the forecast for %s is not kept: %s", key.zone, error)
            finally:
                self._saves += 1

    def _remember(self, key: _Key, kept: Kept) -> None:
        self._known[key] = kept
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    async def _load(self, key: _Key) -> Kept | None:
        if key not in self._known:
            kept = await asyncio.to_thread(self._read, f"{key.folder}/{key.today}", Kept)
            if kept is None:
                return None
            self._remember(key, kept)
        return self._known[key]

    def _save(self, key: _Key, kept: Kept) -> None:
        self._cursors.save(f"{key.folder}/{key.today}", msgspec.msgpack.encode(kept))
        for name in self._cursors.names(key.folder)[:-_DAYS_KEPT]:
            self._cursors.remove(f"{key.folder}/{name}")

    def _read(self, name: str, kind: type[Held]) -> Held | None:
        """What is kept under a name; None where nothing is, or nothing that can be read."""
        data = self._cursors.load(name)
        if data is None:
            return None
        try:
            return msgspec.msgpack.decode(data, type=kind)
        except msgspec.DecodeError as error:
            log.warning("what is kept as %s cannot be read, and goes unused: %s", name, error)
            return None

    def _read_past(self, key: _Key, saves: int) -> tuple[Past, ...]:
        """Of the days before today what was expected of each when it was last looked ahead to, oldest first.

        As it was after so many saves: nobody else writes these files.
        """
        found: dict[date, Past] = {}
        for name in self._cursors.names(key.folder):
            made = date.fromisoformat(name)
            if made >= key.today or (key.today - made).days > _DAYS_KEPT:
                continue
            kept = self._read(f"{key.folder}/{name}", Kept)
            if kept is None:
                continue
            for day in kept.forecast.items:
                if day.date < key.today:
                    found[day.date] = Past(day, made)
        return tuple(found[day] for day in sorted(found))[-_PAST_DAYS:]
