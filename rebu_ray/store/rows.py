"""Rows: the Arrow form of records, in which they travel, are journalled, indexed and kept in the lake.

`WIRE` is what an ingest replica hands to a shard; `ROWS` adds `seq`, the record's place in its
partition's journal, counted from 1 without a gap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa
import xxhash

from rebu_ray.records import Kind, Record, stable_hash

WIRE = pa.schema(
    [
        pa.field("partition", pa.uint16(), nullable=False),
        pa.field("fingerprint", pa.uint64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("event_time", pa.int64(), nullable=False),
        pa.field("received_at", pa.int64(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("anonymous_id", pa.string()),
        pa.field("request_id", pa.string()),
        pa.field("matched_by", pa.string()),
        pa.field("links", pa.string()),
        pa.field("body", pa.binary(), nullable=False),
    ]
)
ROWS = WIRE.insert(0, pa.field("seq", pa.int64(), nullable=False))


class Routed(NamedTuple):
    """A record with the stream and the partition that it belongs to."""

    partition: int
    key: str
    record: Record


def partition_of(key: str, partitions: int) -> int:
    """The partition of a stream key: fixed for the life of a data directory."""
    return stable_hash(key) % partitions


def fingerprint(key: str, record_id: str) -> int:
    """64 bits that stand for (stream key, record id) where duplicates are looked for (XXH3)."""
    return xxhash.xxh3_64_intdigest(f"{key}\0{record_id}".encode("utf-8", "surrogatepass"))


def to_batch(routed: Sequence[Routed]) -> pa.RecordBatch:
    """Records as one `WIRE` batch, in the order given."""
    records = [r.record for r in routed]
    return pa.record_batch(
        [
            pa.array([r.partition for r in routed], pa.uint16()),
            pa.array([fingerprint(r.key, r.record.id) for r in routed], pa.uint64()),
            pa.array([r.key for r in routed], pa.string()),
            pa.array([r.id for r in records], pa.string()),
            pa.array([r.kind for r in records], pa.string()),
            pa.array([r.name for r in records], pa.string()),
            pa.array([r.source for r in records], pa.string()),
            pa.array([r.event_time for r in records], pa.int64()),
            pa.array([r.received_at for r in records], pa.int64()),
            pa.array([r.user_id for r in records], pa.string()),
            pa.array([r.anonymous_id for r in records], pa.string()),
            pa.array([r.request_id for r in records], pa.string()),
            pa.array([r.matched_by for r in records], pa.string()),
            pa.array([r.links for r in records], pa.string()),
            pa.array([r.body for r in records], pa.binary()),
        ],
        schema=WIRE,
    )


def encode(batch: pa.RecordBatch) -> bytes:
    """The bytes of a batch without its schema; `decode` with the same schema reads them."""
    data: bytes = batch.serialize().to_pybytes()
    return data


def decode(data: bytes, schema: pa.Schema = WIRE) -> pa.RecordBatch:
    """The batch that `encode` wrote. Raises `pa.ArrowInvalid` where the bytes are no such batch."""
    return pa.ipc.read_record_batch(pa.py_buffer(data), schema)


def with_seq(batch: pa.RecordBatch, seq: pa.Array) -> pa.RecordBatch:
    """A `WIRE` batch as `ROWS`."""
    return pa.record_batch([seq, *batch.columns], schema=ROWS)


def empty() -> pa.Table:
    """No rows."""
    return ROWS.empty_table()


# Characters that JSON escapes in a string; text without any is its own JSON between two quotes.
_NEEDS_ESCAPE = re.compile(r'["\\\x00-\x1f]')


def json_text(text: str | None) -> str:
    """A text as JSON, in the one way in which fragments write it."""
    return json.dumps(text, ensure_ascii=False)


def json_strings(texts: Sequence[str | None]) -> list[bytes]:
    """Each text as a JSON string, None as ``null``."""
    if _NEEDS_ESCAPE.search("".join(filter(None, texts))):
        return [json_text(text).encode() for text in texts]
    return [b"null" if text is None else b'"%b"' % text.encode() for text in texts]


def repeated_json(texts: Sequence[str | None]) -> list[bytes]:
    """`json_strings` for texts of which few differ."""
    table = {text: json_text(text).encode() for text in set(texts)}
    return [table[text] for text in texts]


def rfc3339(times: pa.Array) -> list[bytes]:
    """Milliseconds since the epoch as RFC 3339 text, UTC, with milliseconds."""
    ms = times.to_numpy().astype("datetime64[ms]")
    if len(ms) and (ms == ms[0]).all():
        return rfc3339(times[:1]) * len(ms) if len(ms) > 1 else [str(ms[0]).encode() + b"Z"]
    return cast(list[bytes], np.datetime_as_string(ms, unit="ms", timezone="UTC").astype("S24").tolist())


# Row by row: at this size of text, formatting bytes is several times as fast as joining Arrow columns.
def fragments(batch: pa.RecordBatch) -> list[bytes]:
    """What an answer shows of each row: the text of a JSON object from its second key on.

    A history item is ``{"user_id":"U",`` and the fragment; it begins with the name, so that a filter
    by name is a comparison of its first bytes. A dead letter is ``{`` and the fragment.
    """
    kinds = batch["kind"].to_pylist()
    dead = kinds.count(Kind.DEAD_LETTER)
    if dead and dead < len(kinds):
        raise ValueError("dead letters and records of a history cannot share a batch of fragments")
    names, ids = repeated_json(batch["name"].to_pylist()), json_strings(batch["id"].to_pylist())
    sources = repeated_json(batch["source"].to_pylist())
    received, bodies = rfc3339(batch["received_at"]), batch["body"].to_pylist()
    if dead:
        shape = b'"id":%b,"source":%b,"received_at":"%b","reason":%b,"record":%b}'
        return [shape % parts for parts in zip(ids, sources, received, names, bodies, strict=True)]
    shape = (
        b'"name":%b,"kind":%b,"id":%b,"timestamp":"%b","received_at":"%b","source":%b,'
        b'"anonymous_id":%b,"matched_by":%b,"body":%b}'
    )
    columns = zip(
        names,
        repeated_json(kinds),
        ids,
        rfc3339(batch["event_time"]),
        received,
        sources,
        json_strings(batch["anonymous_id"].to_pylist()),
        repeated_json(batch["matched_by"].to_pylist()),
        bodies,
        strict=True,
    )
    return [shape % parts for parts in columns]
