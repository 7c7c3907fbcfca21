"""A dead letter's record, taken through its dialect once more. Pure: no clock, no network."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

import msgspec

from rebu_ray.ingest.dialects import access_log, app_log, error_log, json_text, parse_otlp, segment, tables
from rebu_ray.ingest.dialects.fields import Arrival, RefusedError
from rebu_ray.records import TABLES, BadRequest, Record, Refusal, Source, derived_id


class Letter(NamedTuple):
    """A dead letter as it is listed; `received_at` is in ms."""

    id: str
    source: Source
    received_at: int
    reason: str
    record: bytes
    """JSON."""


class _Again(Arrival, frozen=True, kw_only=True):
    """The arrival of a letter's record: without an id of its own it has its letter's, as it would have had then."""

    letter: str

    def derived_id(self, raw: bytes, ordinal: int) -> str:
        return self.letter


def again(letter: Letter, now: int) -> Record | Refusal:
    """What the dialect of its source makes of a letter's record today.

    Its times are those of its first arrival, since that is what a phone's clock is corrected by; it is received `now`
    (ms). What the request around it said is gone: the `sentAt` of a batch, and the route of a single message.
    """
    raw = as_it_came(letter.record)
    try:
        found = _parsed(letter, raw)
    except (RefusedError, BadRequest) as error:
        reason = error.reason if isinstance(error, RefusedError) else f"{error.code}: {error.message}"
        return Refusal(reason, raw, letter.id)
    if isinstance(found, Record):
        found.received_at = now
    return found


def as_it_came(record: bytes) -> bytes:
    """The bytes of a record that a dead letter keeps as JSON: a line is a text there, what is no text in base64."""
    try:
        if record.startswith(b'"'):
            return str(json_text.loads(record)).encode()
        if record.startswith(b'{"base64":'):
            return base64.b64decode(msgspec.json.decode(record, type=_Base64).base64, validate=True)
    except (RefusedError, UnicodeEncodeError, msgspec.DecodeError, binascii.Error):
        return record
    return record


class _Base64(msgspec.Struct, forbid_unknown_fields=True):
    base64: str


def _parsed(letter: Letter, raw: bytes) -> Record | Refusal:
    source = letter.source
    arrival = _Again(source, letter.received_at, letter=letter.id)
    if source in TABLES:
        return tables.entry(raw, source, letter.received_at)
    if source is Source.OTLP:
        json = raw.lstrip().startswith(b"{")
        found = parse_otlp("application/json" if json else "application/x-protobuf", raw, letter.received_at)
        if len(found) != 1:
            return Refusal(letter.reason, raw, letter.id)
        entry = found[0]
        if isinstance(entry, Record) and entry.id == derived_id(source, entry.body, 0):
            entry.id = letter.id
        return entry
    if source is Source.ACCESS:
        return access_log.entry(raw, arrival, 0)
    if source is Source.ERROR:
        return error_log.entry(raw, arrival, 0)
    if letter.reason.startswith("unknown_type"):
        # Only a Segment route refuses a type; a log shipper's event may have any.
        message = segment.read(raw)
        if not segment.is_known(message.type):
            return Refusal(letter.reason, raw, letter.id)
        return segment.record(message, raw, arrival, 0)
    return app_log.entry(raw, arrival, 0)
