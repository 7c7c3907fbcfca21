"""The ride table: every version of every ride's document as columns, in files of its own beside the lake's rows.

A row is that of `ROWS` (`name` is the ride's id, `event_time` when it was requested, or noticed to be deleted) and
what lists of rides are filtered by. A file is sorted by (event time, name), so that a page of rides is read from one
end. What that order cannot show, a version that stands elsewhere than the one before it, is marked as `moved`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.records import Kind
from rebu_ray.store.member import place_id, place_time
from rebu_ray.store.rows import ROWS

FACETS: Final = pa.schema(
    [
        pa.field("status", pa.string()),
        pa.field("city", pa.string()),
        pa.field("driver_id", pa.string()),
        pa.field("known_at", pa.int64()),
        pa.field("premature", pa.bool_(), nullable=False),
        pa.field("cause", pa.string()),
        pa.field("errors", pa.int64(), nullable=False),
        pa.field("messages_linked", pa.int64(), nullable=False),
        pa.field("messages_ambiguous", pa.int64(), nullable=False),
        pa.field("deleted", pa.bool_(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
    ]
)
"""What a document says that lists are filtered by. `known_at` is in ms, `errors` are those of app and server."""
RIDES: Final = pa.schema([*ROWS, *FACETS, pa.field("moved", pa.bool_(), nullable=False)])
"""The columns of a ride file."""
FRESH: Final = pa.schema(
    [ROWS.field("name"), ROWS.field("event_time"), ROWS.field("user_id"), *FACETS, RIDES.field("body")]
)
"""Documents that are in no file yet."""


class _User(msgspec.Struct, gc=False):
    user_id: str | None = None


class _Driver(msgspec.Struct, gc=False):
    driver_id: str | None = None


class _Errors(msgspec.Struct, gc=False):
    app: int = 0
    server: int = 0


class _Messages(msgspec.Struct, gc=False):
    linked: int = 0
    ambiguous: int = 0


class _Document(msgspec.Struct):
    ride_id: str = ""
    requested_at: datetime | None = None
    status: str | None = None
    city: str | None = None
    user: _User | None = None
    driver: _Driver | None = None
    errors: _Errors = msgspec.field(default_factory=_Errors)
    premature: bool = False
    cause: str | None = None
    messages: _Messages = msgspec.field(default_factory=_Messages)
    deleted: bool = False
    version: int = 0
    known_at: datetime | None = None


_DOCUMENT: Final = msgspec.json.Decoder(_Document)


def milliseconds(times: Sequence[datetime | None]) -> pa.Array:
    """Times with a zone as ms since the epoch."""
    return pa.array(times, pa.timestamp("ms", "UTC")).cast(pa.int64())


def _facets(documents: Sequence[_Document]) -> list[pa.Array]:
    columns: list[pa.Array] = [
        pa.array([d.status for d in documents], pa.string()),
        pa.array([d.city for d in documents], pa.string()),
        pa.array([d.driver and d.driver.driver_id for d in documents], pa.string()),
        milliseconds([d.known_at for d in documents]),
        pa.array([d.premature for d in documents], pa.bool_()),
        pa.array([d.cause for d in documents], pa.string()),
        pa.array([d.errors.app + d.errors.server for d in documents], pa.int64()),
        pa.array([d.messages.linked for d in documents], pa.int64()),
        pa.array([d.messages.ambiguous for d in documents], pa.int64()),
        pa.array([d.deleted for d in documents], pa.bool_()),
        pa.array([d.version for d in documents], pa.int64()),
    ]
    return columns


def to_rides(rows: pa.Table, moved: Callable[[pa.Table], pa.Array]) -> pa.Table:
    """Rows of kind ride_document (`ROWS`) as `RIDES`; `moved` says of each which of them are."""
    rows = rows.combine_chunks()
    facets = _facets([_DOCUMENT.decode(body) for body in rows["body"].to_pylist()])
    table = pa.Table.from_arrays([*rows.columns, *facets], schema=pa.schema([*ROWS, *FACETS]))
    return table.append_column(RIDES.field("moved"), moved(table)).cast(RIDES)


def fresh(bodies: Sequence[bytes]) -> pa.Table:
    """Documents that are in no file yet as `FRESH`."""
    documents = [_DOCUMENT.decode(body) for body in bodies]
    columns = [
        pa.array([d.ride_id for d in documents], pa.string()),
        milliseconds([d.requested_at for d in documents]).fill_null(0),
        pa.array([d.user and d.user.user_id for d in documents], pa.string()),
        *_facets(documents),
        pa.array(bodies, pa.binary()),
    ]
    return pa.Table.from_arrays(columns, schema=FRESH)


def split(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Rows of all kinds as those of the rows' files and those of the ride files."""
    documents = pc.equal(rows["kind"], str(Kind.RIDE_DOCUMENT))
    return rows.filter(pc.invert(documents)), rows.filter(documents)


class Wanted(NamedTuple):
    """Which rides a list shows: those that meet every condition that is not None."""

    status: tuple[str, ...] | None = None
    city: tuple[str, ...] | None = None
    cause: tuple[str, ...] | None = None
    user_id: str | None = None
    driver_id: str | None = None
    premature: bool | None = None
    has_messages: bool | None = None
    """Linked to the ride, or perhaps about it."""
    min_errors: int | None = None

    @property
    def columns(self) -> list[str]:
        """What the conditions look at."""
        found = [name for name in ("status", "city", "cause", "user_id", "driver_id", "premature") if self._has(name)]
        found += ["messages_linked", "messages_ambiguous"] if self.has_messages is not None else []
        return found + (["errors"] if self.min_errors is not None else [])

    def of(self, rides: pa.Table) -> pa.Table:
        """Those of some rides (`RIDES` or `FRESH`) that are wanted; a value that is not known meets no condition."""
        conditions = [
            pc.is_in(rides[name], value_set=pa.array(values, pa.string()))
            for name in ("status", "city", "cause")
            if (values := getattr(self, name)) is not None
        ]
        conditions += [
            pc.equal(rides[name], value)
            for name in ("user_id", "driver_id", "premature")
            if (value := getattr(self, name)) is not None
        ]
        if self.has_messages is not None:
            some = pc.greater(pc.add(rides["messages_linked"], rides["messages_ambiguous"]), 0)
            conditions.append(pc.equal(some, self.has_messages))
        if self.min_errors is not None:
            conditions.append(pc.greater_equal(rides["errors"], self.min_errors))
        for condition in conditions[1:]:
            conditions[0] = pc.and_(conditions[0], condition)
        return rides.filter(conditions[0]) if conditions else rides

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None


def times(low: bytes, high: bytes) -> tuple[int, int]:
    """The first and the last event time (ms) that rides with low <= place < high may have."""
    # A bound shorter than a time is the beginning or the end of everything.
    return place_time(low) if len(low) >= 8 else 0, place_time(high) if len(high) >= 8 else 2**62


def within(rides: pa.Table, low: bytes, high: bytes) -> pa.Table:
    """Those of some rides with low <= place < high, where the place is that of (event time, ride id)."""
    at, name = rides["event_time"], rides["name"]
    if len(low) >= 8:
        later = pc.greater(at, place_time(low))
        same = pc.and_(pc.equal(at, place_time(low)), pc.greater_equal(name, place_id(low)))
        rides = rides.filter(pc.or_(later, same))
        at, name = rides["event_time"], rides["name"]
    if len(high) >= 8:
        earlier = pc.less(at, place_time(high))
        same = pc.and_(pc.equal(at, place_time(high)), pc.less(name, place_id(high)))
        rides = rides.filter(pc.or_(earlier, same))
    return rides
