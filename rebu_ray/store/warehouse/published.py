"""Opening the published file, which may be replaced at any moment."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb


@contextlib.contextmanager
def alias(path: Path) -> Iterator[Path]:
    """Another name of what is published now, to open it by; what is open stays so without it.

    DuckDB knows open files by their names: within a process the published one's would lead to the file that was there
    when it was opened first. Raises FileNotFoundError.
    """
    name = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        try:
            os.link(path, name)
        except PermissionError:  # a disk without links
            shutil.copyfile(path, name)
        yield name
    finally:
        name.unlink(missing_ok=True)


def opened(path: Path, config: Mapping[str, str | bool | int | float | list[str]]) -> duckdb.DuckDBPyConnection:
    """A connection to what is published now, to read. Raises FileNotFoundError, duckdb.Error."""
    with alias(path) as name:
        return duckdb.connect(str(name), read_only=True, config=dict(config))
