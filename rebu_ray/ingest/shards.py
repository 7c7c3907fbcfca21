"""The way to the coordinator and the shards, from whatever process asks."""

from __future__ import annotations

import logging
from typing import Any

import ray

from rebu_ray.ingest.answer import Appended
from rebu_ray.ingest.coordinator import find_or_make
from rebu_ray.ingest.intake import ShardGone
from rebu_ray.ingest.routing import NAMESPACE, Routing, shard_name
from rebu_ray.settings import Settings

log = logging.getLogger("rebu.shards")


class Shards:
    """Finds the coordinator and, by what it knows of who owns what, the shards."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._routing: Routing | None = None
        self._coordinator: Any = None
        self._shards: dict[int, Any] = {}

    async def ask(self, method: str, *args: object) -> Any:
        """Call a method of the coordinator."""
        if self._coordinator is None:
            self._coordinator = find_or_make(self._settings)
        return await getattr(self._coordinator, method).remote(*args)

    async def routing(self, fresh: bool) -> Routing:
        """Who owns what; asked of the coordinator anew where `fresh`."""
        if fresh or self._routing is None:
            self._routing = await self.ask("routing")
        return self._routing

    def forget(self) -> None:
        """Look for the coordinator anew."""
        self._routing = self._coordinator = None

    async def append(self, slot: int, data: bytes) -> Appended:
        """Send a batch to a shard. Raises ShardGone."""
        answer: Appended = await self._call(slot, "append", data)
        return answer

    async def watch(self, partitions: dict[int, list[str]], seconds: float) -> None:
        """Have shards publish new rows of streams. Raises ShardGone where one of them is away; the others do."""
        owners = (await self.routing(False)).owners
        by_slot: dict[int, list[str]] = {}
        for partition, streams in partitions.items():
            by_slot.setdefault(owners[partition], []).extend(streams)
        away: ShardGone | None = None
        for slot, streams in by_slot.items():
            try:
                await self._call(slot, "watch", streams, seconds)
            except ShardGone as error:
                away = error
        if away is not None:
            raise away

    async def _call(self, slot: int, method: str, *args: object) -> Any:
        try:
            if slot not in self._shards:
                self._shards[slot] = ray.get_actor(shard_name(slot), NAMESPACE)
            return await getattr(self._shards[slot], method).remote(*args)
        except (ray.exceptions.RayActorError, ValueError) as error:
            self._shards.pop(slot, None)
            log.warning("shard %d is away: %s", slot, type(error).__name__)
            raise ShardGone("a shard is being restarted") from error
