"""GET /v1/rides: documents of rides as a table, filtered, from either end, in several formats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from rebu_ray.access import query
from rebu_ray.access.cold import RidePage
from rebu_ray.access.history import Histories
from rebu_ray.access.pipeline import ask
from rebu_ray.access.ride_formats import MEDIA_TYPES, WRITERS, Writer
from rebu_ray.access.tape import after
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.process.quality import STATUSES
from rebu_ray.records import BadRequest
from rebu_ray.store.facts import Keys as FactKeys
from rebu_ray.store.index import position_key, unflushed_key
from rebu_ray.store.member import Codec
from rebu_ray.store.ride_scan import NOTHING_FRESH, Overlay, RideQuery, in_order
from rebu_ray.store.ride_table import FRESH, Wanted, fresh, within

PARAMETERS: Final = (
    "since",
    "until",
    "city",
    "status",
    "premature",
    "cause",
    "min_errors",
    "has_messages",
    "user_id",
    "driver_id",
    "as_of",
    "order",
    "limit",
    "cursor",
    "format",
)
FORMATS: Final = ("json", *MEDIA_TYPES)
NEXT: Final = "X-Rebu-Next"
"""The header that says the cursor of the next page where the body has no place for it."""
_STREAMED: Final = 16_384
"""Rides that are held at once while all of them are streamed."""
_FETCHED: Final = 1000

RidePages = Callable[[int, RideQuery, Overlay, int, bool], Awaitable[RidePage]]
"""`LakeReader.rides`."""


def routes(
    keys: Keys,
    histories: Callable[[], Histories],
    pages: Callable[[], RidePages],
    ask_coordinator: Callable[[str], Awaitable[Any]],
) -> list[Route]:
    """The list of rides."""

    async def listed(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.READ)
        params = request.query_params
        query.known(params, PARAMETERS)
        form = _one_of(params, "format", FORMATS) or "json"
        limit = query.limit(params) if form == "json" or "limit" in params else None
        low, high = query.bounds(params)
        rides = RideQuery(low, high, query.descending(params), wanted(params), query.time(params, "as_of"))
        cursors = query.Cursors("rides", rides)
        low, high = cursors.narrow(params.get("cursor"), low, high, rides.descending)
        rides = rides._replace(low=low, high=high)
        table = _Table(histories(), pages(), rides)
        if rides.as_of is None:
            await table.look_at_unflushed()
        elif "cursor" not in params:
            # The index holds the newest version of a document and no other; the lake holds all that it has been
            # given. What a list with a cursor goes on with was there when its first page was asked for.
            await ask_coordinator("flush")
        if limit is None:
            pieces = table.pieces(WRITERS[form]())
            # What goes wrong at the beginning is to be answered as an error.
            return _file(form, _chained(await anext(pieces), pieces))
        page = await table.page(limit, form != "json")
        following = None if page.last is None else cursors.write(page.last)
        if form == "json":
            tail = b"null" if following is None else b'"' + following.encode() + b'"'
            return Response(b'{"items":[' + page.data + b'],"next":' + tail + b"}", media_type="application/json")
        writer = WRITERS[form]()
        data = await asyncio.to_thread(_written, writer, page.data) + writer.end()
        return _file(form, data, {} if following is None else {NEXT: following})

    return [Route("/v1/rides", listed, methods=["GET"])]


def wanted(params: Mapping[str, str]) -> Wanted:
    """The conditions of a list of rides. Raises BadRequest 400."""
    return Wanted(
        status=_several(params, "status", sorted(STATUSES)),
        city=_several(params, "city"),
        cause=_several(params, "cause", ("driver", "rider", "app", "unknown")),
        user_id=params.get("user_id"),
        driver_id=params.get("driver_id"),
        premature=_truth(params, "premature"),
        has_messages=_truth(params, "has_messages"),
        min_errors=_count(params, "min_errors"),
    )


class _Table:
    """The answer to one question: what the lake has of it, and over that what the lake does not have yet."""

    def __init__(self, histories: Histories, pages: RidePages, rides: RideQuery) -> None:
        self._histories = histories
        self._pages = pages
        self._rides = rides
        self._overlay = NOTHING_FRESH

    async def look_at_unflushed(self) -> None:
        """Read from the index what the lake may not hold. Before the lake is looked at, so that nothing falls between.

        Raises BadRequest 503 while the index of any partition is not whole, or one of UNAVAILABLE.
        """
        found = await unflushed(self._histories, self._chosen)
        self._overlay = found._replace(documents=in_order(found.documents, self._rides.descending))

    async def page(self, limit: int, flat: bool) -> RidePage:
        """The first `limit` rides."""
        # No more of the overlay than that can be among them, and the one that says that there are more.
        # Taken out of it: a slice would be sent with all that it is a slice of.
        documents = self._overlay.documents
        first = documents.take(pa.array(range(min(limit + 1, documents.num_rows)), pa.int64()))
        overlay = self._overlay._replace(documents=first)
        return await self._pages(self._histories.partitions, self._rides, overlay, limit, flat)

    async def pieces(self, writer: Writer) -> AsyncIterator[bytes]:
        """All rides as a file, which is never held as a whole, however slowly it is taken."""
        while True:
            page = await self.page(_STREAMED, True)
            yield await asyncio.to_thread(_written, writer, page.data)
            if page.last is None:
                break
            self._narrow(page.last)
        yield writer.end()

    def _narrow(self, last: bytes) -> None:
        """Go on after a place."""
        if self._rides.descending:
            self._rides = self._rides._replace(high=last)
        else:
            self._rides = self._rides._replace(low=after(last))
        documents = within(self._overlay.documents, self._rides.low, self._rides.high)
        self._overlay = self._overlay._replace(documents=documents)

    def _chosen(self, documents: pa.Table) -> pa.Table:
        return self._rides.wanted.of(within(documents, self._rides.low, self._rides.high))


async def unflushed(histories: Histories, chosen: Callable[[pa.Table], pa.Table]) -> Overlay:
    """What the lake may not hold yet, from the index; of the documents (`FRESH`) those that are chosen.

    Raises BadRequest 503 while the index of any partition is not whole, or one of UNAVAILABLE.
    """
    redis, partitions = histories.redis, range(histories.partitions)
    keys = FactKeys(histories.partitions)
    found: set[bytes] = set()
    replies = await ask(
        redis, *(c for p in partitions for c in (("GET", position_key(p)), ("ZRANGE", unflushed_key(p), 0, -1)))
    )
    for partition in partitions:
        histories.check(partition, replies[2 * partition])
        found.update(replies[2 * partition + 1])
    rides = sorted(ride.decode() for ride in found)

    def read(documents: list[bytes]) -> pa.Table:
        codec = Codec()
        return chosen(fresh([codec.decompress(data) for data in documents]))

    tables = [chosen(FRESH.empty_table())]
    for start in range(0, len(rides), _FETCHED):
        part = rides[start : start + _FETCHED]
        documents = await ask(redis, *(("GET", keys.ride_document(ride)) for ride in part))
        tables.append(await asyncio.to_thread(read, [data for data in documents if data is not None]))
    for partition, value in enumerate(await ask(redis, *(("GET", position_key(p)) for p in partitions))):
        histories.check(partition, value)
    return Overlay(rides, pa.concat_tables(tables))


def _written(writer: Writer, data: bytes) -> bytes:
    return writer.write(pa.ipc.open_stream(data).read_all())


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _file(form: str, content: bytes | AsyncIterator[bytes], headers: Mapping[str, str] | None = None) -> Response:
    named = {"Content-Disposition": f'attachment; filename="rides.{form}"', **(headers or {})}
    if isinstance(content, bytes):
        return Response(content, media_type=MEDIA_TYPES[form], headers=named)
    return StreamingResponse(content, media_type=MEDIA_TYPES[form], headers=named)


def _one_of(params: Mapping[str, str], name: str, allowed: Sequence[str]) -> str | None:
    text = params.get(name)
    if text is not None and text not in allowed:
        raise BadRequest(400, f"invalid_{name}", f"{name} is {text!r}: it must be one of {', '.join(allowed)}")
    return text


def _several(params: Mapping[str, str], name: str, allowed: Sequence[str] | None = None) -> tuple[str, ...] | None:
    """A comma-separated list, in an order of its own."""
    if name not in params:
        return None
    values = sorted(set(params[name].split(",")))
    for value in values:
        if allowed is not None and value not in allowed:
            raise BadRequest(400, f"unknown_{name}", f"{name} is {value!r}: it must be one of {', '.join(allowed)}")
    return tuple(values)


def _truth(params: Mapping[str, str], name: str) -> bool | None:
    text = _one_of(params, name, ("true", "false"))
    return None if text is None else text == "true"


def _count(params: Mapping[str, str], name: str) -> int | None:
    text = params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadRequest(400, f"invalid_{name}", f"{name} is {text!r}: it must be a whole number from 0 on")
    return int(text)
