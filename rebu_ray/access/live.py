"""Live histories: new records of a user as server-sent events, as they become visible.

A shard publishes what it indexes for streams that somebody watches. The id of an event says how far each of
the user's streams had been seen, by sequence number; a client that comes back with it gets what it missed
from the index, then goes on live.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from rebu_ray.access.history import Histories, check_position, owned
from rebu_ray.ingest.position import Position
from rebu_ray.store.index import Client, history_key, position_key, watch_channel
from rebu_ray.store.member import Codec, place_time, split
from rebu_ray.store.rows import json_text, partition_of

WATCH_SECONDS: Final = 30.0
REFRESH_SECONDS: Final = 5.0
"""How often a follower renews its watch and looks for newly linked phones."""
SCAN: Final = 1000

Watch = Callable[[dict[int, list[str]], float], Awaitable[None]]
"""({partition: streams}, seconds): have the shards publish new rows of these streams for a while."""


class Live:
    """Follows users' histories."""

    def __init__(self, redis: Client, histories: Histories, watch: Watch) -> None:
        self._redis = redis
        self._histories = histories
        self._watch = watch
        self._codec = Codec()

    async def follow(self, user_id: str, last_event_id: str | None) -> AsyncIterator[bytes]:
        """The events of a user from now on, or from after `last_event_id`. Raises BadRequest for an id not of ours."""
        seen = dict(Position.decode(last_event_id).seqs) if last_event_id else None
        person = await self._histories.person(user_id)
        streams = {f"u:{user_id}", *(f"a:{phone}" for phone in person.phones)}
        return self._events(user_id, streams, seen)

    async def _events(self, user_id: str, streams: set[str], seen: dict[int, int] | None) -> AsyncIterator[bytes]:
        head = '{"user_id":' + json_text(user_id) + ","
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        try:
            await self._attend(pubsub, streams)
            positions = await self._positions(streams)
            progress = positions if seen is None else {**positions, **seen}
            yield b"retry: 1000\n\n"
            if seen is not None:
                async for event in self._missed(user_id, streams, head, progress):
                    yield event
            renew = asyncio.get_running_loop().time() + REFRESH_SECONDS
            while True:
                message = await pubsub.get_message(timeout=1.0)
                if message is not None:
                    stream = message["channel"].split(b"w:", 1)[1].decode()
                    if await self._theirs(user_id, stream, message["data"]):
                        fresh_event = self._event(stream, message["data"], head, progress)
                        if fresh_event is not None:
                            yield fresh_event
                if asyncio.get_running_loop().time() >= renew:
                    renew = asyncio.get_running_loop().time() + REFRESH_SECONDS
                    phones = (await self._histories.person(user_id)).phones
                    fresh = {f"u:{user_id}", *(f"a:{phone}" for phone in phones)} - streams
                    streams |= fresh
                    await self._attend(pubsub, streams)
                    if fresh:
                        # Events of a phone that was linked just now are the user's from here on. What is followed
                        # already keeps its place: messages that it has not had yet may be waiting.
                        progress = await self._positions(fresh) | progress
                    yield b": still here\n\n"
        finally:
            await pubsub.aclose()

    async def _attend(self, pubsub: Any, streams: set[str]) -> None:
        partitions: dict[int, list[str]] = {}
        for stream in streams:
            partitions.setdefault(partition_of(stream, self._histories.partitions), []).append(stream)
        await pubsub.subscribe(*(watch_channel(p, s) for p, found in partitions.items() for s in found))
        await self._watch(partitions, WATCH_SECONDS)

    async def _positions(self, streams: set[str]) -> dict[int, int]:
        partitions = sorted({partition_of(s, self._histories.partitions) for s in streams})
        values = await self._redis.mget([position_key(p) for p in partitions])
        return {p: check_position(value).seq for p, value in zip(partitions, values, strict=True)}

    async def _missed(
        self, user_id: str, streams: set[str], head: str, progress: dict[int, int]
    ) -> AsyncIterator[bytes]:
        """Members that came in after what was seen, of each partition in the order in which they came in."""
        found: list[tuple[int, int, str, bytes]] = []
        for stream in sorted(streams):
            partition = partition_of(stream, self._histories.partitions)
            key, at = history_key(partition, stream), 0
            while chunk := await self._redis.zrange(key, at, at + SCAN - 1):
                numbered = ((split(member).seq, member) for member in chunk)
                found += [(partition, seq, stream, m) for seq, m in numbered if seq > progress[partition]]
                at += SCAN
        for _, _, stream, member in sorted(found):
            if await self._theirs(user_id, stream, member):
                event = self._event(stream, member, head, progress)
                if event is not None:
                    yield event

    async def _theirs(self, user_id: str, stream: str, member: bytes) -> bool:
        """Whether a record is the user's now: a phone's stream may hold another person's as well."""
        if stream == f"u:{user_id}":
            return True
        at = place_time(split(member).place)
        links = (await self._histories.person(user_id)).phones.get(stream[2:], [])
        return any(
            (part.since is None or part.since <= at) and (part.until is None or at < part.until)
            for part in owned(links, user_id)
        )

    def _event(self, stream: str, member: bytes, head: str, progress: dict[int, int]) -> bytes | None:
        """One server-sent event; None for a member that was sent already."""
        partition, found = partition_of(stream, self._histories.partitions), split(member)
        if found.seq <= progress.get(partition, 0):
            return None
        progress[partition] = found.seq
        token = Position(progress).encode()
        body = self._codec.decompress(found.payload)
        # In JSON text a line can end between tokens only.
        line = body.replace(b"\r", b" ").replace(b"\n", b" ")
        return b"id: " + token.encode() + b"\ndata: " + head.encode() + line + b"\n\n"
