"""What stays fixed for the life of a data directory: its id, its number of partitions, its format."""

from __future__ import annotations

import uuid
from typing import Final

import msgspec
import pyarrow.fs as pafs

FORMAT: Final = 1
_NAME: Final = "rebu.json"


class LayoutError(Exception):
    """The data directory was written by a version that this one does not understand."""


class Layout(msgspec.Struct, frozen=True):
    """The fixed facts of a platform's data, kept at the root of its lake."""

    platform_id: str
    partitions: int
    format: int = FORMAT


def open_layout(lake_uri: str, partitions: int) -> Layout:
    """The layout of a lake; a new lake gets one with this many partitions. Raises LayoutError for another format."""
    fs, root = pafs.FileSystem.from_uri(lake_uri) if "://" in lake_uri else (pafs.LocalFileSystem(), lake_uri)
    fs.create_dir(root, recursive=True)
    path = f"{root}/{_NAME}"
    if fs.get_file_info(path).type == pafs.FileType.NotFound:
        layout = Layout(str(uuid.uuid4()), partitions)
        with fs.open_output_stream(path + ".new") as out:
            out.write(msgspec.json.encode(layout))
        fs.move(path + ".new", path)
        return layout
    with fs.open_input_stream(path) as file:
        layout = msgspec.json.decode(file.read(), type=Layout)
    if layout.format != FORMAT:
        raise LayoutError(f"{lake_uri} has format {layout.format}; this version of Rebu reads format {FORMAT}")
    return layout
