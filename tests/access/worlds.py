"""A small Rebu without Ray: a journal, a lake and an index, and what its users' histories must be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rebu_ray.access.cold import LakeReader
from rebu_ray.access.history import Histories
from rebu_ray.process.tasks import recompute
from rebu_ray.records import HISTORY_KINDS, Kind, MatchedBy, Record, Source
from rebu_ray.store import facts
from rebu_ray.store.forgetting import forget, names_in_rows, names_of
from rebu_ray.store.index import Index, commands, position_commands
from rebu_ray.store.journal import open_journal
from rebu_ray.store.lake import DataFile, Lake, TallyFile
from rebu_ray.store.member import Codec, place
from rebu_ray.store.redis_cluster import connect_async
from rebu_ray.store.rows import decode, partition_of
from rebu_ray.store.scrub import commit_scrubbed, scrub
from rebu_ray.store.tombstones import Hashing, Tombstones
from tests.conftest import Valkey
from tests.records import NOW, routed
from tests.store.disk import PARTITIONS, Disk, batch

FAR = 2**62


class World:
    """What the owner of all partitions does, step by step, and every record that it was given."""

    def __init__(self, folder: Path, valkey: Valkey) -> None:
        valkey.flush()
        self._disk = Disk(folder)
        self._url = valkey.url
        self.index = Index(valkey.url)
        self.log = self._disk.shard()
        self.index.set_positions(self.log.last_seq)
        self._garbage: list[tuple[int, tuple[DataFile | TallyFile, ...]]] = []
        self._streams: set[tuple[int, str]] = set()
        self.records: dict[tuple[str, str], Record] = {}
        """(stream, id) -> what was said first."""

    def close(self) -> None:
        self.log.close()
        self.index.close()

    def write(self, *records: Record, watched: Iterable[str] = ()) -> dict[int, int]:
        """Journal and index records; the position at which they are visible."""
        if not records:
            return {}
        for row in routed(records, PARTITIONS):
            self.records.setdefault((row.key, row.record.id), row.record)
            self._streams.add((row.partition, row.key))
        done = self.log.commit(batch(*records), NOW)
        rows = commands(done.rows, PARTITIONS, Codec(), frozenset(watched)) if done.rows.num_rows else []
        known = facts.commands(done.rows, PARTITIONS, Codec())
        self.index.send([*rows, *known, *position_commands(done.positions)])
        return done.positions

    def flush(self) -> None:
        """Move the journal to the lake. Files that were merged into others go at the next flush."""
        segments = self.log.seal()
        results = self._disk.write(self.log, segments)
        self.log.flushed(self._disk.commit(self.log, results), segments)
        lake = Lake(self._disk.lake_uri)
        for partition, files in self._garbage:
            lake.remove(partition, files)
        self._garbage = [(r.partition, r.replaced) for r in results]

    def trim(self, keep: int) -> None:
        """Keep in the index what is hot, as far as the lake has the rest."""
        for partition, stream in sorted(self._streams):
            self.index.settle(partition, {stream: NOW}, self.log.flushed_below(partition), keep)

    def settle_rides(self) -> None:
        """Let go of what says that the lake lacks documents of rides, as far as it has them."""
        for partition in range(PARTITIONS):
            self.index.settle_rides(partition, self.log.manifests[partition].covered_seq)

    def evict(self) -> None:
        """Drop from the index what the lake has."""
        for partition, stream in sorted(self._streams):
            self.index.settle(partition, {stream: NOW}, 0, FAR)
        for partition in range(PARTITIONS):
            self.index.evict(partition, self.log.flushed_below(partition), NOW)

    def erase(self, user_id: str, erased_at: int = NOW) -> dict[str, int]:
        """What coordinator and owner do to erase a person; how much the index had of them."""
        lake, hashing, redis = Lake(self._disk.lake_uri), Hashing(b"a secret"), self.index.redis
        names = names_of(redis, PARTITIONS, user_id)
        own = partition_of(f"u:{user_id}", PARTITIONS)
        names.add(names_in_rows(open_journal(self._disk.journal_uri), lake, own, user_id))
        stones = [*self.log.tombstones.stones.values(), hashing.tombstone(names, erased_at, "admin", {})]
        self.log.tombstones = Tombstones(hashing, stones)
        counts = forget(redis, PARTITIONS, names)
        self.flush()
        self.scrub()
        return counts

    def scrub(self) -> int:
        """Take the rows of the erased out of the lake; how many there were."""
        lake, stones, gone = Lake(self._disk.lake_uri), self.log.tombstones, 0
        for partition, manifest in sorted(self.log.manifests.items()):
            outcome = scrub(lake, partition, manifest, stones)
            self.log.flushed({partition: commit_scrubbed(lake, manifest, outcome, stones.digest)}, ())
            gone += outcome.rows
        return gone

    def rebuild(self) -> None:
        """Empty the index and fill it again from lake and journal."""
        self.index.redis.flushall()
        for rows in self.log.since(dict.fromkeys(range(PARTITIONS), 0)):
            self.index.send(commands(rows, PARTITIONS, Codec()))
            self.index.send(facts.commands(rows, PARTITIONS, Codec()))
        self.index.set_positions(self.log.last_seq)

    def lake_reader(self) -> LakeReader:
        """A reader of its lake."""
        return LakeReader(self._disk.lake_uri)

    @asynccontextmanager
    async def reading(self, wait_seconds: float = 0.0) -> AsyncIterator[Histories]:
        """A reader of it."""
        redis: Any = connect_async(self._url, protocol=2)
        try:
            yield Histories(redis, PARTITIONS, self.lake_reader().page, wait_seconds)
        finally:
            await redis.aclose()

    # -- what must come out -----------------------------------------------------------------------------------------

    def exists(self, user: str) -> bool:
        """Whether anything is known of a user."""
        return any(
            record.user_id == user and (record.kind in HISTORY_KINDS or record.links) and record.kind is not Kind.UNLINK
            for record in self.records.values()
        )

    def owner(self, phone: str, at: int) -> str | None:
        """Whose an anonymous event is: of the first link of its phone at or after it, else of the last before it."""
        links = []
        for record in self.records.values():
            if record.links == phone and record.kind is not Kind.UNLINK and record.user_id is not None:
                taken_back = [
                    r.received_at
                    for r in self.records.values()
                    if r.kind is Kind.UNLINK and r.links == phone and r.user_id == record.user_id
                ]
                if record.received_at > max(taken_back, default=-1):
                    links.append((record.event_time, record.received_at, record.user_id))
        links.sort()
        following = [user for when, _, user in links if when >= at]
        return following[0] if following else links[-1][2] if links else None

    def history(self, user: str) -> dict[bytes, list[Record]]:
        """Place -> the records that may stand for it: one that came with and without the user's id is one event."""
        found: dict[bytes, list[Record]] = {}
        for (stream, _), record in self.records.items():
            theirs = stream == f"u:{user}" or (stream[0] == "a" and self.owner(stream[2:], record.event_time) == user)
            if theirs and record.kind in HISTORY_KINDS:
                found.setdefault(place(record.event_time, record.id), []).append(record)
        return found


def take(world: World, *records: Record) -> None:
    """Write records, and the documents that follow from them."""
    world.write(*records)
    follow(world, *sorted({f"u:{record.user_id}" for record in records if record.user_id is not None}))


def follow(world: World, *subjects: str) -> None:
    """Write the documents of subjects that are others now."""
    data = recompute(world.index.redis, PARTITIONS, subjects)
    world.write(*(_record(row) for row in (decode(data).to_pylist() if data else [])))


def _record(row: dict[str, Any]) -> Record:
    names = ("id", "name", "event_time", "received_at", "body", "user_id", "anonymous_id", "request_id", "links")
    matched_by = None if row["matched_by"] is None else MatchedBy(row["matched_by"])
    kind, source = Kind(row["kind"]), Source(row["source"])
    return Record(kind=kind, source=source, matched_by=matched_by, **{name: row[name] for name in names})
