"""Having the warehouse loaded and verified: by itself now and then, when told, and when somebody was erased."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import msgspec
import ray

from rebu_ray.ingest.roles import SCARCELY, place
from rebu_ray.settings import Role, Settings
from rebu_ray.store.lake import LakeError
from rebu_ray.store.warehouse.schema import WarehouseError

if TYPE_CHECKING:
    from rebu_ray.store.warehouse.load import Loaded
    from rebu_ray.store.warehouse.verify import Verdict

log = logging.getLogger("rebu.warehouse")

LOOKS: Final = 3
"""How often what differs is looked at: while data flows, the source may be a moment ahead."""
FIRST_SECONDS: Final = 20.0
"""How long after the start the first look is, where looks are further apart than that."""


class Warehousing:
    """The warehouse of a platform, on the loop of its coordinator."""

    def __init__(self, settings: Settings, gather: Callable[[], Awaitable[list[str]]]) -> None:
        """`gather` has everything that was acknowledged moved to the lake, and answers what to know of that."""
        self._settings = settings
        self._gather = gather
        self._one = asyncio.Lock()
        self._work: asyncio.Task[None] | None = None
        self._last: Loaded | None = None
        self._last_at: int | None = None
        self._failure: str | None = None

    def begin(self) -> None:
        """Load now and then, from now on."""
        if self._settings.warehouse_seconds > 0 and (self._work is None or self._work.done()):
            self._work = asyncio.create_task(self._turn())

    def close(self) -> None:
        """Stop; a load that is under way publishes, or leaves nothing."""
        if self._work is not None:
            self._work.cancel()

    async def load(self, rebuild: bool = False) -> Loaded:
        """Load what is acknowledged by now. Raises WarehouseError, LakeError, OSError."""
        async with self._one:
            notes = await self._gather()
            found = await self._load(rebuild)
            return msgspec.structs.replace(found, notes=[*notes, *found.notes])

    async def verify(self) -> Verdict:
        """Load, and compare; again where something differs, since the source may have moved on meanwhile."""
        async with self._one:
            for look in range(LOOKS):
                await self._gather()
                await self._load(False)
                found: Verdict = await self._task("verify_task")
                if found.equal or look + 1 == LOOKS:
                    return found
        raise AssertionError("the last look returns")

    async def forget(self) -> None:
        """Make the warehouse anew without those who were erased, where there is one."""
        # On a node for it nobody here sees whether there is one.
        if bool(self._at()) or await asyncio.to_thread(self._settings.warehouse_file.exists):
            async with self._one:
                await self._load(False)

    def status(self) -> dict[str, Any]:
        """The state, as JSON can say it."""
        last = self._last
        return {
            "path": str(self._settings.warehouse_file),
            "loaded_at": self._last_at,
            "rides": None if last is None else last.rides,
            "detail": self._failure,
        }

    async def _load(self, rebuild: bool) -> Loaded:
        try:
            found: Loaded = await self._task("load_task", rebuild)
        except (WarehouseError, LakeError, OSError, ray.exceptions.RayError) as error:
            self._failure = str(error)
            raise
        self._last, self._last_at, self._failure = found, time.time_ns() // 1_000_000, None
        for note in found.notes:
            log.warning("%s", note)
        return found

    async def _task(self, name: str, *arguments: object) -> Any:
        """What a task answers, where the file is. Raises what it raised."""
        tasks = await asyncio.to_thread(import_module, "rebu_ray.ingest.warehouse_tasks")
        try:
            return await getattr(tasks, name).options(resources=self._at()).remote(self._settings, *arguments)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, (WarehouseError, LakeError, OSError)):
                raise error.cause from None
            raise

    def _at(self) -> dict[str, float]:
        """Where the file is."""
        return place(self._settings, Role.WAREHOUSE, SCARCELY)

    async def _turn(self) -> None:
        await asyncio.sleep(min(FIRST_SECONDS, self._settings.warehouse_seconds))
        while True:
            try:
                async with self._one:
                    # What is in the lake by now: nothing is moved there for this.
                    await self._load(False)
            except (WarehouseError, LakeError, OSError, ray.exceptions.RayError) as error:
                log.error("the warehouse was not loaded: %s", error)
            await asyncio.sleep(self._settings.warehouse_seconds)
