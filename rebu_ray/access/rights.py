"""A person's rights: everything about them as one file, and being forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from rebu_ray.access import deadletters, query
from rebu_ray.access.history import Histories, unknown_user
from rebu_ray.access.rides import Rides
from rebu_ray.access.tape import END, START, Filter, after
from rebu_ray.access.users import profile_of, user
from rebu_ray.ingest.dialects import times
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.records import TABLES, BadRequest, Kind
from rebu_ray.store import facts
from rebu_ray.store.forgetting import names_person
from rebu_ray.store.index import UNAVAILABLE
from rebu_ray.store.links import owned
from rebu_ray.store.member import Codec
from rebu_ray.store.rows import json_text
from rebu_ray.store.tombstones import Gone, Names

Ask = Callable[..., Awaitable[Any]]
"""Call a method of the coordinator."""

_PAGE: Final = 1000
_CHUNK_BYTES: Final = 64 * 1024
_TABLE_OF: Final = {kind: str(table) for table, kind in TABLES.items()}


class _Row(msgspec.Struct, gc=False):
    user_id: Any = None


class _Letter(msgspec.Struct, gc=False):
    received_at: str
    record: msgspec.Raw


class _Named(msgspec.Struct, gc=False):
    ride_id: str = ""
    message_id: str = ""


_ROW: Final = msgspec.json.Decoder(_Row)
_LETTER: Final = msgspec.json.Decoder(_Letter)
_NAMED: Final = msgspec.json.Decoder(_Named)


def reading(keys: Keys, histories: Callable[[], Histories], rides: Callable[[], Rides], ask: Ask) -> list[Route]:
    """Export, and how far an erasure is. To stand before the routes that take any user id."""

    async def export(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.ADMIN)
        query.known(request.query_params, ())
        user_id = user(request)
        chunks = _chunks(Export(histories(), rides(), user_id).lines())
        first = await anext(chunks)  # what goes wrong at the beginning is answered as an error
        headers = {"Content-Disposition": 'attachment; filename="export.ndjson"', "Cache-Control": "no-store"}
        return StreamingResponse(_chained(first, chunks), media_type="application/x-ndjson", headers=headers)

    async def erasure(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.ADMIN)
        query.known(request.query_params, ())
        state = await ask("erasure", user(request))
        if state is None:
            raise BadRequest(404, "unknown_erasure", "nobody asked for this user to be erased")
        return _answer(state)

    return [
        Route("/v1/users/{user_id:id}/export", export, methods=["GET"]),
        Route("/v1/users/{user_id:id}/erasure", erasure, methods=["GET"]),
    ]


def erasing(keys: Keys, histories: Callable[[], Histories], ask: Ask) -> list[Route]:
    """Erasure. To stand after the other routes that delete something of a user's."""

    async def erase(request: Request) -> Response:
        if b"/" in request.scope["raw_path"].partition(b"?")[0].removeprefix(b"/v1/users/"):
            # Somebody's list or document is not to be taken for a person of that name.
            raise HTTPException(405)
        keys.check(presented_key(request.headers.get("authorization")), Scope.ADMIN)
        query.known(request.query_params, ())
        user_id = user(request)
        if await ask("erasure", user_id) is None and not (await histories().person(user_id)).exists:
            raise unknown_user(user_id)
        try:
            return _answer({"success": True, **await ask("erase", user_id, str(Scope.ADMIN))})
        except TimeoutError as error:
            raise BadRequest(503, "erasure_under_way", str(error.args[0] if error.args else error), 5) from error
        except UNAVAILABLE as error:
            message = "the index does not answer: the erasure is noted and goes on when it does"
            raise BadRequest(503, "erasure_under_way", message, 5) from error

    return [Route("/v1/users/{user_id:id}", erase, methods=["DELETE"])]


class Export:
    """Everything about one person, line by line, in memory that does not grow with it but for ids of rides."""

    def __init__(self, histories: Histories, rides: Rides, user_id: str) -> None:
        self._histories = histories
        self._rides = rides
        self._user = user_id
        self._names = Names(user_id)
        self._codec = Codec()

    async def lines(self) -> AsyncIterator[bytes]:
        """One JSON object each, with its `type`; the last one, of type end, counts the others.

        Raises BadRequest 404 for an unknown user, 503 while the index is not whole.
        """
        counts: Counter[str] = Counter()
        parts = (self._person, self._events, self._documents, self._rows, self._letters)
        for part in parts:
            async for kind, text in part():
                counts[kind] += 1
                yield b'{"type":"%b",%b\n' % (kind.encode(), text[1:])
        yield msgspec.json.encode({"type": "end", "user_id": self._user, "lines": dict(counts)}) + b"\n"

    async def _person(self) -> AsyncIterator[tuple[str, bytes]]:
        yield "profile", msgspec.json.encode(await profile_of(self._histories, self._user))
        for phone, links in (await self._histories.person(self._user)).phones.items():
            self._names.phones[phone] = tuple(Gone(part.since, part.until, 0) for part in owned(links, self._user))
            for link in links:
                if link.user_id == self._user:
                    shown = {
                        "anonymous_id": phone,
                        "timestamp": times.text(link.event_time),
                        "received_at": times.text(link.received_at),
                    }
                    yield "link", msgspec.json.encode(shown)

    async def _events(self) -> AsyncIterator[tuple[str, bytes]]:
        head = b'{"user_id":' + json_text(self._user).encode() + b","
        low: bytes | None = START
        while low is not None:
            page = await self._histories.page(self._user, low, END, Filter(), False, _PAGE)
            for fragment in page.fragments:
                yield "event", head + fragment
            low = None if page.resume is None else after(page.resume)

    async def _documents(self) -> AsyncIterator[tuple[str, bytes]]:
        for things, kind in (("rides", "ride"), ("messages", "message")):
            low: bytes | None = START
            while low is not None:
                items, resume = await self._rides.listed(self._user, things, low, END, False, _PAGE)
                for item in items:
                    named = _NAMED.decode(item)
                    self._names.streams.add(f"o:{named.ride_id}" if kind == "ride" else f"m:{named.message_id}")
                    yield kind, item
                low = None if resume is None else after(resume)

    async def _rows(self) -> AsyncIterator[tuple[str, bytes]]:
        """Every version of the application database's rows about them."""
        keys, redis = facts.Keys(self._histories.partitions), self._histories.redis
        things = {thing.decode() for thing in await redis.smembers(keys.things(f"u:{self._user}"))}
        for thing in ["", *sorted(things | self._names.streams)]:
            name = thing[2:]
            key = keys.user(self._user) if not thing else keys.ride(name) if thing[0] == "o" else keys.message(name)
            for record_id, data in sorted((await redis.hgetall(key)).items()):
                fact = facts.parse_fact(data, self._codec)
                if fact.kind == Kind.RIDE_DESTINATION:
                    theirs = thing in self._names.streams
                else:
                    theirs = fact.kind == Kind.USER or _ROW.decode(fact.body).user_id == self._user
                if theirs:
                    shown = {
                        "table": _TABLE_OF[fact.kind],
                        "id": record_id.decode(),
                        "received_at": times.text(fact.received_at),
                        "row": msgspec.Raw(fact.body),
                    }
                    yield "row", msgspec.json.encode(shown)

    async def _letters(self) -> AsyncIterator[tuple[str, bytes]]:
        """Refused records that name them, or what is theirs."""
        params = {"order": "asc", "limit": str(_PAGE)}
        while True:
            page, cursor = await deadletters.page_of(self._histories, params)
            for fragment in page.fragments:
                letter = _LETTER.decode(b"{" + fragment)
                if names_person(bytes(letter.record), times.milliseconds(letter.received_at), self._names):
                    yield "dead_letter", b"{" + fragment
            if cursor is None:
                return
            params["cursor"] = cursor


async def _chunks(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines joined to pieces that are worth sending."""
    held: list[bytes] = []
    size = 0
    async for line in lines:
        held.append(line)
        size += len(line)
        if size >= _CHUNK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _answer(state: dict[str, Any]) -> Response:
    for name in ("asked_at", "completed_at"):
        if state.get(name) is not None:
            state[name] = times.text(state[name])
    return Response(msgspec.json.encode(state), media_type="application/json")
