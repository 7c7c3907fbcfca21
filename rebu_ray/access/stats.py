"""GET /v1/stats/rides/…: rides counted by the day of their request, and what is expected of the days to come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rebu_ray.access import query
from rebu_ray.access.days import Clock, asked, utc_now
from rebu_ray.access.history import Histories
from rebu_ray.access.rides_table import unflushed
from rebu_ray.ingest.dialects import times
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.process.forecast.question import Known, Question, at_once, of_hours
from rebu_ray.process.forecast.series import LONGEST
from rebu_ray.store.ride_scan import Overlay
from rebu_ray.zones import bounds, hours

PARAMETERS: Final = ("days", "tz", "today")
DAYS: Final = 31
MOST_DAYS: Final = 3660
FORECAST_DAYS: Final = 30
MOST_FORECAST_DAYS: Final = 90
WAIT_SECONDS: Final = 3.0
"""How long a request waits for a fit that is not done yet; the fit goes on, and the next request finds it."""
_COUNTED: Final = ("event_time", "status", "premature")

RideCounts = Callable[[int, Sequence[int], Overlay], Awaitable[list[list[int]]]]
"""`LakeReader.ride_counts`."""


def routes(
    keys: Keys,
    histories: Callable[[], Histories],
    counts: Callable[[], RideCounts],
    ask: Callable[..., Awaitable[Any]],
    clock: Clock = utc_now,
) -> list[Route]:
    """The daily numbers, and their forecast. `ask` calls a method of the coordinator, by its name."""

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

    async def expected(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.READ)
        query.known(request.query_params, PARAMETERS)
        wanted = asked(request.query_params, FORECAST_DAYS, MOST_FORECAST_DAYS, clock)
        # Today is not over: it says nothing yet.
        dates = wanted._replace(days=LONGEST + 1).dates()[:-1]
        question = Question(wanted.zone, wanted.today, wanted.days, wanted.today, ())
        if dates:
            begins = await asyncio.to_thread(bounds, dates, wanted.zone)
            rides = [hour[0] for hour in await counted(histories(), counts(), hours(begins))]
            question = await asyncio.to_thread(
                of_hours, wanted.zone, wanted.today, wanted.days, dates[0], begins, rides
            )
        is_now = clock().astimezone(ZoneInfo(wanted.zone)).date() == wanted.today
        known: Known = await ask("forecast", question, is_now, WAIT_SECONDS)
        return Response(msgspec.json.encode(_shown(known, question)), media_type="application/json")

    return [
        Route("/v1/stats/rides/daily", daily, methods=["GET"]),
        Route("/v1/stats/rides/forecast", expected, methods=["GET"]),
    ]


def _shown(known: Known, question: Question) -> dict[str, Any]:
    """The answer: `status` is fitted, stale (of a history that has changed since) or fitting (the baseline)."""
    forecast = at_once(question) if known.kept is None else known.kept.forecast
    status = "fitting" if known.kept is None else "fitted" if known.current else "stale"
    return {
        "model": forecast.model,
        "trained_from": forecast.trained_from,
        "trained_to": forecast.trained_to,
        "items": forecast.items,
        "backtest": forecast.backtest,
        "status": status,
        "made_at": None if known.kept is None else times.text(known.kept.made_at),
        "note": forecast.note,
        "past": [msgspec.structs.asdict(past.day) | {"made": past.made} for past in known.past],
    }


async def counted(histories: Histories, counts: RideCounts, edges: list[int]) -> list[list[int]]:
    """Rides, completed and premature ones between each edge (ms) and the next, of all that was acknowledged.

    Raises as `unflushed` does.
    """

    def chosen(documents: pa.Table) -> pa.Table:
        return documents.select(_COUNTED)

    # Before the lake is looked at, so that no ride falls between the two.
    overlay = await unflushed(histories, chosen)
    return await counts(histories.partitions, edges, overlay)
