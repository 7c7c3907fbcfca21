"""When people want a ride: demand by hour of the week, and arrivals drawn from it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

from rebu_ray.simulate.clock import HOUR, WEEK

# Percent of the average hour, Monday first, midnight first. Own round numbers (steps of five) after the mean
# shape of two public series of New York: hourly ride-hailing pick-ups of January to April 2015 (NYC TLC, released
# through FiveThirtyEight) and half-hourly taxi passengers of July to November 2014 (Numenta Anomaly Benchmark).
HOUR_OF_WEEK: Final[tuple[tuple[int, ...], ...]] = (
    (60, 35, 20, 15, 15, 25, 50, 85, 110, 115, 100, 90, 90, 90, 95, 100, 100, 115, 140, 140, 130, 120, 110, 85),
    (60, 35, 20, 15, 15, 20, 50, 90, 120, 120, 105, 95, 95, 90, 95, 100, 95, 120, 155, 165, 160, 155, 140, 115),
    (75, 40, 25, 15, 15, 25, 50, 90, 125, 125, 105, 95, 95, 95, 100, 105, 105, 125, 160, 170, 165, 160, 155, 130),
    (85, 55, 35, 25, 20, 25, 50, 95, 125, 125, 105, 95, 100, 100, 100, 105, 105, 130, 160, 175, 175, 170, 165, 150),
    (115, 70, 45, 30, 25, 25, 50, 85, 115, 120, 105, 100, 100, 100, 105, 110, 110, 135, 165, 185, 180, 175, 170, 180),
    (170, 140, 105, 75, 50, 30, 30, 35, 50, 70, 90, 105, 115, 120, 120, 120, 120, 140, 165, 180, 175, 165, 170, 185),
    (175, 155, 120, 85, 60, 30, 25, 30, 40, 60, 80, 95, 110, 115, 115, 115, 115, 120, 130, 125, 115, 105, 95, 85),
)
_AVERAGE: Final = sum(map(sum, HOUR_OF_WEEK)) / 168
# The epoch began on a Thursday; the first Monday 00:00 UTC came four days later.
_FIRST_MONDAY: Final = 4 * 24 * HOUR


def intensity(ms: int) -> float:
    """Demand at `ms` relative to the average hour of a week; the city keeps UTC."""
    hour = (ms - _FIRST_MONDAY) % WEEK // HOUR
    return HOUR_OF_WEEK[hour // 24][hour % 24] / _AVERAGE


def arrivals(rng: Random, start_ms: int, end_ms: int, per_week: float, shape_shift_ms: int = 0) -> Iterator[int]:
    """Instants of a Poisson process of `per_week` in an average week, in order, within [start, end).

    `shape_shift_ms` is what to add to an instant to get the one whose hour of the week shapes it.
    """
    hourly = per_week / 168
    peak = max(map(max, HOUR_OF_WEEK)) / _AVERAGE
    at = float(start_ms)
    if hourly <= 0:
        return
    while True:
        at += rng.expovariate(hourly * peak) * HOUR
        if at >= end_ms:
            return
        # Thinning (Lewis and Shedler 1979): propose at the peak's rate, keep in proportion to the rate here.
        if rng.random() * peak < intensity(int(at) + shape_shift_ms):
            yield int(at)
