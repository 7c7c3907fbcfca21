"""Each request finds the route that a look at all of them would find."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, Router

import rebu_ray.access.users  # noqa: F401  # which has the convertor of ids
from rebu_ray.access.routes import Routes
from tests.records import seeded

PATHS: Final = (
    ("/healthz", "GET"),
    ("/v1/rides", "GET"),
    ("/v1/logs", "POST"),
    ("/v1/logs/{source}", "POST"),
    ("/v1/users/{user_id:id}/rides", "GET"),
    ("/v1/users/{user_id:id}/events", "GET"),
    ("/v1/users/{user_id:id}/events/stream", "GET"),
    ("/v1/users/{user_id:id}/anonymous/{anonymous_id:id}", "DELETE"),
    ("/v1/users/{user_id:id}", "GET"),
    ("/v1/users/{user_id:id}", "DELETE"),
    ("/dashboard/{name:path}", "GET"),
)
PARTS: Final = ("v1", "users", "logs", "rides", "events", "stream", "anonymous", "dashboard", "healthz", "a", "", "%2F")


def named(path: str, method: str) -> Route:
    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{method} {path} {sorted(request.path_params.items())}")

    return Route(path, answer, methods=[method])


@asynccontextmanager
async def nothing(app: Any) -> AsyncIterator[None]:
    yield


def served(router: type[Router]) -> Starlette:
    app = Starlette()
    app.router = router([named(path, method) for path, method in PATHS], lifespan=nothing)
    return app


ONE_BY_ONE, NEAR = served(Router), served(Routes)


def answer(app: Starlette, method: str, path: str) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://rebu") as client:
            return await client.request(method, path)

    return asyncio.run(asked())


@seeded
@given(st.lists(st.sampled_from(PARTS), max_size=7), st.sampled_from(["GET", "POST", "DELETE", "HEAD"]))
def test_a_request_is_answered_as_by_a_look_at_all_routes(parts: list[str], method: str) -> None:
    path = "/" + "/".join(parts)
    found, wanted = (answer(app, method, path) for app in (NEAR, ONE_BY_ONE))
    assert (found.status_code, found.text) == (wanted.status_code, wanted.text)
    assert found.headers.get("location") == wanted.headers.get("location")
    assert found.headers.get("allow") == wanted.headers.get("allow")


@pytest.mark.parametrize(("path", "method"), PATHS)
def test_every_route_is_found(path: str, method: str) -> None:
    asked = path.replace("{user_id:id}", "u%2F1").replace("{anonymous_id:id}", "p").replace("{name:path}", "x/y")
    assert answer(NEAR, method, asked.replace("{source}", "s")).text.startswith(f"{method} {path} ")
