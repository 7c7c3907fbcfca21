"""Opening the published file, which may be replaced at any moment."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import duckdb

LEFT_SECONDS: Final = 600.0
"""How old a name is of which nobody is taken to be at work any more."""


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


def sweep(path: Path) -> None:
    """Remove names of published files, and what was spilled beside them, that somebody who was killed left behind.

    They have the bytes of people who were erased since.
    """
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{32}}(\.tmp)?|{re.escape(path.name)}\.verify\.tmp")
    before = time.time() - LEFT_SECONDS
    for name in [entry for entry in path.parent.iterdir() if ours.fullmatch(entry.name)]:
        with contextlib.suppress(FileNotFoundError):  # its owner was quicker
            if _touched(name) < before:
                if name.is_dir():
                    shutil.rmtree(name)
                else:
                    name.unlink()


def _touched(name: Path) -> float:
    """When something was last done with a file or what is in a folder: the content of a new link may be old."""
    parts = [name, *name.iterdir()] if name.is_dir() else [name]
    return max(part.lstat().st_ctime for part in parts)
