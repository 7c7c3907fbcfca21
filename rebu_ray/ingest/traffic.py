"""How much the gateways are asked for: each replica reports once a second, the coordinator adds up.

What counts is work: requests that are worked on at the same time (by Little's law, requests a second times what one
takes). A gateway that is full refuses within a millisecond, so refusals do not show in what is ongoing: they are
counted for themselves, as the work that they would have been.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

WINDOW_S: Final = 3.0
"""What is newer makes up the present."""
_WORK_MEMORY: Final = 0.2
"""The weight of the last second in what a request takes."""


class Report(NamedTuple):
    """What one replica did since its report before."""

    seconds: float
    answered: int
    refused: int
    """With 429 or 503."""
    busy_s: float
    """Requests that were worked on, each for as long as it was; what is refused takes no time."""


class Work:
    """Counts the requests of one replica."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ongoing = 0
        self._since = self._reported = clock()
        self._busy_s = 0.0
        self._answered = self._refused = 0

    def begun(self) -> None:
        """A request has come."""
        self._pass()
        self._ongoing += 1

    def ended(self, refused: bool) -> None:
        """A request is answered, or its client is gone."""
        self._pass()
        self._ongoing -= 1
        self._refused += refused
        self._answered += not refused

    def report(self) -> Report:
        """What was done since the last call."""
        self._pass()
        now = self._clock()
        found = Report(max(now - self._reported, 1e-3), self._answered, self._refused, self._busy_s)
        self._reported, self._answered, self._refused, self._busy_s = now, 0, 0, 0.0
        return found

    def _pass(self) -> None:
        now = self._clock()
        self._busy_s += self._ongoing * (now - self._since)
        self._since = now


class Demand(NamedTuple):
    """What all replicas together are asked for now."""

    ongoing: float
    """Requests that are worked on at once."""
    answered_s: float
    refused_s: float
    """Requests a second."""
    request_s: float
    """What a request takes, seconds, of late."""

    @property
    def at_once(self) -> float:
        """How many requests would be worked on at once if none was refused.

        Whoever is refused comes again, several times a second between them, so refusals count as much again as what is
        answered at the most: there is then twice the room, and what was told away comes back as work.
        """
        return self.ongoing + min(self.refused_s, self.answered_s) * self.request_s


class Meter:
    """The sum of what replicas report. `clock` is in seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reports: dict[str, deque[tuple[float, Report]]] = {}
        self._request_s = 0.0

    def note(self, replica: str, report: Report) -> None:
        """A replica has reported."""
        self._reports.setdefault(replica, deque()).append((self._clock(), report))

    def demand(self) -> Demand | None:
        """What is asked for now; None where nobody has reported of late."""
        oldest = self._clock() - WINDOW_S
        ongoing = answered = refused = 0.0
        for replica, reports in list(self._reports.items()):
            while reports and reports[0][0] <= oldest:
                reports.popleft()
            if not reports:
                del self._reports[replica]
                continue
            seconds = sum(report.seconds for _, report in reports)
            ongoing += sum(report.busy_s for _, report in reports) / seconds
            answered += sum(report.answered for _, report in reports) / seconds
            refused += sum(report.refused for _, report in reports) / seconds
        if not self._reports:
            return None
        if answered:
            takes = ongoing / answered
            self._request_s += _WORK_MEMORY * (takes - self._request_s) if self._request_s else takes
        return Demand(ongoing, answered, refused, self._request_s)
