"""Recomputing everything: to prove that what stands is right, or to bring it up to date."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from ray.actor import ActorHandle

from rebu_ray.ingest.routing import Routing
from rebu_ray.ingest.shard import IngestShard
from rebu_ray.process.full import Full
from rebu_ray.process.tasks import crossing_task, full_task

log = logging.getLogger("rebu.recomputation")

LOOKS: Final = 3
"""How often a partition that differs is looked at: while data flows, documents may be a moment behind."""
PATIENCE_SECONDS: Final = 120.0
"""How long to wait for the documents of what is written already."""
AT_ONCE: Final = 4

Shards = Sequence[ActorHandle[IngestShard]]


async def verify(
    routing: Routing, shards: Shards, lake_uri: str, flush: Callable[[], Awaitable[int]]
) -> dict[str, Any]:
    """Whether the documents that stand equal those computed from the lake, by partition."""
    found: dict[int, Full] = {}
    left = list(range(routing.partitions))
    for _ in range(LOOKS):
        found |= {full.partition: full for full in await _recompute(routing, shards, lake_uri, flush, left)}
        left = [p for p in left if found[p].standing != found[p].computed]
        if not left:
            break
    partitions = [
        {
            "partition": partition,
            "rides": full.rides,
            "messages": full.messages,
            "digest": full.standing,
            "full_digest": full.computed,
            "equal": full.standing == full.computed,
        }
        for partition, full in sorted(found.items())
    ]
    return {"partitions": partitions, "equal": not left}


async def backfill(
    routing: Routing, shards: Shards, lake_uri: str, flush: Callable[[], Awaitable[int]]
) -> dict[str, int]:
    """Compute every document anew and store those that differ; how many there are, and how many differed."""
    found = await _recompute(routing, shards, lake_uri, flush, list(range(routing.partitions)))
    changed = 0
    for full in found:
        if full.changed:
            shard: Any = shards[routing.owners[full.partition]]
            answer = await shard.append.remote(full.changed)
            if answer.status != "ok":
                raise RuntimeError(f"the documents of partition {full.partition} were not stored: {answer.detail}")
            changed += sum(answer.new)
    return {
        "rides": sum(full.rides for full in found),
        "messages": sum(full.messages for full in found),
        "changed": changed,
    }


async def _recompute(
    routing: Routing, shards: Shards, lake_uri: str, flush: Callable[[], Awaitable[int]], wanted: list[int]
) -> list[Full]:
    await settled(shards)
    await flush()
    crossings = [crossing_task.remote(lake_uri, partition) for partition in range(routing.partitions)]
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(partition: int) -> Full:
        async with limit:
            full: Full = await full_task.remote(lake_uri, partition, routing.partitions, *crossings)
            return full

    return await asyncio.gather(*map(one, wanted))


async def settled(shards: Shards) -> None:
    """Wait until everything that was written before is computed. Raises TimeoutError."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while True:
        states: list[dict[str, Any]] = await asyncio.gather(*(shard.status.remote() for shard in shards))
        late = [state["slot"] for state in states if state["index"] != "current" or state["unprocessed_rows"]]
        if not late:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"the documents of the shards {late} are not up to date: try again when less is written")
        await asyncio.sleep(0.2)
