"""From parsed records to shards and back to a receipt: the ingest replica's part of a write.

Rows wait in a lane per shard. A lane has one call under way at a time, two where there is much to carry; what
comes in meanwhile goes with the next one, so that a call carries a batch however small the requests are.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from rebu_ray.ingest.admission import overloaded
from rebu_ray.ingest.answer import Appended
from rebu_ray.ingest.dialects import json_text
from rebu_ray.ingest.dialects.fields import RefusedError
from rebu_ray.ingest.dialects.ordinary import Ordinary
from rebu_ray.ingest.identity import route
from rebu_ray.ingest.position import Position
from rebu_ray.ingest.routing import Routing
from rebu_ray.logs import about, origins
from rebu_ray.records import BadRequest, Kind, Parsed, Record, Refusal, Source, derived_id
from rebu_ray.store.rows import Columns, Routed, columns, encode, joined, partition_of

CALLS_UNDER_WAY: Final = 2
FURTHER_CALL_ROWS: Final = 200
"""How many rows have to wait for a second call while one is under way: a call and its fsync have their price."""
FURTHER_CALL_SHARE: Final = 0.5
"""And how many of those that are under way: then the two stay about as large as each other."""
CALL_ROWS: Final = 10_000
"""The most rows of one call, so that a large request does not hold a shard for long."""
MOVE_SECONDS: Final = 0.05
"""How long a write waits before it asks anew where its partition is."""
ON_LOOP_RECORDS: Final = 5_000
"""Requests of more records are worked on in a thread, except for what has to wait."""
PATIENCE_SECONDS: Final = 20.0
"""How long a write waits for a shard that is being restarted."""


class ShardGone(Exception):
    """A call did not reach its shard, or the shard died under it; sending again is safe."""


Call = Callable[[int, bytes], Awaitable[Appended]]
"""(slot, encoded batch) -> the shard's answer. Raises ShardGone."""


class Receipt(NamedTuple):
    """What a write answers."""

    accepted: int
    duplicate: int
    rejected: int
    position: Position
    results: list[dict[str, str]]
    suppressed: int = 0
    """Of somebody who was erased: looked at, and not kept."""

    def body(self) -> bytes:
        """The JSON of the answer; it speaks of suppressed records only where there are any."""
        counts = {"accepted": self.accepted, "duplicate": self.duplicate, "rejected": self.rejected}
        if self.suppressed:
            counts["suppressed"] = self.suppressed
        return msgspec.json.encode(
            {"success": True, **counts, "position": self.position.encode(), "results": self.results}
        )


class _Parcel(NamedTuple):
    rows: Columns
    answer: asyncio.Future[Appended]
    origins: tuple[str, ...]


class Lane:
    """The way to one shard."""

    def __init__(self, slot: int, call: Call) -> None:
        self._slot = slot
        self._call = call
        self._waiting: list[_Parcel] = []
        self._waiting_rows = 0
        self._under_way: dict[asyncio.Task[None], int] = {}
        """The calls, and how many rows each has."""

    async def send(self, rows: Columns) -> Appended:
        """Have rows appended; the answer is about these rows alone."""
        parcel = _Parcel(rows, asyncio.get_running_loop().create_future(), origins())
        self._waiting.append(parcel)
        self._waiting_rows += rows.height
        self._start()
        return await parcel.answer

    def _start(self) -> None:
        while self._waiting and (not self._under_way or self._worth_a_further_call()):
            parcels = [self._waiting.pop(0)]
            size = parcels[0].rows.height
            while self._waiting and size + self._waiting[0].rows.height <= CALL_ROWS:
                parcels.append(self._waiting.pop(0))
                size += parcels[-1].rows.height
            self._waiting_rows -= size
            task = asyncio.create_task(self._carry(parcels))
            self._under_way[task] = size
            task.add_done_callback(self._arrived)

    def _worth_a_further_call(self) -> bool:
        if len(self._under_way) >= CALLS_UNDER_WAY:
            return False
        return self._waiting_rows >= max(FURTHER_CALL_ROWS, FURTHER_CALL_SHARE * sum(self._under_way.values()))

    def _arrived(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._start()

    async def _carry(self, parcels: list[_Parcel]) -> None:
        try:
            rows = joined([parcel.rows for parcel in parcels])
            with about(origin for parcel in parcels for origin in parcel.origins):
                answer = await self._call(self._slot, encode(rows.batch()))
        except Exception as error:
            for parcel in parcels:
                if not parcel.answer.done():
                    parcel.answer.set_exception(error)
            return
        start = 0
        for parcel in parcels:
            end = start + parcel.rows.height
            if not parcel.answer.done():
                theirs = set(parcel.rows.partition)
                positions = {p: seq for p, seq in (answer.positions or {}).items() if p in theirs}
                parcel.answer.set_result(answer._replace(new=answer.new[start:end], positions=positions))
            start = end


class Intake:
    """Takes parsed requests, one after the other or many at once."""

    def __init__(
        self,
        routing: Callable[[bool], Awaitable[Routing]],
        call: Call,
        note: Callable[[Source, tuple[int, ...], float], None] = lambda source, counts, took: None,
    ) -> None:
        """`note` is told of every request that was answered: see `Verdicts.note`."""
        self._note = note
        self._routing = routing
        self._call = call
        self._lanes: dict[int, Lane] = {}
        self._full_until: dict[int, float] = {}
        self._slots = 0

    @property
    def wait_s(self) -> float:
        """Seconds for which, as far as they said last, no shard takes anything; 0 where one of them does."""
        if not self._slots or len(self._full_until) < self._slots:
            return 0.0
        return max(0.0, min(self._full_until.values()) - time.monotonic())

    async def store(
        self,
        source: Source,
        parsed: Ordinary | Parsed,
        received_at: int,
        producer: str | None = None,
        sequence: int | None = None,
    ) -> Receipt:
        """Make every accepted record durable and every refused one a dead letter.

        `producer` and `sequence` (of the first record) tell one refused line from another with the same words.
        Raises BadRequest 429 or 503 when a shard cannot take them now.
        """
        began = time.perf_counter()
        receipt = await self._store(source, parsed, received_at, producer, sequence)
        counts = (receipt.accepted, receipt.duplicate, receipt.rejected, receipt.suppressed)
        self._note(source, counts, time.perf_counter() - began)
        return receipt

    async def _store(
        self, source: Source, parsed: Ordinary | Parsed, received_at: int, producer: str | None, sequence: int | None
    ) -> Receipt:
        routing = await self._routing(False)
        self._slots = len({*routing.owners})
        partitions = routing.partitions
        if isinstance(parsed, Ordinary):
            new, position = await self._append(parsed.columns(partitions), routing)
            if new.count(1) == len(new):
                return Receipt(len(new), 0, 0, position, [])
            return _receipt(parsed.records(), range(len(new)), new, position)
        how = (source, parsed, received_at, partitions, producer, sequence)
        if len(parsed) > ON_LOOP_RECORDS:
            verdict_rows, rows = await asyncio.to_thread(_rows, *how)
            new, position = await self._append(rows, routing)
            return await asyncio.to_thread(_receipt, parsed, verdict_rows, new, position)
        verdict_rows, rows = _rows(*how)
        new, position = await self._append(rows, routing)
        return _receipt(parsed, verdict_rows, new, position)

    async def verdicts(self, rows: list[Routed]) -> tuple[bytearray, Position]:
        """Store rows that no request brought; of each its verdict (see `Appended.new`), and where they stand."""
        return await self._append(columns(rows), await self._routing(False))

    async def append(self, rows: list[Routed]) -> Position:
        """Store rows that no request brought, such as a link that is taken back; where they stand."""
        return (await self._append(columns(rows), await self._routing(False)))[1]

    async def _append(self, rows: Columns, routing: Routing) -> tuple[bytearray, Position]:
        """For each row whether it is new, and where all stand."""
        new = bytearray(rows.height)
        positions: dict[int, int] = {}
        left: Sequence[int] = range(rows.height)
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        pause = MOVE_SECONDS
        while left:
            by_slot = _by_slot(rows.partition, left, routing)
            parts = [
                (slot, found[at : at + CALL_ROWS])
                for slot, found in by_slot.items()
                for at in range(0, len(found), CALL_ROWS)
            ]
            sends = [self._send(slot, rows.take(found)) for slot, found in parts]
            again: list[int] = []
            problem = Appended("unavailable", detail="a shard is being restarted", retry_after=2.0)
            # A task for each of several, and none for the one that there nearly always is.
            answers = await asyncio.gather(*sends) if len(sends) > 1 else [await sends[0]]
            for (_, found), answer in zip(parts, answers, strict=True):
                if answer.status == "ok":
                    if isinstance(found, range):
                        memoryview(new)[found.start : found.stop] = answer.new
                    else:
                        for i, flag in zip(found, answer.new, strict=True):
                            new[i] = flag
                    for partition, seq in (answer.positions or {}).items():
                        positions[partition] = max(seq, positions.get(partition, 0))
                else:
                    problem = answer
                    again += found
            if problem.status == "overloaded" and len(again) == rows.height:
                raise overloaded(problem.retry_after)
            left = again
            if left:
                # What is stored in part is seen to its end if that can be: 429 says that nothing was stored.
                if asyncio.get_running_loop().time() > deadline or (
                    problem.status == "unavailable" and problem.retry_after > 2
                ):
                    raise BadRequest(503, "unavailable", f"{problem.detail}; send again in a few seconds", 5)
                await asyncio.sleep(pause)
                # What moves to another shard is there in a moment.
                pause = MOVE_SECONDS if problem.status == "not_owner" else min(2 * pause, 1.0)
                routing = await self._routing(True)
        return new, Position(positions)

    async def _send(self, slot: int, rows: Columns) -> Appended:
        lane = self._lanes.get(slot)
        if lane is None:
            lane = self._lanes[slot] = Lane(slot, self._call)
        try:
            answer = await lane.send(rows)
        except ShardGone as error:
            answer = Appended("gone", detail=str(error))
        if answer.status == "overloaded":
            self._full_until[slot] = time.monotonic() + answer.retry_after
        else:
            self._full_until.pop(slot, None)
        return answer


def _rows(
    source: Source, parsed: Parsed, received_at: int, partitions: int, producer: str | None, sequence: int | None
) -> tuple[list[int], Columns]:
    """What is to be stored of a request, and for each of its records the row that its verdict is about."""
    rows: list[Routed] = []
    verdict_rows: list[int] = []
    for ordinal, entry in enumerate(parsed):
        verdict_rows.append(len(rows))
        if isinstance(entry, Refusal):
            rows.append(dead_letter(source, entry, ordinal, received_at, partitions, producer, sequence))
        else:
            rows += route(entry, partitions)
    return verdict_rows, columns(rows)


def _by_slot(partitions: Sequence[int], chosen: Sequence[int], routing: Routing) -> dict[int, Sequence[int]]:
    """Which of the chosen rows go to which slot."""
    if routing.slots == 1:
        return {0: chosen}
    found: dict[int, list[int]] = {}
    for i in chosen:
        found.setdefault(routing.owners[partitions[i]], []).append(i)
    return dict(found)


def dead_letter(
    source: Source,
    refusal: Refusal,
    ordinal: int,
    received_at: int,
    partitions: int,
    producer: str | None = None,
    sequence: int | None = None,
) -> Routed:
    """A refused record as it is kept: whole, with its reason, under its source."""
    key = f"d:{source}"
    number = None if sequence is None else sequence + ordinal
    record = Record(
        kind=Kind.DEAD_LETTER,
        id=derived_id(source, refusal.raw, ordinal, producer, number),
        name=refusal.reason,
        source=source,
        event_time=received_at,
        received_at=received_at,
        body=_as_json(refusal.raw),
    )
    return Routed(partition_of(key, partitions), key, record)


def _as_json(raw: bytes) -> bytes:
    """Any bytes as a JSON value that every reader takes: themselves where they are one, else a string, else base64."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return msgspec.json.encode({"base64": base64.b64encode(raw).decode()})
    try:
        json_text.loads(raw)
    except RefusedError:
        return msgspec.json.encode(text)
    return raw


def _receipt(parsed: Parsed, verdict_rows: Sequence[int], new: bytearray, position: Position) -> Receipt:
    results: list[dict[str, str]] = []
    accepted = duplicate = rejected = suppressed = 0
    for entry, row in zip(parsed, verdict_rows, strict=True):
        if new[row] == 2:
            suppressed += 1
            reason = "erased: the person whom this is about was erased, and nothing about them is kept any more"
            results.append({"id": entry.id or "", "status": "suppressed", "reason": reason})
        elif isinstance(entry, Refusal):
            rejected += 1
            results.append({"id": entry.id or "", "status": "rejected", "reason": entry.reason})
        elif new[row]:
            accepted += 1
        else:
            duplicate += 1
            results.append({"id": entry.id, "status": "duplicate", "reason": "duplicate: this id is stored already"})
    return Receipt(accepted, duplicate, rejected, position, results, suppressed)
