"""Live histories: new records of a user as server-sent events, as they become visible.

A shard publishes what it indexes for streams that somebody watches. The id of an event says how far each of
the user's streams had been told, by sequence number; a client that comes back with it gets what it missed
from the index and the lake, then goes on live. A phone's stream is told from when the phone was linked.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec

from rebu_ray.access.history import Histories, Link, ask, check_position, owned
from rebu_ray.access.tape import END, START, Stretch, Tape, floor_get
from rebu_ray.ingest.dialects import times
from rebu_ray.ingest.position import Position
from rebu_ray.records import BadRequest, stable_hash
from rebu_ray.store.index import UNAVAILABLE, Client, history_key, position_key, watch_channel
from rebu_ray.store.member import Codec, place_time, split
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
"""({partition: streams}, seconds): have the shards publish new rows of these streams for a while."""
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
    """One connection. `told`: sequence number by stream digest, where the client comes back."""

    def __init__(self, live: Live, user_id: str, told: dict[int, int] | None) -> None:
        self._live = live
        self._redis = live.redis
        self._histories = live.histories
        self._user_id = user_id
        self._own = f"u:{user_id}"
        self._head = b'{"user_id":' + json_text(user_id).encode() + b","
        self._before = told
        self._told: dict[str, int] = {}
        """How far each stream has been told, by sequence number."""
        self._known: dict[str, tuple[int, bytes | None]] = {}
        """How many members a stream had and where its floor was, counting what has been told since."""

    async def events(self) -> AsyncIterator[bytes]:
        """The events. Ends where the index is away or being rebuilt: the client comes back and goes on."""
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        clock = asyncio.get_running_loop().time
        try:
            missed = self._attend(pubsub)
            first = await anext(missed, None)
            yield b"retry: 1000\n\n"  # not before everything that comes in from now on is heard of
            if first is not None:
                yield first
            async for event in missed:
                yield event
            renew = clock() + REFRESH_SECONDS
            while True:
                message = await pubsub.get_message(timeout=1.0)
                linking = False
                if message is not None:
                    stream = message["channel"].split(b"w:", 1)[1].decode()
                    event, linking = await self._heard(stream, message["data"])
                    if event is not None:
                        yield event
                if linking or clock() >= renew:
                    async for event in self._attend(pubsub):
                        yield event
                    renew = clock() + REFRESH_SECONDS
                    yield b": still here\n\n"
        except (BadRequest, *UNAVAILABLE):
            return
        finally:
            await pubsub.aclose()

    async def _attend(self, pubsub: Any) -> AsyncIterator[bytes]:
        """Listen to all of the user's streams; what came in that was not told, of new streams and of old ones."""
        phones = (await self._histories.person(self._user_id)).phones
        streams = {self._own, *(f"a:{phone}" for phone in phones), *self._told}
        by_partition: dict[int, list[str]] = {}
        for stream in sorted(streams):
            by_partition.setdefault(partition_of(stream, self._histories.partitions), []).append(stream)
        await pubsub.subscribe(*(watch_channel(p, s) for p, found in by_partition.items() for s in found))
        await self._live.watch(by_partition, WATCH_SECONDS)
        for partition, found in by_partition.items():
            for stream in found:
                position, size, floor = await ask(
                    self._redis,
                    ("GET", position_key(partition)),
                    ("ZCARD", history_key(partition, stream)),
                    floor_get(Stretch(partition, stream, START, END)),
                )
                links = phones.get(stream[2:], []) if stream != self._own else []
                async for event in self._catch_up(stream, check_position(position).seq, (size, floor), links):
                    yield event

    async def _catch_up(
        self, stream: str, position: int, known: tuple[int, bytes | None], links: list[Link]
    ) -> AsyncIterator[bytes]:
        """What a stream holds that was not told."""
        received_from = None
        if stream in self._told:
            if known == self._known[stream]:
                return
        elif self._before is not None and _digest(stream) in self._before:
            self._told[stream] = self._before[_digest(stream)]
        elif stream == self._own or (self._before is None and not self._told.keys() - {stream}):
            self._told[stream] = position
        self._known[stream] = known

    async def _heard(self, stream: str, member: bytes) -> tuple[bytes | None, bool]:
        """The event of a member that was published, and whether it may have linked a phone."""
        raise NotImplementedError


def _digest(stream: str) -> int:
    return stable_hash(stream) & 0xFFFF_FFFF


def _read_token(text: str) -> dict[int, int]:
    raise BadRequest(400, "invalid_event_id", text)
