"""Forecasts that are kept: fitted by a task when the history behind a question has changed, never by who asks.

The forecasts of current days are kept beside the cursors, a file a day for each zone and horizon, so that what was
expected can be shown beside what came.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any, Final, NamedTuple

import msgspec
import ray

from rebu_ray.process.forecast.choice import Forecast
from rebu_ray.process.forecast.question import Kept, Known, Past, Question
from rebu_ray.process.tasks import forecast_task
from rebu_ray.store.cursor import Cursors

log = logging.getLogger("rebu.forecasts")

FOLDER: Final = "forecasts"
_DAYS_KEPT: Final = 62
_PAST_DAYS: Final = 31
_REMEMBERED: Final = 64
_AT_ONCE: Final = 2
"""Fits under way at a time."""


class _Key(NamedTuple):
    zone: str
    days: int
    today: date

    @property
    def folder(self) -> str:
        return f"{FOLDER}/{self.zone.replace('/', '~')}-{self.days}"


async def ray_fit(question: Question) -> Forecast:
    """Fit where there is room for it. Raises RayError."""
    found: Any = await forecast_task.remote(question)
    return msgspec.msgpack.decode(found, type=Forecast)


class Forecasts:
    """All forecasts of a platform, on the loop of its coordinator."""

    def __init__(self, cursors: Cursors, fit: Callable[[Question], Awaitable[Forecast]] = ray_fit) -> None:
        self._cursors = cursors
        self._fit = fit
        self._known: OrderedDict[_Key, Kept] = OrderedDict()
        self._under_way: dict[_Key, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def ask(self, question: Question, is_now: bool, wait_seconds: float) -> Known:
        """What is known of a question; what is not of its history is fitted, for which a moment is waited.

        `is_now` tells that its today is the current date: only then it is kept, for nobody could have asked
        otherwise on that day.
        """
        key = _Key(question.zone, question.days, question.today)
        kept = await self._load(key)
        if kept is None or kept.digest != question.digest:
            task = self._under_way.get(key)
            if task is None:
                task = asyncio.create_task(self._refresh(key, question, is_now))
                self._under_way[key] = task
                task.add_done_callback(lambda _: self._under_way.pop(key, None))
            # The fit goes on when nobody waits any more.
            await asyncio.wait([task], timeout=wait_seconds)
            kept = self._known.get(key, kept)
        past = await asyncio.to_thread(self._past, key)
        return Known(kept, kept is not None and kept.digest == question.digest, past)

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

    def _remember(self, key: _Key, kept: Kept) -> None:
        self._known[key] = kept
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    async def _load(self, key: _Key) -> Kept | None:
        if key not in self._known:
            data = await asyncio.to_thread(self._cursors.load, f"{key.folder}/{key.today}")
            if data is None:
                return None
            self._remember(key, msgspec.msgpack.decode(data, type=Kept))
        return self._known[key]

    def _save(self, key: _Key, kept: Kept) -> None:
        self._cursors.save(f"{key.folder}/{key.today}", msgspec.msgpack.encode(kept))
        for name in self._cursors.names(key.folder)[:-_DAYS_KEPT]:
            self._cursors.remove(f"{key.folder}/{name}")

    def _past(self, key: _Key) -> list[Past]:
        """Of the days before today what was expected of each when it was last looked ahead to, oldest first."""
        found: dict[date, Past] = {}
        for name in self._cursors.names(key.folder):
            made = date.fromisoformat(name)
            if made >= key.today or (key.today - made).days > _DAYS_KEPT:
                continue
            data = self._cursors.load(f"{key.folder}/{name}")
            if data is None:
                continue
            for day in msgspec.msgpack.decode(data, type=Kept).forecast.items:
                if day.date < key.today:
                    found[day.date] = Past(day, made)
        return [found[day] for day in sorted(found)][-_PAST_DAYS:]
