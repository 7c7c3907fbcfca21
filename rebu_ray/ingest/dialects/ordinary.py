"""The short way for batches of ordinary track messages, which is what phones send nearly always.

Says of a message just what `segment.record` says, or nothing: then it takes the long way.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from rebu_ray.ingest.dialects.fields import Arrival
from rebu_ray.ingest.dialects.json_text import unfit
from rebu_ray.ingest.dialects.times import NotATimeError, milliseconds
from rebu_ray.records import MAX_ID_BYTES, MAX_RECORD_BYTES, MIN_TIME_MS, Kind, MatchedBy, Record

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]


class _Track(msgspec.Struct, gc=False):
    """A track message of which every field that the platform reads has its usual form."""

    type: Literal["track"]
    messageId: _Id
    event: Annotated[str, msgspec.Meta(min_length=1)]
    timestamp: str
    userId: _Id | None = None
    anonymousId: _Id | None = None
    sentAt: None = None
    writeKey: None = None


class _Tracks(msgspec.Struct, gc=False):
    batch: list[_Track]


_TRACKS: Final = msgspec.json.Decoder(_Tracks)


def records(body: bytes, raws: list[bytes], arrival: Arrival, sent_at: int | None) -> list[Record | None] | None:
    """The record of each message of a batch, None for one that has to take the long way; None for all of them.

    `raws` are the messages as sent.
    """
    # In ASCII a character is a byte, and only an escape can bring a NUL into an id.
    if not body.isascii() or b"\\u0000" in body:
        return None
    try:
        messages = _TRACKS.decode(body).batch
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    received_at, source = arrival.received_at, arrival.source
    found: list[Record | None] = []
    for message, raw in zip(messages, raws, strict=True):
        user_id = message.userId
        if len(raw) > MAX_RECORD_BYTES or unfit(raw) or (user_id is None and message.anonymousId is None):
            found.append(None)
            continue
        try:
            event_time = milliseconds(message.timestamp)
        except NotATimeError:
            found.append(None)
            continue
        if sent_at is not None:
            event_time = max(MIN_TIME_MS, received_at - max(0, sent_at - event_time))
        found.append(
            Record(
                Kind.APP_EVENT,
                message.messageId,
                message.event,
                source,
                event_time,
                received_at,
                raw,
                user_id,
                message.anonymousId,
                None,
                MatchedBy.ANONYMOUS_ID if user_id is None else MatchedBy.USER_ID,
            )
        )
    return found
