"""The actor that pulls: the puller on a loop of its own, and its way to the shards."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from typing import Any, Final

import ray
from ray.actor import ActorHandle

from rebu_ray.ingest.appdb.puller import Puller
from rebu_ray.ingest.intake import Intake
from rebu_ray.ingest.routing import NAMESPACE
from rebu_ray.ingest.shards import Shards
from rebu_ray.records import BadRequest, Parsed, Source
from rebu_ray.settings import Settings
from rebu_ray.store.cursor import Cursors

log = logging.getLogger("rebu.appdb")

APPDB: Final = "rebu-appdb"
"""The name under which the actor is found."""


class AppDatabasePuller:
    """One per platform, found by name, uses no CPU of its own. Goes by itself from when it is made."""

    def __init__(self, settings: Settings) -> None:
        logging.basicConfig(level=logging.INFO)
        self._settings = settings
        self._puller: Puller | None = None
        self._failure = ""
        self._loop = asyncio.new_event_loop()
        self._work = self._loop.create_task(self._pull())
        self._thread = threading.Thread(target=self._turn, name="puller", daemon=True)
        self._thread.start()

    def status(self) -> dict[str, Any]:
        """See `Puller.status`."""
        state = (
            {"connected": False, "detail": "starting", "tables": {}} if self._puller is None else self._puller.status()
        )
        if self._failure:
            state |= {"connected": False, "detail": self._failure}
        return {**state, "pid": os.getpid()}

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
        intake = Intake(shards.routing, shards.append)

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
        max_restarts=-1,
        max_concurrency=4,
    ).remote(settings)
    return made


async def status() -> dict[str, Any] | None:
    """The state of the platform's puller; None where there is none."""
    if not ray.is_initialized():
        return None
    try:
        found: Any = await asyncio.to_thread(ray.get_actor, APPDB, NAMESPACE)
        state: dict[str, Any] = await asyncio.wait_for(asyncio.wrap_future(found.status.remote().future()), 5)
    except ValueError:
        return None
    except (ray.exceptions.RayActorError, TimeoutError) as error:
        return {"connected": False, "detail": f"the puller is being restarted ({type(error).__name__})", "tables": {}}
    return state
