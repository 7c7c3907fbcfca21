"""Indexing what the lake has, a piece of a partition at a time: what a Ray task does for the partition's owner.

Only the owner has pieces indexed, one after the other, so that rows of a partition reach the index in sequence.
A piece may be indexed again from its beginning, by a task that is retried: twice is the same as once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.process.dirty import Touched, touched_again
from rebu_ray.store import facts
from rebu_ray.store.index import Index, Position, commands
from rebu_ray.store.lake import DataFile, Lake, Manifest
from rebu_ray.store.member import Codec
from rebu_ray.store.sequence import in_sequence
from rebu_ray.store.tombstones import Tombstones

PIECE_ROWS: Final = 200_000
"""How many rows a piece has, or what the file adds in which that number is reached."""
BATCH_ROWS: Final = 10_000
"""How many rows are sent to Redis at once."""
_ALL: Final = 2**62
"""A time (ms) after every other."""


class Piece(NamedTuple):
    """Rows of a partition's files: after < sequence number <= until."""

    partition: int
    files: Manifest
    """The partition's manifest, with those files alone that hold such rows."""
    after: int
    until: int
    end: int
    """How far the partition has to come."""
    anew: bool
    """Whether its index is built from nothing."""


class Hot(NamedTuple):
    """What Redis keeps of a stream: its newest so many rows, and none if the last came in before `since` (ms)."""

    events: int
    since: int


def next_piece(partition: int, manifest: Manifest, after: int, end: int, anew: bool) -> Piece | None:
    """The piece that begins behind sequence number `after`; None where the lake has nothing there.

    It ends with a file, so that few files are read for two pieces.
    """
    if after >= manifest.covered_seq:
        return None
    until, found = manifest.covered_seq, 0
    for file in sorted((*manifest.files, *manifest.rides), key=lambda f: f.last_seq):
        if file.last_seq > after:
            found += file.rows
            if found >= PIECE_ROWS:
                until = file.last_seq
                break
    kept, rides = (tuple(_between(sort, after, until)) for sort in (manifest.files, manifest.rides))
    files = Manifest(version=manifest.version, covered_seq=manifest.covered_seq, files=kept, rides=rides)
    return Piece(partition, files, after, until, end, anew)


def index_piece(index: Index, lake: Lake, partitions: int, piece: Piece, erased: Tombstones, hot: Hot) -> Touched:
    """Index a piece, and drop again what Redis need not keep; whom its rows touch: see `touched_again`.

    The partition's position moves along, and says that it is behind. Raises one of `store.index.UNAVAILABLE`,
    IndexEmptied among them, LakeError or OSError.
    """
    codec, found = Codec(), Touched()
    anew = (piece.partition,) if piece.anew else ()
    for table in in_sequence(lake, piece.partition, piece.files, piece.after, piece.until):
        for batch in table.to_batches(max_chunksize=BATCH_ROWS):
            rows = erased.keep(batch)
            if rows.num_rows:
                index.send(commands(rows, partitions, codec))
                index.send(facts.commands(rows, partitions, codec))
                found.add(touched_again(rows, anew))
            _moved(index, piece, batch["seq"][-1].as_py())
        # The lake has all that the index holds of the partition by now.
        index.settle(piece.partition, _written(table), _ALL, hot.events)
        while index.evict(piece.partition, _ALL, hot.since):
            pass
    index.settle_rides(piece.partition, piece.until)
    _moved(index, piece, piece.until)  # the last rows may have been erased
    return found


def _moved(index: Index, piece: Piece, seq: int) -> None:
    index.move_positions({piece.partition: Position(seq, True, piece.end, piece.anew)})


def _between(files: Iterable[DataFile], after: int, until: int) -> Iterable[DataFile]:
    return (file for file in files if file.last_seq > after and file.first_seq <= until)


def _written(rows: pa.Table) -> dict[str, int]:
    """When the streams among rows that the index holds were written to for the last time (ms)."""
    of_streams = pc.is_in(pc.utf8_slice_codeunits(rows["key"], 0, 2), value_set=_STREAMS)
    last = rows.filter(of_streams).group_by("key").aggregate([("received_at", "max")])
    return dict(zip(last["key"].to_pylist(), last["received_at_max"].to_pylist(), strict=True))


_STREAMS: Final = pa.array(["u:", "a:", "d:"])
