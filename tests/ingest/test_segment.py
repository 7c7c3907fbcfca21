from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest.dialects import parse_segment, segment, write_key
from rebu_ray.ingest.dialects.times import text
from rebu_ray.records import MAX_ID_BYTES, MAX_RECORD_BYTES, BadRequest, Kind, MatchedBy, Record, Refusal, Source
from tests.ingest.promises import RECEIVED_AT, body, check, only, refused, seeded

CALLS = ["track", "identify", "page", "screen", "group", "alias"]


def message(**fields: Any) -> dict[str, Any]:
    base = {
        "type": "track",
        "event": "Ride Requested",
        "messageId": "m-1",
        "userId": "u-1",
        "timestamp": "2026-03-01T08:00:00.000Z",
        "properties": {"city": "Berlin"},
    }
    return {name: value for name, value in (base | fields).items() if value is not ...}


def batch(*messages: Any, **fields: Any) -> bytes:
    return json.dumps({"batch": messages, **fields}).encode()


def one(**fields: Any) -> Record:
    return only(parse_segment(batch(message(**fields)), RECEIVED_AT))


def reason(**fields: Any) -> str:
    parsed = parse_segment(batch(message(**fields)), RECEIVED_AT)
    check(parsed)
    return refused(parsed).reason


def test_a_track_message() -> None:
    raw = b'{ "type":"track", "event":"Ride Requested","messageId":"m-1" ,"userId":"u-1","anonymousId":"a-1"}'
    record = only(parse_segment(b'{"batch":[ ' + raw + b' ],"writeKey":"k"}', RECEIVED_AT))
    assert record == Record(
        kind=Kind.APP_EVENT,
        id="m-1",
        name="Ride Requested",
        source=Source.APP_EVENTS,
        event_time=RECEIVED_AT,
        received_at=RECEIVED_AT,
        body=raw,
        user_id="u-1",
        anonymous_id="a-1",
        matched_by=MatchedBy.USER_ID,
    )


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"type": "track"}, "Ride Requested"),
        ({"type": "track", "event": ...}, "track"),
        ({"type": "track", "event": ""}, "track"),
        ({"type": "track", "event": 7}, "7"),
        ({"type": "track", "event": ["a"]}, "track"),
        ({"type": "page", "name": "Home"}, "Home"),
        ({"type": "page", "name": None}, "page"),
        ({"type": "screen", "name": "Ride"}, "Ride"),
        ({"type": "screen"}, "screen"),
        ({"type": "identify", "name": "Ann"}, "identify"),
        ({"type": "group", "groupId": "g"}, "group"),
        ({"type": "alias", "previousId": "a-1"}, "alias"),
        (
            {"type": "error", "event": ..., "error": {"name": "NullPointerException", "fatal": True}},
            "NullPointerException",
        ),
        ({"type": "error", "event": ..., "error": {}}, "error"),
        ({"type": "error", "event": ..., "error": "boom"}, "error"),
    ],
)
def test_names(fields: dict[str, Any], name: str) -> None:
    assert one(**fields).name == name


def test_an_app_error_is_one() -> None:
    assert one(type="error", error={"name": "Crash"}).kind is Kind.APP_ERROR
    assert one(type="track", error={"name": "Crash"}).kind is Kind.APP_EVENT


@pytest.mark.parametrize(
    ("fields", "sent_at", "expected"),
    [
        ({"timestamp": "2026-03-01T08:00:00Z"}, None, "2026-03-01T08:00:00.000Z"),
        ({"timestamp": "2026-03-01T08:00:00Z"}, "2026-03-01T08:00:03Z", "2026-03-01T08:00:07.000Z"),
        # A phone whose clock is an hour ahead, and one that is years behind: only the difference counts.
        ({"timestamp": "2026-03-01T09:00:00Z"}, "2026-03-01T09:00:03Z", "2026-03-01T08:00:07.000Z"),
        ({"timestamp": "2001-01-01T00:00:00Z"}, "2001-01-01T00:00:03Z", "2026-03-01T08:00:07.000Z"),
        ({"timestamp": "2026-03-01T08:00:05Z"}, "2026-03-01T08:00:00Z", "2026-03-01T08:00:10.000Z"),
        ({"timestamp": "1970-01-02T00:00:00Z"}, "9999-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        ({"timestamp": ...}, None, "2026-03-01T08:00:10.000Z"),
        ({"timestamp": None}, "2026-03-01T08:00:03Z", "2026-03-01T08:00:10.000Z"),
        (
            {"timestamp": ..., "originalTimestamp": "2026-03-01T08:00:01Z"},
            "2026-03-01T08:00:03Z",
            "2026-03-01T08:00:08.000Z",
        ),
        ({"timestamp": 1772352000000, "sentAt": 1772352003000}, None, "2026-03-01T08:00:07.000Z"),
        # The batch's sentAt counts, not the message's.
        ({"sentAt": "2026-03-01T08:00:09Z"}, "2026-03-01T08:00:03Z", "2026-03-01T08:00:07.000Z"),
        ({"timestamp": "2026-03-01T09:00:00.5+01:00"}, None, "2026-03-01T08:00:00.500Z"),
    ],
)
def test_event_times(fields: dict[str, Any], sent_at: str | None, expected: str) -> None:
    record = only(parse_segment(batch(message(**fields), sentAt=sent_at), RECEIVED_AT))
    assert text(record.event_time) == expected


@pytest.mark.parametrize("field", ["timestamp", "originalTimestamp", "sentAt"])
@pytest.mark.parametrize("value", ["", "yesterday", True, [1], {"a": 1}, -5, 1e300, "0001-01-01T00:00:00Z"])
def test_a_time_that_is_none(field: str, value: Any) -> None:
    fields: dict[str, Any] = {"timestamp": ...} if field == "originalTimestamp" else {}
    assert reason(**(fields | {field: value})).startswith(f"invalid_time: {field} must be RFC 3339")


@pytest.mark.parametrize("sent_at", [b'"later"', b"1e400", b"NaN", rb'"\ud800"', b"{}"])
def test_a_batch_with_a_sent_at_that_is_none(sent_at: bytes) -> None:
    parsed = parse_segment(b'{"batch":[%b,5],"sentAt":%b}' % (json.dumps(message()).encode(), sent_at), RECEIVED_AT)
    check(parsed)
    assert [(type(entry), entry.id) for entry in parsed] == [(Refusal, "m-1"), (Refusal, None)]


@pytest.mark.parametrize(
    ("fields", "user_id", "anonymous_id", "matched_by"),
    [
        ({"anonymousId": "a-1"}, "u-1", "a-1", MatchedBy.USER_ID),
        ({"userId": ..., "anonymousId": "a-1"}, None, "a-1", MatchedBy.ANONYMOUS_ID),
        ({"userId": "", "anonymousId": "a-1"}, None, "a-1", MatchedBy.ANONYMOUS_ID),
        ({"userId": None, "anonymousId": 5}, None, "5", MatchedBy.ANONYMOUS_ID),
        ({"userId": 12345}, "12345", None, MatchedBy.USER_ID),
        ({"userId": 101.0}, "101", None, MatchedBy.USER_ID),
        ({"userId": "日本-é-👍"}, "日本-é-👍", None, MatchedBy.USER_ID),
        ({"userId": "x" * MAX_ID_BYTES}, "x" * MAX_ID_BYTES, None, MatchedBy.USER_ID),
    ],
)
def test_ids(fields: dict[str, Any], user_id: str | None, anonymous_id: str | None, matched_by: MatchedBy) -> None:
    record = one(**fields)
    assert (record.user_id, record.anonymous_id, record.matched_by) == (user_id, anonymous_id, matched_by)


@pytest.mark.parametrize("fields", [{"userId": ...}, {"userId": ""}, {"userId": None, "anonymousId": ""}])
def test_nobody(fields: dict[str, Any]) -> None:
    assert reason(**fields) == "missing_id: userId or anonymousId must say whose record this is"


@pytest.mark.parametrize("field", ["userId", "anonymousId", "messageId", "previousId"])
@pytest.mark.parametrize(
    "value",
    ["x" * (MAX_ID_BYTES + 1), "é" * (MAX_ID_BYTES // 2 + 1), "a\0b", True, ["u"], {"id": 1}, 2**70, 10**400, 1e400],
)
def test_ids_that_are_none(field: str, value: Any) -> None:
    raw = json.dumps(message(type="alias", previousId="a-1") | {field: value}).replace("Infinity", "1e400")
    parsed = parse_segment(b'{"batch":[%b]}' % raw.encode(), RECEIVED_AT)
    check(parsed)
    assert refused(parsed).reason.startswith(f"invalid_id: {field} must be")


def test_a_record_without_an_id_gets_one_that_stays() -> None:
    twice = [parse_segment(batch(message(messageId=...), message(messageId="")), RECEIVED_AT + n) for n in (0, 5000)]
    ids = [[entry.id for entry in parsed] for parsed in twice]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2


@pytest.mark.parametrize(
    ("fields", "links"),
    [
        ({"type": "identify", "anonymousId": "a-1"}, "a-1"),
        ({"type": "identify"}, None),
        ({"type": "identify", "anonymousId": "u-1"}, None),
        ({"type": "identify", "userId": ..., "anonymousId": "a-1"}, None),
        ({"type": "alias", "previousId": "a-1"}, "a-1"),
        ({"type": "alias", "previousId": 7}, "7"),
        ({"type": "alias", "previousId": "a-1", "anonymousId": "a-2"}, "a-1"),
        ({"type": "alias", "anonymousId": "a-2"}, "a-2"),
        ({"type": "alias"}, None),
        ({"type": "track", "anonymousId": "a-1"}, None),
        ({"type": "group", "anonymousId": "a-1", "previousId": "a-2"}, None),
    ],
)
def test_links(fields: dict[str, Any], links: str | None) -> None:
    assert one(**fields).links == links


@pytest.mark.parametrize("kind", [..., "", None, "tracks", "Track", 5, ["track"], {"a": 1}])
def test_unknown_types(kind: Any) -> None:
    assert reason(type=kind).startswith("unknown_type: type must be one of alias, error, ")


@pytest.mark.parametrize("call", CALLS)
def test_single_calls(call: str) -> None:
    fields = message(type=..., anonymousId="a-1", previousId="a-2", name="Home")
    expected = {"track": "Ride Requested", "page": "Home", "screen": "Home"}.get(call, call)
    record = only(parse_segment(json.dumps(fields).encode(), RECEIVED_AT, call))
    assert (record.name, record.user_id, record.links) == (
        expected,
        "u-1",
        {"identify": "a-1", "alias": "a-2"}.get(call),
    )
    assert only(parse_segment(json.dumps(fields | {"type": "screen"}).encode(), RECEIVED_AT, call)).name == "Home"
    assert refused(parse_segment(json.dumps(fields | {"type": "x"}).encode(), RECEIVED_AT, call)).id == "m-1"


def test_a_single_call_may_say_when_it_was_sent() -> None:
    raw = json.dumps(message(sentAt="2026-03-01T08:00:03Z")).encode()
    assert only(parse_segment(b"\xef\xbb\xbf\n" + raw + b"\n", RECEIVED_AT, "track")).event_time == RECEIVED_AT - 3000


def test_a_history_never_shows_a_write_key() -> None:
    raw = b'{"type":"track","userId":"u-1", "n":1.50,"writeKey":"secret","nested":{"a" : [1]}}'
    for parsed in (
        parse_segment(raw, RECEIVED_AT, "track"),
        parse_segment(b'{"batch":[' + raw + b'],"writeKey":"secret"}', RECEIVED_AT),
    ):
        assert only(parsed).body == b'{"type":"track","userId":"u-1","n":1.50,"nested":{"a" : [1]}}'


def test_a_record_may_have_32_kilobytes() -> None:
    def sized(size: int) -> dict[str, Any]:
        return message(pad="x" * (size - len(json.dumps(message(pad="")))))

    parsed = parse_segment(batch(sized(MAX_RECORD_BYTES), sized(MAX_RECORD_BYTES + 1), sized(10**6)), RECEIVED_AT)
    check(parsed)
    assert [type(entry) for entry in parsed] == [Record, Refusal, Refusal]
    assert isinstance(parsed[1], Refusal)
    assert parsed[1].reason.startswith("too_large: the record has 32769 bytes")
    assert parsed[1].id == "m-1"
    assert len(parsed[1].raw) == MAX_RECORD_BYTES + 1


BAD = [
    b"5",
    b"null",
    b"[]",
    b'"text"',
    b"{}",
    b'{"type":"track"}',
    b'{"type":"track","userId":"u","n":NaN}',
    b'{"type":"track","userId":"u","n":-Infinity}',
    rb'{"type":"track","userId":"\ud800"}',
    rb'{"type":"track","userId":"u","n":"\udc00 \ud800"}',
    b'{"type":"track","userId":"\xff"}',
    b'{"type":"track","userId":"u","n":"\xed\xa0\x80"}',
    b'{"type":"track","userId":"u","\xff":1}',
    b'{"type":"track","userId":"u","n":' + b"[" * 400 + b"]" * 400 + b"}",
    b'{"type":"track","userId":"u","n":' + b"[" * 9999 + b"]" * 9999 + b"}",
    b'{"type":"track","userId":"u","n":' + b"1" * 4400 + b"}",
]


@pytest.mark.parametrize("bad", BAD, ids=lambda raw: repr(raw[:44]))
def test_one_bad_message_does_not_spoil_its_siblings(bad: bytes) -> None:
    good = json.dumps(message()).encode()
    parsed = parse_segment(b'{"sentAt":null,"batch":[%b, %b ,%b],"writeKey":"k"}' % (good, bad, good), RECEIVED_AT)
    check(parsed)
    assert [type(entry) for entry in parsed] == [Record, Refusal, Record]
    assert isinstance(parsed[1], Refusal)
    assert parsed[1].raw == bad
    assert write_key(b'{"batch":[%b],"writeKey":"k"}' % bad) == "k"


@pytest.mark.parametrize("bad", [raw for raw in BAD if raw.startswith(b'{"type')], ids=lambda raw: repr(raw[:44]))
def test_a_bad_single_message_is_refused_like_one_in_a_batch(bad: bytes) -> None:
    check(parse_segment(bad, RECEIVED_AT, "track"))
    refused(parse_segment(bad, RECEIVED_AT, "track"))


@pytest.mark.parametrize(
    "harmless",
    [
        rb'{"type":"track","userId":"u","n":"\u0000 \ud83d\ude00 \/"}',
        '{"type":"track","userId":"u","n":"日本 👍"}'.encode(),
        b'{"type":"track","userId":"u","n":[1e400, 123456789012345678901234567890]}',
        b'{"type":"track","userId":"u","n":' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"type":"track","userId":"u","userId":"v"}',
        b'{"type":"track","userId":"u","timestamp":1772352000000,"error":5,"name":{},"properties":null}',
    ],
)
def test_odd_messages_are_stored_as_they_came(harmless: bytes) -> None:
    parsed = parse_segment(b'{"batch":[%b]}' % harmless, RECEIVED_AT)
    check(parsed)
    assert only(parsed).body == harmless


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json",
        b"[]",
        b"5",
        b"{}",
        b'{"batch":{}}',
        b'{"batch":null}',
        b'{"batch":5, "n":NaN}',
        b'{"batch":[{"type":"track"',
        b'{"batch":[{}]',
        b'{"batch":[{"a":}]}',
        b'{"batch":[{}]}}',
        b"\xff\xfe",
        b'{"batch":' + b"[" * 100_000,
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_a_body_that_is_no_batch(raw: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_segment(raw, RECEIVED_AT)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    "raw", [b"", b"not json", b"[]", b"5", b'{"type":', b'{"a":1} {"b":2}', b"{" * 5000 + b"}" * 4000]
)
def test_a_body_that_is_no_message(raw: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_segment(raw, RECEIVED_AT, "track")
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_an_empty_batch_is_one() -> None:
    assert parse_segment(b'{"batch":[]}', RECEIVED_AT) == []
    assert parse_segment(b'\xef\xbb\xbf {"batch":[]}', RECEIVED_AT) == []


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (b'{"writeKey":"k","batch":[{"a":1}]}', "k"),
        (b'{"batch":[{"writeKey":"inner"}]}', None),
        (b'{"writeKey":""}', None),
        (b'{"writeKey":5}', None),
        (b'{"writeKey":null}', None),
        (b'{"a":NaN,"writeKey":5}', None),
        (b"[]", None),
        (b"", None),
        (b"\xff", None),
        (b'{"writeKey":"\xff"}', None),
    ],
)
def test_write_keys(raw: bytes, key: str | None) -> None:
    assert write_key(raw) == key


def test_messages_as_the_siblings_of_the_python_sdks_send_them() -> None:
    browser = {
        "timestamp": "2026-03-01T08:00:00.000Z",
        "integrations": {"Segment.io": True},
        "anonymousId": "5c2f3a66-6dd1-4b0d-b7a4-1d3c1a9ad2f0",
        "type": "page",
        "properties": {"path": "/", "title": "Rebu"},
        "name": None,
        "context": {"page": {"path": "/"}, "userAgent": "Mozilla/5.0", "locale": "de-DE"},
        "messageId": "ajs-next-1772352000000-x",
        "userId": None,
        "writeKey": "k",
        "_metadata": {"bundled": ["Segment.io"]},
    }
    android = {
        "messageId": "1772352000000-f2c0c0e4",
        "channel": "mobile",
        "context": {"os": {"name": "Android"}, "traits": {"anonymousId": "9f1a", "userId": "u-9"}},
        "type": "screen",
        "event": "Ride",
        "name": "Ride",
        "originalTimestamp": "2026-03-01T13:30:00.000+05:30",
        "anonymousId": "9f1a",
        "userId": "u-9",
        "properties": {"automatic": True},
        "integrations": {"All": True},
    }
    parsed = parse_segment(batch(browser, android, sentAt="2026-03-01T08:00:04.000Z", writeKey="k"), RECEIVED_AT)
    check(parsed)
    first, second = parsed
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert (first.name, first.user_id, first.anonymous_id) == ("page", None, browser["anonymousId"])
    assert (second.name, second.user_id, second.anonymous_id) == ("Ride", "u-9", "9f1a")
    assert first.event_time == second.event_time == RECEIVED_AT - 4000
    assert "writeKey" not in body(first)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(2**64)])
    | st.floats()
    | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
fields = [
    "type",
    "messageId",
    "userId",
    "anonymousId",
    "previousId",
    "timestamp",
    "sentAt",
    "event",
    "name",
    "error",
    "writeKey",
]
odd_messages = st.dictionaries(
    st.sampled_from(fields), anything | st.sampled_from([*CALLS, "error", "u-1", 5]), max_size=8
)


@seeded
@given(st.lists(odd_messages | anything, max_size=4), st.none() | anything)
def test_every_message_is_accepted_or_refused(messages: list[Any], sent_at: Any) -> None:
    parsed = parse_segment(batch(*messages, sentAt=sent_at), RECEIVED_AT)
    assert len(parsed) == len(messages)
    check(parsed)
    for sent, entry in zip(messages, parsed, strict=True):
        if isinstance(entry, Record) and "writeKey" not in sent:
            assert entry.body == json.dumps(sent).encode()
        elif isinstance(entry, Refusal):
            assert entry.raw == json.dumps(sent).encode()
    assert parsed == parse_segment(batch(*messages, sentAt=sent_at), RECEIVED_AT)


@seeded
@given(odd_messages, st.sampled_from(CALLS))
def test_every_single_message_is_accepted_or_refused(sent: dict[str, Any], call: str) -> None:
    parsed = parse_segment(json.dumps(sent).encode(), RECEIVED_AT, call)
    assert len(parsed) == 1
    check(parsed)


def test_more_messages_than_a_request_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "MAX_RECORDS", 3)
    assert len(parse_segment(b'{"batch":[{},{},{}]}', RECEIVED_AT)) == 3
    with pytest.raises(BadRequest) as caught:
        parse_segment(b'{"batch":[{},{},{},{}]}', RECEIVED_AT)
    assert (caught.value.status, caught.value.code) == (413, "too_large")
