"""Reporting gaps: days on which rides of some hours never came, which says nothing of the riders.

Hours without a single ride are a gap where so many were to be expected in them, by the same hours of the same weekday
in the weeks around, that chance does not explain it: a source was away, or the platform was, and nobody sent what it
missed later. What came later fills the hours, and the day counts again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from rebu_ray.process.forecast.series import WEEK, Numbers

_HOURS: Final = 24
_CHANCE: Final = 16.0
"""Hours in which so many are to be expected are all empty by chance once in some million times."""
_AROUND: Final = 4
"""Weeks before and after that tell what was to be expected."""
_FEWEST: Final = 2
"""Such weeks that have to be known at least."""
_WORTH: Final = 0.03
"""A gap with a smaller part of the day's rides changes nothing."""


def missing_days(first: date, rides: Sequence[int], edges: Sequence[int], days: Sequence[int]) -> tuple[date, ...]:
    """The days with a gap. `rides` are those between each edge (ms) and the next, hour by hour; `days` are the first
    instants of the days from `first`, and of the one after them.
    """
    hours = by_hour(rides, edges, days)
    usual = np.where(np.isnan(hours), 0.0, _usual(hours))
    expected = usual.ravel()
    # An hour that a day does not have parts nothing: what is empty before and after it is one gap.
    turns = np.diff(np.concatenate([[0], ~(hours.ravel() > 0), [0]]))
    found: set[int] = set()
    for start, end in zip(np.flatnonzero(turns == 1).tolist(), np.flatnonzero(turns == -1).tolist(), strict=True):
        if expected[start:end].sum() < _CHANCE:
            continue
        for number in range(start // _HOURS, (end - 1) // _HOURS + 1):
            low, high = max(start - number * _HOURS, 0), min(end - number * _HOURS, _HOURS)
            if usual[number, low:high].sum() > _WORTH * usual[number].sum():
                found.add(number)
    return tuple(first + timedelta(number) for number in sorted(found))


def by_hour(rides: Sequence[int], edges: Sequence[int], days: Sequence[int]) -> Numbers:
    """Rides of the hours of each day: (days, 24). What is beyond 24 hours of a day counts with the last one; NaN is an
    hour that a day does not have.
    """
    begin = np.array(edges[:-1], np.int64)
    starts = np.array(days, np.int64)
    number = np.searchsorted(starts, begin, "right") - 1
    hour = np.minimum((begin - starts[number]) // 3_600_000, _HOURS - 1)
    found = np.full((len(days) - 1, _HOURS), np.nan)
    found[number, hour] = 0.0
    np.add.at(found, (number, hour), np.array(rides, np.float64))
    return found


def _usual(hours: Numbers) -> Numbers:
    """What is to be expected of each hour: the lesser of what the weeks before and those after tell, so that neither
    growth nor decline looks like a gap. Days without any ride tell nothing, and nothing is expected before the first.
    """
    count = len(hours)
    some = np.flatnonzero(np.nansum(hours, axis=1) > 0)
    known = np.where((np.nansum(hours, axis=1) > 0)[:, None], np.nan_to_num(hours), np.nan)
    padded = np.full((count + 2 * _AROUND * WEEK, _HOURS), np.nan)
    padded[_AROUND * WEEK : _AROUND * WEEK + count] = known
    sides = [
        _median(np.stack([padded[(_AROUND + sign * n) * WEEK :][:count] for n in range(1, _AROUND + 1)]))
        for sign in (-1, 1)
    ]
    found: Numbers = np.nan_to_num(np.fmin(*sides))
    found[: some[0] if len(some) else count] = 0.0
    return found


def _median(weeks: Numbers) -> Numbers:
    """Of the known ones of several weeks, NaN where there are too few."""
    few: npt.NDArray[np.bool_] = (~np.isnan(weeks)).sum(axis=0) < _FEWEST
    found: Numbers = np.full(few.shape, np.nan)
    found[~few] = np.nanmedian(weeks[:, ~few], axis=0)
    return found
