"""The dead letters: every record that was refused, whole, with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rebu_ray.access import query
from rebu_ray.access.history import Histories, check_position, items
from rebu_ray.access.tape import Filter, Page, Stretch, Tape, floor_get, read_page
from rebu_ray.ingest.position import Position
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.store.index import position_key
from rebu_ray.store.member import Codec
from rebu_ray.store.rows import partition_of

PARAMETERS: Final = ("source", "since", "until", "order", "limit", "cursor", "min_position")


def routes(keys: Keys, histories: Callable[[], Histories]) -> list[Route]:
    """The list of dead letters, for the admin key."""

    async def listed(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.ADMIN)
        params = request.query_params
        query.known(params, PARAMETERS)
        page, following = await page_of(histories(), params)
        return Response(items(page, b"{", following), media_type="application/json")

    return [Route("/v1/deadletters", listed, methods=["GET"])]


async def page_of(histories: Histories, params: Mapping[str, str]) -> tuple[Page, str | None]:
    """A page of the list, and the cursor of the next one. Raises BadRequest 400 or 503."""
    sources = query.sources(params)
    desc, limit = query.descending(params), query.limit(params)
    low, high = query.bounds(params)
    cursors = query.Cursors("deadletters", sources, desc, low, high)
    low, high = cursors.narrow(params.get("cursor"), low, high, desc)
    stretches = [
        Stretch(partition_of(f"d:{source}", histories.partitions), f"d:{source}", low, high) for source in sources
    ]
    if "min_position" in params:
        await histories.wait_for(Position.decode(params["min_position"]))
    pipe = histories.redis.pipeline(transaction=False)
    for stretch in stretches:
        pipe.get(position_key(stretch.partition))
        pipe.execute_command(*floor_get(stretch))
    replies = await pipe.execute()
    for value in replies[::2]:
        check_position(value)
    tapes = [
        Tape(histories.redis, histories.cold, stretch, floor, desc)
        for stretch, floor in zip(stretches, replies[1::2], strict=True)
    ]
    page = await read_page(tapes, Codec(), Filter(), desc, limit)
    return page, None if page.resume is None else cursors.write(page.resume)
