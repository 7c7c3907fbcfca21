"""What requests and answers are made of, as JSON Schema: the components of the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from rebu_ray.ingest.http import SEGMENT_CALLS
from rebu_ray.process.quality import STATUSES
from rebu_ray.records import HISTORY_KINDS, MatchedBy, Source

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_WHOLE: Final[Schema] = {"type": "integer"}
_NUMBER: Final[Schema] = {"type": "number"}
_AMOUNT: Final[Schema] = {"type": "number", "minimum": 0}
_SHARE: Final[Schema] = {"type": "number", "minimum": 0, "maximum": 1}
_TRUTH: Final[Schema] = {"type": "boolean"}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_DATE: Final[Schema] = {"type": "string", "format": "date"}
_ANY: Final[Schema] = {}
_OBJECT: Final[Schema] = {"type": "object"}


def reference(name: str) -> Schema:
    """A component by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": [str(value) for value in values]}


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _object(optional: Schema | None = None, **fields: Schema) -> Schema:
    """An object that has all of `fields`, and those of `optional` perhaps, and others at will."""
    found: Schema = {"type": "object", "required": [*fields], "properties": {**fields, **(optional or {})}}
    return found


def _said(**fields: Schema) -> Schema:
    """An object that a client sends, of which nothing is required: what lacks is refused record by record."""
    return {"type": "object", "properties": fields}


def _page(name: str) -> Schema:
    return _object(items=_list(reference(name)), next=_or_null(_TEXT))


_LINK: Final = _object(
    status=_one_of("linked", "ambiguous", "none"),
    confidence=_SHARE,
    reasons=_list(reference("Reason")),
)
_SHOWN: Final[Schema] = {
    "message_id": _TEXT,
    "channel": _or_null(_TEXT),
    "direction": _or_null(_TEXT),
    "sent_at": _or_null(_TIME),
    "subject": _or_null(_TEXT),
    "body": _or_null(_TEXT),
}
_SENT_TIME: Final[Schema] = {"type": ["string", "number"], "description": "RFC 3339, or epoch seconds or milliseconds"}
_MESSAGE: Final = _said(
    type=_one_of(*SEGMENT_CALLS),
    messageId=_TEXT,
    userId=_TEXT,
    anonymousId=_TEXT,
    event=_TEXT,
    timestamp=_SENT_TIME,
    sentAt=_SENT_TIME,
    properties=_OBJECT,
    traits=_OBJECT,
    context=_OBJECT,
)

REQUESTS: Final[Schema] = {
    "Message": {**_MESSAGE, "description": "a message of Segment's"},
    "Batch": {
        **_object({"sentAt": _SENT_TIME, "writeKey": _TEXT, "context": _OBJECT}, batch=_list(reference("Message"))),
        "description": "messages of Segment's, each with its `type`",
    },
    "Lines": _list(_said(id=_TEXT, user_id=_TEXT, request_id=_TEXT, time=_SENT_TIME, message=_TEXT)),
    "Rows": _list(_said(user_id=_TEXT, ride_id=_TEXT, message_id=_TEXT, updated_at=_TEXT)),
    "Logs": _said(
        resourceLogs=_list(
            _said(resource=_OBJECT, scopeLogs=_list(_said(logRecords=_list(_said(body=_said(stringValue=_TEXT))))))
        )
    ),
    "Statement": {
        **_object({"format": _one_of("json", "csv", "parquet", "arrow")}, sql=_TEXT),
        "additionalProperties": False,
    },
    "Replay": _said(
        source={"anyOf": [_TEXT, _list(_TEXT)]},
        ids={"anyOf": [_TEXT, _list(_TEXT)]},
        since=_SENT_TIME,
        until=_SENT_TIME,
        dry_run=_TRUTH,
        limit={"type": "integer", "minimum": 1, "maximum": 1000},
        cursor=_TEXT,
    ),
}
"""What is sent."""

ANSWERS: Final[Schema] = {
    "Error": _object(code={"type": "string", "pattern": "^[a-z_]+$"}, message={"type": "string", "minLength": 10}),
    "Receipt": _object(
        {"suppressed": _COUNT},
        success={"const": True},
        accepted=_COUNT,
        duplicate=_COUNT,
        rejected=_COUNT,
        position=_TEXT,
        results=_list(_object(id=_TEXT, status=_one_of("duplicate", "rejected", "suppressed"), reason=_TEXT)),
    ),
    "Record": _object(
        user_id=_TEXT,
        kind=_one_of(*HISTORY_KINDS),
        id=_TEXT,
        name=_TEXT,
        timestamp=_TIME,
        received_at=_TIME,
        source=_one_of(*Source),
        anonymous_id=_or_null(_TEXT),
        matched_by=_one_of(*MatchedBy),
        body=_ANY,
    ),
    "History": _page("Record"),
    "Profile": _object(
        user_id=_TEXT,
        account=_or_null(_OBJECT),
        traits=_OBJECT,
        identified_at=_or_null(_TIME),
        anonymous_ids=_list(_object(anonymous_id=_TEXT, since=_TIME)),
    ),
    "Unlinked": _object(success={"const": True}, unlinked=_TEXT, position=_TEXT),
    "Erasure": _object(
        {"success": {"const": True}},
        status=_one_of("begun", "erasing", "erased"),
        tombstone=_TEXT,
        asked_by=_TEXT,
        asked_at=_TIME,
        completed_at=_or_null(_TIME),
        counts=_OBJECT,
    ),
    "Ride": _object(
        ride_id=_TEXT,
        status={**_or_null(_TEXT), "description": f"of those that are known: {', '.join(sorted(STATUSES))}"},
        city=_or_null(_TEXT),
        user=_or_null(_object(user_id=_TEXT, name=_or_null(_TEXT))),
        driver=_or_null(_object(driver_id=_TEXT, name=_or_null(_TEXT))),
        **{name: _or_null(_TIME) for name in ("requested_at", "accepted_at", "picked_up_at", "ended_at")},
        fare_cents=_or_null(_WHOLE),
        currency=_or_null(_TEXT),
        distance_m=_or_null(_WHOLE),
        **{name: _or_null(_object(lat=_NUMBER, lon=_NUMBER)) for name in ("pickup", "destination", "dropoff")},
        **{name: _or_null(_NUMBER) for name in ("rating", "wait_s", "duration_s")},
        requested_distance_m=_or_null(_NUMBER),
        destination_gap_m=_or_null(_NUMBER),
        destination_matched=_or_null(_TRUTH),
        progress=_or_null(_SHARE),
        errors=_object(
            app=_COUNT,
            server=_COUNT,
            items=_list(_object(id=_TEXT, kind=_one_of(*HISTORY_KINDS), name=_TEXT, timestamp=_TIME)),
        ),
        premature=_TRUTH,
        cause=_or_null(_one_of("driver", "rider", "app", "unknown")),
        quality=_SHARE,
        flags=_list(_TEXT),
        messages=_object(linked=_COUNT, ambiguous=_COUNT),
        version=_COUNT,
        known_at=_TIME,
        computed_at=_TIME,
    ),
    "Rides": _page("Ride"),
    "DailyRides": _object(
        items=_list(_object(date=_DATE, rides=_COUNT, completed=_COUNT, premature=_COUNT, partial=_TRUTH))
    ),
    "ForecastDay": _object(date=_DATE, **dict.fromkeys(("mean", "lo80", "hi80", "lo95", "hi95"), _AMOUNT)),
    "RideForecast": _object(
        model=_TEXT,
        trained_from=_or_null(_DATE),
        trained_to=_or_null(_DATE),
        items=_list(reference("ForecastDay")),
        backtest=_object(
            windows=_COUNT,
            horizon=_COUNT,
            mase=_or_null(_AMOUNT),
            mase_weekday_mean=_or_null(_AMOUNT),
            coverage80=_or_null(_SHARE),
            coverage95=_or_null(_SHARE),
        ),
        status=_one_of("fitted", "stale", "fitting"),
        made_at=_or_null(_TIME),
        note=_or_null(_TEXT),
        past=_list({"allOf": [reference("ForecastDay"), _object(made=_DATE)]}),
    ),
    "Reason": _object(signal=_TEXT, detail=_TEXT, weight=_NUMBER),
    "MessageAbout": _object(**_SHOWN, link=_LINK),
    "MessagesAbout": _object(ride_id=_TEXT, items=_list(reference("MessageAbout"))),
    "CustomerMessage": _object(
        **_SHOWN,
        user_id=_or_null(_TEXT),
        thread_id=_or_null(_TEXT),
        link={
            "allOf": [
                _LINK,
                _object(
                    ride_id=_or_null(_TEXT),
                    candidates=_list(_object(ride_id=_TEXT, confidence=_SHARE, reasons=_list(reference("Reason")))),
                    since=_TIME,
                    history=_list(
                        _object(status=_TEXT, ride_id=_or_null(_TEXT), confidence=_SHARE, since=_TIME, until=_TIME)
                    ),
                ),
            ]
        },
        version=_COUNT,
        known_at=_TIME,
        computed_at=_TIME,
    ),
    "CustomerMessages": _page("CustomerMessage"),
    "DeadLetter": _object(id=_TEXT, source=_one_of(*Source), received_at=_TIME, reason=_TEXT, record=_ANY),
    "DeadLetters": _page("DeadLetter"),
    "Replayed": _object(
        dry_run=_TRUTH,
        replayed=_COUNT,
        duplicate=_COUNT,
        rejected=_COUNT,
        suppressed=_COUNT,
        position=_TEXT,
        results=_list(
            _object(
                {"record_id": _TEXT, "reason": _TEXT},
                id=_TEXT,
                source=_one_of(*Source),
                status=_one_of("replayed", "duplicate", "rejected", "suppressed"),
            )
        ),
        next=_or_null(_TEXT),
    ),
    "Audit": _object(
        balanced=_TRUTH,
        items=_list(
            _object(
                source=_one_of(*Source),
                bucket=_TIME,
                **dict.fromkeys(("received", "stored", "duplicate", "dead_letter", "suppressed"), _COUNT),
                balanced=_TRUTH,
            )
        ),
        problems=_list(_TEXT),
    ),
    "Alive": _object(status=_TEXT),
    "Status": _object(
        {"appdb": _OBJECT},
        platform_id=_TEXT,
        partitions=_COUNT,
        shards=_list(_object(slot=_COUNT, index=_TEXT)),
        suspended=_list(
            _object(
                source=_one_of(*Source),
                senders=_COUNT,
                state=_one_of("open", "half_open"),
                until=_TIME,
                records=_COUNT,
                refused=_COUNT,
            )
        ),
        redis=_object(used_memory_bytes=_COUNT),
    ),
    "Session": _object(scopes=_list(_one_of("write", "read", "admin")), until=_or_null(_TIME)),
    "Flushed": _object(success={"const": True}, segments=_COUNT),
    "Done": _object(success={"const": True}),
    "Backfilled": _object(rides=_COUNT, messages=_COUNT, changed=_COUNT),
    "Selected": _object(items=_list(_OBJECT), truncated=_TRUTH),
    "Warehouse": _object(
        path=_TEXT,
        changed=_TRUTH,
        rebuilt=_TRUTH,
        rides=_COUNT,
        messages=_COUNT,
        users=_COUNT,
        drivers=_COUNT,
        events=_COUNT,
        seconds=_NUMBER,
        notes=_list(_TEXT),
    ),
    "Compared": _object(
        equal=_TRUTH,
        days=_list(_object(table=_TEXT, date=_or_null(_TEXT), source_rows=_COUNT, warehouse_rows=_COUNT, equal=_TRUTH)),
        rules=_list(_TEXT),
        examples=_OBJECT,
    ),
    "Verified": _object(equal=_TRUTH, partitions=_list(_object(partition=_COUNT, equal=_TRUTH))),
}
"""What is answered."""

SCHEMAS: Final[Schema] = {**ANSWERS, **REQUESTS}
