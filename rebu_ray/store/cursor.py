"""Cursors: small named values that say how far something has come. Replaced whole, never half."""

from __future__ import annotations

import os
from typing import Final

import pyarrow.fs as pafs

from rebu_ray.store.files import opened, sync

FORMAT: Final = 1
"""Of everything that is saved as a cursor: maps, which carry it as `v` or `format`."""
NEW: Final = ".new"


class Cursors:
    """Values of a few kilobytes below a folder or a `pyarrow.fs` URI. A name may have slashes in it.

    Every call blocks. One owner a name: two who save under one name at once overwrite each other.
    """

    def __init__(self, uri: str) -> None:
        self._fs, self._root, self._local = opened(uri)

    def load(self, name: str) -> bytes | None:
        """What was saved last under a name, None where nothing was. Raises OSError where it cannot be read."""
        try:
            with self._fs.open_input_stream(self._path(name)) as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def save(self, name: str, data: bytes) -> None:
        """Replace a value. It is durable when this returns. Raises OSError where it cannot be written."""
        path = self._path(name)
        folder = path.rpartition("/")[0]
        if not self._local:
            # An object appears whole when its stream is closed, and is durable then.
            self._fs.create_dir(folder, recursive=True)
            with self._fs.open_output_stream(path) as out:
                out.write(data)
            return
        if not os.path.isdir(folder):
            os.makedirs(folder)
            sync(os.path.dirname(folder) or ".")
        with open(path + NEW, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + NEW, path)
        sync(folder)

    def names(self, folder: str) -> list[str]:
        """What was saved below ``FOLDER/``, or at the top where that is empty, without that; nothing where there is
        no such folder.
        """
        selector = pafs.FileSelector(f"{self._root}/{folder}".rstrip("/"), allow_not_found=True)
        found = (info.base_name for info in self._fs.get_file_info(selector) if info.is_file)
        return sorted(name for name in found if not name.endswith(NEW))

    def remove(self, name: str) -> None:
        """Forget a value; nothing happens where there is none."""
        try:
            self._fs.delete_file(self._path(name))
        except FileNotFoundError:
            return

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
