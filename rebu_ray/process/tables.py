"""The tables that rides are computed from and what comes of it, as Arrow schemas.

All times are int64 milliseconds since the epoch, UTC; all ids are strings. Coordinates are degrees,
distances metres, amounts of money hundredths of the currency.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.process.bodies import BodyReader, fields_of, whole
from rebu_ray.records import Kind
from rebu_ray.store.rows import ROWS

USERS: Final = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("email", pa.string()),
        pa.field("phone", pa.string()),
        pa.field("received_at", pa.int64(), nullable=False),
    ]
)
"""One row a user: the version that counts."""

DRIVERS: Final = pa.schema(
    [
        pa.field("driver_id", pa.string(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("vehicle_plate", pa.string()),
        pa.field("vehicle_model", pa.string()),
        pa.field("received_at", pa.int64(), nullable=False),
    ]
)
"""One row a driver: the version that counts."""

RIDES: Final = pa.schema(
    [
        pa.field("ride_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("driver_id", pa.string()),
        pa.field("city", pa.string()),
        pa.field("status", pa.string()),
        pa.field("requested_at", pa.int64()),
        pa.field("accepted_at", pa.int64()),
        pa.field("picked_up_at", pa.int64()),
        pa.field("ended_at", pa.int64()),
        pa.field("pickup_lat", pa.float64()),
        pa.field("pickup_lon", pa.float64()),
        pa.field("destination_lat", pa.float64()),
        pa.field("destination_lon", pa.float64()),
        pa.field("dropoff_lat", pa.float64()),
        pa.field("dropoff_lon", pa.float64()),
        pa.field("distance_m", pa.int64()),
        pa.field("fare_cents", pa.int64()),
        pa.field("currency", pa.string()),
        pa.field("rating", pa.float64()),
        pa.field("updated_at", pa.int64()),
        pa.field("deleted", pa.bool_(), nullable=False),
        pa.field("received_at", pa.int64(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
    ]
)
"""Every version of each ride. The one with the greatest (updated_at, received_at, record_id) counts."""

DESTINATIONS: Final = pa.schema(
    [
        pa.field("ride_id", pa.string(), nullable=False),
        pa.field("changed_at", pa.int64(), nullable=False),
        pa.field("destination_lat", pa.float64()),
        pa.field("destination_lon", pa.float64()),
        pa.field("received_at", pa.int64(), nullable=False),
    ]
)
"""Where a ride was to go from an instant on. Of two with the same instant the one received last counts."""

MESSAGES: Final = pa.schema(
    [
        pa.field("message_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("channel", pa.string()),
        pa.field("direction", pa.string()),
        pa.field("sent_at", pa.int64()),
        pa.field("subject", pa.string()),
        pa.field("body", pa.string()),
        pa.field("ride_id", pa.string()),
        pa.field("thread_id", pa.string()),
        pa.field("updated_at", pa.int64()),
        pa.field("deleted", pa.bool_(), nullable=False),
        pa.field("received_at", pa.int64(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
    ]
)
"""Every version of each message. The one with the greatest (updated_at, received_at, record_id) counts."""

ERRORS: Final = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("event_time", pa.int64(), nullable=False),
        pa.field("received_at", pa.int64(), nullable=False),
    ]
)
"""What went wrong for a user: kinds app_error, server_error, and server_access with a status of 500 or more."""

ERROR_ITEMS: Final = pa.list_(
    pa.struct(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),
            pa.field("name", pa.string(), nullable=False),
            pa.field("timestamp", pa.int64(), nullable=False),
        ]
    )
)

RIDE_STATS: Final = pa.schema(
    [
        pa.field("ride_id", pa.string(), nullable=False),
        pa.field("status", pa.string()),
        pa.field("city", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("user_name", pa.string()),
        pa.field("driver_id", pa.string()),
        pa.field("driver_name", pa.string()),
        pa.field("requested_at", pa.int64()),
        pa.field("accepted_at", pa.int64()),
        pa.field("picked_up_at", pa.int64()),
        pa.field("ended_at", pa.int64()),
        pa.field("fare_cents", pa.int64()),
        pa.field("currency", pa.string()),
        pa.field("distance_m", pa.int64()),
        pa.field("wait_s", pa.float64()),
        pa.field("duration_s", pa.float64()),
        pa.field("requested_distance_m", pa.float64()),
        pa.field("destination_gap_m", pa.float64()),
        pa.field("destination_matched", pa.bool_()),
        pa.field("progress", pa.float64()),
        pa.field("errors_app", pa.int64(), nullable=False),
        pa.field("errors_server", pa.int64(), nullable=False),
        pa.field("errors", ERROR_ITEMS, nullable=False),
        pa.field("premature", pa.bool_(), nullable=False),
        pa.field("cause", pa.string()),
        pa.field("quality", pa.float64(), nullable=False),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        pa.field("pickup_lat", pa.float64()),
        pa.field("pickup_lon", pa.float64()),
        pa.field("destination_lat", pa.float64()),
        pa.field("destination_lon", pa.float64()),
        pa.field("dropoff_lat", pa.float64()),
        pa.field("dropoff_lon", pa.float64()),
        pa.field("rating", pa.float64()),
        pa.field("updated_at", pa.int64()),
        pa.field("received_at", pa.int64(), nullable=False),
    ]
)
"""One row a ride, sorted by (user_id, requested_at, ride_id), nulls last.

The destination is the one in force when the ride ended (so far, while it runs). updated_at and received_at are
those of the version of the ride's row that counts. Values that make no sense are null and have a flag.
"""

RIDE_DOCUMENTS: Final = pa.schema(
    [
        *RIDE_STATS,
        pa.field("messages_linked", pa.int64(), nullable=False),
        pa.field("messages_ambiguous", pa.int64(), nullable=False),
        pa.field("document", pa.binary(), nullable=False),
    ]
)
"""RIDE_STATS with the messages counted and the JSON text of the ride's document."""

REASONS: Final = pa.list_(
    pa.struct(
        [
            pa.field("signal", pa.string(), nullable=False),
            pa.field("detail", pa.string(), nullable=False),
            pa.field("weight", pa.float64(), nullable=False),
        ]
    )
)

CANDIDATES: Final = pa.list_(
    pa.struct(
        [
            pa.field("ride_id", pa.string(), nullable=False),
            pa.field("confidence", pa.float64(), nullable=False),
            pa.field("reasons", REASONS, nullable=False),
        ]
    )
)

LINKS: Final = pa.schema(
    [
        pa.field("message_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("thread_id", pa.string()),
        pa.field("channel", pa.string()),
        pa.field("direction", pa.string()),
        pa.field("sent_at", pa.int64()),
        pa.field("subject", pa.string()),
        pa.field("body", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("ride_id", pa.string()),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("candidates", CANDIDATES, nullable=False),
        pa.field("reasons", REASONS, nullable=False),
    ]
)
"""One row a message: which ride it is about. Status is linked, ambiguous or none; ride_id is null unless linked."""


class Inputs(NamedTuple):
    """All that is known of some users, as tables of the schemas above."""

    users: pa.Table
    drivers: pa.Table
    rides: pa.Table
    destinations: pa.Table
    messages: pa.Table
    errors: pa.Table


_Numbers = npt.NDArray[np.int64]

_READ: Final = pa.schema(
    [ROWS.field(name) for name in ("kind", "name", "id", "user_id", "body", "event_time", "received_at")]
)
"""What of `store.rows.ROWS` is looked at."""

_FROM_ROWS: Final = (
    pa.field("received_at", pa.int64(), nullable=False),
    pa.field("record_id", pa.string(), nullable=False),
)
_FROM_ROW: Final = frozenset(field.name for field in _FROM_ROWS)


class _Table(NamedTuple):
    """How rows of the application database become a table."""

    kind: Kind
    key: str
    schema: pa.Schema
    reader: BodyReader


def _table(kind: Kind, schema: pa.Schema, *more: pa.Field) -> _Table:
    """The first field is the key, which is the record's name; `more` is read as well and not kept."""
    fields = [*schema, *more]
    read = [field for field in fields[1:] if field.name not in _FROM_ROW]
    columns = [*(field for field in fields if field.name not in _FROM_ROW), *_FROM_ROWS]
    return _Table(kind, fields[0].name, pa.schema(columns), BodyReader(read))


_UPDATED: Final = pa.field("updated_at", pa.int64())
_DELETED: Final = pa.field("deleted", pa.bool_(), nullable=False)
_USERS: Final = _table(Kind.USER, USERS, _UPDATED, _DELETED)
_DRIVERS: Final = _table(Kind.DRIVER, DRIVERS, _UPDATED, _DELETED)
_RIDES: Final = _table(Kind.RIDE, RIDES)
_DESTINATIONS: Final = _table(Kind.RIDE_DESTINATION, DESTINATIONS, _DELETED)
_MESSAGES: Final = _table(Kind.MESSAGE, MESSAGES)


def from_rows(rows: pa.Table | pa.RecordBatch, errors: pa.Table | None = None) -> Inputs:
    """The tables that records make. Other kinds of records are passed over.

    `rows` has (at least) the columns kind, name, id, user_id, body, event_time and received_at of `store.rows.ROWS`,
    where user_id is whom a record belongs to by now. Errors may stand among them, of server entries all; or in
    `errors` (`ERRORS`), which is taken as it is. A value that cannot be read is null.
    """
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    known = table.select(_READ.names)
    if known.schema.types != _READ.types:
        known = known.cast(_READ)
    found = [_errors(known)] if errors is None else [_errors(known), errors.select(ERRORS.names).cast(ERRORS)]
    return Inputs(
        users=counting(_read(_USERS, known), "user_id").select(USERS.names),
        drivers=counting(_read(_DRIVERS, known), "driver_id").select(DRIVERS.names),
        rides=_read(_RIDES, known),
        destinations=_changes(_read(_DESTINATIONS, known)),
        messages=_read(_MESSAGES, known),
        errors=pa.concat_tables(found),
    )


def counting(versions: pa.Table, key: str) -> pa.Table:
    """Of each key the version that counts: the one with the greatest (updated_at, received_at, record_id).

    Keys of which that version is a deletion are left out. The rows come in no order.
    """
    if not versions.num_rows:
        return versions
    received = _numbers(versions["received_at"])
    updated = _numbers(pc.coalesce(versions["updated_at"], versions["received_at"]))
    chosen = _last(versions, [_codes(versions[key])], [updated, received])
    return _kept(versions.take(chosen))


def _changes(destinations: pa.Table) -> pa.Table:
    """Of changes at the same instant of a ride the one received last."""
    timed = destinations.filter(pc.is_valid(destinations["changed_at"]))
    if not timed.num_rows:
        return DESTINATIONS.empty_table()
    groups = [_codes(timed["ride_id"]), _numbers(timed["changed_at"])]
    chosen = _last(timed, groups, [_numbers(timed["received_at"])])
    return _kept(timed.take(chosen)).select(DESTINATIONS.names).cast(DESTINATIONS)


def _last(table: pa.Table, groups: list[_Numbers], order: list[_Numbers]) -> _Numbers:
    """The place of the last row of each group, by `order` and then by record_id."""
    places = np.lexsort((*reversed(order), *reversed(groups)))
    grouped = _equal_to_next(groups, places)
    if (grouped & _equal_to_next(order, places)).any():
        ranks = pc.rank(table["record_id"].combine_chunks(), "ascending", tiebreaker="dense").to_numpy()
        places = np.lexsort((ranks, *reversed(order), *reversed(groups)))
    return places[np.append(~grouped, True)] if len(places) else places


def _equal_to_next(columns: list[_Numbers], places: _Numbers) -> npt.NDArray[np.bool_]:
    equal = np.ones(max(len(places) - 1, 0), bool)
    for column in columns:
        sorted_column = column[places]
        equal &= sorted_column[1:] == sorted_column[:-1]
    return equal


def _kept(table: pa.Table) -> pa.Table:
    return table.filter(pc.invert(table["deleted"]))


def _codes(keys: pa.ChunkedArray) -> _Numbers:
    return _numbers(keys.combine_chunks().dictionary_encode().indices)


def _numbers(column: pa.Array | pa.ChunkedArray) -> _Numbers:
    found: _Numbers = column.to_numpy()
    return found


def _read(table: _Table, known: pa.Table) -> pa.Table:
    """The rows of one kind as the table that they are of."""
    rows = known.filter(pc.equal(known["kind"], table.kind)).combine_chunks()
    if not rows.num_rows:
        return table.schema.empty_table()
    columns = table.reader.columns(rows["body"].combine_chunks())
    if "user_id" in columns:
        columns["user_id"] = pc.coalesce(rows["user_id"], columns["user_id"])
    if "updated_at" in columns:
        columns["updated_at"] = pc.coalesce(columns["updated_at"], rows["received_at"])
    columns |= {table.key: rows["name"], "received_at": rows["received_at"], "record_id": rows["id"]}
    return pa.table([columns[field.name] for field in table.schema], schema=table.schema)


class _Status(msgspec.Struct, gc=False):
    status: int | float | str | None = None


_ERROR_KINDS: Final = pa.array([Kind.APP_ERROR, Kind.SERVER_ERROR, Kind.SERVER_ACCESS], pa.string())
_STATUS: Final = msgspec.json.Decoder(_Status)


def _status(body: bytes) -> int:
    """The HTTP status that an access entry names; 0 where it names none."""
    status: object
    try:
        status = _STATUS.decode(body).status
    except (msgspec.DecodeError, ValueError, RecursionError):
        status = fields_of(body).get("status")
    if isinstance(status, str):
        return int(status) if status.isascii() and status.isdigit() and len(status) < 10 else 0
    return whole(status) or 0


def _errors(known: pa.Table) -> pa.Table:
    owned = known.filter(pc.and_(pc.is_valid(known["user_id"]), pc.is_in(known["kind"], _ERROR_KINDS)))
    failed = owned.filter(pc.not_equal(owned["kind"], Kind.SERVER_ACCESS))
    entries = owned.filter(pc.equal(owned["kind"], Kind.SERVER_ACCESS))
    statuses = [_status(body) for chunk in entries["body"].chunks for body in chunk.to_pylist()]
    refused = entries.filter(pa.array([status >= 500 for status in statuses], pa.bool_()))
    return pa.concat_tables([failed, refused]).select(ERRORS.names).cast(ERRORS)
