"""The audit: whether everything that came in is accounted for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rebu_ray.access import query
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.store.audit import Findings

PARAMETERS: Final = ("source", "since", "until")


def routes(keys: Keys, ask: Callable[..., Awaitable[Any]]) -> list[Route]:
    """GET /v1/audit, for the read key."""

    async def audit(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.READ)
        params = request.query_params
        query.known(params, PARAMETERS)
        sources = frozenset(query.sources(params)) if "source" in params else None
        since, until = query.time(params, "since"), query.time(params, "until")
        found: Findings = await ask("audit", sources, since, until)
        items = [{name: value for name, value in item.items() if name != "at"} for item in found.items]
        body = {"balanced": found.balanced, "items": items, "problems": found.problems}
        return Response(msgspec.json.encode(body), media_type="application/json")

    return [Route("/v1/audit", audit, methods=["GET"])]
