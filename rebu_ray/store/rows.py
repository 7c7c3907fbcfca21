"""Rows: the Arrow form of records, in which they travel, are journalled, indexed and kept in the lake.

`WIRE` is what an ingest replica hands to a shard; `ROWS` adds `seq`, the record's place in its
partition's journal, counted from 1 without a gap.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, NamedTuple, cast

import numpy as np
import pyarrow as pa
import xxhash

from rebu_ray.records import Kind, MatchedBy, Record, Source, stable_hash

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


class Columns(NamedTuple):
    """Rows on their way to a batch: one list for each column of `WIRE`, in its order."""

    partition: Sequence[int]
    fingerprint: Sequence[int]
    key: Sequence[str]
    id: Sequence[str]
    kind: Sequence[Kind]
    name: Sequence[str]
    source: Sequence[Source]
    event_time: Sequence[int]
    received_at: Sequence[int]
    user_id: Sequence[str | None]
    anonymous_id: Sequence[str | None]
    request_id: Sequence[str | None]
    matched_by: Sequence[MatchedBy | None]
    links: Sequence[str | None]
    body: Sequence[bytes]

    @property
    def height(self) -> int:
        """How many rows these are."""
        return len(self.key)

    def take(self, chosen: Sequence[int]) -> Columns:
        """Some of the rows."""
        if chosen == range(self.height):
            return self
        return Columns._make([column[i] for i in chosen] for column in self)

    def batch(self) -> pa.RecordBatch:
        """The rows as one `WIRE` batch."""
        return pa.record_batch(
            [_array(values, kind) for values, kind in zip(self, WIRE.types, strict=True)], schema=WIRE
        )


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    # In many columns all rows say the same, and then it is mostly one object: that is seen at a glance.
    if len(values) > 1 and values[0] is values[-1] and values.count(values[0]) == len(values):
        return pa.nulls(len(values), kind) if values[0] is None else pa.repeat(pa.scalar(values[0], kind), len(values))
    return pa.array(values, kind)


def columns(routed: Sequence[Routed]) -> Columns:
    """Routed records column by column, in the order given."""
    records = [r.record for r in routed]
    return Columns(
        [r.partition for r in routed],
        [fingerprint(r.key, r.record.id) for r in routed],
        [r.key for r in routed],
        [r.id for r in records],
        [r.kind for r in records],
        [r.name for r in records],
        [r.source for r in records],
        [r.event_time for r in records],
        [r.received_at for r in records],
        [r.user_id for r in records],
        [r.anonymous_id for r in records],
        [r.request_id for r in records],
        [r.matched_by for r in records],
        [r.links for r in records],
        [r.body for r in records],
    )


def joined(parts: Sequence[Columns]) -> Columns:
    """The rows of several, one after the other."""
    return parts[0] if len(parts) == 1 else Columns._make(list(chain(*same)) for same in zip(*parts, strict=True))


def to_batch(routed: Sequence[Routed]) -> pa.RecordBatch:
    """Records as one `WIRE` batch, in the order given."""
    return columns(routed).batch()


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


# Bytes that JSON escapes in a string; text without any is its own JSON between two quotes.
_ESCAPED: Final = bytes((*range(0x20), *b'"\\'))


def json_text(text: str | None) -> str:
    """A text as JSON, in the one way in which fragments write it."""
    return json.dumps(text, ensure_ascii=False)


def json_strings(texts: Sequence[str | None]) -> list[bytes]:
    """Each text as a JSON string, None as ``null``."""
    if not texts:
        return []
    try:
        joined = "\n".join(texts).encode()  # type: ignore[arg-type]
    except TypeError:  # there is a None among them
        return [json_text(text).encode() for text in texts]
    if len(joined) - len(joined.translate(None, _ESCAPED)) >= len(texts):
        return [json_text(text).encode() for text in texts]
    return b'"%b"'.__mod__(joined.replace(b"\n", b'"\n"')).split(b"\n")


def repeated_json(texts: Sequence[str | None]) -> list[bytes]:
    """`json_strings` for texts of which few differ."""
    table = {text: json_text(text).encode() for text in set(texts)}
    return [table[text] for text in texts]


def rfc3339(times: pa.Array) -> list[bytes]:
    """Milliseconds since the epoch (0 to 9999) as RFC 3339 text, UTC, with milliseconds."""
    days, rest = np.divmod(times.to_numpy(), 86_400_000)
    seconds, milliseconds = np.divmod(rest, 1000)
    minutes, second = np.divmod(seconds, 60)
    hour, minute = np.divmod(minutes, 60)
    stamps = np.full(len(days), _STAMP)
    one_day = len(days) > 0 and bool((days == days[0]).all())
    stamps["date"] = np.datetime_as_string((days[:1] if one_day else days).astype("datetime64[D]")).astype("S10")
    stamps["hour"], stamps["minute"], stamps["second"] = _TWO_DIGITS[hour], _TWO_DIGITS[minute], _TWO_DIGITS[second]
    stamps["millisecond"] = _THREE_DIGITS[milliseconds]
    return cast(list[bytes], stamps.view("S24").tolist())


_TWO_DIGITS: Final = np.array([b"%02d" % n for n in range(100)])
_THREE_DIGITS: Final = np.array([b"%03d" % n for n in range(1000)])
_STAMP: Final = np.array(
    (b"", b"T", b"", b":", b"", b":", b"", b".", b"", b"Z"),
    [
        ("date", "S10"),
        ("T", "S1"),
        ("hour", "S2"),
        ("to minute", "S1"),
        ("minute", "S2"),
        ("to second", "S1"),
        ("second", "S2"),
        ("to millisecond", "S1"),
        ("millisecond", "S3"),
        ("Z", "S1"),
    ],
)


# Row by row: at this size of text, formatting bytes is several times as fast as joining Arrow columns.
def fragments(batch: pa.RecordBatch) -> list[bytes]:
    """What an answer shows of each row: the text of a JSON object from its second key on.

    A history item is ``{"user_id":"U",`` and the fragment; it begins with the name, so that a filter
    by name is a comparison of its first bytes. A dead letter is ``{`` and the fragment.
    """
    if not batch.num_rows:
        return []
    kinds = batch["kind"].unique().to_pylist()
    dead = Kind.DEAD_LETTER in kinds
    if dead and len(kinds) > 1:
        raise ValueError("dead letters and records of a history cannot share a batch of fragments")
    name, source = _few(batch["name"]), _few(batch["source"])
    received, bodies = _times(batch["received_at"]), batch["body"].to_pylist()
    ids = json_strings(batch["id"].to_pylist())
    if dead:
        return _filled(
            (b'"id":', ids),
            (b',"source":', source),
            (b',"received_at":"', received),
            (b'","reason":', name),
            (b',"record":', bodies),
        )
    phones = batch["anonymous_id"]
    return _filled(
        (b'"name":', name),
        (b',"kind":', _few(batch["kind"])),
        (b',"id":', ids),
        (b',"timestamp":"', _times(batch["event_time"])),
        (b'","received_at":"', received),
        (b'","source":', source),
        (b',"anonymous_id":', b"null" if phones.null_count == len(phones) else json_strings(phones.to_pylist())),
        (b',"matched_by":', _few(batch["matched_by"])),
        (b',"body":', bodies),
    )


_Value = bytes | list[bytes]
"""A field's JSON: the same in all rows, or one a row."""


def _few(column: pa.Array) -> _Value:
    """The JSON strings of a column in which few texts differ."""
    table = {text: json_text(text).encode() for text in column.unique().to_pylist()}
    return next(iter(table.values())) if len(table) == 1 else [table[text] for text in column.to_pylist()]


def _times(column: pa.Array) -> _Value:
    ms = column.to_numpy()
    return rfc3339(column[:1])[0] if (ms == ms[0]).all() else rfc3339(column)


def _filled(*fields: tuple[bytes, _Value]) -> list[bytes]:
    """Rows of fields, each its text and its value one after the other, and a closing brace."""
    shape = b"".join(
        text + (b"%b" if isinstance(value, list) else value.replace(b"%", b"%%")) for text, value in fields
    )
    columns = [value for _, value in fields if isinstance(value, list)]
    return list(map((shape + b"}").__mod__, zip(*columns, strict=True)))
