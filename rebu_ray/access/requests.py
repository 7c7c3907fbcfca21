"""What every request gets: an id, its sender's or a new one, in the answer, in lines of log and in an error's message;
and a time by which its answer has to begin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.types import ASGIApp

from rebu_ray import traces
from rebu_ray.access.measures import known_method, route_of
from rebu_ray.logs import about, taken
from rebu_ray.records import BadRequest

HEADER: Final = b"x-request-id"
ANSWER_SECONDS: Final = 120.0
"""How long an answer may take to begin. A stream goes on for as long as somebody reads it."""
_LONG_WORK: Final = ("/v1/admin/", "/v1/audit")
"""What takes as long as the platform's data are large: rebuilding, recomputing, comparing, counting."""


def with_id(app: ASGIApp) -> ASGIApp:
    """The application, each request of which has an id.

    Serve answers with the id that a request brings, or that it gave it itself: then it is not said twice.
    """

    async def identified(
        scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == HEADER), None)
        request_id = taken(given)

        async def told(message: Any) -> None:
            if message["type"] == "http.response.start" and request_id != given:
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, request_id.encode())]}
            await send(message)

        tracing = traces.active()
        if tracing is None:
            with about((request_id,)):
                await app(scope, receive, told)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        span = tracing.request(request_id, headers)
        status = 0

        async def traced(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await told(message)

        try:
            with about((tracing.origin(request_id, span),)):
                await app(scope, receive, traced)
        finally:
            _name(span, scope, status)
            if status >= 500 or not status:
                tracing.failed(span)
            span.end()

    return identified


def _name(span: Any, scope: Any, status: int) -> None:
    """By its route, which has nobody's id in it."""
    method, route = known_method(scope["method"]), route_of(scope)
    span.update_name(f"{method} {route}")
    span.set_attribute("http.request.method", method)
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)


def with_deadline(app: ASGIApp, seconds: float = ANSWER_SECONDS) -> ASGIApp:
    """The application, which gives up a request whose answer has not begun by then. Raises BadRequest 503 for it."""

    async def bounded(
        scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        try:
            async with asyncio.timeout(None if scope["path"].startswith(_LONG_WORK) else seconds) as deadline:

                async def begun(message: Any) -> None:
                    deadline.reschedule(None)
                    await send(message)

                await app(scope, receive, begun)
        except TimeoutError as error:
            raise BadRequest(
                503, "timeout", f"nothing could be answered in {seconds:g} s: ask for less, or again later", 5
            ) from error

    return bounded
