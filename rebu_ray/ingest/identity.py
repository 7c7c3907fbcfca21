"""Whose record is it: the stream that a record belongs to."""

from __future__ import annotations

from rebu_ray.records import Kind, Record
from rebu_ray.store.rows import Routed, partition_of


def stream_of(record: Record) -> str:
    """The key of a record's stream: its user, else its phone, else its request, else nobody."""
    if record.user_id is not None:
        return f"u:{record.user_id}"
    if record.anonymous_id is not None:
        return f"a:{record.anonymous_id}"
    if record.request_id is not None:
        return f"r:{record.request_id}"
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
        key = f"r:{record.request_id}"
        rows.append(Routed(partition_of(key, partitions), key, binding))
    return rows
