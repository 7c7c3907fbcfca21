"""Sending files to a running platform: line by line, in batches that may be sent again at any time."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import xxhash
import zstandard

from rebu_ray.client import Rebu
from rebu_ray.records import MAX_RECORD_BYTES, Source

BATCH_LINES: Final = 2000
BATCH_BYTES: Final = 1024 * 1024
VERDICTS: Final = ("accepted", "duplicate", "rejected", "suppressed")
FILE_SOURCES: Final = (Source.APP_EVENTS, Source.APP_ERRORS, Source.ACCESS, Source.ERROR)


class NotAFile(Exception):
    """A file cannot be sent; the message says why."""


def send_file(client: Rebu, path: Path, source: Source, progress: Callable[[int], None]) -> Counter[str]:
    """Send a plain, .gz or .zst file; counts of accepted, duplicate and rejected records.

    A line's id comes from the file (its name and first line) and the line's number where the line brings none, so a
    file that is sent again, or has grown, adds only what is new. `progress` is told of bytes read from disk.
    Raises NotAFile, RebuError or httpx.TransportError.
    """
    counts: Counter[str] = Counter()
    if not path.is_file():
        raise NotAFile(f"{path} is no file")
    kind = "text/plain" if source in (Source.ACCESS, Source.ERROR) else "application/x-ndjson"
    done = 0
    with path.open("rb") as disk:
        producer = None
        try:
            for first, lines in _batches(_plain(path, disk)):
                if producer is None:
                    producer = f"file-{xxhash.xxh3_64_hexdigest(path.name.encode() + lines[0])}"
                headers = {"Content-Type": kind, "X-Rebu-Producer": producer, "X-Rebu-Sequence": str(first)}
                answer = client.send("POST", f"/v1/logs/{source}", content=b"".join(lines), headers=headers).json()
                counts.update({name: answer.get(name, 0) for name in VERDICTS})
                progress(disk.tell() - done)
                done = disk.tell()
        except (OSError, EOFError, zstandard.ZstdError) as error:
            raise NotAFile(f"{path} breaks off or is damaged ({error}); what came before is stored") from error
    return counts


def _plain(path: Path, disk: BinaryIO) -> BinaryIO | Any:
    if path.suffix == ".gz":
        return gzip.GzipFile(fileobj=disk)
    if path.suffix == ".zst":
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(disk, read_across_frames=True))
    return disk


def _batches(file: BinaryIO) -> Iterator[tuple[int, list[bytes]]]:
    """Lines that are not empty, in batches, each with the number of its first line (empty ones not counted)."""
    first, number, size, lines = 0, 0, 0, list[bytes]()
    while line := file.readline(64 * MAX_RECORD_BYTES):
        if not line.strip():
            continue
        lines.append(line if line.endswith(b"\n") else line + b"\n")
        number += 1
        size += len(line)
        if len(lines) >= BATCH_LINES or size >= BATCH_BYTES:
            yield first, lines
            first, size, lines = number, 0, []
    if lines:
        yield first, lines
