"""The interface described by itself: OpenAPI, and a page for people."""

from __future__ import annotations

from html import escape
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rebu_ray.access.dashboard.session import PATH as SESSION
from rebu_ray.access.ride_formats import MEDIA_TYPES
from rebu_ray.access.schemas import SCHEMAS, reference
from rebu_ray.access.sql_formats import MEDIA_TYPES as SQL_TYPES
from rebu_ray.access.stats import MOST_DAYS, MOST_FORECAST_DAYS
from rebu_ray.ingest.http import LOG_SOURCES, SEGMENT_CALLS
from rebu_ray.process.quality import STATUSES
from rebu_ray.records import HISTORY_KINDS, TABLES, Source

_JSON: Final = "application/json"
_ABOUT: Final = (
    "What happened to whom, in one history. Every answer has the id of its request as `X-Request-Id` (yours, if it is "
    "8 to 64 letters, digits and hyphens), and the message of an error ends with it: the log knows it by that."
)


def routes() -> list[Route]:
    """/openapi.json and /docs."""
    document = msgspec.json.encode(openapi())
    page = _page().encode()

    async def spec(request: Request) -> Response:
        return Response(document, media_type=_JSON)

    async def docs(request: Request) -> Response:
        return Response(page, media_type="text/html; charset=utf-8")

    return [
        Route("/openapi.json", spec, methods=["GET"]),
        Route("/docs", docs, methods=["GET"]),
    ]


def _parameter(name: str, where: str, text: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": text,
        "schema": schema or {"type": "string"},
    }


def _answers(*answers: tuple[str, str, str], errors: tuple[int, ...], schema: str | None = None) -> dict[str, Any]:
    """The answers of an operation; `schema` is the component that its JSON follows."""
    out: dict[str, Any] = {}
    for code, text, media in answers:
        described = {"schema": reference(schema)} if schema is not None and media == _JSON else {}
        out.setdefault(code, {"description": text, "content": {}})["content"][media] = described
    meanings = {
        400: "the request is not understood: the message says what to change",
        401: "no key, or an unknown one",
        403: "the key may not do this",
        404: "nothing is known of that",
        408: "the request did not come in time",
        409: "another request of that kind is under way",
        413: "too large",
        415: "a content type or encoding that is not taken here",
        429: "too much at the moment, nothing of it was stored: wait for Retry-After seconds",
        503: "not possible at the moment: try again after Retry-After seconds",
    }
    # Whoever needs a key may also be told that a parameter is unknown, or to come later.
    for status in sorted({*errors, 400, 429} if 401 in errors else errors):
        out[str(status)] = {"description": meanings[status], "content": {_JSON: {"schema": reference("Error")}}}
    return out


_BYTES: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}


def _write(summary: str, json: str, media: tuple[str, ...] = (), where: dict[str, Any] | None = None) -> dict[str, Any]:
    """A write route that takes JSON of a schema, or bytes of other kinds."""
    sent = {_JSON: {"schema": reference(json)}} | dict.fromkeys(media, _BYTES)
    errors = (400, 401, 403, *((404,) if where else ()), 408, 413, 415, 429, 503)
    coding = _parameter("Content-Encoding", "header", "how the body is packed", {"enum": ["identity", "gzip", "zstd"]})
    return {
        "parameters": [*([where] if where else ()), coding],
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": sent},
            "responses": _answers(("200", "every accepted record is durable", _JSON), errors=errors, schema="Receipt"),
        },
    }


def openapi() -> dict[str, Any]:
    """The interface as an OpenAPI 3.1 document."""
    paging = [
        _parameter("since", "query", "from this time on (RFC 3339 or epoch ms)"),
        _parameter("until", "query", "before this time"),
        _parameter("order", "query", "newest or oldest first", {"enum": ["desc", "asc"]}),
        _parameter("limit", "query", "items a page", {"type": "integer", "minimum": 1, "maximum": 1000}),
        _parameter("cursor", "query", "`next` of the page before"),
    ]
    user = _parameter("user_id", "path", "the user")
    paths: dict[str, Any] = {
        f"/v1/{call}": _write(f"Segment and RudderStack: {call}", "Batch" if call == "batch" else "Message")
        for call in ("batch", *SEGMENT_CALLS)
    }
    log = _parameter("source", "path", "which log", {"enum": [str(s) for s in LOG_SOURCES]})
    paths["/v1/logs/{source}"] = _write(
        "Log lines, NDJSON or a JSON array", "Lines", ("text/plain", "application/x-ndjson"), log
    )
    paths["/v1/logs/{source}"]["parameters"] += [
        _parameter("X-Rebu-Producer", "header", "who sends: with the sequence, lines sent again are duplicates"),
        _parameter(
            "X-Rebu-Sequence",
            "header",
            "the number of the batch's first line at this producer",
            {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
        ),
    ]
    paths["/v1/logs"] = _write("OpenTelemetry logs (OTLP/HTTP)", "Logs", ("application/x-protobuf",))
    table = _parameter("table", "path", "which table", {"enum": [str(name) for name in TABLES]})
    paths["/v1/records/{table}"] = _write("Rows of the application database", "Rows", ("application/x-ndjson",), table)
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
            "responses": _answers(("200", "a page", _JSON), errors=(400, 401, 403, 404, 503), schema="History"),
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
            "responses": _answers(("200", "the profile", _JSON), errors=(400, 401, 403, 404, 503), schema="Profile"),
        }
    }
    paths["/v1/users/{user_id}/anonymous/{anonymous_id}"] = {
        "delete": {
            "summary": "Take a link back (admin)",
            "parameters": [user, _parameter("anonymous_id", "path", "the anonymous id")],
            "responses": _answers(("200", "taken back", _JSON), errors=(400, 401, 403, 404, 503), schema="Unlinked"),
        }
    }
    paths["/v1/users/{user_id}"]["delete"] = {
        "summary": "Erase a person, for good (admin)",
        "parameters": [user],
        "responses": _answers(("200", "what will be gone", _JSON), errors=(401, 403, 404, 503), schema="Erasure"),
    }
    for name, text, media in (
        ("export", "Everything about a person (admin)", "application/x-ndjson"),
        ("erasure", "How far the erasure of a person is (admin)", _JSON),
    ):
        paths[f"/v1/users/{{user_id}}/{name}"] = {
            "get": {
                "summary": text,
                "parameters": [user],
                "responses": _answers(("200", text, media), errors=(400, 401, 403, 404, 503), schema="Erasure"),
            }
        }
    paths |= _rides(user, paging)
    paths |= _warehouse()
    paths["/v1/deadletters"] = {
        "get": {
            "summary": "Refused records with their reasons (admin)",
            "parameters": [*paging, _parameter("source", "query", "one or more sources")],
            "responses": _answers(("200", "a page", _JSON), errors=(400, 401, 403, 503), schema="DeadLetters"),
        }
    }
    paths |= _accounts(paging)
    paths |= _about_itself()
    return {
        "openapi": "3.1.0",
        "info": {"title": "Rebu", "version": "1", "description": _ABOUT},
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "the key as user name, no password"},
            },
            "schemas": SCHEMAS,
        },
    }


def _about_itself() -> dict[str, Any]:
    """The paths about the platform itself: those that anybody may ask, its state, and administration."""
    paths: dict[str, Any] = {}
    open_paths: tuple[tuple[str, str, str, tuple[int, ...]], ...] = (
        ("/healthz", "Alive", _JSON, ()),
        ("/readyz", "Ready to serve", _JSON, (503,)),
        ("/metrics", "Metrics for Prometheus", "text/plain", (503,)),
        ("/openapi.json", "This document", _JSON, ()),
        ("/docs", "The interface, for people", "text/html", ()),
        ("/", "The dashboard", "text/html", ()),
    )
    for path, text, media, errors in open_paths:
        schema = None if path == "/openapi.json" else "Alive"
        responses = _answers(("200", text, media), errors=errors, schema=schema)
        paths[path] = {"get": {"summary": text, "security": [], "responses": responses}}
    for method, path, text, schema in (
        ("get", "/v1/status", "State of the platform", "Status"),
        ("post", "/v1/admin/flush", "Move the journal to the lake now (admin)", "Flushed"),
        ("post", "/v1/admin/reindex", "Rebuild the index from lake and journal (admin)", "Done"),
        ("post", "/v1/admin/backfill", "Compute every document anew (admin)", "Backfilled"),
        ("get", "/v1/admin/verify", "Compare what is served with a full recompute (admin)", "Verified"),
    ):
        responses = _answers(("200", text, _JSON), errors=(400, 401, 403, 503), schema=schema)
        paths[path] = {method: {"summary": text, "responses": responses}}
    paths[SESSION] = {
        "get": {
            "summary": "What the key or the cookie of this request may do",
            "responses": _answers(("200", "scopes", _JSON), errors=(401, 403), schema="Session"),
        },
        "post": {
            "summary": "Sign a browser in: a cookie that stands for the key, for reading",
            "responses": _answers(("200", "signed in", _JSON), errors=(401, 403), schema="Session"),
        },
        "delete": {
            "summary": "Sign a browser out",
            "responses": _answers(("200", "signed out", _JSON), errors=(401, 403), schema="Done"),
        },
    }
    wanted = {"type": "object", "properties": {"shards": {"type": "integer", "minimum": 1}}, "required": ["shards"]}
    paths["/v1/admin/scale"] = {
        "post": {
            "summary": "Have so many shards; partitions move by themselves, `/v1/status` shows how far it is (admin)",
            "requestBody": {"required": True, "content": {_JSON: {"schema": wanted}}},
            "responses": _answers(("200", "how many move", _JSON), errors=(400, 401, 403, 409, 503)),
        }
    }
    return paths


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
    confidence = _parameter("min_confidence", "query", "leave out less certain ones", {"type": "number"})
    message = _parameter("message_id", "path", "the message")

    def single(schema: str) -> dict[str, Any]:
        return _answers(("200", "what is known", _JSON), errors=(400, 401, 403, 404, 503), schema=schema)

    days = [
        _parameter("days", "query", "how many", {"type": "integer", "minimum": 1, "maximum": MOST_DAYS}),
        _parameter("tz", "query", "the time zone whose days are meant, by its IANA name; UTC unless told"),
        _parameter("today", "query", "the day that is not over yet; the current one unless told", {"format": "date"}),
    ]
    operations: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any]]] = {
        "/v1/stats/rides/daily": (
            "Rides by the day of their request, up to today, days without any included",
            days,
            _answers(("200", "the days, oldest first", _JSON), errors=(400, 401, 403, 503), schema="DailyRides"),
        ),
        "/v1/stats/rides/forecast": (
            "Rides that are expected of each day after today, with bands that hold 80 and 95 % of what comes",
            [
                _parameter(
                    "days", "query", "how many", {"type": "integer", "minimum": 1, "maximum": MOST_FORECAST_DAYS}
                ),
                *days[1:],
            ],
            _answers(("200", "the days, nearest first", _JSON), errors=(400, 401, 403, 503), schema="RideForecast"),
        ),
        "/v1/rides": (
            "Rides as a table, for models and notebooks",
            [*paging, *filters],
            _answers(*media, errors=(400, 401, 403, 503), schema="Rides"),
        ),
        "/v1/rides/{ride_id}": ("What is known of a ride", [ride], single("Ride")),
        "/v1/rides/{ride_id}/messages": (
            "Customers' messages about a ride",
            [ride, confidence],
            single("MessagesAbout"),
        ),
        "/v1/messages/{message_id}": ("A message and the ride that it is about", [message], single("CustomerMessage")),
        "/v1/users/{user_id}/rides": ("The rides of a user", [user, *paging], single("Rides")),
        "/v1/users/{user_id}/messages": ("The messages of a user", [user, *paging], single("CustomerMessages")),
    }
    return {
        path: {"get": {"summary": summary, "parameters": parameters, "responses": responses}}
        for path, (summary, parameters, responses) in operations.items()
    }


def _warehouse() -> dict[str, Any]:
    """The paths about the analytics database."""
    media = [("200", "its rows", kind) for kind in SQL_TYPES.values()]
    rebuild = _parameter("rebuild", "query", "make every table anew", {"type": "boolean"})
    return {
        "/v1/sql": {
            "post": {
                "summary": "One statement that reads, over the warehouse",
                "requestBody": {"required": True, "content": {_JSON: {"schema": reference("Statement")}}},
                "responses": _answers(*media, errors=(400, 401, 403, 413, 503), schema="Selected"),
            }
        },
        "/v1/admin/warehouse/load": {
            "post": {
                "summary": "Bring the warehouse up to date (admin)",
                "parameters": [rebuild],
                "responses": _answers(
                    ("200", "what is in it", _JSON), errors=(400, 401, 403, 409, 503), schema="Warehouse"
                ),
            }
        },
        "/v1/admin/warehouse/verify": {
            "get": {
                "summary": "Compare the warehouse with its sources (admin)",
                "responses": _answers(("200", "day by day", _JSON), errors=(400, 401, 403, 503), schema="Compared"),
            }
        },
    }


def _accounts(paging: list[dict[str, Any]]) -> dict[str, Any]:
    """The paths about what came in and what was refused."""
    source = _parameter("source", "query", f"one or more of {', '.join(Source)}")
    dry = _parameter("dry_run", "query", "only say what would become of them", {"type": "boolean"})
    chosen = _parameter("ids", "query", "only these dead letters, by id")
    return {
        "/v1/audit": {
            "get": {
                "summary": "Whether everything that came in is accounted for, by source and ten minutes of event time",
                "parameters": [*paging[:2], source],
                "responses": _answers(("200", "the accounts", _JSON), errors=(400, 401, 403, 503), schema="Audit"),
            }
        },
        "/v1/deadletters/replay": {
            "post": {
                "summary": "Try refused records again, a page of them (admin)",
                "parameters": [*paging[:2], *paging[3:], source, chosen, dry],
                "requestBody": {"required": False, "content": {_JSON: {"schema": reference("Replay")}}},
                "responses": _answers(
                    ("200", "what became of them", _JSON), errors=(400, 401, 403, 413, 429, 503), schema="Replayed"
                ),
            }
        },
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
