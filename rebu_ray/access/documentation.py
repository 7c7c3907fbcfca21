"""The interface described by itself: OpenAPI, and a page for people."""

from __future__ import annotations

from html import escape
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rebu_ray.access.ride_formats import MEDIA_TYPES
from rebu_ray.ingest.http import LOG_SOURCES, SEGMENT_CALLS
from rebu_ray.process.quality import STATUSES
from rebu_ray.records import HISTORY_KINDS, TABLES, Source

_JSON: Final = "application/json"


def routes() -> list[Route]:
    """/openapi.json, /docs and the first page."""
    document = msgspec.json.encode(openapi())
    page = _page().encode()

    async def spec(request: Request) -> Response:
        return Response(document, media_type=_JSON)

    async def docs(request: Request) -> Response:
        return Response(page, media_type="text/html; charset=utf-8")

    return [
        Route("/openapi.json", spec, methods=["GET"]),
        Route("/docs", docs, methods=["GET"]),
        Route("/", docs, methods=["GET"]),
    ]


def _parameter(name: str, where: str, text: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": text,
        "schema": schema or {"type": "string"},
    }


def _answers(*schemas: tuple[str, str, str], errors: tuple[int, ...]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for code, text, media in schemas:
        out.setdefault(code, {"description": text, "content": {}})["content"][media] = {}
    meanings = {
        400: "the request is not understood: the message says what to change",
        401: "no key, or an unknown one",
        403: "the key may not do this",
        404: "nothing is known of that",
        413: "too large",
        415: "a content type or encoding that is not taken here",
        429: "too many writes at the moment: wait for Retry-After seconds",
        503: "not possible at the moment: try again after Retry-After seconds",
    }
    for status in errors:
        schema = {"$ref": "#/components/schemas/Error"}
        out[str(status)] = {"description": meanings[status], "content": {_JSON: {"schema": schema}}}
    return out


def _write(summary: str, media: tuple[str, ...]) -> dict[str, Any]:
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {m: {} for m in media}},
            "responses": _answers(
                ("200", "every accepted record is durable", _JSON), errors=(400, 401, 403, 413, 415, 429, 503)
            ),
        }
    }


def openapi() -> dict[str, Any]:
    """The interface as an OpenAPI 3.1 document."""
    logs = ("text/plain", "application/x-ndjson", _JSON)
    paging = [
        _parameter("since", "query", "from this time on (RFC 3339 or epoch ms)"),
        _parameter("until", "query", "before this time"),
        _parameter("order", "query", "newest or oldest first", {"enum": ["desc", "asc"]}),
        _parameter("limit", "query", "items a page", {"type": "integer", "minimum": 1, "maximum": 1000}),
        _parameter("cursor", "query", "`next` of the page before"),
    ]
    user = _parameter("user_id", "path", "the user")
    paths: dict[str, Any] = {
        f"/v1/{call}": _write(f"Segment and RudderStack: {call}", (_JSON,)) for call in ("batch", *SEGMENT_CALLS)
    }
    paths["/v1/logs/{source}"] = _write("Log lines, NDJSON or a JSON array", logs) | {
        "parameters": [_parameter("source", "path", "which log", {"enum": [str(s) for s in LOG_SOURCES]})]
    }
    paths["/v1/logs"] = _write("OpenTelemetry logs (OTLP/HTTP)", (_JSON, "application/x-protobuf"))
    paths["/v1/records/{table}"] = _write("Rows of the application database", (_JSON, "application/x-ndjson")) | {
        "parameters": [_parameter("table", "path", "which table", {"enum": [str(table) for table in TABLES]})]
    }
    paths["/v1/users/{user_id}/events"] = {
        "get": {
            "summary": "The whole history of a user",
            "parameters": [
                user,
                *paging,
                _parameter("kind", "query", f"one or more of {', '.join(HISTORY_KINDS)}"),
                _parameter("name", "query", "the record's name"),
                _parameter("source", "query", f"one or more of {', '.join(Source)}"),
                _parameter("min_position", "query", "`position` of a write: wait until it is visible"),
            ],
            "responses": _answers(("200", "a page", _JSON), errors=(400, 401, 403, 404, 503)),
        }
    }
    paths["/v1/users/{user_id}/events/stream"] = {
        "get": {
            "summary": "New records of a user as server-sent events",
            "parameters": [user, _parameter("Last-Event-ID", "header", "where the last connection ended")],
            "responses": _answers(("200", "the stream", "text/event-stream"), errors=(400, 401, 403, 503)),
        }
    }
    paths["/v1/users/{user_id}"] = {
        "get": {
            "summary": "Profile and linked anonymous ids",
            "parameters": [user],
            "responses": _answers(("200", "the profile", _JSON), errors=(401, 403, 404, 503)),
        }
    }
    paths["/v1/users/{user_id}/anonymous/{anonymous_id}"] = {
        "delete": {
            "summary": "Take a link back (admin)",
            "parameters": [user, _parameter("anonymous_id", "path", "the anonymous id")],
            "responses": _answers(("200", "taken back", _JSON), errors=(401, 403, 404, 503)),
        }
    }
    paths |= _rides(user, paging)
    paths["/v1/deadletters"] = {
        "get": {
            "summary": "Refused records with their reasons (admin)",
            "parameters": [*paging, _parameter("source", "query", "one or more sources")],
            "responses": _answers(("200", "a page", _JSON), errors=(400, 401, 403, 503)),
        }
    }
    for path, text in (
        ("/v1/status", "State of the platform"),
        ("/healthz", "Alive"),
        ("/readyz", "Ready to serve"),
        ("/metrics", "Metrics for Prometheus"),
    ):
        paths[path] = {"get": {"summary": text, "responses": _answers(("200", text, _JSON), errors=(401, 503))}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Rebu", "version": "1", "description": "What happened to whom, in one history."},
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "the key as user name, no password"},
            },
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["code", "message"],
                    "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
                }
            },
        },
    }


def _rides(user: dict[str, Any], paging: list[dict[str, Any]]) -> dict[str, Any]:
    """The paths about rides and messages."""
    ride = _parameter("ride_id", "path", "the ride")
    truth = {"type": "boolean"}
    filters = [
        _parameter("status", "query", f"one or more of {', '.join(sorted(STATUSES))}"),
        _parameter("city", "query", "one or more cities"),
        _parameter("premature", "query", "whether the ride ended before it was to", truth),
        _parameter("cause", "query", "why it did: one or more of driver, rider, app, unknown"),
        _parameter("min_errors", "query", "at least so many errors of app and server", {"type": "integer"}),
        _parameter("has_messages", "query", "whether a message is linked to the ride, or may be about it", truth),
        _parameter("user_id", "query", "rides of this user"),
        _parameter("driver_id", "query", "rides of this driver"),
        _parameter("as_of", "query", "answer with what was known at this time (RFC 3339 or epoch ms)"),
        _parameter(
            "format",
            "query",
            "csv, parquet and arrow are everything where there is no limit; with one, X-Rebu-Next is the next cursor",
            {"enum": ["json", *MEDIA_TYPES], "default": "json"},
        ),
    ]
    media = [("200", "the rides, by the time of their request", kind) for kind in (_JSON, *MEDIA_TYPES.values())]
    listed = _answers(("200", "a page", _JSON), errors=(400, 401, 403, 404, 503))
    single = _answers(("200", "the document", _JSON), errors=(400, 401, 403, 404, 503))
    confidence = _parameter("min_confidence", "query", "leave out less certain ones", {"type": "number"})
    message = _parameter("message_id", "path", "the message")
    operations: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any]]] = {
        "/v1/rides": (
            "Rides as a table, for models and notebooks",
            [*paging, *filters],
            _answers(*media, errors=(400, 401, 403, 503)),
        ),
        "/v1/rides/{ride_id}": ("What is known of a ride", [ride], single),
        "/v1/rides/{ride_id}/messages": ("Customers' messages about a ride", [ride, confidence], single),
        "/v1/messages/{message_id}": ("A message and the ride that it is about", [message], single),
        "/v1/users/{user_id}/rides": ("The rides of a user", [user, *paging], listed),
        "/v1/users/{user_id}/messages": ("The messages of a user", [user, *paging], listed),
    }
    return {
        path: {"get": {"summary": summary, "parameters": parameters, "responses": responses}}
        for path, (summary, parameters, responses) in operations.items()
    }


def _page() -> str:
    rows = "".join(
        f"<tr><td><code>{method.upper()}</code></td><td><code>{escape(path)}</code></td>"
        f"<td>{escape(operation['summary'])}</td></tr>"
        for path, operations in openapi()["paths"].items()
        for method, operation in operations.items()
        if method != "parameters"
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Rebu</title><style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
td {{ border-bottom: 1px solid #8884; padding: .35rem .6rem .35rem 0; vertical-align: top }}
</style></head><body>
<h1>Rebu</h1>
<p>Send with the write key, read with the read key: <code>Authorization: Bearer KEY</code>.
<code>rebu keys</code> prints them. The whole description: <a href="/openapi.json">openapi.json</a>.</p>
<table>{rows}</table>
</body></html>
"""
