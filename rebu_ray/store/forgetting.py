"""Taking one person out of the index: what they are called there, and the commands that remove it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from redis import ResponseError

from rebu_ray.records import REQUESTS, Kind, Source
from rebu_ray.store.facts import Fact, Keys, parse_fact
from rebu_ray.store.index import (
    anonymous_key,
    floor_key,
    history_key,
    links_key,
    parse_link,
    parse_position,
    position_key,
    quiet_key,
    traits_key,
    unlinks_key,
    withdrawn_key,
)
from rebu_ray.store.journal import Journal, unpack
from rebu_ray.store.lake import Lake, may_hold
from rebu_ray.store.links import Link, owned, standing
from rebu_ray.store.member import Codec, split, time_place
from rebu_ray.store.redis_cluster import Client
from rebu_ray.store.rows import partition_of
from rebu_ray.store.tombstones import Gone, Names, named_in

log = logging.getLogger("rebu.erasure")

ERASED: Final = b"rebu-erased"
"""Which tombstones the index is clean of, as their digest. A snapshot from before an erasure has another one."""
_PART: Final = 1000


class _Body(msgspec.Struct, gc=False):
    user_id: Any = None
    driver_id: Any = None


class _Letter(msgspec.Struct, gc=False):
    record: msgspec.Raw


_BODY: Final = msgspec.json.Decoder(_Body)
_LETTER: Final = msgspec.json.Decoder(_Letter)


def is_whole(redis: Client, partitions: int) -> bool:
    """Whether the index holds all that was written; else one has to wait."""
    values = redis.mget([position_key(p) for p in range(partitions)])
    return all(at is not None and not at.behind for at in map(parse_position, values))


def names_of(redis: Client, partitions: int, user_id: str) -> Names:
    """What is a person's: their rides and messages, and the stretches of their phones."""
    keys = Keys(partitions)
    subject = f"u:{user_id}"
    found = Names(user_id)
    codec = Codec()
    listed = {f"o:{ride.decode()}" for ride in redis.zrange(keys.rides(subject), 0, -1)}
    listed |= {f"m:{message.decode()}" for message in redis.zrange(keys.messages(subject), 0, -1)}
    things = {thing.decode() for thing in redis.smembers(keys.things(subject))}
    for thing in sorted(things | listed):
        # What became another's has a document of theirs, and versions that name them.
        facts = _facts(redis, keys, thing, codec).values()
        owners = {_owner(fact) for fact in facts if fact.kind != Kind.RIDE_DESTINATION}
        if thing in listed or not owners - {user_id, None}:
            found.streams.add(thing)
    for phone in redis.smembers(anonymous_key(partition_of(subject, partitions), user_id)):
        anonymous_id = phone.decode()
        parts = _stretches(redis, partitions, anonymous_id, user_id)
        found.phones[anonymous_id] = parts
    return found


def forget(redis: Client, partitions: int, names: Names) -> dict[str, int]:
    """Remove all that the index has about a person; how much of what there was. Twice is the same as once."""
    keys, codec = Keys(partitions), Codec()
    user, subject = names.user_id, f"u:{names.user_id}"
    own = partition_of(subject, partitions)
    counts = dict.fromkeys(("events", "rides", "messages", "phones", "dead_letters"), 0)
    counts["events"] = int(redis.zcard(history_key(own, subject)))
    pipe = redis.pipeline(transaction=False)
    things = {thing.decode() for thing in redis.smembers(keys.things(subject))} | {
        name for name in names.streams if name[0] in "om"
    }
    for thing in sorted(things):
        facts = _facts(redis, keys, thing, codec)
        for fact in facts.values():
            driver = _BODY.decode(fact.body).driver_id if fact.kind == Kind.RIDE else None
            if isinstance(driver, str) and driver:
                pipe.srem(keys.riders(driver), subject)
        key, name = _facts_key(keys, thing), thing[2:]
        if thing in names.streams:
            counts["rides" if thing.startswith("o:") else "messages"] += 1
            if thing.startswith("o:"):
                pipe.delete(key, keys.ride_document(name), keys.about(name))
                pipe.zrem(keys.unflushed(own), name)
            else:
                pipe.delete(key, keys.message_document(name))
        else:
            for record_id, fact in facts.items():
                if _owner(fact) == user:
                    pipe.hdel(key, record_id)
    for phone, parts in names.phones.items():
        counts["phones"] += 1
        counts["events"] += _forget_phone(redis, pipe, keys, phone, user, parts)
    pipe.delete(
        *(history_key(own, subject), anonymous_key(own, user), traits_key(own, user), floor_key(own, subject)),
        *(keys.user(user), keys.things(subject), keys.errors(subject), keys.rides(subject), keys.messages(subject)),
    )
    pipe.zrem(quiet_key(own), subject)
    pipe.execute()
    counts["dead_letters"] = _forget_letters(redis, partitions, names, codec)
    return counts


def clear(redis: Client, partitions: int) -> None:
    """Empty the index: its positions first, so that nobody trusts what is left."""
    redis.delete(*(key(p) for p in range(partitions) for key in (position_key, withdrawn_key)))
    found: list[bytes] = []
    for key in redis.scan_iter(match=b"rebu{*", count=1000):
        found.append(key)
        if len(found) == _PART:
            redis.unlink(*found)
            found.clear()
    if found:
        redis.unlink(*found)


def names_person(body: bytes, event_time: int, names: Names) -> bool:
    """Whether a refused record names a person, or what is theirs."""
    for name in named_in(body):
        if name == f"u:{names.user_id}" or (name[0] in "om" and name in names.streams):
            return True
        if name.startswith("a:") and any(_within(part, event_time) for part in names.phones.get(name[2:], ())):
            return True
    return False


def _within(part: Gone, time: int) -> bool:
    return (part.since is None or part.since <= time) and (part.until is None or time < part.until)


def _facts_key(keys: Keys, thing: str) -> bytes:
    return keys.ride(thing[2:]) if thing.startswith("o:") else keys.message(thing[2:])


def _facts(redis: Client, keys: Keys, thing: str, codec: Codec) -> dict[bytes, Fact]:
    return {i: parse_fact(data, codec) for i, data in redis.hgetall(_facts_key(keys, thing)).items()}


def _owner(fact: Fact) -> str | None:
    user_id = _BODY.decode(fact.body).user_id
    return user_id if isinstance(user_id, str) and user_id else None


def _stretches(redis: Client, partitions: int, phone: str, user_id: str) -> tuple[Gone, ...]:
    partition = partition_of(f"a:{phone}", partitions)
    links = [Link(*parse_link(member)) for member in redis.zrange(links_key(partition, phone), 0, -1)]
    taken_back = {
        user.decode(): int(at) for user, at in redis.zrange(unlinks_key(partition, phone), 0, -1, withscores=True)
    }
    stand = standing(links, taken_back)
    last = max((link.event_time for link in stand if link.user_id == user_id), default=0)
    return tuple(Gone(part.since, part.until, last) for part in owned(stand, user_id))


def _forget_phone(redis: Client, pipe: Any, keys: Keys, phone: str, user_id: str, parts: Sequence[Gone]) -> int:
    partition, stream = partition_of(f"a:{phone}", keys.partitions), f"a:{phone}"
    others = False
    for member in redis.zrange(links_key(partition, phone), 0, -1):
        if parse_link(member)[2] == user_id:
            pipe.zrem(links_key(partition, phone), member)
        else:
            others = True
    pipe.zrem(unlinks_key(partition, phone), user_id)
    went = 0
    for part in parts:
        low, high = _bounds(part)
        went += int(redis.zlexcount(history_key(partition, stream), low, high))
        pipe.zremrangebylex(history_key(partition, stream), low, high)
        pipe.zremrangebylex(keys.errors(stream), low, high)
    if not others and any(part.since is None and part.until is None for part in parts):
        pipe.delete(floor_key(partition, stream))
        pipe.zrem(quiet_key(partition), stream)
    return went


def _bounds(part: Gone) -> tuple[bytes, bytes]:
    low = b"-" if part.since is None else b"[" + time_place(part.since)
    return low, b"+" if part.until is None else b"(" + time_place(part.until)


def _forget_letters(redis: Client, partitions: int, names: Names, codec: Codec) -> int:
    went = 0
    for source in Source:
        stream = f"d:{source}"
        key = history_key(partition_of(stream, partitions), stream)
        for members in _members(redis, key):
            named = [member for member in members if _letter_names(member, names, codec)]
            went += int(redis.zrem(key, *named)) if named else 0
    return went


def _members(redis: Client, key: bytes) -> Iterator[list[bytes]]:
    low = b"-"
    while found := redis.zrangebylex(key, low, b"+", 0, _PART):
        yield found
        low = b"(" + found[-1]


def _letter_names(member: bytes, names: Names, codec: Codec) -> bool:
    parts = split(member)
    record = bytes(_LETTER.decode(b"{" + codec.decompress(parts.payload)).record)
    return names_person(record, int.from_bytes(parts.place[:8], "big"), names)


def names_in_rows(journal: Journal, lake: Lake, partition: int, user_id: str) -> Names:
    """What a user's rows in lake and journal name: their requests, and the phones that were ever said to be theirs."""
    key = f"u:{user_id}"
    found = Names(user_id)
    manifest = lake.manifest(partition)
    for file in manifest.files:
        with lake.open(partition, file) as parquet:
            for number in range(parquet.num_row_groups):
                if may_hold(parquet, number, key, key):
                    _add_names(found, parquet.read_row_group(number, columns=["key", "request_id", "links"]), key)
    for segment in journal.segments():
        try:
            data = journal.read(segment)
        except FileNotFoundError:  # it is in the lake by now
            continue
        for frame in unpack(data, str(segment)):
            if any(span.partition == partition for span in frame.header.spans):
                _add_names(found, frame.rows(), key)
    return found


def _add_names(found: Names, rows: pa.RecordBatch | pa.Table, key: str) -> None:
    mine = rows.filter(pc.equal(rows["key"], key))
    found.streams |= {f"{REQUESTS}{request}" for request in mine["request_id"].to_pylist() if request is not None}
    for phone in set(mine["links"].to_pylist()) - {None}:
        found.phones.setdefault(phone, ())


def persist(redis: Client, seconds: float = 60.0) -> None:
    """Have the index written to disk, so that an older snapshot does not stay there. Not every Redis lets us."""
    deadline = time.monotonic() + seconds
    asked = False
    while time.monotonic() < deadline:
        try:
            if not redis.info("persistence")["rdb_bgsave_in_progress"]:
                if asked:
                    return
                redis.bgsave()
                asked = True
        except (ResponseError, KeyError) as error:
            log.info("this Redis writes no snapshot for us: %s", error)
            return
        time.sleep(0.05)
    log.warning("the snapshot of the index was not written within %.0f s", seconds)
