"""Live histories: new records of a user as server-sent events, as they become visible.

A shard publishes what it indexes for streams that somebody watches. The id of an event says how far each of
the user's streams had been told, by sequence number; a client that comes back with it gets what it missed
from the index and the lake, then goes on live. A phone's stream is told from when the phone was linked.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec

from rebu_ray.access.history import Histories, check_position
from rebu_ray.access.pipeline import ask
from rebu_ray.access.tape import END, START, Stretch, Tape, floor_get
from rebu_ray.ingest.dialects import times
from rebu_ray.ingest.intake import ShardGone
from rebu_ray.ingest.position import Position
from rebu_ray.records import BadRequest, stable_hash
from rebu_ray.store.index import UNAVAILABLE, history_key, position_key, watch_channel
from rebu_ray.store.links import Link, Owned, owned
from rebu_ray.store.member import Codec, place_time, split
from rebu_ray.store.redis_cluster import Client
from rebu_ray.store.rows import json_text, partition_of

WATCH_SECONDS: Final = 30.0
REFRESH_SECONDS: Final = 5.0
"""How often a follower renews its watch, and looks whether it was told of everything."""
SCAN: Final = 1000
ROUND: Final = 10_000
"""The most missed members of a stream that are held at once."""
_LINKING: Final = (b'"name":"identify",', b'"name":"alias",')
"""How the fragment of a record begins that may link a phone."""

Watch = Callable[[dict[int, list[str]], float], Awaitable[None]]
"""({partition: streams}, seconds): have the shards publish new rows of these streams for a while. Raises ShardGone."""
RecentPage = Callable[[int, str, bytes, bytes, bool, int, int], Awaitable[list[bytes]]]
"""A `ColdPage` with one argument more: a sequence number, and no file is read that holds nothing after it."""


class Live:
    """Follows users' histories."""

    def __init__(self, redis: Client, histories: Histories, recent: RecentPage, watch: Watch) -> None:
        self.redis = redis
        self.histories = histories
        self.recent = recent
        self.watch = watch
        self.codec = Codec()

    async def follow(self, user_id: str, last_event_id: str | None) -> AsyncIterator[bytes]:
        """The events of a user from now on, or from after `last_event_id`. Raises BadRequest for an id not of ours."""
        told = None if last_event_id is None else _read_token(last_event_id)
        await self.histories.person(user_id)
        return _Follower(self, user_id, told).events()


class _Follower:
    """One connection. `before`: how far streams had been told, by digest, where the client comes back."""

    def __init__(self, live: Live, user_id: str, before: dict[int, int] | None) -> None:
        self._live = live
        self._redis = live.redis
        self._histories = live.histories
        self._user_id = user_id
        self._own = f"u:{user_id}"
        self._head = b'{"user_id":' + json_text(user_id).encode() + b","
        self._before = before
        self._begun = False
        self._told: dict[str, int] = {}
        """The highest sequence number of each stream that was told, or was there before."""
        self._sure: dict[str, int] = {}
        """Up to which sequence number nothing of a stream was left out."""
        self._since: dict[str, set[int]] = {}
        """What was told of a stream beyond that."""
        self._known: dict[str, _Extent] = {}

    async def events(self) -> AsyncIterator[bytes]:
        """The events. Ends where the index is away or not whole: the client comes back and goes on."""
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        clock = asyncio.get_running_loop().time
        try:
            missed = self._attend(pubsub)
            first = await anext(missed, None)
            yield b"retry: 1000\n\n"  # by now, what comes in is heard of
            if first is not None:
                yield first
            async for event in missed:
                yield event
            renew = clock() + REFRESH_SECONDS
            while True:
                message = await pubsub.get_message(timeout=1.0)
                links = False
                if message is not None:
                    stream = message["channel"].split(b"w:", 1)[1].decode()
                    heard = await self._heard(stream, message["data"])
                    if heard is not None:
                        yield heard
                        links = stream == self._own and await self._may_link(stream, message["data"])
                if links or clock() >= renew:
                    async for event in self._attend(pubsub):
                        yield event
                    renew = clock() + REFRESH_SECONDS
                    yield b": still here\n\n"
        except (BadRequest, *UNAVAILABLE):
            return
        finally:
            await pubsub.aclose()

    async def _attend(self, pubsub: Any) -> AsyncIterator[bytes]:
        """Listen to all of the user's streams; what of them should have been told and was not.

        A shard that was restarted does not know who watches, so a stream that grew unheard is read again.
        """
        phones = (await self._histories.person(self._user_id)).phones
        streams = {self._own, *(f"a:{phone}" for phone in phones), *self._told}
        partitions = {stream: partition_of(stream, self._histories.partitions) for stream in sorted(streams)}
        await pubsub.subscribe(*(watch_channel(p, stream) for stream, p in partitions.items()))
        watched: dict[int, list[str]] = {}
        for stream, partition in partitions.items():
            watched.setdefault(partition, []).append(stream)
        with contextlib.suppress(ShardGone):  # the next time it is back, and nothing is left out until then
            await self._live.watch(watched, WATCH_SECONDS)
        extents = {stream: await self._extent(partition, stream) for stream, partition in partitions.items()}
        if not self._begun:
            self._begin(extents)
        for stream, extent in extents.items():
            if stream not in self._told or extent[1:] != self._known[stream][1:]:
                links = phones.get(stream[2:], []) if stream != self._own else []
                async for event in self._catch_up(stream, partitions[stream], extent.position, links):
                    yield event
            self._known[stream] = extent
            self._sure[stream] = self._told[stream]
            self._since[stream] = set()

    def _begin(self, extents: dict[str, _Extent]) -> None:
        """Where telling begins: where the client was, else now. A phone that it did not know of yet is left out."""
        for stream, extent in extents.items():
            if self._before is None or stream == self._own:
                self._told[stream] = extent.position
                self._known[stream] = extent
            if self._before is not None and (digest := _digest(stream)) in self._before:
                self._told[stream] = self._before[digest]
                self._known[stream] = _NOTHING_KNOWN
        self._sure = dict(self._told)
        self._since = {stream: set() for stream in self._told}
        self._begun = True

    async def _extent(self, partition: int, stream: str) -> _Extent:
        position, size, floor = await ask(
            self._redis,
            ("GET", position_key(partition)),
            ("ZCARD", history_key(partition, stream)),
            floor_get(Stretch(partition, stream, START, END)),
        )
        return _Extent(check_position(position).seq, size, floor)

    async def _catch_up(self, stream: str, partition: int, position: int, links: list[Link]) -> AsyncIterator[bytes]:
        """What a stream holds that was not told, in the order in which it came in."""
        known = stream in self._told
        sure, told = self._sure.get(stream, 0), self._since.get(stream, set())
        # A phone that was linked meanwhile: what came in with the link or after it.
        received_from = 0 if known else min((k.received_at for k in links if k.user_id == self._user_id), default=0)
        parts = owned(links, self._user_id)
        while True:
            found = await self._after(stream, partition, sure)
            for seq, member in found:
                sure = seq
                if seq in told or not (stream == self._own or _within(parts, member)):
                    continue
                body = self._live.codec.decompress(split(member).payload)
                if known or _received_at(body) >= received_from:
                    yield self._event(stream, seq, body)
            if len(found) < ROUND:
                break
        self._told[stream] = max(self._told.get(stream, 0), sure, position)

    async def _after(self, stream: str, partition: int, seq: int) -> list[tuple[int, bytes]]:
        """The first `ROUND` members of a stream after a sequence number, from Redis and the lake."""

        def recent(p: int, s: str, low: bytes, high: bytes, descending: bool, limit: int) -> Awaitable[list[bytes]]:
            return self._live.recent(p, s, low, high, descending, limit, seq)

        whole = Stretch(partition, stream, START, END)
        [floor] = await ask(self._redis, floor_get(whole))
        tape = Tape(self._redis, recent, whole, floor, False)
        found: list[tuple[int, bytes]] = []
        while not tape.ended:
            await tape.fill(SCAN)
            found += [(number, m) for m in tape.buffer if (number := split(m).seq) > seq]
            tape.at = len(tape.buffer)
            if len(found) > 2 * ROUND:
                found = heapq.nsmallest(ROUND, found)
        return heapq.nsmallest(ROUND, found)

    async def _heard(self, stream: str, member: bytes) -> bytes | None:
        """The event of a member that was published; None for one that was told, or that is somebody else's."""
        found = split(member)
        position, size, floor = self._known[stream]
        if found.seq > position:
            self._known[stream] = _Extent(position, size + 1, floor)
        if found.seq <= self._told[stream]:
            return None
        if stream != self._own:
            # A phone's stream may hold another person's records as well.
            phones = (await self._histories.person(self._user_id)).phones
            if not _within(owned(phones.get(stream[2:], []), self._user_id), member):
                return None
        self._since[stream].add(found.seq)
        return self._event(stream, found.seq, self._live.codec.decompress(found.payload))

    async def _may_link(self, stream: str, member: bytes) -> bool:
        """Whether a record of the user may have linked a phone; waits until the index tells."""
        found = split(member)
        if not self._live.codec.decompress(found.payload).startswith(_LINKING):
            return False
        await self._histories.wait_for(Position({partition_of(stream, self._histories.partitions): found.seq}))
        return True

    def _event(self, stream: str, seq: int, body: bytes) -> bytes:
        """One server-sent event. Its id says how far all streams have been told with it."""
        self._told[stream] = max(seq, self._told.get(stream, 0))
        token = msgspec.msgpack.encode({_digest(stream): seq for stream, seq in self._told.items()})
        # In JSON text a line can end between tokens only.
        line = body.replace(b"\r", b" ").replace(b"\n", b" ")
        return b"id: " + base64.urlsafe_b64encode(token) + b"\ndata: " + self._head + line + b"\n\n"


class _Extent(NamedTuple):
    """How far a stream's partition is indexed; how many members Redis has of the stream, and where its floor is."""

    position: int
    size: int
    floor: bytes | None


_NOTHING_KNOWN: Final = _Extent(0, -1, None)


def _digest(stream: str) -> int:
    return stable_hash(stream) & 0xFFFF_FFFF


def _read_token(text: str) -> dict[int, int]:
    try:
        return msgspec.msgpack.decode(base64.urlsafe_b64decode(text), type=dict[int, int])
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise BadRequest(
            400, "invalid_event_id", "Last-Event-ID is not one of ours: pass on the id of the last event, or none"
        ) from error


class _Received(msgspec.Struct):
    received_at: str


_RECEIVED: Final = msgspec.json.Decoder(_Received)


def _received_at(body: bytes) -> int:
    return times.milliseconds(_RECEIVED.decode(b"{" + body).received_at)


def _within(parts: list[Owned], member: bytes) -> bool:
    """Whether a record lies in one of the parts of its stream."""
    at = place_time(split(member).place)
    return any((part.since is None or part.since <= at) and (part.until is None or at < part.until) for part in parts)
