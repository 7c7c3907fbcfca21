"""The owner of a range of partitions: the only one that appends to their journal. Lives in a shard actor.

A call carries a batch. Calls that arrive while one group is being written make up the next group (group
commit); while a group is indexed the next one is already being written. A call is answered when its rows
are durable and, unless Redis is away, visible.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pyarrow as pa
import ray

from rebu_ray.ingest.adoption import Adoption
from rebu_ray.ingest.answer import CLOSED, DAMAGED, Appended, Call, answer, origins_of, partitions_of
from rebu_ray.ingest.delivery import Delivery
from rebu_ray.ingest.erasing import Erasing
from rebu_ray.ingest.indexing import Indexing, ray_rebuild
from rebu_ray.ingest.lake_flush import commit_flushed, flush_task
from rebu_ray.ingest.measures import ShardMeasures
from rebu_ray.ingest.moves import Handed, Released
from rebu_ray.ingest.processing import Processing, ray_tasks
from rebu_ray.ingest.rate import Rate
from rebu_ray.ingest.request_join import HOUR_MS, RequestJoin, request_rows
from rebu_ray.ingest.routing import NAMESPACE, Standing, load_standing, shard_name
from rebu_ray.logs import about
from rebu_ray.settings import Settings
from rebu_ray.store.audit import Held
from rebu_ray.store.cursor import Cursors
from rebu_ray.store.index import UNAVAILABLE
from rebu_ray.store.journal import JournalCorrupt, JournalError, StaleOwner, open_journal
from rebu_ray.store.lake import DataFile, Lake, LakeError, Manifest, TallyFile
from rebu_ray.store.log import Commit, ShardLog
from rebu_ray.store.rows import WIRE, decode, partition_of
from rebu_ray.store.seen import Seen
from rebu_ray.traces import Step

log = logging.getLogger("rebu.shard")

GROUP_BYTES: Final = 16 * 1024 * 1024
"""The most bytes of rows that one group commit takes."""
DELIVERY_SECONDS: Final = 5.0
"""How long an answer waits for a joined line to reach its user's shard; it is delivered later all the same."""
FLUSH_AGAIN_SECONDS: Final = 5.0
ASK_AGAIN_SECONDS: Final = 5.0
"""After how long without an answer another shard's question is looked at anew: its subjects may have moved."""


class Owner:
    """One slot's owner, on the event loop of its actor. Ray is only its way to other shards and to tasks."""

    def __init__(self, slot: int, settings: Settings, measures: ShardMeasures) -> None:
        """Claims the slot, and only then reads what it owns: whoever gives its partitions to another fences it after
        that has been saved.
        """
        self._slot = slot
        self._settings = settings
        self._measures = measures
        self._cursors = Cursors(settings.cursors)
        standing = self._read_standing()
        partitions = standing.routing.partitions
        self._lake = Lake(settings.lake)
        self._log = ShardLog(open_journal(settings.journal), self._lake, slot, ())
        self._erasing = Erasing(settings, partitions, self._lake, self._log)
        self._join = RequestJoin()

        def own() -> list[int]:
            nonlocal standing
            standing = self._read_standing()
            return standing.owned_by(slot)

        recent = self._log.recover(_now(), HOUR_MS, own)
        self._routing = standing.routing
        self._own = self._log.partitions
        """Whose rows are taken: all of the log's, but for those that are being let go."""
        self._delivery = Delivery(slot, self._routing, self._append_own)
        for batch in recent:
            self._delivery.keep(self._join.observe(batch.to_pylist(), _now()))
        self._processing = Processing(
            slot,
            self._routing,
            ray_tasks(settings.redis_url, partitions),
            self._cursors,
            self._append_documents,
            self._ask,
            self._own,
            measures,
        )
        self._lake_lock = asyncio.Lock()
        rebuild = ray_rebuild(settings, partitions, slot)
        self._indexing = Indexing(slot, partitions, settings, self._log, self._processing, self._lake_lock, rebuild)
        self._adoption = Adoption(slot, partitions, settings)
        self._version = self._routing.version
        """Of the routing that counts here: an older one is not believed any more."""
        self._assigning = asyncio.Lock()
        self._trouble: tuple[str, str] | None = None
        """Why partitions that are this slot's cannot be taken up."""
        self._in_hand: Counter[int] = Counter()
        """Calls by partition that are accepted and not indexed yet."""
        self._queue: list[Call] = []
        self._queued_bytes = 0
        self._drain_rate = 0.0
        self._flush_after = 0.0
        self._garbage: list[tuple[int, tuple[DataFile | TallyFile, ...]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._writer = ThreadPoolExecutor(1, "journal")
        self._counts = {"stored": 0, "duplicate": 0, "groups": 0, "flushes": 0}
        self._load = Rate()

    # -- calls ------------------------------------------------------------------------------------------------

    async def append(self, data: bytes, origins: tuple[str, ...] = ()) -> Appended:
        """Make the new rows of a `WIRE` batch durable and visible."""
        self._run()
        batch = decode(data, WIRE)
        partitions = partitions_of(batch)
        strangers = partitions - self._own
        if strangers:
            return Appended("not_owner", detail=f"slot {self._slot} does not own partitions {sorted(strangers)}")
        if self._queue and self._queued_bytes + len(data) > self._settings.queue_bytes:
            wait = self._queued_bytes / self._drain_rate if self._drain_rate else 1.0
            return Appended("overloaded", detail="the shard's queue is full", retry_after=min(max(wait, 1.0), 30.0))
        call = Call(batch, asyncio.get_running_loop().create_future(), partitions, time.monotonic(), origins)
        self._queue.append(call)
        self._in_hand.update(partitions)
        self._queued_bytes += batch.nbytes
        self._wake.set()
        return await call.answer

    async def watch(self, streams: list[str], seconds: float) -> bool:
        """Publish new rows of these streams for a while; whether all of them are here."""
        self._run()
        self._indexing.watch(streams, seconds)
        return {partition_of(stream, self._routing.partitions) for stream in streams} <= self._own

    async def compute(self, subjects: list[str]) -> bool:
        """Compute the documents of subjects anew; returns when they are durable, False where some are not here."""
        self._run()
        return await self._processing.ask(subjects)

    async def prepare(self, partitions: tuple[int, ...]) -> None:
        """Read what can be read of partitions before they come here."""
        self._run()
        log = await self._adoption.prepare(partitions, self._log.tombstones)
        # Whose fingerprints are remembered that never come here does no harm.
        await self._in(self._writer, self._log.seen.take, log.seen)
        log.seen = Seen()

    async def release(self, partitions: tuple[int, ...], version: int) -> Released:
        """Finish what was accepted for partitions and let go of them; no older routing counts from then on."""
        self._run()
        await self._still_owner()
        async with self._assigning, self._lake_lock:
            self._version = max(version, self._version)
            return await self._let_go(frozenset(partitions))

    async def assign(self, standing: Standing, handed: Handed) -> None:
        """Own exactly what is this slot's by a routing; returns when that is so."""
        self._run()
        await self._still_owner()
        async with self._assigning:
            if standing.routing.version < self._version:
                return
            self._version = standing.routing.version
            self._routing = standing.routing
            self._delivery.assign(self._routing)
            self._processing.assign(self._routing)
            mine = frozenset(standing.owned_by(self._slot))
            if self._own - mine:
                async with self._lake_lock:
                    await self._let_go(self._own - mine)
            if mine - self._own:
                try:
                    await self._take_up(mine - self._own, handed)
                except (JournalError, LakeError, OSError) as error:
                    self._trouble = DAMAGED if isinstance(error, JournalCorrupt) else CLOSED, str(error)
                    raise
            self._trouble = None

    async def status(self) -> dict[str, Any]:
        """The shard's state, for people and for the coordinator's heart-beat."""
        self._run()
        since = self._log.unflushed_since
        return {
            "slot": self._slot,
            "epoch": self._log.epoch,
            "pid": os.getpid(),
            "partitions": sorted(self._own),
            "routing": self._version,
            "queued_bytes": self._queued_bytes,
            "queue_age_s": round(time.monotonic() - self._queue[0].at, 3) if self._queue else 0.0,
            "load_bytes_s": round(self._load.rate),
            "journal_bytes": self._log.unflushed_bytes,
            "journal_age_s": max(0.0, (_now() - since) / 1000) if self._log.unflushed_bytes else 0.0,
            "remembered_ids": len(self._log.seen),
            "unattributed_waiting": self._join.waiting,
            "unattributed_expired": self._join.expired,
            "delivered": self._delivery.delivered,
            "undelivered": self._delivery.undelivered,
            "rows": sum(self._log.last_seq.values()),
            **self._counts,
            **self._indexing.status(),
            **self._processing.status(),
            **({} if self._trouble is None else {"index": self._trouble[0], "detail": self._trouble[1]}),
        }

    async def flush(self) -> int:
        """Move what is in the journal to the lake now; how many segments were sealed."""
        self._run()
        return await self._flush()

    async def forget(self) -> None:
        """Take note of who is erased: from when this returns, nothing of theirs is stored or indexed."""
        self._run()
        await self._in(self._writer, self._erasing.load)
        await self._indexing.settled()

    def reload(self) -> None:
        """Take note of who is erased, before anything is asked of this owner."""
        self._erasing.load()

    async def scrub(self) -> int:
        """Take the rows of erased people out of journal and lake; how many were in the lake's files."""
        self._run()
        await self._flush()
        async with self._lake_lock:
            return await self._erasing.scrub()

    async def audited(self) -> Held:
        """What an audit cannot read from disk: how far the journal is, and tallies that wait to be written."""
        self._run()
        log = self._log
        held: Held = await self._in(self._writer, lambda: Held(dict(log.last_seq), log.pending.entries()))
        return held

    async def reindex(self) -> dict[str, int]:
        """Rebuild the index of the own partitions from lake and journal; how many, and how many rows they have."""
        self._run()
        await self._indexing.clear()
        await self._indexing.catch_up()
        return {"partitions": len(self._log.partitions), "rows": sum(self._log.last_seq.values())}

    async def stop(self) -> None:
        """Finish what was accepted and let go of the journal."""
        while self._in_hand.total():
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._processing.save()
        await self._in(self._writer, self._log.close)
        self._indexing.close()

    # -- what is owned ----------------------------------------------------------------------------------------

    def _read_standing(self) -> Standing:
        standing = load_standing(self._cursors)
        if standing is None:
            raise JournalError(f"nothing says who owns what: {self._settings.cursors}/routing is missing")
        return standing

    async def _still_owner(self) -> None:
        """Leave where this slot is somebody else's: Ray makes an owner anew, who knows what is to be known."""
        try:
            await self._in(self._writer, self._log.check)
        except StaleOwner as error:
            log.error("shard %d: %s; leaving, to be restarted", self._slot, error)
            os._exit(1)

    async def _let_go(self, partitions: frozenset[int]) -> Released:
        """While nothing is flushed. What these partitions get meanwhile is refused, and sent to their next owner."""
        began = time.monotonic()
        partitions &= self._log.partitions
        self._own -= partitions
        while any(self._in_hand[p] for p in partitions):
            await asyncio.sleep(0.002)
        ends, segments = await self._in(self._writer, self._log.release, partitions)
        watched = await self._indexing.release(partitions)
        await self._processing.release(partitions)
        count = self._routing.partitions
        asyncio.get_running_loop().call_soon(self._join.drop, lambda key: partition_of(key, count) in partitions)
        log.info("shard %d has let go of the partitions %s", self._slot, sorted(partitions))
        return Released(ends, [str(segment) for segment in segments], watched, time.monotonic() - began)

    async def _take_up(self, partitions: frozenset[int], handed: Handed) -> None:
        """Own partitions that nobody owns now."""
        found = await self._adoption.read(partitions, self._log.tombstones, handed)
        self._delivery.keep(self._join.observe(found.requests, _now()))
        for one in handed.values():
            for stream, seconds in one.watched.items():
                self._indexing.watch([stream], seconds)

        async def own() -> None:
            await self._in(self._writer, self._log.adopt, found.log)

        await self._indexing.adopt(partitions, own, found.saved, found.found)
        self._own |= partitions
        log.info("shard %d owns the partitions %s", self._slot, sorted(partitions))

    # -- loops ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Start the loops with the first call: only then is there an event loop."""
        if self._tasks:
            return
        self._wake = asyncio.Event()
        self._to_index: asyncio.Queue[tuple[list[Call], Commit, Step]] = asyncio.Queue(4)
        loops: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (
            self._commit_loop,
            self._index_loop,
            self._indexing_loop,
            self._care_loop,
            self._processing.run,
            self._processing.save_loop,
        )
        self._tasks = [asyncio.create_task(self._guarded(loop)) for loop in loops]

    async def _guarded(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A loop that fails takes the actor with it: Ray makes a new one, which recovers from the journal."""
        try:
            await loop()
        except asyncio.CancelledError:
            raise
        except BaseException:
            log.exception("shard %d: %s failed; leaving, to be restarted", self._slot, loop.__name__)
            os._exit(1)

    async def _commit_loop(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                group, size = [self._queue.pop(0)], 0
                while self._queue and size < GROUP_BYTES:
                    size += self._queue[0].batch.nbytes
                    group.append(self._queue.pop(0))
                await self._commit(group)

    async def _commit(self, group: list[Call]) -> None:
        batch = group[0].batch if len(group) == 1 else pa.concat_batches([call.batch for call in group])
        started = time.monotonic()
        try:
            commit = await self._in(self._writer, self._log.commit, batch, _now())
        except StaleOwner:
            for call in group:
                call.answer.set_result(Appended("not_owner", detail="a later owner of this slot exists"))
            raise
        except JournalError as error:
            with about(origins_of(group)):
                log.error("shard %d: %s", self._slot, error)
            for call in group:
                call.answer.set_result(Appended("unavailable", detail=str(error), retry_after=5.0))
            self._done(group)
            return
        finally:
            self._queued_bytes -= sum(call.batch.nbytes for call in group)
        self._load.add(batch.nbytes)
        took = time.monotonic() - started
        self._measures.commit.observe(took)
        rate = batch.nbytes / max(took, 1e-6)
        self._drain_rate = rate if not self._drain_rate else 0.8 * self._drain_rate + 0.2 * rate
        stored = int(commit.new.sum())
        self._counts["stored"] += stored
        self._counts["duplicate"] += len(commit.new) - stored
        self._counts["groups"] += 1
        await self._to_index.put((group, commit, Step("journal", started, started + took)))

    async def _index_loop(self) -> None:
        while True:
            ready = [await self._to_index.get()]
            while not self._to_index.empty():
                ready.append(self._to_index.get_nowait())
            began = time.monotonic()
            with self._measures.index.time(), about(origins_of(call for group, _, _ in ready for call in group)):
                await self._indexing.apply([commit for _, commit, _ in ready])
            for group, commit, journalled in ready:
                self._done(group)
                self._measures.appended(self._slot, group, journalled, began)
                requests = request_rows(commit.rows)
                if requests:
                    _keep(asyncio.create_task(self._join_then_answer(group, commit, requests)))
                else:
                    answer(group, commit)

    def _done(self, group: list[Call]) -> None:
        for call in group:
            self._in_hand.subtract(call.partitions)

    async def _join_then_answer(self, group: list[Call], commit: Commit, requests: list[dict[str, Any]]) -> None:
        claimed = self._join.observe(requests, _now())
        if claimed:
            delivery = asyncio.create_task(self._delivery.deliver(claimed))
            _keep(delivery)
            await asyncio.wait([delivery], timeout=DELIVERY_SECONDS)
        answer(group, commit)

    async def _append_own(self, data: bytes) -> str:
        answer = await self.append(data)
        return answer.status if answer.status == "ok" else answer.detail

    async def _append_documents(self, data: bytes) -> bool:
        return await self._append_own(data) == "ok"

    async def _ask(self, slot: int, subjects: list[str]) -> bool:
        """Have another shard compute documents; whether it could."""
        try:
            shard: Any = ray.get_actor(shard_name(slot), NAMESPACE)
            asked = asyncio.wrap_future(shard.compute.remote(subjects).future())
            routing = self._routing
            while not (await asyncio.wait([asked], timeout=ASK_AGAIN_SECONDS))[0]:
                if self._routing is not routing:  # it may be stopped, and have lost what was its own
                    asked.cancel()
                    return False
            return bool(await asked)
        except (ray.exceptions.RayError, ValueError) as error:
            log.warning("shard %d: %d subjects wait for slot %d: %s", self._slot, len(subjects), slot, error)
            return False

    async def _care_loop(self) -> None:
        """Once a second: deliver what waits, move old rows to the lake."""
        while True:
            await self._delivery.again()
            self._join.expire(_now())
            self._load.tick()
            now = time.monotonic()
            due = _now() - self._log.unflushed_since >= 1000 * self._settings.flush_seconds
            if now >= self._flush_after and (due or self._log.unflushed_bytes >= self._settings.flush_bytes):
                try:
                    await self._flush()
                except OSError as error:  # a lake that is full: rows wait in the journal
                    log.error("shard %d: nothing moves to the lake: %s", self._slot, str(error).splitlines()[-1])
                    self._flush_after = time.monotonic() + FLUSH_AGAIN_SECONDS
            await asyncio.sleep(1.0)

    async def _indexing_loop(self) -> None:
        """See to the index, once the rows of erased people are out of a lake that may have been restored."""
        async with self._lake_lock:
            await self._erasing.scrub()
        await self._indexing.run()

    # -- lake -------------------------------------------------------------------------------------------------

    async def _flush(self) -> int:
        async with self._lake_lock:
            await self._in(self._writer, self._log.check)
            await self._in(self._writer, self._log.settle)
            segments = await self._in(self._writer, self._log.seal)
            if not segments:
                return 0
            began, manifests = time.monotonic(), dict(self._log.manifests)
            stones = self._log.tombstones
            results = await flush_task.remote(self._settings.journal, self._settings.lake, segments, manifests, stones)
            committed: dict[int, Manifest] = {}
            try:
                await asyncio.to_thread(commit_flushed, self._lake, manifests, results, committed)
            finally:  # what is committed counts, whatever became of the rest
                await self._in(self._writer, self._log.flushed, committed, ())
            await self._in(self._writer, self._log.flushed, {}, segments)
            # Readers may still hold the manifest before this one: its files go one flush later.
            for partition, files in self._garbage:
                await asyncio.to_thread(self._lake.remove, partition, files)
            self._garbage = [(r.partition, r.replaced) for r in results if r.replaced]
            self._counts["flushes"] += 1
            self._measures.flush.observe(time.monotonic() - began)
            if not self._indexing.behind:
                try:
                    for result in results:
                        await self._indexing.trim(result.partition, result.streams)
                except UNAVAILABLE as error:
                    log.warning("shard %d: index not trimmed: %s", self._slot, error)
            return len(segments)

    async def _in(self, pool: ThreadPoolExecutor, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, call, *args)


_background: set[asyncio.Task[None]] = set()


def _keep(task: asyncio.Task[None]) -> None:
    """Hold a task until it ends; the event loop itself would not."""
    _background.add(task)
    task.add_done_callback(_background.discard)


def _now() -> int:
    return time.time_ns() // 1_000_000
