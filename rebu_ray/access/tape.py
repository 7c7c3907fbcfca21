"""Tapes: a stretch of one stream, read member by member in the order of places, from Redis and the lake.

A page is read from one or more tapes at once. What lies above a stream's floor is in Redis; below it the
lake is asked too, and late members that Redis still holds are merged in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from rebu_ray.store.index import Client, floor_key, history_key
from rebu_ray.store.member import Codec, Member, split

SCAN_BUDGET: Final = 20_000
"""The most members that one page looks at for a filter; a page may therefore be short and still go on."""
START: Final = b""
"""A place before all others."""
END: Final = b"\xff"
"""A place after all others."""

ColdPage = Callable[[int, str, bytes, bytes, bool, int], Awaitable[list[bytes]]]
"""(partition, stream, low, high, descending, limit) -> members from the lake with low <= place < high."""


class Filter(NamedTuple):
    """What a page shows; None shows all."""

    kinds: frozenset[int] | None = None
    sources: frozenset[int] | None = None
    name: bytes | None = None
    """The beginning of a fragment with the wanted name."""

    @property
    def active(self) -> bool:
        return self != (None, None, None)


class Stretch(NamedTuple):
    """Part of a stream: low <= place < high."""

    partition: int
    stream: str
    low: bytes
    high: bytes


class Page(NamedTuple):
    """Fragments in order, and the place after which the next page goes on, or None at the end."""

    fragments: list[bytes]
    resume: bytes | None


class Tape:
    """Members of a stretch, fetched a chunk at a time."""

    def __init__(self, redis: Client, cold: ColdPage, stretch: Stretch, floor: bytes | None, descending: bool) -> None:
        self._redis = redis
        self._cold = cold
        self._stretch = stretch
        self._descending = descending
        low, high = stretch.low, stretch.high
        hot = (max(low, floor), high) if floor is not None else (low, high)
        below = (low, min(high, floor)) if floor is not None else (low, low)
        parts = [(below, True), (hot, False)]
        self._parts = [
            (bounds, cold) for bounds, cold in (parts[::-1] if descending else parts) if bounds[0] < bounds[1]
        ]
        self.buffer: list[bytes] = []
        self.at = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is buffered."""
        return self.at >= len(self.buffer)

    @property
    def ended(self) -> bool:
        """Whether nothing is left at all."""
        return self.empty and not self._parts

    def preload(self, found: list[bytes], asked: int) -> None:
        """Take members that were fetched from Redis already, from the beginning of a tape without a floor."""
        self._took(found, asked)

    async def fill(self, chunk: int) -> None:
        """Buffer the next members, `chunk` at most, unless some are buffered."""
        while self.empty and self._parts:
            (low, high), cold = self._parts[0]
            hot = self._redis.execute_command(*zrange(self._stretch, low, high, self._descending, chunk))
            if cold:
                lake = self._cold(self._stretch.partition, self._stretch.stream, low, high, self._descending, chunk)
                both = await asyncio.gather(hot, lake)
                found = sorted({split(m).place: m for m in (*both[1], *both[0])}.values(), reverse=self._descending)[
                    :chunk
                ]
            else:
                found = await hot
            self._took(found, chunk)

    def _took(self, found: list[bytes], asked: int) -> None:
        self.buffer, self.at = found, 0
        (low, high), cold = self._parts.pop(0)
        if len(found) >= asked:
            edge = split(found[-1]).place
            rest = (low, edge) if self._descending else (after(edge), high)
            self._parts.insert(0, (rest, cold))


def after(place: bytes) -> bytes:
    """The lowest bound that leaves out a place (ids hold no NUL, so nothing lies between)."""
    return place + b"\x01"


def zrange(stretch: Stretch, low: bytes, high: bytes, descending: bool, count: int) -> tuple[bytes | str | int, ...]:
    """The Redis command for the first `count` members of [low, high)."""
    bounds = (b"[" + low if low else b"-", b"(" + high)
    key = history_key(stretch.partition, stretch.stream)
    if descending:
        return ("ZRANGE", key, bounds[1], bounds[0], "BYLEX", "REV", "LIMIT", 0, count)
    return ("ZRANGE", key, *bounds, "BYLEX", "LIMIT", 0, count)


def floor_get(stretch: Stretch) -> tuple[bytes | str, ...]:
    """The Redis command for a stream's floor."""
    return ("GET", floor_key(stretch.partition, stretch.stream))


async def read_page(tapes: Sequence[Tape], codec: Codec, wanted: Filter, descending: bool, limit: int) -> Page:
    """The first `limit` members over all tapes that pass the filter, each place and each id once."""
    chunk = max(limit + 1, 500) if wanted.active else limit + 1
    pick = max if descending else min
    fragments: list[bytes] = []
    ids: set[bytes] = set()
    passed: bytes | None = None
    """The last place that is done with."""
    for _ in range(SCAN_BUDGET):
        if any(tape.empty and not tape.ended for tape in tapes):
            await asyncio.gather(*(tape.fill(chunk) for tape in tapes if tape.empty))
        live = [tape for tape in tapes if not tape.empty]
        if not live:
            return Page(fragments, None)
        # Every tape holds its next member, so the best of these is the best of all.
        tape = live[0] if len(live) == 1 else pick(live, key=lambda t: t.buffer[t.at])
        member = split(tape.buffer[tape.at])
        shown = _fragment(member, codec, wanted)
        if shown is not None and member.place[8:] not in ids:
            if len(fragments) == limit:
                return Page(fragments, passed)
            ids.add(member.place[8:])
            fragments.append(shown)
        tape.at += 1
        passed = member.place
    return Page(fragments, passed)


def _fragment(member: Member, codec: Codec, wanted: Filter) -> bytes | None:
    """The fragment of a member that passes the filter."""
    if wanted.kinds is not None and member.kind not in wanted.kinds:
        return None
    if wanted.sources is not None and member.source not in wanted.sources:
        return None
    fragment = codec.decompress(member.payload)
    return fragment if wanted.name is None or fragment.startswith(wanted.name) else None
