"""Rolling-origin backtest: what each candidate would have said at earlier days, against what came."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Final, NamedTuple

import numpy as np

from rebu_ray.process.forecast.bands import Past, roughness
from rebu_ray.process.forecast.candidates import BASELINE, CANDIDATES, ENSEMBLE, everything
from rebu_ray.process.forecast.free_days import applied, effect, masked
from rebu_ray.process.forecast.series import Numbers, Series, scale

NAMES: Final = (*CANDIDATES, ENSEMBLE)
SHORTEST: Final = 14
"""Days that a candidate is given at least."""
_ENOUGH: Final = 28
"""Days that it is given where there are more: what is learned from fewer says little of today's errors."""
WINDOWS: Final = 14
"""How many origins there are at most."""
_STEP: Final = 5
"""Days between two of them: no multiple of a week, so that each weekday begins a window."""


class Backtest(NamedTuple):
    """Errors (what came less what was said) by window, candidate of `NAMES`, and day; NaN where nothing came."""

    horizon: int
    errors: Numbers
    said: Numbers
    """What was said, in the same shape."""
    scales: Numbers
    """By window: the scale of MASE of what was known at its origin."""
    roughness: Numbers
    """By window, of what was known at its origin."""
    days: tuple[date, ...]
    """The day before each window."""

    def past(self, number: int) -> Past:
        """The errors of a candidate, but for the first day of each window, which is today."""
        age = np.array([(self.days[0] - day).days for day in self.days], np.float64)
        return Past(self.errors[:, number, 1:], self.said[:, number, 1:], self.roughness, age)


def said_by_all(series: Series, horizon: int, free: Collection[date]) -> dict[str, Numbers]:
    """What each candidate says. Those but the baseline know of holidays."""
    ordinary, logarithm = masked(series, free), effect(series, free)
    found = everything(ordinary, horizon)
    found = {name: applied(means, series, free, logarithm) for name, means in found.items()}
    if free:
        found[BASELINE] = CANDIDATES[BASELINE](series, horizon)
    return found


def first_origin(days: int) -> int:
    """How many of so many days are known at the first window at least."""
    return min(max(days - SHORTEST, SHORTEST), _ENOUGH)


def reach(days: int, horizon: int) -> int:
    """How far ahead a backtest of so many days can look, where so far is asked: a week, or half of what there is."""
    rest = days - first_origin(days)
    return max(min(horizon, max(rest // 2, 7), rest), 0)


def backtest(series: Series, horizon: int, free: Collection[date] = ()) -> Backtest | None:
    """The windows of a series, latest first; None where it is too short for one, or nothing came in any."""
    count = len(series.values)
    horizon = reach(count, horizon)
    if horizon < 1:
        return None
    errors, said, scales, rough, days = [], [], [], [], []
    for origin in range(count - horizon, first_origin(count) - 1, -_STEP):
        known, came = series.until(origin), series.values[origin : origin + horizon]
        unit = scale(known)
        if np.isnan(came).all() or np.isnan(unit):
            continue
        means = said_by_all(known, horizon, free)
        said.append([means[name] for name in NAMES])
        errors.append([came - means[name] for name in NAMES])
        scales.append(unit)
        rough.append(roughness(known))
        days.append(known.last)
        if len(errors) == WINDOWS:
            break
    if not errors:
        return None
    return Backtest(horizon, np.array(errors), np.array(said), np.array(scales), np.array(rough), tuple(days))
