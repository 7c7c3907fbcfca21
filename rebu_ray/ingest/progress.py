"""How far a rebuild of the index is, by what the shards say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def progress(shards: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """How many records are indexed of those that the index lacked, by the shards' states; (0, 0) if it lacks none."""
    behind = [shard["rebuilding"] for shard in shards if "rebuilding" in shard]
    return sum(part["rows_done"] for part in behind), sum(part["rows_total"] for part in behind)
