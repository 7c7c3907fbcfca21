"""GET /v1/stats/rides/daily: rides counted by the day of their request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rebu_ray.access import query
from rebu_ray.access.days import Clock, asked, bounds, utc_now
from rebu_ray.access.history import Histories
from rebu_ray.access.rides_table import unflushed
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.store.ride_scan import Overlay

PARAMETERS: Final = ("days", "tz", "today")
DAYS: Final = 31
MOST_DAYS: Final = 3660
_COUNTED: Final = ("event_time", "status", "premature")

RideCounts = Callable[[int, Sequence[int], Overlay], Awaitable[list[list[int]]]]
"""`LakeReader.ride_counts`."""


def routes(
    keys: Keys, histories: Callable[[], Histories], counts: Callable[[], RideCounts], clock: Clock = utc_now
) -> list[Route]:
    """The daily numbers."""

    async def daily(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.READ)
        query.known(request.query_params, PARAMETERS)
        wanted = asked(request.query_params, DAYS, MOST_DAYS, clock)
        dates = wanted.dates()
        found = await counted(histories(), counts(), await asyncio.to_thread(bounds, dates, wanted.zone))
        items: list[dict[str, Any]] = [
            {
                "date": day.isoformat(),
                "rides": rides,
                "completed": completed,
                "premature": premature,
                "partial": day == wanted.today,
            }
            for day, (rides, completed, premature) in zip(dates, found, strict=True)
        ]
        return Response(msgspec.json.encode({"items": items}), media_type="application/json")

    return [Route("/v1/stats/rides/daily", daily, methods=["GET"])]


async def counted(histories: Histories, counts: RideCounts, edges: list[int]) -> list[list[int]]:
    """Rides, completed and premature ones between each edge (ms) and the next, of all that was acknowledged.

    Raises as `unflushed` does.
    """

    def chosen(documents: pa.Table) -> pa.Table:
        return documents.select(_COUNTED)

    # Before the lake is looked at, so that no ride falls between the two.
    overlay = await unflushed(histories, chosen)
    return await counts(histories.partitions, edges, overlay)
