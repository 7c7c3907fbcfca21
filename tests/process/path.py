"""The way of rows to documents without Ray: an index on a real Valkey and shards that take turns.

A record is a real one, as its dialect makes it. `Path` does what the owners do: it journals and indexes rows, notes
whom they touch, computes and appends; a test says when. So what one shard has computed can be overtaken by another.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path as Folder
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.ingest.dialects import tables
from rebu_ray.process.dirty import Touched, touched, withdrawn
from rebu_ray.process.load import subjects_of
from rebu_ray.process.tasks import recompute
from rebu_ray.records import Kind, Record, Source
from rebu_ray.store import facts
from rebu_ray.store.index import Index, commands, position_commands
from rebu_ray.store.lake import Lake
from rebu_ray.store.member import Codec
from rebu_ray.store.ride_table import RIDES, split, to_rides
from rebu_ray.store.rows import ROWS, WIRE, decode, partition_of, to_batch, with_seq
from tests.conftest import Valkey
from tests.records import NOW, routed

P = 4
SHARDS = 2
KEYS = facts.Keys(P)
Document = dict[str, Any]


def row(source: Source, values: dict[str, Any], received_at: int = NOW) -> Record:
    """A row of the application database, times in ms."""
    found = tables.row(source, values, received_at)
    assert isinstance(found, Record), found
    return found


def ride(ride_id: str = "r1", user_id: str | None = "ada", *, received_at: int = NOW, **columns: Any) -> Record:
    """A ride from Riga's castle that took eleven minutes, but for the columns given."""
    values = {
        "ride_id": ride_id,
        "user_id": user_id,
        "driver_id": "dan",
        "city": "Riga",
        "status": "completed",
        "requested_at": NOW,
        "accepted_at": NOW + 10_000,
        "picked_up_at": NOW + 60_000,
        "ended_at": NOW + 660_000,
        "pickup_lat": 56.95,
        "pickup_lon": 24.1,
        "destination_lat": 57.0,
        "destination_lon": 24.1,
        "dropoff_lat": 57.0,
        "dropoff_lon": 24.1,
        "distance_m": 7000,
        "fare_cents": 1250,
        "currency": "EUR",
        "rating": 5,
        "updated_at": NOW + 700_000,
    }
    return row(Source.RIDES, values | columns, received_at)


def message(message_id: str = "m1", user_id: str | None = "ada", *, received_at: int = NOW, **columns: Any) -> Record:
    """A message sent five minutes after that ride, which says nothing of it."""
    values = {
        "message_id": message_id,
        "user_id": user_id,
        "channel": "email",
        "direction": "inbound",
        "sent_at": NOW + 960_000,
        "subject": "Hello",
        "body": "I have a question.",
        "ride_id": None,
        "thread_id": None,
        "updated_at": NOW + 960_000,
    }
    return row(Source.MESSAGES, values | columns, received_at)


def deleted(source: Source, name: str, user_id: str | None = None, at: int = NOW + 5_000_000) -> Record:
    """The deletion of a row; who pushes it need not know whose it was."""
    found = tables.deletion(source, name, user_id, at, at)
    assert isinstance(found, Record), found
    return found


def user(user_id: str = "ada", name: str = "Ada", updated_at: int = NOW, received_at: int = NOW) -> Record:
    values = {"user_id": user_id, "name": name, "email": None, "phone": None, "updated_at": updated_at}
    return row(Source.USERS, values, received_at)


def driver(driver_id: str = "dan", name: str = "Dan", updated_at: int = NOW, received_at: int = NOW) -> Record:
    values = {"driver_id": driver_id, "name": name, "vehicle_plate": "AB 123", "vehicle_model": "Dacia"}
    return row(Source.DRIVERS, values | {"rating": 4.5, "updated_at": updated_at}, received_at)


def destination(ride_id: str, changed_at: int, lat: float, received_at: int = NOW) -> Record:
    values = {"ride_id": ride_id, "changed_at": changed_at, "destination_lat": lat, "destination_lon": 24.1}
    return row(Source.RIDE_DESTINATIONS, values, received_at)


class Path:
    """All shards, the index and the journal of a small platform."""

    def __init__(self, valkey: Valkey) -> None:
        valkey.flush()
        self.index = Index(valkey.url)
        self.index.set_positions(dict.fromkeys(range(P), 0))
        self._codec = Codec()
        self._last = dict.fromkeys(range(P), 0)
        self._seen: set[tuple[str, str]] = set()
        self.batches: list[pa.RecordBatch] = []
        self._touched: defaultdict[int, Touched] = defaultdict(Touched)
        self._computed: dict[int, bytes] = {}
        self.documents = 0

    def close(self) -> None:
        self.index.close()

    # -- what the owners do -----------------------------------------------------------------------------------------

    def put(self, *records: Record) -> None:
        """Journal and index what comes in; whom it touches is computed later."""
        self._append(to_batch(routed(records, P)))

    def begin(self, shard: int) -> None:
        """Have a shard compute the documents of all whom rows touched; it appends them with `end`."""
        if shard in self._computed:
            return
        found = self._touched.pop(shard, Touched())
        own: set[str] = set()
        for subject in subjects_of(self.index.redis, KEYS, found):
            owner = partition_of(subject, P) % SHARDS
            if owner == shard:
                own.add(subject)
            else:
                self._touched[owner].subjects.add(subject)
        if own:
            self._computed[shard] = recompute(self.index.redis, P, sorted(own))

    def end(self, shard: int) -> None:
        """Have it append what it has computed."""
        data = self._computed.pop(shard, b"")
        if data:
            batch = decode(data)
            self.documents += batch.num_rows
            self._append(batch)

    def settle(self) -> None:
        """Go on until nobody has anything to do."""
        while self._computed or any(self._touched.values()):
            for shard in range(SHARDS):
                self.end(shard)
                self.begin(shard)

    def take(self, *records: Record) -> None:
        """Take in records and all that follows from them."""
        self.put(*records)
        self.settle()

    def compute(self, *subjects: str) -> list[Document]:
        """What would be written if the documents of subjects were computed anew; nothing is."""
        data = recompute(self.index.redis, P, subjects)
        return decode(data).to_pylist() if data else []

    def append(self, data: bytes) -> None:
        """Append documents that somebody else computed."""
        self._append(decode(data))

    def damage(self, ride_id: str, gone: bool) -> None:
        """Append a document of a ride that is not what should stand, or that says that it is gone."""
        rows = pa.Table.from_batches(self.batches)
        chosen = pc.and_(pc.equal(rows["kind"], str(Kind.RIDE_DOCUMENT)), pc.equal(rows["name"], ride_id))
        [last] = rows.filter(chosen).slice(0, 1).to_pylist()
        said = {"ride_id": ride_id, "deleted": True} if gone else {**json.loads(last["body"]), "city": "Nowhere"}
        last |= {"id": "damaged", "body": json.dumps({**said, "version": 2}, separators=(",", ":")).encode()}
        self._append(pa.RecordBatch.from_pylist([last], WIRE))

    def rebuild(self, partitions: Iterable[int]) -> None:
        """Empty the index and have each partition's owner fill it again, one after the other, in this order."""
        self.index.redis.flushall()
        for partition in partitions:
            for rows in self.batches:
                theirs = rows.filter(pc.equal(rows["partition"], partition))
                self._index(theirs)
                self._touched[partition % SHARDS].add(withdrawn(theirs))
        self.index.set_positions(self._last)
        self.settle()

    def _append(self, batch: pa.RecordBatch) -> None:
        new: list[bool] = []
        for place in zip(batch["key"].to_pylist(), batch["id"].to_pylist(), strict=True):
            new.append(place not in self._seen)
            self._seen.add(place)
        batch = batch.filter(pa.array(new, pa.bool_()))
        if not batch.num_rows:
            return
        seqs = []
        for partition in batch["partition"].to_pylist():
            self._last[partition] += 1
            seqs.append(self._last[partition])
        rows = with_seq(batch, pa.array(seqs, pa.int64()))
        self.batches.append(rows)
        self._index(rows)
        self.index.send(position_commands(self._last))
        for shard in range(SHARDS):
            theirs = [partition % SHARDS == shard for partition in rows["partition"].to_pylist()]
            self._touched[shard].add(touched(rows.filter(pa.array(theirs))))

    def _index(self, rows: pa.RecordBatch) -> None:
        self.index.send(commands(rows, P, self._codec))
        self.index.send(facts.commands(rows, P, self._codec))

    # -- what comes of it -------------------------------------------------------------------------------------------

    def ride(self, ride_id: str = "r1") -> Document | None:
        return self._document(KEYS.ride_document(ride_id))

    def message(self, message_id: str = "m1") -> Document | None:
        return self._document(KEYS.message_document(message_id))

    def about(self, ride_id: str = "r1") -> dict[str, Document]:
        """The ride's list of messages."""
        found = self.index.redis.hgetall(KEYS.about(ride_id))
        return {name.decode(): json.loads(self._codec.decompress(text)) for name, text in found.items()}

    def rides_of(self, subject: str) -> list[str]:
        return [name.decode() for name in self.index.redis.zrange(KEYS.rides(subject), 0, -1)]

    def messages_of(self, subject: str) -> list[str]:
        return [name.decode() for name in self.index.redis.zrange(KEYS.messages(subject), 0, -1)]

    def served(self) -> dict[str, Any]:
        """All that answers are made of, without what depends on when it was computed."""
        found: dict[str, Any] = {}
        for key in self.index.redis.scan_iter(count=1000):
            letter, name = key.split(b"}", 1)[1][:2].decode(), key.split(b"}", 1)[1].decode()
            if letter == "r:":
                found[name] = self._codec.decompress(self.index.redis.get(key)).split(b',"version":')[0]
            elif letter == "s:":
                found[name] = self._codec.decompress(self.index.redis.get(key)).split(b',"since":')[0]
            elif letter == "a:":
                items = self.index.redis.hgetall(key)
                found[name] = {item: self._codec.decompress(text) for item, text in items.items()}
            elif letter in ("R:", "M:"):
                found[name] = self.index.redis.zrange(key, 0, -1, withscores=True)
        return found

    def lake(self, folder: Folder, files: int = 2) -> Lake:
        """Everything that was journalled, in so many files a partition."""
        lake = Lake(str(folder))
        everything = pa.Table.from_batches(self.batches, ROWS) if self.batches else ROWS.empty_table()
        for partition in range(P):
            rows = everything.filter(pc.equal(everything["partition"], partition)).sort_by("seq")
            size = -(-rows.num_rows // files) or 1
            written, rides = [], []
            for version, at in enumerate(range(0, rows.num_rows, size), start=1):
                others, documents = split(rows.slice(at, size))
                if others.num_rows:
                    written.append(lake.write(partition, others, version))
                if documents.num_rows:
                    table = to_rides(documents, lambda found: pa.array([True] * found.num_rows)).cast(RIDES)
                    rides.append(lake.write_rides(partition, table, version))
            lake.commit(partition, lake.manifest(partition), written, self._last[partition], rides)
        return lake

    def _document(self, key: bytes) -> Document | None:
        found = self.index.redis.get(key)
        return None if found is None else json.loads(self._codec.decompress(found))


def kinds(rows: Iterable[Document]) -> list[tuple[str, str]]:
    """(kind, name) of rows."""
    return [(row["kind"], row["name"]) for row in rows]


def body(row: Document) -> Document:
    """What a row says."""
    found: Document = json.loads(row["body"])
    return found
