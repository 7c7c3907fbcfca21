"""The index of an owner's partitions: brought along with the journal, caught up when Redis was away, built anew when
it lost what it had. Lives on the event loop of its owner; what blocks is in a thread of its own.

Which partitions there are is asked of the log each time: their number is not fixed for life.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pyarrow as pa

from rebu_ray.ingest.processing import Cursor, Processing
from rebu_ray.ingest.routing import shard_name
from rebu_ray.process.dirty import Touched, touched, touched_again
from rebu_ray.settings import Settings
from rebu_ray.store import facts
from rebu_ray.store.index import UNAVAILABLE, Index, commands, position_commands
from rebu_ray.store.log import Commit, ShardLog
from rebu_ray.store.member import Codec
from rebu_ray.store.rows import partition_of

log = logging.getLogger("rebu.shard")

DAY_MS: Final = 86_400_000


class Indexing:
    """The part of the index that one slot writes."""

    def __init__(self, slot: int, partitions: int, settings: Settings, log: ShardLog, processing: Processing) -> None:
        """`partitions` is how many the platform has."""
        self._slot = slot
        self._partitions = partitions
        self._settings = settings
        self._log = log
        self._processing = processing
        self._index = Index(settings.redis_url, shard_name(slot), log.check)
        self._codec = Codec()
        self.behind = True
        """Whether the index lacks something: it has to `catch_up` before more is indexed."""
        self._indexed: dict[int, int] = {}
        """How far each partition's rows are known to be in the index."""
        self._replayed = Touched()
        """What rows touch that were indexed again: documents may have been computed while they were not there."""
        self._watched: dict[str, float] = {}
        self._gate = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "index")

    async def apply(self, commits: Sequence[Commit]) -> None:
        """Index what was journalled, unless the index is behind: then it waits for `catch_up`."""
        async with self._gate:
            if self.behind:
                return
            try:
                await self._in_thread(self._apply, commits)
            except UNAVAILABLE as error:
                log.warning("shard %d: index unavailable, going on without it: %s", self._slot, error)
                self.behind = True
                return
            for commit in commits:
                self._processing.observe(commit.rows, commit.positions)

    async def catch_up(self) -> None:
        """Bring the index from where it stands to the journal's end. Raises one of UNAVAILABLE.

        While the lake's files stay as they are.
        """
        rebuilt = await self._in_thread(self._replay, True)
        async with self._gate:
            await self._in_thread(self._replay, False)
            self.behind = False
            self._processing.note(*await self._in_thread(self._look_at_missed))
        # A rebuild brings back all that the lake has; only the hot part of it is to stay.
        for partition, streams in rebuilt.items():
            await self.trim(partition, tuple(sorted(streams)))

    async def check(self) -> None:
        """Notice a Redis that went away, or lost what it had, while nothing was written."""
        async with self._gate:
            try:
                whole = await self._in_thread(self._is_whole)
            except UNAVAILABLE as error:
                log.warning("shard %d: index unavailable: %s", self._slot, error)
                whole = False
            self.behind = self.behind or not whole

    async def clear(self) -> None:
        """Empty the index of the own partitions, to be built anew. Raises one of UNAVAILABLE."""
        async with self._gate:
            self.behind = True
            for partition in sorted(self._log.partitions):
                await self._in_thread(self._index.clear, partition)

    async def settled(self) -> None:
        """Return when what was being indexed is indexed."""
        async with self._gate:
            return

    async def trim(self, partition: int, streams: Sequence[str]) -> None:
        """Keep in Redis what is hot. Nothing is indexed meanwhile, so what goes is in the lake.

        Raises one of UNAVAILABLE.
        """
        now = _now()
        for i in range(0, len(streams), 1000):
            async with self._gate:
                below = self._log.flushed_below(partition)
                part = streams[i : i + 1000]
                await self._in_thread(self._index.settle, partition, part, below, self._settings.hot_events, now)
        async with self._gate:
            quiet = now - int(self._settings.hot_days * DAY_MS)
            await self._in_thread(self._index.evict, partition, self._log.flushed_below(partition), quiet)
            covered_seq = self._log.manifests[partition].covered_seq
            await self._in_thread(self._index.settle_rides, partition, covered_seq)

    def watch(self, streams: Sequence[str], seconds: float) -> None:
        """Publish new rows of these streams for a while."""
        now = time.monotonic()
        self._watched = {k: until for k, until in self._watched.items() if until > now}
        self._watched |= dict.fromkeys(streams, now + seconds)

    async def release(self, partitions: Collection[int]) -> dict[str, float]:
        """Let go of partitions that the log has no more; who of them is watched, for how many seconds more."""
        async with self._gate:
            for partition in partitions:
                self._indexed.pop(partition, None)
        now = time.monotonic()
        gone = {k: until for k, until in self._watched.items() if partition_of(k, self._partitions) in partitions}
        self._watched = {k: until for k, until in self._watched.items() if k not in gone}
        return {stream: until - now for stream, until in gone.items() if until > now}

    async def adopt(
        self, partitions: Collection[int], own: Callable[[], Awaitable[None]], saved: Cursor, found: Touched
    ) -> None:
        """Take up partitions, which the log has once `own` has returned. `found` is what their rows touch whose
        documents are not known to be done.
        """
        async with self._gate:
            await own()
            self._processing.adopt(partitions, saved)
            try:
                whole = await self._in_thread(self._take_up, partitions)
            except UNAVAILABLE as error:
                log.warning("shard %d: index unavailable: %s", self._slot, error)
                whole = False
            if whole:
                self._processing.note(found, {p: self._indexed[p] for p in partitions})
            # Else their rows are looked at when the index has them.
            self.behind = self.behind or not whole

    def close(self) -> None:
        """Let go of Redis."""
        self._index.close()

    def _apply(self, commits: Sequence[Commit]) -> None:
        now = time.monotonic()
        watched = frozenset(stream for stream, until in self._watched.items() if until > now)
        sent = []
        positions: dict[int, int] = {}
        for commit in commits:
            positions |= commit.positions
        rows = commits[0].rows if len(commits) == 1 else pa.concat_batches([commit.rows for commit in commits])
        rows = self._log.tombstones.keep(rows)
        if rows.num_rows:
            sent += commands(rows, self._partitions, self._codec, watched)
            sent += facts.commands(rows, self._partitions, self._codec)
        # A catch-up may have been further already: positions do not go back.
        ahead = {p: seq for p, seq in positions.items() if seq > self._indexed[p]}
        self._index.send([*sent, *position_commands(ahead)])
        self._indexed |= ahead

    def _replay(self, behind: bool) -> dict[int, set[str]]:
        """Index what the index lacks; the streams of the partitions that had to be built anew."""
        found = self._index.positions(sorted(self._log.partitions))
        rebuilt: dict[int, set[str]] = {}
        for partition, position in found.items():
            if position is None or position.seq > self._log.last_seq[partition]:
                self._index.clear(partition)
                rebuilt[partition] = set()
        done = {
            p: position.seq if position is not None and position.seq <= self._log.last_seq[p] else 0
            for p, position in found.items()
        }
        ends = dict(self._log.last_seq)
        lacking = {p: seq for p, seq in done.items() if seq < ends[p]}
        # From here on positions are only moved, never made: should Redis be emptied meanwhile, that shows.
        self._index.set_positions(dict.fromkeys(rebuilt, 0), behind=True)
        if lacking:
            self._index.move_positions(lacking, behind=True)
            for batch in self._log.since(lacking):
                self._index.send(commands(batch, self._partitions, self._codec))
                self._index.send(facts.commands(batch, self._partitions, self._codec))
                self._replayed.add(touched_again(batch, rebuilt))
                for partition, key in zip(batch["partition"].to_pylist(), batch["key"].to_pylist(), strict=True):
                    if partition in rebuilt and key[0] in "uad":
                        rebuilt[partition].add(key)
                done |= {
                    row["partition"]: row["seq_max"]
                    for row in pa.table(batch).group_by("partition").aggregate([("seq", "max")]).to_pylist()
                }
                self._index.move_positions({p: done[p] for p in lacking}, behind=True)
            # The last rows may be of somebody erased, whom `since` leaves out.
            done |= {p: max(done[p], ends[p]) for p in lacking}
        if not behind:
            self._index.move_positions(done)
            self._indexed |= done
        return rebuilt

    def _take_up(self, partitions: Collection[int]) -> bool:
        """Whether the index has all rows of partitions; where not, readers are told so."""
        found = self._index.positions(sorted(partitions))
        ends = {p: self._log.last_seq[p] for p in partitions}
        self._indexed |= ends
        lacking = {p: at.seq for p, at in found.items() if at is not None and (at.seq != ends[p] or at.behind)}
        self._index.move_positions(lacking, behind=True)
        return not lacking and None not in found.values()

    def _look_at_missed(self) -> tuple[Touched, dict[int, int]]:
        """What rows touch whose documents are not known to be done: those since the last run, or since Redis left."""
        found, self._replayed = self._replayed, Touched()
        # What is journalled and waits to be indexed is looked at when it is.
        ends = dict(self._indexed)
        unseen = self._processing.unseen(ends)
        if unseen:
            for batch in self._log.since(unseen):
                found.add(touched(batch))
        return found, ends

    def _is_whole(self) -> bool:
        """Whether Redis holds what was indexed: it may have come back emptied, or with an older snapshot."""
        found = self._index.positions(sorted(self._log.partitions))
        return all(at is not None and not at.behind and at.seq == self._indexed[p] for p, at in found.items())

    async def _in_thread(self, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)


def _now() -> int:
    return time.time_ns() // 1_000_000
