"""OTLP/HTTP logs: one record for each OpenTelemetry log record, whatever its resource and scope.

https://opentelemetry.io/docs/specs/otel/logs/data-model/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from rebu_ray.ingest.dialects import otlp_log, request_line, server_line
from rebu_ray.ingest.dialects.fields import Arrival, RefusedError, check_size, identifier
from rebu_ray.ingest.dialects.otlp_log import Group, Log, Origin
from rebu_ray.ingest.framing import MAX_RECORDS, too_many_records
from rebu_ray.records import MAX_TIME_MS, MIN_TIME_MS, BadRequest, Kind, MatchedBy, Parsed, Record, Refusal, Source

_ERROR_SEVERITY: Final = 17
"""The first of the four ERROR numbers; FATAL follows."""

_USER_KEYS: Final = ("user.id", "enduser.id", "userId", "user_id")
_ANONYMOUS_KEYS: Final = ("app.installation.id", "device.id", "anonymous_id", "anonymousId", "session.id")
"""From the longest-lived to the shortest: an installation is a better stranger than one of its sessions."""

_REQUEST_ID_KEYS: Final = ("http.request.id", "request_id", "request.id", "http.request.header.x-request-id")
_TARGET_KEYS: Final = ("url.path", "http.target", "url.full")
_CLIENT_KEYS: Final = ("os.name", "os.type", "telemetry.sdk.language")
_CLIENTS: Final = frozenset(("android", "ios", "ipados", "watchos", "tvos", "swift", "webjs"))
_CLIENT_PREFIXES: Final = ("device.", "browser.", "app.installation.")

_MAX_EXPANDED_BYTES: Final = 256 * 1024 * 1024
"""Most bytes of records from one request: each repeats its resource, which the request holds once."""


def parse_protobuf(body: bytes, received_at: int) -> Parsed:
    """The records of an ExportLogsServiceRequest. Raises BadRequest 400 `invalid_protobuf`, or 413."""
    return _parsed(otlp_log.groups_of_protobuf(body), received_at)


def parse_json(body: bytes, received_at: int) -> Parsed:
    """The records of an OTLP/JSON request. Raises BadRequest 400 `invalid_json`, or 413."""
    return _parsed(otlp_log.groups_of_json(body), received_at)


def _parsed(groups: Iterator[Group], received_at: int) -> Parsed:
    arrival = Arrival(Source.OTLP, received_at)
    parsed: Parsed = []
    size = 0
    for group in groups:
        if len(parsed) + len(group.records) > MAX_RECORDS:
            raise too_many_records()
        shared = _shared(group)
        for raw in group.records:
            try:
                if isinstance(shared, str):
                    raise RefusedError(shared)
                entry: Record | Refusal = _record(otlp_log.log(raw), shared, arrival, len(parsed))
            except RefusedError as refused:
                entry = Refusal(refused.reason, group.request(raw))
            size += len(entry.body if isinstance(entry, Record) else entry.raw)
            if size > _MAX_EXPANDED_BYTES:
                raise BadRequest(413, "too_large", "Records and their resources are too large; send fewer at once.")
            parsed.append(entry)
    return parsed


def _shared(group: Group) -> Origin | str:
    """What the records of a group share, or why they are all refused."""
    try:
        return otlp_log.origin(group)
    except RefusedError as refused:
        return refused.reason


def _record(log: Log, origin: Origin, arrival: Arrival, ordinal: int) -> Record:
    attributes = log.attributes
    request = _request(attributes)
    kind = _kind(log, _is_client(origin.resource))
    body = _body(log, origin, request)
    check_size(body)
    id = _id((attributes,), ("log.record.uid",)) or arrival.derived_id(body, ordinal)
    event_time = _event_time(log, arrival.received_at)
    layers = (attributes, origin.scope, origin.resource)
    user_id = _id(layers, _USER_KEYS)
    request_id = _id((attributes, origin.scope), _REQUEST_ID_KEYS)
    if kind in (Kind.SERVER_ACCESS, Kind.SERVER_ERROR):
        return server_line.record(
            kind,
            _server_name(log, kind, request),
            arrival,
            id=id,
            event_time=event_time,
            body=body,
            user_id=user_id,
            request=request,
            request_id=request_id,
        )
    anonymous_id = _id(layers, _ANONYMOUS_KEYS)
    if user_id is None and anonymous_id is None:
        raise RefusedError("missing_id: user.id or app.installation.id must say whose app event this is")
    return Record(
        kind=kind,
        id=id,
        name=_app_name(log, kind),
        source=arrival.source,
        event_time=event_time,
        received_at=arrival.received_at,
        body=body,
        user_id=user_id,
        anonymous_id=anonymous_id,
        request_id=request_id,
        matched_by=MatchedBy.ANONYMOUS_ID if user_id is None else MatchedBy.USER_ID,
    )


def _kind(log: Log, is_client: bool) -> Kind:
    if log.severity_number >= _ERROR_SEVERITY:
        return Kind.APP_ERROR if is_client else Kind.SERVER_ERROR
    # A phone that reports a call it made is not a server that answered one.
    if "http.request.method" in log.attributes and not is_client:
        return Kind.SERVER_ACCESS
    return Kind.APP_EVENT


def _is_client(resource: dict[str, Any]) -> bool:
    said = {resource[key].lower() for key in _CLIENT_KEYS if isinstance(resource.get(key), str)}
    return not _CLIENTS.isdisjoint(said) or any(key.startswith(_CLIENT_PREFIXES) for key in resource)


def _request(attributes: dict[str, Any]) -> request_line.Request | None:
    method = attributes.get("http.request.method")
    target = next((attributes[key] for key in _TARGET_KEYS if isinstance(attributes.get(key), str)), None)
    return request_line.of(method, target) if isinstance(method, str) and target is not None else None


def _event_time(log: Log, received_at: int) -> int:
    nanoseconds = log.time or log.observed_time
    if nanoseconds == 0:
        return received_at
    milliseconds = nanoseconds // 1_000_000
    if not MIN_TIME_MS <= milliseconds <= MAX_TIME_MS:
        raise RefusedError("invalid_time: timeUnixNano must lie between 1970 and 9999")
    return milliseconds


def _server_name(log: Log, kind: Kind, request: request_line.Request | None) -> str:
    if kind is Kind.SERVER_ACCESS:
        return request.name if request is not None else request_line.INVALID
    return _first_text(log.attributes.get("exception.type"), log.event_name, log.severity_text) or "error"


def _app_name(log: Log, kind: Kind) -> str:
    error = log.attributes.get("exception.type") if kind is Kind.APP_ERROR else None
    return _first_text(error, log.event_name, log.attributes.get("event.name")) or "log"


def _first_text(*values: object) -> str | None:
    return next((value for value in values if isinstance(value, str) and value), None)


def _id(layers: tuple[dict[str, Any], ...], keys: tuple[str, ...]) -> str | None:
    """The first of `keys` that holds an id, in the innermost layer that has one. Raises RefusedError."""
    for layer in layers:
        for key in keys:
            value = layer.get(key)
            if isinstance(value, list):  # headers are lists
                value = value[0] if value else None
            found = identifier(value, key)
            if found is not None:
                return found
    return None


def _body(log: Log, origin: Origin, request: request_line.Request | None) -> bytes:
    """The record as JSON, attributes as plain objects; method, path and status stand where access lines have them."""
    fields = {
        "timeUnixNano": str(log.time or log.observed_time or ""),
        "severityNumber": log.severity_number or None,
        "severityText": log.severity_text,
        "eventName": log.event_name,
        "body": log.body,
        "method": request.method if request is not None else None,
        "path": request.path if request is not None else None,
        "status": log.attributes.get("http.response.status_code"),
        "attributes": log.attributes,
        "scope": {"name": origin.scope_name, "attributes": origin.scope} if origin.scope_name or origin.scope else None,
        "resource": origin.resource,
        "traceId": log.trace_id,
        "spanId": log.span_id,
    }
    return msgspec.json.encode({name: value for name, value in fields.items() if value not in (None, "", {})})
