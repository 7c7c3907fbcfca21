"""Browsers that are signed in: a one-time link or a key is exchanged for a cookie, and the cookie stands for the key.

The cookie is good for reading alone. It is never sent along with what another site asks for, no script can read it,
and whatever is no GET is to bring a key.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec
from starlette.requests import Request, cookie_parser
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from rebu_ray import passes
from rebu_ray.access import query
from rebu_ray.ingest.dialects.times import text
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.passes import Pass, Use
from rebu_ray.store.redis_cluster import Client

PATH: Final = "/v1/session"
_OWN: Final = ("same-origin", "none")
"""Where a request with the cookie may come from, by what a browser says of it: the dashboard, or the address bar."""


def cookie_name(port: int) -> str:
    """Cookies know no ports: two platforms on one machine are to be told apart by the name."""
    return f"rebu_session_{port}"


def routes(keys: Keys, port: int) -> list[Route]:
    """GET, POST and DELETE of the session: who one is, signing in with a key, signing out."""
    name = cookie_name(port)

    async def shown(request: Request) -> Response:
        query.known(request.query_params, ())
        key = presented_key(request.headers.get("authorization"))
        keys.check(key, Scope.READ)
        session = _session(keys, request.headers.getlist("cookie"), name)
        return _said(keys, key or "", None if session is None or session.key != key else session.until)

    async def begun(request: Request) -> Response:
        key = presented_key(request.headers.get("authorization"))
        keys.check(key, Scope.READ)
        return signed_in(_said(keys, key or "", _now() + 1000 * passes.SESSION_SECONDS), key or "", name, request)

    async def ended(request: Request) -> Response:
        # A cookie is asked for by itself here: to let go of it is all that it may do besides reading.
        if _session(keys, request.headers.getlist("cookie"), name) is None:
            keys.check(presented_key(request.headers.get("authorization")), Scope.READ)
        response = Response(b'{"success":true}', media_type="application/json")
        response.delete_cookie(name, path="/", httponly=True, samesite="strict", secure=_secure(request))
        return response

    return [
        Route(PATH, shown, methods=["GET"]),
        Route(PATH, begun, methods=["POST"]),
        Route(PATH, ended, methods=["DELETE"]),
    ]


async def redeem(keys: Keys, redis: Client, token: str) -> Pass | None:
    """The pass of a link, which is worthless from now on; None where it is not good, or was opened before.

    Raises one of UNAVAILABLE: without Redis nobody can tell whether it was.
    """
    found = passes.opened(keys, token, Use.LINK, _now())
    if found is None or Scope.READ not in keys.scopes(found.key, _now()):
        return None
    first = await redis.set(f"rebu-link:{found.digest}", b"1", nx=True, pxat=found.until)
    return found if first else None


def signed_in(response: Response, key: str, name: str, request: Request) -> Response:
    """The response with the cookie that stands for a key."""
    response.set_cookie(
        name,
        passes.issue(key, Use.SESSION, _now() + 1000 * passes.SESSION_SECONDS),
        max_age=passes.SESSION_SECONDS,
        path="/",
        httponly=True,
        samesite="strict",
        secure=_secure(request),
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def with_cookie(app: ASGIApp, keys: Keys, port: int) -> ASGIApp:
    """The application, to which a reader's cookie is the key that it stands for."""
    name = cookie_name(port)

    async def serve(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await app(scope, receive, send)
            return
        headers = {field: value for field, value in scope["headers"] if field != b"cookie"}
        if b"sec-fetch-mode" in headers and headers[b"sec-fetch-mode"] != b"navigate":
            send = _unchallenged(send)
        if scope["method"] not in ("GET", "HEAD"):
            await app(scope, receive, send)
            return
        if b"authorization" not in headers and headers.get(b"sec-fetch-site", b"none").decode("latin-1") in _OWN:
            session = _session(keys, (v.decode("latin-1") for k, v in scope["headers"] if k == b"cookie"), name)
            if session is not None:
                presented = b"Bearer " + session.key.encode()
                scope = {**scope, "headers": [*scope["headers"], (b"authorization", presented)]}
        await app(scope, receive, send)

    return serve


def _unchallenged(send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """Lets no 401 ask for a user name and a password: a browser would do so over the page, which says it better."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start" and message["status"] == 401:
            headers = [pair for pair in message["headers"] if pair[0].lower() != b"www-authenticate"]
            message = {**message, "headers": [*headers, (b"www-authenticate", b'Bearer realm="Rebu"')]}
        await send(message)

    return sending


def _session(keys: Keys, headers: Iterable[str], name: str) -> Pass | None:
    """The pass of the cookie of that name; None where none was sent, or it is not good."""
    for header in headers:
        found = cookie_parser(header).get(name)
        if found is not None:
            return passes.opened(keys, found, Use.SESSION, _now())
    return None


def _said(keys: Keys, key: str, until: int | None) -> Response:
    body = {"scopes": keys.scopes(key, _now()), "until": None if until is None else text(until)}
    return Response(msgspec.json.encode(body), headers={"Cache-Control": "no-store"}, media_type="application/json")


def _secure(request: Request) -> bool:
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"


def _now() -> int:
    return time.time_ns() // 1_000_000
