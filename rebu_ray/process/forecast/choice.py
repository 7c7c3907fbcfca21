"""The forecast: the candidate that did best in the backtest, with bands that did hold what they promise."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Final

import msgspec
import numpy as np

from rebu_ray.process.forecast.backtest import NAMES, Backtest, backtest, said_by_all
from rebu_ray.process.forecast.bands import Band, band, coverage, roughness
from rebu_ray.process.forecast.candidates import BASELINE, ENSEMBLE
from rebu_ray.process.forecast.series import WEEK, Numbers, Series, weekday_means

FORMAT: Final = 3
"""Another number for another way to forecast: what was fitted before is fitted again."""
FEWEST: Final = 3 * WEEK
"""Days of history below which the baseline is all that can be said."""
_BETTER: Final = 0.85
"""A single candidate is chosen over the ensemble where its errors in the backtest are smaller by this factor: a smaller
difference is mostly luck.
"""
_SOME: Final = 10
"""Windows of a backtest below which nothing is chosen by it."""
_NORMAL: Final = {0.8: 1.2816, 0.95: 1.96}


class Day(msgspec.Struct):
    """What is expected of a day."""

    date: date
    mean: float
    lo80: float
    hi80: float
    lo95: float
    hi95: float


class Scores(msgspec.Struct):
    """How it would have done; nulls where the history is too short to tell."""

    windows: int
    horizon: int
    mase: float | None = None
    mase_weekday_mean: float | None = None
    coverage80: float | None = None
    coverage95: float | None = None


class Forecast(msgspec.Struct):
    """The days after today, and what they are told by."""

    model: str
    trained_from: date | None
    trained_to: date | None
    items: list[Day]
    backtest: Scores
    note: str | None = None


def forecast(series: Series, days: int, free: Collection[date] = ()) -> Forecast:
    """The `days` days after the one that follows the series, which is today. `free` are holidays, past and to come."""
    known = int((~np.isnan(series.values)).sum())
    if known < FEWEST:
        return baseline(series, days, f"{known} whole days of rides are known: {FEWEST} are needed to learn from them")
    tested = backtest(series, days + 1, free)
    if tested is None or tested.horizon < 2:
        return baseline(series, days, "the known days have too many gaps to learn from them")
    scores = {name: _mase(tested, number) for number, name in enumerate(NAMES)}
    model = chosen(scores, len(tested.days))
    number = NAMES.index(model)
    # Today is skipped: the first day that is asked for is two days after the last one known.
    past = tested.past(number)
    means = said_by_all(series, days + 1, free)[model][1:]
    bands = {share: band(means, past, roughness(series), share) for share in _NORMAL}
    covered = {share: coverage(past, share) for share in _NORMAL}
    told = Scores(
        windows=len(tested.days),
        horizon=tested.horizon - 1,
        mase=_rounded(scores[model]),
        mase_weekday_mean=_rounded(scores[BASELINE]),
        coverage80=_rounded(covered[0.8]),
        coverage95=_rounded(covered[0.95]),
    )
    return Forecast(model, series.first, series.last, _days(series, means, bands[0.8], bands[0.95]), told)


def baseline(series: Series, days: int, note: str) -> Forecast:
    """The weekday mean, with bands by how far the known days were from it; takes next to no time."""
    count = len(series.values)
    means = weekday_means(series, days + 1)[1:]
    past = weekday_means(series, WEEK)
    expected = past[(np.arange(count) - count) % WEEK] if count else np.zeros(0)
    errors = series.values - expected
    errors = errors[~np.isnan(errors)]
    # At least the spread of a Poisson variable, and more where the days differ more.
    spread = np.sqrt(means + (float((errors**2).mean()) * 1.2 if len(errors) else 0.0))
    bands = {}
    for share, width in _NORMAL.items():
        bands[share] = Band(np.maximum(means - width * spread, 0.0), means + width * spread)
    first = series.first if count else None
    last = series.last if count else None
    return Forecast(BASELINE, first, last, _days(series, means, bands[0.8], bands[0.95]), Scores(0, days), note)


def chosen(scores: dict[str, float], windows: int) -> str:
    """The candidate with the smallest errors, and of those that hardly differ the ensemble; nothing that does worse
    than the baseline.
    """
    if windows < _SOME:
        return ENSEMBLE
    usual = min((ENSEMBLE, BASELINE), key=lambda name: scores[name])
    best = min(scores, key=lambda name: scores[name])
    return best if scores[best] < _BETTER * scores[usual] else usual


def _mase(tested: Backtest, number: int) -> float:
    """Of the days that are shown."""
    of_windows = np.nanmean(np.abs(tested.errors[:, number, 1:]), axis=1) / tested.scales
    return float(np.nanmean(of_windows))


def _days(series: Series, means: Numbers, inner: Band, outer: Band) -> list[Day]:
    low, high = np.minimum(inner.low, outer.low), np.maximum(inner.high, outer.high)
    columns = (means, inner.low, inner.high, low, high)
    # Rounding keeps the order.
    rows = zip(*(np.round(column, 2).tolist() for column in columns), strict=True)
    first = len(series.values) + 1
    return [Day(series.day(first + n), *row) for n, row in enumerate(rows)]


def _rounded(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(value, 4)
