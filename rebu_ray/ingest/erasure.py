"""Erasing people: what the coordinator does, step by step, each of which may be repeated.

What is to be erased is noted in the clear beside the cursors until it is done, and then removed: a crash at any moment
leaves either nothing done or the note, with which it is begun anew. After the tombstone is durable nothing of the
person comes in any more; then Redis is cleaned and the request answered; journal and lake follow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
import ray

from rebu_ray.ingest.erasing import store_of
from rebu_ray.ingest.moves import Standstill
from rebu_ray.settings import Settings
from rebu_ray.store.cursor import FORMAT, Cursors
from rebu_ray.store.forgetting import ERASED, clear, forget, is_whole, names_in_rows, names_of, persist
from rebu_ray.store.index import UNAVAILABLE
from rebu_ray.store.journal import open_journal
from rebu_ray.store.lake import Lake, LakeError
from rebu_ray.store.redis_cluster import Client, connect
from rebu_ray.store.rows import partition_of
from rebu_ray.store.tombstones import FOLDER, Names, TombstoneError
from rebu_ray.store.versions import read
from rebu_ray.store.warehouse.schema import WarehouseError

log = logging.getLogger("rebu.erasure")

PATIENCE_SECONDS: Final = 60.0
"""How long a request to erase waits for an index that is not whole."""
RETRY_SECONDS: Final = 2.0
_SUFFIX: Final = ".pending"


class Pending(msgspec.Struct):
    """An erasure that is under way."""

    user_id: str
    asked_by: str
    asked_at: int
    names: Names | None = None
    """What the person is called, as far as it is known; it cannot be asked for any more once that is removed."""
    counts: dict[str, int] = {}
    forgotten: bool = False
    """Whether Redis is clean."""
    v: int = FORMAT


class Erasures:
    """All erasures of a platform, on the loop of its coordinator."""

    def __init__(
        self,
        settings: Settings,
        partitions: int,
        shards: Callable[[], Sequence[Any]],
        still: Standstill | None = None,
        scrubbed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`shards` are the actors as they are now; none moves anything while `still` is held.

        `scrubbed` has what was made from the lake made anew: it may raise WarehouseError. Raises TombstoneError.
        """
        self._scrubbed = scrubbed
        self._still = still or Standstill()
        self._partitions = partitions
        self._shards = shards
        self._store = store_of(settings)
        self._stones = dict(self._store.load().stones)
        self._cursors = Cursors(settings.cursors)
        self._lake = Lake(settings.lake)
        self._journal_uri = settings.journal
        self._redis: Client = connect(settings.redis_url, socket_timeout=60, socket_connect_timeout=2, protocol=2)
        self._pending = self._noted()
        self._one = asyncio.Lock()
        self._work: asyncio.Task[None] | None = None

    # -- calls ------------------------------------------------------------------------------------------------

    async def erase(self, user_id: str, asked_by: str) -> dict[str, Any]:
        """Erase a person; returns when the tombstone is durable and Redis is clean. Once is enough.

        Raises TimeoutError while the index is not whole; what was asked for is noted and done all the same.
        """
        person = self._store.hashing.person(user_id)
        if person not in self._stones and person not in self._pending:
            pending = Pending(user_id, asked_by, _now())
            await asyncio.to_thread(self._note, person, pending)
            self._pending[person] = pending
        try:
            async with self._one, self._still.hold():
                if (left := self._pending.get(person)) is not None and not left.forgotten:
                    await self._forget(person, left)
        except ray.exceptions.RayError as error:
            raise TimeoutError("a shard is being restarted: the erasure goes on by itself") from error
        finally:
            self.resume()
        return self.state(user_id) or {}

    def state(self, user_id: str) -> dict[str, Any] | None:
        """How far the erasure of a person is; None where nobody asked for it."""
        person = self._store.hashing.person(user_id)
        stone, pending = self._stones.get(person), self._pending.get(person)
        if pending is not None:
            found = {"asked_by": pending.asked_by, "asked_at": pending.asked_at, "counts": pending.counts}
            step = "erasing" if pending.forgotten else "begun"
            return {"status": step, "tombstone": person, "completed_at": None, **found}
        if stone is None:
            return None
        found = {"asked_by": stone.asked_by, "asked_at": stone.erased_at, "counts": stone.counts}
        return {"status": "erased", "tombstone": person, "completed_at": stone.completed_at, **found}

    def summary(self) -> dict[str, int]:
        """How many there are."""
        return {"pending": len(self._pending), "completed": len(self._stones.keys() - self._pending.keys())}

    def resume(self) -> None:
        """Go on with what is under way, in the background."""
        if self._pending and (self._work is None or self._work.done()):
            self._work = asyncio.create_task(self._complete())

    async def check_index(self) -> None:
        """Before there are shards: empty an index that is older than an erasure. They build it anew."""
        digest = (await asyncio.to_thread(self._store.load)).digest.encode()
        while digest:
            try:
                if (await asyncio.to_thread(self._redis.get, ERASED) or b"") != digest:
                    log.warning("the index is older than an erasure: it is built anew")
                    await asyncio.to_thread(clear, self._redis, self._partitions)
                    await asyncio.to_thread(self._redis.set, ERASED, digest)
                return
            except UNAVAILABLE as error:  # it loads its snapshot, or is started after us
                log.info("the index does not answer yet: %s", type(error).__name__)
                await asyncio.sleep(0.5)

    def close(self) -> None:
        """Stop; what is under way goes on with the next start."""
        if self._work is not None:
            self._work.cancel()
        self._redis.close()

    # -- steps ------------------------------------------------------------------------------------------------

    async def _forget(self, person: str, pending: Pending) -> None:
        await self._whole()
        names = Names(pending.user_id)
        if pending.names is not None:
            names.add(pending.names)
        for _ in range(2):
            # What came in after the first look, and before the shards knew, is there at the second.
            names.add(await asyncio.to_thread(self._names, pending.user_id))
            pending.names = names
            await asyncio.to_thread(self._note, person, pending)
            stone = self._store.hashing.tombstone(names, _now(), pending.asked_by, pending.counts)
            await asyncio.to_thread(self._store.save, stone)
            self._stones[person] = stone
            await asyncio.gather(*(shard.forget.remote() for shard in self._shards()))
        counts = await asyncio.to_thread(self._clean, names)
        pending.counts = {name: max(count, pending.counts.get(name, 0)) for name, count in counts.items()}
        pending.forgotten = True
        await asyncio.to_thread(self._note, person, pending)

    async def _complete(self) -> None:
        """Until nothing is under way: what is left of each, from Redis, journal and lake."""
        while self._pending:
            try:
                async with self._still.hold():  # a partition that moved between shards might be scrubbed by neither
                    await self._complete_now()
            except (ray.exceptions.RayError, OSError, LakeError, WarehouseError, TimeoutError, *UNAVAILABLE) as error:
                log.warning("an erasure is tried again in a moment: %s", type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)

    async def _complete_now(self) -> None:
        async with self._one:
            for person, pending in list(self._pending.items()):
                if not pending.forgotten:
                    await self._forget(person, pending)
            ready = dict(self._pending)
            await asyncio.gather(*(shard.forget.remote() for shard in self._shards()))
        await asyncio.gather(*(shard.scrub.remote() for shard in self._shards()))
        if ready and self._scrubbed is not None:
            await self._scrubbed()
        for person, pending in ready.items():
            # What was under way when the shards were told has arrived by now.
            await asyncio.to_thread(self._clean, pending.names or Names(pending.user_id))
            await asyncio.to_thread(self._done, person, pending)
            del self._pending[person]

    async def _whole(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not await asyncio.to_thread(is_whole, self._redis, self._partitions):
            if time.monotonic() > deadline:
                raise TimeoutError("the index is not whole: the erasure goes on when it is; ask how far it is")
            await asyncio.sleep(0.2)

    def _names(self, user_id: str) -> Names:
        names = names_of(self._redis, self._partitions, user_id)
        own = partition_of(f"u:{user_id}", self._partitions)
        names.add(names_in_rows(open_journal(self._journal_uri), self._lake, own, user_id))
        return names

    def _clean(self, names: Names) -> dict[str, int]:
        counts = forget(self._redis, self._partitions, names)
        self._redis.set(ERASED, self._store.load().digest)
        persist(self._redis)
        return counts

    def _done(self, person: str, pending: Pending) -> None:
        stone = msgspec.structs.replace(self._stones[person], counts=pending.counts, completed_at=_now())
        self._store.save(stone)
        self._stones[person] = stone
        self._cursors.remove(f"{FOLDER}/{person}{_SUFFIX}")

    def _note(self, person: str, pending: Pending) -> None:
        self._cursors.save(f"{FOLDER}/{person}{_SUFFIX}", msgspec.msgpack.encode(pending))

    def _noted(self) -> dict[str, Pending]:
        names = [name for name in self._cursors.names(FOLDER) if name.endswith(_SUFFIX)]
        found = {name: self._cursors.load(f"{FOLDER}/{name}") for name in names}
        return {
            name.removesuffix(_SUFFIX): read(data, Pending, FORMAT, "an erasure under way", TombstoneError)
            for name, data in found.items()
            if data is not None
        }


def _now() -> int:
    return time.time_ns() // 1_000_000
