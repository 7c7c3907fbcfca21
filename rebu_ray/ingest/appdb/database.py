"""The application database as the puller sees it: pages of rows and keys, and whether anything changed. Read only.

Every call blocks, and all calls come from one thread.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import psycopg
import sqlalchemy as sa
from psycopg.types.string import TextLoader
from sqlalchemy.engine import URL, make_url

from rebu_ray.ingest.appdb.triggers import CHANNEL
from rebu_ray.ingest.dialects.tables import SCHEMAS, Row
from rebu_ray.ingest.dialects.times import SECONDS_BELOW
from rebu_ray.records import Source
from rebu_ray.settings import SettingsError

DAY_MS: Final = 86_400_000
_JULIAN_EPOCH: Final = 2_440_587.5

Position = tuple[Any, ...]
"""The values of the ordering columns in the last row of a page."""


class Away(Exception):
    """The database cannot be asked now; the message says why and holds no password."""


class Unreadable(Exception):
    """One table cannot be read as it is; the message says why."""


class Shape(NamedTuple):
    """A table or view as it is in the database."""

    source: Source
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    """What names a row."""
    version: str | None
    """The column that says when a row changed last, if there is one."""
    version_type: str
    """timestamp, number or text"""
    has_xmin: bool
    """Whether each row tells the transaction that wrote it: a table of PostgreSQL does, a view does not."""


class Mark(NamedTuple):
    """The state of a database: another one is to be expected to hold other rows."""

    text: str
    oldest: int | None = None
    """PostgreSQL: every transaction before this one had ended."""
    next: int | None = None
    """PostgreSQL: no transaction from this one on had ended."""
    schema: str = ""
    """Another one is to be expected where tables have other columns."""


def database_url(text: str) -> str:
    """The URL of an application database in full. Raises SettingsError for one that cannot be used."""
    try:
        url = make_url(text)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise SettingsError(f"the URL of the application database is none: {_WANTED}") from error
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        if not url.database or url.database == ":memory:" or url.host:
            raise SettingsError(f"the URL of the application database names no file: {_WANTED}")
        return f"sqlite:///{Path(url.database).expanduser().absolute()}"
    raise SettingsError(f"the application database cannot be read through {url.drivername}: {_WANTED}")


_MARK: Final = """
    SELECT pg_current_snapshot()::text, (
        SELECT coalesce(md5(string_agg(
            concat_ws(' ', attrelid, attnum, attname, atttypid), ',' ORDER BY attrelid, attnum
        )), '')
        FROM pg_attribute JOIN unnest(%(tables)s::text[]) AS name ON attrelid = to_regclass(name)
        WHERE attnum > 0 AND NOT attisdropped
    )
"""
_WANTED: Final = "give postgresql://user:password@host/database or sqlite:////folder/app.sqlite"


class Database:
    """A connection that is made when it is needed. Methods raise Away, those about one table also Unreadable."""

    def __init__(self, url: str) -> None:
        """Raises SettingsError."""
        self._url = make_url(database_url(url))
        self.is_postgresql = self._url.drivername.startswith("postgresql")
        self._engine = _postgresql(self._url) if self.is_postgresql else _sqlite(str(self._url.database))
        self._connection: sa.Connection | None = None
        self._file = 0
        self._connections = 0

    def mark(self) -> Mark:
        """How far the database has come; costs next to nothing."""
        with self._asking() as connection:
            if self.is_postgresql:
                text, schema = connection.exec_driver_sql(_MARK, {"tables": [str(source) for source in SCHEMAS]}).one()
                oldest, following, _ = text.split(":")
                return Mark(text, int(oldest), int(following), schema)
            file = os.stat(str(self._url.database)).st_ino
            if self._file not in (0, file):
                self.close()
                raise Away("the file is another one now")
            self._file = file
            # The numbers mean something within a connection alone.
            data, schema = (
                f"{self._connections}:{connection.exec_driver_sql(f'PRAGMA {name}_version').scalar()}"
                for name in ("data", "schema")
            )
            return Mark(data, schema=schema)

    def wait(self, seconds: float) -> None:
        """Until something tells of a change, or for so long. Raises Away."""
        if not self.is_postgresql:
            time.sleep(seconds)
            return
        with self._asking() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            if any(True for _ in driver.notifies(timeout=seconds, stop_after=1)):
                for _ in driver.notifies(timeout=0):  # one look is enough for all that is known by now
                    pass

    def shapes(self) -> dict[Source, Shape]:
        """Those of the five tables that are there, and how they are made."""
        found = {}
        with self._asking() as connection:
            inspector = sa.inspect(connection)
            for source, table in SCHEMAS.items():
                try:
                    columns = {column["name"]: column["type"] for column in inspector.get_columns(str(source))}
                except sa.exc.NoSuchTableError:
                    continue
                version = table.version if table.version in columns else None
                keys = (table.key,) if table.version == "updated_at" else (table.key, table.version)
                if not set(keys) <= columns.keys():
                    continue
                found[source] = Shape(
                    source=source,
                    columns=tuple(columns),
                    keys=keys,
                    version=version,
                    version_type=self._type(columns.get(table.version)),
                    has_xmin=self.is_postgresql and _is_table(connection, source),
                )
        return found

    def by_version(self, shape: Shape, after: Position | None, floor: int | None, limit: int) -> list[Row]:
        """Rows by (version, key): those after a position, and from about `floor` (ms) on.

        Texts are compared as texts, which sorts mixed spellings wrongly. So the floor is one that every
        spelling keeps to: the day before, and of what that leaves only what is not certainly older.
        """
        order = version_order(shape)
        terms = [f"{_quoted(shape.keys[0])} IS NOT NULL", f"{_quoted(order[0])} IS NOT NULL"]
        values: dict[str, Any] = {}
        if floor is not None:
            version = _quoted(order[0])
            if shape.version_type == "timestamp":
                terms.append(f"{version} >= :floor")
                values["floor"] = _datetime(floor)
            elif shape.version_type == "number":
                terms.append(f"({version} >= :floor OR ({version} < {SECONDS_BELOW} AND {version} >= :seconds))")
                values |= {"floor": floor, "seconds": floor / 1000}
            else:
                terms.append(f"{version} >= :day")
                values["day"] = _datetime(floor - DAY_MS).date().isoformat()
                if not self.is_postgresql:
                    terms.append(f"coalesce(julianday({version}) >= :julian, 1)")
                    values["julian"] = (floor - 10) / DAY_MS + _JULIAN_EPOCH
        return self._page(shape, shape.columns, order, after, terms, values, limit)

    def by_key(self, shape: Shape, after: Position | None, limit: int, whole: bool) -> list[Row]:
        """Rows by key: whole ones, or only key and version."""
        columns = shape.columns if whole else tuple(dict.fromkeys((*shape.keys, *filter(None, [shape.version]))))
        return self._page(shape, columns, shape.keys, after, [f"{_quoted(shape.keys[0])} IS NOT NULL"], {}, limit)

    def written_since(self, shape: Shape, transaction: int, after: Position | None, limit: int) -> list[Row]:
        """Rows by key that were written by this transaction or a later one."""
        terms = [f"{_quoted(shape.keys[0])} IS NOT NULL", "age(xmin) <= age(CAST(:xid AS xid))"]
        values = {"xid": str(transaction % 2**32)}
        return self._page(shape, shape.columns, shape.keys, after, terms, values, limit)

    def named(self, shape: Shape, keys: list[Any]) -> list[Row]:
        """The rows with these keys (the first column's values)."""
        statement = sa.text(
            f"SELECT {_list(shape.columns)} FROM {_quoted(shape.source)} WHERE {_quoted(shape.keys[0])} IN :keys"
        ).bindparams(sa.bindparam("keys", expanding=True))
        return self._rows(statement, {"keys": keys})

    def nameless(self, shape: Shape, limit: int) -> list[Row]:
        """Rows without a key, which a view or SQLite may have."""
        statement = sa.text(
            f"SELECT {_list(shape.columns)} FROM {_quoted(shape.source)} WHERE {_quoted(shape.keys[0])} IS NULL "
            "LIMIT :limit"
        )
        return self._rows(statement, {"limit": limit})

    def count(self, shape: Shape) -> int:
        """How many rows there are."""
        with self._asking() as connection:
            return int(connection.execute(sa.text(f"SELECT count(*) FROM {_quoted(shape.source)}")).scalar_one())

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        self._file = 0
        if connection is not None:
            with contextlib.suppress(sa.exc.SQLAlchemyError):
                connection.invalidate()
                connection.close()

    def _page(
        self,
        shape: Shape,
        columns: tuple[str, ...],
        order: tuple[str, ...],
        after: Position | None,
        terms: list[str],
        values: dict[str, Any],
        limit: int,
    ) -> list[Row]:
        if after is not None:
            names = [f"after{number}" for number in range(len(order))]
            left, right = _list(order), ", ".join(f":{name}" for name in names)
            terms = [*terms, f"({left}) > ({right})" if len(order) > 1 else f"{left} > {right}"]
            values = {**values, **dict(zip(names, after, strict=True))}
        statement = sa.text(
            f"SELECT {_list(columns)} FROM {_quoted(shape.source)} WHERE {' AND '.join(terms)} "
            f"ORDER BY {_list(order)} LIMIT {limit}"
        )
        return self._rows(statement, values)

    def _rows(self, statement: sa.TextClause, values: Mapping[str, Any]) -> list[Row]:
        with self._asking() as connection:
            return [dict(row) for row in connection.execute(statement, values).mappings()]

    def _type(self, column: Any) -> str:
        if isinstance(column, sa.types.Integer | sa.types.Numeric):
            return "number"
        dated = isinstance(column, sa.types.DateTime | sa.types.Date)
        return "timestamp" if dated and self.is_postgresql else "text"

    @contextlib.contextmanager
    def _asking(self) -> Iterator[sa.Connection]:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
                self._connections += 1
            yield self._connection
        except (sa.exc.DBAPIError, psycopg.Error, sqlite3.Error) as error:
            reason = self._reason(error)
            if _is_about_the_table(error, reason):
                raise Unreadable(reason) from None
            self.close()
            # The driver's own words may hold the URL: they stay out of every traceback.
            raise Away(reason) from None
        except (OSError, sa.exc.SQLAlchemyError) as error:
            self.close()
            raise Away(self._reason(error)) from None

    def _reason(self, error: Exception) -> str:
        cause = getattr(error, "orig", None) or error
        said = str(cause).strip() or type(cause).__name__
        if self._url.password:
            said = said.replace(str(self._url.password), "***")
        return said.splitlines()[0][:300]


def _is_about_the_table(error: Exception, reason: str) -> bool:
    if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
        return False
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.Error):
        return reason.startswith(("no such ", "error in view"))
    return isinstance(cause, psycopg.ProgrammingError | psycopg.DataError | psycopg.NotSupportedError)


def version_order(shape: Shape) -> tuple[str, ...]:
    """The columns by which `Database.by_version` sorts: the version first, each column once."""
    assert shape.version is not None
    return (shape.version, *(key for key in shape.keys if key != shape.version))


def position(order: tuple[str, ...], row: Row) -> Position:
    """Where a page that ends with this row ends."""
    return tuple(row[name] for name in order)


def _datetime(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=max(0, ms))


def _quoted(name: str) -> str:
    """An identifier; colons would be taken for parameters."""
    return '"' + str(name).replace('"', '""').replace(":", "\\:") + '"'


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(map(_quoted, names))


def _is_table(connection: sa.Connection, source: Source) -> bool:
    kind = connection.execute(
        sa.text("SELECT relkind FROM pg_class WHERE oid = to_regclass(:name)"), {"name": _quoted(source)}
    ).scalar()
    return kind in ("r", "p", b"r", b"p")


def _sqlite(path: str) -> sa.Engine:
    def connect() -> sqlite3.Connection:
        # Read only: a file that is not there yet must not come to be.
        connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, check_same_thread=False, timeout=5)
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        return connection

    return sa.create_engine(
        "sqlite://", creator=connect, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True
    )


def _postgresql(url: URL) -> sa.Engine:
    engine = sa.create_engine(
        url,
        poolclass=sa.pool.NullPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        connect_args={
            "connect_timeout": 5,
            "prepare_threshold": None,
            "application_name": "rebu",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        },
    )

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: Any) -> None:
        # Times come as text: what no datetime can hold (infinity, before Christ) is one bad value, not a failure.
        for name in ("timestamptz", "timestamp", "date"):
            connection.adapters.register_loader(name, TextLoader)
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
            cursor.execute("SET datestyle TO ISO")
            cursor.execute("SET default_transaction_read_only TO on")
        connection.commit()
        try:
            connection.execute(f"LISTEN {CHANNEL}")
            connection.commit()
        except psycopg.Error:  # a standby takes no listeners: the poll has to do
            connection.rollback()

    return engine
