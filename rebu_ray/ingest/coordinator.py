"""The coordinator actor: makes the shards, says who owns what, and sees to it that every shard runs."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Final

from rebu_ray import traces
from rebu_ray.build import BUILD
from rebu_ray.ingest import recomputation
from rebu_ray.ingest.answer import CLOSED, DAMAGED
from rebu_ray.ingest.appdb import asked as appdb
from rebu_ray.ingest.autoscaling import Advice, Autoscaling
from rebu_ray.ingest.breaker import Change, Suspensions
from rebu_ray.ingest.erasure import Erasures
from rebu_ray.ingest.forecasts import Forecasts, ray_rides
from rebu_ray.ingest.measures import ForecastMeasures
from rebu_ray.ingest.placement import Placement
from rebu_ray.ingest.progress import progress
from rebu_ray.ingest.reports import Reports
from rebu_ray.ingest.room import Room
from rebu_ray.ingest.routing import Routing
from rebu_ray.ingest.secret import with_secret
from rebu_ray.ingest.traffic import Report
from rebu_ray.ingest.warehousing import Warehousing
from rebu_ray.metrics import Part, new_registry, snapshot
from rebu_ray.process.forecast.question import Known, Question
from rebu_ray.settings import Settings
from rebu_ray.store.audit import Auditor, Findings, Held
from rebu_ray.store.cursor import Cursors
from rebu_ray.store.journal import JournalError, open_journal
from rebu_ray.store.lake import Lake
from rebu_ray.store.layout import open_layout

if TYPE_CHECKING:
    from rebu_ray.store.warehouse.load import Loaded
    from rebu_ray.store.warehouse.verify import Verdict

log = logging.getLogger("rebu.coordinator")

READY_SECONDS: Final = 600.0
"""How long a start may take in which the index comes no further: a large journal is replayed before it does."""


class Coordinator:
    """One per platform, found by name, uses no CPU of its own."""

    def __init__(self, settings: Settings) -> None:
        traces.begin(settings, "coordinator")
        settings = with_secret(settings)
        self._settings = settings
        layout = open_layout(settings.lake, settings.partitions)
        self._layout = layout
        self._placement = placement = Placement(settings, layout.partitions, self._check_index)
        self._warehousing = Warehousing(settings, self._gather)
        self._erasures = Erasures(
            settings, layout.partitions, lambda: placement.shards, placement.still, self._warehousing.forget
        )
        self._auditor = Auditor(open_journal(settings.journal), Lake(settings.lake), layout.partitions)
        self._auditing = asyncio.Lock()
        self._room = Room(settings)
        self._resting = False
        self._suspensions = Suspensions()
        rides = ray_rides(settings.lake, layout.partitions)
        self._reports = Reports(time.monotonic)
        self._registry = new_registry()
        self._forecast_measures = ForecastMeasures(self._registry)
        cursors = Cursors(settings.cursors)
        self._forecasts = Forecasts(cursors, rides, country=settings.holidays)
        self._autoscaling = Autoscaling(settings, layout.partitions, placement.standing, placement.scale, cursors)

    async def _check_index(self) -> None:
        await self._erasures.check_index()

    async def start(self) -> Routing:
        """Make the shards and wait until every one of them serves; the routing.

        Raises JournalError for a shard that cannot use what it owns, TimeoutError for an index that is not built.
        """
        routing = await self.routing()
        deadline, done = asyncio.get_running_loop().time() + READY_SECONDS, -1
        while True:
            states = list((await self._placement.ask()).values())
            for state in states:
                if state["index"] in (DAMAGED, CLOSED):
                    raise JournalError(state["detail"])
            slow = [state["slot"] for state in states if state["index"] != "current"]
            if not slow:
                return routing
            if (now_done := progress(states)[0]) != done:
                deadline, done = asyncio.get_running_loop().time() + READY_SECONDS, now_done
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"the index of the shards {slow} is not built and comes no further: is Redis up?")
            await asyncio.sleep(0.1)

    async def routing(self) -> Routing:
        """Who owns what now. Also sets a coordinator going that was restarted."""
        routing = await self._placement.begin()
        if self._resting:
            return routing
        self._erasures.resume()
        self._forecasts.resume()
        self._warehousing.begin()
        self._autoscaling.begin()
        return routing

    async def scale(self, shards: int) -> dict[str, Any] | None:
        """Have so many shards: see `Placement.scale`."""
        return await self._placement.scale(shards)

    async def traffic(self, replica: str, report: Report) -> None:
        """Take note of what a gateway replica does."""
        self._autoscaling.note(replica, report)

    async def advice(self) -> Advice:
        """What Serve's autoscaling is to know."""
        return self._autoscaling.advice

    async def renew(self) -> int:
        """Have every shard made anew, with the code that this coordinator has: see `Placement.renew`."""
        return await self._placement.renew()

    async def rest(self) -> None:
        """Leave all work to a successor, which is made when this one was killed; what is asked is still answered."""
        self._resting = True
        self._end()
        await self._placement.rest()

    async def settings(self) -> Settings:
        """What the platform was started with."""
        return self._settings

    async def status(self) -> dict[str, Any]:
        """The state of every shard, as of the last heart-beat."""
        await self.routing()
        return {
            "platform_id": self._layout.platform_id,
            "partitions": self._layout.partitions,
            "coordinator_pid": os.getpid(),
            "build": BUILD,
            "shards": [state for _, state in sorted(self._placement.states.items())],
            **self._placement.status(),
            **self._autoscaling.status(),
            "suspended": self._suspensions.summary(_now()),
            "erasures": self._erasures.summary(),
            "warehouse": self._warehousing.status(),
        }

    async def report(self, kind: str, who: str, number: int | None, data: bytes) -> tuple[int]:
        """Take note of what a replica has counted; its number among its kind."""
        return (self._reports.note(kind, who, number, data),)

    async def measured(
        self, kind: str, who: str, number: int | None, data: bytes
    ) -> tuple[int, dict[str, Any], list[Part]]:
        """Besides that: the state, and what every process said last of what it has counted."""
        state = await self.status() | {"free_bytes": await self._room.free_bytes()}
        number = self._reports.note(kind, who, number, data)
        shards = [
            Part(f"shard-{slot}", {"slot": str(slot)}, said)
            for slot, said in sorted(self._placement.measured.items())
            if said
        ]
        return number, state, [Part("coordinator", {}, snapshot(self._registry)), *shards, *self._reports.parts()]

    async def flush(self) -> int:
        """Have every shard move its journal to the lake."""
        await self.routing()
        async with self._placement.still.hold():
            return await self._flush()

    async def _flush(self) -> int:
        return sum(await asyncio.gather(*(shard.flush.remote() for shard in self._placement.shards)))

    async def suspended(self, replica: str, change: Change) -> None:
        """Take note of a sender that a gateway replica suspends, tries again, or takes on again."""
        self._suspensions.note(replica, change, _now())

    async def audit(self, sources: frozenset[str] | None, since: int | None, until: int | None) -> Findings:
        """What came in against what is there, see `store.audit`. Times are ms."""
        await self.routing()
        async with self._auditing, self._placement.still.hold():
            shards = self._placement.shards
            held: list[Held] = await asyncio.gather(*(shard.audited.remote() for shard in shards))
            return await asyncio.to_thread(self._auditor.audit, held, sources, since, until)

    async def reindex(self) -> dict[str, int]:
        """Have every shard rebuild its part of the index; how many partitions were, and how many rows they have."""
        await self.routing()
        async with self._placement.still.hold():
            asked = [shard.reindex.remote() for shard in self._placement.shards]
            done: list[dict[str, int]] = await asyncio.gather(*asked)
        return {name: sum(part[name] for part in done) for name in ("partitions", "rows")}

    async def verify(self) -> dict[str, Any]:
        """Whether every document equals what the lake alone makes of it."""
        await self.routing()
        async with self._placement.still.hold():
            routing, shards = await self.routing(), self._placement.shards
            return await recomputation.verify(routing, shards, self._settings.lake, self._flush)

    async def backfill(self) -> dict[str, int]:
        """Compute every document anew from the lake."""
        await self.routing()
        async with self._placement.still.hold():
            routing, shards = await self.routing(), self._placement.shards
            return await recomputation.backfill(routing, shards, self._settings.lake, self._flush)

    async def _gather(self) -> list[str]:
        """Have everything that is acknowledged, computed and moved to the lake; what a person should know of it."""
        notes = await appdb.awaited()
        async with self._placement.still.hold():
            await recomputation.settled(self._placement.shards)
            await self._flush()
        return notes

    async def load_warehouse(self, rebuild: bool) -> Loaded:
        """Bring the warehouse up to what is acknowledged. Raises WarehouseError, LakeError, OSError, TimeoutError."""
        await self.routing()
        return await self._warehousing.load(rebuild)

    async def verify_warehouse(self) -> Verdict:
        """Compare the warehouse with its sources. Raises as `load_warehouse`."""
        await self.routing()
        return await self._warehousing.verify()

    async def erase(self, user_id: str, asked_by: str) -> dict[str, Any]:
        """Erase a person: see `Erasures.erase`."""
        await self.routing()
        return await self._erasures.erase(user_id, asked_by)

    async def erasure(self, user_id: str) -> dict[str, Any] | None:
        """How far the erasure of a person is, None where nobody asked for it."""
        return self._erasures.state(user_id)

    async def forecast(self, question: Question, is_now: bool, wait_seconds: float) -> Known:
        """The forecast that is kept for a question: see `Forecasts.ask`."""
        known = await self._forecasts.ask(question, is_now, wait_seconds)
        if is_now:
            self._forecast_measures.note(question, known)
        return known

    async def stop(self) -> None:
        """Stop the shards in good order."""
        self._end()
        await self._placement.stop()

    def _end(self) -> None:
        """Begin nothing more by itself."""
        self._erasures.close()
        self._forecasts.close()
        self._warehousing.close()
        self._autoscaling.close()


def _now() -> int:
    return time.time_ns() // 1_000_000
