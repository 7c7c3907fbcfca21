"""The source's own columns: those that nobody knows by name, and whether values are still of the type they were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from rebu_ray.records import Source
from rebu_ray.store.warehouse.schema import (
    KEY_OF,
    KINDS,
    KNOWN,
    NUMBERS,
    TABLE_OF,
    SchemaChange,
    pointer,
    pointer_of,
    quoted,
    text,
)
from rebu_ray.store.warehouse.staging import Connection

_FAMILY: Final = {"BOOLEAN": "BOOLEAN", "BIGINT": "BIGINT", "UBIGINT": "BIGINT", "DOUBLE": "DOUBLE"}
"""What JSON's types are kept as; all others are text."""
_NUMBER: Final = ("BIGINT", "DOUBLE")


class Column(NamedTuple):
    """A field of a row's JSON, and the column that it fills."""

    field: str
    column: str
    type: str


class Seen(NamedTuple):
    """How many new rows have a value of a type in a field, and one of them."""

    field: str
    type: str
    rows: int
    example: str


def value(column: Column, body: str = "body") -> str:
    """The expression for a column's value in a row; null where it is of another type."""
    return f"TRY_CAST(json_extract_string({body}, {text(pointer(column.field))}) AS {column.type})"


def begin(connection: Connection) -> None:
    """Make the tables in which a load gathers what the new rows look like."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE seen (source VARCHAR, field VARCHAR, type VARCHAR, rows BIGINT, example VARCHAR)"
    )
    connection.execute("CREATE OR REPLACE TEMP TABLE arrived (source VARCHAR, rows BIGINT)")
    for source in KINDS:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE changed_{source} (name VARCHAR)")


def look(connection: Connection, source: Source) -> None:
    """Note which types the staged rows of a table have in which fields."""
    kind, known = text(str(KINDS[source])), KNOWN[source]
    live = f"(SELECT * FROM staged_rows WHERE kind = {kind} AND json_extract(body, '/deleted') IS DISTINCT FROM 'true')"
    named = text(str(source))
    connection.execute(f"INSERT INTO arrived SELECT {named}, count(*) FROM {live}")
    numbers = NUMBERS[source]
    if numbers:
        fields, paths = ([text(f(n)) for n in numbers] for f in (str, pointer))
        connection.execute(
            f"""
            INSERT INTO seen SELECT {named}, field, type, count(*), any_value(name) FROM (
                SELECT name, unnest([{", ".join(fields)}]) AS field,
                    unnest(json_type(body, [{", ".join(paths)}])) AS type FROM {live}
            ) WHERE type IS NOT NULL AND type <> 'NULL' GROUP BY field, type
            """
        )
    listed = ", ".join(map(text, known))
    connection.execute(
        f"""
        INSERT INTO seen SELECT {named}, field, type, count(*), any_value(name) FROM (
            SELECT name, field,
                json_type(body, {pointer_of("field")}) AS type
            FROM (SELECT name, body, unnest(json_keys(body)) AS field FROM {live}
                WHERE len(json_keys(body)) > {len(known)})
            WHERE field NOT IN ({listed})
        ) GROUP BY field, type
        """
    )


def settle(connection: Connection, notes: list[str], *, anew: bool) -> dict[Source, list[Column]]:
    """Compare what came with the columns that there are; those of each table that nobody knows by name.

    A new one is added, one that is gone is kept. Raises SchemaChange for a type that changed; where everything is made
    `anew` nothing was there before, and a column gets the type that holds all that is in it.
    """
    return {source: _settle(connection, source, notes, anew) for source in KINDS}


def _settle(connection: Connection, source: Source, notes: list[str], anew: bool) -> list[Column]:
    rows = connection.execute(
        "SELECT field, type, sum(rows)::BIGINT, any_value(example) FROM seen WHERE source = $source "
        "GROUP BY field, type ORDER BY field, type",
        {"source": str(source)},
    ).fetchall()
    types: defaultdict[str, list[Seen]] = defaultdict(list)
    for row in rows:
        types[row[0]].append(Seen(*row))
    for field in NUMBERS[source]:
        _check_number(source, field, types.pop(field, []), notes, anew)
    columns = {
        row[0]: Column(*row)
        for row in connection.execute(
            'SELECT field, "column", type FROM meta.columns WHERE source = $source ORDER BY rowid',
            {"source": str(source)},
        ).fetchall()
    }
    arrived = connection.execute(
        "SELECT sum(rows) FROM arrived WHERE source = $source", {"source": str(source)}
    ).fetchone()
    if arrived is not None and arrived[0]:
        notes += [
            f"{source}.{field} is in none of {arrived[0]:,} new rows: if it was removed from the source, "
            f"{TABLE_OF[source]}.{columns[field].column} is kept, null from now on"
            for field in sorted(columns.keys() - types.keys())
        ]
    for field, seen in types.items():
        columns[field] = _column(connection, source, field, seen, columns.get(field), notes)
    return list(columns.values())


def _check_number(source: Source, field: str, seen: list[Seen], notes: list[str], anew: bool) -> None:
    wrong = [one for one in seen if _FAMILY.get(one.type) not in _NUMBER]
    if not wrong:
        return
    rows = sum(one.rows for one in wrong)
    if len(wrong) == len(seen) and not anew:
        raise SchemaChange(
            f"{source}.{field} is a number, and none of the {rows:,} new rows has one there (see {KEY_OF[source]} "
            f"{wrong[0].example!r}): nothing was loaded. Give the column its type back, or a view with "
            f"CAST({field} AS NUMERIC) in place of the table, and load again"
        )
    notes.append(f"{source}.{field}: {rows:,} new rows have no number there (see {wrong[0].example!r}): null")


def _column(
    connection: Connection, source: Source, field: str, seen: list[Seen], before: Column | None, notes: list[str]
) -> Column:
    kind = _common(one.type for one in seen)
    table = TABLE_OF[source]
    if before is None:
        column = Column(field, _name(connection, table, field), kind or "VARCHAR")
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(column.column)} {column.type}")
        connection.execute("INSERT INTO meta.columns VALUES (?, ?, ?, ?)", [str(source), *column])
        notes.append(f"{source}.{field} is new: {table}.{column.column} {column.type} was added, null in earlier rows")
        return column
    if kind in (None, before.type) or (kind, before.type) == ("BIGINT", "DOUBLE"):
        return before
    if (before.type, kind) != ("BIGINT", "DOUBLE"):
        example = next(one.example for one in seen if _FAMILY.get(one.type, "VARCHAR") != before.type)
        raise SchemaChange(
            f"{source}.{field} was {before.type} and now has values of type {kind} (see {KEY_OF[source]} "
            f"{example!r}): nothing was loaded. Give the column its type back or another name in the source, or take "
            "it as it is with `rebu warehouse load --rebuild`, which makes every table anew"
        )
    connection.execute(f"ALTER TABLE {table} ALTER {quoted(before.column)} TYPE {kind}")
    connection.execute("UPDATE meta.columns SET type = ? WHERE source = ? AND field = ?", [kind, str(source), field])
    notes.append(f"{source}.{field} has values of type {kind} now: {table}.{before.column} became {kind}")
    return before._replace(type=kind)


def _common(types: Iterable[str]) -> str | None:
    """The type that holds values of all of these; None where all are null."""
    found = {_FAMILY.get(one, "VARCHAR") for one in types if one != "NULL"}
    if not found:
        return None
    if len(found) == 1:
        return found.pop()
    return "DOUBLE" if found <= set(_NUMBER) else "VARCHAR"


def _name(connection: Connection, table: str, field: str) -> str:
    """A name for a field's column that no other column of the table has."""
    taken = {
        row[0].casefold()
        for row in connection.execute(
            "SELECT column_name FROM duckdb_columns() WHERE table_name = $table AND schema_name = 'main'",
            {"table": table},
        ).fetchall()
    }
    name = field if field.casefold() not in taken else f"source_{field}"
    number = 2
    while name.casefold() in taken or not name:
        name, number = f"source_{field}_{number}", number + 1
    return name
