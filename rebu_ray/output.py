"""What commands write: rows in a format, to a file that is whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from rebu_ray.settings import SettingsError

FORMATS: Final = ("json", "csv", "parquet", "arrow")

Form = Annotated[
    str | None, typer.Option("--format", help=f"{', '.join(FORMATS)}; else as the file is named, else json.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="File to write instead of standard output.")]


def table_format(form: str | None, out: Path | None, rows: str) -> str:
    """The format asked for, else the one that the file's name ends with, else JSON lines. `rows` is what they are.

    Raises SettingsError.
    """
    kind = form or (out.suffix[1:] if out is not None and out.suffix[1:] in FORMATS else "json")
    if kind not in FORMATS:
        raise SettingsError(f"--format is {kind!r}: it must be one of {', '.join(FORMATS)}")
    if out is None and kind in ("parquet", "arrow"):
        raise SettingsError(f"{kind} is nothing to read on a screen: name a file with -o {rows}.{kind}")
    if out is not None and not out.parent.is_dir():
        raise SettingsError(f"there is no folder {out.parent} to write to: make it, or name another file")
    return kind


@contextmanager
def whole(out: Path) -> Iterator[BinaryIO]:
    """A file under another name until the block ends well: what breaks off leaves no half a file behind."""
    part = out.with_name(f"{out.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
