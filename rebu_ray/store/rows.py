"""Rows: the Arrow form of records, in which they travel, are journalled, indexed and kept in the lake.

`WIRE` is what an ingest replica hands to a shard; `ROWS` adds `seq`, the record's place in its
partition's journal, counted from 1 without a gap.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
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
_NEEDS_ESCAPE = r'["\\\x00-\x1f]'


def json_text(text: str | None) -> str:
    """A text as JSON, in the one way in which fragments write it."""
    return json.dumps(text, ensure_ascii=False)


def json_strings(column: pa.Array) -> pa.Array:
    """Each text as a JSON string, null as ``null``."""
    escape = pc.any(pc.match_substring_regex(column, _NEEDS_ESCAPE)).as_py()
    if escape:
        return pa.array([json_text(v) for v in column.to_pylist()], pa.string())
    quoted = pc.binary_join_element_wise('"', column, '"', "")
    return pc.fill_null(quoted, "null") if column.null_count else quoted


def rfc3339(column: pa.Array) -> pa.Array:
    """Milliseconds since the epoch as RFC 3339 text, UTC, with milliseconds."""
    return pc.strftime(column.cast(pa.timestamp("ms")), format="%Y-%m-%dT%H:%M:%SZ", locale="C")


def fragments(batch: pa.RecordBatch) -> pa.Array:
    """What an answer shows of each row: the text of a JSON object from its second key on, as binary.

    A history item is ``{"user_id":"U",`` and the fragment; it begins with the name, so that a filter
    by name is a comparison of its first bytes. A dead letter is ``{`` and the fragment.
    """
    dead = pc.equal(batch["kind"], Kind.DEAD_LETTER)
    if pc.any(dead).as_py():
        if not pc.all(dead).as_py():
            raise ValueError("dead letters and records of a history cannot share a batch of fragments")
        parts = [
            '"id":', json_strings(batch["id"]),
            ',"source":', json_strings(batch["source"]),
            ',"received_at":"', rfc3339(batch["received_at"]),
            '","reason":', json_strings(batch["name"]),
            ',"record":',
        ]  # fmt: skip
    else:
        parts = [
            '"name":', json_strings(batch["name"]),
            ',"kind":"', batch["kind"],
            '","id":', json_strings(batch["id"]),
            ',"timestamp":"', rfc3339(batch["event_time"]),
            '","received_at":"', rfc3339(batch["received_at"]),
            '","source":"', batch["source"],
            '","anonymous_id":', json_strings(batch["anonymous_id"]),
            ',"matched_by":', json_strings(batch["matched_by"]),
            ',"body":',
        ]  # fmt: skip
    head = pc.binary_join_element_wise(*parts, "")
    return pc.binary_join_element_wise(head.cast(pa.binary()), batch["body"], b"}", b"")
