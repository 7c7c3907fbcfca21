"""Public holidays: which days they are, and what they do to a series."""

from __future__ import annotations

import importlib
import math
from collections.abc import Collection
from datetime import date
from typing import Final

import numpy as np

from rebu_ray.process.forecast.series import WEEK, Numbers, Series

_PRIOR: Final = 2.0
"""So many imagined holidays without any effect stand beside those that were seen."""
_MOST: Final = math.log(3.0)


class UnknownCountry(ValueError):
    """A country without a calendar of holidays."""


def holidays_of(country: str, first: int, last: int) -> frozenset[date]:
    """The public holidays of a country (`US`) or a part of one (`DE-BE`) in the years from first to last.

    None where the country is empty. Raises UnknownCountry.
    """
    if not country:
        return frozenset()
    holidays = importlib.import_module("holidays")  # it takes a second: only who needs it waits for it
    code, _, part = country.partition("-")
    try:
        found = holidays.country_holidays(code, subdiv=part or None, years=range(first, last + 1))
    except NotImplementedError as error:
        raise UnknownCountry(f"no holidays are known of {country!r}: {error}") from error
    return frozenset(found)


def masked(series: Series, free: Collection[date]) -> Series:
    """A series without its holidays, which say little of ordinary days."""
    if not free:
        return series
    values = series.values.copy()
    values[_are(series, 0, len(values), free)] = np.nan
    return Series(series.first, values)


def effect(series: Series, free: Collection[date]) -> float:
    """The logarithm of what a holiday multiplies the rides of its weekday by; 0 where none was seen."""
    ordinary = masked(series, free).values
    seen = []
    for number in np.flatnonzero(_are(series, 0, len(series.values), free)).tolist():
        near = ordinary[max(number - 4 * WEEK, number % WEEK) : number + 4 * WEEK + 1 : WEEK]
        near = near[~np.isnan(near)]
        if len(near) and not np.isnan(series.values[number]):
            seen.append(math.log1p(series.values[number]) - float(np.mean(np.log1p(near))))
    return float(np.clip(sum(seen) / (len(seen) + _PRIOR), -_MOST, _MOST))


def applied(means: Numbers, series: Series, free: Collection[date], logarithm: float) -> Numbers:
    """Forecasts of ordinary days with those of holidays changed as much."""
    are = _are(series, len(series.values), len(series.values) + len(means), free)
    return means * np.where(are, math.exp(logarithm), 1.0)


def _are(series: Series, start: int, end: int, free: Collection[date]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array([series.day(number) in free for number in range(start, end)], bool)
