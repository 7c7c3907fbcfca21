"""Tapes: a stretch of one stream, read member by member in the order of places, from Redis and the lake.

A page is read from one or more tapes at once. What lies above a stream's floor is in Redis; below it the
lake is asked too, and late members that Redis still holds are merged in.

Members move from Redis to the lake while tapes are read. The lake has them first, then the floor rises, then
they go; so a tape looks at the floor after it has read Redis, and at the lake last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from rebu_ray.store.index import floor_key, history_key
from rebu_ray.store.member import PAYLOAD, Codec, Member, split
from rebu_ray.store.redis_cluster import Client

SCAN_BUDGET: Final = 20_000
"""The most members that one page looks at for a filter; a page may therefore be short and still go on."""
FILTER_CHUNK: Final = 500
"""The fewest members that are fetched at once for a filter, which may let few of them pass."""
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
        self._low, self._high = stretch.low, stretch.high
        self._floor = floor or START
        self.buffer: list[bytes] = []
        self.at = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is buffered."""
        return self.at >= len(self.buffer)

    @property
    def complete(self) -> bool:
        """Whether nothing is left beyond what is buffered."""
        return self._low >= self._high

    @property
    def ended(self) -> bool:
        """Whether nothing is left at all."""
        return self.empty and self.complete

    def preload(self, found: list[bytes], asked: int) -> None:
        """Take members that were fetched from Redis already, from the beginning of a tape without a floor."""
        self._took([found], asked, (self._low, self._high))

    async def fill(self, chunk: int) -> None:
        """Buffer the next members, `chunk` or a few more, unless some are buffered."""
        while not self.ended and self.empty:
            low, high, cold = self._part()
            pipe = self._redis.pipeline(transaction=False)
            pipe.execute_command(*zrange(self._stretch, low, high, self._descending, chunk))
            pipe.execute_command(*floor_get(self._stretch))
            hot, floor = await pipe.execute()
            self._floor = max(self._floor, floor or START)
            if cold:
                partition, stream = self._stretch.partition, self._stretch.stream
                lake = await self._cold(partition, stream, low, high, self._descending, chunk)
                self._took([hot, lake], chunk, (low, high))
            elif self._floor <= low:
                self._took([hot], chunk, (low, high))

    def _part(self) -> tuple[bytes, bytes, bool]:
        """The next part that lies on one side of the floor, and whether that is below."""
        low, high, floor = self._low, self._high, self._floor
        if self._descending:
            return (low, high, True) if high <= floor else (max(low, floor), high, False)
        return (low, high, False) if floor <= low else (low, min(high, floor), True)

    def _took(self, found: Sequence[list[bytes]], asked: int, part: tuple[bytes, bytes]) -> None:
        """Buffer what was found in a part, as far as every source has told all of it."""
        edges = [split(members[-1]).place for members in found if len(members) >= asked]
        if self._descending:
            self._high = edge = max(edges, default=part[0])
        else:
            edge = min(edges, default=part[1])
            self._low = after(edge) if edges else edge
        if len(found) == 1:
            self.buffer = found[0]
        else:
            members = {split(member).place: member for members in found for member in members}
            self.buffer = sorted(
                (m for place, m in members.items() if (place >= edge if self._descending else place <= edge)),
                reverse=self._descending,
            )
        self.at = 0


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
    if len(tapes) == 1 and not wanted.active:
        plain = await _plain_page(tapes[0], codec, limit)
        if plain is not None:
            return plain
    chunk = chunk_size(limit, wanted)
    pick = max if descending else min
    fragments: list[bytes] = []
    ids: set[bytes] = set()
    at: bytes | None = None
    """The place that is looked at; several members may stand there, not all of which pass the filter."""
    passed: bytes | None = None
    """The last place that is done with."""
    looked = 0
    while True:
        if any(tape.empty and not tape.ended for tape in tapes):
            await asyncio.gather(*(tape.fill(chunk) for tape in tapes if tape.empty))
        live = [tape for tape in tapes if not tape.empty]
        if not live:
            return Page(fragments, None)
        # Every tape holds its next member, so the best of these is the best of all.
        tape = live[0] if len(live) == 1 else pick(live, key=lambda t: t.buffer[t.at])
        member = split(tape.buffer[tape.at])
        if member.place != at:
            at, passed = member.place, at
            if looked >= SCAN_BUDGET:
                return Page(fragments, passed)
        shown = _fragment(member, codec, wanted)
        if shown is not None and member.place[8:] not in ids:
            if len(fragments) == limit:
                return Page(fragments, passed)
            ids.add(member.place[8:])
            fragments.append(shown)
        tape.at += 1
        looked += 1


async def _plain_page(tape: Tape, codec: Codec, limit: int) -> Page | None:
    """A page of one tape without a filter, all at once; None where ids repeat or the page goes on in the next chunk."""
    await tape.fill(limit + 1)
    raw = tape.buffer[tape.at :]
    ends = [member.index(0, 8) for member in raw]
    if len({member[8:end] for member, end in zip(raw, ends, strict=True)}) < len(raw):
        return None
    if len(raw) > limit:
        resume: bytes | None = raw[limit - 1][: ends[limit - 1]]
    elif tape.complete:
        resume = None
    else:
        return None
    payloads = [member[end + PAYLOAD :] for member, end in zip(raw[:limit], ends, strict=False)]
    return Page(list(map(codec.decompress, payloads)), resume)


def chunk_size(limit: int, wanted: Filter) -> int:
    """How many members to fetch at once for a page."""
    return max(limit + 1, FILTER_CHUNK) if wanted.active else limit + 1


def _fragment(member: Member, codec: Codec, wanted: Filter) -> bytes | None:
    """The fragment of a member that passes the filter."""
    if wanted.kinds is not None and member.kind not in wanted.kinds:
        return None
    if wanted.sources is not None and member.source not in wanted.sources:
        return None
    fragment = codec.decompress(member.payload)
    return fragment if wanted.name is None or fragment.startswith(wanted.name) else None
