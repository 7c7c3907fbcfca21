"""What of a partition of the lake a load has not seen yet, in temporary tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.records import HISTORY_KINDS, Kind
from rebu_ray.store.lake import DataFile, Lake, Manifest
from rebu_ray.store.tally import counted
from rebu_ray.store.tombstones import Tombstones
from rebu_ray.store.warehouse.schema import KINDS

_NARROW: Final = (
    *("seq", "fingerprint", "key", "id", "kind", "name", "source", "event_time", "received_at", "user_id"),
    "matched_by",
)
_EVENTS: Final = pa.array([str(kind) for kind in HISTORY_KINDS])
_BODIED: Final = pa.array([*map(str, KINDS.values()), str(Kind.MESSAGE_DOCUMENT)])
_RIDE: Final = ("seq", "key", "kind", "name", "event_time", "received_at", "user_id", "deleted", "body")
_ROW_GROUPS: Final = 64
"""Row groups of a ride file that are read at once: they are small."""
DAY_MS: Final = 86_400_000
LATE_MS: Final = 6 * DAY_MS
"""A record so much older than its receipt may have been stored before, and be forgotten as a duplicate."""

_STAGED_EVENTS: Final = """
    CREATE OR REPLACE TEMP TABLE staged_events (fingerprint UBIGINT, date DATE, kind VARCHAR, source VARCHAR,
        name VARCHAR, late BOOLEAN)
"""

Connection = duckdb.DuckDBPyConnection


class Stage:
    """The temporary tables of one load, filled for one partition after the other.

    staged_documents  name, kind, seq, received_at, deleted, body: of rides and messages
    staged_rows       kind, name, id, event_time, received_at, seq, body: of users, drivers, rides and messages
    staged_events     fingerprint, date, kind, source, name, late
    """

    def __init__(self, connection: Connection, lake: Lake, tombstones: Tombstones) -> None:
        self._connection = connection
        self._lake = lake
        self._tombstones = tombstones
        self.kinds: set[str] = set()
        """Of the documents and rows that are staged."""
        self.events = False
        """Whether events are."""

    def fill(self, partition: int, manifest: Manifest, since: int) -> None:
        """Stage the rows of a partition after a sequence number. Raises FileNotFoundError for a file that was merged.

        Of files that were scrubbed in between, what is left.
        """
        self._connection.execute("""
            CREATE OR REPLACE TEMP TABLE staged_documents (name VARCHAR, kind VARCHAR, seq BIGINT, received_at BIGINT,
                deleted BOOLEAN, body VARCHAR);
            CREATE OR REPLACE TEMP TABLE staged_rows (kind VARCHAR, name VARCHAR, id VARCHAR, event_time BIGINT,
                received_at BIGINT, seq BIGINT, body VARCHAR);
        """)
        self._connection.execute(_STAGED_EVENTS)
        self.kinds, self.events = set(), False
        for file in manifest.rides:
            if file.last_seq > since:
                self._rides(partition, file, since)
        for file in manifest.files:
            if file.last_seq > since:
                self._rows(partition, file, since)

    def recount(self, partition: int, manifest: Manifest, days: Sequence[int] | None, covered: int) -> None:
        """Stage the events of some days (since the epoch; None: of all) whole, instead of those that are staged.

        Up to a sequence number. Raises FileNotFoundError.
        """
        self._connection.execute(_STAGED_EVENTS)
        low, high = (0, 2**62) if days is None else (min(days) * DAY_MS, (max(days) + 1) * DAY_MS)
        chosen = pa.array(days or [], pa.int64())
        for file in manifest.files:
            if file.min_event_time >= high or file.max_event_time < low:
                continue
            with self._lake.open(partition, file) as parquet:
                for number in range(parquet.num_row_groups):
                    rows = parquet.read_row_group(number, columns=list(_NARROW))
                    rows = rows.filter(pc.less_equal(rows["seq"], covered))
                    if days is not None:
                        # Times are never before 1970: cutting off is rounding down.
                        rows = rows.filter(pc.is_in(pc.divide(rows["event_time"], DAY_MS), value_set=chosen))
                    self._events(self._alive(rows))

    def _rides(self, partition: int, file: DataFile, since: int) -> None:
        with self._lake.open(partition, file) as parquet:
            for start in range(0, parquet.num_row_groups, _ROW_GROUPS):
                groups = list(range(start, min(start + _ROW_GROUPS, parquet.num_row_groups)))
                rows = parquet.read_row_groups(groups, columns=list(_RIDE))
                rows = self._alive(rows.filter(pc.greater(rows["seq"], since)))
                documents = rows.select(["name", "kind", "seq", "received_at", "deleted", "body"])
                self._insert("staged_documents", documents)

    def _rows(self, partition: int, file: DataFile, since: int) -> None:
        with self._lake.open(partition, file) as parquet:
            for number in range(parquet.num_row_groups):
                rows = parquet.read_row_group(number, columns=list(_NARROW))
                fresh = pc.greater(rows["seq"], since)
                bodied = pc.and_(fresh, pc.is_in(rows["kind"], value_set=_BODIED))
                self._events(self._alive(rows.filter(fresh)))
                if not pc.any(bodied).as_py():
                    continue
                bodies = parquet.read_row_group(number, columns=["body"])["body"]
                rows = self._alive(rows.append_column("body", bodies).filter(bodied))
                documents = pc.equal(rows["kind"], str(Kind.MESSAGE_DOCUMENT))
                self._documents(rows.filter(documents))
                plain = rows.filter(pc.invert(documents))
                columns = ["kind", "name", "id", "event_time", "received_at", "seq", "body"]
                self._insert("staged_rows", plain.select(columns))

    def _documents(self, rows: pa.Table) -> None:
        """Documents of messages; what is shown of them lies in an envelope."""
        if not rows.num_rows:
            return
        self.kinds.add(Kind.MESSAGE_DOCUMENT)
        self._register(rows.select(["name", "kind", "seq", "received_at", "body"]))
        self._connection.execute("""
            INSERT INTO staged_documents SELECT name, kind, seq, received_at,
                coalesce(json_extract(body, '/deleted') = 'true', false), json_extract(body, '/document')::VARCHAR
            FROM chunk
        """)

    def _events(self, rows: pa.Table) -> None:
        rows = rows.filter(pc.is_in(rows["kind"], value_set=_EVENTS))
        rows = rows.filter(pa.array(counted(rows)))
        if not rows.num_rows:
            return
        self.events = True
        self._register(rows.select(["fingerprint", "kind", "source", "name", "event_time", "received_at"]))
        # Paths of requests hold ids: of an access line the method is its name.
        self._connection.execute(
            """
            INSERT INTO staged_events SELECT fingerprint, make_timestamp_ms(event_time)::DATE, kind, source,
                CASE WHEN kind = $access THEN split_part(name, ' ', 1) ELSE name END, received_at - event_time >= $late
            FROM chunk
            """,
            {"access": str(Kind.SERVER_ACCESS), "late": LATE_MS},
        )

    def _alive(self, rows: pa.Table) -> pa.Table:
        """Rows without those of erased people, which may be in the lake for a moment more."""
        if not self._tombstones or not rows.num_rows:
            return rows
        return rows.filter(pa.array(~self._tombstones.dead(rows)))

    def _insert(self, table: str, rows: pa.Table) -> None:
        if rows.num_rows:
            self.kinds.update(pc.unique(rows["kind"]).to_pylist())
            self._register(rows)
            self._connection.execute(f"INSERT INTO {table} SELECT * FROM chunk")

    def _register(self, rows: pa.Table) -> None:
        if "body" in rows.schema.names:
            at = rows.schema.get_field_index("body")
            rows = rows.set_column(at, "body", rows["body"].cast(pa.string()))
        self._connection.register("chunk", rows)
