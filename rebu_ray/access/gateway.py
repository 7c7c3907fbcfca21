"""The gateway: the ingress deployment of Serve, which answers every request of the HTTP interface.

Writes are parsed, identified and handed to the shards here; hot reads are one or two pipelines to Redis.
Whatever is slower (the lake) is asked of deployments behind it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final

import msgspec
import ray
from ray import serve
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from rebu_ray import traces
from rebu_ray.access import (
    audit,
    autoscaling,
    cold,
    deadletters,
    documentation,
    operations,
    replay,
    rides,
    rides_table,
    rights,
    sql,
    stats,
    users,
    warehouse,
)
from rebu_ray.access.dashboard import pages, session
from rebu_ray.access.history import Histories
from rebu_ray.access.live import Live
from rebu_ray.access.measures import GatewayMeasures, Reporter, known_method, route_of
from rebu_ray.access.requests import with_deadline, with_id
from rebu_ray.access.routes import Routes
from rebu_ray.ingest import http as write_routes
from rebu_ray.ingest.admission import Admission
from rebu_ray.ingest.breaker import Breaker, Change
from rebu_ray.ingest.failure import cause
from rebu_ray.ingest.intake import Intake
from rebu_ray.ingest.roles import place
from rebu_ray.ingest.shards import Shards
from rebu_ray.ingest.sizing import GATEWAY_CPUS
from rebu_ray.ingest.traffic import Work
from rebu_ray.keys import Keys, LiveKeys, Watch
from rebu_ray.logs import SERVE_LOGS, event, signed
from rebu_ray.records import BadRequest
from rebu_ray.settings import Role, Settings
from rebu_ray.store.index import UNAVAILABLE
from rebu_ray.store.journal import JournalError
from rebu_ray.store.lake import LakeError
from rebu_ray.store.redis_cluster import connect_async

log = logging.getLogger("rebu.gateway")
access_log = logging.getLogger("rebu.access")

APPLICATION = "rebu"
MOST_CONNECTIONS: Final = 10_000
"""More than HAProxy lets through: Serve is not to queue what `Admission` refuses."""


class Backends:
    """What a gateway replica talks to: the coordinator, the shards, Redis and the lake's reader."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.shards = Shards(settings)
        self.ask = self.shards.ask
        self.measures = GatewayMeasures()
        self.reporter = Reporter("gateway", self.measures.registry, self.ask)

    async def open(self) -> None:
        """Connect. Raises where the coordinator or Redis cannot be reached."""
        self.redis = connect_async(self._settings.redis_url, protocol=2, socket_timeout=10, socket_connect_timeout=2)
        routing = await self.shards.routing(True)
        if self._settings.appdb_url:
            # Who has no such database need not load what reads it.
            from rebu_ray.ingest.appdb import actor

            # Also where nothing but Serve was started. Whoever is the first makes it.
            await asyncio.to_thread(actor.start, self._settings)
        reader = serve.get_deployment_handle("LakeReader", app_name=serve.get_replica_context().app_name)

        async def cold_page(*args: Any) -> list[bytes]:
            found: list[bytes] = await reader.page.remote(*args)
            return found

        self.reporter.begin()
        self.intake = Intake(self.shards.routing, self.shards.append, self.measures.verdicts.note)
        self.histories = Histories(self.redis, routing.partitions, cold_page, self._settings.read_wait_seconds)

        statements = serve.get_deployment_handle("SqlReader", app_name=serve.get_replica_context().app_name)

        async def run_sql(*args: Any) -> sql.Answer:
            answer: sql.Answer = await statements.run.remote(*args)
            return answer

        self.run_sql = run_sql

        async def ride_page(*args: Any) -> cold.RidePage:
            found: cold.RidePage = await reader.rides.remote(*args)
            return found

        async def ride_counts(*args: Any) -> list[list[int]]:
            found: list[list[int]] = await reader.ride_counts.remote(*args)
            return found

        self.ride_counts = ride_counts
        self.rides = rides.Rides(self.histories)
        self.ride_pages = ride_page
        self.live = Live(self.redis, self.histories, cold_page, self.shards.watch)

    async def close(self) -> None:
        self.reporter.close()
        await self.redis.aclose()


def build(settings: Settings, keys: Keys) -> ASGIApp:
    """The ASGI application of one replica."""
    backends = Backends(settings)
    breaker = Breaker(
        settings.breaker_share, settings.breaker_records, settings.breaker_seconds, _telling(backends.ask)
    )

    work = Work()
    writes, reads = (Admission(settings.inflight_bytes, requests=settings.replica_requests) for _ in range(2))
    backends.measures.watch("write", writes)
    backends.measures.watch("read", reads)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await backends.open()
        reports = asyncio.create_task(autoscaling.reports(backends.ask, work)) if settings.autoscales else None
        yield
        if reports is not None:
            reports.cancel()
        await backends.close()

    routes = [
        *write_routes.routes(keys, lambda: backends.intake, writes, breaker),
        *rides_table.routes(keys, lambda: backends.histories, lambda: backends.ride_pages, backends.ask),
        *stats.routes(keys, lambda: backends.histories, lambda: backends.ride_counts, backends.ask),
        *rides.routes(keys, lambda: backends.rides),
        *rights.reading(keys, lambda: backends.histories, lambda: backends.rides, backends.ask),
        *users.routes(keys, lambda: backends.histories, lambda: backends.live, lambda: backends.intake),
        *deadletters.routes(keys, lambda: backends.histories),
        *replay.routes(keys, lambda: backends.histories, lambda: backends.intake, backends.ask),
        *audit.routes(keys, backends.ask),
        *rights.erasing(keys, lambda: backends.histories, backends.ask),
        *sql.routes(keys, lambda: backends.run_sql),
        *warehouse.routes(keys, backends.ask),
        *operations.routes(keys, lambda: backends.redis, backends.ask, backends.reporter),
        *session.routes(keys, settings.port),
        *pages.routes(keys, lambda: backends.redis, settings.port),
        *documentation.routes(),
    ]
    app = Starlette(
        exception_handlers={
            BadRequest: _refused,
            HTTPException: _no_route,
            **dict.fromkeys(UNAVAILABLE, _index_away),
            ray.exceptions.RayActorError: _coordinator_away,
            ray.exceptions.RayTaskError: _elsewhere_failed,
            ClientDisconnect: _hung_up,
            Exception: _failed,
        },
    )
    app.router = Routes(routes, lifespan)
    counted = _counted(app, backends.measures, reads, work)
    return session.with_cookie(with_id(counted), keys, settings.port)


def _telling(ask: Callable[..., Awaitable[Any]]) -> Callable[[Change], None]:
    """Let the coordinator know of senders that are suspended, or no longer are."""
    replica, under_way = uuid.uuid4().hex, set[asyncio.Task[None]]()

    async def told(change: Change) -> None:
        try:
            await ask("suspended", replica, change)
        except ray.exceptions.RayActorError as error:
            log.warning("the coordinator is away, and not told of %s: %s", change, error)

    def tell(change: Change) -> None:
        said = "a sender of %s (%016x): %s after %d of %d records were refused"
        log.warning(said, change.source, change.sender, change.state, change.refused, change.records)
        task = asyncio.create_task(told(change))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    return tell


def application(settings: Settings, keys: Keys) -> serve.Application:
    """The Serve application: gateway and lake reader, both autoscaled."""

    def build_replica() -> ASGIApp:
        traces.begin(settings, "gateway")
        given = (settings.write_key, settings.read_key, settings.admin_key)
        return build(settings, LiveKeys.watched(Watch(settings.data_dir, keys, given, settings.rate_limit)))

    replica: Any = serve.ingress(build_replica)()
    made: Any = serve.deployment(replica)
    gateway = made.options(
        name="Gateway",
        ray_actor_options={"num_cpus": GATEWAY_CPUS, "resources": place(settings, Role.GATEWAY)},
        max_ongoing_requests=MOST_CONNECTIONS,
        autoscaling_config=autoscaling.of_gateways(settings),
        graceful_shutdown_timeout_s=5,
        logging_config=SERVE_LOGS,
        max_surge_percent=50,  # where another version takes its place, a new one is up first
    )
    bound: serve.Application = gateway.bind(cold.deployment(settings), sql.deployment(settings))
    return bound


def _counted(app: ASGIApp, measures: GatewayMeasures, reads: Admission, work: Work) -> ASGIApp:
    """The application with its answers counted and timed, given up where they do not begin, and no more reads at once
    than it takes on. Streams stay open.
    """
    bounded = with_deadline(app)

    async def counting(
        scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        is_work = _is_work(scope["path"])

        async def note(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        if is_work:
            work.begun()
        try:
            try:
                with reads.request() if is_work and scope["method"] == "GET" else nullcontext():
                    await bounded(scope, receive, note)
            except BadRequest as error:
                said = "too many reads at once: ask again soon" if error.status == 429 else error.message
                await _error(error.status, error.code, said, error.retry_after)(scope, receive, note)
        finally:
            if is_work:
                work.ended(status in (429, 503))
            if status:
                route = route_of(scope)
                took = time.perf_counter() - began
                measures.answered(scope["method"], route, status, took)
                event(
                    access_log,
                    "answered",
                    method=known_method(scope["method"]),
                    route=route,
                    status=status,
                    ms=round(1000 * took, 1),
                )

    return counting


def _is_work(path: str) -> bool:
    """Whether a request keeps a gateway busy: neither a probe, nor a stream that stays open."""
    return path.startswith("/v1/") and not path.endswith("/stream")


def _error(status: int, code: str, message: str, retry_after: int | None = None) -> Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="Rebu"'
    body = msgspec.json.encode({"code": code, "message": signed(message)})
    return Response(body, status, headers, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequest)
    return _error(error.status, error.code, error.message, error.retry_after)


def _matching(request: Request) -> list[Route]:
    """The routes of this path; of two shapes that it fits the one that is looked at first, which says more of it."""
    found = [r for r in request.app.routes if isinstance(r, Route) and r.matches(request.scope)[0] != Match.NONE]
    return [route for route in found if route.path == found[0].path]


def _shape(request: Request) -> str:
    """What may be logged of a request: whose ids its path holds is nobody's business."""
    return f"{request.method} {next((route.path for route in _matching(request)), 'of an unknown path')}"


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refusal = _error(405, "method_not_allowed", f"{request.url.path} does not take {request.method}: see /docs")
        # All that the path takes, where more than one route is there for it.
        allowed = {method for route in _matching(request) for method in route.methods or ()}
        refusal.headers["Allow"] = ", ".join(sorted(allowed))
        return refusal
    return _error(error.status_code, "not_found", f"there is nothing at {request.url.path}: /docs lists what there is")


async def _index_away(request: Request, error: Exception) -> Response:
    log.warning("index unavailable: %s", error)
    return _error(
        503, "index_unavailable", "the index does not answer; writes go on, reads come back: ask again soon", 2
    )


async def _coordinator_away(request: Request, error: Exception) -> Response:
    log.warning("the coordinator is away: %s", error)
    return _error(503, "unavailable", "the coordinator is being restarted; send again in a few seconds", 5)


async def _elsewhere_failed(request: Request, error: Exception) -> Response:
    found = cause(error)
    if isinstance(found, UNAVAILABLE):
        return await _index_away(request, found)
    if isinstance(found, ray.exceptions.RayActorError):
        log.warning("%s: %s", _shape(request), found)
        return _error(503, "unavailable", "a shard is being restarted; send again in a few seconds", 5)
    if isinstance(found, (OSError, JournalError, LakeError)):
        log.warning("%s: %s", _shape(request), found)
        return _error(503, "storage_unavailable", f"journal or lake cannot be used now: {found}", 5)
    return await _failed(request, error)


async def _hung_up(request: Request, error: Exception) -> Response:
    """Nobody reads this: the client left in the middle of its body."""
    return _error(400, "incomplete_body", "the connection ended before the body did")


async def _failed(request: Request, error: Exception) -> Response:
    log.error("%s failed", _shape(request), exc_info=error)
    return _error(500, "internal_error", "this should not happen and is in the log; nothing is lost: try again")
