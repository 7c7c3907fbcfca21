"""What a platform has learned of its week: how much was asked of it at which time of which day.

A week is local time: a rush hour stays where the clocks on the walls have it when they are put forward or back. Its
steps are of five minutes. A step that was never seen is taken to be as at the same time of the nearest day before.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from rebu_ray.store.cursor import FORMAT

STEP_MS: Final = 5 * 60_000
_DAY: Final = 24 * 12
STEPS: Final = 7 * _DAY
NEWEST: Final = 0.5
"""The weight of the last week in what is expected of the next one."""
_COVERED: Final = 0.5
"""The part of a step that has to be seen for it to count."""


def step_of(at_ms: int, zone: ZoneInfo) -> int:
    """The step of the week of an instant, from 0, Monday at midnight."""
    local = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(zone)
    return local.weekday() * _DAY + local.hour * 12 + local.minute // 5


class Expected(msgspec.Struct, frozen=True):
    """What is asked for in a step, or is expected to be."""

    at_once: float = 0.0
    """Requests at the same time, on average over the step."""
    bytes_s: float = 0.0
    """Bytes of rows a second."""


class Saved(msgspec.Struct, frozen=True):
    """What is kept of a week: its steps as far as they are known."""

    steps: dict[int, Expected] = {}
    v: int = FORMAT


class Week:
    """The week of one platform, taken note of as it goes by."""

    def __init__(self, zone: str, saved: Saved | None = None) -> None:
        self._zone = ZoneInfo(zone)
        self._steps = dict(saved.steps) if saved is not None else {}
        self._now = -1
        """The place of the step that goes on: how many there were since 1970."""
        self._last_ms = 0
        self._covered_ms = 0.0
        self._at_once = self._bytes = 0.0
        """What was seen in it, each times its ms."""

    def observe(self, at_ms: int, at_once: float, bytes_s: float) -> bool:
        """Take note of what has been asked for since the last call; whether a step has ended with it."""
        place, ended = at_ms // STEP_MS, False
        # Of a longer time without a look nothing is known.
        since = self._last_ms if 0 < at_ms - self._last_ms <= STEP_MS else at_ms
        if place != self._now:
            ended = self._end()
            self._now, since = place, max(since, place * STEP_MS)
        passed, self._last_ms = at_ms - since, at_ms
        self._covered_ms += passed
        self._at_once += passed * at_once
        self._bytes += passed * bytes_s
        return ended

    def expected(self, from_ms: int, to_ms: int) -> Expected:
        """The most that is expected of any step between two instants, both of theirs included."""
        found = [self._known(step_of(at, self._zone)) for at in range(from_ms, to_ms, STEP_MS)]
        found.append(self._known(step_of(to_ms, self._zone)))
        return Expected(max(step.at_once for step in found), max(step.bytes_s for step in found))

    def saved(self) -> Saved:
        """What is to be kept."""
        return Saved(dict(self._steps))

    def _known(self, step: int) -> Expected:
        days = (self._steps.get((step - day * _DAY) % STEPS) for day in range(7))
        return next((found for found in days if found is not None), Expected())

    def _end(self) -> bool:
        """The step that went on has ended: add it to what is known. Whether there was enough of it."""
        seen, at_once, bytes_ = self._covered_ms, self._at_once, self._bytes
        self._covered_ms = self._at_once = self._bytes = 0.0
        if self._now < 0 or seen < _COVERED * STEP_MS:
            return False
        step = step_of(self._now * STEP_MS, self._zone)
        before = self._steps.get(step)
        now = Expected(at_once / seen, bytes_ / seen)
        if before is not None:
            now = Expected(
                before.at_once + NEWEST * (now.at_once - before.at_once),
                before.bytes_s + NEWEST * (now.bytes_s - before.bytes_s),
            )
        self._steps[step] = now
        return True
