"""OpenTelemetry log records as they come over the wire, brought to one plain form.

Protobuf is rewritten as OTLP/JSON first, so that there is one reader, and a refused record can be shown and sent again.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from rebu_ray.ingest.dialects import json_text
from rebu_ray.ingest.dialects.fields import RefusedError
from rebu_ray.ingest.framing import check_count
from rebu_ray.records import BadRequest

_DEEPEST: Final = 50
"""Nesting of a value; each level is up to three of JSON's."""

_INTEGERS: Final = range(-(2**63), 2**64)


class Group(NamedTuple):
    """The log records of one instrumentation scope, all three as OTLP/JSON text."""

    resource: bytes
    scope: bytes
    records: list[bytes]

    def request(self, record: bytes) -> bytes:
        """An OTLP/JSON request with this one record, to be sent again; too large to read, it stays as it is."""
        if max(len(self.resource), len(self.scope), len(record)) > json_text.MAX_READ_BYTES:
            return record
        return b'{"resourceLogs":[{"resource":%b,"scopeLogs":[{"scope":%b,"logRecords":[%b]}]}]}' % (
            self.resource,
            self.scope,
            record,
        )


class Origin(msgspec.Struct, gc=False):
    """What all records of one instrumentation scope share."""

    resource: dict[str, Any]
    scope_name: str
    scope: dict[str, Any]


class Log(msgspec.Struct, gc=False):
    """One log record. Times are nanoseconds since the epoch, 0 where there is none; ids are lower-case hex."""

    attributes: dict[str, Any]
    body: Any
    severity_number: int
    severity_text: str
    event_name: str
    time: int
    observed_time: int
    trace_id: str
    span_id: str


def groups_of_protobuf(body: bytes) -> Iterator[Group]:
    """The groups of an ExportLogsServiceRequest. Raises BadRequest 400 `invalid_protobuf`, or 413."""
    check_count(body, b"\x12")  # every log record begins with this tag
    try:
        request = ExportLogsServiceRequest.FromString(body)
    except DecodeError as error:
        raise BadRequest(
            400, "invalid_protobuf", "The body is not an OTLP ExportLogsServiceRequest; send complete protobuf."
        ) from error
    for resource_logs in request.resource_logs:
        for scope_logs in resource_logs.scope_logs:
            yield Group(
                _written(resource_logs.resource),
                _written(scope_logs.scope),
                [_written(record) for record in scope_logs.log_records],
            )


def groups_of_json(body: bytes) -> Iterator[Group]:
    """The groups of an OTLP/JSON request. Raises BadRequest 400 `invalid_json`, or 413."""
    for resource_logs in _objects(json_text.members(json_text.trimmed(body)), "resourceLogs"):
        for scope_logs in _objects(resource_logs, "scopeLogs"):
            yield Group(
                resource_logs.get("resource", b"{}"),
                scope_logs.get("scope", b"{}"),
                _elements(scope_logs, "logRecords"),
            )


def origin(group: Group) -> Origin:
    """What the records of a group share. Raises RefusedError naming the field that is not as OTLP has it."""
    scope = json_text.json_object(group.scope)
    return Origin(
        _pairs(json_text.json_object(group.resource), "attributes"), _text(scope, "name"), _pairs(scope, "attributes")
    )


def log(raw: bytes) -> Log:
    """The log record in OTLP/JSON text. Raises RefusedError naming the field that is not as OTLP has it."""
    fields = json_text.json_object(raw)
    return Log(
        attributes=_pairs(fields, "attributes"),
        body=_value(fields.get("body"), 0),
        severity_number=_integer(fields, "severityNumber"),
        severity_text=_text(fields, "severityText"),
        event_name=_text(fields, "eventName"),
        time=_integer(fields, "timeUnixNano"),
        observed_time=_integer(fields, "observedTimeUnixNano"),
        trace_id=_text(fields, "traceId").lower(),
        span_id=_text(fields, "spanId").lower(),
    )


def _objects(fields: dict[str, bytes], name: str) -> Iterator[dict[str, bytes]]:
    for raw in _elements(fields, name):
        if not raw.startswith(b"{"):
            raise _misshapen(name)
        yield json_text.members(raw)


def _elements(fields: dict[str, bytes], name: str) -> list[bytes]:
    raw = fields.get(name, b"null")
    if raw == b"null":
        return []
    if not raw.startswith(b"["):
        raise _misshapen(name)
    return json_text.array(raw)


def _misshapen(name: str) -> BadRequest:
    return BadRequest(400, "invalid_json", f"The body is not OTLP/JSON: {name} must be a list of objects.")


def _written(message: Resource | InstrumentationScope | LogRecord) -> bytes:
    """The message as OTLP/JSON; one far too large to be read stays protobuf, since its JSON could fill the memory."""
    if message.ByteSize() > json_text.MAX_READ_BYTES:
        return message.SerializeToString()
    fields: dict[str, Any] = {"attributes": _written_pairs(message.attributes)}
    if isinstance(message, InstrumentationScope):
        fields["name"] = message.name
    elif isinstance(message, LogRecord):
        fields |= {
            "timeUnixNano": str(message.time_unix_nano),
            "observedTimeUnixNano": str(message.observed_time_unix_nano),
            "severityNumber": message.severity_number,
            "severityText": message.severity_text,
            "eventName": message.event_name,
            "body": _written_value(message.body),
            "traceId": message.trace_id.hex(),
            "spanId": message.span_id.hex(),
        }
    return msgspec.json.encode(fields)


def _written_pairs(pairs: Iterable[KeyValue]) -> list[dict[str, Any]]:
    return [{"key": pair.key, "value": _written_value(pair.value)} for pair in pairs]


def _written_value(value: AnyValue) -> dict[str, Any]:
    kind = value.WhichOneof("value")
    match kind:
        case "string_value":
            return {"stringValue": value.string_value}
        case "bool_value":
            return {"boolValue": value.bool_value}
        case "int_value":
            return {"intValue": str(value.int_value)}
        case "double_value":
            number = value.double_value
            return {"doubleValue": number if math.isfinite(number) else str(number)}
        case "bytes_value":
            return {"bytesValue": base64.b64encode(value.bytes_value).decode()}
        case "array_value":
            return {"arrayValue": {"values": [_written_value(element) for element in value.array_value.values]}}
        case "kvlist_value":
            return {"kvlistValue": {"values": _written_pairs(value.kvlist_value.values)}}
    return {}


def _pairs(fields: dict[str, Any], name: str, depth: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in _list(fields, name):
        if not isinstance(pair, dict) or not isinstance(pair.get("key"), str):
            raise RefusedError(f'invalid_shape: {name} must be a list of objects {{"key": text, "value": value}}')
        found[pair["key"]] = _value(pair.get("value"), depth)
    return found


def _value(value: Any, depth: int) -> Any:
    if value is None or value == {}:
        return None
    if depth > _DEEPEST:
        raise RefusedError(f"too_deep: a value nests deeper than {_DEEPEST} levels; send it flatter")
    if isinstance(value, dict) and len(value) == 1:
        [(kind, inner)] = value.items()
        match kind:
            case "stringValue" | "bytesValue" if isinstance(inner, str):
                return inner
            case "boolValue" if isinstance(inner, bool):
                return inner
            case "intValue":
                return _integer(value, kind)
            case "doubleValue" if isinstance(inner, str | int | float):
                return _double(inner)
            case "arrayValue" if isinstance(inner, dict):
                return [_value(element, depth + 1) for element in _list(inner, "values")]
            case "kvlistValue" if isinstance(inner, dict):
                return _pairs(inner, "values", depth + 1)
    raise RefusedError('invalid_shape: a value must be an object with one typed member, like {"stringValue": text}')


def _double(value: str | float) -> float | None:
    """A number; None for NaN and the infinities, which stand as text in OTLP/JSON and cannot be stored."""
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise RefusedError('invalid_shape: doubleValue must be a number, "NaN", "Infinity" or "-Infinity"') from error
    return number if math.isfinite(number) else None


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RefusedError(f"invalid_shape: {name} must be a list")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RefusedError(f"invalid_shape: {name} must be a string")
    return value


def _integer(fields: dict[str, Any], name: str) -> int:
    """A number or its decimal text, as OTLP/JSON writes 64-bit integers; 0 where there is none."""
    value = fields.get(name)
    if value is None or value == "":
        return 0
    if isinstance(value, str) and len(value) <= 20 and value.isascii() and value.removeprefix("-").isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value not in _INTEGERS:
        code = "invalid_time" if name.endswith("Nano") else "invalid_shape"
        raise RefusedError(f"{code}: {name} must be a 64-bit integer, as a number or as decimal text")
    return value
