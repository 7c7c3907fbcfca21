"""Rows of the application database, pulled or pushed: one record for each version of a row.

The body is the row in one canonical form, so that the same version makes the same id whichever way it came:
the table's columns in their order, times in RFC 3339 UTC, then columns that nobody knows by name. What is
merely wrong (a status that nobody knows, a ride that ends before it starts) is kept as sent; only what cannot
be a row is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
import xxhash

from rebu_ray.ingest.dialects import json_text, times
from rebu_ray.ingest.dialects.fields import Fields, RefusedError, identifier
from rebu_ray.records import MAX_ID_BYTES, MAX_RECORD_BYTES, TABLES, MatchedBy, Record, Refusal, Source

Row = Mapping[str, Any]
"""A row: values as JSON or as a database driver gives them."""


class Table(NamedTuple):
    """How the rows of one table are read."""

    key: str
    """The primary key; a change of destination is named by its ride."""
    version: str
    """The column that tells one version of a row from another."""
    event: str
    """The column that says when what the row is about happened."""
    columns: Mapping[str, Callable[[Any, str], Any]]
    """The canonical form of each column's value. Raises RefusedError."""


def _id(value: Any, column: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, UUID | Decimal):
        value = str(value)
    return identifier(_said(value), column)


def _text(value: Any, column: str) -> str | None:
    if value is None:
        return None
    value = _plain(value, column)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if value is None or isinstance(value, str) else str(value)


def _time(value: Any, column: str) -> Any:
    """RFC 3339; what is no time stays as it is."""
    value = _said(value)
    if value is None or value == "":
        return None
    ms = moment(value)
    if ms is None:
        return _plain(value, column)
    return value if type(value) is str and _CANONICAL.fullmatch(value) else times.text(ms)


def _real(value: Any, column: str) -> Any:
    """A number, also one that was written as text; what is none stays as it is."""
    if value is None:
        return None
    value = _number(value, column)
    # Adding nothing makes one zero of two.
    return value if isinstance(value, str | bool) or value is None else float(value) + 0.0


def _whole(value: Any, column: str) -> Any:
    if value is None:
        return None
    value = _number(value, column)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _number(value: Any, column: str) -> Any:
    if type(value) is float and math.isfinite(value):
        return value
    value = _plain(value, column)
    if isinstance(value, str) and len(value) < 40 and _NUMBER.fullmatch(value):
        found = float(value)
        return found if math.isfinite(found) else value
    return value


_CANONICAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d\.\d{3}Z", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_LONE = re.compile("[\ud800-\udfff]")
_INT64: Final = range(-(2**63), 2**64)


def _said(value: Any) -> Any:
    """A value without half a character in it, and bytes as the text that they nearly are."""
    if isinstance(value, str):
        return value if value.isascii() else _LONE.sub("\ufffd", value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    return value


def _plain(value: Any, column: str) -> Any:
    """A value as JSON has it. Raises RefusedError for a list or an object."""
    if type(value) is str and value.isascii():
        return value
    if isinstance(value, list | tuple | Mapping):
        kind = "an object" if isinstance(value, Mapping) else "a list"
        raise RefusedError(f"invalid_shape: {column} must be one value, not {kind}")
    return json_value(value)


def json_value(value: Any) -> Any:
    """What a driver or a JSON reader gave, as what JSON can say: no number is lost that a reader could take."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | bytes | bytearray | memoryview):
        return _said(value)
    if isinstance(value, int):
        return value if value in _INT64 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        if value.is_finite() and value == value.to_integral_value() and value.adjusted() < 18:
            return int(value)
        found = float(value)
        return found if math.isfinite(found) else str(value)
    if isinstance(value, date):
        ms = moment(value)
        return str(value) if ms is None else times.text(ms)
    if isinstance(value, Mapping):
        return {_said(str(name)): json_value(value[name]) for name in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return _said(str(value))


def moment(value: object) -> int | None:
    """A time in milliseconds, however it was written; None for what is no time, or lies outside 1970 to 9999."""
    if isinstance(value, date):
        if not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        value = value.isoformat()
    elif isinstance(value, Decimal):
        value = float(value)
    elif isinstance(value, bytes):
        value = _said(value)
    try:
        return times.milliseconds(value)
    except times.NotATimeError:
        return None


_USER_COLUMNS: Final = {"user_id": _id, "name": _text, "email": _text, "phone": _text}
_DRIVER_COLUMNS: Final = {
    "driver_id": _id, "name": _text, "vehicle_plate": _text, "vehicle_model": _text, "rating": _real,
}  # fmt: skip
_RIDE_COLUMNS: Final = {
    "ride_id": _id, "user_id": _id, "driver_id": _id, "city": _text, "status": _text,
    "requested_at": _time, "accepted_at": _time, "picked_up_at": _time, "ended_at": _time,
    "pickup_lat": _real, "pickup_lon": _real, "destination_lat": _real, "destination_lon": _real,
    "dropoff_lat": _real, "dropoff_lon": _real, "distance_m": _whole, "fare_cents": _whole, "currency": _text,
    "rating": _whole, "updated_at": _time,
}  # fmt: skip
_DESTINATION_COLUMNS: Final = {
    "ride_id": _id, "changed_at": _time, "destination_lat": _real, "destination_lon": _real,
}  # fmt: skip
_MESSAGE_COLUMNS: Final = {
    "message_id": _id, "user_id": _id, "channel": _text, "direction": _text, "sent_at": _time, "subject": _text,
    "body": _text, "ride_id": _id, "thread_id": _id, "updated_at": _time,
}  # fmt: skip
_KEPT_UP: Final = {"created_at": _time, "updated_at": _time}

SCHEMAS: Final[Mapping[Source, Table]] = {
    Source.USERS: Table("user_id", "updated_at", "updated_at", {**_USER_COLUMNS, **_KEPT_UP}),
    Source.DRIVERS: Table("driver_id", "updated_at", "updated_at", {**_DRIVER_COLUMNS, **_KEPT_UP}),
    Source.RIDES: Table("ride_id", "updated_at", "requested_at", _RIDE_COLUMNS),
    Source.RIDE_DESTINATIONS: Table("ride_id", "changed_at", "changed_at", _DESTINATION_COLUMNS),
    Source.MESSAGES: Table("message_id", "updated_at", "sent_at", _MESSAGE_COLUMNS),
}

MAX_KEY_BYTES: Final = MAX_ID_BYTES - 34
"""Longest primary key: a record's id is the key, a time and a digest."""


class Form(NamedTuple):
    """A row in its canonical form."""

    said: dict[str, Any] | None
    """None for a row that has none: it is refused."""
    body: bytes
    digest: int
    """64 bits that stand for all that the row says, times in whatever spelling."""


def form(source: Source, values: Row) -> Form:
    """The form of a row, by which it is known again."""
    said: dict[str, Any] | None = None
    try:
        said = _canonical(SCHEMAS[source], values)
        body = _encoded(said)
    except RefusedError:
        said, body = None, as_sent(values)
    return Form(said, body, xxhash.xxh3_64_intdigest(body))


def row(source: Source, values: Row, received_at: int, known: Form | None = None) -> Record | Refusal:
    """What one row says. A row with `deleted` true says that the row is gone.

    `known` is the row's form, where that was made already.
    """
    try:
        return _record(source, values, received_at, known)
    except RefusedError as refused:
        return Refusal(refused.reason, as_sent(values), _shown_key(source, values))


def entry(raw: bytes, source: Source, received_at: int) -> Record | Refusal:
    """What one pushed row says: the text of a JSON object."""
    values: Fields = {}
    try:
        values = _read(raw)
        return _record(source, values, received_at)
    except RefusedError as refused:
        return Refusal(refused.reason, raw, _shown_key(source, values))


def deletion(source: Source, key: str, user_id: str | None, gone_at: int, received_at: int) -> Record | Refusal:
    """The record of a row that is gone; `user_id` is whose it was, so that it goes where the row went."""
    values = {SCHEMAS[source].key: key, "user_id": user_id, "deleted": True, "updated_at": gone_at}
    return row(source, values if source is not Source.USERS else {**values, "user_id": key}, received_at)


def key_of(source: Source, values: Row) -> str | None:
    """The name under which a row is known: its primary key, for a change of destination with its time; None without."""
    table = SCHEMAS[source]
    try:
        key = _id(values.get(table.key), table.key)
    except RefusedError:
        return None
    if key is None or table.version == "updated_at":
        return key
    changed_at = values.get(table.version)
    ms = moment(changed_at)
    return f"{key}\0{changed_at if ms is None else ms}"


def as_sent(values: Row) -> bytes:
    """A row as JSON text, as near to what it was as JSON comes."""
    try:
        text = json.dumps(dict(values), default=str, ensure_ascii=False)
    except RecursionError:
        text = json.dumps({name: str(value) for name, value in values.items() if not isinstance(value, list | dict)})
    return text.encode("utf-8", "replace")


def _read(raw: bytes) -> Fields:
    text = raw if raw.isascii() else raw.decode("utf-8", "replace").encode()
    try:
        return json_text.json_object(text)
    except RefusedError as refused:
        if "surrogate" not in refused.reason:
            raise
        value = json.loads(text)  # half a character is mended below, as bytes in a wrong charset are
        if isinstance(value, dict):
            return value
        raise


def _record(source: Source, values: Row, received_at: int, known: Form | None = None) -> Record:
    table = SCHEMAS[source]
    key = _id(values.get(table.key), table.key)
    if key is None:
        raise RefusedError(f"missing_id: a row of {source} must have a {table.key}")
    if len(key) > MAX_KEY_BYTES // 4 and len(key.encode()) > MAX_KEY_BYTES:
        raise RefusedError(f"invalid_id: {table.key} must be at most {MAX_KEY_BYTES} bytes of UTF-8")
    deleted = values.get("deleted")
    gone = deleted is True or (type(deleted) is int and deleted == 1)  # SQLite has no other truth than 1
    if gone:
        said, body = _gone(table, key, values, received_at), b""
    elif known is None or known.said is None:
        said, body = _canonical(table, values), b""
    else:
        said, body = known.said, known.body
    if not gone and table.event != "updated_at" and moment(said[table.event]) is None:
        shown = "null" if said[table.event] is None else repr(said[table.event])[:60]
        raise RefusedError(f"invalid_time: {table.event} must be RFC 3339 or epoch milliseconds, not {shown}")
    body = body or _encoded(said)
    version = moment(said.get(table.version) if not gone else said["updated_at"])
    spelled = "" if version is None else times.text(version)
    name = f"{key}@{spelled}@{xxhash.xxh3_64_hexdigest(body)[:8]}"
    if version is None:
        version = received_at
        said["updated_at"] = times.text(received_at)
        body = _encoded(said)
    if len(body) > MAX_RECORD_BYTES:
        raise RefusedError(f"too_large: the row has {len(body)} bytes; a row may have {MAX_RECORD_BYTES}")
    event_time = version if gone else moment(said[table.event])
    user_id = said.get("user_id")
    return Record(
        kind=TABLES[source],
        id=name,
        name=key,
        source=source,
        event_time=version if event_time is None else event_time,
        received_at=received_at,
        body=body,
        user_id=user_id,
        matched_by=None if user_id is None else MatchedBy.USER_ID,
    )


def _gone(table: Table, key: str, values: Row, received_at: int) -> dict[str, Any]:
    noticed = moment(values.get("updated_at"))
    said: dict[str, Any] = {table.key: key}
    if table.key != "user_id" and (user_id := _id(values.get("user_id"), "user_id")) is not None:
        said["user_id"] = user_id
    return said | {"deleted": True, "updated_at": times.text(received_at if noticed is None else noticed)}


def _canonical(table: Table, values: Row) -> dict[str, Any]:
    """The row in its canonical form; a version that is no time is none. Raises RefusedError."""
    said = {column: form(values.get(column), column) for column, form in table.columns.items()}
    if table.version == "updated_at" and moment(said["updated_at"]) is None:
        said["updated_at"] = None
    if len(values) > len(said) or not said.keys() >= values.keys():
        said.update(_others(table, values))
    return said


def _others(table: Table, values: Row) -> Iterable[tuple[str, Any]]:
    try:
        named = {_said(str(name)): json_value(value) for name, value in values.items() if name not in table.columns}
    except RecursionError as error:
        raise RefusedError("too_deep: the row nests too deep; send it flatter") from error
    return sorted((name, value) for name, value in named.items() if name not in table.columns)


def _encoded(said: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(said)
    except RecursionError as error:
        raise RefusedError("too_deep: the row nests too deep; send it flatter") from error


def _shown_key(source: Source, values: Row) -> str | None:
    try:
        return _id(values.get(SCHEMAS[source].key), "")
    except RefusedError:
        return None
