"""The short way for batches of ordinary messages, which is what phones send nearly always: column by column.

Says of messages just what `segment.record` says, or nothing: then they take the long way.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from rebu_ray.ingest.dialects.fields import Arrival
from rebu_ray.ingest.dialects.json_text import LEAST_UNFIT_BYTES, unfit
from rebu_ray.ingest.dialects.times import NotATimeError, milliseconds
from rebu_ray.records import MAX_ID_BYTES, MAX_RECORD_BYTES, MIN_TIME_MS, Kind, MatchedBy, Parsed, Record
from rebu_ray.store.rows import Columns, fingerprint, partition_of

# As many characters fit into MAX_ID_BYTES whatever they are.
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES // 4)]


class _Message(msgspec.Struct, gc=False):
    """A message of which every field that the platform reads has its usual form."""

    type: Literal["track", "page", "screen"]
    messageId: _Id
    timestamp: str
    event: str | None = None
    name: str | None = None
    userId: _Id | None = None
    anonymousId: _Id | None = None
    sentAt: None = None
    writeKey: None = None


class _Batch(msgspec.Struct, gc=False):
    batch: list[_Message]


_BATCH: Final = msgspec.json.Decoder(_Batch)


class Ordinary(NamedTuple):
    """The messages of one request, all of them accepted, one list a column."""

    arrival: Arrival
    ids: list[str]
    names: list[str]
    times: list[int]
    """Event times, ms."""
    user_ids: list[str | None]
    anonymous_ids: list[str | None]
    matched_by: list[MatchedBy]
    bodies: list[bytes]

    def records(self) -> Parsed:
        """The same, message by message."""
        source, received_at = self.arrival.source, self.arrival.received_at
        return [
            Record(Kind.APP_EVENT, record_id, name, source, at, received_at, body, user, phone, None, matched)
            for record_id, name, at, user, phone, matched, body in zip(*self[1:], strict=True)
        ]

    def columns(self, partitions: int) -> Columns:
        """The rows of these messages, each in its user's stream, else in its phone's."""
        count = len(self.ids)
        keys = [
            f"u:{user}" if user is not None else f"a:{phone}"
            for user, phone in zip(self.user_ids, self.anonymous_ids, strict=True)
        ]
        return Columns(
            partition=[partition_of(key, partitions) for key in keys],
            fingerprint=list(map(fingerprint, keys, self.ids)),
            key=keys,
            id=self.ids,
            kind=[Kind.APP_EVENT] * count,
            name=self.names,
            source=[self.arrival.source] * count,
            event_time=self.times,
            received_at=[self.arrival.received_at] * count,
            user_id=self.user_ids,
            anonymous_id=self.anonymous_ids,
            request_id=[None] * count,
            matched_by=self.matched_by,
            links=[None] * count,
            body=self.bodies,
        )


def read(body: bytes, raws: list[bytes], arrival: Arrival, sent_at: int | None) -> Ordinary | None:
    """The messages of a batch, or None where one of them has to take the long way. `raws` are they as sent."""
    if not raws or (b"\\" in body and b"\\u0000" in body):  # only an escape can bring a NUL into an id
        return None
    largest = max(map(len, raws))
    if largest > MAX_RECORD_BYTES or (largest >= LEAST_UNFIT_BYTES and any(map(unfit, raws))):
        return None
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look at what it passes over
        messages = _BATCH.decode(body).batch
        times = [milliseconds(message.timestamp) for message in messages]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, NotATimeError):
        return None
    users = [message.userId for message in messages]
    phones = [message.anonymousId for message in messages]
    if None not in users:
        matched_by = [MatchedBy.USER_ID] * len(users)
    elif (None, None) in zip(users, phones, strict=True):
        return None
    else:
        matched_by = [MatchedBy.ANONYMOUS_ID if user is None else MatchedBy.USER_ID for user in users]
    if sent_at is not None:
        received_at = arrival.received_at
        times = [max(MIN_TIME_MS, received_at - max(0, sent_at - at)) for at in times]
    return Ordinary(
        arrival,
        [message.messageId for message in messages],
        [(m.event if m.type == "track" else m.name) or m.type for m in messages],
        times,
        users,
        phones,
        matched_by,
        raws,
    )
