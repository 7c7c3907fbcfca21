"""What holds for everything that a dialect hands on, whatever came in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import settings

from rebu_ray.records import (
    HISTORY_KINDS,
    MAX_ID_BYTES,
    MAX_TIME_MS,
    MIN_TIME_MS,
    BadRequest,
    MatchedBy,
    Parsed,
    Record,
    Refusal,
    Source,
)

RECEIVED_AT = 1_772_352_010_000
"""2026-03-01T08:00:10Z, when every request of these tests comes in."""

CODES = {
    "invalid_id",
    "invalid_json",
    "invalid_shape",
    "invalid_time",
    "invalid_utf8",
    "missing_id",
    "too_deep",
    "too_large",
    "unknown_format",
    "unknown_type",
}

seeded = settings(derandomize=True, deadline=None)
"""The same examples in every run, however slow the machine."""


def only(parsed: Parsed) -> Record:
    """The one record of a request, which must have been accepted."""
    [entry] = parsed
    assert isinstance(entry, Record), entry
    return entry


def refused(parsed: Parsed) -> Refusal:
    """The one record of a request, which must have been refused."""
    [entry] = parsed
    assert isinstance(entry, Refusal), entry
    return entry


def body(record: Record) -> Any:
    """The stored body, read back."""
    return json.loads(record.body)


def check(parsed: Parsed) -> None:
    """Asserts what the phases behind rely on, for each entry."""
    for entry in parsed:
        if isinstance(entry, Refusal):
            code, _, sentence = entry.reason.partition(": ")
            assert code in CODES
            assert sentence
            assert isinstance(entry.raw, bytes)
        else:
            _check_record(entry)


def _check_record(record: Record) -> None:
    value = json.loads(record.body.decode(), parse_constant=_not_json)
    json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair would fail here
    assert MIN_TIME_MS <= record.event_time <= MAX_TIME_MS
    assert record.received_at == RECEIVED_AT
    assert record.kind in HISTORY_KINDS
    assert isinstance(record.source, Source)
    assert record.id
    assert record.name
    for value in (record.id, record.user_id, record.anonymous_id, record.request_id, record.links):
        if value is not None:
            assert 0 < len(value.encode()) <= MAX_ID_BYTES
            assert "\0" not in value
    if record.links is not None:
        assert record.user_id is not None
    if record.user_id is not None:
        assert record.matched_by in (MatchedBy.USER_ID, MatchedBy.PATH)
    else:
        assert record.matched_by is (None if record.anonymous_id is None else MatchedBy.ANONYMOUS_ID)


def _not_json(token: str) -> None:
    raise AssertionError(f"{token} is not JSON")


def attempt(parse: Callable[..., Parsed], *arguments: Any) -> Parsed | BadRequest:
    """What a dialect makes of a request, checked: entries, or the refusal of the whole."""
    try:
        parsed = parse(*arguments)
    except BadRequest as refusal:
        return refusal
    check(parsed)
    return parsed
