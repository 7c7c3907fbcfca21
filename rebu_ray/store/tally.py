"""Tallies: what came in, counted apart from what is stored, so that the one can be checked against the other.

A tally says for a source and a bucket of ten minutes of event time how many records came in (`received`), how many
of them were there already (`duplicate`), and how many are gone on purpose (`suppressed`: erased, or refused because
their person is erased). The span of a partition's rows in a journal frame carries the tallies of what came with
them: they are durable with the same sync. At the flush they move into small files beside the partition's Parquet
files, and count with the same manifest. A batch in which nothing is new makes no frame: its tallies wait in memory
for the next one of their partition, or for the flush; a crash loses them whole, `received` and `duplicate` alike.

What is stored is never tallied: that is counted from the rows themselves, by `rows_of`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.records import HISTORY_KINDS, TABLES, Kind, MatchedBy

BUCKET_MS: Final = 600_000

Entry = tuple[str, int, int, int, int]
"""source, bucket (ms at its start), received, duplicate, suppressed"""

TALLIES: Final = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("bucket", pa.int64(), nullable=False),
        pa.field("received", pa.int64(), nullable=False),
        pa.field("duplicate", pa.int64(), nullable=False),
        pa.field("suppressed", pa.int64(), nullable=False),
    ]
)
COUNTS: Final = ("received", "duplicate", "suppressed")
COLUMNS: Final = ["kind", "source", "event_time", "matched_by"]
"""What of a row says where it is counted, and whether."""

_COUNTED: Final = frozenset(map(str, (*HISTORY_KINDS, Kind.DEAD_LETTER, *TABLES.values())))
"""What senders sent. All other kinds the platform adds itself: they are in no count."""

Rows: TypeAlias = pa.RecordBatch | pa.Table


def counted(rows: Rows) -> npt.NDArray[np.bool_]:
    """Which rows came from a sender: none that the platform made, nor the copy of a line under its request's user."""
    kinds, matched = rows["kind"], rows["matched_by"]
    chosen = np.ones(rows.num_rows, np.bool_)
    if not _COUNTED.issuperset(kinds.unique().to_pylist()):
        chosen &= _flags(pc.is_in(kinds, value_set=pa.array(sorted(_COUNTED))))
    if str(MatchedBy.REQUEST_ID) in matched.unique().to_pylist():
        chosen &= ~_flags(pc.fill_null(pc.equal(matched, str(MatchedBy.REQUEST_ID)), False))
    return chosen


def _flags(values: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values, np.bool_)


def tallied(
    batch: pa.RecordBatch, new: npt.NDArray[np.bool_], suppressed: npt.NDArray[np.bool_] | None = None
) -> dict[int, list[Entry]]:
    """The tallies of a `WIRE` batch by partition; `new` says which of its rows were not there yet, `suppressed` which
    are of somebody erased.
    """
    chosen = counted(batch)
    sources, codes = _codes(batch["source"])
    places = np.stack(
        (batch["partition"].to_numpy().astype(np.int64), codes, batch["event_time"].to_numpy() // BUCKET_MS)
    )
    fresh, gone = new, np.zeros(len(new), np.bool_) if suppressed is None else suppressed
    if not chosen.all():
        places, fresh, gone = places[:, chosen], fresh[chosen], gone[chosen]
    found: dict[int, list[Entry]] = {}
    if places.shape[1]:
        # Most batches lie in few buckets: one number a place, then what is equal stands together.
        low = int(places[2].min())
        span = int(places[2].max()) - low + 1
        joint = (places[0] * len(sources) + places[1]) * span + (places[2] - low)
        order = np.argsort(joint, kind="stable")
        joint = joint[order]
        starts = np.flatnonzero(np.append(True, joint[1:] != joint[:-1]))
        received = np.diff(np.append(starts, len(joint)))
        stored, erased = (np.add.reduceat(flags[order].astype(np.int64), starts) for flags in (fresh, gone))
        place, bucket = np.divmod(joint[starts], span)
        partition, source = np.divmod(place, len(sources))
        for p, s, b, came, kept, dropped in zip(
            partition.tolist(),
            source.tolist(),
            ((bucket + low) * BUCKET_MS).tolist(),
            received.tolist(),
            stored.tolist(),
            erased.tolist(),
            strict=True,
        ):
            found.setdefault(p, []).append((sources[s], b, came, came - kept - dropped, dropped))
    return found


def rows_of(rows: Rows) -> pa.Table:
    """How many rows of a table, of those that count, lie where: source, bucket, dead (a dead letter?), rows."""
    chosen = pa.array(counted(rows))
    place = pa.table(
        {
            "source": rows["source"].cast(pa.string()),
            "bucket": pc.multiply(pc.divide(rows["event_time"], BUCKET_MS), BUCKET_MS),
            "dead": pc.equal(rows["kind"], str(Kind.DEAD_LETTER)),
        }
    ).filter(chosen)
    found = place.group_by(["source", "bucket", "dead"]).aggregate([([], "count_all")])
    return found.select(["source", "bucket", "dead", "count_all"]).rename_columns(["source", "bucket", "dead", "rows"])


def received_as_stored(rows: Rows) -> pa.Table:
    """The tallies of rows that nobody tallied when they came: as many received as there are."""
    return _of_rows(rows, "received")


def no_longer_stored(rows: Rows, why: str) -> pa.Table:
    """The tallies that make up for rows which are taken out of the store: `why` is `duplicate` or `suppressed`."""
    return _of_rows(rows, why)


def _of_rows(rows: Rows, count: str) -> pa.Table:
    found = rows_of(rows)
    nothing = pa.array(np.zeros(found.num_rows, np.int64))
    columns = [found["rows"] if name == count else nothing for name in COUNTS]
    return together([pa.table([found["source"], found["bucket"], *columns], schema=TALLIES)])


def as_table(entries: Iterable[Entry]) -> pa.Table:
    """Entries as `TALLIES`, each place once."""
    columns = list(zip(*entries, strict=True)) or [()] * len(TALLIES)
    return together([pa.table([pa.array(c, t) for c, t in zip(columns, TALLIES.types, strict=True)], schema=TALLIES)])


def together(tables: Iterable[pa.Table]) -> pa.Table:
    """The sums of several, each place once."""
    found = pa.concat_tables([TALLIES.empty_table(), *tables])
    found = found.group_by(["source", "bucket"]).aggregate([(name, "sum") for name in COUNTS])
    found = found.select(["source", "bucket", *(f"{name}_sum" for name in COUNTS)])
    return found.rename_columns(TALLIES.names).cast(TALLIES)


class Pending:
    """Tallies by partition that no frame and no file holds yet. For one thread."""

    def __init__(self) -> None:
        self._entries: dict[int, dict[tuple[str, int], list[int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, found: dict[int, list[Entry]]) -> None:
        """Take tallies in."""
        for partition, entries in found.items():
            places = self._entries.setdefault(partition, {})
            for source, bucket, *counts in entries:
                known = places.setdefault((source, bucket), [0, 0, 0])
                for i, count in enumerate(counts):
                    known[i] += count

    def take(self, partitions: Iterable[int]) -> dict[int, list[Entry]]:
        """Give tallies away; what does not become durable is to be added again."""
        found = {p: self._entries.pop(p) for p in partitions if p in self._entries}
        return {p: _entries(places) for p, places in found.items()}

    def entries(self) -> dict[int, list[Entry]]:
        """All of them."""
        return {p: _entries(places) for p, places in self._entries.items()}


def _entries(places: dict[tuple[str, int], list[int]]) -> list[Entry]:
    return [(source, bucket, r, d, s) for (source, bucket), (r, d, s) in places.items()]


def _codes(column: pa.Array) -> tuple[list[str], npt.NDArray[np.int64]]:
    found = column.dictionary_encode()
    return found.dictionary.to_pylist(), found.indices.to_numpy().astype(np.int64)
