"""App events and app errors as log shippers send them: one JSON object a line, bare or in a shipper's envelope.

Segment messages are read as `segment` reads them; plain events may name their fields in other usual ways.
"""

from __future__ import annotations

from typing import Final

import msgspec

from rebu_ray.ingest.dialects import segment, wrappers
from rebu_ray.ingest.dialects.fields import Arrival, Fields, RefusedError, first
from rebu_ray.records import Record, Refusal, Source

_ALIASES: Final = {
    "userId": ("userId", "user_id"),
    "anonymousId": ("anonymousId", "anonymous_id"),
    "previousId": ("previousId", "previous_id"),
    "messageId": ("messageId", "id"),
    "timestamp": ("timestamp", "originalTimestamp", "time", "ts", "@timestamp"),
    "sentAt": ("sentAt", "sent_at"),
    "event": ("event", "name", "page"),
}
_OWN: Final = frozenset(("userId", "user_id", "anonymousId", "anonymous_id", "event", "error"))


def entry(raw: bytes, arrival: Arrival, ordinal: int) -> Record | Refusal:
    """What one line, or one element of an array, says."""
    message_id = None
    try:
        message = segment.read(raw)
        inner = raw
        if not _is_complete(message):
            inner, fields = wrappers.innermost(raw, _OWN)
            message = _plain(fields, arrival.source)
        message_id = message.messageId
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
    known = {name: first(fields, *aliases)[1] for name, aliases in _ALIASES.items()}
    message = msgspec.convert({**fields, **known}, segment.Message)
    if source is Source.APP_ERRORS and not segment.is_known(message.type):
        message.type = "error"
    return message
