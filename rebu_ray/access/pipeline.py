"""Several Redis commands in one round trip, without what redis-py's own pipeline does around each of them."""

from __future__ import annotations

from typing import Any

import hiredis

from rebu_ray.store.index import Client, Command


async def ask(client: Client, *commands: Command) -> list[Any]:
    """The replies to read commands, in their order. Raises one of `store.index.UNAVAILABLE`."""
    connection = await client.connection_pool.get_connection()
    try:
        packed = b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type]
        await connection.send_packed_command(packed, check_health=False)
        return [await connection.read_response(disable_decoding=True) for _ in commands]
    except BaseException:
        # Replies may be on their way still: this connection cannot be used for another question.
        await connection.disconnect(nowait=True)
        raise
    finally:
        await client.connection_pool.release(connection)
