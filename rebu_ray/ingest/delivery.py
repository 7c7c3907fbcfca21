"""Joined lines on their way to the shards of their users."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import pyarrow as pa
import ray

from rebu_ray.ingest.request_join import Claimed, attributed
from rebu_ray.ingest.routing import NAMESPACE, Routing, shard_name
from rebu_ray.store.rows import WIRE, encode, fingerprint, partition_of

log = logging.getLogger("rebu.delivery")

PATIENCE_SECONDS: Final = 10.0
"""How long another shard may take to answer."""

Append = Callable[[bytes], Awaitable[str]]
"""Append an encoded batch to the own partitions: `ok`, or why that could not be done."""


class Delivery:
    """Hands lines whose user became known to the shard of that user; what cannot be delivered now is kept."""

    def __init__(self, slot: int, routing: Routing, append: Append) -> None:
        self._slot = slot
        self._routing = routing
        self._append = append
        self._waiting: list[Claimed] = []
        self.delivered = 0

    def assign(self, routing: Routing) -> None:
        """Where users are from now on."""
        self._routing = routing

    @property
    def undelivered(self) -> int:
        """Lines that could not be delivered yet."""
        return len(self._waiting)

    def keep(self, claims: Iterable[Claimed]) -> None:
        """Lines to be delivered with the next `again`."""
        self._waiting += claims

    async def again(self) -> None:
        """Try once more what could not be delivered."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            await self.deliver(waiting)

    async def deliver(self, claimed: Iterable[Claimed]) -> None:
        """Hand joined lines to the shards of their users."""
        partitions = self._routing.partitions
        by_slot: dict[int, list[Claimed]] = {}
        for claim in claimed:
            owner = self._routing.owners[partition_of(f"u:{claim.user_id}", partitions)]
            by_slot.setdefault(owner, []).append(claim)
        for slot, claims in by_slot.items():
            data = encode(_batch(claims, partitions))
            try:
                if slot == self._slot:
                    outcome = await self._append(data)
                else:
                    shard: Any = ray.get_actor(shard_name(slot), NAMESPACE)
                    called = asyncio.wrap_future(shard.append.remote(data).future())
                    outcome = (await asyncio.wait_for(called, PATIENCE_SECONDS)).status
            except (ray.exceptions.RayActorError, ValueError) as error:
                outcome = str(error)
            except TimeoutError:  # it may be stopped, and have lost its lease: the next time somebody else is asked
                outcome = "no answer"
            if outcome == "ok":
                self.delivered += len(claims)
            else:
                log.warning("shard %d: %d joined lines wait for slot %d: %s", self._slot, len(claims), slot, outcome)
                self._waiting += claims


def _batch(claims: list[Claimed], partitions: int) -> pa.RecordBatch:
    rows = []
    for claim in claims:
        row = attributed(claim.row, claim.user_id)
        row["partition"] = partition_of(row["key"], partitions)
        row["fingerprint"] = fingerprint(row["key"], row["id"])
        del row["seq"]
        rows.append(row)
    return pa.RecordBatch.from_pylist(rows, schema=WIRE)
