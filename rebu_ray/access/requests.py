"""The id of each request, its sender's or a new one: in the answer, in lines of log, and in an error's message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.types import ASGIApp

from rebu_ray import traces
from rebu_ray.access.measures import known_method, route_of
from rebu_ray.logs import about, taken

HEADER: Final = b"x-request-id"


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
