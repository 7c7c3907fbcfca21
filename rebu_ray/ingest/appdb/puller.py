"""The puller: hands every version of every row to the shards, and says which rows are gone.

A round asks whether anything changed, reads what is new of each table, and does a share of what takes longer.
Rows count as read when the shards have made them durable; only then the cursor moves. After a crash a few rows
are read again, under the same ids.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

from rebu_ray.ingest.appdb.database import Away, Database, Mark, Position, Shape, Unreadable, position, version_order
from rebu_ray.ingest.appdb.table import Batch, Pace, Reading, Sweep
from rebu_ray.ingest.dialects import times
from rebu_ray.ingest.dialects.tables import Row
from rebu_ray.records import TABLES, BadRequest, Parsed, Source
from rebu_ray.store.cursor import Cursors

log = logging.getLogger("rebu.appdb")

CHUNK_ROWS: Final = 2_000
ROUND_CHUNKS: Final = 5
"""How many chunks of a first load or a sweep fit between two looks at what is new."""
LOOK_SECONDS: Final = 30.0
"""How often the tables' columns are looked at, where the database does not tell of a change,"""
MISSING_SECONDS: Final = 5.0
"""and how often where a table is missing or cannot be read."""
MAX_PAUSE_SECONDS: Final = 30.0
_FAR: Final = 1_000_000_000
"""Transactions, after which PostgreSQL's ages mean nothing."""

Append = Callable[[Source, Parsed, int], Awaitable[object]]
"""Have rows of a table, received at a time in ms, made durable. Raises BadRequest where that must be tried again."""
Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


class Puller:
    """All tables of one application database. Its database calls and its ledger have a thread of their own."""

    def __init__(
        self,
        url: str,
        cursors: Cursors,
        append: Append,
        *,
        poll_seconds: float = 0.25,
        overlap_seconds: float = 5.0,
        pace: Pace = Pace(),  # noqa: B008
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        """Raises SettingsError for a URL that cannot be used. Connects later."""
        self._database = Database(url)
        self._cursors = cursors
        self._append = append
        self._poll_seconds = poll_seconds
        self._overlap_ms = round(overlap_seconds * 1000)
        self._pace = pace
        self._chunk_rows = chunk_rows
        self._thread = ThreadPoolExecutor(1, "appdb")
        self._tables: dict[Source, Reading] = {}
        self._look_at = 0.0
        self._schema = ""
        self._connected = False
        self._detail = "not connected yet"
        self._round_at: float | None = None
        self._whole_at = -1.0
        """When the last round began, where it left nothing to be read at once."""

    async def run(self) -> None:
        """Pull for ever; ends when it is cancelled."""
        pause = 1.0
        while True:
            try:
                if not await self.pull():
                    await self._ask(self._database.wait, self._poll_seconds)
                pause = 1.0
            except (Away, OSError) as error:
                if pause == 1.0:
                    log.warning("the application database is away: %s", error)
                self._connected, self._detail = False, str(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_SECONDS)

    async def pull(self) -> bool:
        """One round; whether more waits to be read at once. Raises Away, or OSError where the cursor cannot be kept."""
        begun = time.monotonic()
        if not self._tables:
            self._tables = {source: await self._ask(self._open, source) for source in TABLES}
        try:
            mark = await self._ask(self._database.mark)
            if not self._connected or mark.schema != self._schema or time.monotonic() >= self._look_at:
                await self._look()
                self._schema = mark.schema
            more = False
            for table in self._tables.values():
                if table.shape is not None:
                    try:
                        more |= await self._read(table, table.shape, mark)
                    except Unreadable as error:
                        self._give_up(table, str(error))
        except Away as away:
            self._connected, self._detail = False, str(away)
            raise
        if not self._connected:
            log.info("the application database is connected")
        self._connected, self._detail, self._round_at = True, "", time.monotonic()
        self._whole_at = -1.0 if more else begun
        return more

    def has_rested(self, since: float) -> bool:
        """Whether everything has been handed on that was in the database at a time (monotonic), as far as is known.

        Tables that go on changing are looked at again; what is asked for is that they were, after that time.
        """
        now = time.monotonic()
        return self._whole_at >= since and all(table.has_rested(since, now) for table in self._tables.values())

    def status(self) -> dict[str, Any]:
        """The state, as JSON can say it."""
        return {
            "connected": self._connected,
            "detail": self._detail,
            "lag_s": None if self._round_at is None else round(time.monotonic() - self._round_at, 3),
            "tables": {str(source): _state(table) for source, table in self._tables.items()},
        }

    async def close(self) -> None:
        """Let go of the database."""
        await self._ask(self._database.close)
        self._thread.shutdown()

    # -- one table ------------------------------------------------------------------------------------------------

    async def _read(self, table: Reading, shape: Shape, mark: Mark) -> bool:
        if table.saved.done is not None and mark.next is not None and not -1 < mark.next - table.saved.done < _FAR:
            # A restored database counts its transactions anew.
            table.saved.done = None
            table.sweep.hurry()
        if table.saved.done is None:
            table.saved.done = mark.oldest
        if not table.saved.loaded:
            return await self._load(table, shape)
        if table.mark != mark.text:
            if shape.version is not None:
                await self._newer(table, shape)
            table.mark = mark.text
            for schedule in (table.late, table.count, table.sweep):
                schedule.wanted = True
        if shape.has_xmin and table.late.due(time.monotonic()):
            await self._late(table, shape, mark)
        if table.sweeping is None and table.count.due(time.monotonic()):
            await self._count(table, shape)
        if table.sweeping is None and table.sweep.due(time.monotonic()):
            table.sweeping = Sweep()
            table.sweep.begun()
            await self._send(table, await self._ask(self._database.nameless, shape, self._chunk_rows))
        return table.sweeping is not None and await self._sweep(table, table.sweeping, shape)

    async def _load(self, table: Reading, shape: Shape) -> bool:
        """The first load goes on for a few chunks. A table without versions is loaded by the sweep that follows."""
        saved = table.saved
        if not table.total:
            table.total = await self._ask(self._database.count, shape)
        for _ in range(ROUND_CHUNKS):
            rows: list[Row] = []
            place = saved.place
            if shape.version is not None:
                after = None if saved.place is None else tuple(saved.place)
                rows = await self._ask(self._database.by_version, shape, after, None, self._chunk_rows)
                if rows:
                    place = list(position(version_order(shape), rows[-1]))
            ended = len(rows) < self._chunk_rows
            batch = await self._ask(table.novel, rows, _now())
            await self._deliver(table, batch, None if ended else place, ended)
            if ended:
                break
        return True

    async def _newer(self, table: Reading, shape: Shape) -> None:
        floor = None if table.saved.watermark is None else table.saved.watermark - self._overlap_ms
        after: Position | None = None
        while True:
            rows = await self._ask(self._database.by_version, shape, after, floor, self._chunk_rows)
            await self._send(table, rows)
            if len(rows) < self._chunk_rows:
                return
            after = position(version_order(shape), rows[-1])

    async def _late(self, table: Reading, shape: Shape, mark: Mark) -> None:
        table.late.begun()
        begun = time.monotonic()
        after: Position | None = None
        while table.saved.done is not None:
            rows = await self._ask(self._database.written_since, shape, table.saved.done, after, self._chunk_rows)
            await self._send(table, rows)
            if len(rows) < self._chunk_rows:
                break
            after = position(shape.keys, rows[-1])
        table.saved.done = mark.oldest
        table.late.ended(time.monotonic(), time.monotonic() - begun)

    async def _count(self, table: Reading, shape: Shape) -> None:
        """As many rows as are known? If not, something is gone, or was missed."""
        table.count.begun()
        begun = time.monotonic()
        rows = await self._ask(self._database.count, shape)
        now = time.monotonic()
        table.count.ended(now, now - begun)
        if rows != table.ledger.live:
            table.sweep.hurry()

    async def _sweep(self, table: Reading, sweep: Sweep, shape: Shape) -> bool:
        """A sweep goes on for a few chunks; whether it has to go on after that."""
        begun = time.monotonic()
        ended = False
        whole = shape.version is None
        for _ in range(ROUND_CHUNKS):
            rows = await self._ask(self._database.by_key, shape, sweep.place, self._chunk_rows, whole)
            if not whole and rows:
                differing = await self._ask(table.differing, rows)
                for at in range(0, len(differing), 500):
                    await self._send(table, await self._ask(self._database.named, shape, differing[at : at + 500]))
            else:
                await self._send(table, rows)
            ended = len(rows) < self._chunk_rows
            if ended:
                break
            sweep.place = position(shape.keys, rows[-1])
        if ended:
            lost = await self._ask(table.lost, _now())
            if lost.known:
                await self._deliver(table, lost, None, True)
            table.sweeping = None
        sweep.cost += time.monotonic() - begun
        if ended:
            table.sweep.ended(time.monotonic(), sweep.cost)
        return not ended

    # -- what it does it with ----------------------------------------------------------------------------------

    async def _send(self, table: Reading, rows: Sequence[Row]) -> None:
        """Hand on what is new among these rows."""
        if rows:
            batch = await self._ask(table.novel, rows, _now())
            if batch.known:
                await self._deliver(table, batch, None, True)

    async def _deliver(self, table: Reading, batch: Batch, place: list[Any] | None, loaded: bool) -> None:
        """Hand on a batch and, when it is durable, say in the cursor how far that is."""
        for at in range(0, len(batch.parsed), self._chunk_rows):
            await self._appended(table.source, batch.parsed[at : at + self._chunk_rows])
        await self._ask(table.handed_on, batch)
        table.saved.place, table.saved.loaded = place, loaded
        await self._ask(table.save)

    async def _appended(self, source: Source, parsed: Parsed) -> None:
        received_at = _now()
        while True:
            try:
                await self._append(source, parsed, received_at)
            except BadRequest as refusal:
                self._detail = f"waiting for the shards: {refusal.message}"
                await asyncio.sleep(min(refusal.retry_after or 1, 5))
            else:
                return

    async def _look(self) -> None:
        """At what tables there are, and of what shape."""
        shapes = await self._ask(self._database.shapes)
        for source, table in self._tables.items():
            table.shape = shapes.get(source)
            table.trouble = "" if table.shape else "it is not there"
            factor = self._pace.telling_factor if table.shape is not None and table.shape.has_xmin else 1
            table.sweep.least_seconds = self._pace.sweep_seconds * factor
        whole = all(table.shape is not None for table in self._tables.values())
        self._look_at = time.monotonic() + (LOOK_SECONDS if whole else MISSING_SECONDS)

    def _give_up(self, table: Reading, reason: str) -> None:
        """Until the next look at the tables."""
        if table.trouble != reason:
            log.warning("%s of the application database cannot be read: %s", table.source, reason)
        table.shape, table.trouble, table.sweeping = None, reason, None
        table.sweep.wanted = True
        self._look_at = min(self._look_at, time.monotonic() + MISSING_SECONDS)

    def _open(self, source: Source) -> Reading:
        return Reading(source, self._cursors, self._pace)

    async def _ask(self, ask: Callable[Asked, Answer], *arguments: Asked.args, **options: Asked.kwargs) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: ask(*arguments, **options))


def _state(table: Reading) -> dict[str, Any]:
    saved = table.saved
    state = "missing" if table.shape is None else "following" if saved.loaded else "loading"
    return {
        "state": state,
        "detail": table.trouble if table.shape is None else "",
        "rows": table.ledger.live,
        "to_load": None if saved.loaded else table.total,
        "watermark": None if saved.watermark is None else times.text(saved.watermark),
        "sent": saved.sent,
        "refused": saved.refused,
    }


def _now() -> int:
    return time.time_ns() // 1_000_000
