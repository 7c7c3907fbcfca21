"""What stays fixed for the life of a data directory: its id, its number of partitions, its format."""

from __future__ import annotations

import uuid
from typing import Final

import msgspec
import pyarrow.fs as pafs

from rebu_ray.store.versions import read

FORMAT: Final = 1
NAME: Final = "rebu.json"


class LayoutError(Exception):
    """The data directory was written by a version that this one does not understand."""


class Layout(msgspec.Struct, frozen=True):
    """The fixed facts of a platform's data, kept at the root of its lake."""

    platform_id: str
    partitions: int
    format: int = FORMAT


def open_layout(lake_uri: str, partitions: int) -> Layout:
    """The layout of a lake; a new lake gets one with this many partitions. Raises LayoutError for a newer format."""
    layout = known_layout(lake_uri)
    if layout is None:
        fs, root = _place(lake_uri)
        fs.create_dir(root, recursive=True)
        layout = Layout(str(uuid.uuid4()), partitions)
        with fs.open_output_stream(f"{root}/{NAME}.new") as out:
            out.write(msgspec.json.encode(layout))
        fs.move(f"{root}/{NAME}.new", f"{root}/{NAME}")
    return layout


def known_layout(lake_uri: str) -> Layout | None:
    """The layout of a lake, None where there is none yet. Raises LayoutError for a newer format."""
    fs, root = _place(lake_uri)
    path = f"{root}/{NAME}"
    if fs.get_file_info(path).type == pafs.FileType.NotFound:
        return None
    with fs.open_input_stream(path) as file:
        return read(file.read(), Layout, FORMAT, f"the lake at {lake_uri}", LayoutError)


def _place(lake_uri: str) -> tuple[pafs.FileSystem, str]:
    fs, root = pafs.FileSystem.from_uri(lake_uri) if "://" in lake_uri else (pafs.LocalFileSystem(), lake_uri)
    return fs, str(root)
