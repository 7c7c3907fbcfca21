"""The vocabulary that every phase shares: what a record is, what it may say, how it is named.

A *record* is one thing that a phone, a server or a row of the application database said. A *stream* is the
ordered set of records under one key (``u:`` a user, ``a:`` an anonymous id, ``r:`` a request id that nobody
claimed yet, ``o:`` a ride, ``m:`` a message, ``v:`` a driver, ``d:`` dead letters of a source, ``n:`` lines
that name nobody). A stream lives in one partition.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec
import xxhash

MAX_RECORD_BYTES: Final = 32 * 1024
MAX_COMPRESSED_BYTES: Final = 5 * 1024 * 1024
MAX_BODY_BYTES: Final = 50 * 1024 * 1024
MAX_ID_BYTES: Final = 512
"""Longest user, anonymous, request or record id that is accepted, in UTF-8 bytes."""

REQUESTS: Final = "r:"
"""How the keys of streams of requests begin."""

MIN_TIME_MS: Final = 0
MAX_TIME_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: the end of what RFC 3339 can write."""


class Kind(StrEnum):
    """What a record is. The first four are what a history shows; the rest steer the platform."""

    APP_EVENT = "app_event"
    APP_ERROR = "app_error"
    SERVER_ACCESS = "server_access"
    SERVER_ERROR = "server_error"
    BINDING = "binding"
    """Request id -> user, learned from an access line."""
    UNLINK = "unlink"
    """An anonymous id taken back from a user."""
    DEAD_LETTER = "dead_letter"
    USER = "user"
    DRIVER = "driver"
    RIDE = "ride"
    RIDE_DESTINATION = "ride_destination"
    MESSAGE = "message"
    """These five are rows of the application database, one record for each version of a row."""
    RIDE_DOCUMENT = "ride_document"
    MESSAGE_DOCUMENT = "message_document"
    """What was computed of a ride or a message, one record for each version of the document."""
    MOVED = "moved"
    """A ride or message whose document is in another stream from now on, since it changed its user."""
    REPLAYED = "replayed"
    """A dead letter was tried again."""


HISTORY_KINDS: Final = (Kind.APP_EVENT, Kind.APP_ERROR, Kind.SERVER_ACCESS, Kind.SERVER_ERROR)


class MatchedBy(StrEnum):
    """Why a record is in a user's history."""

    USER_ID = "user_id"
    ANONYMOUS_ID = "anonymous_id"
    PATH = "path"
    REQUEST_ID = "request_id"


class Source(StrEnum):
    """Where a record came in."""

    APP_EVENTS = "app-events"
    APP_ERRORS = "app-errors"
    ACCESS = "access"
    ERROR = "error"
    OTLP = "otlp"
    USERS = "users"
    DRIVERS = "drivers"
    RIDES = "rides"
    RIDE_DESTINATIONS = "ride_destinations"
    MESSAGES = "messages"
    COMPUTED = "computed"
    """Documents, which the platform makes itself."""


TABLES: Final = {
    Source.USERS: Kind.USER,
    Source.DRIVERS: Kind.DRIVER,
    Source.RIDES: Kind.RIDE,
    Source.RIDE_DESTINATIONS: Kind.RIDE_DESTINATION,
    Source.MESSAGES: Kind.MESSAGE,
}
"""The tables of the application database and what a row of each is."""


class Record(msgspec.Struct, gc=False):
    """One accepted record, as a dialect hands it on. Times are milliseconds since the epoch, UTC."""

    kind: Kind
    id: str
    name: str
    source: Source
    event_time: int
    received_at: int
    body: bytes
    """The sender's own JSON value, as sent (a text line is wrapped by its dialect)."""
    user_id: str | None = None
    anonymous_id: str | None = None
    request_id: str | None = None
    matched_by: MatchedBy | None = None
    """How `user_id` was found; None where there is none."""
    links: str | None = None
    """The anonymous id that this record (an identify or alias) ties to `user_id`."""


class Refusal(msgspec.Struct, gc=False):
    """One record that was not accepted: kept as a dead letter, whole."""

    reason: str
    """``code: sentence`` where the sentence names the field and what would be right."""
    raw: bytes
    """The record as it came: JSON text, or the bytes of a line."""
    id: str | None = None


Parsed = list[Record | Refusal]
"""What a dialect makes of a request: one entry for each record in it, in the sender's order."""


class BadRequest(Exception):
    """A request that is refused as a whole, with its HTTP status, a code to branch on and what to do about it.

    `retry_after` is in seconds, where trying again may help.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


def stable_hash(key: str) -> int:
    """64-bit hash of a stream key: the same in every process, version and machine (XXH3)."""
    return xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"))


def derived_id(source: str, line: bytes, ordinal: int, producer: str | None = None, sequence: int | None = None) -> str:
    """The id of a record that brings none.

    From producer and sequence where the shipper gives them (the line's own sequence number), else from
    source, line and its ordinal in the request, so that a request sent twice makes the same ids.
    """
    if producer is not None and sequence is not None:
        digest = xxhash.xxh3_128_hexdigest(f"{source}\0{producer}\0{sequence}".encode("utf-8", "surrogatepass"))
    else:
        digest = xxhash.xxh3_128_hexdigest(source.encode() + b"\0" + str(ordinal).encode() + b"\0" + line)
    return f"x{digest}"
