"""A user's history: their own stream, and the stretches of their phones' streams that were theirs."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from rebu_ray.access.pipeline import ask
from rebu_ray.access.tape import (
    END,
    START,
    ColdPage,
    Filter,
    Page,
    Stretch,
    Tape,
    chunk_size,
    floor_get,
    read_page,
    zrange,
)
from rebu_ray.ingest.position import Position
from rebu_ray.records import BadRequest
from rebu_ray.store import facts
from rebu_ray.store.index import (
    Position as IndexPosition,
)
from rebu_ray.store.index import (
    anonymous_key,
    history_key,
    links_key,
    parse_link,
    parse_position,
    position_key,
    unlinks_key,
)
from rebu_ray.store.links import Link, owned, standing
from rebu_ray.store.member import Codec, time_place
from rebu_ray.store.redis_cluster import Client
from rebu_ray.store.rows import json_text, partition_of

POLL_SECONDS: Final = 0.005


class Person(NamedTuple):
    """What the index knows of who a user is."""

    exists: bool
    phones: dict[str, list[Link]]
    """Standing links of every anonymous id that was ever identified as the user."""


class Histories:
    """Reads histories from Redis, and from the lake below what Redis keeps."""

    def __init__(self, redis: Client, partitions: int, cold: ColdPage, read_wait_seconds: float) -> None:
        self.redis = redis
        self.partitions = partitions
        self.cold = cold
        self._wait = read_wait_seconds
        self._codec = Codec()
        self._furthest: dict[int, int] = {}
        """The highest position of each partition that was seen here."""

    async def page(
        self,
        user_id: str,
        low: bytes,
        high: bytes,
        wanted: Filter,
        descending: bool,
        limit: int,
        min_position: Position | None = None,
    ) -> Page:
        """One page of a user's history. Raises BadRequest 404 for an unknown user, 503 while the index is not whole."""
        own = Stretch(partition_of(f"u:{user_id}", self.partitions), f"u:{user_id}", low, high)
        chunk = chunk_size(limit, wanted)
        if min_position is not None:
            await self.wait_for(min_position)
        position, found, floor, anonymous = await ask(
            self.redis,
            ("GET", position_key(own.partition)),
            zrange(own, low, high, descending, chunk),
            floor_get(own),
            ("SMEMBERS", anonymous_key(own.partition, user_id)),
        )
        self.check(own.partition, position)
        tape = Tape(self.redis, self.cold, own, floor, descending)
        if floor is None and low < high:
            tape.preload(found, chunk)
        tapes = [tape]
        if anonymous:
            tapes += await self._phones(user_id, anonymous, low, high, descending)
        elif not found and floor is None and not await self.redis.exists(*self._known_by(own.partition, user_id)):
            raise unknown_user(user_id)
        return await read_page(tapes, self._codec, wanted, descending, limit)

    async def person(self, user_id: str) -> Person:
        """Who a user is. Raises BadRequest 503 while the index is not whole."""
        partition = partition_of(f"u:{user_id}", self.partitions)
        stretch = Stretch(partition, f"u:{user_id}", START, END)
        pipe = self.redis.pipeline(transaction=False)
        pipe.get(position_key(partition))
        pipe.exists(*self._known_by(partition, user_id))
        pipe.execute_command(*floor_get(stretch))
        pipe.smembers(anonymous_key(partition, user_id))
        position, exists, floor, anonymous = await pipe.execute()
        self.check(partition, position)
        phones = await self._links([a.decode() for a in anonymous])
        return Person(bool(exists or floor or anonymous), phones)

    def _known_by(self, partition: int, user_id: str) -> tuple[bytes, ...]:
        """Keys of which one is there if anything is known of a user: an event, a row, a ride or a message."""
        stream = f"u:{user_id}"
        keys = facts.Keys(self.partitions)
        return history_key(partition, stream), keys.user(user_id), keys.things(stream)

    def check(self, partition: int, value: bytes | None) -> IndexPosition:
        """`check_position`, and refuses as well an index that was further before: an older snapshot of Redis."""
        position = check_position(value)
        if position.seq < self._furthest.get(partition, 0):
            raise _catching_up()
        self._furthest[partition] = position.seq
        return position

    async def wait_for(self, position: Position) -> None:
        """Wait until what a write answered is visible: all of it, since what it says about one user's phone can
        change another user's history. Raises BadRequest 503 when that lasts.
        """
        wanted = {p: seq for p, seq in position.seqs.items() if p < self.partitions}
        deadline = asyncio.get_running_loop().time() + self._wait
        while wanted:
            values = await self.redis.mget([position_key(p) for p in wanted])
            standing = {p: parse_position(value) for p, value in zip(wanted, values, strict=True)}
            wanted = {p: seq for p, seq in wanted.items() if (at := standing[p]) is None or at.behind or at.seq < seq}
            if not wanted:
                return
            if asyncio.get_running_loop().time() > deadline:
                raise BadRequest(
                    503, "not_yet_visible", "what was written up to min_position is not visible yet: ask again", 1
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _links(self, anonymous: list[str]) -> dict[str, list[Link]]:
        """Standing links of phones. Raises BadRequest 503 while the index of any partition is not whole: what is
        said about a phone is in the partition of whom it is said.
        """
        if not anonymous:
            return {}
        pipe = self.redis.pipeline(transaction=False)
        pipe.mget([position_key(p) for p in range(self.partitions)])
        for anonymous_id in anonymous:
            partition = partition_of(f"a:{anonymous_id}", self.partitions)
            pipe.zrange(links_key(partition, anonymous_id), 0, -1)
            pipe.zrange(unlinks_key(partition, anonymous_id), 0, -1, withscores=True)
        replies = iter(await pipe.execute())
        for partition, value in enumerate(next(replies)):
            self.check(partition, value)
        phones = {}
        for anonymous_id, raw in zip(anonymous, replies, strict=False):
            taken_back = {user.decode(): int(at) for user, at in next(replies)}
            phones[anonymous_id] = standing((Link(*parse_link(member)) for member in raw), taken_back)
        return phones

    async def _phones(
        self, user_id: str, anonymous: list[bytes], low: bytes, high: bytes, descending: bool
    ) -> list[Tape]:
        """Tapes over what the user's phones sent while they were theirs."""
        phones = await self._links(sorted(a.decode() for a in anonymous))
        stretches: list[Stretch] = []
        for anonymous_id, links in phones.items():
            stream = f"a:{anonymous_id}"
            partition = partition_of(stream, self.partitions)
            for part in owned(links, user_id):
                since = START if part.since is None else time_place(part.since)
                until = END if part.until is None else time_place(part.until)
                if max(low, since) < min(high, until):
                    stretches.append(Stretch(partition, stream, max(low, since), min(high, until)))
        if not stretches:
            return []
        pipe = self.redis.pipeline(transaction=False)
        for stretch in stretches:
            pipe.execute_command(*floor_get(stretch))
        return [
            Tape(self.redis, self.cold, stretch, floor, descending)
            for stretch, floor in zip(stretches, await pipe.execute(), strict=True)
        ]


def check_position(value: bytes | None) -> IndexPosition:
    """How far a partition is indexed. Raises BadRequest 503 where it lacks something: half an answer is none."""
    position = parse_position(value)
    if position is None or position.anew:
        raise BadRequest(503, "index_rebuilding", f"the index is being rebuilt{_far(position)}: ask again soon", 2)
    if position.behind:
        raise _catching_up(position)
    return position


def _catching_up(position: IndexPosition | None = None) -> BadRequest:
    message = f"the index is catching up with what was written{_far(position)}: ask again in a moment"
    return BadRequest(503, "index_catching_up", message, 2)


def _far(position: IndexPosition | None) -> str:
    """How far the partition is that was asked for: a rebuild goes through one after the other."""
    if position is None or not position.end:
        return ""
    return f" ({position.seq:,} of {position.end:,} records of this partition are there)"


def unknown_user(user_id: str) -> BadRequest:
    return BadRequest(404, "unknown_user", f"nothing is known of user {user_id!r}")


def answer(user_id: str, page: Page, cursor: str | None) -> bytes:
    """The JSON of a page of history: the fragments that the index holds, joined."""
    head = b'{"user_id":' + json_text(user_id).encode() + b","
    return items(page, head, cursor)


def items(page: Page, head: bytes, cursor: str | None) -> bytes:
    """The JSON of a list whose items begin with `head` and go on with a fragment."""
    joined = head + (b"," + head).join(page.fragments) if page.fragments else b""
    following = b"null" if cursor is None else b'"' + cursor.encode() + b'"'
    return b'{"items":[' + joined + b'],"next":' + following + b"}"
