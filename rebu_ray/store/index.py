"""The index: what answers need, in Redis, in the bytes that answers send. Rebuilt from journal and lake at any time.

Every key carries its partition as a hash tag, so that a partition's keys share a slot of a Redis Cluster:

    rebu{P}h:STREAM     sorted set of members (see member.py): the history of a stream
    rebu{P}l:ANON       sorted set of (time, received, user): which users an anonymous id was identified as
    rebu{P}b:ANON       sorted set user, by received_at of the last time the link was taken back
    rebu{P}i:USER       set of the anonymous ids that were ever identified as the user
    rebu{P}t:USER       sorted set of (time, id, traits): what identify calls said about the user
    rebu{P}f:STREAM     place below which a stream's rows may be in the lake only
    rebu{P}q            sorted set stream -> when it was last written to (ms), for eviction
    (what is kept about rides and messages: see facts.py)
    rebu{P}pos          format:sequence number up to which the partition's journal is indexed, with ":behind:END"
                        while the index is known to lack something, END being how far the journal was, and with
                        ":anew" behind that while it is built from nothing
    rebu{P}of           of a Redis Cluster: of which constellation of servers the partition's index is
    rebu{P}was          pos, while Redis is full: it cannot be written then, but be renamed
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import redis

from rebu_ray.records import HISTORY_KINDS, Kind
from rebu_ray.store.member import INDEX_FORMAT, Codec, members, place, place_time, split, time_place
from rebu_ray.store.redis_cluster import Client, Cluster, connect, is_cluster, servers
from rebu_ray.store.replays import marked
from rebu_ray.store.rows import partition_of
from rebu_ray.store.sender import Sender

Command = tuple[bytes | str | int, ...]

UNAVAILABLE: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.BusyLoadingError,
    redis.exceptions.ResponseError,
    redis.exceptions.ClusterError,
    redis.exceptions.RedisClusterException,
)
"""What a Redis that is away, loading, full or read-only raises."""
_SHOWN: Final = frozenset(HISTORY_KINDS)
_OTHERS: Final = (b"l", b"b", b"o", b"m", b"v", b"V", b"r", b"s", b"a")
"""Letters of the keys that rows of other partitions may have written."""


def history_key(partition: int, stream: str) -> bytes:
    return f"rebu{{{partition}}}h:{stream}".encode()


def links_key(partition: int, anonymous_id: str) -> bytes:
    return b"rebu{%d}l:" % partition + anonymous_id.encode()


def unlinks_key(partition: int, anonymous_id: str) -> bytes:
    return b"rebu{%d}b:" % partition + anonymous_id.encode()


def anonymous_key(partition: int, user_id: str) -> bytes:
    return b"rebu{%d}i:" % partition + user_id.encode()


def traits_key(partition: int, user_id: str) -> bytes:
    return b"rebu{%d}t:" % partition + user_id.encode()


def floor_key(partition: int, stream: str) -> bytes:
    return b"rebu{%d}f:" % partition + stream.encode()


def quiet_key(partition: int) -> bytes:
    return b"rebu{%d}q" % partition


def position_key(partition: int) -> bytes:
    return b"rebu{%d}pos" % partition


def withdrawn_key(partition: int) -> bytes:
    return b"rebu{%d}was" % partition


def constellation_key(partition: int) -> bytes:
    return b"rebu{%d}of" % partition


def unflushed_key(partition: int) -> bytes:
    return b"rebu{%d}n" % partition


def watch_channel(partition: int, stream: str) -> bytes:
    return b"rebu{%d}w:" % partition + stream.encode()


class Position(NamedTuple):
    """How far a partition is indexed, and whether rows up to there may be missing."""

    seq: int
    behind: bool = False
    end: int = 0
    """Of an index that is behind, how far it has to come."""
    anew: bool = False
    """Whether it is being built from nothing."""


def position_value(seq: int, behind: bool = False, end: int = 0, anew: bool = False) -> bytes:
    """A position as it is kept."""
    return b"%d:%d%b" % (INDEX_FORMAT, seq, b":behind:%d%b" % (end, b":anew" if anew else b"") if behind else b"")


def parse_position(value: bytes | None) -> Position | None:
    """What `position_value` wrote; None where the partition has no index of this format."""
    if value is None:
        return None
    form, seq, *behind = value.split(b":")
    if int(form) != INDEX_FORMAT:
        return None
    # A version that did not say how far it has to come wrote "behind" alone.
    return Position(int(seq), bool(behind), int(behind[1]) if len(behind) > 1 else 0, b"anew" in behind)


def link_member(event_time: int, received_at: int, user_id: str) -> bytes:
    return struct.pack(">qq", event_time, received_at) + user_id.encode()


def parse_link(member: bytes) -> tuple[int, int, str]:
    """(event time, received at, user) of a link."""
    event_time, received_at = struct.unpack_from(">qq", member)
    return event_time, received_at, member[16:].decode()


_NOTHING: Final = msgspec.Raw(b"")


class _Message(msgspec.Struct):
    type: msgspec.Raw = _NOTHING
    event: msgspec.Raw = _NOTHING
    traits: msgspec.Raw = _NOTHING
    context: msgspec.Raw = _NOTHING


_MESSAGE: Final = msgspec.json.Decoder(_Message)


def commands(
    batch: pa.RecordBatch, partitions: int, codec: Codec, watched: frozenset[str] = frozenset()
) -> list[Command]:
    """The Redis commands that index a batch of `ROWS`: applying them twice changes nothing.

    Rows of streams in `watched` are published as well. Request and nameless streams answer no question and
    are left out.
    """
    present = set(batch["kind"].unique().to_pylist())
    out: list[Command] = []
    if present & _SHOWN:
        keys = batch["key"].to_pylist()
        if present <= _SHOWN:
            shown = [i for i, key in enumerate(keys) if key[0] in "ua"]
        else:
            kinds = batch["kind"].to_pylist()
            shown = [i for i, key in enumerate(keys) if key[0] in "ua" and kinds[i] in _SHOWN]
        if shown:
            out += _history(_rows(batch, shown), codec, watched)
    if Kind.DEAD_LETTER in present:
        out += _history(batch.filter(pc.equal(batch["kind"], Kind.DEAD_LETTER)), codec, watched)
    if Kind.REPLAYED in present:
        out += _replayed(batch, codec)
    names = batch["name"].to_pylist()
    if batch["links"].null_count < batch.num_rows or "identify" in names:
        linked = batch["links"].to_pylist()
        steering = [i for i, (name, link) in enumerate(zip(names, linked, strict=True)) if link or name == "identify"]
        for row in _rows(batch, steering).to_pylist():
            out += _person(row, partitions)
    return out


def _rows(batch: pa.RecordBatch, chosen: list[int]) -> pa.RecordBatch:
    return batch if len(chosen) == batch.num_rows else batch.take(pa.array(chosen, pa.int64()))


def _history(batch: pa.RecordBatch, codec: Codec, watched: frozenset[str]) -> list[Command]:
    partitions, keys = batch["partition"].to_pylist(), batch["key"].to_pylist()
    found = members(batch, codec)
    grouped: dict[str, list[bytes | str]] = {}
    for partition, key, member in zip(partitions, keys, found, strict=True):
        command = grouped.get(key)
        if command is None:
            grouped[key] = ["ZADD", history_key(partition, key), b"0", member]
        else:
            command += (b"0", member)
    out: list[Command] = list(map(tuple, grouped.values()))
    if watched:
        followed = [
            (partition, split(member).seq, key, member)
            for partition, key, member in zip(partitions, keys, found, strict=True)
            if key in watched
        ]
        # In the order of the journal: a follower takes a lower number for something it has had.
        out += [("PUBLISH", watch_channel(partition, key), member) for partition, _, key, member in sorted(followed)]
    return out


def _replayed(batch: pa.RecordBatch, codec: Codec) -> list[Command]:
    """Take letters that were replayed out of their list, and put back, with the new reason, those refused again."""
    out: list[Command] = []
    for row, letter_id, letter in marked(batch):
        key, at = history_key(row["partition"], row["key"]), place(row["event_time"], letter_id)
        out.append(("ZREMRANGEBYLEX", key, b"[" + at + b"\0", b"(" + at + b"\1"))
        if letter is not None:
            out.append(("ZADD", key, b"0", *members(letter, codec)))
    return out


def _person(row: dict[str, Any], partitions: int) -> list[Command]:
    out: list[Command] = []
    user: str | None = row["user_id"]
    anonymous: str | None = row["links"]
    if user is None:
        return out
    if anonymous is not None:
        theirs = partition_of(f"a:{anonymous}", partitions)
        if row["kind"] == Kind.UNLINK:
            out.append(("ZADD", unlinks_key(theirs, anonymous), "GT", row["received_at"], user))
            return out
        member = link_member(row["event_time"], row["received_at"], user)
        out.append(("ZADD", links_key(theirs, anonymous), b"0", member))
        out.append(("SADD", anonymous_key(row["partition"], user), anonymous))
    if row["kind"] == Kind.APP_EVENT and row["name"] == "identify":
        traits = _traits(row["body"])
        if traits:
            said = place(row["event_time"], row["id"]) + b"\0" + traits
            out.append(("ZADD", traits_key(row["partition"], user), b"0", said))
    return out


def position_commands(positions: Mapping[int, Position | int]) -> list[Command]:
    """The commands that say how far partitions are indexed now; to be sent after the rows themselves.

    A number alone is the position of a partition that lacks nothing.

    A partition without a position gets none: Redis has lost it, and a position would vouch for what is gone.
    """
    return [("SET", position_key(p), _value(position), "XX") for p, position in positions.items()]


def _value(position: Position | int) -> bytes:
    return position_value(position) if isinstance(position, int) else position_value(*position)


def _traits(body: bytes) -> bytes:
    """The traits of an identify message, at its top or in its context; empty where it has none."""
    message = _MESSAGE.decode(body)
    # One that was sent to /v1/identify need not say its type, a track that is called "identify" has an event.
    said = bytes(message.type)
    if said != b'"identify"' and (said not in (b"", b"null", b'""') or bytes(message.event)):
        return b""
    if bytes(message.traits)[:1] == b"{":
        return bytes(message.traits)
    if bytes(message.context)[:1] == b"{":
        context = bytes(_MESSAGE.decode(message.context).traits)
        return context if context[:1] == b"{" else b""
    return b""


class IndexEmptied(redis.ResponseError):
    """Redis has lost the position of a partition, and with it what was indexed."""


def disconnect(redis: Client, name: str) -> int:
    """Close every connection of a name; how many there were. Raises one of `UNAVAILABLE`."""
    closed = 0
    for server in servers(redis):
        found = [client["id"] for client in server.client_list() if client["name"] == name]
        closed += sum(int(server.client_kill_filter(_id=number)) for number in found)
    return closed


class Index:
    """A connection to Redis for one writer; its calls block. Raises one of `UNAVAILABLE` when Redis is not there."""

    def __init__(self, url: str, name: str = "", check: Callable[[], None] = lambda: None) -> None:
        """Every connection has a name, and `check` is called with each new one before anything is written through it.

        So a writer that is another's successor claims what `check` looks at, closes the connections of that name
        (`disconnect`), and knows that nothing of the other's is written any more.
        """

        def connected(connection: Any) -> None:
            if not is_cluster(url):  # whose client has done so
                connection.on_connect()
            allowed = False
            try:
                check()
                allowed = True
            except OSError as error:
                raise redis.ConnectionError(f"nobody can say whether this may be written: {error}") from error
            finally:
                if not allowed:
                    connection.disconnect()  # else the next who wants one takes it for checked

        self.redis: Client = connect(
            url,
            socket_timeout=10,
            socket_connect_timeout=2,
            health_check_interval=0,
            protocol=2,
            client_name=name or None,
            redis_connect_func=connected,
        )
        self._sender = Sender(self.redis)

    def send(self, commands: Sequence[Command]) -> None:
        """Send many commands at once and check every reply. Raises IndexEmptied, or another of `UNAVAILABLE`."""
        self.send_parts((commands,))

    def send_parts(self, parts: Iterable[Sequence[Command]]) -> None:
        """`send`, where Redis takes in one part while the next one is made."""
        if self._sender.send(parts):  # only `SET XX` answers so
            raise IndexEmptied("the index was emptied")

    def positions(self, partitions: Iterable[int]) -> dict[int, Position | None]:
        """How far each partition is indexed; None where it has to be rebuilt. Withdrawn ones are behind.

        What rows say about things of other partitions is on other servers of a cluster: where one of these has lost
        something, the positions of partitions on others know nothing of that.
        """
        wanted = list(partitions)
        now = self._constellation()
        pipe = self.redis.pipeline(transaction=False)
        for partition in wanted:
            pipe.get(position_key(partition))
            pipe.get(withdrawn_key(partition))
            pipe.get(constellation_key(partition))
        replies = iter(pipe.execute())
        found: dict[int, Position | None] = {}
        for partition in wanted:
            position, withdrawn, of = parse_position(next(replies)), parse_position(next(replies)), next(replies)
            if position is None and withdrawn is not None:
                position = withdrawn._replace(behind=True)
            found[partition] = position if of == now else None
        return found

    def _constellation(self) -> bytes | None:
        return self.redis.constellation() if isinstance(self.redis, Cluster) else None

    def set_positions(self, positions: Mapping[int, Position | int]) -> None:
        """Say how far partitions are indexed, whatever was known of them before."""
        now = self._constellation()
        of = [] if now is None else [("SET", constellation_key(p), now) for p in positions]
        self.send([*of, *(("SET", position_key(p), _value(position)) for p, position in positions.items())])

    def move_positions(self, positions: Mapping[int, Position | int]) -> None:
        """Say how far partitions are indexed now. Raises IndexEmptied where one has no position any more."""
        self.send(position_commands(positions))

    def withdraw(self, partitions: Iterable[int]) -> None:
        """Have readers take the index of partitions for incomplete, also where Redis is full and takes no writes."""
        pipe = self.redis.pipeline(transaction=False)
        for partition in partitions:
            pipe.rename(position_key(partition), withdrawn_key(partition))
        for reply in pipe.execute(raise_on_error=False):
            if isinstance(reply, Exception) and "no such key" not in str(reply):
                raise reply

    def restore(self, positions: Mapping[int, Position]) -> None:
        """Have positions back that may have been withdrawn, as ones that are behind. The others stay as they are."""
        for partition, position in positions.items():
            # Written before it is renamed: a Redis that is still full must not have it back as it was.
            if self.redis.set(withdrawn_key(partition), _value(position._replace(behind=True)), xx=True):
                self.redis.rename(withdrawn_key(partition), position_key(partition))

    def clear(self, *partitions: int) -> None:
        """Remove the keys of partitions, their positions first, so that no reader trusts what is left.

        What is said about their anonymous ids, rides, messages and drivers stays: rows of other partitions said it,
        which need not be read again. So a new form of these keys needs new names.
        """
        if not partitions:
            return
        self.redis.delete(*map(position_key, partitions), *map(withdrawn_key, partitions))
        own = tuple(b"rebu{%d}" % partition for partition in partitions)
        others = tuple(b"%b%b:" % (prefix, letter) for prefix in own for letter in _OTHERS)
        found: list[bytes] = []
        match = own[0] + b"*" if len(own) == 1 else b"rebu{*"
        for key in self.redis.scan_iter(match=match, count=1000):
            if not key.startswith(own) or key.startswith(others):
                continue
            found.append(key)
            if len(found) == 1000:
                self.redis.unlink(*found)
                found.clear()
        if found:
            self.redis.unlink(*found)

    def settle(self, partition: int, written: Mapping[str, int], below: int, keep: int) -> int:
        """Note when streams were written (ms), and drop what each holds beyond its newest `keep` members.

        Only members with an event time before `below` (ms) go: the caller knows that the lake has those.
        Answers how many went.
        """
        pipe = self.redis.pipeline(transaction=False)
        for stream, at in written.items():
            pipe.zadd(quiet_key(partition), {stream: at}, gt=True)
            pipe.zcard(history_key(partition, stream))
        sizes = pipe.execute()[1::2]
        gone = 0
        for stream, size in zip(written, sizes, strict=True):
            if size > keep:
                edge = self.redis.zrange(history_key(partition, stream), size - keep, size - keep)
                if edge:
                    gone += self._drop(partition, stream, min(edge[0][:8], time_place(below)))
        return gone

    def settle_rides(self, partition: int, covered_seq: int) -> None:
        """Drop from the rides whose newest document is not in the lake those that it has by now."""
        self.redis.zremrangebyscore(unflushed_key(partition), "-inf", covered_seq)

    def evict(self, partition: int, below: int, quiet_since: int, limit: int = 1000) -> int:
        """Drop the members of streams that nothing was written to since `quiet_since` (ms); how many went.

        As with `settle`, only members with an event time before `below` go. The floor is set no higher than
        it must be: what is written to the stream from now on is read from Redis alone.
        """
        quiet = self.redis.zrange(quiet_key(partition), "-inf", quiet_since, byscore=True, offset=0, num=limit)
        gone = 0
        for name in quiet:
            stream = name.decode()
            newest = self.redis.zrange(history_key(partition, stream), -1, -1)
            if newest:
                gone += self._drop(partition, stream, time_place(min(below, place_time(newest[0]) + 1)))
            if not self.redis.exists(history_key(partition, stream)):
                self.redis.zrem(quiet_key(partition), name)
        return gone

    def _drop(self, partition: int, stream: str, floor: bytes) -> int:
        """Forget a stream's members below a place. The floor goes first: from then on readers ask the lake too."""
        known = self.redis.get(floor_key(partition, stream))
        if known is None or known < floor:
            self.redis.set(floor_key(partition, stream), floor)
        return int(self.redis.zremrangebylex(history_key(partition, stream), b"-", b"(" + floor))

    def close(self) -> None:
        self._sender.close()
        self.redis.close()
