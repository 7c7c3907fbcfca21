"""The routes about one user: history, live stream, profile, and the links of their phones."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from rebu_ray.access import query
from rebu_ray.access.history import Histories, answer, unknown_user
from rebu_ray.access.live import Live
from rebu_ray.access.tape import Filter
from rebu_ray.ingest.dialects.times import text
from rebu_ray.ingest.intake import Intake
from rebu_ray.ingest.position import Position
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.records import BadRequest, Kind, MatchedBy, Record, Source
from rebu_ray.store import facts
from rebu_ray.store.index import traits_key
from rebu_ray.store.member import Codec, place_time
from rebu_ray.store.rows import Routed, partition_of

HISTORY_PARAMETERS: Final = ("since", "until", "kind", "name", "source", "order", "limit", "cursor", "min_position")
# Values pass through as they were sent: a number may be beyond what this language reads.
_TRAITS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Row(msgspec.Struct):
    updated_at: str | None = None
    deleted: bool = False


_ROW: Final = msgspec.json.Decoder(_Row)
MERGED_IDENTIFIES: Final = 1000
"""How many of the newest identify calls a profile is put together from."""


class _Asked(NamedTuple):
    """What is asked of a history."""

    descending: bool
    wanted: Filter
    limit: int
    low: bytes
    high: bytes
    cursor: str | None
    min_position: Position | None


@lru_cache(maxsize=512)
def _asked(query_string: bytes) -> _Asked:
    """The parameters of a history: many ask for the same of their users. Raises BadRequest 400."""
    params = QueryParams(query_string)
    query.known(params, HISTORY_PARAMETERS)
    position = Position.decode(params["min_position"]) if "min_position" in params else None
    return _Asked(
        query.descending(params),
        query.filters(params),
        query.limit(params),
        *query.bounds(params),
        params.get("cursor"),
        position,
    )


class _Id(Convertor[str]):
    """An id in a path, decoded already: it may hold a slash, even a line's end."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _Id())


def routes(
    keys: Keys, histories: Callable[[], Histories], live: Callable[[], Live], intake: Callable[[], Intake]
) -> list[Route]:
    """The routes below /v1/users/{user_id}."""

    async def events(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.READ)
        asked = _asked(request.scope["query_string"])
        user_id, desc, wanted = user(request), asked.descending, asked.wanted
        cursors = query.Cursors("history", user_id, desc, wanted, asked.low, asked.high)
        low, high = cursors.narrow(asked.cursor, asked.low, asked.high, desc)
        page = await histories().page(user_id, low, high, wanted, desc, asked.limit, asked.min_position)
        following = None if page.resume is None else cursors.write(page.resume)
        return Response(answer(user_id, page, following), media_type="application/json")

    async def stream(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.READ)
        query.known(request.query_params, ())
        since = request.headers.get("last-event-id")
        items = await live().follow(user(request), since)
        return StreamingResponse(
            items, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )

    async def profile(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.READ)
        query.known(request.query_params, ())
        user_id = user(request)
        return Response(msgspec.json.encode(await profile_of(histories(), user_id)), media_type="application/json")

    async def unlink(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.ADMIN)
        query.known(request.query_params, ())
        user_id, anonymous_id = user(request), request.path_params["anonymous_id"]
        person = await histories().person(user_id)
        if not any(link.user_id == user_id for link in person.phones.get(anonymous_id, ())):
            raise BadRequest(404, "unknown_link", f"anonymous id {anonymous_id!r} is not linked to user {user_id!r}")
        now = time.time_ns() // 1_000_000
        record = Record(
            kind=Kind.UNLINK,
            id=f"unlink {anonymous_id} {now}",
            name="",
            source=Source.APP_EVENTS,
            event_time=now,
            received_at=now,
            body=b"{}",
            user_id=user_id,
            matched_by=MatchedBy.USER_ID,
            links=anonymous_id,
        )
        key = f"u:{user_id}"
        position = await intake().append([Routed(partition_of(key, histories().partitions), key, record)])
        body = {"success": True, "unlinked": anonymous_id, "position": position.encode()}
        return Response(msgspec.json.encode(body), media_type="application/json")

    return [
        Route("/v1/users/{user_id:id}/events", events, methods=["GET"]),
        Route("/v1/users/{user_id:id}/events/stream", stream, methods=["GET"]),
        Route("/v1/users/{user_id:id}/anonymous/{anonymous_id:id}", unlink, methods=["DELETE"]),
        Route("/v1/users/{user_id:id}", profile, methods=["GET"]),
    ]


def user(request: Request) -> str:
    """The user id in the path. Raises BadRequest 400 for one that no user can have."""
    user_id: str = request.path_params["user_id"]
    if "\0" in user_id or "\ufffd" in user_id:
        raise BadRequest(400, "invalid_user_id", "the user id in the path is no text: percent-encode its UTF-8 bytes")
    return user_id


async def _account(histories: Histories, user_id: str) -> msgspec.Raw | None:
    """The user's row of the application database, its latest version."""
    rows = await histories.redis.hgetall(facts.Keys(histories.partitions).user(user_id))
    codec = Codec()
    found = {record_id: facts.parse_fact(data, codec) for record_id, data in rows.items()}
    read = {record_id: _ROW.decode(fact.body) for record_id, fact in found.items()}
    last = max(found, key=lambda i: (read[i].updated_at or "", found[i].received_at, i), default=None)
    return None if last is None or read[last].deleted else msgspec.Raw(found[last].body)


async def profile_of(histories: Histories, user_id: str) -> dict[str, Any]:
    """The user's row, what identify calls said, the newest word on each trait, and the phones with since when.

    Raises BadRequest 404 for an unknown user, 503 while the index is not whole.
    """
    person = await histories.person(user_id)
    if not person.exists:
        raise unknown_user(user_id)
    key = traits_key(partition_of(f"u:{user_id}", histories.partitions), user_id)
    traits: dict[str, msgspec.Raw] = {}
    identified_at: int | None = None
    for member in await histories.redis.zrange(key, -MERGED_IDENTIFIES, -1):
        end = member.index(0, 8)
        traits |= _TRAITS.decode(member[end + 1 :])
        identified_at = place_time(member[:end])
    phones = [
        {"anonymous_id": phone, "since": text(min(theirs))}
        for phone, links in sorted(person.phones.items())
        if (theirs := [link.event_time for link in links if link.user_id == user_id])
    ]
    return {
        "user_id": user_id,
        "account": await _account(histories, user_id),
        "traits": traits,
        "identified_at": None if identified_at is None else text(identified_at),
        "anonymous_ids": phones,
    }
