"""The log of a shard: its partitions' journal, what they have seen, and what the lake does not hold yet.

Everything here blocks and is called from one thread at a time; `ingest.shard` is the Ray shell around it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.records import REQUESTS
from rebu_ray.store.journal import FORMAT, Frame, Header, Journal, SegmentName, Span, StaleOwner, pack, unpack
from rebu_ray.store.lake import Lake, LakeError, Manifest
from rebu_ray.store.rows import encode, with_seq
from rebu_ray.store.seen import DAY_MS, Seen
from rebu_ray.store.sequence import in_sequence
from rebu_ray.store.tally import Pending, as_table, tallied
from rebu_ray.store.tally_files import add_tallies
from rebu_ray.store.tombstones import Linked, none

log = logging.getLogger("rebu.shard")

NEVER = 2**62
"""A time (ms) after every other."""


class NotOwner(Exception):
    """Rows of a partition came to a shard that does not own it: the sender's routing is out of date."""


class Commit(NamedTuple):
    """What became of a batch: which of its rows are new, those as `ROWS`, where their partitions stand, and which
    rows are of somebody erased.
    """

    new: npt.NDArray[np.bool_]
    rows: pa.RecordBatch
    positions: dict[int, int]
    suppressed: npt.NDArray[np.bool_]

    @property
    def verdicts(self) -> bytes:
        """One byte a row: 1 stored, 0 duplicate, 2 suppressed."""
        return (self.new + 2 * self.suppressed.astype(np.uint8)).astype(np.uint8).tobytes()


@dataclass
class _Held:
    """What a segment holds of this shard's rows."""

    last_seq: dict[int, int] = field(default_factory=dict)
    oldest_event: dict[int, int] = field(default_factory=dict)
    oldest_receipt: int = NEVER
    nbytes: int = 0

    def add(self, other: _Held) -> None:
        """Take in what was found in the same segment of other partitions."""
        for partition, seq in other.last_seq.items():
            self.last_seq[partition] = max(seq, self.last_seq.get(partition, 0))
        for partition, event in other.oldest_event.items():
            self.oldest_event[partition] = min(event, self.oldest_event.get(partition, NEVER))
        self.oldest_receipt = min(self.oldest_receipt, other.oldest_receipt)
        self.nbytes += other.nbytes


class ShardLog:
    """Owner of `partitions` under a slot's newest epoch, from `recover` on."""

    def __init__(self, journal: Journal, lake: Lake, slot: int, partitions: Iterable[int]) -> None:
        self._journal = journal
        self._lake = lake
        self.slot = slot
        self.partitions = frozenset(partitions)
        self.epoch = 0
        self.seen = Seen()
        self.manifests: dict[int, Manifest] = {}
        self.last_seq: dict[int, int] = {}
        self._segments: dict[SegmentName, _Held] = {}
        self.pending = Pending()
        self.tombstones = none()
        """Who is erased: nothing of theirs comes in, nor out."""
        self.linked: Linked | None = None
        """See `Tombstones.dead`."""

    def claim(self) -> None:
        """Take the slot from whoever has it."""
        self.epoch = self._journal.claim(self.slot)

    def check(self) -> None:
        """Raises StaleOwner where the slot is somebody else's by now."""
        if self._journal.epoch(self.slot) != self.epoch:
            raise StaleOwner(f"slot {self.slot} has a later owner than epoch {self.epoch}")

    def recover(self, now: int, recent_ms: int, own: Callable[[], Iterable[int]] | None = None) -> list[pa.RecordBatch]:
        """Claim the slot and learn what happened before; the rows of requests received since `now - recent_ms`, as
        `ROWS`.

        `own`, if given, says which partitions are the slot's; it is asked once the slot is claimed.
        """
        self.claim()
        if own is not None:
            self.partitions = frozenset(own())
        recent = [*self.read_lake(now, recent_ms), *self.read_journal(now, recent_ms)]
        for segment in self._journal.segments():
            # Flushed by an earlier owner of the slot that died before it could remove it.
            if segment.slot == self.slot and segment.epoch < self.epoch and segment not in self._segments:
                self._remove_covered(segment, _Held())
        return recent

    def read_lake(self, now: int, recent_ms: int) -> list[pa.RecordBatch]:
        """Learn what the lake says of the partitions, which may as yet be another's; the rows of requests received of
        late. What it said already is not read again.
        """
        recent: list[pa.RecordBatch] = []
        for partition in sorted(self.partitions):
            before = self.manifests.get(partition, Manifest())
            self.manifests[partition] = manifest = self._lake.manifest(partition)
            self.last_seq[partition] = max(manifest.covered_seq, self.last_seq.get(partition, 0))
            recent += self._remember(partition, before, manifest, now, recent_ms)
        return recent

    def read_journal(
        self, now: int, recent_ms: int, segments: Iterable[SegmentName] | None = None
    ) -> list[pa.RecordBatch]:
        """Learn what the journal, or those of its segments, say beyond that; the rows of requests received of late."""
        recent: list[pa.RecordBatch] = []
        for segment, batch in self._tail(self._journal.segments() if segments is None else list(segments)):
            self._note(segment, batch)
            for day, prints in _by_day(batch["received_at"], batch["fingerprint"]):
                self.seen.load(prints, day * DAY_MS)
            late = pc.greater_equal(batch["received_at"], now - recent_ms)
            fresh = self.tombstones.keep(batch.filter(pc.and_(late, pc.starts_with(batch["key"], REQUESTS))))
            if fresh.num_rows:
                recent.append(fresh)
        return recent

    def release(self, partitions: frozenset[int]) -> tuple[dict[int, int], list[SegmentName]]:
        """Let go of partitions: the last sequence number of each, and the segments with rows that the lake lacks.

        No segment with rows of them is appended to any more: their next owner removes it once all is in the lake.
        Nothing may be flushing meanwhile. Raises StaleOwner.
        """
        partitions &= self.partitions
        try:
            self.settle(partitions)
        except (LakeError, OSError) as error:
            log.warning("slot %d: tallies of duplicates are not kept, as after a crash: %s", self.slot, error)
            self.pending.take(partitions)
        self._journal.roll()
        ends = {p: self.last_seq[p] for p in partitions}
        segments = [
            segment
            for segment, held in self._segments.items()
            if any(held.last_seq.get(p, 0) > self.manifests[p].covered_seq for p in partitions)
        ]
        self.partitions -= partitions
        for partition in partitions:
            del self.manifests[partition], self.last_seq[partition]
        return ends, segments

    def adopt(self, other: ShardLog) -> None:
        """Own what another log of this slot has read."""
        self.manifests |= other.manifests
        self.last_seq |= other.last_seq
        self.seen.take(other.seen)
        for segment, held in other._segments.items():
            self._segments.setdefault(segment, _Held()).add(held)
        self.partitions |= other.partitions

    def commit(self, batch: pa.RecordBatch, now: int) -> Commit:
        """Make the new rows of a `WIRE` batch durable. Nothing counts where it raises.

        Raises NotOwner, StaleOwner or JournalError.
        """
        partitions = batch["partition"].to_numpy()
        touched = set(partitions.tolist())
        if not touched <= self.partitions:
            raise NotOwner(f"slot {self.slot} does not own partitions {sorted(touched - self.partitions)}")
        prints = batch["fingerprint"].to_numpy()
        suppressed = self.tombstones.dead(batch, self.linked)
        if suppressed.any():
            new = ~suppressed
            new[new] = self.seen.add(prints[new], now)
        else:
            new = self.seen.add(prints, now)
        kept = np.flatnonzero(new)
        kept = kept[np.argsort(partitions[kept], kind="stable")]
        rows = batch.take(pa.array(kept))
        tallies = tallied(batch, new, suppressed)
        counts = [(p, count) for p, count in enumerate(np.bincount(partitions[kept]).tolist()) if count]
        if counts:
            # Duplicates that came alone are counted with the next rows of their partition.
            waiting = self.pending.take([p for p, _ in counts])
            spans = [
                Span(p, self.last_seq[p] + 1, count, [*tallies.pop(p, ()), *waiting.get(p, ())]) for p, count in counts
            ]
            header = Header(v=FORMAT, epoch=self.epoch, committed_at=now, spans=spans)
            try:
                segment = self._journal.append(self.slot, self.epoch, pack(header, encode(rows)))
            except Exception:
                self.seen.discard(prints[new])
                self.pending.add(waiting)
                raise
            seqs = np.concatenate([np.arange(s.first_seq, s.first_seq + s.count, dtype=np.int64) for s in spans])
            done = with_seq(rows, pa.array(seqs))
            self._note(segment, done)
        else:
            done = with_seq(rows, pa.array([], pa.int64()))
        self.pending.add(tallies)
        return Commit(new, done, {p: self.last_seq[p] for p in touched}, suppressed)

    def since(self, positions: dict[int, int]) -> Iterator[pa.RecordBatch]:
        """The rows after the given sequence numbers, from lake and journal, those of each partition in sequence.

        So whoever takes them in may remember how far it came, and go on from there.
        """
        for partition, seq in positions.items():
            for table in in_sequence(self._lake, partition, self.manifests[partition], seq):
                yield from self.tombstones.keep(table).to_batches(max_chunksize=10_000)
        # Where rows are noted nothing else has them; what is noted while this reads, nobody has asked for.
        noted = sorted(
            segment
            for segment, held in tuple(self._segments.items())
            if any(held.last_seq.get(p, 0) > s for p, s in positions.items())
        )
        for _, batch in self._tail(noted):
            wanted = [
                pc.and_(pc.equal(batch["partition"], p), pc.greater(batch["seq"], s)) for p, s in positions.items()
            ]
            mask = wanted[0]
            for more in wanted[1:]:
                mask = pc.or_(mask, more)
            rows = self.tombstones.keep(batch.filter(mask))
            if rows.num_rows:
                yield rows

    def seal(self) -> list[SegmentName]:
        """Close the open segment; the sealed ones that hold rows which the lake does not."""
        self._journal.roll()
        return list(self._segments)

    def flushed(self, manifests: dict[int, Manifest], segments: Iterable[SegmentName]) -> None:
        """Take note of committed manifests, and remove the segments that they cover for every partition in them."""
        self.manifests.update(manifests)
        for segment in segments:
            held = self._segments[segment]
            if all(self.manifests[p].covered_seq >= seq for p, seq in held.last_seq.items() if p in self.partitions):
                del self._segments[segment]
                self._remove_covered(segment, held)
            # Else it holds rows of a partition that came to this shard while the others were flushed.

    def settle(self, partitions: frozenset[int] | None = None) -> None:
        """Have the tallies that wait for rows of their partition, of all or of some partitions, in the lake.

        Raises StaleOwner, LakeError or OSError; what is not written then goes on waiting.
        """
        if not self.pending:
            return
        self.check()
        waiting = self.pending.take(self.partitions if partitions is None else partitions)
        try:
            for partition in sorted(waiting):
                manifest = self.manifests[partition]
                tallies, merged = add_tallies(self._lake, partition, manifest, [as_table(waiting[partition])])
                self.manifests[partition] = self._lake.commit(
                    partition, manifest, manifest.files, manifest.covered_seq, manifest.rides, tallies
                )
                del waiting[partition]
                self._lake.remove(partition, merged)
        finally:
            self.pending.add(waiting)

    @property
    def unflushed_bytes(self) -> int:
        """Bytes of rows that are in the journal only."""
        return sum(held.nbytes for held in tuple(self._segments.values()))

    @property
    def unflushed_since(self) -> int:
        """Receipt time (ms) of the oldest row that is in the journal only, or NEVER."""
        return min((held.oldest_receipt for held in tuple(self._segments.values())), default=NEVER)

    def flushed_below(self, partition: int) -> int:
        """Event time (ms) before which every row of the partition is in the lake."""
        return min((held.oldest_event.get(partition, NEVER) for held in tuple(self._segments.values())), default=NEVER)

    def close(self) -> None:
        try:
            with contextlib.suppress(StaleOwner):
                self.settle()
        finally:
            self._journal.close()

    def _remove_covered(self, segment: SegmentName, held: _Held) -> None:
        """Remove a segment, unless it holds rows that the lake does not."""
        with contextlib.suppress(FileNotFoundError):  # another owner of rows in it was quicker
            if self._covered(segment, held):
                self._journal.remove(segment)

    def _covered(self, segment: SegmentName, held: _Held) -> bool:
        if segment.slot == self.slot and segment.epoch == self.epoch:
            return all(self._manifest(p).covered_seq >= seq for p, seq in held.last_seq.items())
        for frame in unpack(self._journal.read(segment), str(segment)):
            for span in frame.header.spans:
                if self._manifest(span.partition).covered_seq < span.first_seq + span.count - 1:
                    return False
        return True

    def _manifest(self, partition: int) -> Manifest:
        return self.manifests.get(partition) or self._lake.manifest(partition)

    def _note(self, segment: SegmentName, rows: pa.RecordBatch) -> None:
        held = self._segments.setdefault(segment, _Held())
        held.nbytes += rows.nbytes
        partitions, seqs, events = (rows[c].to_numpy() for c in ("partition", "seq", "event_time"))
        held.oldest_receipt = min(held.oldest_receipt, int(rows["received_at"].to_numpy().min()))
        # Rows lie partition after partition, each in the order of its sequence numbers.
        starts = np.flatnonzero(np.diff(partitions.astype(np.int64), prepend=-1))
        ends = np.append(starts[1:], len(partitions)) - 1
        for partition, seq, event in zip(
            partitions[starts].tolist(), seqs[ends].tolist(), np.minimum.reduceat(events, starts).tolist(), strict=True
        ):
            held.last_seq[partition] = max(held.last_seq.get(partition, 0), seq)
            held.oldest_event[partition] = min(held.oldest_event.get(partition, NEVER), event)
            self.last_seq[partition] = max(self.last_seq[partition], seq)

    def _tail(self, segments: list[SegmentName]) -> Iterator[tuple[SegmentName, pa.RecordBatch]]:
        """Rows of this shard's partitions that are in segments and not in the lake, frame by frame."""
        own = pa.array(sorted(self.partitions), pa.uint16())
        for segment in self._in_sequence(segments):
            for frame in self._frames(segment):
                if not any(
                    s.partition in self.partitions
                    and s.first_seq + s.count - 1 > self.manifests[s.partition].covered_seq
                    for s in frame.header.spans
                ):
                    continue
                rows = frame.rows()
                rows = rows.filter(pc.is_in(rows["partition"], value_set=own))
                covered = [self.manifests[p].covered_seq for p in rows["partition"].to_pylist()]
                rows = rows.filter(pc.greater(rows["seq"], pa.array(covered, pa.int64())))
                if rows.num_rows:
                    yield segment, rows

    def _in_sequence(self, segments: list[SegmentName]) -> list[SegmentName]:
        """Segments in an order that keeps every partition's rows in sequence, whichever slots they were written by."""
        if len({segment.slot for segment in segments}) < 2:
            return segments
        begins: dict[int, list[tuple[int, SegmentName]]] = {}
        for segment in segments:
            first: dict[int, int] = {}
            for frame in self._frames(segment):
                for span in frame.header.spans:
                    first.setdefault(span.partition, span.first_seq)
            for partition, seq in first.items():
                begins.setdefault(partition, []).append((seq, segment))
        # One owner at a time holds a partition, so these orders do not contradict each other.
        order: TopologicalSorter[SegmentName] = TopologicalSorter(dict.fromkeys(segments, ()))
        for found in begins.values():
            found.sort()
            for (_, before), (_, after) in pairwise(found):
                order.add(after, before)
        return list(order.static_order())

    def _frames(self, segment: SegmentName) -> Iterator[Frame]:
        try:
            data = self._journal.read(segment)
        except FileNotFoundError:  # removed by its owner: all of it is in the lake
            return
        yield from unpack(data, str(segment))

    def _remember(
        self, partition: int, before: Manifest, manifest: Manifest, now: int, recent_ms: int
    ) -> Iterator[pa.RecordBatch]:
        """Load the fingerprints of the lake's last days, as far as files were not there before; its rows of unclaimed
        requests received of late.
        """
        known = {*before.files, *before.rides}
        files, rides = (
            [f for f in found if f.max_received_at >= now - 8 * DAY_MS and f not in known]
            for found in (manifest.files, manifest.rides)
        )
        for file in (*files, *rides):
            table = self._lake.read(partition, [file], ["received_at", "fingerprint"])
            for day, prints in _by_day(table["received_at"], table["fingerprint"]):
                self.seen.load(prints, day * DAY_MS)
        late = [f for f in files if f.max_received_at >= now - recent_ms]
        if late:
            table = pa.concat_tables(self._lake.read_streams(partition, file, REQUESTS) for file in late)
            fresh = table.filter(pc.greater_equal(table["received_at"], now - recent_ms))
            yield from self.tombstones.keep(fresh).sort_by("seq").to_batches()  # who bound a request first still counts


def _by_day(received: pa.Array, prints: pa.Array) -> Iterator[tuple[int, npt.NDArray[np.uint64]]]:
    days, values = received.to_numpy() // DAY_MS, prints.to_numpy()
    for day in np.unique(days):
        yield int(day), values[days == day]
