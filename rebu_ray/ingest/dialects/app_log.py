"""App events and app errors as log shippers send them: one JSON object a line, bare or in a shipper's envelope.

Segment messages are read as `segment` reads them; plain events may name their fields in other usual ways.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rebu_ray.ingest.dialects import segment, wrappers
from rebu_ray.ingest.dialects.fields import Arrival, Fields, RefusedError, identifier, time
from rebu_ray.records import Record, Refusal, Source

_IDS: Final[dict[str, tuple[str, ...]]] = {
    "userId": ("userId", "user_id"),
    "anonymousId": ("anonymousId", "anonymous_id"),
    "previousId": ("previousId", "previous_id"),
    "messageId": ("messageId", "id"),
}
_TIMES: Final[dict[str, tuple[str, ...]]] = {
    "timestamp": ("timestamp", "originalTimestamp", "time", "ts", "@timestamp"),
    "sentAt": ("sentAt", "sent_at"),
}
_EVENT: Final = ("event", "name", "page")
_OWN: Final = frozenset(("userId", "user_id", "anonymousId", "anonymous_id", "event", "error"))


def entry(raw: bytes, arrival: Arrival, ordinal: int) -> Record | Refusal:
    """What one line, or one element of an array, says."""
    message_id = None
    try:
        message = segment.read(raw)
        message_id = message.messageId
        inner = raw
        if not _is_complete(message):
            inner, fields = wrappers.innermost(raw, _OWN)
            message_id = _said(fields, _IDS["messageId"])[1]
            message = _plain(fields, arrival.source)
        return segment.record(message, inner, arrival, ordinal)
    except RefusedError as refused:
        return Refusal(refused.reason, raw, segment.shown_id(message_id))


def _is_complete(message: segment.Message) -> bool:
    """Whether this is a Segment message that leaves nothing to be looked for under another name."""
    return bool(
        segment.is_known(message.type)
        and message.messageId
        and message.timestamp
        and (message.userId or message.anonymousId)
    )


def _plain(fields: Fields, source: Source) -> segment.Message:
    """The message of an event with other names for its fields. Raises RefusedError with the sender's own names."""
    known: dict[str, Any] = {"event": _said(fields, _EVENT)[1]}
    for name, aliases in _IDS.items():
        alias, value = _said(fields, aliases)
        known[name] = identifier(value, alias)
    for name, aliases in _TIMES.items():
        alias, value = _said(fields, aliases)
        known[name] = None if value is None else time(value, alias)
    message = msgspec.convert({**fields, **known}, segment.Message)
    if source is Source.APP_ERRORS and not segment.is_known(message.type):
        message.type = "error"
    return message


def _said(fields: Fields, names: tuple[str, ...]) -> tuple[str, Any]:
    """The first of `names` that says something, and what; an empty text only where nothing else does."""
    said = [(name, fields[name]) for name in names if fields.get(name) is not None]
    return next((pair for pair in said if pair[1] != ""), said[0] if said else (names[0], None))
