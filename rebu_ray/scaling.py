"""`rebu scale`: how many shards there are to be."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Final

import typer

from rebu_ray.connect import DataDir, Key, Url, client

_LOOK_SECONDS: Final = 0.2


def scale(
    shards: Annotated[int, typer.Option(help="How many shard actors share the partitions.")],
    url: Url = None,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Add or remove shards of a running platform, while data flows: partitions move, nobody's history changes.

    Example: rebu scale --shards 3
    """
    with client(url, key, data_dir) as rebu:
        asked = rebu.send("POST", "/v1/admin/scale", content=json.dumps({"shards": shards}).encode()).json()
        typer.echo(f"{asked['before']} shards, {shards} wanted: {asked['moves']} partitions move")
        before = _owners(rebu.status())
        while True:
            state = rebu.status()
            now = _owners(state)
            for partition, slot in sorted(now.items()):
                if before.get(partition, slot) != slot:
                    typer.echo(f"partition {partition}: from shard {before[partition]} to shard {slot}")
            before |= now
            if not state["scaling"]:
                break
            time.sleep(_LOOK_SECONDS)
        pauses = state["moves"]["pauses_ms"]
        for slot in sorted({*before.values()}):
            owned = [partition for partition, owner in sorted(before.items()) if owner == slot]
            typer.echo(f"shard {slot} owns {len(owned)} partitions: {', '.join(map(str, owned))}")
        if asked["moves"] and pauses:
            typer.echo(f"the last moves paused their partitions for {min(pauses):.0f} to {max(pauses):.0f} ms")


def _owners(state: dict[str, Any]) -> dict[int, int]:
    return dict(enumerate(state["routing"]["owners"]))
