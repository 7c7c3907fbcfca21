"""From the index: everything that the documents of some subjects are computed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from rebu_ray.process.dirty import Touched
from rebu_ray.process.tables import ERRORS
from rebu_ray.records import Kind
from rebu_ray.store.facts import ErrorEntry, Fact, Keys, parse_error, parse_fact
from rebu_ray.store.index import (
    anonymous_key,
    links_key,
    parse_link,
    parse_position,
    position_key,
    unlinks_key,
)
from rebu_ray.store.links import Link, owned, standing
from rebu_ray.store.member import Codec, time_place
from rebu_ray.store.redis_cluster import Client
from rebu_ray.store.rows import partition_of

FACT_ROWS = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("event_time", pa.int64(), nullable=False),
        pa.field("received_at", pa.int64(), nullable=False),
        pa.field("body", pa.binary(), nullable=False),
    ]
)
"""Rows of tables as `process.tables.from_rows` takes them."""


class IndexBehind(Exception):
    """The index lacks something at the moment: what would be computed from it might be wrong. Try again."""


class _Head(msgspec.Struct, gc=False):
    """What a row's body has to say for the next question to the index."""

    user_id: Any = None
    driver_id: Any = None


_HEAD = msgspec.json.Decoder(_Head)


class Subject(NamedTuple):
    """What is known of one subject."""

    key: str
    rides: tuple[str, ...]
    messages: tuple[str, ...]
    known_at: int
    """Receipt time (ms) of the newest record that its documents rest on."""
    listed: frozenset[str] = frozenset()
    """The rides ("o:RIDE") and messages ("m:MESSAGE") that a document in the subject's own stream stands for."""


class Loaded(NamedTuple):
    """What the index holds about some subjects."""

    subjects: list[Subject]
    facts: pa.Table
    """`FACT_ROWS`: rows of users, drivers, rides, destinations and messages."""
    errors: pa.Table
    """`tables.ERRORS`: errors of the subjects' users, their phones' included."""
    ride_documents: dict[str, bytes]
    message_documents: dict[str, bytes]
    """The documents as they stand, by id."""


def load(redis: Client, keys: Keys, subjects: Sequence[str]) -> Loaded:
    """Read from the index in four round trips. Raises IndexBehind, or one of `store.index.UNAVAILABLE`."""
    codec = Codec()
    people = [_Person(subject) for subject in subjects]
    pipe = redis.pipeline(transaction=False)
    pipe.mget(_positions(keys.partitions))
    for person in people:
        pipe.smembers(keys.things(person.key))
        pipe.zrange(keys.rides(person.key), 0, -1)
        pipe.zrange(keys.messages(person.key), 0, -1)
        if person.user_id is not None:
            pipe.hgetall(keys.user(person.user_id))
            pipe.smembers(anonymous_key(partition_of(person.key, keys.partitions), person.user_id))
    replies = iter(pipe.execute())
    before = _whole(next(replies))
    for person in people:
        things = sorted(thing.decode() for thing in next(replies))
        # A ride or message that names nobody is a subject of its own.
        person.rides = [thing[2:] for thing in things if thing.startswith("o:")]
        person.messages = [thing[2:] for thing in things if thing.startswith("m:")]
        person.listed = frozenset([f"{kind}:{name.decode()}" for kind in "om" for name in next(replies)])
        if person.user_id is not None:
            person.take(person.user_id, next(replies), codec)
            person.phones = {phone.decode(): [] for phone in next(replies)}

    pipe = redis.pipeline(transaction=False)
    for person in people:
        for ride_id in person.rides:
            pipe.hgetall(keys.ride(ride_id))
            pipe.get(keys.ride_document(ride_id))
        for message_id in person.messages:
            pipe.hgetall(keys.message(message_id))
            pipe.get(keys.message_document(message_id))
        for phone in person.phones:
            partition = partition_of(f"a:{phone}", keys.partitions)
            pipe.zrange(links_key(partition, phone), 0, -1)
            pipe.zrange(unlinks_key(partition, phone), 0, -1, withscores=True)
    replies = iter(pipe.execute() if len(pipe) else [])
    ride_documents: dict[str, bytes] = {}
    message_documents: dict[str, bytes] = {}
    for person in people:
        for ride_id in person.rides:
            person.take(ride_id, next(replies), codec)
            _keep(ride_documents, ride_id, next(replies), codec)
        for message_id in person.messages:
            person.take(message_id, next(replies), codec)
            _keep(message_documents, message_id, next(replies), codec)
        for phone in person.phones:
            links, unlinks = next(replies), next(replies)
            taken_back = {user.decode(): int(at) for user, at in unlinks}
            person.link(phone, [Link(*parse_link(member)) for member in links], taken_back)

    drivers = sorted({driver for person in people for driver in person.drivers})
    pipe = redis.pipeline(transaction=False)
    for person in people:
        for key, low, high in person.stretches(keys):
            pipe.zrange(key, b"[" + low, b"(" + high, bylex=True)
    for driver in drivers:
        pipe.hgetall(keys.driver(driver))
    pipe.mget(_positions(keys.partitions))
    *replies, after = pipe.execute()
    _unchanged(before, _whole(after))
    rest = iter(replies)
    errors: list[dict[str, Any]] = []
    for person in people:
        for _ in person.stretches(keys):
            for entry in map(parse_error, next(rest)):
                person.known_at = max(person.known_at, entry.received_at)
                errors.append(_error_row(person.key, entry))
    shared: dict[str, int] = {}
    rows = {row["kind"] + row["id"]: row for person in people for row in person.rows}
    for driver in drivers:
        for record_id, data in next(rest).items():
            fact = parse_fact(data, codec)
            shared[driver] = max(shared.get(driver, 0), fact.received_at)
            rows[fact.kind + record_id.decode()] = _fact_row(driver, record_id.decode(), fact)
    return Loaded(
        [
            Subject(
                person.key,
                tuple(person.rides),
                tuple(person.messages),
                max([person.known_at, *(shared.get(driver, 0) for driver in person.drivers)]),
                person.listed,
            )
            for person in people
        ],
        pa.Table.from_pylist(list(rows.values()), FACT_ROWS),
        pa.Table.from_pylist(errors, ERRORS),
        ride_documents,
        message_documents,
    )


def subjects_of(redis: Client, keys: Keys, touched: Touched) -> set[str]:
    """Every subject that is touched. Raises IndexBehind, or one of `store.index.UNAVAILABLE`."""
    found = set(touched.subjects)
    if not touched.indirect:
        return found
    pipe = redis.pipeline(transaction=False)
    pipe.mget(_positions(keys.partitions))
    for phone in touched.phones:
        pipe.zrange(links_key(partition_of(f"a:{phone}", keys.partitions), phone), 0, -1)
    for ride_id in touched.rides:
        pipe.hvals(keys.ride(ride_id))
    for message_id in touched.messages:
        pipe.hvals(keys.message(message_id))
    for driver in touched.drivers:
        pipe.smembers(keys.riders(driver))
    pipe.mget(_positions(keys.partitions))
    before, *found_there, after = pipe.execute()
    _unchanged(_whole(before), _whole(after))
    replies = iter(found_there)
    for _ in touched.phones:
        found.update(f"u:{parse_link(member)[2]}" for member in next(replies))
    codec = Codec()
    for ride_id in touched.rides:
        for fact in (parse_fact(data, codec) for data in next(replies)):
            if fact.kind == Kind.RIDE:
                found.add(_subject(fact, f"o:{ride_id}"))
    for message_id in touched.messages:
        for fact in (parse_fact(data, codec) for data in next(replies)):
            found.add(_subject(fact, f"m:{message_id}"))
    for _ in touched.drivers:
        found.update(subject.decode() for subject in next(replies))
    return found


class _Person:
    """One subject while it is being read."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.user_id = key[2:] if key.startswith("u:") else None
        self.rides: list[str] = []
        self.messages: list[str] = []
        self.listed: frozenset[str] = frozenset()
        self.phones: dict[str, list[Link]] = {}
        self.rows: list[dict[str, Any]] = []
        self.drivers: set[str] = set()
        self.known_at = 0

    def take(self, name: str, facts: dict[bytes, bytes], codec: Codec) -> None:
        for record_id, data in facts.items():
            fact = parse_fact(data, codec)
            self.known_at = max(self.known_at, fact.received_at)
            self.rows.append(_fact_row(name, record_id.decode(), fact))
            if fact.kind == Kind.RIDE:
                driver = _HEAD.decode(fact.body).driver_id
                if isinstance(driver, str) and driver:
                    self.drivers.add(driver)

    def link(self, phone: str, links: list[Link], taken_back: dict[str, int]) -> None:
        known = [link.received_at for link in links] + list(taken_back.values())
        self.known_at = max([self.known_at, *known])
        self.phones[phone] = standing(links, taken_back)

    def stretches(self, keys: Keys) -> Iterable[tuple[bytes, bytes, bytes]]:
        """Which parts of which sets of errors are the user's: key, low and high place."""
        if self.user_id is None or not self.rides:
            return
        yield keys.errors(self.key), time_place(0), b"\xff"
        for phone, links in self.phones.items():
            for part in owned(links, self.user_id):
                low = time_place(0 if part.since is None else part.since)
                yield keys.errors(f"a:{phone}"), low, b"\xff" if part.until is None else time_place(part.until)


def _positions(partitions: int) -> list[bytes]:
    return [position_key(partition) for partition in range(partitions)]


def _whole(values: list[bytes | None]) -> list[int]:
    found = [parse_position(value) for value in values]
    if any(position is None or position.behind for position in found):
        raise IndexBehind("the index of some partitions is behind")
    return [position.seq for position in found if position is not None]


def _unchanged(before: list[int], after: list[int]) -> None:
    if any(now < then for then, now in zip(before, after, strict=True)):
        raise IndexBehind("the index was emptied while it was read")


def _subject(fact: Fact, otherwise: str) -> str:
    user_id = _HEAD.decode(fact.body).user_id
    return f"u:{user_id}" if isinstance(user_id, str) and user_id else otherwise


def _fact_row(name: str, record_id: str, fact: Fact) -> dict[str, Any]:
    return {
        "kind": str(fact.kind),
        "name": name,
        "id": record_id,
        "event_time": fact.event_time,
        "received_at": fact.received_at,
        "body": fact.body,
    }


def _error_row(subject: str, entry: ErrorEntry) -> dict[str, Any]:
    return {
        "user_id": subject[2:],
        "id": entry.id,
        "kind": str(entry.kind),
        "name": entry.name,
        "event_time": entry.event_time,
        "received_at": entry.received_at,
    }


def _keep(documents: dict[str, bytes], name: str, data: bytes | None, codec: Codec) -> None:
    if data is not None:
        documents[name] = codec.decompress(data)
