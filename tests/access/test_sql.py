"""Statements over the warehouse: what is read, what is refused and why, and limits."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from rebu_ray.access.sql import SqlReader
from rebu_ray.settings import Settings
from tests.records import NOW
from tests.ride_documents import Rides, Said
from tests.store.warehouses import House, user

EVERYTHING = """
    SELECT 1 AS a, 2 AS a, 17014118346046923173168730371588410572::HUGEINT AS huge, sum(3) AS three,
        1.5::DECIMAL(9, 2) AS fare,
        'nan'::DOUBLE AS nan, TIMESTAMP '2026-03-01 08:00:00.5' AS at, DATE '2026-03-01' AS day, INTERVAL 1 DAY AS i,
        {'k': [1, NULL]} AS nested, 'é🚕' AS text, NULL AS nothing, true AS truth
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made, rides = House(tmp_path_factory.mktemp("house")), Rides()
    made.write(user("ada", NOW, name="Ada"), *(rides.computed(Said(f"r{n}")) for n in range(20)))
    made.load()
    yield made
    made.close()


def reader(path: Path, **limits: Any) -> SqlReader:
    return SqlReader(Settings(warehouse=str(path), **limits))


def items(found: SqlReader, statement: str) -> list[dict[str, Any]]:
    answer = found.answer(statement, "json")
    assert answer.status == 200, answer.message
    rows: list[dict[str, Any]] = json.loads(answer.data)["items"]
    return rows


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) AS n FROM fact_ride",
        "FROM (SELECT count(*) AS n FROM fact_ride);",
        "WITH rides AS (FROM fact_ride) SELECT count(*) AS n FROM rides -- all of them",
        "VALUES (20)",
    ],
)
def test_a_statement_that_reads_is_answered(house: House, statement: str) -> None:
    [row] = items(reader(house.path), statement)
    assert list(row.values()) == [20]


@pytest.mark.parametrize("statement", ["DESCRIBE fact_ride", "SHOW TABLES", "SUMMARIZE dim_user", "EXPLAIN SELECT 1"])
def test_the_schema_can_be_asked_for(house: House, statement: str) -> None:
    assert items(reader(house.path), statement)


@pytest.mark.parametrize(
    ("statement", "code", "said"),
    [
        ("", "invalid_sql", "one statement, not 0"),
        ("SELECT 1; SELECT 2", "invalid_sql", "one statement, not 2"),
        ("SELEC 1", "invalid_sql", "syntax error"),
        ("SELECT citty FROM fact_ride", "invalid_sql", "city"),
        ("FROM fact_rides", "invalid_sql", "fact_ride"),
        ("SELECT 'x'::INTEGER", "invalid_sql", "convert"),
        ("DROP TABLE fact_ride", "sql_not_allowed", "SELECT"),
        ("DELETE FROM fact_ride", "sql_not_allowed", "DELETE"),
        ("INSERT INTO dim_user SELECT * FROM dim_user", "sql_not_allowed", "INSERT"),
        ("CREATE TEMP TABLE t AS SELECT 1", "sql_not_allowed", "CREATE"),
        ("SET memory_limit = '9GB'", "sql_not_allowed", "SET"),
        ("PRAGMA database_list", "sql_not_allowed", "PRAGMA"),
        ("ATTACH '/tmp/other.duckdb'", "sql_not_allowed", "ATTACH"),
        ("COPY fact_ride TO '/tmp/rides.csv'", "sql_not_allowed", "COPY"),
        ("INSTALL httpfs", "sql_not_allowed", "LOAD"),
        ("CALL pragma_version()", "sql_not_allowed", "CALL"),
        ("EXPLAIN ANALYZE DELETE FROM fact_ride", "invalid_sql", "read-only"),
        ("FROM read_csv('/etc/passwd')", "sql_not_allowed", "disabled"),
        ("FROM read_text('/etc/passwd')", "sql_not_allowed", "disabled"),
        ("FROM glob('/etc/*')", "sql_not_allowed", "disabled"),
        ("FROM '/etc/passwd'", "invalid_sql", "does not exist"),
        ("FROM 'https://example.org/x.parquet'", "sql_not_allowed", ""),
        ("PIVOT fact_ride ON city USING count(*)", "sql_not_allowed", "ON column IN"),
        ("FROM house", "invalid_sql", "does not exist"),
    ],
)
def test_what_is_refused_says_why(house: House, statement: str, code: str, said: str) -> None:
    answer = reader(house.path).answer(statement, "json")
    assert (answer.status, answer.code) == (400, code), answer.message
    assert said in answer.message


def test_limits_on_time_memory_and_rows(house: House) -> None:
    slow = reader(house.path, sql_seconds=0.2).answer("SELECT count(*) FROM range(1000000000000)", "json")
    assert (slow.status, slow.code) == (400, "sql_too_slow")
    large = reader(house.path, sql_bytes=64 << 20).answer("SELECT list(range) FROM range(100000000)", "json")
    assert (large.status, large.code) == (400, "sql_too_large")
    few = reader(house.path, sql_rows=7)
    for rows, shown, truncated in ((6, 6, False), (7, 7, False), (8, 7, True), (1_000_000, 7, True)):
        answer = few.answer(f"FROM range({rows})", "json")
        found = json.loads(answer.data)
        assert (len(found["items"]), found["truncated"], answer.truncated) == (shown, truncated, truncated)
    # What was refused took nothing away from the next one.
    assert items(few, "SELECT 1 AS a") == [{"a": 1}]


def test_every_type_has_a_form_in_every_format(house: House) -> None:
    found = reader(house.path)
    [row] = items(found, EVERYTHING)
    assert row == {
        "a": 1,
        "a_1": 2,
        "huge": "17014118346046923173168730371588410572",
        "three": 3,
        "fare": 1.5,
        "nan": None,
        "at": "2026-03-01T08:00:00.500Z",
        "day": "2026-03-01",
        "i": "0 months 1 days 0 seconds",
        "nested": {"k": [1, None]},
        "text": "é🚕",
        "nothing": None,
        "truth": True,
    }
    table = pacsv.read_csv(io.BytesIO(found.answer(EVERYTHING, "csv").data))
    assert table.column_names == list(row)
    assert table["nested"].to_pylist() == ['{"k": [1, null]}']
    table = pq.read_table(io.BytesIO(found.answer(EVERYTHING, "parquet").data))
    assert table["at"].to_pylist()[0].isoformat() == "2026-03-01T08:00:00.500000"
    table = pa.ipc.open_stream(found.answer(EVERYTHING, "arrow").data).read_all()
    assert table["nested"].to_pylist() == [{"k": [1, None]}]
    for form in ("csv", "parquet", "arrow"):
        assert found.answer("SELECT * FROM fact_ride", form).status == 200


def test_before_the_first_load_the_answer_says_what_to_do(tmp_path: Path) -> None:
    answer = reader(tmp_path / "none.duckdb").answer("SELECT 1", "json")
    assert (answer.status, answer.code) == (503, "no_warehouse")
    assert "rebu warehouse load" in answer.message
    (tmp_path / "none.duckdb").write_bytes(b"no database" * 1000)
    answer = reader(tmp_path / "none.duckdb").answer("SELECT 1", "json")
    assert (answer.status, answer.code) == (503, "warehouse_unavailable")
    assert [path.name for path in tmp_path.iterdir()] == ["none.duckdb"]


def test_a_statement_sees_what_was_published_last(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.write(user("ada", NOW))
    house.load()
    found = reader(house.path)
    assert items(found, "SELECT count(*) AS n FROM dim_user") == [{"n": 1}]
    for number in range(3):
        house.write(user(f"u{number}", NOW))
        house.load()
        assert items(found, "SELECT count(*) AS n FROM dim_user") == [{"n": number + 2}]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    house.close()
