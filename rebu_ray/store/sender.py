"""Many Redis commands at once, without what redis-py's pipelines do around each of them."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Any, Final

import hiredis
import redis

from rebu_ray.store.redis_cluster import Client, Cluster, dealt

Command = tuple[bytes | str | int, ...]

_ELSEWHERE: Final = (redis.exceptions.AskError, redis.exceptions.MovedError, redis.exceptions.TryAgainError)
"""What a server of a cluster answers who has not, or not yet, or no longer what is asked for."""


class Sender:
    """Sends through a connection of its own to each server, which it holds."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._connections: dict[int, tuple[Any, Any]] = {}
        """By server: its pool, and the connection of it that is used here."""
        self._stale = False
        """Whether the servers of a cluster may have other slots by now than are known here."""

    def send(self, parts: Iterable[Sequence[Command]]) -> bool:
        """Send commands, and look at every reply; whether one of them was that there is nothing.

        A server works on one part while the next one is made. Raises one of `store.index.UNAVAILABLE`.
        """
        if isinstance(self._client, Cluster):
            return self._deal(self._client, [command for part in parts for command in part])
        sent = 0
        try:
            for part in parts:
                if part:
                    self._write(self._client, part)
                    sent += len(part)
        except BaseException:
            self._disconnect()
            raise
        return sent > 0 and self._read(self._client, sent)[0]

    def _deal(self, client: Cluster, commands: Sequence[Command]) -> bool:
        """`send` to the servers of a cluster, each its share."""
        if self._stale:
            client.learn()
            self._stale = False
        missing = False
        refused: list[int] = []
        try:
            shares = list(dealt(commands, client.server_of))
            for server, mine in shares:
                self._write(server, [command for _, command in mine])
            for server, mine in shares:
                nothing, elsewhere = self._read(server, len(mine))
                missing |= nothing
                refused += [mine[number][0] for number in elsewhere]
        except BaseException:
            # Where one connection is gone, others may be too.
            self._disconnect()
            self._stale = True
            raise
        # A slot is on its way to another server: one by one, wherever each has to go.
        for at in sorted(refused):
            missing |= client.execute_command(*commands[at]) is None
        return missing

    def _disconnect(self) -> None:
        """Begin anew with the next commands: replies to these may be on their way still."""
        for _, connection in self._connections.values():
            connection.disconnect()

    def _write(self, server: Any, commands: Sequence[Command]) -> None:
        pool = server.connection_pool
        if id(pool) not in self._connections:
            self._connections[id(pool)] = pool, pool.get_connection()
        connection = self._connections[id(pool)][1]
        try:
            packed = b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type]
            connection.send_packed_command([packed])
        except BaseException:
            connection.disconnect()
            raise

    def _read(self, server: Any, count: int) -> tuple[bool, list[int]]:
        """Look at replies: whether one says that there is nothing, and which commands belong to another server."""
        connection = self._connections[id(server.connection_pool)][1]
        failed: redis.ResponseError | None = None
        missing = False
        elsewhere: list[int] = []
        try:
            # A reply has four bytes at least: wake up when all are there, not for every few of them.
            connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 4 * count)
            for number in range(count):
                try:
                    missing |= connection.read_response() is None
                except _ELSEWHERE:
                    elsewhere.append(number)
                except redis.ResponseError as error:
                    failed = error
                if number == 0:
                    connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        except BaseException:
            connection.disconnect()
            raise
        if failed is not None:
            raise failed
        return missing, elsewhere

    def close(self) -> None:
        """Give the connections back."""
        for pool, connection in self._connections.values():
            pool.release(connection)
        self._connections.clear()
