"""What forecasts are made by: each candidate makes of a series the values of the days that follow it.

All of them but the baseline and the naive one work on log(1 + y): weeks, trends and holidays multiply. Each takes a
series of at least two weeks, whose gaps it does not learn from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from rebu_ray.process.forecast import library
from rebu_ray.process.forecast.series import WEEK, Numbers, Series, counts_of, filled, weekday_means

Candidate = Callable[[Series, int], Numbers]
"""(series, horizon) -> the values of the next days."""

BASELINE: Final = "weekday_mean"
ENSEMBLE: Final = "ensemble"


def weekday_mean(series: Series, horizon: int) -> Numbers:
    """The mean of the last four same weekdays: the baseline."""
    return weekday_means(series, horizon)


def seasonal_naive(series: Series, horizon: int) -> Numbers:
    """What was a week before."""
    return weekday_means(series, horizon, 1)


def regression(series: Series, horizon: int) -> Numbers:
    """A ridge regression of each day, so many days ahead, on what was known then: levels of some weeks, the last same
    weekdays, the weekday, and the season of the year where more than one was seen.
    """
    values = np.log1p(filled(series))
    known = ~np.isnan(series.values)
    count, start = len(values), min(4 * WEEK, len(values) // 2)
    origins = np.arange(start, count)
    origin, step = (grid.ravel() for grid in np.meshgrid(origins, np.arange(1, horizon + 1), indexing="ij"))
    target = origin + step - 1
    kept = np.flatnonzero(target < count)
    kept = kept[known[target[kept]]]
    if len(kept) < 4 * WEEK:
        return weekday_means(series, horizon)
    if len(kept) > 20_000:
        kept = kept[:: len(kept) // 20_000 + 1]
    inputs, level = _inputs(series, values, origin[kept], step[kept], horizon)
    weights = _ridge(inputs, values[target[kept]] - level, 0.3 * len(kept) / np.sqrt(count))
    ahead = np.arange(1, horizon + 1)
    inputs, level = _inputs(series, values, np.full(horizon, count), ahead, horizon)
    return counts_of(level + inputs @ weights, series)


CANDIDATES: Final[dict[str, Candidate]] = {
    BASELINE: weekday_mean,
    "seasonal_naive": seasonal_naive,
    "ets": library.ets,
    "theta": library.theta,
    "arima": library.arima,
    "mstl": library.mstl,
    "regression": regression,
}
"""By name; the ensemble is made of what they say."""
JOINED: Final = (BASELINE, "ets", "theta", "arima", "mstl")
"""Whose median the ensemble is."""


_PLAIN: Final = (BASELINE, "seasonal_naive")
"""Those that take every day as it is."""
_FAR: Final = 3.0


def without_outliers(series: Series) -> Series:
    """A series whose days are no further than three deviations (by the median) from what is usual about them."""
    logs = np.log1p(filled(series))
    usual = np.empty_like(logs)
    for number in range(len(logs)):
        same = logs[max(number - 3 * WEEK, number % WEEK) : number + 3 * WEEK + 1 : WEEK]
        usual[number] = np.median(same)
    rest = logs - usual
    far = _FAR * 1.4826 * float(np.median(np.abs(rest))) + 0.02
    calm = np.expm1(usual + np.clip(rest, -far, far))
    return Series(series.first, np.where(np.isnan(series.values), np.nan, np.maximum(calm, 0.0)))


def everything(series: Series, horizon: int) -> dict[str, Numbers]:
    """What each candidate says, and the ensemble."""
    calm = without_outliers(series)
    found = {name: made(series if name in _PLAIN else calm, horizon) for name, made in CANDIDATES.items()}
    found[ENSEMBLE] = np.median([found[name] for name in JOINED], axis=0)
    return found


def _inputs(
    series: Series, values: Numbers, origin: npt.NDArray[np.int64], step: npt.NDArray[np.int64], horizon: int
) -> tuple[Numbers, Numbers]:
    """The inputs for the day `step` days after the last one known at each origin, and the level that they are about."""
    sums = np.concatenate([[0.0], np.cumsum(values)])

    def mean(days: int) -> Numbers:
        begin = np.maximum(origin - days, 0)
        found: Numbers = (sums[origin] - sums[begin]) / (origin - begin)
        return found

    level = mean(4 * WEEK)
    target = origin + step - 1
    back = (target - origin) // WEEK + 1
    same = sum(values[np.maximum(target - WEEK * (back + n), target % WEEK)] for n in range(4)) / 4
    weekday = (series.first.weekday() + target) % WEEK
    far = step / horizon
    week, month = mean(WEEK) - level, mean(8 * WEEK) - level
    columns = [same - level, (same - level) * far, week, week * far, month, month * far, far, np.ones(len(origin))]
    columns += [(weekday == n) * 1.0 for n in range(WEEK)]
    if len(values) > 730:
        # The year, told by the difference between the day itself and the weeks that the level is of.
        for turns in (1, 2):
            for wave in (np.sin, np.cos):
                columns.append(
                    wave(2 * np.pi * turns * target / 365.25) - wave(2 * np.pi * turns * (origin - 14) / 365.25)
                )
    return np.stack(columns, axis=1), level


def _ridge(inputs: Numbers, outputs: Numbers, penalty: float) -> Numbers:
    square = inputs.T @ inputs + penalty * np.eye(inputs.shape[1])
    return np.linalg.solve(square, inputs.T @ outputs).astype(np.float64)
