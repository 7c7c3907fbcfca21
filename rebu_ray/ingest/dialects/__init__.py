"""The one door to the wire formats: bytes of a request in, records and refusals out. Pure: no clock, no network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rebu_ray.ingest.dialects import access_log, app_log, error_log, json_text, otlp, tables
from rebu_ray.ingest.dialects.fields import Arrival, RefusedError
from rebu_ray.ingest.dialects.segment import parse as parse_segment
from rebu_ray.ingest.dialects.segment import write_key
from rebu_ray.ingest.framing import ContentClass, content_class, lines
from rebu_ray.records import BadRequest, Parsed, Record, Refusal, Source

__all__ = ["parse_logs", "parse_otlp", "parse_segment", "parse_tables", "write_key"]

_ENTRIES: Final[dict[Source, Callable[[bytes, Arrival, int], Record | Refusal]]] = {
    Source.APP_EVENTS: app_log.entry,
    Source.APP_ERRORS: app_log.entry,
    Source.ACCESS: access_log.entry,
    Source.ERROR: error_log.entry,
}


def parse_logs(
    source: Source,
    content_type: str | None,
    body: bytes,
    received_at: int,
    producer: str | None = None,
    sequence: int | None = None,
) -> Parsed:
    """The lines of a log shipper's request: text, NDJSON or a JSON array, in this order.

    `received_at` is in milliseconds; `producer` and `sequence` (of the first line) name lines that bring no id.
    Raises BadRequest 400, 413 or 415.
    """
    kind = content_class(content_type)
    if kind is ContentClass.PROTOBUF:
        raise BadRequest(
            415, "unsupported_media_type", "Send OTLP to /v1/logs; this route takes text, NDJSON and JSON."
        )
    entry = _ENTRIES[source]
    arrival = Arrival(source, received_at, producer, sequence)
    return [entry(raw, arrival, ordinal) for ordinal, raw in enumerate(_records(kind, json_text.trimmed(body)))]


def parse_otlp(content_type: str | None, body: bytes, received_at: int) -> Parsed:
    """The log records of an OTLP/HTTP request, protobuf or JSON. Raises BadRequest 400, 413 or 415."""
    kind = content_class(content_type)
    if kind is ContentClass.PROTOBUF:
        return otlp.parse_protobuf(body, received_at)
    if kind is ContentClass.JSON:
        return otlp.parse_json(body, received_at)
    raise BadRequest(
        415,
        "unsupported_media_type",
        "OTLP must come as application/x-protobuf or application/json; send one of these.",
    )


def parse_tables(source: Source, content_type: str | None, body: bytes, received_at: int) -> Parsed:
    """The rows of a table in a request, a JSON array or NDJSON, in this order. Raises BadRequest 400, 413 or 415."""
    kind = content_class(content_type)
    if kind is ContentClass.PROTOBUF:
        raise BadRequest(415, "unsupported_media_type", "Send rows as a JSON array or as NDJSON.")
    return [tables.entry(raw, source, received_at) for raw in _records(kind, json_text.trimmed(body))]


def _records(kind: ContentClass, body: bytes) -> list[bytes]:
    if body.startswith(b"["):
        try:
            return [_line_of_string(raw) for raw in json_text.array(body)]
        except BadRequest as error:
            if kind is ContentClass.JSON or error.status != 400:
                raise
            # else text that begins with a bracket, as Apache's error log does
    if body.startswith(b"{") and json_text.is_json(body):
        return [body]
    found = lines(body)
    # Fluent Bit says application/json to what is NDJSON; a body without any JSON in it is another thing.
    if kind is ContentClass.JSON and not any(line.startswith(b"{") and json_text.is_json(line) for line in found):
        raise BadRequest(400, "invalid_json", "The body is not valid JSON; send a JSON array of records, or NDJSON.")
    return found


def _line_of_string(raw: bytes) -> bytes:
    """A line that came as a string in an array, as the line itself."""
    if raw.startswith(b'"'):
        try:
            return str(json_text.loads(raw)).encode()
        except RefusedError:
            return raw
    return raw
