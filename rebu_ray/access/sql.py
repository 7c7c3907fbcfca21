"""POST /v1/sql: one statement that reads, over the published warehouse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import msgspec
import pyarrow as pa
from ray import serve
from ray.serve.exceptions import BackPressureError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rebu_ray import traces
from rebu_ray.access import query
from rebu_ray.access.measures import tell_in_background
from rebu_ray.access.sql_formats import MEDIA_TYPES, encoded
from rebu_ray.ingest.roles import SCARCELY, place
from rebu_ray.ingest.sizing import READER_CPUS
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.logs import SERVE_LOGS
from rebu_ray.records import BadRequest
from rebu_ray.settings import Role, Settings
from rebu_ray.store.warehouse.published import opened
from rebu_ray.store.warehouse.schema import quoted

log = logging.getLogger("rebu.sql")

MAX_STATEMENT: Final = 1_000_000
"""The longest body of a request, bytes."""
MAX_ANSWER: Final = 128 * 1024 * 1024
"""The most that an answer holds, bytes as Arrow has them."""
TRUNCATED: Final = "X-Rebu-Truncated"
"""The header that says whether there are more rows, where the body has no place for it."""
_BATCH_ROWS: Final = 10_000
_READS: Final = ("SELECT", "EXPLAIN")


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request."""

    sql: str
    format: str = "json"


class Answer(NamedTuple):
    """The rows of a statement, or why there are none."""

    data: bytes = b""
    truncated: bool = False
    status: int = 200
    code: str = ""
    message: str = ""


Run = Callable[[str, str], Awaitable[Answer]]
"""`SqlReader.run`."""


class Refused(Exception):
    """A statement that is not run, or did not end well."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class SqlReader:
    """Runs statements on the published warehouse, with limits on time, memory and rows."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.warehouse_file
        self._lock = threading.Lock()
        self._published: tuple[int, int] | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None

    async def run(self, sql: str, form: str) -> Answer:
        """The rows of one statement."""
        return await asyncio.to_thread(self.answer, sql, form)

    def answer(self, sql: str, form: str) -> Answer:
        """`run`, blocking."""
        try:
            with self._cursor() as cursor:
                _check(cursor, sql)
                names, batches, truncated = self._rows(cursor, sql)
                return Answer(encoded(form, names, batches, truncated), truncated)
        except Refused as refused:
            return Answer(status=refused.status, code=refused.code, message=str(refused))

    def _rows(self, cursor: duckdb.DuckDBPyConnection, sql: str) -> tuple[pa.Schema, list[pa.RecordBatch], bool]:
        settings = self._settings
        timer = threading.Timer(settings.sql_seconds, cursor.interrupt)
        timer.daemon = True
        timer.start()
        found: list[pa.RecordBatch] = []
        rows = size = 0
        truncated = False
        try:
            reader = _exact(cursor.sql(sql)).to_arrow_reader(_BATCH_ROWS)
            for batch in reader:
                found.append(batch.slice(0, settings.sql_rows - rows))
                rows, size = rows + batch.num_rows, size + batch.nbytes
                truncated = rows > settings.sql_rows or size > MAX_ANSWER
                if truncated:
                    break
            return reader.schema, found, truncated
        except duckdb.InterruptException as error:
            raise Refused(
                400, "sql_too_slow", f"the statement was stopped after {settings.sql_seconds:g} s: ask for less"
            ) from error
        except duckdb.OutOfMemoryException as error:
            raise Refused(
                400, "sql_too_large", f"the statement needs more than {settings.sql_bytes >> 20} MB: ask for less"
            ) from error
        except (duckdb.PermissionException, duckdb.NotImplementedException) as error:
            raise Refused(400, "sql_not_allowed", f"the warehouse alone can be read: {_said(error)}") from error
        except (duckdb.Error, pa.ArrowException) as error:
            raise Refused(400, "invalid_sql", _said(error)) from error
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to what is published now. Statements that are under way go on with what was."""
        try:
            state = os.stat(self._path)
        except FileNotFoundError as error:
            raise Refused(
                503,
                "no_warehouse",
                "no warehouse is loaded yet: `rebu warehouse load` does it now, and the platform by itself before long",
            ) from error
        with self._lock:
            published = state.st_ino, state.st_mtime_ns
            if self._connection is None or self._published != published:
                self._connection, self._published = _opened(self._path, self._settings.sql_bytes), published
            cursor = self._connection.cursor()
        try:
            yield cursor
        finally:
            cursor.close()


def _opened(path: Path, memory: int) -> duckdb.DuckDBPyConnection:
    """A connection with nothing but the published file in reach."""
    try:
        return opened(
            path,
            {
                "enable_external_access": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "python_enable_replacements": False,
                "memory_limit": f"{memory}B",
                "threads": 2,
                "temp_directory": "",
                "lock_configuration": True,
            },
        )
    except (duckdb.Error, OSError) as error:
        log.warning("the warehouse cannot be opened: %s", error)
        raise Refused(
            503, "warehouse_unavailable", f"the warehouse cannot be opened, does somebody write to it? {_said(error)}"
        ) from error


def _check(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raises Refused for what is not one statement that reads."""
    try:
        statements = cursor.extract_statements(sql)
    except duckdb.Error as error:
        raise Refused(400, "invalid_sql", _said(error)) from error
    if len(statements) != 1:
        raise Refused(400, "invalid_sql", f"send one statement, not {len(statements)}")
    kind = statements[0].type.name
    if kind == "MULTI":
        raise Refused(400, "sql_not_allowed", "this PIVOT is two statements: name its columns, with ON column IN (...)")
    if kind not in _READS:
        raise Refused(
            400, "sql_not_allowed", f"{kind} is not allowed: send SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW or EXPLAIN"
        )


def _exact(rows: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The same rows, with integers of 128 bits (sums are such) as decimals: Arrow would make floats of them."""
    kinds = [str(kind) for kind in rows.types]
    if not {"HUGEINT", "UHUGEINT"}.intersection(kinds):
        return rows
    return rows.project(
        ", ".join(
            f"CAST(#{n} AS DECIMAL(38, 0)) AS {quoted(name)}" if kind in ("HUGEINT", "UHUGEINT") else f"#{n}"
            for n, (name, kind) in enumerate(zip(rows.columns, kinds, strict=True), 1)
        )
    )


def _said(error: Exception) -> str:
    return str(error).strip()[:2000]


class ServedSqlReader(SqlReader):
    """A replica of it."""

    def __init__(self, settings: Settings) -> None:
        traces.begin(settings, "sql-reader")
        super().__init__(settings)
        tell_in_background("sql-reader")


def deployment(settings: Settings) -> serve.Application:
    """The Serve deployment that runs statements."""
    reader: Any = serve.deployment(ServedSqlReader)
    options = {"num_cpus": READER_CPUS, "resources": place(settings, Role.WAREHOUSE, SCARCELY)}
    bound: serve.Application = reader.options(
        name="SqlReader",
        ray_actor_options=options,
        max_ongoing_requests=8,
        max_queued_requests=64,
        max_surge_percent=100,
        logging_config=SERVE_LOGS,
    ).bind(settings)
    return bound


def routes(keys: Keys, run: Callable[[], Run]) -> list[Route]:
    """The route of statements."""

    async def sql(request: Request) -> Response:
        keys.check(presented_key(request.headers.get("authorization")), Scope.READ)
        query.known(request.query_params, ())
        asked = _asked(await request.body())
        try:
            answer = await run()(asked.sql, asked.format)
        except BackPressureError as error:
            raise BadRequest(429, "overloaded", "too many statements at once: ask again soon", 2) from error
        if answer.status != 200:
            raise BadRequest(answer.status, answer.code, answer.message, 10 if answer.status == 503 else None)
        headers = {} if asked.format == "json" else {TRUNCATED: "true" if answer.truncated else "false"}
        return Response(answer.data, media_type=MEDIA_TYPES[asked.format], headers=headers)

    return [Route("/v1/sql", sql, methods=["POST"])]


def _asked(body: bytes) -> Asked:
    if len(body) > MAX_STATEMENT:
        raise BadRequest(413, "too_large", f"a statement may have {MAX_STATEMENT:,} bytes")
    try:
        asked = msgspec.json.decode(body, type=Asked)
    except msgspec.DecodeError as error:
        raise BadRequest(400, "invalid_json", f'send {{"sql": "SELECT ...", "format": "json"}}: {error}') from error
    if asked.format not in MEDIA_TYPES:
        known = ", ".join(MEDIA_TYPES)
        raise BadRequest(400, "invalid_format", f"format is {asked.format!r}: it must be one of {known}")
    return asked
