"""What access and error lines share: the keys of their JSON forms, and how a line finds the user it is about."""

from __future__ import annotations

from typing import Final

from rebu_ray.ingest.dialects import request_line
from rebu_ray.ingest.dialects.fields import Arrival, Fields, RefusedError, first_id, first_time, identifier
from rebu_ray.ingest.dialects.request_line import Request
from rebu_ray.records import Kind, MatchedBy, Record

_TIME_KEYS: Final = ("time", "timestamp", "time_iso8601", "@timestamp", "msec", "ts", "time_local", "asctime", "date")
_USER_KEYS: Final = ("user_id", "userId", "user.id")
_REMOTE_USER_KEYS: Final = ("remote_user", "remoteUser")
_REQUEST_ID_KEYS: Final = ("request_id", "requestId", "req_id", "request.id", "x_request_id")


def record(
    kind: Kind,
    name: str,
    arrival: Arrival,
    *,
    id: str,
    event_time: int,
    body: bytes,
    user_id: str | None,
    request: Request | None,
    request_id: str | None,
) -> Record:
    """The record of a server's line: `user_id` is the one it names itself, else the request's path may name one."""
    in_path = request_line.user_in_path(request) if user_id is None else None
    return Record(
        kind=kind,
        id=id,
        name=name,
        source=arrival.source,
        event_time=event_time,
        received_at=arrival.received_at,
        body=body,
        user_id=user_id or in_path,
        request_id=request_id,
        matched_by=MatchedBy.USER_ID if user_id else MatchedBy.PATH if in_path else None,
    )


def of_fields(kind: Kind, name: str, arrival: Arrival, raw: bytes, ordinal: int, fields: Fields) -> Record:
    """The record of a line that came as the JSON object `fields`. Raises RefusedError naming a field that is none."""
    return record(
        kind,
        name,
        arrival,
        id=first_id(fields, "messageId", "id") or arrival.derived_id(raw, ordinal),
        event_time=first_time(fields, _TIME_KEYS, arrival.received_at),
        body=raw,
        user_id=_user(fields),
        request=request_line.in_fields(fields),
        request_id=first_id(fields, *_REQUEST_ID_KEYS),
    )


def text_id(value: str | None, field: str) -> str | None:
    """An id cut out of a text line; a dash is none. Raises RefusedError, also where the line was not UTF-8 there."""
    if value is not None and "\ufffd" in value:
        raise RefusedError(f"invalid_id: {field} must be valid UTF-8")
    return None if value == "-" else identifier(value, field)


def _user(fields: Fields) -> str | None:
    user = fields.get("user")
    return (
        first_id(fields, *_USER_KEYS)
        or (first_id(user, "id") if isinstance(user, dict) else None)
        or first_id(fields, *_REMOTE_USER_KEYS)
        or (first_id(fields, "user") if isinstance(user, str) else None)
    )
