"""The routes about one ride and one message, and a user's lists of both: documents as the index holds them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rebu_ray.access import query
from rebu_ray.access.history import Histories, unknown_user
from rebu_ray.access.pipeline import ask
from rebu_ray.access.users import user
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.records import BadRequest
from rebu_ray.store import facts
from rebu_ray.store.index import Command, history_key, position_key
from rebu_ray.store.member import Codec
from rebu_ray.store.rows import json_text, partition_of

LIST_PARAMETERS: Final = ("since", "until", "order", "limit", "cursor")
_HEAD: Final = struct.Struct(">q")
_LATEST: Final = 2**53
"""Above every time (ms) that a score of a sorted set tells exactly."""


class _Link(msgspec.Struct):
    confidence: float


class _Item(msgspec.Struct):
    sent_at: str | None
    message_id: str
    link: _Link


_ITEM: Final = msgspec.json.Decoder(_Item)


class Rides:
    """Reads documents from Redis."""

    def __init__(self, histories: Histories) -> None:
        self._histories = histories
        self._keys = facts.Keys(histories.partitions)
        self._positions: Command = ("MGET", *(position_key(p) for p in range(histories.partitions)))
        self._codec = Codec()

    async def ride(self, ride_id: str) -> bytes:
        """A ride's document. Raises BadRequest 404, or 503 while the index is not whole."""
        [found] = await self._ask(("GET", self._keys.ride_document(ride_id)))
        if found is None:
            raise unknown_ride(ride_id)
        return self._codec.decompress(found)

    async def message(self, message_id: str) -> bytes:
        """A message's document. Raises BadRequest 404, or 503 while the index is not whole."""
        [found] = await self._ask(("GET", self._keys.message_document(message_id)))
        if found is None:
            raise BadRequest(404, "unknown_message", f"nothing is known of message {message_id!r}")
        return self._codec.decompress(found)

    async def about(self, ride_id: str, min_confidence: float) -> list[bytes]:
        """The messages about a ride, oldest first. Raises as `ride` does."""
        exists, found = await self._ask(
            ("EXISTS", self._keys.ride_document(ride_id)), ("HGETALL", self._keys.about(ride_id))
        )
        if not exists:
            raise unknown_ride(ride_id)
        texts = [self._codec.decompress(value) for value in found[1::2]]
        read = [(_ITEM.decode(text), text) for text in texts]
        chosen = [(item.sent_at or "", item.message_id, text) for item, text in read]
        return [
            text
            for (_, _, text), (item, _) in sorted(zip(chosen, read, strict=True), key=lambda pair: pair[0][:2])
            if item.link.confidence >= min_confidence
        ]

    async def listed(
        self, user_id: str, things: str, low: bytes, high: bytes, desc: bool, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        """A page of a user's `rides` or `messages` with low <= (time, id) < high, and where the next one begins.

        Raises BadRequest 404 for an unknown user, 503 while the index is not whole.
        """
        subject = f"u:{user_id}"
        key = self._keys.rides(subject) if things == "rides" else self._keys.messages(subject)
        document = self._keys.ride_document if things == "rides" else self._keys.message_document
        partition = partition_of(subject, self._histories.partitions)
        first, last = _time(low, 0), _time(high, _LATEST)
        known = (history_key(partition, subject), self._keys.user(user_id), self._keys.things(subject))
        names: list[tuple[bytes, str]] = []
        offset, more = 0, True
        while more and len(names) <= limit:
            span = (last, first, "BYSCORE", "REV") if desc else (first, last, "BYSCORE")
            count = limit + 1
            found, exists = await self._ask(
                ("ZRANGE", key, *span, "LIMIT", offset, count, "WITHSCORES"), ("EXISTS", *known)
            )
            if not exists:
                raise unknown_user(user_id)
            offset += count
            more = len(found) == 2 * count
            for name, score in zip(found[::2], found[1::2], strict=True):
                at = _HEAD.pack(int(float(score))) + name
                if low <= at < high:
                    names.append((at, name.decode()))
        page = names[:limit]
        if not page:
            return [], None
        texts = await self._ask(*(("GET", document(name)) for _, name in page))
        items = [self._codec.decompress(text) for text in texts if text is not None]
        return items, page[-1][0] if len(names) > limit else None

    async def _ask(self, *commands: Command) -> list[Any]:
        """Replies to commands, in one round trip with a look at whether the index is whole."""
        *replies, positions = await ask(self._histories.redis, *commands, self._positions)
        for partition, position in enumerate(positions):
            self._histories.check(partition, position)
        return replies


def routes(keys: Keys, rides: Callable[[], Rides]) -> list[Route]:
    """The routes about single rides and messages, and a user's lists."""

    def allowed(request: Request, parameters: tuple[str, ...] = ()) -> Mapping[str, str]:
        keys.check(presented_key(request.headers.get("authorization")), Scope.READ)
        query.known(request.query_params, parameters)
        return request.query_params

    async def ride(request: Request) -> Response:
        allowed(request)
        return _json(await rides().ride(_id(request, "ride_id")))

    async def message(request: Request) -> Response:
        allowed(request)
        return _json(await rides().message(_id(request, "message_id")))

    async def about(request: Request) -> Response:
        params = allowed(request, ("min_confidence",))
        ride_id = _id(request, "ride_id")
        items = await rides().about(ride_id, _confidence(params.get("min_confidence")))
        head = b'{"ride_id":' + json_text(ride_id).encode() + b',"items":['
        return _json(head + b",".join(items) + b"]}")

    async def users_rides(request: Request) -> Response:
        return await listed(request, "rides")

    async def users_messages(request: Request) -> Response:
        return await listed(request, "messages")

    async def listed(request: Request, things: str) -> Response:
        params = allowed(request, LIST_PARAMETERS)
        user_id, desc, limit = user(request), query.descending(params), query.limit(params)
        low, high = query.bounds(params)
        cursors = query.Cursors(things, user_id, desc, low, high)
        low, high = cursors.narrow(params.get("cursor"), low, high, desc)
        items, resume = await rides().listed(user_id, things, low, high, desc, limit)
        following = b"null" if resume is None else b'"' + cursors.write(resume).encode() + b'"'
        return _json(b'{"items":[' + b",".join(items) + b'],"next":' + following + b"}")

    return [
        Route("/v1/rides/{ride_id:id}/messages", about, methods=["GET"]),
        Route("/v1/rides/{ride_id:id}", ride, methods=["GET"]),
        Route("/v1/messages/{message_id:id}", message, methods=["GET"]),
        Route("/v1/users/{user_id:id}/rides", users_rides, methods=["GET"]),
        Route("/v1/users/{user_id:id}/messages", users_messages, methods=["GET"]),
    ]


def unknown_ride(ride_id: str) -> BadRequest:
    return BadRequest(404, "unknown_ride", f"nothing is known of ride {ride_id!r}")


def _id(request: Request, name: str) -> str:
    found: str = request.path_params[name]
    if "\0" in found or "\ufffd" in found:
        raise BadRequest(400, f"invalid_{name}", f"the {name} in the path is no text: percent-encode its UTF-8 bytes")
    return found


def _confidence(text: str | None) -> float:
    if text is None:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise BadRequest(400, "invalid_min_confidence", f"min_confidence is {text!r}: it must be a number from 0 to 1")
    return value


def _time(place: bytes, otherwise: int) -> int:
    return min(int(_HEAD.unpack_from(place)[0]), _LATEST) if len(place) >= _HEAD.size else otherwise


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
