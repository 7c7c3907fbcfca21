"""What an owner does about documents: who is touched by what came in, until their documents are journalled.

What is still to be done is derived from positions: rows after a partition's cursor. The cursor is saved when
everything up to it is done, also at the shards that own others whom the rows touched. So a crash at any moment
costs a repetition, and a repetition changes nothing.

A partition may go to another slot at any moment. What is done of it stays done, whoever saved that; whom this shard
was about to compute is asked of the new owner, and the round ends when that one is done.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import ray

from rebu_ray.ingest.measures import ShardMeasures
from rebu_ray.ingest.routing import Routing
from rebu_ray.logs import MOST_ORIGINS, about, origins
from rebu_ray.process.dirty import Touched, touched
from rebu_ray.process.load import IndexBehind
from rebu_ray.process.tasks import recompute_task, subjects_task
from rebu_ray.store.cursor import FORMAT, Cursors
from rebu_ray.store.index import UNAVAILABLE
from rebu_ray.store.journal import JournalError
from rebu_ray.store.rows import decode, partition_of
from rebu_ray.store.versions import read
from rebu_ray.traces import told

log = logging.getLogger("rebu.processing")

ROUND_SUBJECTS: Final = 400
"""The most subjects that one task computes."""
TASKS_AT_ONCE: Final = 2
PAUSE_SECONDS: Final = 0.02
"""How long a round waits for more of the same before it begins."""
RETRY_SECONDS: Final = 0.5
SAVE_SECONDS: Final = 1.0
FAILED_SECONDS: Final = 300
_SAVED: Final = "processed-"

Append = Callable[[bytes], Awaitable[bool]]
"""Journal an encoded batch of documents; whether that could be done."""
Ask = Callable[[int, list[str]], Awaitable[bool]]
"""Have the shard of a slot compute the documents of subjects anew; whether they are durable."""


class Tasks(NamedTuple):
    """Where documents are computed. Both raise IndexBehind, one of `store.index.UNAVAILABLE`, or an error of Ray's."""

    compute: Callable[[Sequence[str]], Awaitable[bytes]]
    """See `process.tasks.recompute`."""
    find: Callable[[Touched], Awaitable[set[str]]]
    """See `process.load.subjects_of`."""


def ray_tasks(redis_url: str, partitions: int) -> Tasks:
    """Tasks on Ray's workers."""
    return Tasks(
        lambda subjects: recompute_task.remote(redis_url, partitions, subjects, told()),
        lambda found: subjects_task.remote(redis_url, partitions, found),
    )


class _Round:
    """Rows that were looked at together, up to `positions`, while what they touch is not done."""

    def __init__(self, positions: dict[int, int], since: float) -> None:
        self.positions = positions
        self.since = since
        """When the first of them was readable, by the monotonic clock."""
        self.left = 1
        """Shards that still have something to do, this one included."""


class Cursor(msgspec.Struct):
    """What is saved by a slot, as JSON."""

    done: dict[int, int] = msgspec.field(default_factory=dict)
    """By partition, the sequence number up to which everything is done."""
    failed: list[str] = msgspec.field(default_factory=list)
    """Subjects that could not be computed: they are tried again now and then, and after a start."""
    v: int = FORMAT


def known(cursors: Cursors, partitions: Iterable[int], of: int) -> Cursor:
    """What is known of partitions, out of `of` that there are, whichever slots saved it. Raises OSError, or
    JournalError for what a newer version saved.
    """
    own, found, failed = set(partitions), Cursor(), set[str]()
    for name in cursors.names(""):
        data = cursors.load(name) if name.startswith(_SAVED) else None
        if data is not None:
            saved = read(data, Cursor, FORMAT, f"the cursor `{name}`", JournalError)
            for partition in own & saved.done.keys():
                found.done[partition] = max(saved.done[partition], found.done.get(partition, 0))
            failed |= {subject for subject in saved.failed if partition_of(subject, of) in own}
    found.failed = sorted(failed)
    return found


class Processing:
    """The documents of one slot's partitions, on the event loop of its owner."""

    def __init__(
        self,
        slot: int,
        routing: Routing,
        tasks: Tasks,
        cursors: Cursors,
        append: Append,
        ask: Ask,
        own: Iterable[int] | None = None,
        measures: ShardMeasures | None = None,
    ) -> None:
        """`own` are the partitions that the slot has, all that are its by the routing unless told."""
        self._measures = measures or ShardMeasures()
        self._slot = slot
        self._routing = routing
        self._tasks = tasks
        self._cursors = cursors
        self._append = append
        self._ask = ask
        self._wake = asyncio.Event()
        self._touched = Touched()
        self._touched_at = time.monotonic()
        """When the first of what is touched was."""
        self._origins: dict[str, None] = {}
        """The requests that touched them."""
        self._asked: dict[str, list[asyncio.Future[bool]]] = {}
        """Subjects that other shards asked for, and who waits for each."""
        self._rounds: list[_Round] = []
        self._foreign: set[asyncio.Task[None]] = set()
        own = routing.owned_by(slot) if own is None else own
        saved = known(cursors, own, routing.partitions)
        self._done = {partition: saved.done.get(partition, 0) for partition in own}
        """How far everything that rows touch is done."""
        self._seen = dict(self._done)
        """How far rows were looked at."""
        self._failed = dict.fromkeys(saved.failed, "not tried since the last start")
        self._saved = Cursor(dict(self._done), sorted(self._failed))
        self._try_failed()
        self._documents = 0

    def assign(self, routing: Routing) -> None:
        """Whom to ask for the subjects of others from now on."""
        self._routing = routing

    def adopt(self, partitions: Iterable[int], saved: Cursor) -> None:
        """Take up partitions of which that is known; their rows after it are to be noted."""
        for partition in partitions:
            self._done[partition] = self._seen[partition] = saved.done.get(partition, 0)
        self._failed |= {s: "not tried since it moved here" for s in saved.failed if s not in self._failed}
        self._try_failed()

    async def release(self, partitions: Iterable[int]) -> None:
        """Save how far partitions are, and let go of them."""
        await self.save()
        for partition in partitions:
            del self._done[partition], self._seen[partition]

    @property
    def _cursor(self) -> str:
        return f"{_SAVED}{self._slot:03d}"

    def unseen(self, ends: dict[int, int]) -> dict[int, int]:
        """Where to go on looking at rows, of the partitions that are longer than what was looked at."""
        return {partition: self._seen[partition] for partition, end in ends.items() if end > self._seen[partition]}

    def observe(self, rows: pa.RecordBatch, positions: dict[int, int]) -> None:
        """Take note of rows that are in the index now, up to `positions`."""
        self.note(touched(rows), positions)

    def note(self, found: Touched, positions: dict[int, int]) -> None:
        """Take note of what rows up to `positions` touched."""
        for partition, seq in positions.items():
            if partition in self._seen:
                self._seen[partition] = max(seq, self._seen[partition])
        if found:
            if not self._touched:
                self._touched_at = time.monotonic()
            self._touched.add(found)
            if len(self._origins) < MOST_ORIGINS:
                self._origins |= dict.fromkeys(origins())
            self._wake.set()
        elif not self._touched and not self._rounds:
            self._reached(self._seen)

    async def ask(self, subjects: Sequence[str]) -> bool:
        """Compute the documents of own subjects anew; returns when they are durable, False where some are another's."""
        waiting = []
        for subject in subjects:
            future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._asked.setdefault(subject, []).append(future)
            waiting.append(future)
        self._wake.set()
        return all(await asyncio.gather(*waiting))

    def status(self) -> dict[str, Any]:
        """Of the shard's state, what concerns documents."""
        return {
            "documents": self._documents,
            "documents_lag_s": round(self._lag_s(), 3),
            "unprocessed_rows": sum(max(0, seq - self._done[partition]) for partition, seq in self._seen.items()),
            "uncomputed_subjects": len(self._failed),
        }

    def _lag_s(self) -> float:
        """For how long rows have been readable whose documents are not."""
        waiting = [current.since for current in self._rounds]
        if self._touched:
            waiting.append(self._touched_at)
        return time.monotonic() - min(waiting) if waiting else 0.0

    async def run(self) -> None:
        """Round after round, for ever."""
        # A worker that has everything loaded by the time that the first rows come.
        await self._retried(lambda: self._tasks.compute([]))
        while True:
            await self._wake.wait()
            await asyncio.sleep(PAUSE_SECONDS)
            self._wake.clear()
            found, self._touched = self._touched, Touched()
            requests, self._origins = self._origins, {}
            asked, self._asked = self._asked, {}
            current = _Round(dict(self._seen), self._touched_at if found else time.monotonic())
            self._rounds.append(current)
            with about(requests):
                own = await self._begin(found, current)
                moved = await self._compute(sorted(own | asked.keys()))
            for subject, futures in asked.items():
                for future in futures:
                    if not future.done():
                        future.set_result(subject not in moved)
            self._send(own & moved, current)
            self._end(current)

    async def save_loop(self) -> None:
        """Once a second, make the cursor durable where it moved."""
        for second in itertools.count(1):
            await asyncio.sleep(SAVE_SECONDS)
            await self.save()
            if second % FAILED_SECONDS == 0:
                self._try_failed()

    async def save(self) -> None:
        """Make the cursor durable. Where that cannot be done now, a crash costs more repetition, and no more."""
        now = Cursor(dict(self._done), sorted(self._failed))
        if now != self._saved:
            try:
                await asyncio.to_thread(self._cursors.save, self._cursor, msgspec.json.encode(now))
            except OSError as error:
                log.warning("slot %d: the cursor of documents is not saved: %s", self._slot, error)
                return
            self._saved = now

    def _try_failed(self) -> None:
        if self._failed:
            if not self._touched:
                self._touched_at = time.monotonic()
            self._touched.subjects |= self._failed.keys()
            self._wake.set()

    async def _begin(self, found: Touched, current: _Round) -> set[str]:
        """The own subjects among those touched; the others are asked for where they are owned."""
        subjects: set[str] = set(found.subjects)
        if found.indirect:
            subjects = await self._retried(lambda: self._tasks.find(found))
        own = {subject for subject in subjects if self._is_own(subject)}
        self._send(subjects - own, current)
        return own

    def _is_own(self, subject: str) -> bool:
        return partition_of(subject, self._routing.partitions) in self._done

    def _by_slot(self, subjects: Iterable[str]) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for subject in sorted(subjects):
            owner = self._routing.owners[partition_of(subject, self._routing.partitions)]
            found.setdefault(owner, []).append(subject)
        return found

    def _send(self, subjects: Iterable[str], current: _Round) -> None:
        """Have subjects computed where they are owned; the round lasts until they are."""
        for theirs in self._by_slot(subjects).values():
            current.left += 1
            task = asyncio.create_task(self._elsewhere(theirs, current))
            self._foreign.add(task)
            task.add_done_callback(self._foreign.discard)

    async def _elsewhere(self, subjects: list[str], current: _Round) -> None:
        while subjects:
            left: list[str] = []
            for slot, theirs in self._by_slot(subjects).items():
                # What moved here meanwhile, or is about to come back, is this shard's own to compute.
                done = await (self.ask(theirs) if slot == self._slot else self._ask(slot, theirs))
                left += [] if done else theirs
            subjects = left
            if subjects:
                await asyncio.sleep(RETRY_SECONDS)
        self._end(current)

    def _end(self, current: _Round) -> None:
        current.left -= 1
        if not current.left:
            self._measures.documents.observe(time.monotonic() - current.since)
        while self._rounds and not self._rounds[0].left:
            self._reached(self._rounds.pop(0).positions)
        if not self._rounds and not self._touched:
            self._reached(self._seen)

    def _reached(self, positions: dict[int, int]) -> None:
        for partition, seq in positions.items():
            if partition in self._done:  # else it has moved: what is done stays done, and its new owner looks itself
                self._done[partition] = max(seq, self._done[partition])

    async def _compute(self, subjects: list[str]) -> set[str]:
        """Compute own subjects; those of them that have moved to another shard."""
        chunks = [subjects[i : i + ROUND_SUBJECTS] for i in range(0, len(subjects), ROUND_SUBJECTS)]
        limit = asyncio.Semaphore(TASKS_AT_ONCE)
        moved: set[str] = set()

        async def one(chunk: list[str]) -> None:
            async with limit:
                await self._compute_chunk(chunk, moved)

        await asyncio.gather(*map(one, chunks))
        for subject in moved:
            self._failed.pop(subject, None)
        return moved

    async def _compute_chunk(self, subjects: list[str], moved: set[str]) -> None:
        while True:
            moved.update(subject for subject in subjects if not self._is_own(subject))
            own = [subject for subject in subjects if subject not in moved]
            if not own:
                return
            try:
                data: bytes = await self._retried(lambda own=own: self._tasks.compute(own))  # type: ignore[misc]
            except ray.exceptions.RayTaskError as error:
                if len(own) > 1:
                    middle = len(own) // 2
                    await self._compute_chunk(own[:middle], moved)
                    await self._compute_chunk(own[middle:], moved)
                    return
                # One subject that cannot be computed must not keep the others waiting; it shows until it can.
                log.error("slot %d: the documents of one subject cannot be computed: %s", self._slot, error)
                self._failed[own[0]] = str(error)
                return
            for subject in own:
                self._failed.pop(subject, None)
            while data and not await self._append(data):
                await asyncio.sleep(RETRY_SECONDS)
                if not all(map(self._is_own, own)):
                    break
            else:
                if data:
                    documents = decode(data)
                    self._documents += documents.num_rows
                    self._measures.computed(documents)
                return

    async def _retried(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """What a task answers, called again for as long as Redis is away, the index behind or a worker lost."""
        while True:
            try:
                return await call()
            except (IndexBehind, *UNAVAILABLE, ray.exceptions.WorkerCrashedError) as error:
                log.info("slot %d: documents wait: %s", self._slot, type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
