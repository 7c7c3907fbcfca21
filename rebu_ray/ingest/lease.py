"""Leases: how long a slot stays with a shard that does not answer.

A lease decides when the coordinator gives up on a shard, never who may append: that is decided by the epoch of the
slot, which the journal itself asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

FAILURES: Final = 2
"""Heart-beats in a row that have to fail, whatever the clock says: a coordinator that slept itself asks once more."""


class Leases:
    """The leases of all slots, each renewed by an answer. `clock` is in seconds and never goes back."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._renewed: dict[int, float] = {}
        self._failed: dict[int, int] = {}

    def renew(self, slot: int, grace: float = 0.0) -> None:
        """A slot's shard has answered; or it is new, and gets so many seconds more until it does."""
        self._renewed[slot] = self._clock() + grace
        self._failed[slot] = 0

    def failed(self, slot: int) -> None:
        """A slot's shard was asked and has not answered."""
        self._renewed.setdefault(slot, self._clock())
        self._failed[slot] = self._failed.get(slot, 0) + 1

    def held(self, slot: int) -> bool:
        """Whether a slot is still with its shard."""
        if self._failed.get(slot, 0) < FAILURES:
            return True
        return self._clock() - self._renewed[slot] < self._seconds

    def answering(self, slots: Iterable[int]) -> list[int]:
        """The slots whose last heart-beat was answered."""
        return [slot for slot in slots if slot in self._renewed and not self._failed[slot]]
