"""The routes of the warehouse's operator: load it, and prove that it is right."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import ray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rebu_ray.access import query
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.records import BadRequest
from rebu_ray.store.warehouse.schema import SchemaChange, WarehouseError

Ask = Callable[..., Awaitable[Any]]
"""Call a method of the coordinator, by its name, with arguments."""


def routes(keys: Keys, ask: Ask) -> list[Route]:
    """Loading and verifying."""

    async def load(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.ADMIN)
        query.known(request.query_params, ("rebuild",))
        rebuild = query.truth(request.query_params, "rebuild") or False
        return await done("load_warehouse", rebuild)

    async def verify(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.ADMIN)
        query.known(request.query_params, ())
        return await done("verify_warehouse")

    async def done(method: str, *arguments: object) -> Response:
        try:
            return Response(msgspec.json.encode(await ask(method, *arguments)), media_type="application/json")
        except ray.exceptions.RayTaskError as error:
            raise _refusal(error.cause) from error

    return [
        Route("/v1/admin/warehouse/load", load, methods=["POST"]),
        Route("/v1/admin/warehouse/verify", verify, methods=["GET"]),
    ]


def _refusal(cause: BaseException) -> BaseException:
    """The answer to what went wrong; what is nobody's mistake stays what it is."""
    message = str(cause.args[0] if cause.args else cause)
    if isinstance(cause, SchemaChange):
        return BadRequest(409, "schema_changed", message)
    if isinstance(cause, WarehouseError):
        return BadRequest(503, "warehouse_unavailable", message, 10)
    if isinstance(cause, TimeoutError):
        return BadRequest(503, "documents_behind", message, 30)
    return cause
