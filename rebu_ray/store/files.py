"""Files below a folder or a `pyarrow.fs` URI, and what makes local ones durable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pyarrow.fs as pafs


class Opened(NamedTuple):
    """A filesystem, and where in it a place is."""

    fs: pafs.FileSystem
    root: str
    local: bool


def opened(uri: str) -> Opened:
    """The filesystem of a folder or URI."""
    if "://" not in uri or uri.startswith("file://"):
        return Opened(pafs.LocalFileSystem(), uri.removeprefix("file://"), True)
    fs, root = pafs.FileSystem.from_uri(uri)
    return Opened(fs, root, False)


def sync(path: str | Path) -> None:
    """Have a local file's content, or what a folder lists, on the disk itself."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
