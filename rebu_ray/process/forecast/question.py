"""What is asked of the task that fits forecasts, and what is kept of its answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import date
from typing import Final

import msgspec
import numpy as np
import xxhash

from rebu_ray.process.forecast.choice import FORMAT, Day, Forecast, baseline, forecast
from rebu_ray.process.forecast.free_days import UnknownCountry, holidays_of
from rebu_ray.process.forecast.gaps import by_hour, missing_days
from rebu_ray.process.forecast.series import prepared
from rebu_ray.zones import hours

log = logging.getLogger("rebu.forecast")

_NOT_YET: Final = "it is being fitted; until then this is the mean of the last four same weekdays"


class Question(msgspec.Struct, frozen=True):
    """The forecast of so many days after today, by the rides of the days before it."""

    zone: str
    today: date
    days: int
    first: date
    counts: tuple[int, ...]
    """Rides of each day from `first` to the day before today."""
    country: str = ""
    """Whose holidays count."""
    missing: tuple[date, ...] = ()
    """Days on which rides of some hours never came: nothing is learned from them."""

    @property
    def digest(self) -> str:
        """Two questions with the same digest have the same answer."""
        return xxhash.xxh3_128_hexdigest(msgspec.msgpack.encode((FORMAT, self)))


class Kept(msgspec.Struct):
    """A forecast that was fitted."""

    digest: str
    made_at: int
    """In ms."""
    forecast: Forecast


class Past(msgspec.Struct):
    """What was last expected of a day before it came."""

    day: Day
    made: date
    """The day that was today then."""


class Known(msgspec.Struct):
    """What is known for a question: the forecast, if any, whether it is of this very history, and earlier ones."""

    kept: Kept | None
    current: bool
    past: list[Past]


def of_hours(zone: str, today: date, days: int, first: date, bounds: Sequence[int], rides: Sequence[int]) -> Question:
    """The question about a history from `first` on, by the rides of each of the `hours` of its days. `bounds` are the
    first instants (ms) of these, with the end of the last one.
    """
    edges = hours(bounds)
    counts = np.nansum(by_hour(rides, edges, bounds), axis=1).astype(np.int64).tolist()
    return Question(zone, today, days, first, tuple(counts), missing=missing_days(first, rides, edges, bounds))


def answered(question: Question) -> Forecast:
    """The forecast of a question. Takes a second."""
    note = None
    try:
        free = holidays_of(question.country, question.first.year, question.today.year + 1)
    except UnknownCountry as error:
        log.warning("forecast without holidays: %s", error)
        free, note = frozenset(), str(error)
    found = forecast(prepared(question.first, question.counts, question.missing), question.days, free)
    if note is not None:
        found.note = note if found.note is None else f"{found.note}; {note}"
    return found


def at_once(question: Question) -> Forecast:
    """The baseline, which needs no fitting."""
    return baseline(prepared(question.first, question.counts, question.missing), question.days, _NOT_YET)
