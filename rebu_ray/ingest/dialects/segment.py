"""Segment's and RudderStack's message format: a batch of messages, or one message to a route of its own.

https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rebu_ray.ingest.dialects import json_text, ordinary
from rebu_ray.ingest.dialects.fields import Arrival, RefusedError, check_size, identifier, time
from rebu_ray.ingest.framing import MAX_RECORDS, check_count, too_many_records
from rebu_ray.records import MIN_TIME_MS, BadRequest, Kind, MatchedBy, Parsed, Record, Refusal, Source

TYPES: Final = frozenset({"track", "identify", "page", "screen", "group", "alias", "error"})
"""What a message may be; `error` is Rebu's own: an app error."""

_ABSENT: Final = msgspec.Raw()


class Message(msgspec.Struct, gc=False):
    """The fields of a message that the platform reads, as sent; all others pass through in the raw text."""

    type: Any = None
    messageId: Any = None
    userId: Any = None
    anonymousId: Any = None
    previousId: Any = None
    timestamp: Any = None
    originalTimestamp: Any = None
    sentAt: Any = None
    event: Any = None
    name: Any = None
    error: Any = None
    writeKey: Any = None


class _Batch(msgspec.Struct, gc=False):
    batch: list[msgspec.Raw]
    sentAt: msgspec.Raw = _ABSENT


class _Keyed(msgspec.Struct, gc=False):
    writeKey: str | None = None


_MESSAGE = msgspec.json.Decoder(Message)
_BATCH = msgspec.json.Decoder(_Batch)
_KEYED = msgspec.json.Decoder(_Keyed)


def parse(body: bytes, received_at: int, call: str | None = None) -> Parsed:
    """The messages of a batch, or the one message of the route `call` (track, identify, page, ...).

    `received_at` is in milliseconds. Raises BadRequest 400 for a body that is not what the route takes.
    """
    if call is not None:
        return [_entry(_single(body), Arrival(Source.APP_EVENTS, received_at), 0, None, call)]
    found = parse_batch(body, received_at)
    return found.records() if isinstance(found, ordinary.Ordinary) else found


def parse_batch(body: bytes, received_at: int) -> ordinary.Ordinary | Parsed:
    """`parse` for a batch, where ordinary messages stay columns."""
    arrival = Arrival(Source.APP_EVENTS, received_at)
    raws, sent = _batch(body)
    try:
        sent_at = _sent_at(sent)
    except RefusedError as refused:
        return [Refusal(refused.reason, raw, _id_of(raw)) for raw in raws]
    short = ordinary.read(body, raws, arrival, sent_at)
    if short is not None:
        return short
    return [_entry(raw, arrival, ordinal, sent_at, None) for ordinal, raw in enumerate(raws)]


def write_key(body: bytes) -> str | None:
    """The `writeKey` in a body, or None. Raises nothing: refusing a broken body is left to `parse`."""
    try:
        return _KEYED.decode(body).writeKey or None
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        found = json_text.loads(json_text.members(json_text.trimmed(body)).get("writeKey", b"null"))
    except (BadRequest, RefusedError):
        return None
    return found if isinstance(found, str) and found else None


def read(raw: bytes) -> Message:
    """The message in `raw`. Raises RefusedError where it is no JSON object."""
    if len(raw) > json_text.MAX_READ_BYTES:
        json_text.check_readable(raw)
    try:
        return _MESSAGE.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.convert(json_text.json_object(raw), Message)


def record(message: Message, raw: bytes, arrival: Arrival, ordinal: int, sent_at: int | None = None) -> Record:
    """The record of a message that came as `raw`; `sent_at` is the batch's, where it has one. Raises RefusedError."""
    if len(raw) >= json_text.LEAST_UNFIT_BYTES or not raw.isascii():
        check_size(raw)
        reason = json_text.unfit(raw)
        if reason is not None:
            raise RefusedError(reason)
    user_id = identifier(message.userId, "userId")
    anonymous_id = identifier(message.anonymousId, "anonymousId")
    if user_id is None and anonymous_id is None:
        raise RefusedError("missing_id: userId or anonymousId must say whose record this is")
    kind = message.type if isinstance(message.type, str) and message.type else "event"
    return Record(
        kind=Kind.APP_ERROR if kind == "error" or arrival.source is Source.APP_ERRORS else Kind.APP_EVENT,
        id=identifier(message.messageId, "messageId") or arrival.derived_id(raw, ordinal),
        name=_name(message, kind),
        source=arrival.source,
        event_time=_event_time(message, arrival.received_at, sent_at),
        received_at=arrival.received_at,
        body=raw if message.writeKey is None else _without_key(raw),
        user_id=user_id,
        anonymous_id=anonymous_id,
        matched_by=MatchedBy.ANONYMOUS_ID if user_id is None else MatchedBy.USER_ID,
        links=_links(message, kind, user_id, anonymous_id) if kind in ("identify", "alias") else None,
    )


def is_known(kind: object) -> bool:
    """Whether a message's `type` is one of TYPES."""
    return isinstance(kind, str) and kind in TYPES


def shown_id(value: object) -> str | None:
    """The id of a refused message as its sender is told it, None where that is no id."""
    try:
        return identifier(value, "messageId")
    except RefusedError:
        return None


def _id_of(raw: bytes) -> str | None:
    try:
        return shown_id(read(raw).messageId)
    except RefusedError:
        return None


def _entry(raw: bytes, arrival: Arrival, ordinal: int, sent_at: int | None, call: str | None) -> Record | Refusal:
    message_id = None
    try:
        message = read(raw)
        message_id = message.messageId
        if call is not None and not message.type:
            message.type = call
        if not is_known(message.type):
            raise RefusedError(f"unknown_type: type must be one of {', '.join(sorted(TYPES))}")
        return record(message, raw, arrival, ordinal, sent_at)
    except RefusedError as refused:
        return Refusal(refused.reason, raw, shown_id(message_id))


def _batch(body: bytes) -> tuple[list[bytes], bytes]:
    """The raw messages of a batch and its raw `sentAt`."""
    check_count(body, b",")
    try:
        batch = _BATCH.decode(body)
    except msgspec.ValidationError as error:
        raise _no_batch() from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fields = json_text.members(json_text.trimmed(body))
        if not fields.get("batch", b"").startswith(b"["):
            raise _no_batch() from None
        return json_text.array(fields["batch"]), fields.get("sentAt", b"")
    if len(batch.batch) > MAX_RECORDS:
        raise too_many_records()
    return [bytes(raw) for raw in batch.batch], bytes(batch.sentAt)


def _single(body: bytes) -> bytes:
    raw = json_text.trimmed(body)
    if not raw.startswith(b"{") or not json_text.is_json(raw):
        raise BadRequest(400, "invalid_json", "The body must be one message: a JSON object with userId or anonymousId.")
    return raw


def _no_batch() -> BadRequest:
    return BadRequest(
        400,
        "invalid_json",
        'The body must be a JSON object {"batch": [message, ...], "sentAt": time}; sentAt is optional.',
    )


def _sent_at(raw: bytes) -> int | None:
    value = json_text.loads(raw) if raw else None
    return None if value is None else time(value, "sentAt")


def _event_time(message: Message, received_at: int, sent_at: int | None) -> int:
    if sent_at is None and message.sentAt is not None:
        sent_at = time(message.sentAt, "sentAt")
    if message.timestamp is not None:
        said = time(message.timestamp, "timestamp")
    elif message.originalTimestamp is not None:
        said = time(message.originalTimestamp, "originalTimestamp")
    else:
        return received_at
    if sent_at is None:
        return said
    return max(MIN_TIME_MS, received_at - max(0, sent_at - said))


def _name(message: Message, kind: str) -> str:
    if kind in ("page", "screen"):
        name = message.name
    elif kind == "error":
        name = (message.error.get("name") if isinstance(message.error, dict) else None) or message.event
    elif kind in ("identify", "group", "alias"):
        return kind
    else:
        name = message.event
    if isinstance(name, int | float) and not isinstance(name, bool):
        return str(name)
    return name if isinstance(name, str) and name else kind


def _links(message: Message, kind: str, user_id: str | None, anonymous_id: str | None) -> str | None:
    other = anonymous_id
    if kind == "alias":
        other = identifier(message.previousId, "previousId") or anonymous_id
    return other if user_id is not None and other != user_id else None


def _without_key(raw: bytes) -> bytes:
    """The message without its `writeKey`: who may read a history must not learn how to write one."""
    fields = json_text.members(raw)
    del fields["writeKey"]
    return b"{" + b",".join(msgspec.json.encode(key) + b":" + value for key, value in fields.items()) + b"}"
