"""The write routes: from an HTTP request to a receipt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import xxhash
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rebu_ray.ingest.admission import Admission, Held, overloaded
from rebu_ray.ingest.breaker import Breaker
from rebu_ray.ingest.dialects import parse_logs, parse_otlp, parse_segment, parse_tables
from rebu_ray.ingest.dialects.ordinary import Ordinary
from rebu_ray.ingest.dialects.segment import parse_batch, write_key
from rebu_ray.ingest.framing import decompress, weight
from rebu_ray.ingest.intake import Intake
from rebu_ray.keys import Keys, Scope, presented_key
from rebu_ray.records import MAX_COMPRESSED_BYTES, TABLES, BadRequest, Parsed, Source
from rebu_ray.traces import span

SEGMENT_CALLS: Final = ("track", "identify", "page", "screen", "group", "alias")
LOG_SOURCES: Final = (Source.ACCESS, Source.ERROR, Source.APP_EVENTS, Source.APP_ERRORS)
ON_LOOP_BYTES: Final = 256 * 1024
ON_LOOP_WEIGHT: Final = 4 * ON_LOOP_BYTES
"""Larger bodies, and those of more tiny records, are parsed in a thread: the loop also answers health checks."""

BODY_SECONDS: Final = 60.0
"""How long a body may take to come: who sends a byte now and then holds a place that others need."""


def routes(keys: Keys, intake: Callable[[], Intake], admission: Admission, breaker: Breaker) -> list[Route]:
    """The write routes of the contract."""

    def admitted(handle: Callable[[Request, Held], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def write(request: Request) -> Response:
            with admission.request() as held:
                wait = intake().wait_s
                if wait:
                    raise overloaded(wait)
                return await handle(request, held)

        return write

    async def store(
        request: Request,
        held: Held,
        source: Source,
        parse: Callable[[bytes, int], Ordinary | Parsed],
        body: bytes,
        producer: str | None = None,
        sequence: int | None = None,
    ) -> Response:
        received_at = time.time_ns() // 1_000_000
        with breaker.request(source, sender_of(request)) as note:
            with span("parse", source=source.value, bytes=len(body)):
                if len(body) > ON_LOOP_BYTES or held.bytes > ON_LOOP_WEIGHT:
                    parsed = await asyncio.to_thread(parse, body, received_at)
                else:
                    parsed = parse(body, received_at)
            with span("store"):
                receipt = await intake().store(source, parsed, received_at, producer, sequence)
            note(receipt.accepted + receipt.duplicate + receipt.rejected, receipt.rejected)
        return Response(receipt.body(), media_type="application/json")

    async def segment(request: Request, held: Held) -> Response:
        call = request.url.path.rsplit("/", 1)[1]
        body = await _body(request, keys, held, key_in_body=True)
        return await store(
            request,
            held,
            Source.APP_EVENTS,
            parse_batch if call == "batch" else lambda data, now: parse_segment(data, now, call),
            body,
        )

    async def logs(request: Request, held: Held) -> Response:
        body = await _body(request, keys, held)
        source = request.path_params["source"]
        if source not in LOG_SOURCES:
            known = ", ".join(LOG_SOURCES)
            raise BadRequest(404, "unknown_source", f"there is no log source {source!r}: send to one of {known}")
        producer, sequence = _sequence(request)
        kind = request.headers.get("content-type")
        return await store(
            request,
            held,
            Source(source),
            lambda data, now: parse_logs(Source(source), kind, data, now, producer, sequence),
            body,
            producer,
            sequence,
        )

    async def otlp(request: Request, held: Held) -> Response:
        body = await _body(request, keys, held)
        kind = request.headers.get("content-type")
        return await store(request, held, Source.OTLP, lambda data, now: parse_otlp(kind, data, now), body)

    async def records(request: Request, held: Held) -> Response:
        body = await _body(request, keys, held)
        table = request.path_params["table"]
        if table not in TABLES:
            known = ", ".join(TABLES)
            raise BadRequest(404, "unknown_table", f"there is no table {table!r}: send rows to one of {known}")
        kind = request.headers.get("content-type")
        return await store(
            request, held, Source(table), lambda data, now: parse_tables(Source(table), kind, data, now), body
        )

    return [
        *(Route(f"/v1/{call}", admitted(segment), methods=["POST"]) for call in ("batch", *SEGMENT_CALLS)),
        Route("/v1/logs/{source}", admitted(logs), methods=["POST"]),
        Route("/v1/logs", admitted(otlp), methods=["POST"]),
        Route("/v1/records/{table}", admitted(records), methods=["POST"]),
    ]


_CLAIMS: Final = ("authorization", "x-rebu-producer", "x-forwarded-for", "user-agent")


def sender_of(request: Request) -> int:
    """Who sends, as far as can be told before the body is read: the key, and whatever sets apart those who share it.

    All of it together, so that nobody can be taken for somebody else without coming from the same address. HAProxy
    adds the address that it was reached from to X-Forwarded-For, after those that a proxy before it has given.
    """
    said = [",".join(request.headers.getlist(name)) for name in _CLAIMS]
    address = "" if request.client is None else request.client.host
    return xxhash.xxh3_64_intdigest("\0".join((address, *said)).encode("utf-8", "surrogateescape"))


async def _body(request: Request, keys: Keys, held: Held, key_in_body: bool = False) -> bytes:
    """The decompressed body of an authorized request. Raises BadRequest 401, 403, 408, 413, 415 or 429."""
    key = presented_key(request.headers.get("authorization"))
    if key is not None or not key_in_body:
        keys.check(key, Scope.WRITE)
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > MAX_COMPRESSED_BYTES):
        raise _too_large()
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > MAX_COMPRESSED_BYTES:
                    raise _too_large()
                held.add(len(chunk))
                chunks.append(chunk)
    except TimeoutError as error:
        raise BadRequest(
            408, "too_slow", f"the body did not come within {BODY_SECONDS:.0f} s: send smaller batches"
        ) from error
    raw, encoding = b"".join(chunks), request.headers.get("content-encoding")
    if encoding and size > ON_LOOP_BYTES // 8:
        body = await asyncio.to_thread(decompress, raw, encoding)
    else:
        body = decompress(raw, encoding)
    heavier = weight(body) - size
    if heavier > 0:
        held.add(heavier)
    if key is None and key_in_body:
        keys.check(write_key(body), Scope.WRITE)
    return body


def _too_large() -> BadRequest:
    limit = MAX_COMPRESSED_BYTES // 1024 // 1024
    return BadRequest(413, "too_large", f"the body is over {limit} MB: send it in smaller batches, or compressed")


def _sequence(request: Request) -> tuple[str | None, int | None]:
    producer, sequence = request.headers.get("x-rebu-producer"), request.headers.get("x-rebu-sequence")
    if producer is None or sequence is None:
        return None, None
    if not sequence.isascii() or not sequence.isdigit() or len(sequence) > 18:
        raise BadRequest(400, "invalid_sequence", "X-Rebu-Sequence must be the number of the batch's first record")
    return producer, int(sequence)
