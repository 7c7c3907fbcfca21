"""The shard actor: a thin shell around the owner of a range of partitions."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
from typing import Any, Final

import pyarrow as pa
import ray

from rebu_ray import traces
from rebu_ray.build import BUILD
from rebu_ray.ingest.answer import CLOSED, DAMAGED, STARTING, Appended
from rebu_ray.ingest.measures import ShardMeasures
from rebu_ray.ingest.moves import Handed, Released
from rebu_ray.ingest.owner import Owner
from rebu_ray.ingest.routing import Standing
from rebu_ray.metrics import snapshot
from rebu_ray.settings import Settings
from rebu_ray.store.audit import Held
from rebu_ray.store.journal import JournalCorrupt, JournalError
from rebu_ray.store.lake import LakeError

log = logging.getLogger("rebu.shard")

AGAIN_SECONDS: Final = 5.0
"""How long a shard without an owner waits before it tries once more."""


class IngestShard:
    """One slot's actor. Made by the coordinator; Ray makes it anew should its process die.

    The owner opens in a thread of its own, so that a shard which reads a long journal says that it lives. Where journal
    or lake cannot be used it lives without an owner, says why, and tries again: a full disk that has room again, or a
    segment that was set aside, needs no restart.
    """

    def __init__(self, slot: int, settings: Settings, release: int = 0) -> None:
        """`release`: see `Standing`."""
        traces.begin(settings, f"shard-{slot}")
        self._slot = slot
        self._made = {"release": release, "build": BUILD}
        self._settings = settings
        self._node_id = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
        self._measures = ShardMeasures()
        self._known: Owner | None = None
        """The owner from when it can be told of an erasure."""
        self._found: Owner | None = None
        """The owner from when it takes calls."""
        self._state, self._detail = STARTING, "the shard reads its journal"
        self._ended = 0.0
        self._opening = self._begin()

    def _begin(self) -> threading.Thread:
        opening = threading.Thread(target=self._open, name="open", daemon=True)
        opening.start()
        return opening

    def _open(self) -> None:
        """Become the owner, or take note of why that cannot be."""
        try:
            owner = self._known = Owner(self._slot, self._settings, self._measures)
            owner.reload()  # whoever was erased while it read: they were told of before it could be
            self._found = owner
        except (OSError, JournalError, LakeError) as error:
            if str(error) != self._detail:
                log.error("shard %d has no owner: %s", self._slot, error)
            self._state, self._detail = DAMAGED if isinstance(error, JournalCorrupt) else CLOSED, str(error)
        except BaseException:
            log.exception("shard %d cannot be opened; leaving, to be restarted", self._slot)
            os._exit(1)
        self._ended = time.monotonic()
        # What is loaded by now stays, and what batches leave behind goes without cycles: look for these rarely.
        pa.default_memory_pool().release_unused()
        gc.freeze()
        gc.set_threshold(100_000, 20, 100)

    def _try_again(self) -> None:
        if self._found is None and not self._opening.is_alive() and time.monotonic() - self._ended >= AGAIN_SECONDS:
            self._opening = self._begin()

    async def _owner(self) -> Owner:
        """The owner, once it is there. Raises JournalError where there is none."""
        while self._found is None:
            if self._state != STARTING:
                raise JournalError(f"shard {self._slot}: {self._detail}")
            await asyncio.sleep(0.05)
        return self._found

    async def append(self, data: bytes, origins: tuple[str, ...] = ()) -> Appended:
        """See `Owner.append`."""
        if self._found is None:
            again = 1.0 if self._state == STARTING else AGAIN_SECONDS
            return Appended("unavailable", detail=self._detail, retry_after=again)
        return await self._found.append(data, origins)

    async def watch(self, streams: list[str], seconds: float) -> bool:
        """See `Owner.watch`. Whoever follows asks again: nothing is published meanwhile."""
        return self._found is None or await self._found.watch(streams, seconds)

    async def compute(self, subjects: list[str]) -> bool:
        """See `Owner.compute`."""
        return await (await self._owner()).compute(subjects)

    async def status(self) -> dict[str, Any]:
        """See `Owner.status`; without an owner, why there is none. `measured` is what the process has counted."""
        self._try_again()
        told = {"measured": snapshot(self._measures.registry), "node_id": self._node_id}
        if self._found is None:
            state = {"slot": self._slot, "pid": os.getpid(), "index": self._state, "detail": self._detail}
            return state | told | self._made
        return await self._found.status() | told | self._made

    async def prepare(self, partitions: tuple[int, ...]) -> None:
        """See `Owner.prepare`."""
        await (await self._owner()).prepare(partitions)

    async def release(self, partitions: tuple[int, ...], version: int) -> Released:
        """See `Owner.release`. Raises JournalError where there is no owner: nobody knows what the next one will own."""
        if self._found is None:
            raise JournalError(f"shard {self._slot}: {self._detail}")
        return await self._found.release(partitions, version)

    async def assign(self, standing: Standing, handed: Handed) -> None:
        """See `Owner.assign`."""
        await (await self._owner()).assign(standing, handed)

    async def flush(self) -> int:
        """See `Owner.flush`."""
        return await (await self._owner()).flush()

    async def forget(self) -> None:
        """See `Owner.forget`. Without an owner nothing comes in; the next one knows who is erased."""
        if self._known is not None:
            await self._known.forget()

    async def scrub(self) -> int:
        """See `Owner.scrub`."""
        return await (await self._owner()).scrub()

    async def audited(self) -> Held:
        """See `Owner.audited`."""
        return await (await self._owner()).audited()

    async def reindex(self) -> dict[str, int]:
        """See `Owner.reindex`."""
        return await (await self._owner()).reindex()

    async def stop(self) -> None:
        """See `Owner.stop`."""
        if self._found is not None:
            await self._found.stop()
