"""Whose documents have to be computed anew after rows arrived."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.records import Kind
from rebu_ray.store.facts import ERROR_KINDS, counts_as_error

_ALWAYS = pa.array(
    [
        str(kind)
        for kind in (Kind.USER, Kind.RIDE, Kind.MESSAGE, Kind.DRIVER, Kind.RIDE_DESTINATION, Kind.UNLINK, *ERROR_KINDS)
    ]
)
_DOCUMENTS = pa.array([str(kind) for kind in (Kind.RIDE_DOCUMENT, Kind.MESSAGE_DOCUMENT)])


@dataclass
class Touched:
    """What rows are about: subjects, and what leads to further subjects by way of the index."""

    subjects: set[str] = field(default_factory=set)
    phones: set[str] = field(default_factory=set)
    """Anonymous ids: everyone who was ever identified as one of them is touched."""
    rides: set[str] = field(default_factory=set)
    """Rides: everyone whose they are or were is touched."""
    messages: set[str] = field(default_factory=set)
    """Messages: the same."""
    drivers: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.subjects or self.indirect)

    @property
    def indirect(self) -> bool:
        """Whether the index has to be asked for further subjects."""
        return bool(self.phones or self.rides or self.messages or self.drivers)

    def add(self, other: Touched) -> None:
        """Take in what other rows touched."""
        self.subjects |= other.subjects
        self.phones |= other.phones
        self.rides |= other.rides
        self.messages |= other.messages
        self.drivers |= other.drivers


def touched_again(rows: pa.RecordBatch, anew: Container[int]) -> Touched:
    """Whom replayed rows touch. Of the partitions that are built anew only what their streams gave up: without a
    position nothing is computed from the index, but what is not theirs any more was just written over what is.
    """
    chosen = pa.array([partition in anew for partition in rows["partition"].to_pylist()], pa.bool_())
    found = touched(rows.filter(pc.invert(chosen)))
    found.add(withdrawn(rows.filter(chosen)))
    return found


def touched(rows: pa.RecordBatch) -> Touched:
    """What a batch of `ROWS` touches. Events that are no errors and link no phone touch nothing."""
    chosen = pc.is_in(rows["kind"], value_set=_ALWAYS)
    if rows["links"].null_count < rows.num_rows:
        chosen = pc.or_(chosen, pc.is_valid(rows["links"]))
    found = withdrawn(rows)
    if not chosen.true_count:
        return found
    for row in rows.select(["kind", "key", "name", "links", "body"]).filter(chosen).to_pylist():
        kind, key, links = row["kind"], row["key"], row["links"]
        if links is not None:
            found.phones.add(links)
            found.subjects.add(key)
        if kind == Kind.DRIVER:
            found.drivers.add(row["name"])
        elif kind == Kind.RIDE_DESTINATION:
            found.rides.add(row["name"])
        elif kind == Kind.USER:
            found.subjects.add(key)
        elif kind == Kind.RIDE:
            found.subjects.add(key)
            found.rides.add(row["name"])
        elif kind == Kind.MESSAGE:
            found.subjects.add(key)
            found.messages.add(row["name"])
        elif counts_as_error(kind, row["body"]):
            if key.startswith("u:"):
                found.subjects.add(key)
            elif key.startswith("a:"):
                found.phones.add(key[2:])
    return found


def withdrawn(rows: pa.RecordBatch) -> Touched:
    """What is touched by documents in a batch of `ROWS` that a stream gave up: deleted ones, and what moved away.

    A row of another partition, indexed before or after, may be the one that counts.
    """
    found = Touched()
    deleted = pc.is_in(rows["kind"], value_set=_DOCUMENTS)
    if deleted.true_count:
        documents = rows.select(["kind", "name", "body"]).filter(deleted)
        documents = documents.filter(pc.match_substring(documents["body"], b'"deleted":true'))
        for kind, name in zip(documents["kind"].to_pylist(), documents["name"].to_pylist(), strict=True):
            (found.rides if kind == Kind.RIDE_DOCUMENT else found.messages).add(name)
    moved = pc.equal(rows["kind"], str(Kind.MOVED))
    if moved.true_count:
        for thing in rows["name"].filter(moved).to_pylist():
            (found.rides if thing.startswith("o:") else found.messages).add(thing[2:])
    return found
