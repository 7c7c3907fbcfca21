"""Redis, be it one server or a Redis Cluster (`redis+cluster://`, `rediss+cluster://`), behind the same few calls.

Of a cluster the index wants no more than that a partition's keys are in one slot (their hash tag is the partition).
Commands about several partitions are dealt out to the servers. Of those that are sent together, the ones for one server
are done in their order; and `mget`, by which positions are read, is done after all before it, and before all behind it.

A cluster has no moment at which all of it is as it was: a server may come back without what it had, or with less. So
an index is said to be of a `constellation` of servers, and where that is another one, nobody can say what it lacks.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any, Final

import redis
import redis.asyncio
from redis.commands import CoreCommands
from redis.crc import key_slot

SCHEMES: Final = ("redis+cluster://", "rediss+cluster://")
_SEALS: Final = 4096

Client = Any
"""A redis-py client that answers bytes, or a `Cluster`; their own types are those of every option at once."""


def is_cluster(url: str) -> bool:
    """Whether a URL names a Redis Cluster."""
    return url.startswith(SCHEMES)


def connect(url: str, **options: Any) -> Client:
    """A client whose calls block. It connects with its first command."""
    return Cluster(url, **options) if is_cluster(url) else redis.Redis.from_url(url, **options)


def connect_async(url: str, **options: Any) -> Client:
    """A client for an event loop. It connects with its first command."""
    return AsyncCluster(url, **options) if is_cluster(url) else redis.asyncio.Redis.from_url(url, **options)


def servers(client: Client) -> list[Any]:
    """A client of every server that takes writes."""
    return client.primaries() if isinstance(client, Cluster) else [client]


def _plain(url: str) -> str:
    return url.replace("+cluster", "", 1)


class _Sent:
    """Commands that are sent together, as redis-py's pipelines take them."""

    def __init__(self) -> None:
        self._parts: list[list[tuple[tuple[Any, ...], dict[str, Any]]]] = [[]]
        self._shape: list[int | None] = []
        """Of each reply, how many keys an `mget` had; None for others."""

    def __len__(self) -> int:
        return len(self._shape)

    def __getattr__(self, name: str) -> Any:
        # Each of redis-py's commands says in the end how it is sent: here, to `execute_command`.
        return partial(getattr(CoreCommands, name), self)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if args[0] == "MGET":
            return self.mget(args[1:])
        self._parts[-1].append((args, options))
        self._shape.append(None)
        return self

    def mget(self, keys: Any, *args: Any) -> Any:
        wanted = [keys, *args] if isinstance(keys, (bytes, str)) else [*keys, *args]
        self._parts += [[(("GET", key), {}) for key in wanted], []]
        self._shape.append(len(wanted))
        return self

    def _replies(self, found: Iterable[Any]) -> list[Any]:
        one = iter(found)
        return [next(one) if count is None else [next(one) for _ in range(count)] for count in self._shape]


class Sent(_Sent):
    """`_Sent` of a `Cluster`."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """The replies, in the order of the commands."""
        found: list[Any] = []
        for part in filter(None, self._parts):
            pipe: Any = self._cluster.pipe()
            for args, options in part:
                pipe.execute_command(*args, **options)
            found += pipe.execute(raise_on_error)
        return self._replies(found)


class AsyncSent(_Sent):
    """`_Sent` of an `AsyncCluster`."""

    def __init__(self, client: redis.asyncio.RedisCluster) -> None:
        super().__init__()
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """The replies, in the order of the commands."""
        found: list[Any] = []
        for part in filter(None, self._parts):
            pipe = self._client.pipeline()
            for args, options in part:
                pipe.execute_command(*args, **options)
            found += await pipe.execute(raise_on_error)
        return self._replies(found)


class Cluster:
    """A client of a Redis Cluster whose calls block; what is not here is done by redis-py's own."""

    def __init__(self, url: str, **options: Any) -> None:
        self._url = _plain(url)
        self._options = options
        self._made: redis.RedisCluster | None = None
        self._making = threading.Lock()

    @property
    def client(self) -> redis.RedisCluster:
        """Redis-py's, connected. Raises one of `store.index.UNAVAILABLE`."""
        with self._making:
            if self._made is None:
                self._made = redis.RedisCluster.from_url(self._url, **self._options)
            return self._made

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def pipe(self) -> Any:
        """Redis-py's own pipeline."""
        client: Any = self.client
        return client.pipeline()

    def pipeline(self, transaction: bool = False) -> Sent:
        """Commands to be sent together."""
        return Sent(self)

    def mget(self, *keys: Any) -> list[Any]:
        """The values of keys, wherever they are."""
        values: list[Any] = self.pipeline().mget(*keys).execute()[0]
        return values

    def primaries(self) -> list[Any]:
        """A client of every server that takes writes."""
        client: Any = self.client
        return [client.get_redis_connection(node) for node in client.get_primaries()]

    def server_of(self, slot: int) -> Any:
        """A client of the server that has a slot."""
        client = self.client
        return client.get_redis_connection(client.nodes_manager.get_node_from_slot(slot))

    def learn(self) -> None:
        """Ask anew which server has which slot."""
        self.client.nodes_manager.initialize()

    def constellation(self) -> bytes:
        """What the cluster consists of: another one once a server was restarted, emptied, replaced or added."""
        found: list[bytes] = []
        for server in self.primaries():
            run_id: str = server.info("server")["run_id"]
            found.append(run_id.encode() + self._seal(server))
        return hashlib.sha256(b"".join(sorted(found))).hexdigest()[:16].encode()

    def _seal(self, server: Any) -> bytes:
        """What only a server that was not emptied since still has."""
        key = next((_seal_key(n) for n in range(_SEALS) if self.server_of(_seal_slot(n)) is server), None)
        if key is None:  # it has no slots, and so nothing that could be missed
            return b""
        value: bytes | None = server.get(key)
        if value is None:
            server.set(key, secrets.token_hex(8), nx=True)
            value = server.get(key)
        return value or b""

    def close(self) -> None:
        """Let go of all connections."""
        if self._made is not None:
            self._made.close()


def _seal_key(number: int) -> bytes:
    # In the slot of the partition of that number, and none of its keys, which come and go.
    return b"rebu-seal{%d}" % number


@cache
def _seal_slot(number: int) -> int:
    return slot_of(_seal_key(number))


def slot_of(key: bytes) -> int:
    """The slot of a key."""
    return int(key_slot(key))


class Listener:
    """Redis-py's way to listen, which does not by itself ask for the servers first."""

    def __init__(self, client: redis.asyncio.RedisCluster, options: dict[str, Any]) -> None:
        self._client: Any = client
        self._pubsub: Any = self._client.pubsub(**options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pubsub, name)

    async def subscribe(self, *channels: bytes) -> None:
        """Listen to channels too. Raises one of `store.index.UNAVAILABLE`."""
        await self._client.initialize()
        await self._pubsub.subscribe(*channels)


class AsyncCluster:
    """A client of a Redis Cluster for an event loop; what is not here is done by redis-py's own."""

    def __init__(self, url: str, **options: Any) -> None:
        self.client = redis.asyncio.RedisCluster.from_url(_plain(url), **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def pipeline(self, transaction: bool = False) -> AsyncSent:
        """Commands to be sent together."""
        return AsyncSent(self.client)

    async def mget(self, *keys: Any) -> list[Any]:
        """The values of keys, wherever they are."""
        values: list[Any] = (await self.pipeline().mget(*keys).execute())[0]
        return values

    def pubsub(self, **options: Any) -> Listener:
        """Who hears what is published on any server: each tells all others."""
        return Listener(self.client, options)

    async def info(self, section: str) -> dict[str, Any]:
        """What the servers say of themselves; numbers are added up."""
        await self.client.initialize()
        said = await self.client.info(section, target_nodes="primaries")
        total: dict[str, Any] = {}
        for one in said.values():
            for name, value in one.items():
                total[name] = total.get(name, 0) + value if isinstance(value, int) else value
        return total

    async def aclose(self) -> None:
        """Let go of all connections."""
        await self.client.aclose()


def dealt(
    commands: Sequence[tuple[Any, ...]], server_of: Callable[[int], Any]
) -> Iterator[tuple[Any, list[tuple[int, tuple[Any, ...]]]]]:
    """Commands by the server that has their key, with their places in the order that they came in."""
    found: dict[int, tuple[Any, list[tuple[int, tuple[Any, ...]]]]] = {}
    slots: dict[bytes, tuple[Any, list[tuple[int, tuple[Any, ...]]]]] = {}
    for at, command in enumerate(commands):
        key: bytes = command[1]
        tag = key[: key.find(b"}") + 1] or key
        mine = slots.get(tag)
        if mine is None:
            server = server_of(slot_of(key))
            mine = slots[tag] = found.setdefault(id(server), (server, []))
        mine[1].append((at, command))
    yield from found.values()
