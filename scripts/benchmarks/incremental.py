"""What does one new ride cost, from its row to its document in the index, among many rides and among few?

Both sides hold the same kind of rides, ten a rider, in a Redis of their own; the same new rides of the same riders
are taken in by each in turn: row indexed, whom it touches, their documents computed, the changed ones indexed.
Journal, Ray and HTTP are left out: they do not know how many rides there are.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from report import Report, arguments, progress

from rebu_ray.ingest.dialects import tables
from rebu_ray.ingest.identity import route
from rebu_ray.platform.local_ray import free_port
from rebu_ray.platform.redis_server import RedisServer
from rebu_ray.process.dirty import touched
from rebu_ray.process.load import subjects_of
from rebu_ray.process.tasks import recompute
from rebu_ray.records import Record, Source
from rebu_ray.store import facts
from rebu_ray.store.facts import Keys
from rebu_ray.store.index import Index, commands
from rebu_ray.store.member import Codec
from rebu_ray.store.rows import Routed, decode, to_batch, with_seq

PARTITIONS = 16
A_RIDER = 10
NOW = 1_790_000_000_000
CHUNK = 20_000


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--many", type=int, default=1_000_000, help="rides on the one side (1000000)")
    parser.add_argument("--few", type=int, default=10_000, help="rides on the other (10000)")
    parser.add_argument("--new", type=int, default=200, help="new rides a round (200)")


def ride(number: int, rider: int, requested_at: int) -> list[Routed]:
    """A ride that went well, as the application database tells of it."""
    draw = random.Random(number)
    lat, lon = draw.uniform(52.4, 52.6), draw.uniform(13.2, 13.5)
    to = lat + draw.uniform(-0.05, 0.05), lon + draw.uniform(-0.05, 0.05)
    row: dict[str, Any] = {
        "ride_id": f"ride-{number:08d}",
        "user_id": f"rider-{rider:07d}",
        "driver_id": f"driver-{number % 5000:05d}",
        "city": "Berlin",
        "status": "completed",
        "requested_at": _text(requested_at),
        "accepted_at": _text(requested_at + 20_000),
        "picked_up_at": _text(requested_at + 240_000),
        "ended_at": _text(requested_at + 1_200_000),
        "pickup_lat": lat,
        "pickup_lon": lon,
        "destination_lat": to[0],
        "destination_lon": to[1],
        "dropoff_lat": to[0],
        "dropoff_lon": to[1],
        "distance_m": 5200,
        "fare_cents": draw.randrange(500, 4000),
        "currency": "EUR",
        "rating": 5,
        "updated_at": _text(requested_at + 1_200_000),
    }
    record = tables.row(Source.RIDES, row, NOW)
    assert isinstance(record, Record), record
    return route(record, PARTITIONS)


class Side:
    """A Redis with so many rides in it."""

    def __init__(self, server: RedisServer, rides: int) -> None:
        self._index = Index(server.url)
        self._codec = Codec()
        self._seq = 0
        self.riders = rides // A_RIDER
        self._index.set_positions(dict.fromkeys(range(PARTITIONS), 0))
        for start in range(0, rides, CHUNK):
            numbers = range(start, min(start + CHUNK, rides))
            # All rides of a rider in one chunk: their documents are computed once.
            rows = [r for n in numbers for r in ride(n, n // A_RIDER, NOW - (n % A_RIDER + 1) * 86_400_000)]
            self._send(with_seq(to_batch(rows), self._seqs(len(rows))))
            riders = sorted({row.key for row in rows})
            for at in range(0, len(riders), 500):
                self._compute(riders[at : at + 500])
            progress(f"{numbers.stop:,} of {rides:,} rides")
        self.bytes_each = self._index.redis.info("memory")["used_memory"] / rides

    def take_in(self, number: int, rider: int) -> float:
        """Milliseconds that one new ride takes."""
        rows = ride(number, rider, NOW)
        batch = to_batch(rows)
        began = time.perf_counter()
        indexed = with_seq(batch, self._seqs(len(rows)))
        self._send(indexed)
        self._compute(sorted(subjects_of(self._index.redis, Keys(PARTITIONS), touched(indexed))))
        return (time.perf_counter() - began) * 1000

    def _compute(self, subjects: list[str]) -> None:
        data = recompute(self._index.redis, PARTITIONS, subjects)
        documents = decode(data)
        self._send(with_seq(documents, self._seqs(documents.num_rows)))

    def _send(self, rows: pa.RecordBatch) -> None:
        self._index.send(commands(rows, PARTITIONS, self._codec))
        self._index.send(facts.commands(rows, PARTITIONS, self._codec))

    def _seqs(self, count: int) -> pa.Array:
        self._seq += count
        return pa.array(range(self._seq - count + 1, self._seq + 1), pa.int64())


@contextlib.contextmanager
def side(rides: int) -> Iterator[Side]:
    with tempfile.TemporaryDirectory(prefix="rebu-incremental-") as folder:
        server = RedisServer(str(Path(folder)), free_port())
        server.start()
        try:
            yield Side(server, rides)
        finally:
            server.stop()


def main() -> int:
    given = arguments(__doc__, options)
    with side(given.few) as few, side(given.many) as many:
        report = Report("One new ride", f"among {given.many:,} rides", f"among {given.few:,} rides")
        ours: list[float] = []
        theirs: list[float] = []
        for turn in range(given.rounds):
            draw = random.Random(turn)
            for found, chosen in ((ours, many), (theirs, few)):
                riders = [draw.randrange(chosen.riders) for _ in range(given.new)]
                first = 50_000_000 + turn * given.new
                found.append(statistics.median(chosen.take_in(first + n, rider) for n, rider in enumerate(riders)))
        report.add("row to document", "ms", ours, theirs)
        report.add("Redis memory of a ride", "bytes", [many.bytes_each], [few.bytes_each])
    report.finish(given.json)
    return 0


def _text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


if __name__ == "__main__":
    sys.exit(main())
