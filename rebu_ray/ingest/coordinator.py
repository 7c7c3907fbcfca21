"""The coordinator actor: makes the shards, says who owns what, and sees to it that every shard runs."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

import msgspec
import ray
from ray.actor import ActorHandle

from rebu_ray.ingest import recomputation
from rebu_ray.ingest.breaker import Change, Suspensions
from rebu_ray.ingest.erasure import Erasures
from rebu_ray.ingest.progress import progress
from rebu_ray.ingest.routing import COORDINATOR, NAMESPACE, Routing, shard_name, spread
from rebu_ray.ingest.shard import CLOSED, DAMAGED, IngestShard
from rebu_ray.settings import Settings
from rebu_ray.store.audit import Auditor, Findings, Held
from rebu_ray.store.journal import JournalError, open_journal
from rebu_ray.store.lake import Lake
from rebu_ray.store.layout import open_layout
from rebu_ray.store.tombstones import secret_of

log = logging.getLogger("rebu.coordinator")

HEARTBEAT_SECONDS: Final = 2.0
READY_SECONDS: Final = 600.0
"""How long a start may take in which the index comes no further: a large journal is replayed before it does."""


class Coordinator:
    """One per platform, found by name, uses no CPU of its own."""

    def __init__(self, settings: Settings) -> None:
        logging.basicConfig(level=logging.INFO)
        secret = settings.erasure_secret or secret_of(settings.data_dir).decode()
        settings = msgspec.structs.replace(settings, erasure_secret=secret)
        self._settings = settings
        layout = open_layout(settings.lake, settings.partitions)
        self._layout = layout
        self._routing = spread(layout.partitions, settings.shards)
        self._shards: list[ActorHandle[IngestShard]] = []
        self._heart: asyncio.Task[None] | None = None
        self._status: dict[int, dict[str, Any]] = {}
        self._erasures = Erasures(settings, layout.partitions, lambda: self._shards)
        journal = open_journal(settings.journal)
        self._auditor = Auditor(journal, Lake(settings.lake), layout.partitions)
        self._auditing = asyncio.Lock()
        self._suspensions = Suspensions()
        for slot in sorted(journal.slots() - set(range(self._routing.slots))):
            # A slot of an earlier, larger layout: whoever still holds it must not append any more.
            journal.claim(slot)

    async def start(self) -> Routing:
        """Make the shards and wait until every one of them serves; the routing.

        Raises JournalError for a shard that cannot use what it owns, TimeoutError for an index that is not built.
        """
        await self._settle()
        for state in self._status.values():
            if state["index"] in (DAMAGED, CLOSED):
                raise JournalError(state["detail"])
        return self._routing

    async def _settle(self) -> None:
        """Make the shards and wait until each of them serves, or says that it cannot."""
        if not self._shards:
            if not _exists(shard_name(0)):
                await self._erasures.check_index()
            actor: Any = ray.remote(IngestShard)
            for slot in range(self._routing.slots):
                self._shards.append(
                    actor.options(
                        name=shard_name(slot),
                        namespace=NAMESPACE,
                        get_if_exists=True,
                        lifetime="detached",
                        num_cpus=0.25,
                        max_restarts=-1,
                        max_concurrency=1000,
                    ).remote(slot, self._routing, self._settings)
                )
            self._heart = asyncio.create_task(self._beat())
        deadline, done = asyncio.get_running_loop().time() + READY_SECONDS, -1
        while True:
            states: list[dict[str, Any]] = await asyncio.gather(*(shard.status.remote() for shard in self._shards))
            self._status = {state["slot"]: state for state in states}
            if all(state["index"] in ("current", DAMAGED, CLOSED) for state in states):
                self._erasures.resume()
                return
            if (now_done := progress(states)[0]) != done:
                deadline, done = asyncio.get_running_loop().time() + READY_SECONDS, now_done
            if asyncio.get_running_loop().time() > deadline:
                slow = [s["slot"] for s in states if s["index"] != "current"]
                raise TimeoutError(f"the index of the shards {slow} is not built and comes no further: is Redis up?")
            await asyncio.sleep(0.1)

    async def routing(self) -> Routing:
        """Who owns what now. Also sets a coordinator going that was restarted."""
        if not self._shards:
            await self._settle()
        return self._routing

    async def settings(self) -> Settings:
        """What the platform was started with."""
        return self._settings

    async def status(self) -> dict[str, Any]:
        """The state of every shard, as of the last heart-beat."""
        return {
            "platform_id": self._layout.platform_id,
            "partitions": self._routing.partitions,
            "shards": [self._status[slot] for slot in sorted(self._status)],
            "suspended": self._suspensions.summary(_now()),
            "erasures": self._erasures.summary(),
        }

    async def flush(self) -> int:
        """Have every shard move its journal to the lake."""
        return sum(await asyncio.gather(*(shard.flush.remote() for shard in self._shards)))

    async def suspended(self, replica: str, change: Change) -> None:
        """Take note of a sender that a gateway replica suspends, tries again, or takes on again."""
        self._suspensions.note(replica, change, _now())

    async def audit(self, sources: frozenset[str] | None, since: int | None, until: int | None) -> Findings:
        """What came in against what is there, see `store.audit`. Times are ms."""
        await self.routing()
        async with self._auditing:
            held: list[Held] = await asyncio.gather(*(shard.audited.remote() for shard in self._shards))
            return await asyncio.to_thread(self._auditor.audit, held, sources, since, until)

    async def reindex(self) -> dict[str, int]:
        """Have every shard rebuild its part of the index; how many partitions were, and how many rows they have."""
        await self.routing()
        done: list[dict[str, int]] = await asyncio.gather(*(shard.reindex.remote() for shard in self._shards))
        return {name: sum(part[name] for part in done) for name in ("partitions", "rows")}

    async def verify(self) -> dict[str, Any]:
        """Whether every document equals what the lake alone makes of it."""
        routing = await self.routing()
        return await recomputation.verify(routing, self._shards, self._settings.lake, self.flush)

    async def backfill(self) -> dict[str, int]:
        """Compute every document anew from the lake."""
        routing = await self.routing()
        return await recomputation.backfill(routing, self._shards, self._settings.lake, self.flush)

    async def erase(self, user_id: str, asked_by: str) -> dict[str, Any]:
        """Erase a person: see `Erasures.erase`."""
        await self.routing()
        return await self._erasures.erase(user_id, asked_by)

    async def erasure(self, user_id: str) -> dict[str, Any] | None:
        """How far the erasure of a person is, None where nobody asked for it."""
        return self._erasures.state(user_id)

    async def stop(self) -> None:
        """Stop the shards in good order."""
        self._erasures.close()
        if self._heart is not None:
            self._heart.cancel()
        outcomes = await asyncio.gather(*(shard.stop.remote() for shard in self._shards), return_exceptions=True)
        for slot, outcome in enumerate(outcomes):
            if isinstance(outcome, BaseException):
                log.error(
                    "shard %d did not stop in good order; its journal is replayed at the next start: %s", slot, outcome
                )
        for shard in self._shards:
            ray.kill(shard)
        self._shards = []

    async def _beat(self) -> None:
        """Ask after every shard. The question also sets a restarted one going."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            for slot, shard in enumerate(self._shards):
                try:
                    self._status[slot] = await asyncio.wait_for(asyncio.wrap_future(shard.status.remote().future()), 10)
                except (ray.exceptions.RayActorError, TimeoutError) as error:
                    self._status[slot] = {"slot": slot, "index": "away", "detail": type(error).__name__}
                    log.warning("shard %d does not answer: %s", slot, type(error).__name__)


def _exists(actor: str) -> bool:
    """Whether there is an actor of that name."""
    try:
        ray.get_actor(actor, NAMESPACE)
    except ValueError:
        return False
    return True


def find_or_make(settings: Settings) -> ActorHandle[Coordinator]:
    """The platform's coordinator, made where there is none yet."""
    actor: Any = ray.remote(Coordinator)
    found: ActorHandle[Coordinator] = actor.options(
        name=COORDINATOR,
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=100,
    ).remote(settings)
    return found


def _now() -> int:
    return time.time_ns() // 1_000_000
