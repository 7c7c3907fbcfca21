"""Lines that name only a request, and the users whom access lines give to requests: joined in either order.

Kept by the owner of the request's partition, so both sides meet in one place and one order. Bounded in time
and count; what leaves unclaimed is counted and stays in the lake as unattributed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.records import REQUESTS, Kind, MatchedBy

HOUR_MS: Final = 3_600_000

Row = dict[str, Any]
"""A row of `ROWS` as a plain dict."""


def request_rows(rows: pa.RecordBatch) -> list[Row]:
    """The rows of request streams."""
    of_requests = pc.starts_with(rows["key"], REQUESTS)
    found: list[Row] = rows.filter(of_requests).to_pylist() if of_requests.true_count else []
    return found


class Claimed(NamedTuple):
    """A line whose user became known."""

    row: Row
    user_id: str


class RequestJoin:
    """Bindings (request id -> user) and waiting lines of the last hour of receipt."""

    def __init__(self, window_ms: int = HOUR_MS, max_bindings: int = 1_000_000, max_waiting: int = 200_000) -> None:
        self._window_ms = window_ms
        self._max_bindings = max_bindings
        self._max_waiting = max_waiting
        self._bindings: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._waiting: OrderedDict[tuple[str, str], Row] = OrderedDict()
        self._by_key: dict[str, dict[str, None]] = {}
        self.expired = 0
        """Lines that nobody claimed within the window, or that the bound pushed out."""

    @property
    def waiting(self) -> int:
        """Lines that wait for their request's user."""
        return len(self._waiting)

    def observe(self, rows: Iterable[Row], now: int) -> list[Claimed]:
        """Take in rows of request streams in journal order; the lines whose user is known now."""
        self.expire(now)
        claimed: list[Claimed] = []
        for row in rows:
            key = row["key"]
            if row["kind"] == Kind.BINDING:
                # The first access line of a request decides, whatever order they arrive in afterwards; what
                # more its user sends keeps it in mind.
                user, _ = self._bindings.get(key, (row["user_id"], 0))
                if user == row["user_id"]:
                    self._bindings[key] = (user, row["received_at"])
                    self._bindings.move_to_end(key)
                claimed += [Claimed(self._take(key, record_id), user) for record_id in list(self._by_key.get(key, ()))]
            elif key in self._bindings:
                claimed.append(Claimed(row, self._bindings[key][0]))
            else:
                self._waiting[key, row["id"]] = row
                self._by_key.setdefault(key, {})[row["id"]] = None
        self.expire(now)
        return claimed

    def expire(self, now: int) -> None:
        """Forget what is older than the window, and the oldest beyond the bounds."""
        oldest = now - self._window_ms
        while self._bindings:
            key, (_, received) = next(iter(self._bindings.items()))
            if received >= oldest and len(self._bindings) <= self._max_bindings:
                break
            del self._bindings[key]
        while self._waiting:
            (key, record_id), row = next(iter(self._waiting.items()))
            if row["received_at"] >= oldest and len(self._waiting) <= self._max_waiting:
                break
            self._take(key, record_id)
            self.expired += 1

    def drop(self, gone: Callable[[str], bool]) -> None:
        """Forget the keys that another shard looks after from now on."""
        for key in [key for key in self._bindings if gone(key)]:
            del self._bindings[key]
        for key in [key for key in self._by_key if gone(key)]:
            for record_id in self._by_key.pop(key):
                del self._waiting[key, record_id]

    def _take(self, key: str, record_id: str) -> Row:
        row = self._waiting.pop((key, record_id))
        ids = self._by_key[key]
        del ids[record_id]
        if not ids:
            del self._by_key[key]
        return row


def attributed(row: Row, user_id: str) -> Row:
    """The row as it stands in the history of the user whose request it named."""
    return {**row, "key": f"u:{user_id}", "user_id": user_id, "matched_by": str(MatchedBy.REQUEST_ID)}
