from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest import framing
from rebu_ray.ingest.framing import RECORD_BYTES, ContentClass, content_class, decompress, lines, weight
from rebu_ray.records import MAX_BODY_BYTES, MAX_COMPRESSED_BYTES, BadRequest
from tests.ingest.promises import seeded

TEXT = b'{"batch": []}\n' * 300


def zstd(data: bytes, size_known: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=size_known).compress(data)


def test_identity_is_the_body_itself() -> None:
    assert decompress(TEXT, None) is TEXT
    assert decompress(TEXT, "identity") is TEXT
    assert decompress(TEXT, "") is TEXT


@pytest.mark.parametrize("coding", ["gzip", "GZIP", " Gzip ", "x-gzip"])
def test_gzip(coding: str) -> None:
    assert decompress(gzip.compress(TEXT), coding) == TEXT
    assert decompress(gzip.compress(TEXT) + gzip.compress(b"more"), coding) == TEXT + b"more"


@pytest.mark.parametrize("coding", ["zstd", "ZSTD"])
@pytest.mark.parametrize("size_known", [True, False])
def test_zstd(coding: str, size_known: bool) -> None:
    assert decompress(zstd(TEXT, size_known), coding) == TEXT
    assert decompress(zstd(TEXT, size_known) + zstd(b"more") + zstd(b""), coding) == TEXT + b"more"
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    assert decompress(skippable + zstd(TEXT), coding) == TEXT


@seeded
@given(st.lists(st.binary(max_size=5000), max_size=4), st.sampled_from(["gzip", "zstd"]))
def test_members_and_frames_follow_one_another(parts: list[bytes], coding: str) -> None:
    compress = gzip.compress if coding == "gzip" else zstd
    body = b"".join(compress(part) for part in parts) or compress(b"")
    assert decompress(body, coding) == b"".join(parts)


@seeded
@given(st.binary(max_size=200), st.sampled_from(["gzip", "zstd"]))
def test_noise_is_refused_or_read_and_never_anything_else(noise: bytes, coding: str) -> None:
    start = gzip.compress(b"x" * 50) if coding == "gzip" else zstd(b"x" * 50)
    for body in (noise, start + noise, start[:-3] + noise):
        outcome = unpacked(body, coding)
        assert isinstance(outcome, bytes) or (outcome.status, outcome.code) == (400, "invalid_body")


def unpacked(body: bytes, coding: str) -> bytes | BadRequest:
    try:
        return decompress(body, coding)
    except BadRequest as refusal:
        return refusal


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_stream_that_is_cut_anywhere_is_broken(coding: str) -> None:
    body = gzip.compress(TEXT) if coding == "gzip" else zstd(TEXT)
    for end in range(len(body)):
        with pytest.raises(BadRequest) as caught:
            decompress(body[:end], coding)
        assert (caught.value.status, caught.value.code) == (400, "invalid_body")


def test_a_wrong_checksum_is_broken() -> None:
    body = bytearray(gzip.compress(TEXT))
    body[-5] ^= 1
    with pytest.raises(BadRequest, match="not a complete gzip stream"):
        decompress(bytes(body), "gzip")


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, zstd"])
def test_other_codings_are_not_supported(coding: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decompress(TEXT, coding)
    assert (caught.value.status, caught.value.code) == (415, "unsupported_media_type")


def test_limits() -> None:
    assert len(decompress(bytes(MAX_BODY_BYTES), None)) == MAX_BODY_BYTES
    for body, coding in (
        (bytes(MAX_BODY_BYTES + 1), None),
        (bytes(MAX_COMPRESSED_BYTES + 1), "gzip"),
        (bytes(MAX_COMPRESSED_BYTES + 1), "zstd"),
    ):
        with pytest.raises(BadRequest) as caught:
            decompress(body, coding)
        assert (caught.value.status, caught.value.code) == (413, "too_large")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_body_of_exactly_the_limit_passes(coding: str) -> None:
    body = bytes(MAX_BODY_BYTES)
    packed = zlib.compress(body, 1, wbits=31) if coding == "gzip" else zstd(body)
    assert len(decompress(packed, coding)) == MAX_BODY_BYTES


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_stops_at_the_limit(coding: str) -> None:
    piece = bytes(64 * 1024 * 1024)
    packed = (zlib.compress(piece, 1, wbits=31) if coding == "gzip" else zstd(piece)) * 12  # 768 MB
    del piece
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest) as caught:
            decompress(packed, coding)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (caught.value.status, caught.value.code) == (413, "too_large")
    assert peak < 4 * MAX_BODY_BYTES


def test_lines() -> None:
    assert lines(b"") == []
    assert lines(b"a\nb\r\nc") == [b"a", b"b", b"c"]
    assert lines(b"\n\r\n  \n\ta\n\n") == [b"\ta"]
    assert lines(b"one\rline\n") == [b"one\rline"], "a carriage return of a client's making begins no line"


def test_too_many_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_RECORDS", 3)
    assert len(lines(b"a\nb\nc\n")) == 3
    with pytest.raises(BadRequest) as caught:
        lines(b"a\nb\nc\nd\n")
    assert (caught.value.status, caught.value.code) == (413, "too_large")


def test_what_holds_many_tiny_records_weighs_more_than_its_bytes() -> None:
    event = b'{"type":"track","context":{"app":{"version":"1"}},"properties":{"text":"%b"}},' % (b"x" * 400)
    assert weight(event * 100) < 3 * len(event) * 100
    assert weight(b"GET /rides HTTP/1.1 " * 10 + b"\n") <= RECORD_BYTES
    for tiny in (b"{},", b"\n", b"1,1,1,1,1,1,1,1,"):
        assert weight(tiny * 1000) == RECORD_BYTES * 1000
    assert weight(b"") == 0


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, ContentClass.ABSENT),
        ("", ContentClass.ABSENT),
        ("application/json", ContentClass.JSON),
        ("Application/JSON; charset=utf-8", ContentClass.JSON),
        ("application/vnd.rebu+json", ContentClass.JSON),
        ("application/x-ndjson", ContentClass.NDJSON),
        ("application/stream+json", ContentClass.NDJSON),
        ("text/plain;charset=UTF-8", ContentClass.TEXT),
        ("application/x-protobuf", ContentClass.PROTOBUF),
    ],
)
def test_content_classes(header: str | None, expected: ContentClass) -> None:
    assert content_class(header) is expected


@pytest.mark.parametrize(
    "header", ["application/xml", "text/html", "image/png", "application/octet-stream", "nonsense"]
)
def test_unknown_content_types(header: str) -> None:
    with pytest.raises(BadRequest) as caught:
        content_class(header)
    assert (caught.value.status, caught.value.code) == (415, "unsupported_media_type")
