"""The index of an owner's partitions: brought along with the journal, caught up where it lags, built anew where Redis
lost what it had. Lives on the event loop of its owner; what blocks is in a thread of its own.

What the lake has is indexed by Ray tasks, a piece at a time, and flushes and erasures come in between; the journal's
tail and the step from behind to current are the owner's own. Each partition goes its way: one that is current takes
in new rows while others are rebuilt, and what is new of those waits in the journal.

Which partitions there are is asked of the log each time. One that is new to it is behind until it was caught up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import ray

from rebu_ray.ingest.failure import cause
from rebu_ray.ingest.processing import Cursor, Processing
from rebu_ray.ingest.routing import shard_name
from rebu_ray.process.dirty import Touched, touched, touched_again
from rebu_ray.process.rebuild import Hot, Piece, next_piece
from rebu_ray.process.tasks import rebuild_task
from rebu_ray.settings import Settings
from rebu_ray.store import facts
from rebu_ray.store.index import UNAVAILABLE, Command, Index, Position, commands, position_commands
from rebu_ray.store.lake import LakeError
from rebu_ray.store.log import Commit, ShardLog
from rebu_ray.store.member import Codec
from rebu_ray.store.rows import partition_of
from rebu_ray.store.tombstones import Tombstones

log = logging.getLogger("rebu.shard")

TASKS_AT_ONCE: Final = 2
CHECK_SECONDS: Final = 1.0
PART_ROWS: Final = 500
"""Of so many rows the commands are made while Redis works on those before them."""
AGAIN_SECONDS: Final = 30.0
"""The longest pause after a failure that is not Redis being away."""
TELL_SECONDS: Final = 10.0
"""How often the log says how far a rebuild is."""
DAY_MS: Final = 86_400_000

Rebuild = Callable[[Piece, Tombstones, Hot], Awaitable[Touched]]
"""See `process.rebuild.index_piece`. Raises one of UNAVAILABLE, LakeError, OSError or an error of Ray's."""


def ray_rebuild(settings: Settings, partitions: int, slot: int) -> Rebuild:
    """Pieces are indexed on Ray's workers, through connections that go by the name of the slot's shard."""
    return lambda piece, erased, hot: rebuild_task.remote(
        settings.redis_url, shard_name(slot), settings.lake, partitions, piece, erased, hot
    )


@dataclass
class _Coming:
    """A partition whose index is behind."""

    start: int
    done: int
    """What is indexed. Rows after `start` were, or are to be."""
    anew: bool


class Indexing:
    """The part of the index that one slot writes."""

    def __init__(
        self,
        slot: int,
        partitions: int,
        settings: Settings,
        log: ShardLog,
        processing: Processing,
        files: asyncio.Lock,
        rebuild: Rebuild,
    ) -> None:
        """`partitions` is how many the platform has; whoever holds `files` keeps the lake's files as they are."""
        self._slot = slot
        self._partitions = partitions
        self._settings = settings
        self._log = log
        self._processing = processing
        self._files = files
        self._rebuild = rebuild
        self._index, self._codec = self._connection(), Codec()
        self._thread = ThreadPoolExecutor(1, "index")
        # What is behind has a connection and a thread of its own: what is current does not wait for it.
        self._filler, self._filling_codec = self._connection(), Codec()
        self._filling_thread = ThreadPoolExecutor(1, "fill")
        self._current: set[int] = set()
        """The partitions whose rows are indexed as they come."""
        self._indexed: dict[int, int] = {}
        """How far each of them is."""
        self._coming: dict[int, _Coming] = {}
        self._came: dict[int, int] = {}
        """Of the partitions that were behind with those that still are, how many rows were indexed."""
        self._replayed = Touched()
        """What rows touch that were indexed again: documents may have been computed while they were not there."""
        self._trouble = ""
        self._whole_at = time.monotonic()
        """When it was last seen to lack nothing."""
        self._told = 0.0
        self._watched: dict[str, float] = {}
        self._catching = asyncio.Lock()
        self._filling = asyncio.Lock()
        """Held while rows of partitions that are behind are indexed; the gate is for those of the others."""
        self._gate = asyncio.Lock()

    # -- calls ------------------------------------------------------------------------------------------------

    @property
    def behind(self) -> bool:
        """Whether the index lacks something."""
        return not self._log.partitions <= self._current

    def status(self) -> dict[str, Any]:
        """Of the shard's state, what concerns the index."""
        found: dict[str, Any] = {"index": "behind" if self.behind else "current"}
        if self._coming:
            found["rebuilding"] = self._progress()
        now, lacking = time.monotonic(), self._log.partitions - self._current
        if not lacking:
            self._whole_at = now
        found["index_lag_s"] = round(now - self._whole_at, 3)
        found["unindexed_rows"] = sum(self._log.last_seq[p] - self._reached(p) for p in lacking)
        if self._trouble and self.behind:
            found["detail"] = self._trouble
        return found

    async def apply(self, commits: Sequence[Commit]) -> None:
        """Index what was journalled, of the partitions that are current: the others wait for `catch_up`."""
        async with self._gate:
            if not self._current:
                return
            try:
                rows, positions = await self._in_thread(self._apply, commits)
            except UNAVAILABLE as error:
                await self._lost(error)
            else:
                self._processing.observe(rows, positions)

    async def catch_up(self) -> None:
        """Bring the partitions that are behind to the journal's end.

        Raises one of UNAVAILABLE, LakeError, OSError or an error of Ray's: what was done by then stays done.
        """
        async with self._catching:
            if not self.behind:
                return
            try:
                await self._catch_up()
            except UNAVAILABLE:
                async with self._filling:
                    await self._withdraw(self._filler, self._log.partitions - self._current)
                raise
            self._trouble = ""

    async def run(self) -> None:
        """Once a second, notice what the index lacks, and catch up."""
        failures = 0
        while True:
            pause = CHECK_SECONDS
            try:
                if not self.behind:
                    await self._check()
                if self.behind:
                    await self.catch_up()
                failures = 0
            except UNAVAILABLE as error:
                self._trouble = f"Redis: {cause(error)}"
                if failures % 30 == 0:
                    log.warning("shard %d: index still unavailable: %s", self._slot, self._trouble)
                failures += 1
            except (ray.exceptions.RayError, LakeError, OSError) as error:
                log.exception("shard %d: the index cannot be rebuilt; it is tried again", self._slot)
                self._trouble = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
                failures += 1
                pause = min(2.0**failures, AGAIN_SECONDS)
            await asyncio.sleep(pause)

    async def clear(self) -> None:
        """Empty the index of the own partitions, to be built anew. Raises one of UNAVAILABLE."""
        async with self._filling, self._gate:
            self._current.clear()
            await self._in_filling_thread(self._filler.clear, *sorted(self._log.partitions))

    async def settled(self) -> None:
        """Return when what was being indexed is indexed: who is erased by now is not indexed from then on."""
        async with self._filling, self._gate:
            return

    async def trim(self, partition: int, streams: Sequence[str]) -> None:
        """Keep in Redis what is hot. Nothing is indexed meanwhile, so what goes is in the lake.

        Raises one of UNAVAILABLE.
        """
        now = _now()
        for i in range(0, len(streams), 1000):
            async with self._gate:
                below = self._log.flushed_below(partition)
                written = dict.fromkeys(streams[i : i + 1000], now)
                await self._in_thread(self._index.settle, partition, written, below, self._settings.hot_events)
        async with self._gate:
            below = self._log.flushed_below(partition)
            await self._in_thread(self._index.evict, partition, below, self._hot().since)
            covered_seq = self._log.manifests[partition].covered_seq
            await self._in_thread(self._index.settle_rides, partition, covered_seq)

    def watch(self, streams: Sequence[str], seconds: float) -> None:
        """Publish new rows of these streams for a while."""
        now = time.monotonic()
        self._watched = {k: until for k, until in self._watched.items() if until > now}
        self._watched |= dict.fromkeys(streams, now + seconds)

    async def release(self, partitions: Collection[int]) -> dict[str, float]:
        """Let go of partitions that the log has no more; who of them is watched, for how many seconds more."""
        async with self._filling, self._gate:
            for partition in partitions:
                self._current.discard(partition)
                self._indexed.pop(partition, None)
                self._coming.pop(partition, None)
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
        async with self._filling, self._gate:
            await own()
            self._processing.adopt(partitions, saved)
            try:
                whole = await self._in_thread(self._take_up, partitions)
            except UNAVAILABLE as error:
                log.warning("shard %d: index unavailable: %s", self._slot, error)
                return
            if whole:
                ends = {p: self._log.last_seq[p] for p in partitions}
                self._indexed |= ends
                self._current.update(partitions)
                self._processing.note(found, ends)
            # Else their rows are looked at when the index has them.

    def close(self) -> None:
        """Let go of Redis."""
        self._index.close()
        self._filler.close()

    # -- what is current --------------------------------------------------------------------------------------

    def _apply(self, commits: Sequence[Commit]) -> tuple[pa.RecordBatch, dict[int, int]]:
        """Index rows of the partitions that are current; which rows these are, and how far they reach."""
        now = time.monotonic()
        watched = frozenset(stream for stream, until in self._watched.items() if until > now)
        positions: dict[int, int] = {}
        for commit in commits:
            positions |= commit.positions
        rows = commits[0].rows if len(commits) == 1 else pa.concat_batches([commit.rows for commit in commits])
        if not positions.keys() <= self._current:
            positions = {p: seq for p, seq in positions.items() if p in self._current}
            rows = rows.filter(pc.is_in(rows["partition"], value_set=pa.array(sorted(positions), pa.uint16())))
        rows = self._log.tombstones.keep(rows)
        if rows.num_rows:
            self._index.send_parts(self._parts(rows, watched))
        # Only when all rows are there: of commands sent at once, a Redis that is full may refuse some. A catch-up may
        # have been further already: positions do not go back.
        ahead = {p: seq for p, seq in positions.items() if seq > self._indexed[p]}
        self._index.send(position_commands(ahead))
        self._indexed |= ahead
        return rows, positions

    def _parts(self, rows: pa.RecordBatch, watched: frozenset[str]) -> Iterator[list[Command]]:
        """The commands that index rows, a part at a time."""
        for at in range(0, rows.num_rows, PART_ROWS):
            part = rows.slice(at, PART_ROWS)
            sent = commands(part, self._partitions, self._codec, watched)
            yield [*sent, *facts.commands(part, self._partitions, self._codec)]

    async def _lost(self, error: Exception) -> None:
        """Go on without Redis. Where it answers but takes no rows, nobody is to read what it has as if it were all."""
        log.warning("shard %d: index unavailable, going on without it: %s", self._slot, error)
        self._trouble = f"Redis: {error}"
        partitions, self._current = self._current, set()
        await self._withdraw(self._index, partitions)

    async def _withdraw(self, index: Index, partitions: Collection[int]) -> None:
        try:
            await asyncio.to_thread(index.withdraw, sorted(partitions))
        except UNAVAILABLE as error:
            log.info("shard %d: Redis cannot be told that it lacks something: %s", self._slot, error)

    async def _check(self) -> None:
        """Notice a Redis that went away, or lost what it had, while nothing was written."""
        async with self._gate:
            try:
                lost = await self._in_thread(self._not_whole)
            except UNAVAILABLE as error:
                await self._lost(error)
                return
            if lost:
                log.warning("shard %d: Redis does not have what was indexed of partitions %s", self._slot, lost)
                self._current -= set(lost)

    def _take_up(self, partitions: Collection[int]) -> bool:
        """Whether the index has all rows of partitions; where not, readers are told so."""
        found = self._index.positions(sorted(partitions))
        ends = {p: self._log.last_seq[p] for p in partitions}
        lacking = {
            p: Position(at.seq, True, ends[p], at.anew)
            for p, at in found.items()
            if at is not None and (at.seq != ends[p] or at.behind)
        }
        self._index.move_positions(lacking)
        return not lacking and None not in found.values()

    def _not_whole(self) -> list[int]:
        """Partitions of which Redis lacks something: it may have come back emptied, or with an older snapshot."""
        found = self._index.positions(sorted(self._current & self._log.partitions))
        return [p for p, at in found.items() if at is None or at.behind or at.seq != self._indexed[p]]

    # -- what is behind ---------------------------------------------------------------------------------------

    async def _catch_up(self) -> None:
        async with self._filling:
            await self._in_filling_thread(self._begin)
        self._tell(begun=True)
        while self._coming:
            async with self._files, self._filling:
                await self._index_pieces()
                ready = [p for p, at in self._coming.items() if at.done >= self._log.manifests[p].covered_seq]
                if ready:
                    await self._finish(ready)
            self._tell()

    def _begin(self) -> None:
        """Find out how far each partition is. From here on positions are only moved, never made: should Redis be
        emptied meanwhile, that shows.
        """
        found = self._filler.positions(sorted(self._log.partitions - self._current))
        ends = dict(self._log.last_seq)
        kept = {p: at for p, at in found.items() if at is not None and not self._is_useless(p, at, ends[p])}
        lost = sorted(found.keys() - kept.keys())
        self._filler.clear(*lost)
        self._filler.set_positions({p: Position(0, True, ends[p], True) for p in lost})
        self._filler.restore({p: at._replace(end=ends[p]) for p, at in kept.items() if at.behind})
        lagging = {p: Position(at.seq, True, ends[p], at.anew) for p, at in kept.items() if at.seq < ends[p]}
        self._filler.move_positions(lagging)
        before, self._coming = self._coming, {}
        for p in sorted(found):
            at = kept.get(p, Position(0, anew=True))
            start = before[p].start if p in before and p in kept else at.seq
            self._coming[p] = _Coming(start, at.seq, at.anew)
        self._came = {p: rows for p, rows in self._came.items() if before and p in self._current}

    def _is_useless(self, partition: int, position: Position, end: int) -> bool:
        """Whether a partition has to be built from nothing: the index is of another journal, or another owner was
        building it, who knew alone whom the rows touch that it had written.
        """
        known = self._coming.get(partition)
        return position.seq > end or (position.anew and not (known and known.anew))

    async def _index_pieces(self) -> None:
        """Have tasks index the next pieces of the first partitions that the lake has something of."""
        pieces: list[Piece] = []
        for p, at in self._coming.items():
            piece = next_piece(p, self._log.manifests[p], at.done, self._log.last_seq[p], at.anew)
            if piece is not None:
                pieces.append(piece)
            if len(pieces) == TASKS_AT_ONCE:
                break
        # What another shard owns by now is not to be touched, and tasks cannot tell.
        await self._in_filling_thread(self._log.check)
        # All of them come to their end before another is begun, also where one fails.
        tasks = [self._rebuild(piece, self._log.tombstones, self._hot()) for piece in pieces]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        failed: BaseException | None = None
        for piece, outcome in zip(pieces, found, strict=True):
            if isinstance(outcome, BaseException):
                failed = failed or outcome
            else:
                self._replayed.add(outcome)
                self._coming[piece.partition].done = piece.until
        if failed is not None:
            raise failed

    async def _finish(self, ready: list[int]) -> None:
        """Index what is in the journal alone of partitions, and have them current."""
        await self._in_filling_thread(self._replay, ready)
        async with self._gate:  # nothing is applied, so that what is left is little, and the last of it
            await self._in_filling_thread(self._replay, ready)
            ends = {p: self._coming[p].done for p in ready}
            missed = await self._in_filling_thread(self._missed, ends)
            await self._in_filling_thread(self._filler.move_positions, ends)
            for p, end in ends.items():
                self._came[p] = end - self._coming.pop(p).start
            self._indexed |= ends
            self._current |= ends.keys()
            self._replayed = Touched()
            self._processing.note(missed, ends)

    def _replay(self, partitions: Iterable[int]) -> None:
        """Index the journal's tail of partitions, as far as it is now."""
        ends = dict(self._log.last_seq)
        lacking = {p: self._coming[p].done for p in partitions if self._coming[p].done < ends[p]}
        if not lacking:
            return
        anew = {p for p in lacking if self._coming[p].anew}
        for batch in self._log.since(lacking):
            self._filler.send(commands(batch, self._partitions, self._filling_codec))
            self._filler.send(facts.commands(batch, self._partitions, self._filling_codec))
            self._replayed.add(touched_again(batch, anew))
            for row in pa.table(batch).group_by("partition").aggregate([("seq", "max")]).to_pylist():
                self._coming[row["partition"]].done = row["seq_max"]
            self._filler.move_positions(
                {p: Position(self._coming[p].done, True, ends[p], self._coming[p].anew) for p in lacking}
            )
        for p in lacking:  # the last rows may be of somebody erased, whom `since` leaves out
            self._coming[p].done = max(self._coming[p].done, ends[p])

    def _missed(self, ends: dict[int, int]) -> Touched:
        """What rows touch whose documents are not known to be done: those since the last run, or since Redis left.

        What is journalled behind `ends` is looked at when it is indexed.
        """
        found = Touched()
        found.add(self._replayed)
        unseen = self._processing.unseen(ends)
        if unseen:
            for batch in self._log.since(unseen):
                found.add(touched(batch))
        return found

    # -- how far ----------------------------------------------------------------------------------------------

    def _reached(self, partition: int) -> int:
        coming = self._coming.get(partition)
        return self._indexed.get(partition, 0) if coming is None else coming.done

    def _progress(self) -> dict[str, int]:
        came = sum(self._came.values())
        return {
            "partitions_done": len(self._came),
            "partitions_total": len(self._came) + len(self._coming),
            "rows_done": came + sum(at.done - at.start for at in self._coming.values()),
            "rows_total": came + sum(self._log.last_seq[p] - at.start for p, at in self._coming.items()),
        }

    def _tell(self, begun: bool = False) -> None:
        """Have the log say how far it is: at the beginning, now and then, and at the end."""
        at, now = self._progress(), time.monotonic()
        if not at["rows_total"] or (self._coming and not begun and now < self._told + TELL_SECONDS):
            return
        self._told = now
        text = "shard %d: of what the index lacked it has %d of %d rows, and %d of %d partitions are current"
        log.info(text, self._slot, at["rows_done"], at["rows_total"], at["partitions_done"], at["partitions_total"])

    def _hot(self) -> Hot:
        return Hot(self._settings.hot_events, _now() - int(self._settings.hot_days * DAY_MS))

    def _connection(self) -> Index:
        return Index(self._settings.redis_url, shard_name(self._slot), self._log.check)

    async def _in_thread(self, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    async def _in_filling_thread(self, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._filling_thread, call, *args)


def _now() -> int:
    return time.time_ns() // 1_000_000
