"""Rows of small worlds: few ids, few instants, so that everything coincides with everything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa
import xxhash
from hypothesis import strategies as st

from rebu_ray.process.documents import documents
from rebu_ray.process.ride_stats import statistics
from rebu_ray.process.tables import from_rows
from rebu_ray.records import Kind
from tests.records import AWKWARD, NOW

SCHEMA = pa.schema(
    {
        "kind": pa.string(),
        "name": pa.string(),
        "id": pa.string(),
        "user_id": pa.string(),
        "body": pa.binary(),
        "event_time": pa.int64(),
        "received_at": pa.int64(),
    }
)

RIGA = (56.95, 24.10)
"""Where rides of a test begin unless it says otherwise."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """A record as the computation sees it."""

    kind: Kind
    name: str
    id: str
    user_id: str | None
    body: bytes
    event_time: int
    received_at: int


def table(rows: Iterable[Row]) -> pa.Table:
    return pa.Table.from_pylist([row._asdict() for row in rows], schema=SCHEMA)


def text(ms: int | None) -> str | None:
    if ms is None:
        return None
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _row(kind: Kind, key: str, body: dict[str, Any], received_at: int, event_time: int | None) -> Row:
    """A row of the application database; times in `body` are ms."""
    written = {name: text(value) if name.endswith("_at") else value for name, value in body.items()}
    encoded = json.dumps(written, ensure_ascii=False, separators=(",", ":")).encode()
    pk = str(body[key])
    record_id = f"{pk}@{written.get('updated_at') or written.get('changed_at')}@{xxhash.xxh3_64_hexdigest(encoded)[:8]}"
    return Row(kind, pk, record_id, body.get("user_id"), encoded, event_time or received_at, received_at)


def ride(ride_id: str = "r1", *, received_at: int = NOW, **columns: Any) -> Row:
    """A ride of `ada` that went well, but for the columns given (times in ms)."""
    lat, lon = RIGA
    body = {
        "ride_id": ride_id,
        "user_id": "ada",
        "driver_id": "dan",
        "city": "Riga",
        "status": "completed",
        "requested_at": NOW,
        "accepted_at": NOW + 10_000,
        "picked_up_at": NOW + 60_000,
        "ended_at": NOW + 660_000,
        "pickup_lat": lat,
        "pickup_lon": lon,
        "destination_lat": lat + 0.05,
        "destination_lon": lon,
        "dropoff_lat": lat + 0.05,
        "dropoff_lon": lon,
        "distance_m": 7000,
        "fare_cents": 1250,
        "currency": "EUR",
        "rating": 5,
        "updated_at": NOW + 700_000,
    }
    return _row(Kind.RIDE, "ride_id", body | columns, received_at, columns.get("requested_at", NOW))


def gone(kind: Kind, key: str, name: str, at: int) -> Row:
    """The deletion of a row, noticed at `at`."""
    return _row(kind, key, {key: name, "deleted": True, "updated_at": at}, at, at)


def destination(
    ride_id: str, changed_at: int | None, lat: float | None, lon: float | None, received_at: int = NOW
) -> Row:
    body = {"ride_id": ride_id, "changed_at": changed_at, "destination_lat": lat, "destination_lon": lon}
    return _row(Kind.RIDE_DESTINATION, "ride_id", body, received_at, changed_at)


def user(user_id: str = "ada", name: str | None = "Ada", updated_at: int | None = NOW, received_at: int = NOW) -> Row:
    body = {"user_id": user_id, "name": name, "email": "ada@example.org", "phone": None, "updated_at": updated_at}
    return _row(Kind.USER, "user_id", body, received_at, updated_at)


def driver(driver_id: str = "dan", name: str | None = "Dan", updated_at: int | None = NOW) -> Row:
    body = {"driver_id": driver_id, "name": name, "vehicle_plate": "AB-1234", "vehicle_model": "Dacia Logan"}
    return _row(Kind.DRIVER, "driver_id", body | {"rating": 4.9, "updated_at": updated_at}, NOW, updated_at)


def error(
    error_id: str = "e1",
    at: int = NOW,
    *,
    kind: Kind = Kind.APP_ERROR,
    user_id: str | None = "ada",
    name: str = "Boom",
    received_at: int | None = None,
    body: bytes = b"{}",
) -> Row:
    return Row(kind, name, error_id, user_id, body, at, at if received_at is None else received_at)


def access(error_id: str, status: object, at: int = NOW, user_id: str | None = "ada") -> Row:
    body = json.dumps({"method": "GET", "path": "/", "status": status}).encode()
    return error(error_id, at, kind=Kind.SERVER_ACCESS, user_id=user_id, name="GET /", body=body)


people = (user(), driver())

_instants = st.integers(0, 12).map(lambda step: NOW + step * 500)
_maybe = st.none() | _instants
_lats = st.sampled_from([None, 0.0, 56.95, 56.951, 56.9601, 57.0, 91.0, -90.0])
_lons = st.sampled_from([None, 0.0, 24.1, 24.1005, 24.3, 180.0, -181.5])
_rides = st.sampled_from(["r1", "r2", "r3", "🚕"])
_users = st.sampled_from(["ada", "bob", "é", None])
_statuses = st.sampled_from(
    [
        *("requested", "accepted", "in_progress", "completed", "completed", "cancelled_by_rider"),
        *("cancelled_by_driver", "failed", "vanished", None),
    ]
)
_names = st.sampled_from([None, "Ada Lovelace", *AWKWARD])

versions = st.builds(
    ride,
    _rides,
    received_at=_instants,
    user_id=_users,
    driver_id=st.sampled_from(["dan", "dora", None]),
    city=_names,
    status=_statuses,
    requested_at=st.just(NOW + 1000) | _maybe,
    accepted_at=_maybe,
    picked_up_at=_maybe,
    ended_at=_maybe,
    pickup_lat=_lats,
    pickup_lon=_lons,
    destination_lat=_lats,
    destination_lon=_lons,
    dropoff_lat=_lats,
    dropoff_lon=_lons,
    distance_m=st.sampled_from([None, -5, 0, 900, 9000]),
    fare_cents=st.sampled_from([None, -1, 0, 1250]),
    currency=st.sampled_from(["EUR", None]),
    rating=st.sampled_from([None, 0, 3, 4.5, 17]),
    updated_at=_maybe,
)
_changes = st.builds(destination, _rides, _maybe, _lats, _lons, _instants)
_errors = st.builds(
    error,
    st.sampled_from(["e1", "e2", "e3", "e4", '"']),
    _instants,
    kind=st.sampled_from([Kind.APP_ERROR, Kind.SERVER_ERROR, Kind.APP_EVENT]),
    user_id=_users,
    name=st.sampled_from(AWKWARD),
    received_at=_instants,
) | st.builds(
    access,
    st.sampled_from(["e4", "a1", "a2"]),
    st.sampled_from([200, 499, 500, 503.0, "502", "x", None, True, 10**30]),
    _instants,
    _users,
)
_people = st.builds(user, st.sampled_from(["ada", "bob"]), _names, _maybe, _instants) | st.builds(
    driver, st.sampled_from(["dan", "dora"]), _names, _maybe
)
_gone = st.builds(gone, st.just(Kind.RIDE), st.just("ride_id"), _rides, _instants) | st.builds(
    gone, st.just(Kind.USER), st.just("user_id"), st.sampled_from(["ada", "bob"]), _instants
)


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """A record is one thing: the same kind, name and id twice is sent twice, and received once."""
    once: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = (row.kind, row.name, row.id) if row.kind in _ROWS else row
        once.setdefault(key, row)
    return list(once.values())


_ROWS = frozenset((Kind.USER, Kind.DRIVER, Kind.RIDE, Kind.RIDE_DESTINATION))

worlds = st.lists(versions | versions | _changes | _errors | _errors | _people | _gone, max_size=25).map(_distinct)


def documents_of(rows: pa.Table) -> pa.Table:
    """The documents (`RIDE_DOCUMENTS`) of all rides among records, no message being linked."""
    return documents(statistics(from_rows(rows)))
