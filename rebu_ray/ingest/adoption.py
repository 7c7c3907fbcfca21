"""Reading what an owner must know of partitions before they are its own.

What the lake says can be read while another shard still owns them (`prepare`); the rest, which is short by then, when
that one has let go (`read`). Nothing counts until the owner takes it up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any, NamedTuple

from rebu_ray.ingest.moves import Handed
from rebu_ray.ingest.processing import Cursor, known
from rebu_ray.ingest.request_join import HOUR_MS
from rebu_ray.process.dirty import Touched, touched
from rebu_ray.settings import Settings
from rebu_ray.store.cursor import Cursors
from rebu_ray.store.journal import JournalError, SegmentName, open_journal
from rebu_ray.store.lake import Lake
from rebu_ray.store.log import ShardLog
from rebu_ray.store.tombstones import Tombstones


class Reading(NamedTuple):
    """What was read of partitions."""

    log: ShardLog
    requests: list[dict[str, Any]]
    """Rows of requests received of late, in the order of the journal."""
    saved: Cursor
    """How far their documents are done."""
    found: Touched
    """What the rows after that touch."""


class Adoption:
    """The reading of one slot's owner; one at a time."""

    def __init__(self, slot: int, partitions: int, settings: Settings) -> None:
        self._slot = slot
        self._partitions = partitions
        self._settings = settings
        self._lake = Lake(settings.lake)
        self._begun: tuple[ShardLog, list[dict[str, Any]]] | None = None

    async def prepare(self, wanted: Collection[int], tombstones: Tombstones) -> ShardLog:
        """Read what the lake says of partitions that another shard owns. Raises LakeError or OSError."""
        log, requests = self._log(wanted, tombstones), list[dict[str, Any]]()
        for batch in await asyncio.to_thread(log.read_lake, _now(), HOUR_MS):
            requests += batch.to_pylist()
        self._begun = (log, requests)
        return log

    async def read(self, wanted: Collection[int], tombstones: Tombstones, handed: Handed) -> Reading:
        """Read all of partitions that nobody owns now. Raises JournalError, LakeError or OSError."""
        begun, self._begun = self._begun, None
        if begun is None or begun[0].partitions != frozenset(wanted):
            begun = (self._log(wanted, tombstones), [])
        ends = {p: seq for one in handed.values() for p, seq in one.ends.items() if p in wanted}
        names = [SegmentName.parse(name) for one in handed.values() for name in one.segments]
        segments = [name for name in names if name is not None] if ends.keys() == set(wanted) else None
        found = await asyncio.to_thread(self._read, *begun, segments)
        if any(found.log.last_seq[p] != seq for p, seq in ends.items()):
            found = await asyncio.to_thread(self._read, self._log(wanted, tombstones), [], None)
            for partition, seq in ends.items():
                if found.log.last_seq[partition] != seq:
                    raise JournalError(
                        f"partition {partition} ends at {found.log.last_seq[partition]} in journal and lake, and ended "
                        f"at {seq} when its owner let go of it"
                    )
        return found

    def _read(self, log: ShardLog, requests: list[dict[str, Any]], segments: list[SegmentName] | None) -> Reading:
        now = _now()
        saved = known(Cursors(self._settings.cursors), log.partitions, self._partitions)
        for batch in (*log.read_lake(now, HOUR_MS), *log.read_journal(now, HOUR_MS, segments)):
            requests += batch.to_pylist()
        ends = log.last_seq
        unseen = {p: saved.done.get(p, 0) for p in log.partitions if saved.done.get(p, 0) < ends[p]}
        found = Touched()
        if unseen:
            for batch in log.since(unseen):
                found.add(touched(batch))
        return Reading(log, requests, saved, found)

    def _log(self, wanted: Collection[int], tombstones: Tombstones) -> ShardLog:
        log = ShardLog(open_journal(self._settings.journal), self._lake, self._slot, wanted)
        log.tombstones = tombstones
        return log


def _now() -> int:
    return time.time_ns() // 1_000_000
