"""The circuit breaker: a sender nearly all of whose records of a source are refused is suspended for a while.

What it sent so far is kept as dead letters. While it is suspended its writes to that source are answered 503 before
they are parsed, so that it keeps them; then one request is let through to see whether things are better (half-open).
Nobody else is meant: one bad phone, or one misled shipper, does not silence a source.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from rebu_ray.ingest.dialects import times
from rebu_ray.records import BadRequest, Source

WINDOW_S: Final = 60.0
LONGEST_PAUSE_S: Final = 60.0
MOST_SENDERS: Final = 4096
"""How many senders are kept in mind. Of more than that the one that has been quiet longest is forgotten: a phone that
sends a batch a minute; whoever sends enough rubbish to matter sends all the time.
"""


class Change(NamedTuple):
    """The new state of what a sender sends to a source: `open` (suspended), `half_open` or `closed`."""

    source: Source
    sender: int
    state: str
    pause_s: float
    records: int
    """What it was judged by,"""
    refused: int
    """and how much of that was refused."""


class Suspensions:
    """What the gateway replicas say of their breakers, for the status. Times are ms."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[Source, int, str], tuple[Change, int]] = OrderedDict()

    def note(self, replica: str, change: Change, now: int) -> None:
        """Keep what a replica told; what is over is forgotten."""
        key = (change.source, change.sender, replica)
        self._told.pop(key, None)
        if change.state != "closed":
            self._told[key] = (change, now)
        if len(self._told) > MOST_SENDERS:
            self._told.popitem(last=False)

    def summary(self, now: int) -> list[dict[str, Any]]:
        """By source: how many senders are suspended or tried again, until when the last of them, and what they sent.

        A replica that told nothing more for longer than a pause lasts is gone.
        """
        found: dict[Source, dict[str, Any]] = {}
        senders: dict[Source, set[int]] = {}
        for (source, sender, _), (change, at) in self._told.items():
            until = at + round(1000 * change.pause_s)
            if now > until + 1000 * LONGEST_PAUSE_S:
                continue
            senders.setdefault(source, set()).add(sender)
            known = found.setdefault(source, {"state": "half_open", "until": 0, "records": 0, "refused": 0})
            known["state"] = "open" if change.state == "open" else known["state"]
            known["until"] = max(until, known["until"])
            known["records"] += change.records
            known["refused"] += change.refused
        return [
            {"source": source, "senders": len(senders[source])} | known | {"until": times.text(known["until"])}
            for source, known in sorted(found.items())
        ]


class _State:
    __slots__ = ("blame", "pause_s", "records", "refused", "trying", "until", "window")

    def __init__(self) -> None:
        self.window: deque[tuple[int, int, int]] = deque()
        """second, records, refused"""
        self.records = self.refused = 0
        """Their sums."""
        self.blame = (0, 0)
        """Records and refused ones for which it was suspended last."""
        self.until: float | None = None
        """Suspended until then, None while all is well."""
        self.pause_s = 0.0
        self.trying = False


class Breaker:
    """One replica's. Opens for a sender of a source where more than `share` of at least `least` records that came
    from it in a minute were refused.

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
        self._states: OrderedDict[tuple[Source, int], _State] = OrderedDict()

    @contextmanager
    def request(self, source: Source, sender: int) -> Iterator[Callable[[int, int], None]]:
        """A write of a sender to a source; to be told (records, refused) once that is known.

        Raises BadRequest 503 `source_suspended`.
        """
        key = (source, sender)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = _State()
            if len(self._states) > MOST_SENDERS:
                self._states.popitem(last=False)
        else:
            self._states.move_to_end(key)
        trial = state.until is not None
        if trial:
            self._try(key, state)
        try:
            yield lambda records, refused: self._note(key, state, trial, records, refused)
        finally:
            if trial:
                state.trying = False

    def _try(self, key: tuple[Source, int], state: _State) -> None:
        assert state.until is not None
        left = state.until - self._clock()
        if left > 0 or state.trying:
            wait = max(1, math.ceil(left))
            raise BadRequest(
                503,
                "source_suspended",
                f"nearly all that you sent to {key[0]} was refused: see the dead letters, and send again in {wait} s",
                wait,
            )
        state.trying = True
        self._tell(key, "half_open", state)

    def _note(self, key: tuple[Source, int], state: _State, trial: bool, records: int, refused: int) -> None:
        if not records:
            return
        if trial:
            if refused > self._share * records:
                self._open(key, state, min(2 * state.pause_s, LONGEST_PAUSE_S), (records, refused))
            else:
                state.until, state.pause_s, state.blame = None, 0.0, (records, refused)
                self._tell(key, "closed", state)
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
            self._open(key, state, self._pause_s, (state.records, state.refused))

    def _open(self, key: tuple[Source, int], state: _State, pause_s: float, blame: tuple[int, int]) -> None:
        state.until, state.pause_s, state.blame = self._clock() + pause_s, pause_s, blame
        self._tell(key, "open", state)
        # What led to this must not count again once it is over.
        state.window.clear()
        state.records = state.refused = 0

    def _tell(self, key: tuple[Source, int], word: str, state: _State) -> None:
        self._changed(Change(*key, word, state.pause_s, *state.blame))
