"""The actor that pulls: the puller on a loop of its own, and its way to the shards."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Any, Final

import ray
from ray.actor import ActorHandle

from rebu_ray import traces
from rebu_ray.ingest.appdb.asked import APPDB
from rebu_ray.ingest.appdb.puller import Puller
from rebu_ray.ingest.intake import Intake
from rebu_ray.ingest.measures import Verdicts
from rebu_ray.ingest.roles import SCARCELY, place
from rebu_ray.ingest.routing import NAMESPACE
from rebu_ray.ingest.shards import Shards
from rebu_ray.metrics import new_registry, snapshot
from rebu_ray.records import BadRequest, Parsed, Source
from rebu_ray.settings import Role, Settings
from rebu_ray.store.cursor import Cursors

log = logging.getLogger("rebu.appdb")

REST_LOOK_SECONDS: Final = 0.05


class AppDatabasePuller:
    """One per platform, found by name, uses no CPU of its own. Goes by itself from when it is made."""

    def __init__(self, settings: Settings) -> None:
        traces.begin(settings, "appdb")
        self._settings = settings
        self._puller: Puller | None = None
        self._failure = ""
        self._registry = new_registry()
        self._verdicts = Verdicts(self._registry)
        self._loop = asyncio.new_event_loop()
        self._work = self._loop.create_task(self._pull())
        self._thread = threading.Thread(target=self._turn, name="puller", daemon=True)
        self._thread.start()

    def status(self) -> dict[str, Any]:
        """See `Puller.status`. `measured` is what the process has counted."""
        state = (
            {"connected": False, "detail": "starting", "tables": {}} if self._puller is None else self._puller.status()
        )
        if self._failure:
            state |= {"connected": False, "detail": self._failure}
        return {**state, "pid": os.getpid(), "measured": snapshot(self._registry)}

    def rest(self, seconds: float) -> bool:
        """Wait until all that is in the database by now has been handed on, or for so long; whether it has."""
        asked = time.monotonic()
        while time.monotonic() < asked + seconds:
            if self._puller is not None and self._puller.has_rested(asked):
                return True
            time.sleep(REST_LOOK_SECONDS)
        return False

    def stop(self) -> None:
        """Stop pulling. What was under way is pulled again next time."""
        self._loop.call_soon_threadsafe(self._work.cancel)
        self._thread.join(10)

    def _turn(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._work)
        except asyncio.CancelledError:
            log.info("the application database is no longer pulled")

    async def _pull(self) -> None:
        settings = self._settings
        shards = Shards(settings)
        intake = Intake(shards.routing, shards.append, self._verdicts.note)

        async def append(source: Source, parsed: Parsed, received_at: int) -> object:
            try:
                return await intake.store(source, parsed, received_at)
            except ray.exceptions.RayError as error:
                shards.forget()
                raise BadRequest(503, "unavailable", f"the coordinator is away: {type(error).__name__}", 2) from error

        while True:
            self._puller = Puller(
                settings.appdb_url,
                Cursors(settings.cursors),
                append,
                poll_seconds=settings.appdb_poll_seconds,
                overlap_seconds=settings.appdb_overlap_seconds,
            )
            try:
                await self._puller.run()
            except Exception as error:
                # Nothing that a row or a server can do may end the pulling for good.
                log.exception("pulling failed and is begun anew from the cursor")
                self._failure = f"failed, begun anew: {type(error).__name__}"
                await asyncio.sleep(5)
                self._failure = ""
            finally:
                await self._puller.close()


def start(settings: Settings) -> ActorHandle[Any]:
    """The platform's puller, made where there is none yet."""
    actor: Any = ray.remote(AppDatabasePuller)
    made: ActorHandle[Any] = actor.options(
        name=APPDB,
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        num_cpus=0,
        resources=place(settings, Role.SHARD, SCARCELY),
        max_restarts=-1,
        max_concurrency=4,
    ).remote(settings)
    return made
