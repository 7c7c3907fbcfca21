"""Facts: of each ride and message the newest document, and how many records of histories there are a day."""

from __future__ import annotations

from typing import Final

from rebu_ray.records import Kind, Source
from rebu_ray.store.warehouse.dimensions import ZONES
from rebu_ray.store.warehouse.schema import (
    DAYS,
    FACTS,
    KEY_OF,
    KINDS,
    MESSAGE_COLUMNS,
    MESSAGE_SHAPE,
    NUMBERS,
    RIDE_COLUMNS,
    RIDE_SHAPE,
    TABLE_OF,
    date_key,
    pointer_of,
    quoted,
    text,
)
from rebu_ray.store.warehouse.source import Column, value
from rebu_ray.store.warehouse.staging import Connection

DOCUMENTS: Final = {Source.RIDES: Kind.RIDE_DOCUMENT, Source.MESSAGES: Kind.MESSAGE_DOCUMENT}


def begin(connection: Connection) -> None:
    """Make the tables of what changes in a load."""
    for source in FACTS:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE new_{source} (name VARCHAR)")


def take_documents(connection: Connection, kind: Kind, partition: int) -> None:
    """Put the newest staged documents of rides or messages in place of those that stand.

    In a partition the later one is newer, whatever clocks said; of two partitions (a ride that became another user's)
    the one that was computed later.
    """
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE winner AS
        WITH latest AS (
            SELECT name, max(seq) AS seq, max(received_at) AS reached_at, arg_max(deleted, seq) AS deleted,
                arg_max(body, seq) AS body
            FROM staged_documents WHERE kind = $kind GROUP BY name
        )
        SELECT l.name, l.seq, l.deleted, l.body, CASE WHEN t.partition = $partition
            THEN greatest(l.reached_at, t.reached_at) ELSE l.reached_at END AS reached_at
        FROM latest l LEFT JOIN meta.things t ON t.kind = $kind AND t.name = l.name
        WHERE t.name IS NULL OR t.partition = $partition
            OR (l.reached_at, $partition) > (t.reached_at, t.partition)
        """,
        {"kind": str(kind), "partition": partition},
    )
    connection.execute(
        "DELETE FROM meta.things WHERE kind = $kind AND name IN (SELECT name FROM winner)", {"kind": str(kind)}
    )
    connection.execute(
        "INSERT INTO meta.things SELECT $kind, name, $partition, seq, reached_at, deleted FROM winner",
        {"kind": str(kind), "partition": partition},
    )
    rides = kind == Kind.RIDE_DOCUMENT
    source = Source.RIDES if rides else Source.MESSAGES
    table, own, shape = TABLE_OF[source], KEY_OF[source], RIDE_SHAPE if rides else MESSAGE_SHAPE
    columns = RIDE_COLUMNS if rides else MESSAGE_COLUMNS
    values = ", ".join(f"{expression} AS {name}" for name, (_, expression) in columns.items())
    keys = f"{date_key('d.requested_at')} AS date_key, {ZONES}" if rides else f"{date_key('d.sent_at')} AS date_key"
    connection.execute(f"DELETE FROM {table} WHERE {own} IN (SELECT name FROM winner)")
    connection.execute(
        f"INSERT INTO {table} BY NAME SELECT name AS {own}, {keys}, {values} FROM ("
        f"SELECT name, json_transform(body, {text(shape)}) AS d FROM winner WHERE NOT deleted)"
    )
    connection.execute(f"INSERT INTO new_{source} SELECT name FROM winner")


def take_extras(connection: Connection, source: Source) -> None:
    """Keep of each staged ride or message the newest row, where it or an earlier one has columns of its own."""
    kind = text(str(KINDS[source]))
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE extra AS
        SELECT name, coalesce(epoch_ms(TRY_CAST(json_extract_string(body, '/updated_at') AS TIMESTAMP)), received_at)
            AS version_at, received_at, id, body
        FROM staged_rows WHERE kind = {kind} AND (
            name IN (SELECT name FROM meta.extras WHERE source = $source)
            OR name IN (SELECT name FROM staged_rows JOIN (
                    SELECT DISTINCT {pointer_of("field")} AS pointer FROM seen
                    WHERE source = $source AND field NOT IN (SELECT unnest($numbers)))
                ON json_exists(body, pointer) WHERE kind = {kind}))
        """,
        {"source": str(source), "numbers": list(NUMBERS[source])},
    )
    connection.execute(
        """
        INSERT INTO extra SELECT name, version_at, received_at, id, body FROM meta.extras
        WHERE source = $source AND name IN (SELECT name FROM extra)
        """,
        {"source": str(source)},
    )
    connection.execute(
        "DELETE FROM meta.extras WHERE source = $source AND name IN (SELECT name FROM extra)", {"source": str(source)}
    )
    connection.execute(
        """
        INSERT INTO meta.extras SELECT $source, name, version_at, received_at, id, body FROM extra
        QUALIFY row_number() OVER (PARTITION BY name ORDER BY version_at DESC, received_at DESC, id DESC) = 1
        """,
        {"source": str(source)},
    )
    connection.execute(f"INSERT INTO new_{source} SELECT name FROM extra")


def fill_extras(connection: Connection, source: Source, extras: list[Column]) -> None:
    """Bring the source's own columns of what changed up to date."""
    if not extras:
        return
    table, own = TABLE_OF[source], KEY_OF[source]
    assigned = ", ".join(f"{quoted(column.column)} = {value(column, 'x.body')}" for column in extras)
    connection.execute(
        f"UPDATE {table} SET {assigned} FROM meta.extras x WHERE x.source = {text(str(source))} AND x.name = {own} "
        f"AND {own} IN (SELECT name FROM new_{source})"
    )


def late_days(connection: Connection) -> list[int]:
    """Days (since the epoch) whose staged events are old enough to have been stored and forgotten before."""
    found = connection.execute("SELECT DISTINCT date FROM staged_events WHERE late ORDER BY date").fetchall()
    return [row[0].toordinal() - 719_163 for row in found]


def take_events(connection: Connection, partition: int) -> None:
    """Add the staged events to what is counted; each record once, however often it was stored."""
    connection.execute(
        """
        INSERT INTO meta.events
        SELECT $partition, date, kind, source, name, count(*) FROM (
            SELECT fingerprint, any_value(date) AS date, any_value(kind) AS kind, any_value(source) AS source,
                any_value(name) AS name FROM staged_events GROUP BY fingerprint
        ) GROUP BY date, kind, source, name
        """,
        {"partition": partition},
    )


def forget_days(connection: Connection, partition: int, days: list[int]) -> None:
    """Drop what is counted of some days of a partition."""
    connection.execute(
        f"DELETE FROM meta.events WHERE partition = $partition AND date IN {DAYS}",
        {"partition": partition, "days": days},
    )


def sum_events(connection: Connection) -> None:
    """Make the daily counts of events anew."""
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE summed AS
        SELECT partition, date, kind, source, name, sum(events)::BIGINT AS events FROM meta.events GROUP BY ALL;
        DELETE FROM meta.events;
        INSERT INTO meta.events SELECT * FROM summed;
        DELETE FROM fact_event_daily;
        INSERT INTO fact_event_daily
        SELECT {date_key("date")}, date, kind, source, name, sum(events)::BIGINT
        FROM summed GROUP BY date, kind, source, name ORDER BY date, kind, source, name
        """
    )
