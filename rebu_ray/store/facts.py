"""What Redis keeps about rides and messages: the facts that documents are computed from, and the documents.

A key belongs to the partition of what it is about, which need not be the partition of the row that said it:

    rebu{P}o:RIDE       hash record id -> fact: every version of the ride's row, every change of its destination
    rebu{P}m:MESSAGE    hash record id -> fact: every version of the message
    rebu{P}p:USER       hash record id -> fact: every version of the user's row
    rebu{P}v:DRIVER     hash record id -> fact: every version of the driver's row
    rebu{P}k:SUBJECT    set of the rides ("o:RIDE") and messages ("m:MESSAGE") of a subject
    rebu{P}V:DRIVER     set of the subjects who were driven by the driver
    rebu{P}e:STREAM     sorted set of errors, in the order of their places: what errors in a ride are counted from
    rebu{P}r:RIDE       the ride's document, compressed
    rebu{P}s:MESSAGE    the message's document, compressed
    rebu{P}a:RIDE       hash message id -> what the ride's list of messages shows, compressed
    rebu{P}R:SUBJECT    sorted set ride id -> requested at (ms)
    rebu{P}M:SUBJECT    sorted set message id -> sent at (ms)
    rebu{P}n            sorted set ride id -> seq of its newest document, for those that the lake does not hold yet

A *subject* is whose documents are computed together: the stream of a user (``u:``), or of a ride or a message that
names no user (``o:``, ``m:``).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.records import Kind
from rebu_ray.store.index import Command, unflushed_key
from rebu_ray.store.member import KIND_CODES, Codec, place, place_id, place_time
from rebu_ray.store.rows import partition_of

ERROR_KINDS: Final = (Kind.APP_ERROR, Kind.SERVER_ERROR, Kind.SERVER_ACCESS)
_KINDS: Final = dict(enumerate(Kind, start=1))
_ROWS: Final = (Kind.USER, Kind.DRIVER, Kind.RIDE, Kind.RIDE_DESTINATION, Kind.MESSAGE)
_DOCUMENTS: Final = (Kind.RIDE_DOCUMENT, Kind.MESSAGE_DOCUMENT, Kind.MOVED)
_TAKEN_IN: Final = pa.array([str(kind) for kind in (*_ROWS, *_DOCUMENTS, *ERROR_KINDS)])


class Keys:
    """The keys of a platform with so many partitions."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions

    def ride(self, ride_id: str) -> bytes:
        return self._key(b"o:", f"o:{ride_id}", ride_id)

    def message(self, message_id: str) -> bytes:
        return self._key(b"m:", f"m:{message_id}", message_id)

    def user(self, user_id: str) -> bytes:
        return self._key(b"p:", f"u:{user_id}", user_id)

    def driver(self, driver_id: str) -> bytes:
        return self._key(b"v:", f"v:{driver_id}", driver_id)

    def things(self, subject: str) -> bytes:
        return self._key(b"k:", subject, subject)

    def riders(self, driver_id: str) -> bytes:
        return self._key(b"V:", f"v:{driver_id}", driver_id)

    def errors(self, stream: str) -> bytes:
        return self._key(b"e:", stream, stream)

    def ride_document(self, ride_id: str) -> bytes:
        return self._key(b"r:", f"o:{ride_id}", ride_id)

    def message_document(self, message_id: str) -> bytes:
        return self._key(b"s:", f"m:{message_id}", message_id)

    def about(self, ride_id: str) -> bytes:
        return self._key(b"a:", f"o:{ride_id}", ride_id)

    def rides(self, subject: str) -> bytes:
        return self._key(b"R:", subject, subject)

    def messages(self, subject: str) -> bytes:
        return self._key(b"M:", subject, subject)

    def unflushed(self, partition: int) -> bytes:
        return unflushed_key(partition)

    def _key(self, letter: bytes, stream: str, name: str) -> bytes:
        return b"rebu{%d}" % partition_of(stream, self.partitions) + letter + name.encode()


class Fact(NamedTuple):
    """A row as it is kept in Redis. Times are ms."""

    kind: Kind
    received_at: int
    event_time: int
    body: bytes


def pack_fact(kind: str, received_at: int, event_time: int, body: bytes) -> bytes:
    """A fact as bytes; `body` as `Codec.compress` made it."""
    return struct.pack(">Bqq", KIND_CODES[kind], received_at, event_time) + body


def parse_fact(data: bytes, codec: Codec) -> Fact:
    """What `pack_fact` wrote."""
    kind, received_at, event_time = struct.unpack_from(">Bqq", data)
    return Fact(_KINDS[kind], received_at, event_time, codec.decompress(data[17:]))


class ErrorEntry(NamedTuple):
    """An error as documents count it. Times are ms."""

    event_time: int
    id: str
    kind: Kind
    received_at: int
    name: str


def error_member(entry: ErrorEntry) -> bytes:
    """An error as a member of its stream's sorted set."""
    head = struct.pack(">Bq", KIND_CODES[entry.kind], entry.received_at)
    return place(entry.event_time, entry.id) + b"\0" + head + entry.name.encode()


def parse_error(member: bytes) -> ErrorEntry:
    """What `error_member` wrote."""
    end = member.index(0, 8)
    kind, received_at = struct.unpack_from(">Bq", member, end + 1)
    at = member[:end]
    return ErrorEntry(place_time(at), place_id(at), _KINDS[kind], received_at, member[end + 10 :].decode())


class _Access(msgspec.Struct, gc=False):
    status: msgspec.Raw = msgspec.Raw(b"null")


class _Row(msgspec.Struct, gc=False):
    """What a table's row must say to be found again."""

    driver_id: Any = None


_ACCESS: Final = msgspec.json.Decoder(_Access)
_STATUS: Final = re.compile(rb'"(\d{1,9})"|(-?\d{1,18}(?:\.\d{1,9})?(?:[eE][+-]?\d)?)')
"""A status as text, or as a number that some server may have sent."""
_ROW: Final = msgspec.json.Decoder(_Row)


def counts_as_error(kind: str, body: bytes) -> bool:
    """Whether a record is an error: an app error, a server error, or an access entry with status >= 500."""
    if kind != Kind.SERVER_ACCESS:
        return kind in ERROR_KINDS
    found = _STATUS.fullmatch(bytes(_ACCESS.decode(body).status))
    return found is not None and float(found[1] or found[2]) >= 500


class RideHead(msgspec.Struct):
    """What the index has to know of a ride's document."""

    ride_id: str
    deleted: bool = False


class MessageHead(msgspec.Struct):
    """What the index has to know of a message's document."""

    message_id: str
    deleted: bool = False
    about: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)
    """ride id -> the message as the ride's list shows it, of every ride that it may be about."""
    no_longer: list[str] = msgspec.field(default_factory=list)
    """Rides that an earlier version may have been about."""
    document: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class MovedHead(msgspec.Struct):
    """What the index has to know of a record of kind moved, whose name is ``o:RIDE`` or ``m:MESSAGE``."""

    no_longer: list[str] = msgspec.field(default_factory=list)
    """Rides of the subject that the message may have been about."""


_RIDE_HEAD: Final = msgspec.json.Decoder(RideHead)
_MESSAGE_HEAD: Final = msgspec.json.Decoder(MessageHead)
_MOVED_HEAD: Final = msgspec.json.Decoder(MovedHead)


def ride_head(body: bytes) -> RideHead:
    """The head of a record of kind ride_document."""
    return _RIDE_HEAD.decode(body)


def message_head(body: bytes) -> MessageHead:
    """The head of a record of kind message_document."""
    return _MESSAGE_HEAD.decode(body)


def taken_in(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of a batch that `commands` has commands for."""
    wanted = pc.is_in(batch["kind"], value_set=_TAKEN_IN)
    if not wanted.true_count:
        return batch.slice(0, 0)
    return batch if wanted.true_count == batch.num_rows else batch.filter(wanted)


def commands(batch: pa.RecordBatch, partitions: int, codec: Codec) -> list[Command]:
    """The Redis commands that index the facts and documents in a batch of `ROWS`: twice is the same as once."""
    rows = taken_in(batch).to_pylist()
    if not rows:
        return []
    keys = Keys(partitions)
    out: list[Command] = []
    facts = [row for row in rows if row["kind"] in _ROWS]
    for row, body in zip(facts, codec.compress([row["body"] for row in facts]) if facts else (), strict=True):
        out += _fact(keys, row, pack_fact(row["kind"], row["received_at"], row["event_time"], body))
    for row in rows:
        if row["kind"] == Kind.RIDE_DOCUMENT:
            out += _ride_document(keys, row, codec)
        elif row["kind"] == Kind.MESSAGE_DOCUMENT:
            out += _message_document(keys, row, codec)
        elif row["kind"] == Kind.MOVED:
            out += _moved(keys, row)
        elif row["kind"] in ERROR_KINDS and row["key"][0] in "ua" and counts_as_error(row["kind"], row["body"]):
            entry = ErrorEntry(row["event_time"], row["id"], Kind(row["kind"]), row["received_at"], row["name"])
            out.append(("ZADD", keys.errors(row["key"]), b"0", error_member(entry)))
    return out


def _fact(keys: Keys, row: dict[str, Any], fact: bytes) -> Iterable[Command]:
    kind, name, subject = row["kind"], row["name"], row["key"]
    if kind == Kind.USER:
        yield "HSETNX", keys.user(name), row["id"], fact
    elif kind == Kind.DRIVER:
        yield "HSETNX", keys.driver(name), row["id"], fact
    elif kind == Kind.MESSAGE:
        yield "HSETNX", keys.message(name), row["id"], fact
        yield "SADD", keys.things(subject), f"m:{name}"
    elif kind == Kind.RIDE_DESTINATION:
        yield "HSETNX", keys.ride(name), row["id"], fact
    else:
        yield "HSETNX", keys.ride(name), row["id"], fact
        yield "SADD", keys.things(subject), f"o:{name}"
        driver = _ROW.decode(row["body"]).driver_id
        if isinstance(driver, str) and driver:
            yield "SADD", keys.riders(driver), subject


def _ride_document(keys: Keys, row: dict[str, Any], codec: Codec) -> Iterable[Command]:
    ride_id, subject = row["name"], row["key"]
    yield "ZADD", keys.unflushed(row["partition"]), "GT", row["seq"], ride_id
    if ride_head(row["body"]).deleted:
        yield "DEL", keys.ride_document(ride_id), keys.about(ride_id)
        yield "ZREM", keys.rides(subject), ride_id
    else:
        yield "SET", keys.ride_document(ride_id), codec.compress([row["body"]])[0]
        yield "ZADD", keys.rides(subject), row["event_time"], ride_id


def _message_document(keys: Keys, row: dict[str, Any], codec: Codec) -> Iterable[Command]:
    message_id, subject = row["name"], row["key"]
    head = message_head(row["body"])
    for ride_id in head.no_longer:
        yield "HDEL", keys.about(ride_id), message_id
    if head.deleted:
        yield "DEL", keys.message_document(message_id)
        yield "ZREM", keys.messages(subject), message_id
        return
    yield "SET", keys.message_document(message_id), codec.compress([bytes(head.document)])[0]
    yield "ZADD", keys.messages(subject), row["event_time"], message_id
    for ride_id, item in head.about.items():
        yield "HSET", keys.about(ride_id), message_id, codec.compress([bytes(item)])[0]


def _moved(keys: Keys, row: dict[str, Any]) -> Iterable[Command]:
    """The document itself stays: it is, or will be, that of the other stream."""
    thing, subject = row["name"], row["key"]
    if thing.startswith("o:"):
        yield "ZREM", keys.rides(subject), thing[2:]
        return
    yield "ZREM", keys.messages(subject), thing[2:]
    for ride_id in _MOVED_HEAD.decode(row["body"]).no_longer:
        yield "HDEL", keys.about(ride_id), thing[2:]
