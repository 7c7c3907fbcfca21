"""What a gateway replica takes on at once: decided before a request is read, so that refusing costs next to nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rebu_ray.records import BadRequest

MAX_REQUESTS: Final = 256
"""The most requests that are answered at the same time; those beyond are refused, not queued."""
LEAST_WAIT_S: Final = 1
MOST_WAIT_S: Final = 30
_WINDOW_S: Final = 5.0
"""Over how long the drain rate is measured."""


class Drain:
    """How much is done with a second, of late. Its clock goes while there is something to do, and only then."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._done = 0.0
        self._before: float | None = None
        """What was done a second in the window before."""

    def note(self, amount: float) -> None:
        """So much is done with."""
        self._done += amount
        self._turn()

    def wait_s(self, amount: float) -> float:
        """How long so much will take; 0 where nothing is known yet."""
        self._turn()
        passed = self._clock() - self._since
        if self._before is None:
            return amount * passed / self._done if self._done else 0.0
        per_s = (self._done + self._before * (_WINDOW_S - passed)) / _WINDOW_S
        return amount / per_s if per_s else MOST_WAIT_S

    def _turn(self) -> None:
        passed = self._clock() - self._since
        if passed >= _WINDOW_S:
            self._before = self._done / passed
            self._done, self._since = 0.0, self._clock()


class Held:
    """What one request holds."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.bytes = 0

    def add(self, amount: int) -> None:
        """Hold so many bytes more. Raises BadRequest 429 where the replica has no room for them."""
        self._admission.make_room(amount, self.bytes)
        self.bytes += amount
        self._admission.held_bytes += amount


class Admission:
    """The bytes and the number of requests that this replica holds, and whether there is room for more."""

    def __init__(
        self, limit_bytes: int, clock: Callable[[], float] = time.monotonic, requests: int = MAX_REQUESTS
    ) -> None:
        self._limit = limit_bytes
        self._most = requests
        self.held_bytes = 0
        self.held_requests = 0
        self._clock = clock
        self._busy_s = 0.0
        self._busy_since = 0.0
        self._bytes_drain = Drain(self._busy)
        self._requests_drain = Drain(self._busy)

    @contextmanager
    def request(self) -> Iterator[Held]:
        """A request, from its first byte to its answer. Raises BadRequest 429 where there are too many."""
        if self.held_requests >= self._most:
            raise overloaded(self._requests_drain.wait_s(self.held_requests))
        held = Held(self)
        if not self.held_requests:
            self._busy_since = self._clock()
        self.held_requests += 1
        try:
            yield held
            # What was refused tells nothing of how fast work is done.
            self._requests_drain.note(1)
            self._bytes_drain.note(held.bytes)
        finally:
            self._busy_s, self._busy_since = self._busy(), self._clock()
            self.held_requests -= 1
            self.held_bytes -= held.bytes

    def make_room(self, amount: int, own: int) -> None:
        """Raises BadRequest 429 where so many bytes more are too many. A request that is alone always has room."""
        others = self.held_bytes - own
        if others and self.held_bytes + amount > self._limit:
            raise overloaded(self._bytes_drain.wait_s(others))

    def _busy(self) -> float:
        """Seconds in which something was held."""
        return self._busy_s + (self._clock() - self._busy_since if self.held_requests else 0.0)


def overloaded(wait_s: float) -> BadRequest:
    """The refusal of a write that may come again after so many seconds, at most MOST_WAIT_S."""
    wait = min(max(math.ceil(wait_s), LEAST_WAIT_S), MOST_WAIT_S)
    return BadRequest(429, "overloaded", f"too much at once, nothing of this was stored: send again in {wait} s", wait)
