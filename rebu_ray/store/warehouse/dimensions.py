"""Dimensions of type 2: of each person every version, each valid until the next one begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rebu_ray.records import Source
from rebu_ray.store.warehouse.schema import DRIVER_COLUMNS, KEY_OF, TABLE_OF, USER_COLUMNS, quoted, text, zone_key
from rebu_ray.store.warehouse.source import Column, value
from rebu_ray.store.warehouse.staging import Connection

PEOPLE: Final[Mapping[Source, Mapping[str, str]]] = {Source.USERS: USER_COLUMNS, Source.DRIVERS: DRIVER_COLUMNS}
KEYS: Final = {Source.USERS: "user_key", Source.DRIVERS: "driver_key"}


def take_versions(connection: Connection, source: Source, kind: str) -> None:
    """Add the staged versions of people to those that are known; a version that is known is the same again."""
    connection.execute(
        """
        INSERT INTO meta.versions
        SELECT $source, name, id, event_time, received_at, seq,
            coalesce(json_extract(body, '/deleted') = 'true', false), body
        FROM staged_rows s WHERE kind = $kind AND NOT EXISTS (
            SELECT 1 FROM meta.versions v WHERE v.source = $source AND v.name = s.name AND v.id = s.id)
        QUALIFY row_number() OVER (PARTITION BY name, id ORDER BY seq) = 1
        """,
        {"source": str(source), "kind": kind},
    )
    connection.execute(
        f"INSERT INTO changed_{source} SELECT DISTINCT name FROM staged_rows WHERE kind = $kind", {"kind": kind}
    )


def rebuild_people(connection: Connection, source: Source, extras: list[Column]) -> None:
    """Make the rows of everybody in ``changed_SOURCE`` anew."""
    table, key, natural = TABLE_OF[source], KEYS[source], KEY_OF[source]
    columns = [Column(name, name, kind) for name, kind in PEOPLE[source].items()] + extras
    values = ", ".join(f"{value(column, 'w_body')} AS {quoted(column.column)}" for column in columns)
    created = value(Column("created_at", "created_at", "TIMESTAMP"), "w_body")
    connection.execute(f"DELETE FROM {table} WHERE {natural} IN (SELECT name FROM changed_{source})")
    # Of two versions of one instant the one that came last counts. A deletion ends the version before it; where the
    # person came back the time in between is a row of its own, so that there is no gap.
    connection.execute(
        f"""
        INSERT INTO {table} BY NAME
        WITH known AS (
            SELECT name AS w_name, version_at AS w_at, deleted AS w_deleted, body AS w_body FROM meta.versions
            WHERE source = {text(str(source))} AND name IN (SELECT name FROM changed_{source})
            QUALIFY row_number() OVER (PARTITION BY name, version_at ORDER BY received_at DESC, id DESC) = 1
        ), placed AS (
            SELECT *, lead(w_at) OVER later AS w_next,
                coalesce(bool_or(NOT w_deleted) OVER (later ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false)
                    AS w_earlier,
                coalesce(bool_or(NOT w_deleted) OVER (later ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING), false)
                    AS w_later
            FROM known WINDOW later AS (PARTITION BY w_name ORDER BY w_at)
        )
        SELECT md5_number_lower(w_name || chr(31) || w_at) AS {key}, w_name AS {natural}, {values},
            CASE WHEN w_earlier THEN make_timestamp_ms(w_at)
                ELSE least(make_timestamp_ms(w_at), coalesce({created}, make_timestamp_ms(w_at))) END AS valid_from,
            make_timestamp_ms(w_next) AS valid_to, w_next IS NULL AS is_current, w_deleted AS is_deleted
        FROM placed
        WHERE NOT w_deleted OR (w_earlier AND w_later)
        """
    )


def resolve(connection: Connection, source: Source, facts: Source, time: str) -> None:
    """Point facts at the version of their person that was valid at their time, else at the first one.

    Those in ``new_FACTS``, and all of people who have changed.
    """
    table, key, natural = TABLE_OF[source], KEYS[source], KEY_OF[source]
    fact, own = TABLE_OF[facts], KEY_OF[facts]
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE resolved AS
        WITH wanted AS (
            SELECT {own} AS own, {natural} AS person, coalesce({time}, TIMESTAMP '1970-01-01') AS moment FROM {fact}
            WHERE {natural} IN (SELECT name FROM changed_{source})
                OR ({natural} IS NOT NULL AND {own} IN (SELECT name FROM new_{facts}))
        ), begun AS (
            SELECT *, CASE WHEN row_number() OVER (PARTITION BY {natural} ORDER BY valid_from) = 1
                THEN TIMESTAMP '0001-01-01' ELSE valid_from END AS begins
            FROM {table} WHERE {natural} IN (SELECT person FROM wanted)
        )
        SELECT own, {key} AS key FROM wanted ASOF LEFT JOIN begun ON person = {natural} AND moment >= begins
        """
    )
    connection.execute(
        f"UPDATE {fact} SET {key} = resolved.key FROM resolved "
        f"WHERE {own} = own AND {fact}.{key} IS DISTINCT FROM resolved.key"
    )


def rebuild_places(connection: Connection) -> None:
    """Make the days and the zones anew: all that a fact names, and days without a gap."""
    connection.execute(
        """
        DELETE FROM dim_date;
        INSERT INTO dim_date
        WITH named AS (
            SELECT DISTINCT requested_at::DATE AS date FROM fact_ride WHERE requested_at IS NOT NULL
            UNION SELECT sent_at::DATE FROM fact_message WHERE sent_at IS NOT NULL
            UNION SELECT date FROM fact_event_daily
        ), usual AS (
            SELECT min(date) AS low, max(date) AS high FROM named WHERE year(date) BETWEEN 2000 AND 2100
        ), every AS (
            SELECT date FROM named
            UNION
            SELECT unnest(generate_series(date_trunc('year', low), make_date(year(high), 12, 31), INTERVAL 1 DAY))::DATE
            FROM usual WHERE low IS NOT NULL
        )
        SELECT (year(date) * 10000 + month(date) * 100 + day(date))::INTEGER, date, year(date), quarter(date),
            month(date), monthname(date), day(date), week(date), isodow(date), dayname(date), isodow(date) >= 6
        FROM every ORDER BY date
        """
    )
    cells = " UNION ALL ".join(
        f"SELECT {place}_zone_key AS zone_key, {place}_lat AS lat, {place}_lon AS lon, city FROM fact_ride"
        for place in ("pickup", "destination", "dropoff")
    )
    connection.execute(
        f"""
        DELETE FROM dim_zone;
        INSERT INTO dim_zone
        WITH counted AS (
            SELECT zone_key, any_value(lat) AS lat, any_value(lon) AS lon, city, count(*) AS rides
            FROM ({cells}) WHERE zone_key IS NOT NULL GROUP BY zone_key, city
        ), zones AS (
            SELECT zone_key, zone_key // 36000 / 100 - 90 AS south, zone_key % 36000 / 100 - 180 AS west,
                arg_max(city, (rides, city)) AS city
            FROM counted GROUP BY zone_key
        )
        SELECT zone_key, printf('%.2f,%.2f', south, west), city, round(south, 2), round(west, 2),
            round(south + 0.01, 2), round(west + 0.01, 2)
        FROM zones ORDER BY zone_key
        """
    )


ZONES: Final = ", ".join(
    f"{zone_key(f'd.{place}.lat', f'd.{place}.lon')} AS {place}_zone_key"
    for place in ("pickup", "destination", "dropoff")
)
