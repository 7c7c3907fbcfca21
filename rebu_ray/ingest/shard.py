"""The shard actor: a thin shell around the owner of a range of partitions."""

from __future__ import annotations

import gc
import logging
from typing import Any

from rebu_ray.ingest.owner import Appended, Owner
from rebu_ray.ingest.routing import Routing
from rebu_ray.settings import Settings


class IngestShard:
    """One slot's actor. Made by the coordinator; Ray makes it anew should its process die."""

    def __init__(self, slot: int, routing: Routing, settings: Settings) -> None:
        logging.basicConfig(level=logging.INFO)
        self._owner = Owner(slot, routing, settings)
        # What is loaded by now stays, and what batches leave behind goes without cycles: look for these rarely.
        gc.freeze()
        gc.set_threshold(100_000, 20, 100)

    async def append(self, data: bytes) -> Appended:
        """See `Owner.append`."""
        return await self._owner.append(data)

    async def watch(self, streams: list[str], seconds: float) -> None:
        """See `Owner.watch`."""
        await self._owner.watch(streams, seconds)

    async def compute(self, subjects: list[str]) -> None:
        """See `Owner.compute`."""
        await self._owner.compute(subjects)

    async def status(self) -> dict[str, Any]:
        """See `Owner.status`."""
        return await self._owner.status()

    async def flush(self) -> int:
        """See `Owner.flush`."""
        return await self._owner.flush()

    async def reindex(self) -> None:
        """See `Owner.reindex`."""
        await self._owner.reindex()

    async def stop(self) -> None:
        """See `Owner.stop`."""
        await self._owner.stop()
