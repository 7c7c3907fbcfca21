"""Members: how one row stands in a stream's sorted set in Redis.

    event time (8 bytes, big endian) | id (UTF-8) | 0x00 | kind | source | seq (6 bytes) | zstd of the fragment

Members of one set share the score 0, so Redis keeps them in the order of their bytes, which is the order
of (event time, id): a cursor is a place in that order and a page is one `ZRANGE BYLEX`. The fragment is
compressed against a fixed dictionary of what such fragments have in common, which brings the entropy tables too.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import zstandard

from rebu_ray.records import Kind, Source
from rebu_ray.store.rows import fragments

KIND_CODES: Final[dict[str, int]] = {kind: i for i, kind in enumerate(Kind, start=1)}
SOURCE_CODES: Final[dict[str, int]] = {source: i for i, source in enumerate(Source, start=1)}

# Changing a byte of this makes every index unreadable: give INDEX_FORMAT a new number with it, and every
# index is rebuilt at the next start. The end of the text is what matches cheapest.
INDEX_FORMAT: Final = 3
CONTENT: Final = (
    b'"code":500,"message":"upstream timed out (110: Connection timed out) while reading response header from'
    b' upstream","level":"error","client":"10.0.","server":"api","request":"GET /users/","method":"POST","path":'
    b'"/rides","status":200,"bytes":,"referer":null,"user_agent":"okhttp/","remote_addr":"","remote_user":null,'
    b'"query":null,"protocol":"HTTP/1.1","request_id":"","line":""GET HTTP/1.1\\" 200 "-\\" \\"-\\"'
    b'"error":{"name":"","message":"","stack":"    at ","fatal":false},"traits":{"name":"","email":"","phone":""}'
    b',"type":"identify","type":"screen","type":"page","type":"error","integrations":{},"channel":"mobile",'
    b'"context":{"app":{"name":"","version":"","build":""},"device":{"type":"android","manufacturer":"","model":""},'
    b'"os":{"name":"iOS","version":""},"locale":"en-US","timezone":"Europe/","network":{"carrier":"","wifi":true},'
    b'"library":{"name":"analytics-python","version":"2.4.0"}},"properties":{"ride_id":"","city":"","fare_cents":,'
    b'"originalTimestamp":"20","sentAt":"20","timestamp":"20","matched_by":"path","body":{"matched_by":"request_id",'
    b'"body":{"kind":"server_error","id":"","source":"error","kind":"server_access","id":"","source":"access",'
    b'"kind":"app_error","id":"","source":"app-errors","anonymous_id":null,"matched_by":"anonymous_id","body":{'
    b'"name":"","kind":"app_event","id":"","timestamp":"20","received_at":"20","source":"app-events","anonymous_id":'
    b'"","matched_by":"user_id","body":{"type":"track","messageId":"","userId":"","anonymousId":"","event":"",'
    b'"timestamp":"20","properties":{"'
)
LEVEL: Final = -5
# Made by scripts/index_tables.py.
_TABLES: Final = base64.b64decode(
    "N6Qw7AEAAAA2EMiSpA3///////+XDXz0bbOEEN5Ia8Qi0j6llO0D1HzOtuqjMXrq2L/Qyu7u3tlSIjjc7w6YwwAADAyJReQHdR8AAATAwIyNlB"
    "aako6IhrJ4ZCKWoigGoACGgjAQAMCAN1AAAAAAAAAkEUEgVCqMA4LRYAwcx1EMxbQMYkEJAAAAAQAAAAQAAAAIAAAA"
)
_DICTIONARY: Final = zstandard.ZstdCompressionDict(_TABLES + CONTENT, dict_type=zstandard.DICT_TYPE_FULLDICT)
_DICTIONARY.precompute_compress(level=LEVEL)

PAYLOAD: Final = 9
"""Where the compressed fragment begins, counted from the end of the place."""


class Codec:
    """Compresses and decompresses fragments. Not for two threads at once."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(
            level=LEVEL, dict_data=_DICTIONARY, write_checksum=False, write_dict_id=False
        )
        self.decompress: Callable[[bytes], bytes] = zstandard.ZstdDecompressor(dict_data=_DICTIONARY).decompress
        """What was compressed."""

    def compress(self, fragments: list[bytes | bytearray | memoryview]) -> list[bytes]:
        """Each fragment compressed by itself."""
        found = self._compressor.multi_compress_to_buffer(fragments)
        return [found[i].tobytes() for i in range(len(found))]


class Member(NamedTuple):
    """A member taken apart, its payload still compressed."""

    place: bytes
    """Event time and id, as in the set: what a cursor is made of."""
    kind: int
    source: int
    seq: int
    payload: bytes


def place(event_time: int, record_id: str) -> bytes:
    """Where (event time in ms, id) stands in the order of a stream."""
    return struct.pack(">q", event_time) + record_id.encode()


def time_place(event_time: int) -> bytes:
    """The place just before the first record of that millisecond."""
    return struct.pack(">q", max(event_time, 0))


def place_time(at: bytes) -> int:
    """The event time (ms) of a place."""
    return int(struct.unpack_from(">q", at)[0])


def place_id(at: bytes) -> str:
    """The record id of a place."""
    return at[8:].decode()


def split(member: bytes) -> Member:
    """Take a member apart. Raises ValueError where it has another form."""
    end = member.index(0, 8)  # ids hold no NUL; the eight bytes of the time may
    kind, source = member[end + 1], member[end + 2]
    return Member(
        member[:end], kind, source, int.from_bytes(member[end + 3 : end + PAYLOAD], "big"), member[end + PAYLOAD :]
    )


def members(batch: pa.RecordBatch, codec: Codec) -> list[bytes]:
    """The members of a batch of `ROWS`, one a row."""
    count = batch.num_rows
    if not count:
        return []
    times = batch["event_time"].to_numpy().astype(">i8").tobytes()
    heads = np.zeros((count, PAYLOAD), np.uint8)
    heads[:, 1] = _codes(batch["kind"], KIND_CODES)
    heads[:, 2] = _codes(batch["source"], SOURCE_CODES)
    heads[:, 3:] = batch["seq"].to_numpy().astype(">i8").view(np.uint8).reshape(count, 8)[:, 2:]
    packed = heads.tobytes()
    columns = zip(
        [times[i : i + 8] for i in range(0, len(times), 8)],
        batch["id"].cast(pa.binary()).to_pylist(),
        [packed[i : i + PAYLOAD] for i in range(0, len(packed), PAYLOAD)],
        codec.compress([*fragments(batch)]),
        strict=True,
    )
    return list(map(b"".join, columns))


def _codes(column: pa.Array, codes: Mapping[str, int]) -> int | list[int]:
    """The code of each row, or the one of all."""
    found = column.unique().to_pylist()
    return codes[found[0]] if len(found) == 1 else [codes[text] for text in column.to_pylist()]


def kind_codes(kinds: Iterable[str]) -> frozenset[int]:
    """The codes of kinds, for a filter."""
    return frozenset(KIND_CODES[k] for k in kinds)
