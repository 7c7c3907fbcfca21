"""Every document of a partition computed from the lake alone, and compared with those that stand.

What is about a person and lies in other partitions (destinations under their ride, drivers, what phones sent) is
gathered from all of them first; then each partition is a job of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from rebu_ray.process.compute import SINCE, VERSION, Documents, changes, compute
from rebu_ray.process.load import FACT_ROWS, Loaded, Subject
from rebu_ray.process.tables import ERRORS
from rebu_ray.records import Kind, stable_hash
from rebu_ray.store.facts import ERROR_KINDS, counts_as_error, message_head, ride_head
from rebu_ray.store.lake import Lake, again, first_of_each
from rebu_ray.store.links import Link, Owned, owned, standing
from rebu_ray.store.rows import ROWS, encode, partition_of, to_batch

_SHARED = (Kind.DRIVER, Kind.RIDE_DESTINATION)
_THINGS = (Kind.RIDE, Kind.MESSAGE)
_OWN = (Kind.USER, *_THINGS)
_DOCUMENTS = (Kind.RIDE_DOCUMENT, Kind.MESSAGE_DOCUMENT, Kind.MOVED)


class Crossing(NamedTuple):
    """What one partition holds that is about people of others, as `ROWS`."""

    shared: pa.Table
    """Drivers and destinations."""
    phones: pa.Table
    """Errors in the streams of phones."""
    links: pa.Table
    """What links a phone to a user or takes that back; without bodies."""
    things: npt.NDArray[np.uint64]
    """Hashes of its rides and messages: one that is in several partitions has changed its user."""


class Full(NamedTuple):
    """What came of one partition."""

    partition: int
    rides: int
    messages: int
    standing: str
    """Digest of the documents that stand, without versions, times of computing and history."""
    computed: str
    """Digest of those computed from the lake."""
    changed: bytes
    """The documents that differ, as an encoded `WIRE` batch; empty where none does."""


def crossing(lake: Lake, partition: int) -> Crossing:
    """What a partition of the lake holds for others."""
    rows = _rows(lake, partition, (*_SHARED, *_THINGS, *ERROR_KINDS))
    errors = rows.filter(pc.and_(_of(rows, ERROR_KINDS), pc.starts_with(rows["key"], "a:")))
    links = rows.filter(pc.is_valid(rows["links"])).drop_columns("body")
    return Crossing(rows.filter(_of(rows, _SHARED)), _counted(errors), links, np.unique(_hashes(_things(rows))))


def full(lake: Lake, partition: int, partitions: int, crossings: Sequence[Crossing], now: int) -> Full:
    """Compute a partition's documents anew. `crossings` are those of all partitions in order; `now` is in ms."""
    rows = _rows(lake, partition, (*_OWN, *ERROR_KINDS, *_DOCUMENTS))
    own = rows.filter(_of(rows, _OWN))
    shared = pa.concat_tables([c.shared for c in crossings])
    rides = pc.unique(own.filter(pc.equal(own["kind"], str(Kind.RIDE)))["name"])
    shared = shared.filter(
        pc.or_(pc.equal(shared["kind"], str(Kind.DRIVER)), pc.is_in(shared["name"], value_set=rides))
    )
    facts = pa.concat_tables([own, shared, *_elsewhere(lake, partition, crossings)])
    mine = _counted(rows.filter(pc.and_(_of(rows, ERROR_KINDS), pc.starts_with(rows["key"], "u:"))))
    whose = [(row, key[2:]) for row, key in enumerate(mine["key"].to_pylist())]
    errors = pa.concat_tables([_errors(mine, whose), _of_phones(crossings, partition, partitions)])
    found = compute(facts.select(FACT_ROWS.names).cast(FACT_ROWS), errors)
    documents = _standing(rows.filter(_of(rows, _DOCUMENTS)))
    loaded = _loaded(own, documents, pc.max(facts["received_at"]).as_py() or 0)
    changed = changes(found, loaded, partitions, now)
    return Full(
        partition,
        sum(thing.startswith("o:") for _, thing in documents),
        sum(thing.startswith("m:") for _, thing in documents),
        _digest(
            [text.partition(VERSION)[0] for (_, thing), text in documents.items() if thing.startswith("o:")],
            [text.partition(SINCE)[0] for (_, thing), text in documents.items() if thing.startswith("m:")],
        ),
        _digest(*_cores(found, partition, partitions)),
        encode(to_batch(changed)) if changed else b"",
    )


def _rows(lake: Lake, partition: int, kinds: Sequence[Kind]) -> pa.Table:
    """The rows of a partition that are of some kinds or link a phone, each once, as `ROWS`."""

    def read() -> list[pa.Table]:
        manifest = lake.manifest(partition)
        tables = []
        for file in (*manifest.files, *(manifest.rides if Kind.RIDE_DOCUMENT in kinds else ())):
            table = lake.read(partition, [file]).cast(ROWS)
            tables.append(table.filter(pc.or_(_of(table, kinds), pc.is_valid(table["links"]))))
        return tables

    return first_of_each(pa.concat_tables([ROWS.empty_table(), *again(read)]))


def _elsewhere(lake: Lake, partition: int, crossings: Sequence[Crossing]) -> list[pa.Table]:
    """What other partitions hold of the partition's rides and messages, as `ROWS`."""
    found = []
    for other, crossed in enumerate(crossings):
        both = np.intersect1d(crossings[partition].things, crossed.things, assume_unique=True)
        if other != partition and len(both):
            things = _things(_rows(lake, other, _THINGS))
            found.append(things.filter(pa.array(np.isin(_hashes(things), both))))
    return found


def _things(rows: pa.Table) -> pa.Table:
    return rows.filter(_of(rows, _THINGS))


def _hashes(things: pa.Table) -> npt.NDArray[np.uint64]:
    """Hashes of the rides and messages that rows are about."""
    names = zip(things["kind"].to_pylist(), things["name"].to_pylist(), strict=True)
    return np.array([stable_hash(f"{kind}\0{name}") for kind, name in names], np.uint64)


def _of(rows: pa.Table, kinds: Iterable[Kind]) -> pa.ChunkedArray:
    return pc.is_in(rows["kind"], value_set=pa.array([str(kind) for kind in kinds]))


def _counted(rows: pa.Table) -> pa.Table:
    """Of rows of kinds that may be errors, those that are."""
    kinds, bodies = rows["kind"].to_pylist(), rows["body"].to_pylist()
    return rows.filter(pa.array([counts_as_error(k, b) for k, b in zip(kinds, bodies, strict=True)], pa.bool_()))


def _errors(rows: pa.Table, whose: Sequence[tuple[int, str]]) -> pa.Table:
    """`ERRORS` of some rows, given as (index, user)."""
    taken = rows.take(pa.array([row for row, _ in whose], pa.int64()))
    users = pa.array([user for _, user in whose], pa.string())
    columns = [users, *(taken[name].combine_chunks() for name in ERRORS.names[1:])]
    return pa.Table.from_arrays(columns, names=ERRORS.names).cast(ERRORS)


def _of_phones(crossings: Sequence[Crossing], partition: int, partitions: int) -> pa.Table:
    """`ERRORS` that phones sent while they were of users of this partition."""
    links: defaultdict[str, list[Link]] = defaultdict(list)
    taken_back: defaultdict[str, dict[str, int]] = defaultdict(dict)
    phones = pa.concat_tables([c.phones for c in crossings])
    failing = pc.unique(pc.utf8_slice_codeunits(phones["key"], 2))
    for crossed in crossings:
        for row in crossed.links.filter(pc.is_in(crossed.links["links"], value_set=failing)).to_pylist():
            phone, user, received_at = row["links"], row["user_id"], row["received_at"]
            if user is None:
                continue
            if row["kind"] == Kind.UNLINK:
                taken_back[phone][user] = max(received_at, taken_back[phone].get(user, 0))
            else:
                links[phone].append(Link(row["event_time"], received_at, user))
    whose: list[tuple[int, str]] = []
    for i, (key, at) in enumerate(zip(phones["key"].to_pylist(), phones["event_time"].to_pylist(), strict=True)):
        phone = key[2:]
        stand = standing(links[phone], taken_back[phone])
        whose += [
            (i, user)
            for user in sorted({link.user_id for link in stand})
            if partition_of(f"u:{user}", partitions) == partition and _within(owned(stand, user), at)
        ]
    return _errors(phones, whose)


def _within(parts: Iterable[Owned], at: int) -> bool:
    return any((p.since is None or p.since <= at) and (p.until is None or at < p.until) for p in parts)


_Standing = dict[tuple[str, str], bytes]
"""(subject, "o:RIDE" or "m:MESSAGE") -> the document that stands, the newest last."""


def _standing(documents: pa.Table) -> _Standing:
    """What stands after all documents of a partition."""
    found: _Standing = {}
    columns = (documents.sort_by("seq")[name].to_pylist() for name in ("kind", "key", "name", "body"))
    for kind, key, name, body in zip(*columns, strict=True):
        if kind == Kind.MOVED:
            found.pop((key, name), None)
        elif kind == Kind.RIDE_DOCUMENT:
            found.pop((key, f"o:{name}"), None)
            if not ride_head(body).deleted:
                found[key, f"o:{name}"] = body
        else:
            head = message_head(body)
            found.pop((key, f"m:{name}"), None)
            if not head.deleted:
                found[key, f"m:{name}"] = bytes(head.document)
    return found


def _loaded(own: pa.Table, documents: _Standing, known_at: int) -> Loaded:
    """What the incremental path would have loaded, of all subjects of the partition."""
    rides: defaultdict[str, dict[str, None]] = defaultdict(dict)
    messages: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for kind, key, name in zip(*(own[c].to_pylist() for c in ("kind", "key", "name")), strict=True):
        if kind == Kind.RIDE:
            rides[key][name] = None
        elif kind == Kind.MESSAGE:
            messages[key][name] = None
    listed: defaultdict[str, set[str]] = defaultdict(set)
    for key, thing in documents:
        listed[key].add(thing)
    subjects = [
        Subject(key, tuple(rides.get(key, ())), tuple(messages.get(key, ())), known_at, frozenset(listed.get(key, ())))
        for key in sorted({*rides, *messages})
    ]
    ride_documents = {thing[2:]: text for (_, thing), text in documents.items() if thing.startswith("o:")}
    message_documents = {thing[2:]: text for (_, thing), text in documents.items() if thing.startswith("m:")}
    return Loaded(subjects, FACT_ROWS.empty_table(), ERRORS.empty_table(), ride_documents, message_documents)


def _cores(found: Documents, partition: int, partitions: int) -> tuple[list[bytes], list[bytes]]:
    """The documents of the partition's subjects, as far as they do not depend on when they were computed."""
    rides = [r.core[:-1] for r in found.rides.values() if partition_of(r.subject, partitions) == partition]
    messages = [m.core for m in found.messages.values() if partition_of(m.subject, partitions) == partition]
    return rides, messages


def _digest(rides: Iterable[bytes], messages: Iterable[bytes]) -> str:
    """One digest of documents, in whatever order they come (XXH3, 128 bits)."""
    total = xxhash.xxh3_128()
    for text in sorted(rides):
        total.update(text + b"\n")
    for text in sorted(messages):
        total.update(text + b"\n")
    return total.hexdigest()
