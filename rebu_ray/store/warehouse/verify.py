"""Proof that the warehouse has what the source has: counts and checksums of each day, and the rules of dimensions."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.records import Source
from rebu_ray.store.lake import Lake
from rebu_ray.store.tombstones import Tombstones
from rebu_ray.store.warehouse.dimensions import KEYS
from rebu_ray.store.warehouse.published import alias
from rebu_ray.store.warehouse.schema import FACTS, KEY_OF, KINDS, TABLE_OF, WarehouseError, pointer, text
from rebu_ray.store.warehouse.staging import Connection, Stage

FIELDS: Final[Mapping[Source, tuple[str, ...]]] = {
    Source.USERS: ("name",),
    Source.DRIVERS: ("name",),
    Source.RIDES: ("status", "city", "user_id", "driver_id", "currency"),
    Source.MESSAGES: ("channel", "direction", "user_id"),
}
"""What a row's checksum is made of, besides its key and its time."""
TIME: Final = {
    Source.USERS: "updated_at",
    Source.DRIVERS: "updated_at",
    Source.RIDES: "requested_at",
    Source.MESSAGES: "sent_at",
}
"""The time by whose day rows are counted."""
EXAMPLES: Final = 5


class Day(msgspec.Struct):
    """One day of one table in the source and in the warehouse."""

    table: str
    date: str | None
    source_rows: int
    warehouse_rows: int
    equal: bool


class Verdict(msgspec.Struct):
    """What a comparison found."""

    equal: bool
    days: list[Day]
    """Every day of every table."""
    rules: list[str]
    """Rules that are broken, each a sentence."""
    examples: dict[str, list[str]]
    """By table, keys of rows that differ."""


ROWS: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("kind", "name", "id")),
        *((name, pa.int64()) for name in ("event_time", "received_at")),
        ("body", pa.string()),
    ]
)
"""Rows of the source, as records have them."""


def verify(
    path: Path, truth: Iterable[pa.Table] | None, lake: Lake, partitions: int, tombstones: Tombstones
) -> Verdict:
    """Compare the published warehouse with rows of the source (`ROWS`), where none are given with those in the lake.

    Events are compared with the lake. Raises WarehouseError where there is no warehouse.
    """
    days: list[Day] = []
    examples: dict[str, list[str]] = {}
    try:
        with opened(path) as connection:
            _gather(connection, lake_rows(lake, partitions, tombstones) if truth is None else truth)
            for source in KINDS:
                _choose(connection, source)
                days += _days(connection, source)
                if differing := _differing(connection, source):
                    examples[str(source)] = differing
            days += _events(connection, Stage(connection, lake, tombstones), lake, partitions)
            rules = list(_rules(connection))
    except duckdb.Error as error:
        raise WarehouseError(f"{path} cannot be compared: {error}") from error
    return Verdict(all(day.equal for day in days) and not rules, days, rules, examples)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Connection]:
    """A connection with the published warehouse attached as `w`, to read."""
    if not path.exists():
        raise WarehouseError(f"there is no warehouse at {path} yet: `rebu warehouse load` makes it")
    with contextlib.ExitStack() as stack:
        with alias(path) as name:
            spilled = f"{name}.tmp"
            stack.callback(shutil.rmtree, spilled, ignore_errors=True)
            config: dict[str, str | bool | int | float | list[str]] = {
                "memory_limit": "1GB",
                "threads": 2,
                "temp_directory": spilled,
            }
            connection = stack.enter_context(duckdb.connect(":memory:", config=config))
            connection.execute(f"ATTACH {text(str(name))} AS w (READ_ONLY)")
        yield connection


def lake_rows(lake: Lake, partitions: int, tombstones: Tombstones) -> Iterator[pa.Table]:
    """Every version of every row that the lake has, as `ROWS`, and what says which of them is the newest."""
    kinds = pa.array([str(kind) for kind in KINDS.values()])
    for partition in range(partitions):
        for file in lake.manifest(partition).files:
            with lake.open(partition, file) as parquet:
                for number in range(parquet.num_row_groups):
                    if pc.any(pc.is_in(parquet.read_row_group(number, columns=["kind"])["kind"], kinds)).as_py():
                        rows = parquet.read_row_group(number, columns=[*ROWS.names, "key", "user_id"])
                        rows = rows.filter(pc.is_in(rows["kind"], kinds))
                        yield rows.filter(pa.array(~tombstones.dead(rows))).select(ROWS.names).cast(ROWS)


def _gather(connection: Connection, tables: Iterable[pa.Table]) -> None:
    connection.execute(
        "CREATE TABLE said (kind VARCHAR, key VARCHAR, id VARCHAR, version_at TIMESTAMP, received_at BIGINT, "
        "deleted BOOLEAN, moment TIMESTAMP, sum UBIGINT)"
    )
    sums = " ".join(
        f"WHEN {text(str(kind))} THEN hash(name, {_said(FIELDS[source])}, make_timestamp_ms(event_time))"
        for source, kind in KINDS.items()
    )
    for rows in tables:
        connection.register("chunk", rows)
        connection.execute(
            f"""
            INSERT INTO said SELECT kind, name, id, coalesce(
                    TRY_CAST(json_extract_string(body, '/updated_at') AS TIMESTAMP), make_timestamp_ms(received_at)),
                received_at, coalesce(json_extract(body, '/deleted') = 'true', false),
                make_timestamp_ms(event_time), CASE kind {sums} END FROM chunk
            """
        )


def _said(fields: Iterable[str]) -> str:
    return ", ".join(f"json_extract_string(body, {text(pointer(field))})" for field in fields)


def _choose(connection: Connection, source: Source) -> None:
    key, time = KEY_OF[source], TIME[source]
    connection.execute(
        f"""
        CREATE OR REPLACE TABLE truth AS SELECT key, moment::DATE AS day, sum FROM (
            SELECT * FROM said WHERE kind = {text(str(KINDS[source]))}
            QUALIFY row_number() OVER (PARTITION BY key ORDER BY version_at DESC, received_at DESC, id DESC) = 1
        ) WHERE NOT deleted
        """
    )
    # Rows that do not say when they changed are compared without that.
    timed = f"CASE WHEN {key} NOT IN (SELECT key FROM truth WHERE day IS NULL) THEN {time} END"
    where = "WHERE is_current" if source in (Source.USERS, Source.DRIVERS) else ""
    connection.execute(
        f"CREATE OR REPLACE TABLE held AS SELECT {key} AS key, ({timed})::DATE AS day, "
        f"hash({key}, {', '.join(FIELDS[source])}, {timed}) AS sum FROM w.{TABLE_OF[source]} {where}"
    )


def _days(connection: Connection, source: Source) -> list[Day]:
    rows = connection.execute(
        """
        WITH a AS (SELECT day, count(*) AS rows, sum(sum) AS sum FROM truth GROUP BY day),
            b AS (SELECT day, count(*) AS rows, sum(sum) AS sum FROM held GROUP BY day)
        SELECT coalesce(a.day, b.day), coalesce(a.rows, 0), coalesce(b.rows, 0),
            a.rows IS NOT DISTINCT FROM b.rows AND a.sum IS NOT DISTINCT FROM b.sum
        FROM a FULL JOIN b ON a.day IS NOT DISTINCT FROM b.day ORDER BY 1
        """
    ).fetchall()
    return [_day(str(source), row) for row in rows]


def _day(table: str, row: tuple[Any, ...]) -> Day:
    day: date | None = row[0]
    return Day(table, None if day is None else day.isoformat(), row[1], row[2], row[3])


def _differing(connection: Connection, source: Source) -> list[str]:
    rows = connection.execute(
        """
        SELECT DISTINCT coalesce(truth.key, held.key) FROM truth FULL JOIN held ON truth.key = held.key
        WHERE truth.sum IS DISTINCT FROM held.sum ORDER BY 1 LIMIT $examples
        """,
        {"examples": EXAMPLES},
    ).fetchall()
    return [row[0] for row in rows]


def _events(connection: Connection, stage: Stage, lake: Lake, partitions: int) -> list[Day]:
    connection.execute("CREATE OR REPLACE TABLE counted (day DATE, kind VARCHAR, source VARCHAR, name VARCHAR)")
    covered = dict(connection.execute("SELECT partition, covered_seq FROM w.meta.progress").fetchall())
    for partition in range(partitions):
        stage.recount(partition, lake.manifest(partition), None, covered.get(partition, 0))
        connection.execute(
            "INSERT INTO counted SELECT any_value(date), any_value(kind), any_value(source), any_value(name) "
            "FROM staged_events GROUP BY fingerprint"
        )
    rows = connection.execute(
        """
        WITH a AS (SELECT day, kind, source, name, count(*) AS rows FROM counted GROUP BY ALL),
            b AS (SELECT date AS day, kind, source, name, events AS rows FROM w.fact_event_daily)
        SELECT coalesce(a.day, b.day) AS day, coalesce(sum(a.rows), 0)::BIGINT, coalesce(sum(b.rows), 0)::BIGINT,
            bool_and(a.rows IS NOT DISTINCT FROM b.rows)
        FROM a FULL JOIN b ON a.day = b.day AND a.kind = b.kind AND a.source = b.source AND a.name = b.name
        GROUP BY 1 ORDER BY 1
        """
    ).fetchall()
    return [_day("events", row) for row in rows]


_BROKEN: Final = {
    "{table}: {rows} versions overlap the one after them, or leave a gap": """
        SELECT count(*) FROM (SELECT valid_to, lead(valid_from) OVER (PARTITION BY {key} ORDER BY valid_from) AS next
            FROM w.{table}) WHERE next IS NOT NULL AND valid_to IS DISTINCT FROM next""",
    "{table}: {rows} versions end before they begin": "SELECT count(*) FROM w.{table} WHERE valid_to < valid_from",
    "{table}: {rows} have more than one current version": """
        SELECT count(*) FROM (SELECT {key} FROM w.{table} WHERE is_current GROUP BY {key} HAVING count(*) > 1)""",
    "{table}: {rows} versions are current and have an end, or are neither": """
        SELECT count(*) FROM w.{table} WHERE is_current <> (valid_to IS NULL)""",
    "{table}: {rows} keys are those of more than one version": """
        SELECT count(*) FROM (SELECT {surrogate} FROM w.{table} GROUP BY {surrogate} HAVING count(*) > 1)""",
}
_POINTING: Final = """
    SELECT count(*) FROM w.{fact} f LEFT JOIN w.{table} d ON f.{surrogate} = d.{surrogate}
    WHERE (f.{surrogate} IS NULL AND f.{key} IN (SELECT {key} FROM w.{table}))
        OR (f.{surrogate} IS NOT NULL AND (d.{key} IS DISTINCT FROM f.{key} OR coalesce(f.{time} >= d.valid_to, false)))
"""
_TWICE: Final = "SELECT count(*) FROM (SELECT {key} FROM w.{fact} GROUP BY {key} HAVING count(*) > 1)"


def _rules(connection: Connection) -> Iterator[str]:
    for source, surrogate in KEYS.items():
        names = {"table": TABLE_OF[source], "key": KEY_OF[source], "surrogate": surrogate}
        for sentence, statement in _BROKEN.items():
            if rows := _count(connection, statement.format(**names)):
                yield sentence.format(rows=rows, **names)
    for fact in FACTS:
        if rows := _count(connection, _TWICE.format(key=KEY_OF[fact], fact=TABLE_OF[fact])):
            yield f"{TABLE_OF[fact]}: {rows} have more than one row"
        for source, surrogate in KEYS.items():
            if fact == Source.MESSAGES and source == Source.DRIVERS:
                continue
            names = {"fact": TABLE_OF[fact], "table": TABLE_OF[source], "key": KEY_OF[source], "time": TIME[fact]}
            if rows := _count(connection, _POINTING.format(surrogate=surrogate, **names)):
                yield f"{TABLE_OF[fact]}: {rows} rows point at another version of {TABLE_OF[source]} than theirs"


def _count(connection: Connection, statement: str) -> int:
    row = connection.execute(statement).fetchone()
    return int(row[0]) if row else 0
