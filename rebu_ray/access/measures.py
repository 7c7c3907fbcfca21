"""What a gateway counts of its answers, and how it and its like tell the coordinator."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import ray
from prometheus_client import CollectorRegistry, Counter, Gauge

from rebu_ray.ingest.admission import Admission
from rebu_ray.ingest.http import SEGMENT_CALLS
from rebu_ray.ingest.measures import Verdicts
from rebu_ray.ingest.reports import REPORT_SECONDS
from rebu_ray.ingest.routing import COORDINATOR, NAMESPACE
from rebu_ray.metrics import new_registry, seconds, snapshot

log = logging.getLogger("rebu.metrics")

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_WRITES: Final = ("/v1/logs", "/v1/records/", "/v1/batch", *(f"/v1/{call}" for call in SEGMENT_CALLS))
KINDS: Final = ("write", "read", "sql", "admin", "other")


def kind_of(method: str, route: str) -> str:
    """What a request is about, for the times of answers: one of KINDS."""
    if route == "/v1/sql":
        return "sql"
    if method == "POST" and route.startswith(_WRITES):
        return "write"
    if not route.startswith("/v1/"):
        return "other"
    return "read" if method == "GET" and not route.startswith("/v1/admin/") else "admin"


def known_method(method: str) -> str:
    """A method that there is, or `other`: there is no end of what may be sent."""
    return method if method in METHODS else "other"


def route_of(scope: Mapping[str, Any]) -> str:
    """The route of a request that was answered, as it is documented: no id is in it. `none` where there is none."""
    return str(scope["route"].path_format) if "route" in scope else "none"


class GatewayMeasures:
    """Of one gateway replica."""

    def __init__(self) -> None:
        self.registry: CollectorRegistry = new_registry()
        self.verdicts = Verdicts(self.registry)
        self._responses = Counter(
            "rebu_gateway_responses",
            "Answers, by the route as it is documented and the status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = seconds(
            self.registry,
            "rebu_gateway_response_seconds",
            "From a request's beginning to the end of its answer, streams left out.",
            ("kind",),
        )
        self._held_bytes, self._held_requests = (
            Gauge(f"rebu_gateway_held_{what}", f"{text} that are being answered.", ("kind",), registry=self.registry)
            for what, text in (("bytes", "Bytes of requests"), ("requests", "Requests"))
        )
        self._by_kind = {kind: self._seconds.labels(kind) for kind in KINDS}
        self._known: dict[tuple[str, str, int], Any] = {}

    def watch(self, kind: str, admission: Admission) -> None:
        """Show what is held of a kind of requests."""
        self._held_bytes.labels(kind).set_function(lambda: admission.held_bytes)
        self._held_requests.labels(kind).set_function(lambda: admission.held_requests)

    def answered(self, method: str, route: str, status: int, took: float) -> None:
        """A request was answered, after so many seconds."""
        key = (known_method(method), route, status)
        counter = self._known.get(key)
        if counter is None:
            counter = self._known[key] = self._responses.labels(*key)
        counter.inc()
        if not route.endswith("/stream"):
            self._by_kind[kind_of(method, route)].observe(took)


class Reporter:
    """Tells the coordinator now and then what a replica has counted."""

    def __init__(self, kind: str, registry: CollectorRegistry, ask: Callable[..., Awaitable[Any]]) -> None:
        self._kind = kind
        self._who = uuid.uuid4().hex
        self._number: int | None = None
        self._registry = registry
        self._ask = ask
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Tell from now on."""
        if self._task is None:
            self._task = asyncio.create_task(self._tell())

    def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()

    async def report(self, method: str = "report") -> Any:
        """Tell now, by a method of the coordinator; its answer, but for the number, which comes first."""
        said = snapshot(self._registry)
        self._number, *rest = await self._ask(method, self._kind, self._who, self._number, said)
        return rest

    async def _tell(self) -> None:
        while True:
            try:
                await self.report()
            except ray.exceptions.RayError as error:
                log.info("the coordinator is not told what was counted: %s", type(error).__name__)
            await asyncio.sleep(REPORT_SECONDS)


def tell_in_background(kind: str) -> None:
    """Have a replica that answers in threads tell what its process takes, for as long as it lives."""
    registry, who = new_registry(), uuid.uuid4().hex

    def tell() -> None:
        number: int | None = None
        while True:
            try:
                coordinator = ray.get_actor(COORDINATOR, NAMESPACE)
                number = ray.get(coordinator.report.remote(kind, who, number, snapshot(registry)))[0]
            except (ray.exceptions.RayError, TimeoutError, ValueError) as error:  # there may be none yet
                log.info("the coordinator is not told what was counted: %s", type(error).__name__)
            time.sleep(REPORT_SECONDS)

    threading.Thread(target=tell, name="report", daemon=True).start()
