"""The routes about the platform itself: alive, ready, its state, and what an operator may ask it to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rebu_ray.access import query
from rebu_ray.access.cluster import Cluster
from rebu_ray.build import BUILD
from rebu_ray.ingest.appdb import asked as appdb
from rebu_ray.ingest.progress import progress
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.records import BadRequest
from rebu_ray.store.index import UNAVAILABLE, Client

Ask = Callable[..., Awaitable[Any]]
"""Call a method of the coordinator, by its name, with arguments."""


class _Scale(msgspec.Struct, forbid_unknown_fields=True):
    shards: int


def _wanted(body: bytes, partitions: int) -> int:
    """How many shards a request asks for. Raises BadRequest."""
    try:
        shards = msgspec.json.decode(body, type=_Scale).shards
    except msgspec.DecodeError as error:
        raise BadRequest(400, "invalid_shards", f'send {{"shards": 3}}, for example: {error}') from error
    if not 1 <= shards <= partitions:
        raise BadRequest(
            400,
            "invalid_shards",
            f"shards is {shards}: there are {partitions} partitions to share, so 1 to {partitions}",
        )
    return shards


def routes(keys: Keys, redis: Callable[[], Client], ask: Ask, counters: Callable[[], Mapping[str, int]]) -> list[Route]:
    """Health, metrics, state and administration."""
    cluster = Cluster()

    async def healthz(request: Request) -> Response:
        return Response(msgspec.json.encode({"status": "alive", "build": BUILD}), media_type="application/json")

    async def readyz(request: Request) -> Response:
        state = await ask("status")
        away = [shard["slot"] for shard in state["shards"] if shard["index"] != "current"]
        await redis().ping()
        if away:
            why = [shard["detail"] for shard in state["shards"] if shard["index"] in ("damaged", "closed")]
            message = why[0] if why else f"the shards {away} are starting or catching up{_far(state)}: ask again soon"
            body = {"code": "not_ready", "message": message}
            return Response(msgspec.json.encode(body), 503, {"Retry-After": "2"}, media_type="application/json")
        return Response(b'{"status":"ready"}', media_type="application/json")

    async def status(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.READ)
        query.known(request.query_params, ())
        state = await ask("status")
        try:
            memory = await redis().info("memory")
        except UNAVAILABLE as error:  # the rest is what one wants to know now
            state["redis"] = {"used_memory_bytes": None, "detail": str(error)}
        else:
            state["redis"] = {"used_memory_bytes": memory["used_memory"]}
        state |= await cluster.status()
        if (pulled := await appdb.status()) is not None:
            state["appdb"] = pulled
        return Response(msgspec.json.encode(state), media_type="application/json")

    async def metrics(request: Request) -> Response:
        state = await ask("status")
        return Response(_prometheus(state, counters()), media_type="text/plain; version=0.0.4")

    async def flush(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.ADMIN)
        return Response(
            msgspec.json.encode({"success": True, "segments": await ask("flush")}), media_type="application/json"
        )

    async def reindex(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.ADMIN)
        done = await ask("reindex")
        return Response(msgspec.json.encode({"success": True, **done}), media_type="application/json")

    async def backfill(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.ADMIN)
        return await recomputed("backfill")

    async def verify(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.ADMIN)
        return await recomputed("verify")

    async def scale(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.ADMIN)
        partitions = (await ask("status"))["partitions"]
        shards = _wanted(await request.body(), partitions)
        done = await ask("scale", shards)
        if done is None:
            raise BadRequest(409, "scaling", "another scaling is under way: `rebu status` shows how far it is", 2)
        return Response(msgspec.json.encode({"success": True, **done}), media_type="application/json")

    async def recomputed(method: str) -> Response:
        try:
            return Response(msgspec.json.encode(await ask(method)), media_type="application/json")
        except TimeoutError as error:
            raise BadRequest(503, "documents_behind", str(error.args[0] if error.args else error), 30) from error

    return [
        Route("/healthz", healthz, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/v1/status", status, methods=["GET"]),
        Route("/v1/admin/flush", flush, methods=["POST"]),
        Route("/v1/admin/reindex", reindex, methods=["POST"]),
        Route("/v1/admin/scale", scale, methods=["POST"]),
        Route("/v1/admin/backfill", backfill, methods=["POST"]),
        Route("/v1/admin/verify", verify, methods=["GET"]),
    ]


def _far(state: Mapping[str, Any]) -> str:
    """How far the index is, where it is behind."""
    done, total = progress(state["shards"])
    return f" ({done:,} of {total:,} records are indexed)" if total else ""


_SHARD_METRICS = {
    "stored": ("counter", "Rows stored by a shard since it started."),
    "duplicate": ("counter", "Rows that a shard had already, since it started."),
    "delivered": ("counter", "Lines joined to a user by their request id, since the shard started."),
    "groups": ("counter", "Group commits since the shard started."),
    "flushes": ("counter", "Moves from journal to lake since the shard started."),
    "rows": ("gauge", "Rows ever journalled in the shard's partitions."),
    "queued_bytes": ("gauge", "Bytes of rows that wait for their group commit."),
    "queue_age_s": ("gauge", "How long the oldest of them has waited."),
    "load_bytes_s": ("gauge", "Bytes of rows that the shard takes a second, of late."),
    "journal_bytes": ("gauge", "Bytes of rows that are in the journal and not in the lake."),
    "journal_age_s": ("gauge", "Age of the oldest row that is not in the lake."),
    "remembered_ids": ("gauge", "Ids against which duplicates are recognised."),
    "unattributed_waiting": ("gauge", "Lines that wait for their request's user."),
    "unattributed_expired": ("counter", "Lines whose request nobody claimed within the hour."),
    "documents": ("counter", "Documents of rides and messages that changed, since the shard started."),
    "unindexed_rows": ("gauge", "Rows that the index lacks."),
    "unprocessed_rows": ("gauge", "Rows whose rides and messages are not computed yet."),
    "uncomputed_subjects": ("gauge", "People whose documents cannot be computed: the log says why."),
    "undelivered": ("gauge", "Joined lines that could not be delivered yet."),
}


def _prometheus(state: Mapping[str, Any], counters: Mapping[str, int]) -> str:
    """The state in Prometheus' text format."""
    lines = []
    for name, (kind, text) in _SHARD_METRICS.items():
        suffix = "_total" if kind == "counter" else ""
        lines += [f"# HELP rebu_shard_{name}{suffix} {text}", f"# TYPE rebu_shard_{name}{suffix} {kind}"]
        lines += [
            f'rebu_shard_{name}{suffix}{{slot="{shard["slot"]}"}} {shard[name]}'
            for shard in state["shards"]
            if name in shard
        ]
    for name, text in (("moved", "Partitions moved between shards"), ("fenced", "Slots taken from shards")):
        if "moves" in state:
            lines += [
                f"# HELP rebu_partitions_{name}_total {text}, since the coordinator started.",
                f"# TYPE rebu_partitions_{name}_total counter",
                f"rebu_partitions_{name}_total {state['moves'][name]}",
            ]
    for name, value in counters.items():
        lines += [f"# TYPE rebu_gateway_{name}_total counter", f"rebu_gateway_{name}_total {value}"]
    return "\n".join(lines) + "\n"
