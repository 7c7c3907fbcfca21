"""What a Redis holds, to compare."""

from __future__ import annotations

from typing import Any


def dump(client: Any) -> dict[bytes, object]:
    """Every key with its value; what was compressed is compared as it is."""
    readers = {
        b"string": client.get,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"set": client.smembers,
        b"hash": client.hgetall,
    }
    return {key: readers[client.type(key)](key) for key in client.scan_iter()}
