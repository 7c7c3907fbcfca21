"""Whose record is it: the stream that a record belongs to."""

from __future__ import annotations

from typing import Final

from rebu_ray.records import REQUESTS, Kind, Record
from rebu_ray.store.rows import Routed, partition_of

_OWN: Final = {
    Kind.DRIVER: "v",
    Kind.RIDE: "o",
    Kind.RIDE_DESTINATION: "o",
    Kind.RIDE_DOCUMENT: "o",
    Kind.MESSAGE: "m",
    Kind.MESSAGE_DOCUMENT: "m",
}
"""The streams that rows and documents have of their own, named as the row is."""
_ALWAYS_OWN: Final = (Kind.DRIVER, Kind.RIDE_DESTINATION)


def stream_of(record: Record) -> str:
    """The key of a record's stream: its user, else its phone, else its request, else nobody.

    Rows of the application database: a driver's, a change of destination its ride's; rides and messages
    that name no user have a stream each.
    """
    own = _OWN.get(record.kind)
    if own is not None and (record.user_id is None or record.kind in _ALWAYS_OWN):
        return f"{own}:{record.name}"
    if record.user_id is not None:
        return f"u:{record.user_id}"
    if record.anonymous_id is not None:
        return f"a:{record.anonymous_id}"
    if record.request_id is not None:
        return f"{REQUESTS}{record.request_id}"
    return f"n:{record.id}"


def route(record: Record, partitions: int) -> list[Routed]:
    """Where a record goes: to its stream and, if it is an access line with a user, to its request as well.

    The first one carries the verdict. A request id that comes up again another time binds its lines anew.
    """
    key = stream_of(record)
    rows = [Routed(partition_of(key, partitions), key, record)]
    if record.request_id is not None and record.kind == Kind.SERVER_ACCESS and record.user_id is not None:
        binding = Record(
            kind=Kind.BINDING,
            id=f"binding {record.event_time} {record.user_id}",
            name="",
            source=record.source,
            event_time=record.event_time,
            received_at=record.received_at,
            body=b"{}",
            user_id=record.user_id,
            request_id=record.request_id,
        )
        key = f"{REQUESTS}{record.request_id}"
        rows.append(Routed(partition_of(key, partitions), key, binding))
    return rows
