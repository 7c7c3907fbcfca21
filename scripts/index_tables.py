"""Makes the entropy tables of the index's dictionary (`store.member`) from what `rebu simulate` wrote.

With tables of its own a dictionary spares each fragment the making of tables, which is half of compressing one.
Needs the zstd library of the system (libzstd.so.1); new tables need a new INDEX_FORMAT.

    rebu simulate --out DAY && python scripts/index_tables.py DAY
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import gzip
import random
import textwrap
from pathlib import Path

from rebu_ray.ingest.dialects import parse_logs
from rebu_ray.ingest.identity import route
from rebu_ray.records import Record, Source
from rebu_ray.store.member import CONTENT, LEVEL
from rebu_ray.store.rows import fragments, to_batch

FILES = {
    "app-events.ndjson.gz": Source.APP_EVENTS,
    "app-errors.ndjson.gz": Source.APP_ERRORS,
    "access.log.gz": Source.ACCESS,
    "error.log.gz": Source.ERROR,
}
SAMPLES = 700
"""Fragments of each source."""
RECEIVED_AT = 1_772_438_400_000
ROOM = 4096


class Parameters(ctypes.Structure):
    """ZDICT_params_t."""

    _fields_ = [("level", ctypes.c_int), ("verbosity", ctypes.c_uint), ("dictionary_id", ctypes.c_uint)]


def samples(folder: Path) -> list[bytes]:
    """Fragments of every source, drawn at random with a fixed seed."""
    draw = random.Random(1)
    chosen: list[bytes] = []
    for name, source in FILES.items():
        kind = "application/x-ndjson" if ".ndjson" in name else "text/plain"
        with gzip.open(folder / name) as file:
            entries = parse_logs(source, kind, file.read(), RECEIVED_AT)
        found = fragments(to_batch([route(entry, 1)[0] for entry in entries if isinstance(entry, Record)]))
        chosen += draw.sample(found, min(SAMPLES, len(found)))
    return chosen


def tables(content: bytes, found: list[bytes]) -> bytes:
    """What stands before `content` in a finished dictionary."""
    library = ctypes.CDLL("libzstd.so.1")
    library.ZDICT_finalizeDictionary.restype = ctypes.c_size_t
    library.ZDICT_finalizeDictionary.argtypes = [
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p),
        *(ctypes.POINTER(ctypes.c_size_t), ctypes.c_uint, Parameters),
    ]
    out = ctypes.create_string_buffer(len(content) + ROOM)
    sizes = (ctypes.c_size_t * len(found))(*map(len, found))
    length = library.ZDICT_finalizeDictionary(
        *(out, len(out), content, len(content), b"".join(found), sizes, len(found), Parameters(LEVEL, 0, 1))
    )
    finished = out.raw[:length] if length <= len(out) else b""
    if not finished.endswith(content):
        raise SystemExit("the zstd library could not make a dictionary of these samples")
    return finished[: -len(content)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="written by `rebu simulate --out`")
    found = tables(CONTENT, samples(parser.parse_args().folder))
    print("\n".join(textwrap.wrap(base64.b64encode(found).decode(), 110)))


if __name__ == "__main__":
    main()
