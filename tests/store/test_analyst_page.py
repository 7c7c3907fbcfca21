"""The analyst's page: every question on it is one that the warehouse understands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import duckdb
import pytest

from rebu_ray.store.warehouse.schema import ddl

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "analyst.md"
QUESTIONS: Final = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_of_the_page_is_understood(question: str) -> None:
    with duckdb.connect() as connection:
        connection.execute(ddl())
        assert connection.execute(question).fetchall() == []


def test_the_page_asks_something() -> None:
    assert len(QUESTIONS) >= 8
