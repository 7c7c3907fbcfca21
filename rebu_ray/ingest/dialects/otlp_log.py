"""OpenTelemetry log records as they come over the wire, protobuf or JSON, brought to one plain form.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from rebu_ray.ingest.dialects import json_text
from rebu_ray.ingest.dialects.fields import RefusedError

_DEEPEST: Final = 50
"""Nesting of a value; each level is up to three of JSON's."""

_MAX_INTEGER: Final = 2**64


class Log(msgspec.Struct, gc=False):
    """One log record. Times are nanoseconds since the epoch, 0 where there is none; ids are lower-case hex."""

    attributes: dict[str, Any]
    body: Any = None
    severity_number: int = 0
    severity_text: str = ""
    event_name: str = ""
    time: int = 0
    observed_time: int = 0
    trace_id: str = ""
    span_id: str = ""


class Origin(msgspec.Struct, gc=False):
    """What all records of one instrumentation scope share."""

    resource: dict[str, Any]
    scope_name: str
    scope: dict[str, Any]


def log_of_protobuf(record: LogRecord) -> Log:
    """Raises RefusedError for values that nest too deep."""
    return Log(
        attributes=_pairs(record.attributes),
        body=_value(record.body, 0) if record.HasField("body") else None,
        severity_number=record.severity_number,
        severity_text=record.severity_text,
        event_name=record.event_name,
        time=record.time_unix_nano,
        observed_time=record.observed_time_unix_nano,
        trace_id=record.trace_id.hex(),
        span_id=record.span_id.hex(),
    )


def origin_of_protobuf(resource: Resource, scope: InstrumentationScope) -> Origin:
    """Raises RefusedError for values that nest too deep."""
    return Origin(_pairs(resource.attributes), scope.name, _pairs(scope.attributes))


def log_of_json(raw: bytes) -> Log:
    """Raises RefusedError naming the field that is not as OTLP has it."""
    fields = json_text.json_object(raw)
    return Log(
        attributes=_json_pairs(fields, "attributes"),
        body=None if fields.get("body") is None else _json_value(fields["body"], 0),
        severity_number=_integer(fields, "severityNumber"),
        severity_text=_text(fields, "severityText"),
        event_name=_text(fields, "eventName"),
        time=_integer(fields, "timeUnixNano"),
        observed_time=_integer(fields, "observedTimeUnixNano"),
        trace_id=_text(fields, "traceId").lower(),
        span_id=_text(fields, "spanId").lower(),
    )


def origin_of_json(resource: bytes, scope: bytes) -> Origin:
    """Raises RefusedError naming the field that is not as OTLP has it."""
    scope_fields = json_text.json_object(scope)
    return Origin(
        _json_pairs(json_text.json_object(resource), "attributes"),
        _text(scope_fields, "name"),
        _json_pairs(scope_fields, "attributes"),
    )


def request_of_json(resource: bytes, scope: bytes, record: bytes) -> bytes:
    """An OTLP/JSON request with this one record, so that a refused record can be sent again."""
    return b'{"resourceLogs":[{"resource":%b,"scopeLogs":[{"scope":%b,"logRecords":[%b]}]}]}' % (
        resource,
        scope,
        record,
    )


def request_of_protobuf(resource: Resource, scope: InstrumentationScope, record: LogRecord) -> bytes:
    """The same for a record that came as protobuf."""
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add(resource=resource).scope_logs.add(scope=scope)
    logs.log_records.append(record)
    plain = json_format.MessageToDict(request, use_integers_for_enums=True)
    written = plain["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    for name, value in (("traceId", record.trace_id), ("spanId", record.span_id)):
        if value:  # OTLP/JSON has these in hex, unlike protobuf's own JSON
            written[name] = value.hex()
    return msgspec.json.encode(plain)


def _pairs(pairs: Iterable[KeyValue], depth: int = 0) -> dict[str, Any]:
    return {pair.key: _value(pair.value, depth) for pair in pairs}


def _value(value: AnyValue, depth: int) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    inner = getattr(value, kind)
    if kind in ("array_value", "kvlist_value"):
        _check_depth(depth)
        if kind == "array_value":
            return [_value(element, depth + 1) for element in inner.values]
        return _pairs(inner.values, depth + 1)
    return base64.b64encode(inner).decode() if kind == "bytes_value" else inner


def _json_pairs(fields: dict[str, Any], name: str, depth: int = 0) -> dict[str, Any]:
    pairs = fields.get(name)
    found: dict[str, Any] = {}
    for pair in _list(pairs, name):
        if not isinstance(pair, dict) or not isinstance(pair.get("key"), str):
            raise RefusedError(f'invalid_shape: {name} must be a list of {{"key": text, "value": {{...}}}}')
        value = pair.get("value")
        found[pair["key"]] = None if value is None else _json_value(value, depth)
    return found


def _json_value(value: Any, depth: int) -> Any:
    if not isinstance(value, dict) or len(value) > 1:
        raise RefusedError('invalid_shape: a value must be an object like {"stringValue": text}')
    for kind, inner in value.items():
        if kind == "intValue":
            return _integer(value, "intValue")
        if kind in ("arrayValue", "kvlistValue"):
            _check_depth(depth)
            if not isinstance(inner, dict):
                raise RefusedError(f'invalid_shape: {kind} must be an object {{"values": [...]}}')
            if kind == "kvlistValue":
                return _json_pairs(inner, "values", depth + 1)
            return [
                None if element is None else _json_value(element, depth + 1)
                for element in _list(inner.get("values"), "values")
            ]
        if kind == "doubleValue" and isinstance(inner, str | int | float):
            try:
                return float(inner)  # also "NaN" and "Infinity", which protobuf's JSON spells so
            except (ValueError, OverflowError):
                break
        if (kind in ("stringValue", "bytesValue") and isinstance(inner, str)) or (
            kind == "boolValue" and isinstance(inner, bool)
        ):
            return inner
        break
    else:
        return None
    raise RefusedError(f"invalid_shape: {kind!r:.40} does not hold what OTLP/JSON writes there")


def _list(value: Any, name: str) -> list[Any]:
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
    """A number or its decimal text, as OTLP/JSON writes 64-bit integers."""
    value = fields.get(name)
    if value is None or value == "":
        return 0
    if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isdecimal() and value.isascii():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -_MAX_INTEGER < value < _MAX_INTEGER:
        kind = "invalid_time" if name.endswith("Nano") else "invalid_shape"
        raise RefusedError(f"{kind}: {name} must be a 64-bit integer, as a number or as decimal text")
    return value


def _check_depth(depth: int) -> None:
    if depth >= _DEEPEST:
        raise RefusedError(f"too_deep: a value nests deeper than {_DEEPEST} levels; send it flatter")
