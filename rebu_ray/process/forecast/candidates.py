"""What forecasts are made by: each candidate makes of a series the values of the days that follow it.

All of them but the baseline and the naive one work on log(1 + y): weeks, trends and holidays multiply. Each takes a
series of at least two weeks, whose gaps it does not learn from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from rebu_ray.process.forecast.series import WEEK, Numbers, Series, filled, weekday_means

Candidate = Callable[[Series, int], Numbers]
"""(series, horizon) -> the values of the next days."""

BASELINE: Final = "weekday_mean"
ENSEMBLE: Final = "ensemble"
_RECENT: Final = 400
"""Days that smoothing looks back at: what is older has no weight."""
_AHEAD: Final = (7, 14, 28)
"""Steps at which smoothing has to be right."""
_MONTH: Final = 4 * WEEK


def weekday_mean(series: Series, horizon: int) -> Numbers:
    """The mean of the last four same weekdays: the baseline."""
    return weekday_means(series, horizon)


def seasonal_naive(series: Series, horizon: int) -> Numbers:
    """What was a week before."""
    return weekday_means(series, horizon, 1)


def ets(series: Series, horizon: int) -> Numbers:
    """Exponential smoothing of level, damped trend and week (Holt, Winters; damped after Gardner and McKenzie), of the
    parameters in a grid the best ones 7, 14 and 28 days ahead.
    """
    values = np.log1p(series.values[-_RECENT:])
    alpha, beta, gamma, phi = _GRID
    start, season = _begin(values)
    level, trend = np.full(len(alpha), start), np.zeros(len(alpha))
    seasons = np.repeat(season[:, None], len(alpha), axis=1)
    loss = np.zeros(len(alpha))
    expected: dict[tuple[int, int], Numbers] = {}
    for t, value in enumerate(values.tolist()):
        week = t % WEEK
        for step in _AHEAD:
            # Looked ahead from the day before: what was expected of today is compared below.
            expected[t - 1 + step, step] = level + _damped(phi, step) * trend + seasons[(t - 1 + step) % WEEK]
        carried = level + phi * trend
        if np.isnan(value):
            level, trend = carried, phi * trend
            continue
        for step in _AHEAD:
            seen = expected.pop((t, step), None)
            if seen is not None and t >= 2 * WEEK:
                loss += np.abs(value - seen)
        before = level
        level = alpha * (value - seasons[week]) + (1 - alpha) * carried
        trend = beta * (level - before) + (1 - beta) * phi * trend
        seasons[week] = gamma * (value - level) + (1 - gamma) * seasons[week]
    best = int(np.argmin(loss))
    steps = np.arange(1, horizon + 1)
    damped = np.cumsum(phi[best] ** steps)
    weeks = (len(values) - 1 + steps) % WEEK
    return _counts(level[best] + damped * trend[best] + seasons[weeks, best], series)


def theta(series: Series, horizon: int) -> Numbers:
    """The week divided out, then simple smoothing, as right as can be about the month ahead, with half of the trend
    (Assimakopoulos and Nikolopoulos 2000), damped.
    """
    values = np.log1p(filled(series))[-_RECENT:]
    profile, rest = _without_week(values)
    alphas = np.linspace(0.02, 0.5, 17)
    level, loss = np.full(len(alphas), rest[:WEEK].mean()), np.zeros(len(alphas))
    sums = np.concatenate([[0.0], np.cumsum(rest)])
    for t, value in enumerate(rest.tolist()):
        if t >= WEEK:
            ahead = min(_MONTH, len(rest) - t)
            loss += np.abs((sums[t + ahead] - sums[t]) / ahead - level) * (ahead / _MONTH)
        level = level + alphas * (value - level)
    recent = rest[-91:]
    days = np.arange(len(recent)) - (len(recent) - 1) / 2
    slope = float(days @ recent / (days @ days))
    steps = np.arange(1, horizon + 1)
    # A straight line through the logarithms would grow without bound.
    drift = slope / 2 * np.cumsum(0.9**steps)
    return _counts(level[int(np.argmin(loss))] + drift + profile[(len(values) - 1 + steps) % WEEK], series)


def autoregression(series: Series, horizon: int) -> Numbers:
    """A ridge regression of each day on the days before it and on the weekday, applied day after day."""
    values = np.log1p(filled(series))[-2 * _RECENT :]
    profile, rest = _without_week(values)
    lags = np.array([lag for lag in (1, 2, 3, 7, 14, 21, 28) if lag <= len(rest) // 3])
    mean = rest[-13 * WEEK :].mean()
    rest = rest - mean
    rows = np.arange(int(lags.max()), len(rest))
    inputs = rest[rows[:, None] - lags]
    weights = _ridge(inputs, rest[rows], 0.5)
    known = rest.tolist()
    for _ in range(horizon):
        known.append(float(np.array(known)[len(known) - lags] @ weights))
    weeks = (len(values) + np.arange(horizon)) % WEEK
    return _counts(mean + np.array(known[len(rest) :]) + profile[weeks], series)


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
    return _counts(level + inputs @ weights, series)


CANDIDATES: Final[dict[str, Candidate]] = {
    BASELINE: weekday_mean,
    "seasonal_naive": seasonal_naive,
    "ets": ets,
    "theta": theta,
    "autoregression": autoregression,
    "regression": regression,
}
"""By name; the ensemble is made of what they say."""
JOINED: Final = (BASELINE, "ets", "theta", "autoregression")
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


def _grid() -> tuple[Numbers, Numbers, Numbers, Numbers]:
    grid = [
        (alpha, beta, gamma, phi)
        for alpha in (0.02, 0.05, 0.1, 0.2, 0.35, 0.55, 0.8)
        for beta, phi in ((0.0, 0.9), (0.02, 0.9), (0.02, 0.98), (0.1, 0.9), (0.1, 0.98))
        for gamma in (0.0, 0.05, 0.15, 0.3)
    ]
    alpha, beta, gamma, phi = (np.array(column) for column in zip(*grid, strict=True))
    return alpha, beta, gamma, phi


_GRID: Final = _grid()


def _begin(values: Numbers) -> tuple[float, Numbers]:
    """Level and week that smoothing begins with: of the first four weeks."""
    first = values[: 4 * WEEK]
    level = float(np.nanmean(first)) if not np.isnan(first).all() else 0.0
    season = np.zeros(WEEK)
    for week in range(min(WEEK, len(first))):
        same = first[week::WEEK]
        if not np.isnan(same).all():
            season[week] = np.nanmean(same) - level
    return level, season


def _damped(phi: Numbers, step: int) -> Numbers:
    found: Numbers = phi * (1 - phi**step) / (1 - phi)
    return found


def _without_week(values: Numbers) -> tuple[Numbers, Numbers]:
    """What each place in the week adds, by the last thirteen weeks, and the values without it."""
    recent = values[-13 * WEEK :]
    smooth = np.convolve(recent, np.ones(WEEK) / WEEK, "valid")
    trend = np.concatenate([np.full(3, smooth[0]), smooth, np.full(len(recent) - len(smooth) - 3, smooth[-1])])
    place = (len(values) - len(recent) + np.arange(len(recent))) % WEEK
    profile = np.array([np.median((recent - trend)[place == week]) for week in range(WEEK)])
    profile -= profile.mean()
    return profile, values - profile[np.arange(len(values)) % WEEK]


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


def _counts(logs: Numbers, series: Series) -> Numbers:
    """Back from logarithms: nothing below zero, and nothing beyond three times what was ever seen."""
    most = 3 * float(np.nanmax(series.values, initial=0.0)) + 10
    found: Numbers = np.clip(np.expm1(np.minimum(logs, 50.0)), 0.0, most)
    return found
