"""How partitions move from one shard to another, step by step, each of which may be the last before a crash.

    1. save who is to own the partitions, marked as leaving their old slot: a shard that starts from here on takes up
       none of them
    2. the old owner finishes what it has accepted and lets go; where it does not answer, its slot is fenced
    3. save that they have left: from here on a shard of the new slot may take them up, however often it starts
    4. the new owner takes them up, everybody else is told

Between 1 and 3 there is at most one owner, the old one; after 3 at most one, the new one. A coordinator that is
restarted reads what was saved and goes on with 2 or 4. The steps that talk to shards and disk are `Hands`, so that all
of this can be tried with fakes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, Protocol

from rebu_ray.ingest.balance import Move, Owners, relieved
from rebu_ray.ingest.routing import Routing, Standing

log = logging.getLogger("rebu.moves")

REMEMBERED: Final = 20
"""Moves whose pauses are shown."""


class Away(Exception):
    """A shard did not do what it was asked, or its answer did not come."""


class Released(NamedTuple):
    """What an owner says of partitions that it has let go of."""

    ends: dict[int, int]
    """Their last sequence numbers."""
    segments: list[str]
    """Segments of the journal with rows of them that the lake does not have."""
    watched: dict[str, float]
    """Streams of them that somebody follows, and for how many seconds more."""
    paused_s: float
    """For how long the owner had taken nothing for them when it answered."""


Handed = dict[int, Released]
"""By the slot that let go."""


class Hands(Protocol):
    """What moves are made of."""

    async def flush(self, slot: int) -> None:
        """Have a shard move its journal to the lake. Raises Away."""

    async def prepare(self, slot: int, partitions: tuple[int, ...]) -> None:
        """Have a shard read what can be read before it owns partitions. Raises Away."""

    async def release(self, slot: int, partitions: tuple[int, ...], version: int) -> Released:
        """Have a shard let go of partitions, and believe no routing before `version` any more. Raises Away."""

    async def fence(self, slot: int) -> None:
        """Take the slot from whoever owns it: nothing that they append from now on counts. Goes on until it can."""

    async def assign(self, slot: int, standing: Standing, handed: Handed) -> None:
        """Tell a shard what is its own; returns when it owns all of that. Raises Away."""

    async def save(self, standing: Standing) -> None:
        """Make it durable. Goes on until it can."""


class Moves:
    """All moves of a platform, one after the other."""

    def __init__(self, standing: Standing, hands: Hands, clock: Callable[[], float]) -> None:
        self.standing = standing
        """What is saved, or about to be."""
        self.routing = standing.routing
        """What is in force: where partitions are or, while on their way, may soon be found."""
        self._hands = hands
        self._clock = clock
        self._one = asyncio.Lock()
        self.moved = 0
        """Partitions that were moved."""
        self.fenced = 0
        """Slots that were taken from a shard that did not answer."""
        self.pauses_ms: deque[float] = deque(maxlen=REMEMBERED)
        """For how long the partitions of the last moves took no writes."""

    @property
    def busy(self) -> bool:
        """Whether something is moving, or being saved."""
        return self._one.locked()

    async def resume(self) -> None:
        """After a restart of the coordinator: go on with what was under way."""
        async with self._one:
            if self.standing.leaving:
                log.info("going on with moves that were under way: partitions %s", sorted(self.standing.leaving))
                await self._hand_over(fence=False)

    async def move(self, move: Move) -> None:
        """Move partitions between two shards that both run. Raises Away, with nothing changed, where one does not."""
        async with self._one:
            stay = [p for p in move.partitions if self.standing.routing.owners[p] == move.source]
            if not stay:
                return
            await self._hands.flush(move.source)
            await self._hands.prepare(move.target, tuple(stay))
            await self._transfer(dict.fromkeys(stay, move.target), fence=False)

    async def rescue(self, slot: int, live: Collection[int]) -> None:
        """Take all partitions from a slot whose shard is not to be reached, and fence it."""
        async with self._one:
            owners = self.standing.routing.owners
            after = relieved(owners, slot, live)
            await self._transfer(
                {p: new for p, (old, new) in enumerate(zip(owners, after, strict=True)) if old == slot}, True
            )

    async def renew(self) -> int:
        """Have it known that every shard is to be made anew; which release that is."""
        async with self._one:
            await self._save(self.standing.routing.owners, self.standing.leaving, release=self.standing.release + 1)
            return self.standing.release

    async def size(self, shards: int, wanted: int) -> None:
        """Have it known how many shards there are, and are to be."""
        async with self._one:
            await self._save(self.standing.routing.owners, self.standing.leaving, shards, wanted)

    async def _transfer(self, targets: Mapping[int, int], fence: bool) -> None:
        before = self.standing.routing.owners
        after = tuple(targets.get(p, owner) for p, owner in enumerate(before))
        await self._save(after, {p: before[p] for p in targets})
        await self._hand_over(fence)

    async def _hand_over(self, fence: bool) -> None:
        sources: dict[int, list[int]] = {}
        for partition, source in sorted(self.standing.leaving.items()):
            sources.setdefault(source, []).append(partition)
        handed: Handed = {}
        began = self._clock()
        for source, partitions in sources.items():
            try:
                if fence:
                    raise Away("its lease has ended")
                handed[source] = await self._hands.release(source, tuple(partitions), self.standing.routing.version)
                began = self._clock() - handed[source].paused_s
            except Away as error:
                log.warning("slot %d is taken from its shard: %s", source, error)
                self.fenced += 1
                await self._hands.fence(source)
        moved = dict(self.standing.leaving)
        await self._save(self.standing.routing.owners, {})
        self.routing = self.standing.routing
        for target in sorted({self.routing.owners[p] for p in moved}):
            try:
                await self._hands.assign(target, self.standing, handed)
            except Away as error:  # it is told again with each heart-beat, and reads it itself where it starts anew
                log.warning("slot %d does not take up its partitions yet: %s", target, error)
        self.moved += len(moved)
        self.pauses_ms.append(round(1000 * (self._clock() - began), 1))

    async def _save(
        self,
        owners: Owners,
        leaving: Mapping[int, int],
        shards: int | None = None,
        wanted: int | None = None,
        release: int | None = None,
    ) -> None:
        now = self.standing
        self.standing = Standing(
            Routing(now.routing.version + 1, owners),
            now.shards if shards is None else shards,
            now.wanted if wanted is None else wanted,
            dict(leaving),
            now.release if release is None else release,
        )
        await self._hands.save(self.standing)
        if not leaving:
            self.routing = self.standing.routing


class Standstill:
    """While somebody holds still, partitions stay where they are, unless a shard is lost."""

    def __init__(self) -> None:
        self._holding = 0
        self._free = asyncio.Event()
        self._free.set()
        self._moving = asyncio.Lock()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Nothing moves inside; several may hold at once."""
        async with self._moving:
            self._holding += 1
            self._free.clear()
        try:
            yield
        finally:
            self._holding -= 1
            if not self._holding:
                self._free.set()

    @asynccontextmanager
    async def move(self) -> AsyncIterator[None]:
        """Nobody holds inside."""
        while True:
            await self._free.wait()
            async with self._moving:
                if self._holding:
                    continue
                yield
                return
