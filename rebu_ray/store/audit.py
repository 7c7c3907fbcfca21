"""The audit: whether what came in is there, place by place, a place being a source and ten minutes of event time.

    received = stored + duplicate + dead_letter + suppressed

`received`, `duplicate` and `suppressed` are the tallies that were kept as records came (tally.py). `stored` and
`dead_letter` are counted from the rows themselves, as lake and journal have them at this moment: a row that is not
there, or is there twice, is seen. Left out of both sides is what nobody sent: links of requests to users and the
copies of error lines made by them, links taken back, documents, marks of replays.

- A record that is sent again is received again, as a duplicate.
- A dead letter stands where it was received, since a refused record has no event time. It stays counted when it is
  replayed: the replay receives its record once more, where its event time puts it.
- Rows from before there were tallies count as received as they are.

Besides, sequence numbers must have no gap from the lake to the end of the journal that the shards know of: what is
missing there is said under `problems`, and then nothing balances.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from rebu_ray.store.journal import Frame, Journal, JournalError, Span, unpack
from rebu_ray.store.lake import DataFile, Lake, LakeError, Manifest, again
from rebu_ray.store.rows import WIRE, decode, rfc3339
from rebu_ray.store.tally import BUCKET_MS, COLUMNS, COUNTS, TALLIES, Entry, as_table, received_as_stored, rows_of

_AT_ONCE_ROWS: Final = 200_000
_NO_ROWS: Final = pa.schema([WIRE.field(name) for name in COLUMNS]).empty_table()


class Held(NamedTuple):
    """What a shard knows and the disk does not tell: its partitions' last sequence numbers, tallies in memory."""

    last_seq: dict[int, int]
    pending: dict[int, list[Entry]]


class Findings(NamedTuple):
    """What an audit found."""

    items: list[dict[str, Any]]
    """By source and bucket, sorted."""
    problems: list[str]
    """What cannot be read, and rows that must be there and are not."""

    @property
    def balanced(self) -> bool:
        """Whether everything that came in is accounted for."""
        return not self.problems and all(item["balanced"] for item in self.items)


class Auditor:
    """Audits one journal and lake. Calls block; for one thread at a time. It remembers the counts of files."""

    def __init__(self, journal: Journal, lake: Lake, partitions: int) -> None:
        self._journal = journal
        self._lake = lake
        self._partitions = partitions
        self._counts: dict[tuple[int, str, int, int], pa.Table] = {}
        """By partition, name, size and time of change."""

    def audit(
        self,
        held: Sequence[Held],
        sources: frozenset[str] | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Findings:
        """All places, or those of some sources and those that lie at least in part in [since, until) ms."""
        try:
            came, rows, problems = again(lambda: self._read(held, last=False))
        except FileNotFoundError:
            came, rows, problems = self._read(held, last=True)
        items = _items(came, rows)
        return Findings(
            [
                item
                for item in items
                if (sources is None or item["source"] in sources)
                and (since is None or item["at"] + BUCKET_MS > since)
                and (until is None or item["at"] < until)
            ],
            problems,
        )

    def _read(self, held: Sequence[Held], last: bool) -> tuple[list[pa.Table], list[pa.Table], list[str]]:
        """Tallies, counts of rows, problems. The journal first: what leaves it is in the manifests by then."""
        problems: list[str] = []
        frames = self._frames(problems)
        came, rows = [as_table(entries) for one in held for entries in one.pending.values()], []
        covered: dict[int, int] = {}
        used = set()
        for partition in range(self._partitions):
            try:
                manifest = self._lake.manifest(partition)
            except LakeError as error:
                problems.append(f"partition {partition}: {error}")
                continue
            covered[partition] = manifest.covered_seq
            there = []
            for file in manifest.files:
                place = self._place(partition, file)
                if place is None:
                    if not last and self._lake.manifest(partition).version != manifest.version:
                        raise FileNotFoundError(file.name)
                    problems.append(f"partition {partition}: {file.name} is missing, with {file.rows} rows")
                    continue
                used.add(place)
                there.append(self._counted(place, partition, file, last, problems))
            rows += there
            came += self._tallies(partition, manifest, there, last, problems)
        self._counts = {place: counts for place, counts in self._counts.items() if place in used}
        self._journalled(frames, covered, came, rows)
        _look_for_gaps(frames, covered, held, problems)
        return came, rows, problems

    def _frames(self, problems: list[str]) -> list[Frame]:
        frames: list[Frame] = []
        for segment in self._journal.segments():
            try:
                for frame in unpack(self._journal.read(segment), str(segment)):
                    frames.append(frame)  # noqa: PERF402 - what is sound before the damage is kept
            except FileNotFoundError:  # all of it is in the lake
                continue
            except JournalError as error:
                problems.append(str(error))
        return frames

    def _place(self, partition: int, file: DataFile) -> tuple[int, str, int, int] | None:
        info = self._lake.info(partition, file)
        return None if info.type == pafs.FileType.NotFound else (partition, file.name, info.size, info.mtime_ns or 0)

    def _counted(
        self, place: tuple[int, str, int, int], partition: int, file: DataFile, last: bool, problems: list[str]
    ) -> pa.Table:
        counts = self._counts.get(place)
        if counts is None:
            try:
                counts = rows_of(self._lake.read(partition, [file], COLUMNS))
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, FileNotFoundError) and not last:
                    raise
                problems.append(f"partition {partition}: {file.name} cannot be read: {error}")
                return rows_of(_NO_ROWS)
            self._counts[place] = counts
        return counts

    def _tallies(
        self, partition: int, manifest: Manifest, there: list[pa.Table], last: bool, problems: list[str]
    ) -> list[pa.Table]:
        if manifest.tallies is None:
            return [_as_received(counts) for counts in there]
        try:
            return self._lake.read_tallies(partition, manifest.tallies)
        except FileNotFoundError:
            if not last and self._lake.manifest(partition).version != manifest.version:
                raise
            problems.append(f"partition {partition}: a file of tallies is missing")
        except (pa.ArrowException, OSError) as error:
            problems.append(f"partition {partition}: its tallies cannot be read: {error}")
        return []

    def _journalled(
        self, frames: Iterable[Frame], covered: dict[int, int], came: list[pa.Table], rows: list[pa.Table]
    ) -> None:
        """Add what the journal holds and the lake does not."""
        entries: list[Entry] = []
        gathered: list[pa.RecordBatch] = []
        size = 0
        for frame in frames:
            spans = {span.partition: span for span in frame.header.spans if _end(span) > covered.get(span.partition, 0)}
            if not spans:
                continue
            batch = decode(frame.payload).select(["partition", *COLUMNS])
            batch = batch.filter(pc.is_in(batch["partition"], value_set=pa.array(list(spans), pa.uint16())))
            for partition, span in spans.items():
                if span.tallies is None:
                    came.append(received_as_stored(batch.filter(pc.equal(batch["partition"], partition))))
                else:
                    entries += span.tallies
            gathered.append(batch)
            size += batch.num_rows
            if size > _AT_ONCE_ROWS:
                rows.append(rows_of(pa.Table.from_batches(gathered)))
                gathered, size = [], 0
        if gathered:
            rows.append(rows_of(pa.Table.from_batches(gathered)))
        came.append(as_table(entries))


def _end(span: Span) -> int:
    return span.first_seq + span.count - 1


def _look_for_gaps(frames: Iterable[Frame], covered: dict[int, int], held: Sequence[Held], problems: list[str]) -> None:
    spans: dict[int, list[Span]] = {}
    for frame in frames:
        for span in frame.header.spans:
            spans.setdefault(span.partition, []).append(span)
    ends: dict[int, int] = {}
    for one in held:
        for partition, seq in one.last_seq.items():
            ends[partition] = max(seq, ends.get(partition, 0))
    for partition, at in covered.items():
        for span in sorted(spans.get(partition, ()), key=lambda s: s.first_seq):
            if span.first_seq > at + 1:
                problems.append(f"partition {partition}: the rows {at + 1} to {span.first_seq - 1} are in no journal")
            at = max(at, _end(span))
        if ends.get(partition, 0) > at:
            problems.append(f"partition {partition}: the rows {at + 1} to {ends[partition]} are in no journal")


def _as_received(counts: pa.Table) -> pa.Table:
    nothing = pa.repeat(pa.scalar(0, pa.int64()), counts.num_rows)
    columns = [counts["rows"] if name == "received" else nothing for name in COUNTS]
    return pa.table([counts["source"], counts["bucket"], *columns], schema=TALLIES)


def _items(came: list[pa.Table], rows: list[pa.Table]) -> list[dict[str, Any]]:
    """Every place with its counts; `at` is the bucket in ms."""
    keys = ["source", "bucket"]
    sums = [(name, "sum") for name in COUNTS]
    received = pa.concat_tables([TALLIES.empty_table(), *came]).group_by(keys).aggregate(sums)
    found: dict[tuple[str, int], dict[str, int]] = {
        (row["source"], row["bucket"]): {name: row[f"{name}_sum"] for name in COUNTS} for row in received.to_pylist()
    }
    if rows:
        there = pa.concat_tables(rows).group_by([*keys, "dead"]).aggregate([("rows", "sum")])
        for row in there.to_pylist():
            counts = found.setdefault((row["source"], row["bucket"]), dict.fromkeys(COUNTS, 0))
            counts["dead_letter" if row["dead"] else "stored"] = row["rows_sum"]
    places = sorted(found)
    buckets = rfc3339(pa.array([bucket for _, bucket in places], pa.int64())) if places else []
    items = []
    for (source, at), bucket in zip(places, buckets, strict=True):
        counts = {"stored": 0, "dead_letter": 0, **found[source, at]}
        sides = sum(counts[name] for name in ("stored", "duplicate", "dead_letter", "suppressed"))
        items.append(
            {
                "source": source,
                "bucket": bucket.decode(),
                **{n: counts[n] for n in ("received", "stored", "duplicate", "dead_letter", "suppressed")},
                "balanced": counts["received"] == sides,
                "at": at,
            }
        )
    return items
