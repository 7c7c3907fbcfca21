"""The id of each request, its sender's or a new one: in the answer, in lines of log, and in an error's message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.types import ASGIApp

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

        with about((request_id,)):
            await app(scope, receive, told)

    return identified
