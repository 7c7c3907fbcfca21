"""Daily series: whole days up to yesterday, with gaps where nothing can be believed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

WEEK: Final = 7
LONGEST: Final = 3 * 365 + 1
"""Days of history that a forecast looks at."""
_PLAUSIBLE_ZERO: Final = 10.0
"""A day without any rides is believed where fewer than this were to be expected: of a Poisson variable with this mean
one day in 20,000 is empty, and an outage of a source is likelier than that."""


class Series(NamedTuple):
    """Counts of successive days; NaN where a day is masked."""

    first: date
    values: Numbers

    @property
    def last(self) -> date:
        return self.day(len(self.values) - 1)

    def day(self, number: int) -> date:
        """The date of a value, or of one to come."""
        return self.first + timedelta(number)

    def weekdays(self, start: int, end: int) -> npt.NDArray[np.int64]:
        """Of the days [start, end): 0 is Monday."""
        return (self.first.weekday() + np.arange(start, end)) % WEEK

    def until(self, end: int) -> Series:
        """The first values."""
        return Series(self.first, self.values[:end])


def prepared(first: date, counts: Sequence[float], missing: Collection[date] = ()) -> Series:
    """Counts of whole days as what may be learned from.

    Days before the first ride are not of the history, nor is the day of the first ride: the platform may have begun
    in the middle of it. Days that are named as `missing`, and days without rides where there ought to have been many,
    are masked: an outage of the sources says nothing of the riders.
    """
    values = np.array(counts, np.float64)
    some = np.flatnonzero(values > 0)
    start = max(int(some[0]) + 1 if len(some) else len(values), len(values) - LONGEST)
    series = Series(first + timedelta(start), values[start:])
    for number in range(len(series.values)):
        if series.day(number) in missing:
            series.values[number] = np.nan
    for number in np.flatnonzero(series.values == 0).tolist():
        around = _around(series.values, number)
        if len(around) and np.median(around) >= _PLAUSIBLE_ZERO:
            series.values[number] = np.nan
    return series


def _around(values: Numbers, number: int) -> Numbers:
    """The same weekday of the four weeks before and after, but for empty ones, which may be of the same outage."""
    same = values[number % WEEK :: WEEK]
    own = number // WEEK
    near = np.concatenate([same[max(own - 4, 0) : own], same[own + 1 : own + 5]])
    return near[near > 0]


def weekday_means(series: Series, horizon: int, weeks: int = 4) -> Numbers:
    """For each day to come the mean of the last known four of its weekday; of all days where none is known."""
    known = series.values[~np.isnan(series.values)]
    other = float(np.mean(known[-weeks * WEEK :])) if len(known) else 0.0
    profile = np.full(WEEK, other)
    weekdays = series.weekdays(0, len(series.values))
    for weekday in range(WEEK):
        same = series.values[weekdays == weekday]
        same = same[~np.isnan(same)][-weeks:]
        if len(same):
            profile[weekday] = same.mean()
    end = len(series.values)
    return profile[series.weekdays(end, end + horizon)]


def filled(series: Series) -> Numbers:
    """The values with gaps closed by the mean of the same weekday near by."""
    values = series.values.copy()
    gaps = np.flatnonzero(np.isnan(values))
    known = values[~np.isnan(values)]
    for number in gaps.tolist():
        same = series.values[number % WEEK :: WEEK]
        own = number // WEEK
        near = same[max(own - 4, 0) : own + 5]
        near = near[~np.isnan(near)]
        values[number] = near.mean() if len(near) else known.mean() if len(known) else 0.0
    return values


def counts_of(logs: Numbers, series: Series) -> Numbers:
    """Forecasts of log(1 + y) as counts: nothing below zero, and nothing beyond three times what was ever seen."""
    most = 3 * float(np.nanmax(series.values, initial=0.0)) + 10
    found: Numbers = np.clip(np.expm1(np.minimum(logs, 50.0)), 0.0, most)
    return found


def scale(series: Series) -> float:
    """The mean absolute error of the value of a week before, by which MASE is measured; NaN where there is none.

    R. Hyndman, A. Koehler: Another look at measures of forecast accuracy, 2006.
    """
    steps = np.abs(series.values[WEEK:] - series.values[:-WEEK])
    steps = steps[~np.isnan(steps)]
    return max(float(steps.mean()), 1e-9) if len(steps) else float("nan")
