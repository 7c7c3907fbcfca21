"""The clock that weeks go by: the real one or, for rehearsals, one that begins elsewhere and is faster."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime


class ClockError(ValueError):
    """A text names no clock."""


def week_clock(text: str, wall: Callable[[], float] = time.time) -> tuple[Callable[[], int], float]:
    """The clock (ms) that weeks go by, and how many times as fast as the real one it is. Raises ClockError.

    Empty: the real one. `2026-03-02T05:00:00Z*60` for rehearsals: begins there now, a minute a second.
    """
    if not text:
        return lambda: round(1000 * wall()), 1.0
    found = re.fullmatch(r"([^*]+)\*(\d+(?:\.\d+)?)", text)
    try:
        begins = datetime.fromisoformat(found[1]) if found else None
    except ValueError:
        begins = None
    if found is None or begins is None or begins.tzinfo is None or not float(found[2]):
        raise ClockError(f"{text!r} is no clock: write when it begins, and how fast it is: 2026-03-02T05:00:00Z*60")
    origin, speed, began = 1000 * begins.timestamp(), float(found[2]), wall()
    return lambda: round(origin + 1000 * speed * (wall() - began)), speed
