"""What the processes that nobody looks after say of themselves: replicas of Serve, which come and go."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final, NamedTuple

from rebu_ray.metrics import Part

REPORT_SECONDS: Final = 5.0
"""How often each of them says what it has counted."""
GONE_SECONDS: Final = 4 * REPORT_SECONDS
"""After how long without a word it is gone, and its number may be another's."""


class _Said(NamedTuple):
    number: int
    at: float
    data: bytes


class Reports:
    """The last word of each, on the loop of the coordinator."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._said: dict[tuple[str, str], _Said] = {}

    def note(self, kind: str, who: str, number: int | None, data: bytes) -> int:
        """Keep what one of a kind says; its number among them.

        It keeps the one that it had before, also where the coordinator does not know of it any more: its series are
        not to be mistaken for another's. Numbers are given out again, so that there are no more than were at once.
        """
        self._forget()
        known = self._said.get((kind, who))
        taken = {said.number for (of, other), said in self._said.items() if of == kind and other != who}
        if known is not None:
            number = known.number
        elif number is None or number in taken:
            number = next(free for free in itertools.count() if free not in taken)
        self._said[kind, who] = _Said(number, self._clock(), data)
        return number

    def parts(self) -> list[Part]:
        """What all of them said last."""
        self._forget()
        return [
            Part(f"{kind}-{said.number}", {"replica": str(said.number)}, said.data)
            for (kind, _), said in sorted(self._said.items(), key=lambda item: (item[0][0], item[1].number))
        ]

    def _forget(self) -> None:
        since = self._clock() - GONE_SECONDS
        self._said = {who: said for who, said in self._said.items() if said.at >= since}
