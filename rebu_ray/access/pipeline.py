"""Several Redis commands in one round trip, without what redis-py's own pipeline does around each of them."""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
import redis

from rebu_ray.store.index import Command
from rebu_ray.store.redis_cluster import AsyncCluster, Client


async def ask(client: Client, *commands: Command) -> list[Any]:
    """The replies to read commands, in their order. Raises one of `store.index.UNAVAILABLE`."""
    if isinstance(client, AsyncCluster):
        return await _ask_cluster(client, commands)
    connection = await client.connection_pool.get_connection()
    # One timer for all, where redis-py would take one for each reply, and before Python 3.12 a task for the question.
    seconds, connection.socket_timeout = connection.socket_timeout, None
    try:
        packed = b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type]
        async with asyncio.timeout(seconds):
            await connection.send_packed_command(packed, check_health=False)
            return [await connection.read_response(disable_decoding=True) for _ in commands]
    except BaseException as error:
        # Replies may be on their way still: this connection cannot be used for another question.
        await connection.disconnect(nowait=True)
        if isinstance(error, TimeoutError):
            raise redis.TimeoutError(f"no answer in {seconds:g} s") from error
        raise
    finally:
        connection.socket_timeout = seconds
        await client.connection_pool.release(connection)


async def _ask_cluster(client: AsyncCluster, commands: tuple[Command, ...]) -> list[Any]:
    pipe = client.pipeline()
    for command in commands:
        pipe.execute_command(*command)
    replies = await pipe.execute()
    # As the servers say it: redis-py makes dictionaries of some.
    return [[part for pair in r.items() for part in pair] if isinstance(r, dict) else r for r in replies]
