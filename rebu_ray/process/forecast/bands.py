"""Bands about a forecast: split conformal prediction by the errors of the backtest.

A. Angelopoulos, S. Bates: A gentle introduction to conformal prediction, 2021. Errors are taken relative to what was
said, and those of near-by days of the horizon together. A history is not the same throughout: recent windows weigh
more (R. Barber and others: Conformal prediction beyond exchangeability, 2023), and errors after weeks in which days
differed much count as smaller ones in calmer weeks (locally weighted conformal prediction: J. Lei and others, 2018),
half of the way. And bands learn from how they did: where those of late, made by the errors before them, were too wide
or too narrow, the next one is corrected half of the way (after adaptive conformal inference: I. Gibbs, E. Candes,
2021). The windows overlap, and nothing is added for their being few, so that there is no guarantee; what bands by the
windows before would have held in each window of the backtest is told with them.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rebu_ray.process.forecast.series import WEEK, Numbers, Series

_NEAR: Final = 7
"""Days of the horizon before and after whose errors count for a day."""
_HALF_LIFE: Final = 60.0
"""Days after which an error counts half."""
_LATELY: Final = 8 * WEEK
_CALMEST: Final = 0.01
_LEARNT: Final = 0.5
"""How much of what was wrong with the bands of late is corrected: all of it would follow chance."""
_LEARNT_HALF_LIFE: Final = 30.0
"""Days after which a window counts half in that."""
_MOST: Final = 2.5
"""No window tells of more than this factor."""
_GROWTH: Final = 0.25
"""The power of the distance with which bands widen beyond the days of the backtest."""


class Band(NamedTuple):
    """From low to high, day by day."""

    low: Numbers
    high: Numbers


class Past(NamedTuple):
    """The errors of one candidate in the windows of a backtest."""

    errors: Numbers
    """(windows, days of the backtest): what came less what was said; NaN where nothing came."""
    said: Numbers
    """In the same shape."""
    roughness: Numbers
    """Of what was known at the origin of each window."""
    age: Numbers
    """Days from the end of each window to the end of what is known; the latest is the first."""

    def of(self, windows: npt.NDArray[np.bool_]) -> Past:
        """Some of the windows."""
        return Past(*(column[windows] for column in self))


def unit(means: Numbers) -> Numbers:
    """What errors are relative to: the forecast, and for small counts the spread that even a perfect one has."""
    found: Numbers = means + 2 * np.sqrt(means + 1)
    return found


def roughness(series: Series) -> float:
    """How far days were of late from those a week before: the mean difference of log(1 + y), without the extremes."""
    logs = np.log1p(series.values[-_LATELY:])
    steps = np.abs(logs[WEEK:] - logs[:-WEEK])
    steps = steps[~np.isnan(steps)]
    if not len(steps):
        return _CALMEST
    return max(float(np.minimum(steps, 4 * np.median(steps) + _CALMEST).mean()), _CALMEST)


def band(means: Numbers, past: Past, rough: float, share: float) -> Band:
    """The band that is to hold `share` of what comes after a history as rough as told."""
    return _about(means, past, rough, share, _correction(_wrong(past, share), past.age))


def coverage(past: Past, share: float) -> float | None:
    """How much of what came in each window the band by those before would have held; None with fewer than two."""
    inside, total = 0, 0
    wrong = _wrong(past, share)
    for number in range(len(wrong)):
        before = _before(past, number)
        rough, correction = float(past.roughness[number]), _correction(wrong[number + 1 :], before.age)
        found = _about(past.said[number], before, rough, share, correction)
        came = past.said[number] + past.errors[number]
        known = ~np.isnan(came)
        inside += int(((came >= found.low) & (came <= found.high))[known].sum())
        total += int(known.sum())
    return inside / total if total else None


def _about(means: Numbers, past: Past, rough: float, share: float, correction: float) -> Band:
    half = _widths(len(means), past, rough, share) * correction * unit(means)
    return Band(np.maximum(means - half, 0.0), means + half)


def _before(past: Past, number: int) -> Past:
    """The windows before one, which come after it."""
    found = past.of(np.arange(len(past.age)) > number)
    return found._replace(age=found.age - past.age[number])


def _widths(days: int, past: Past, rough: float, share: float) -> Numbers:
    """Half of the width of the band of each day, in units of the forecast."""
    relative = np.abs(past.errors) / unit(past.said) * np.sqrt(rough / past.roughness)[:, None]
    weights = np.broadcast_to(0.5 ** (past.age / _HALF_LIFE)[:, None], relative.shape)
    seen = relative.shape[1]
    found = np.zeros(days)
    for day in range(min(days, seen)):
        near = slice(max(day - _NEAR, 0), day + _NEAR + 1)
        known = ~np.isnan(relative[:, near])
        found[day] = _quantile(relative[:, near][known], weights[:, near][known], share)
    found[seen:] = found[seen - 1] * ((np.arange(seen, days) + 1) / seen) ** _GROWTH
    return found


def _wrong(past: Past, share: float) -> Numbers:
    """For each window but the first one, latest first: the logarithm of how much wider the band by those before it
    ought to have been; NaN where that cannot be told.
    """
    found = np.full(max(len(past.age) - 1, 0), np.nan)
    for number in range(len(found)):
        widths = _widths(past.errors.shape[1], _before(past, number), float(past.roughness[number]), share)
        ratios = np.abs(past.errors[number]) / unit(past.said[number]) / np.maximum(widths, 1e-9)
        known = ratios[~np.isnan(ratios)]
        if len(known):
            found[number] = np.log(np.clip(np.quantile(known, share), 1 / _MOST, _MOST))
    return found


def _correction(wrong: Numbers, age: Numbers) -> float:
    """The factor that windows of such ages call for."""
    weights = np.where(np.isnan(wrong), 0.0, 0.5 ** (age[: len(wrong)] / _LEARNT_HALF_LIFE))
    if not weights.sum():
        return 1.0
    return math.exp(_LEARNT * float(np.nansum(weights * wrong) / weights.sum()))


def _quantile(values: Numbers, weights: Numbers, share: float) -> float:
    """The smallest value up to which the weights have that share."""
    if not len(values):
        return 1.0
    order = np.argsort(values)
    parts = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(parts, share - 1e-12)), len(values) - 1)])
