"""How fast something goes, of late."""

from __future__ import annotations

import time
from typing import Final

_NEWEST: Final = 0.3
"""The weight of the last stretch."""


class Rate:
    """So many a second, the older the less it counts. `tick` is called once a second or so."""

    def __init__(self) -> None:
        self.rate = 0.0
        self._amount = 0
        self._since = time.monotonic()

    def add(self, amount: int) -> None:
        """Something went by."""
        self._amount += amount

    def tick(self) -> None:
        """A stretch has ended."""
        now = time.monotonic()
        seen, self._amount, self._since = self._amount / max(now - self._since, 0.001), 0, now
        self.rate += _NEWEST * (seen - self.rate)
