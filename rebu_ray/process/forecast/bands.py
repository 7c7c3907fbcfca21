"""Bands about a forecast: split conformal prediction by the errors of the backtest.

A. Angelopoulos, S. Bates: A gentle introduction to conformal prediction, 2021. Errors are taken relative to what was
said, and those of near-by days of the horizon together. A history is not the same throughout: recent windows weigh
more (R. Barber and others: Conformal prediction beyond exchangeability, 2023), and errors after weeks in which days
differed much count as smaller ones in calmer weeks (locally weighted conformal prediction: J. Lei and others, 2018),
half of the way. The windows overlap, so that the guarantee is not exact; what a band would have covered in the
backtest, by the errors of the other windows alone, is told with it.
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
    """Days from the end of each window to the end of what is known."""

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
    """The band that holds `share` of what comes after a history as rough as told.

    Beyond the days of the backtest it widens with the root of the distance.
    """
    relative = np.abs(past.errors) / unit(past.said) * np.sqrt(rough / past.roughness)[:, None]
    weights = np.broadcast_to(0.5 ** (np.abs(past.age) / _HALF_LIFE)[:, None], relative.shape)
    days = relative.shape[1]
    width = np.zeros(len(means))
    for day in range(len(means)):
        here = min(day, days - 1)
        near = slice(max(here - _NEAR, 0), here + _NEAR + 1)
        known = ~np.isnan(relative[:, near])
        width[day] = _quantile(relative[:, near][known], weights[:, near][known], share)
        width[day] *= math.sqrt((day + 1) / (here + 1))
    half = width * unit(means)
    return Band(np.maximum(means - half, 0.0), means + half)


def coverage(past: Past, share: float) -> float | None:
    """How much of what came in each window the band by the others would have held; None with fewer than two."""
    inside, total = 0, 0
    count = len(past.errors)
    if count < 2:
        return None
    for number in range(count):
        others = past.of(np.arange(count) != number)
        others = others._replace(age=others.age - past.age[number])
        found = band(past.said[number], others, float(past.roughness[number]), share)
        came = past.said[number] + past.errors[number]
        known = ~np.isnan(came)
        inside += int(((came >= found.low) & (came <= found.high))[known].sum())
        total += int(known.sum())
    return inside / total if total else None


def _quantile(values: Numbers, weights: Numbers, share: float) -> float:
    """The smallest value up to which the weights have that share, one more weight standing beyond all values."""
    if not len(values):
        return 1.0
    order = np.argsort(values)
    parts = np.cumsum(weights[order]) / (weights.sum() + weights.max())
    return float(values[order][min(int(np.searchsorted(parts, share - 1e-12)), len(values) - 1)])
