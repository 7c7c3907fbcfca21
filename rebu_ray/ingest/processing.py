"""What an owner does about documents: who is touched by what came in, until their documents are journalled.

What is still to be done is derived from positions: rows after a partition's cursor. The cursor is saved when
everything up to it is done, also at the shards that own others whom the rows touched. So a crash at any moment
costs a repetition, and a repetition changes nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import ray

from rebu_ray.ingest.routing import Routing
from rebu_ray.process.dirty import Touched, touched
from rebu_ray.process.load import IndexBehind
from rebu_ray.process.tasks import recompute_task, subjects_task
from rebu_ray.store.cursor import Cursors
from rebu_ray.store.index import UNAVAILABLE
from rebu_ray.store.rows import decode, partition_of

log = logging.getLogger("rebu.processing")

ROUND_SUBJECTS: Final = 400
"""The most subjects that one task computes."""
TASKS_AT_ONCE: Final = 2
PAUSE_SECONDS: Final = 0.02
"""How long a round waits for more of the same before it begins."""
RETRY_SECONDS: Final = 0.5
SAVE_SECONDS: Final = 1.0
FAILED_SECONDS: Final = 300

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
        lambda subjects: recompute_task.remote(redis_url, partitions, subjects),
        lambda found: subjects_task.remote(redis_url, partitions, found),
    )


class _Round:
    """Rows that were looked at together, up to `positions`, while what they touch is not done."""

    def __init__(self, positions: dict[int, int]) -> None:
        self.positions = positions
        self.left = 1
        """Shards that still have something to do, this one included."""


class _Cursor(msgspec.Struct):
    """What is saved."""

    done: dict[int, int] = msgspec.field(default_factory=dict)
    """By partition, the sequence number up to which everything is done."""
    failed: list[str] = msgspec.field(default_factory=list)
    """Subjects that could not be computed: they are tried again now and then, and after a start."""


class Processing:
    """The documents of one slot's partitions, on the event loop of its owner."""

    def __init__(self, slot: int, routing: Routing, tasks: Tasks, cursors: Cursors, append: Append, ask: Ask) -> None:
        self._slot = slot
        self._routing = routing
        self._tasks = tasks
        self._cursors = cursors
        self._append = append
        self._ask = ask
        self._wake = asyncio.Event()
        self._touched = Touched()
        self._asked: dict[str, list[asyncio.Future[None]]] = {}
        """Subjects that other shards asked for, and who waits for each."""
        self._rounds: list[_Round] = []
        self._foreign: set[asyncio.Task[None]] = set()
        saved = cursors.load(self._cursor)
        known = msgspec.json.decode(saved, type=_Cursor) if saved else _Cursor()
        self._done = {partition: known.done.get(partition, 0) for partition in routing.owned_by(slot)}
        """How far everything that rows touch is done."""
        self._seen = dict(self._done)
        """How far rows were looked at."""
        self._failed = dict.fromkeys(known.failed, "not tried since the last start")
        self._saved = _Cursor(dict(self._done), sorted(self._failed))
        self._try_failed()
        self._documents = 0

    @property
    def _cursor(self) -> str:
        return f"processed-{self._slot:03d}"

    def unseen(self, ends: dict[int, int]) -> dict[int, int]:
        """Where to go on looking at rows, of the partitions that are longer than what was looked at."""
        return {partition: self._seen[partition] for partition, end in ends.items() if end > self._seen[partition]}

    def observe(self, rows: pa.RecordBatch, positions: dict[int, int]) -> None:
        """Take note of rows that are in the index now, up to `positions`."""
        self.note(touched(rows), positions)

    def note(self, found: Touched, positions: dict[int, int]) -> None:
        """Take note of what rows up to `positions` touched."""
        for partition, seq in positions.items():
            self._seen[partition] = max(seq, self._seen[partition])
        if found:
            self._touched.add(found)
            self._wake.set()
        elif not self._touched and not self._rounds:
            self._done |= self._seen

    async def ask(self, subjects: Sequence[str]) -> None:
        """Compute the documents of own subjects anew; returns when they are durable."""
        waiting = []
        for subject in subjects:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._asked.setdefault(subject, []).append(future)
            waiting.append(future)
        self._wake.set()
        await asyncio.gather(*waiting)

    def status(self) -> dict[str, Any]:
        """Of the shard's state, what concerns documents."""
        return {
            "documents": self._documents,
            "unprocessed_rows": sum(seq - self._done[partition] for partition, seq in self._seen.items()),
            "uncomputed_subjects": len(self._failed),
        }

    async def run(self) -> None:
        """Round after round, for ever."""
        # A worker that has everything loaded by the time that the first rows come.
        await self._retried(lambda: self._tasks.compute([]))
        while True:
            await self._wake.wait()
            await asyncio.sleep(PAUSE_SECONDS)
            self._wake.clear()
            found, self._touched = self._touched, Touched()
            asked, self._asked = self._asked, {}
            current = _Round(dict(self._seen))
            self._rounds.append(current)
            own = await self._begin(found, current)
            await self._compute(sorted(own | asked.keys()))
            for futures in asked.values():
                for future in futures:
                    if not future.done():
                        future.set_result(None)
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
        now = _Cursor(dict(self._done), sorted(self._failed))
        if now != self._saved:
            try:
                await asyncio.to_thread(self._cursors.save, self._cursor, msgspec.json.encode(now))
            except OSError as error:
                log.warning("slot %d: the cursor of documents is not saved: %s", self._slot, error)
                return
            self._saved = now

    def _try_failed(self) -> None:
        if self._failed:
            self._touched.subjects |= self._failed.keys()
            self._wake.set()

    async def _begin(self, found: Touched, current: _Round) -> set[str]:
        """The own subjects among those touched; the others are asked for where they are owned."""
        subjects: set[str] = set(found.subjects)
        if found.indirect:
            subjects = await self._retried(lambda: self._tasks.find(found))
        by_slot: dict[int, list[str]] = {}
        for subject in sorted(subjects):
            owner = self._routing.owners[partition_of(subject, self._routing.partitions)]
            by_slot.setdefault(owner, []).append(subject)
        own = set(by_slot.pop(self._slot, ()))
        for slot, theirs in by_slot.items():
            current.left += 1
            task = asyncio.create_task(self._elsewhere(slot, theirs, current))
            self._foreign.add(task)
            task.add_done_callback(self._foreign.discard)
        return own

    async def _elsewhere(self, slot: int, subjects: list[str], current: _Round) -> None:
        while not await self._ask(slot, subjects):
            await asyncio.sleep(RETRY_SECONDS)
        self._end(current)

    def _end(self, current: _Round) -> None:
        current.left -= 1
        while self._rounds and not self._rounds[0].left:
            self._done |= self._rounds.pop(0).positions
        if not self._rounds and not self._touched:
            self._done |= self._seen

    async def _compute(self, subjects: list[str]) -> None:
        chunks = [subjects[i : i + ROUND_SUBJECTS] for i in range(0, len(subjects), ROUND_SUBJECTS)]
        limit = asyncio.Semaphore(TASKS_AT_ONCE)

        async def one(chunk: list[str]) -> None:
            async with limit:
                await self._compute_chunk(chunk)

        await asyncio.gather(*map(one, chunks))

    async def _compute_chunk(self, subjects: list[str]) -> None:
        try:
            data: bytes = await self._retried(lambda: self._tasks.compute(subjects))
        except ray.exceptions.RayTaskError as error:
            if len(subjects) > 1:
                middle = len(subjects) // 2
                await self._compute_chunk(subjects[:middle])
                await self._compute_chunk(subjects[middle:])
                return
            # One subject that cannot be computed must not keep the others waiting; it shows until it can.
            log.error("slot %d: the documents of one subject cannot be computed: %s", self._slot, error)
            self._failed[subjects[0]] = str(error)
            return
        for subject in subjects:
            self._failed.pop(subject, None)
        if data:
            while not await self._append(data):
                await asyncio.sleep(RETRY_SECONDS)
            self._documents += decode(data).num_rows

    async def _retried(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """What a task answers, called again for as long as Redis is away, the index behind or a worker lost."""
        while True:
            try:
                return await call()
            except (IndexBehind, *UNAVAILABLE, ray.exceptions.WorkerCrashedError) as error:
                log.info("slot %d: documents wait: %s", self._slot, type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
