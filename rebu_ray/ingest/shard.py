"""The shard actor: a thin shell around the owner of a range of partitions."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from typing import Any, Final

from rebu_ray.ingest.answer import Appended
from rebu_ray.ingest.owner import Owner
from rebu_ray.ingest.routing import Routing
from rebu_ray.settings import Settings
from rebu_ray.store.audit import Held
from rebu_ray.store.journal import JournalCorrupt, JournalError
from rebu_ray.store.lake import LakeError

log = logging.getLogger("rebu.shard")

DAMAGED: Final = "damaged"
"""A segment of the journal cannot be read whole: somebody has to say what becomes of it."""
CLOSED: Final = "closed"
"""Journal or lake cannot be used now."""
AGAIN_SECONDS: Final = 5.0
"""How long a shard without an owner waits before it tries once more."""


class IngestShard:
    """One slot's actor. Made by the coordinator; Ray makes it anew should its process die.

    Where journal or lake cannot be used it lives without an owner, says why, and tries again: a full disk that has
    room again, or a segment that was set aside, needs no restart.
    """

    def __init__(self, slot: int, routing: Routing, settings: Settings) -> None:
        logging.basicConfig(level=logging.INFO)
        self._slot = slot
        self._routing = routing
        self._settings = settings
        self._found: Owner | None = None
        self._state, self._detail = CLOSED, "the shard is starting"
        self._tried = 0.0
        self._opening: asyncio.Task[None] | None = None
        self._open()
        # What is loaded by now stays, and what batches leave behind goes without cycles: look for these rarely.
        gc.freeze()
        gc.set_threshold(100_000, 20, 100)

    def _open(self) -> None:
        """Become the owner, or take note of why that cannot be."""
        try:
            self._found = Owner(self._slot, self._routing, self._settings)
        except (OSError, JournalError, LakeError) as error:
            if str(error) != self._detail:
                log.error("shard %d has no owner: %s", self._slot, error)
            self._state, self._detail = DAMAGED if isinstance(error, JournalCorrupt) else CLOSED, str(error)
        self._tried = time.monotonic()

    async def _try_again(self) -> None:
        if self._found is None and time.monotonic() - self._tried >= AGAIN_SECONDS:
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(asyncio.to_thread(self._open))
            await self._opening

    @property
    def _owner(self) -> Owner:
        if self._found is None:
            raise JournalError(f"shard {self._slot}: {self._detail}")
        return self._found

    async def append(self, data: bytes) -> Appended:
        """See `Owner.append`."""
        if self._found is None:
            return Appended("unavailable", detail=self._detail, retry_after=AGAIN_SECONDS)
        return await self._owner.append(data)

    async def watch(self, streams: list[str], seconds: float) -> None:
        """See `Owner.watch`. Whoever follows asks again: nothing is published meanwhile."""
        if self._found is not None:
            await self._owner.watch(streams, seconds)

    async def compute(self, subjects: list[str]) -> None:
        """See `Owner.compute`."""
        await self._owner.compute(subjects)

    async def status(self) -> dict[str, Any]:
        """See `Owner.status`; without an owner, why there is none."""
        await self._try_again()
        if self._found is None:
            partitions = sorted(self._routing.owned_by(self._slot))
            state = {"slot": self._slot, "pid": os.getpid(), "partitions": partitions}
            return state | {"index": self._state, "detail": self._detail}
        return await self._owner.status()

    async def flush(self) -> int:
        """See `Owner.flush`."""
        return await self._owner.flush()

    async def forget(self) -> None:
        """See `Owner.forget`. Without an owner nothing comes in; the next one knows who is erased."""
        if self._found is not None:
            await self._owner.forget()

    async def scrub(self) -> int:
        """See `Owner.scrub`."""
        return await self._owner.scrub()

    async def audited(self) -> Held:
        """See `Owner.audited`."""
        return await self._owner.audited()

    async def reindex(self) -> dict[str, int]:
        """See `Owner.reindex`."""
        return await self._owner.reindex()

    async def stop(self) -> None:
        """See `Owner.stop`."""
        if self._found is not None:
            await self._owner.stop()
