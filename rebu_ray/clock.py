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

    Empty: the real one. For rehearsals `2026-03-02T05:00:00Z*60@2026-11-20T09:00:00Z`: the first time at the second
    one, and a minute a second.
    """
    if not text:
        return lambda: round(1000 * wall()), 1.0
    found = re.fullmatch(r"([^*@]+)\*(\d+(?:\.\d+)?)@([^*@]+)", text)
    times = [] if found is None else [_instant(found[1]), _instant(found[3])]
    if found is None or None in times or not float(found[2]):
        example = "2026-03-02T05:00:00Z*60@2026-11-20T09:00:00Z"
        raise ClockError(f"{text!r} is no clock: write what it shows, how fast it is and when, as {example}")
    (shown, at), speed = (t for t in times if t is not None), float(found[2])
    return lambda: round(1000 * (shown + speed * (wall() - at))), speed


def _instant(text: str) -> float | None:
    """Seconds since 1970; None for what is no time, or one without a zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if found.tzinfo is None else found.timestamp()
