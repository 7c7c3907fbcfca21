"""Bands about a forecast: split conformal prediction by the errors of the backtest.

A. Angelopoulos, S. Bates: A gentle introduction to conformal prediction, 2021. Errors are taken relative to what was
said, and those of near-by days of the horizon together. The windows overlap, so that the guarantee is not exact; what
a band would have covered in the backtest, by the errors of the other windows alone, is told with it.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from rebu_ray.process.forecast.series import Numbers

_NEAR: Final = 3
"""Days of the horizon before and after whose errors count for a day."""


class Band(NamedTuple):
    """From low to high, day by day."""

    low: Numbers
    high: Numbers


def unit(means: Numbers) -> Numbers:
    """What errors are relative to: the forecast, and for small counts the spread that even a perfect one has."""
    found: Numbers = means + 2 * np.sqrt(means + 1)
    return found


def band(means: Numbers, errors: Numbers, said: Numbers, share: float) -> Band:
    """The band that holds `share` of what comes; errors and what was said are (windows, days of the backtest).

    Beyond the days of the backtest it widens with the root of the distance.
    """
    relative = np.abs(errors) / unit(said)
    days = relative.shape[1]
    width = np.zeros(len(means))
    for day in range(len(means)):
        here = min(day, days - 1)
        near = relative[:, max(here - _NEAR, 0) : here + _NEAR + 1]
        width[day] = _quantile(near[~np.isnan(near)], share) * math.sqrt((day + 1) / (here + 1))
    half = width * unit(means)
    return Band(np.maximum(means - half, 0.0), means + half)


def coverage(errors: Numbers, said: Numbers, share: float) -> float | None:
    """How much of what came in each window the band by the others would have held; None with fewer than two."""
    inside, total = 0, 0
    for number in range(len(errors)):
        if len(errors) < 2:
            return None
        others = np.arange(len(errors)) != number
        found = band(said[number], errors[others], said[others], share)
        came = said[number] + errors[number]
        known = ~np.isnan(came)
        inside += int(((came >= found.low) & (came <= found.high))[known].sum())
        total += int(known.sum())
    return inside / total if total else None


def _quantile(values: Numbers, share: float) -> float:
    """The smallest value that is no less than the share that conformal prediction asks for of so many."""
    if not len(values):
        return 1.0
    rank = min(math.ceil((len(values) + 1) * share), len(values))
    return float(np.sort(values)[rank - 1])
