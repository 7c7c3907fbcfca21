"""The bytes of a request: taking off the content encoding, telling the content type, splitting text into lines."""

from __future__ import annotations

import gzip
import io
import zlib
from enum import StrEnum
from typing import Final

import numpy as np
import zstandard

from rebu_ray.records import MAX_BODY_BYTES, MAX_COMPRESSED_BYTES, BadRequest

MAX_RECORDS: Final = 250_000
"""Most records in one request: as many as 50 MB of real lines hold, few enough to keep in memory: refused, each of them
takes two kilobytes before all of them are stored.
"""
RECORD_BYTES: Final = 256
"""What a record is counted as at least while there is room for it to be found."""

_MAX_MARKS: Final = 8 * MAX_RECORDS
_AT_ONCE_BYTES: Final = 1024 * 1024

_ZSTD_STEP: Final = 1024
"""Compressed bytes fed at a time: a zstd block of 4 bytes can grow to 128 KB, so this bounds the overshoot."""


class ContentClass(StrEnum):
    """What a content type promises about the body."""

    JSON = "json"
    NDJSON = "ndjson"
    TEXT = "text"
    PROTOBUF = "protobuf"
    ABSENT = "absent"
    """Nothing said (or only what curl says by default): the body itself has to tell."""


_CLASSES: Final = {
    "": ContentClass.ABSENT,
    "application/x-www-form-urlencoded": ContentClass.ABSENT,
    "application/json": ContentClass.JSON,
    "text/json": ContentClass.JSON,
    "application/x-ndjson": ContentClass.NDJSON,
    "application/ndjson": ContentClass.NDJSON,
    "application/jsonl": ContentClass.NDJSON,
    "application/x-jsonlines": ContentClass.NDJSON,
    "application/jsonlines": ContentClass.NDJSON,
    "application/stream+json": ContentClass.NDJSON,
    "text/plain": ContentClass.TEXT,
    "application/x-protobuf": ContentClass.PROTOBUF,
    "application/protobuf": ContentClass.PROTOBUF,
}


def content_class(content_type: str | None) -> ContentClass:
    """The class of a Content-Type header, parameters ignored. Raises BadRequest 415 for one that is not known."""
    media = (content_type or "").partition(";")[0].strip().lower()
    known = _CLASSES.get(media)
    if known is None:
        if media.startswith("application/") and media.endswith("+json"):
            return ContentClass.JSON
        raise BadRequest(
            415,
            "unsupported_media_type",
            f"Content-Type {media[:100]!r} is not understood; send text/plain, application/x-ndjson or "
            "application/json (OTLP also application/x-protobuf).",
        )
    return known


def decompress(body: bytes, content_encoding: str | None) -> bytes:
    """The body without its content encoding (identity, gzip, zstd; several members or frames are one body).

    Raises BadRequest 413 over a limit (found while inflating, never after), 415 for another encoding,
    400 `invalid_body` for a stream that is broken or cut short.
    """
    coding = (content_encoding or "identity").strip().lower()
    if coding in ("identity", ""):
        if len(body) > MAX_BODY_BYTES:
            raise _too_large(MAX_BODY_BYTES, "uncompressed")
        return body
    if coding not in ("gzip", "x-gzip", "zstd"):
        raise BadRequest(
            415,
            "unsupported_media_type",
            f"Content-Encoding {coding[:100]!r} is not understood; send gzip, zstd or none.",
        )
    if len(body) > MAX_COMPRESSED_BYTES:
        raise _too_large(MAX_COMPRESSED_BYTES, "compressed")
    if not body:
        raise _broken(coding, "it is empty")
    return _unzstd(body) if coding == "zstd" else _gunzip(body)


def lines(body: bytes) -> list[bytes]:
    """The lines of a text, without their ends; blank lines are no lines.

    ``\\n`` and ``\\r\\n`` end a line. A ``\\r`` elsewhere is content: a client that smuggles one into a log must
    not gain a line of its own. Raises BadRequest 413 over MAX_RECORDS.
    """
    if body.count(b"\n") > MAX_RECORDS:
        raise too_many_records()
    return [line for line in (line.rstrip(b"\r") for line in body.split(b"\n")) if line and not line.isspace()]


def check_count(body: bytes, mark: bytes) -> None:
    """Raises BadRequest 413 for a body that holds far more of `mark` than any real request of its size.

    `mark` stands at least once before each but the first record. This goes before taking the body apart, since
    millions of empty records would fill the memory.
    """
    if len(body) > _MAX_MARKS and body.count(mark) > _MAX_MARKS:
        raise too_many_records()


def weight(body: bytes) -> int:
    """What a body is counted as while it is worked on, in bytes: its size, or more where it holds many tiny records."""
    found = np.frombuffer(body, np.uint8) if len(body) <= _AT_ONCE_BYTES else None
    # Where marks stand close together, as they do in JSON, this takes a sixth of the time; and as much memory again.
    braces, ends, commas = (
        body.count(mark) if found is None else int(np.count_nonzero(found == mark[0])) for mark in (b"{", b"\n", b",")
    )
    return max(len(body), RECORD_BYTES * max(braces, ends, commas // 8))


def too_many_records() -> BadRequest:
    """The refusal of a request that holds more than MAX_RECORDS records."""
    return BadRequest(413, "too_large", f"The request holds more than {MAX_RECORDS} records; send smaller requests.")


def _gunzip(body: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as stream:
            plain = stream.read(MAX_BODY_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _broken("gzip", str(error)) from error
    if len(plain) > MAX_BODY_BYTES:
        raise _too_large(MAX_BODY_BYTES, "uncompressed")
    return plain


def _unzstd(body: bytes) -> bytes:
    decompressor = zstandard.ZstdDecompressor()
    frame = decompressor.decompressobj()
    parts: list[bytes] = []
    size = 0
    try:
        for start in range(0, len(body), _ZSTD_STEP):
            rest = body[start : start + _ZSTD_STEP]
            while rest:
                if frame.eof:
                    frame = decompressor.decompressobj()
                part = frame.decompress(rest)
                rest = frame.unused_data
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise _too_large(MAX_BODY_BYTES, "uncompressed")
                parts.append(part)
    except zstandard.ZstdError as error:
        raise _broken("zstd", str(error)) from error
    if not frame.eof:
        raise _broken("zstd", "it ends in the middle of a frame")
    return b"".join(parts)


def _too_large(limit: int, state: str) -> BadRequest:
    return BadRequest(413, "too_large", f"The body is over {limit} bytes {state}; send smaller requests.")


def _broken(coding: str, why: str) -> BadRequest:
    return BadRequest(400, "invalid_body", f"The body is not a complete {coding} stream ({why}); send it again.")
