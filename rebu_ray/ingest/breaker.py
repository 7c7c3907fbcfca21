"""The circuit breaker: a source of which nearly everything is refused is suspended for a while.

What it sent so far is kept as dead letters. While it is suspended its writes are answered 503 before they are parsed,
so that their sender keeps them; then one request is let through to see whether things are better (half-open).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from rebu_ray.ingest.dialects import times
from rebu_ray.records import BadRequest, Source

WINDOW_S: Final = 60.0
LONGEST_PAUSE_S: Final = 60.0


class Change(NamedTuple):
    """A source's new state: `open` (suspended), `half_open` or `closed`."""

    source: Source
    state: str
    pause_s: float
    records: int
    """What came in within the window,"""
    refused: int
    """and how much of it was refused."""


def suspensions(told: Mapping[tuple[str, str], tuple[Change, int]], now: int) -> list[dict[str, Any]]:
    """The sources that some replica suspends or tries again, for the status; `told` and `now` are in ms.

    By source: the state that holds longest, and how it came to that. A replica that is gone told nothing more.
    """
    found: dict[str, dict[str, Any]] = {}
    for (source, _), (change, at) in sorted(told.items(), key=lambda item: item[1][1]):
        until = at + round(1000 * change.pause_s)
        if change.state == "closed" or now > until + 1000 * LONGEST_PAUSE_S:
            continue
        known = found.setdefault(source, {"source": source, "state": change.state, "until": until})
        known |= {"state": change.state, "until": max(until, known["until"])}
        known |= {"records": change.records, "refused": change.refused}
    return [{**found[source], "until": times.text(found[source]["until"])} for source in sorted(found)]


class _State:
    def __init__(self) -> None:
        self.window: deque[tuple[int, int, int]] = deque()
        """second, records, refused"""
        self.records = self.refused = 0
        self.until: float | None = None
        """Suspended until then, None while all is well."""
        self.pause_s = 0.0
        self.trying = False


class Breaker:
    """One replica's. Opens where more than `share` of at least `least` records of a minute were refused.

    The first pause is `pause_s` long; each that follows an attempt that failed is twice as long, up to a minute.
    """

    def __init__(
        self,
        share: float,
        least: int,
        pause_s: float,
        changed: Callable[[Change], None] = lambda change: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._least = least
        self._pause_s = pause_s
        self._changed = changed
        self._clock = clock
        self._states: dict[Source, _State] = {}

    @contextmanager
    def request(self, source: Source) -> Iterator[Callable[[int, int], None]]:
        """A write of a source; to be told (records, refused) once that is known.

        Raises BadRequest 503 `source_suspended`.
        """
        state = self._states.setdefault(source, _State())
        trial = state.until is not None
        if trial:
            self._try(source, state)
        try:
            yield lambda records, refused: self._note(source, state, trial, records, refused)
        finally:
            if trial:
                state.trying = False

    def _try(self, source: Source, state: _State) -> None:
        assert state.until is not None
        left = state.until - self._clock()
        if left > 0 or state.trying:
            wait = max(1, math.ceil(left))
            raise BadRequest(
                503,
                "source_suspended",
                f"nearly all that came from {source} was refused: see the dead letters, and send again in {wait} s",
                wait,
            )
        state.trying = True
        self._tell(source, "half_open", state)

    def _note(self, source: Source, state: _State, trial: bool, records: int, refused: int) -> None:
        if not records:
            return
        if trial:
            if refused > self._share * records:
                self._open(source, state, min(2 * state.pause_s, LONGEST_PAUSE_S))
            else:
                state.until, state.pause_s = None, 0.0
                self._tell(source, "closed", state)
            return
        second = int(self._clock())
        while state.window and state.window[0][0] <= second - WINDOW_S:
            _, gone, gone_refused = state.window.popleft()
            state.records -= gone
            state.refused -= gone_refused
        if state.window and state.window[-1][0] == second:
            _, before, before_refused = state.window.pop()
            state.window.append((second, before + records, before_refused + refused))
        else:
            state.window.append((second, records, refused))
        state.records += records
        state.refused += refused
        if state.until is None and state.records >= self._least and state.refused > self._share * state.records:
            self._open(source, state, self._pause_s)

    def _open(self, source: Source, state: _State, pause_s: float) -> None:
        state.until, state.pause_s = self._clock() + pause_s, pause_s
        self._tell(source, "open", state)
        # What led to this must not count again once it is over.
        state.window.clear()
        state.records = state.refused = 0

    def _tell(self, source: Source, word: str, state: _State) -> None:
        self._changed(Change(source, word, state.pause_s, state.records, state.refused))
