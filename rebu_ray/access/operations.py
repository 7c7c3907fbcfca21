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
from rebu_ray.access.measures import Reporter
from rebu_ray.access.scrape import Scrape
from rebu_ray.build import BUILD
from rebu_ray.ingest.appdb import asked as appdb
from rebu_ray.ingest.progress import progress
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.logs import signed
from rebu_ray.metrics import MEDIA_TYPE
from rebu_ray.records import BadRequest
from rebu_ray.store.index import UNAVAILABLE
from rebu_ray.store.redis_cluster import Client

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


def routes(keys: Keys, redis: Callable[[], Client], ask: Ask, reporter: Reporter) -> list[Route]:
    """Health, metrics, state and administration."""
    cluster = Cluster()
    scrape = Scrape(reporter, redis, cluster)

    async def healthz(request: Request) -> Response:
        return Response(msgspec.json.encode({"status": "alive", "build": BUILD}), media_type="application/json")

    async def readyz(request: Request) -> Response:
        state = await ask("status")
        away = [shard["slot"] for shard in state["shards"] if shard["index"] != "current"]
        await redis().ping()
        if away:
            why = [shard["detail"] for shard in state["shards"] if shard["index"] in ("damaged", "closed")]
            message = why[0] if why else f"the shards {away} are starting or catching up{_far(state)}: ask again soon"
            body = {"code": "not_ready", "message": signed(message)}
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
            pulled.pop("measured", None)
            state["appdb"] = pulled
        return Response(msgspec.json.encode(state), media_type="application/json")

    async def metrics(request: Request) -> Response:
        return Response(await scrape.text(), media_type=MEDIA_TYPE)

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
