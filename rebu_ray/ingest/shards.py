"""The way to the coordinator and the shards, from whatever process asks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

import ray
from ray.actor import ActorHandle

from rebu_ray.ingest.answer import Appended
from rebu_ray.ingest.intake import ShardGone
from rebu_ray.ingest.roles import SCARCELY
from rebu_ray.ingest.routing import COORDINATOR, NAMESPACE, Routing, shard_name
from rebu_ray.logs import origins
from rebu_ray.settings import Settings

if TYPE_CHECKING:
    from rebu_ray.ingest.coordinator import Coordinator

log = logging.getLogger("rebu.shards")

ASK_AGAIN_SECONDS: Final = 3.0
"""How long a shard may take before the coordinator is asked whether it still owns what it did."""
SUCCESSOR_SECONDS: Final = 20.0
"""How long to wait for a coordinator in the place of one that is gone for good, before one is made here."""


def find_or_make(settings: Settings) -> ActorHandle[Coordinator]:
    """The platform's coordinator, made where there is none yet."""
    with contextlib.suppress(ValueError):
        # Most only ask it something, and need not load what it is made of.
        return ray.get_actor(COORDINATOR, NAMESPACE)
    from rebu_ray.ingest.coordinator import Coordinator

    actor: Any = ray.remote(Coordinator)
    found: ActorHandle[Coordinator] = actor.options(
        name=COORDINATOR,
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        num_cpus=0,
        # On the head: a node with nothing but this on it counts as idle, and is taken away.
        resources={"node:__internal_head__": SCARCELY},
        max_restarts=-1,
        max_concurrency=100,
    ).remote(settings)
    return found


class Shards:
    """Finds the coordinator and, by what it knows of who owns what, the shards."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._routing: Routing | None = None
        self._coordinator: Any = None
        self._shards: dict[int, Any] = {}
        self._asking: asyncio.Task[Routing] | None = None

    async def ask(self, method: str, *args: object) -> Any:
        """Call a method of the coordinator, once more where another one has taken its place."""
        if self._coordinator is None:
            self._coordinator = find_or_make(self._settings)
        deadline = asyncio.get_running_loop().time() + SUCCESSOR_SECONDS
        while True:
            try:
                return await getattr(self._coordinator, method).remote(*args)
            except ray.exceptions.ActorDiedError:
                if asyncio.get_running_loop().time() > deadline:
                    self._coordinator = None
                    raise
                await asyncio.sleep(0.1)
                with contextlib.suppress(ValueError):  # there is none at the moment
                    self._coordinator = ray.get_actor(COORDINATOR, NAMESPACE)

    async def routing(self, fresh: bool) -> Routing:
        """Who owns what; asked of the coordinator anew where `fresh`, once for all who ask at the same time."""
        if self._routing is not None and not fresh:
            return self._routing
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._learn())
        return await asyncio.shield(self._asking)

    async def _learn(self) -> Routing:
        found: Routing = await self.ask("routing")
        if self._routing is None or found.version >= self._routing.version:
            self._routing = found
        return self._routing

    def forget(self) -> None:
        """Look for the coordinator anew."""
        self._routing = self._coordinator = None

    async def append(self, slot: int, data: bytes) -> Appended:
        """Send a batch to a shard. Raises ShardGone, also where it does not answer and others have what it had."""
        called = asyncio.create_task(self._call(slot, "append", data, origins()))
        known = (await self.routing(False)).owned_by(slot)
        while not (await asyncio.wait([called], timeout=ASK_AGAIN_SECONDS))[0]:
            if not set(known) <= set((await self.routing(True)).owned_by(slot)):
                called.cancel()
                raise ShardGone("a shard does not answer, and its partitions are with others")
        answer: Appended = await called
        return answer

    async def watch(self, partitions: dict[int, list[str]], seconds: float) -> None:
        """Have shards publish new rows of streams. Raises ShardGone where one of them is away; the others do."""
        if not await self._watch(partitions, seconds, await self.routing(False)):
            # Some have moved. Whoever is not where they are said to be now is on the way: the next time.
            await self._watch(partitions, seconds, await self.routing(True))

    async def _watch(self, partitions: dict[int, list[str]], seconds: float, routing: Routing) -> bool:
        """Whether all shards that were asked own what they were asked for."""
        by_slot: dict[int, list[str]] = {}
        for partition, streams in partitions.items():
            by_slot.setdefault(routing.owners[partition], []).extend(streams)
        away: ShardGone | None = None
        there = True
        for slot, streams in by_slot.items():
            try:
                there &= await asyncio.wait_for(self._call(slot, "watch", streams, seconds), ASK_AGAIN_SECONDS)
            except ShardGone as error:
                away = error
            except TimeoutError:
                there = False
        if away is not None:
            self._routing = None
            raise away
        return there

    async def _call(self, slot: int, method: str, *args: object) -> Any:
        try:
            if slot not in self._shards:
                self._shards[slot] = ray.get_actor(shard_name(slot), NAMESPACE)
            return await getattr(self._shards[slot], method).remote(*args)
        except (ray.exceptions.RayActorError, ValueError) as error:
            self._shards.pop(slot, None)
            log.warning("shard %d is away: %s", slot, type(error).__name__)
            raise ShardGone("a shard is being restarted") from error
