"""The oracle itself, on cases small enough to judge by hand."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.oracle import Delivery, Entry, Verdict, judge, owner

NINE = 1_772_442_000_000  # 2026-03-02T09:00:00Z
MINUTE = 60_000
HOUR = 60 * MINUTE


def at(minutes: float) -> str:
    """RFC 3339 text of so many minutes after nine."""
    whole = round(minutes * 60)
    return f"2026-03-02T{9 + whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.000Z"


def batch(*messages: Any, received_at: int = NINE + 2 * HOUR, **envelope: Any) -> Delivery:
    body = json.dumps({"batch": list(messages), **envelope}).encode()
    return Delivery("/v1/batch", {"Content-Type": "application/json"}, body, received_at)


def track(message_id: str, minutes: float, **fields: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Tapped", "messageId": message_id, "timestamp": at(minutes), **fields}


def identify(message_id: str, minutes: float, user: str, phone: str) -> dict[str, Any]:
    stamp = at(minutes)
    return {"type": "identify", "messageId": message_id, "userId": user, "anonymousId": phone, "timestamp": stamp}


def lines(source: str, *texts: str, received_at: int = NINE, headers: dict[str, str] | None = None) -> Delivery:
    body = "".join(text + "\n" for text in texts).encode()
    return Delivery(f"/v1/logs/{source}", {"Content-Type": "text/plain"} | (headers or {}), body, received_at)


def access(path: str, remote: str = "-", request: str = "-", clock: str = "09:00:10") -> str:
    return f'192.0.2.1 - {remote} [02/Mar/2026:{clock} +0000] "GET {path} HTTP/1.1" 200 5 "-" "app" "{request}"'


def ids(entries: list[Entry]) -> list[str | None]:
    return [entry.id for entry in entries]


def test_two_people_who_share_a_phone_keep_their_own_pasts() -> None:
    judged = judge(
        [
            batch(
                track("before-ada", 1, anonymousId="p"),
                identify("ada", 2, "ada", "p"),
                track("between", 3, anonymousId="p"),
                identify("ben", 4, "ben", "p"),
                track("after-ben", 5, anonymousId="p"),
            )
        ]
    )
    assert ids(judged.histories["ada"]) == ["before-ada", "ada"]
    assert ids(judged.histories["ben"]) == ["between", "ben", "after-ben"]
    assert [entry.matched_by for entry in judged.histories["ben"]] == ["anonymous_id", "user_id", "anonymous_id"]


def test_an_identify_that_arrives_late_counts_from_its_own_time() -> None:
    events = batch(track("early", 1, anonymousId="p"), track("late", 9, anonymousId="p"))
    first = batch(identify("ben", 8, "ben", "p"))
    late = batch(identify("ada", 2, "ada", "p"), received_at=NINE + 5 * HOUR)
    for order in ([events, first, late], [late, first, events]):
        judged = judge(order)
        assert ids(judged.histories["ada"]) == ["early", "ada"]
        assert ids(judged.histories["ben"]) == ["ben", "late"]


def test_an_alias_ties_its_previous_id_and_a_track_with_both_ids_ties_nothing() -> None:
    alias = {"type": "alias", "messageId": "al", "previousId": "p", "userId": "ada", "timestamp": at(3)}
    judged = judge([batch(track("one", 1, anonymousId="p"), alias, track("two", 2, anonymousId="q", userId="ada"))])
    assert ids(judged.histories["ada"]) == ["one", "two", "al"]
    judged = judge([batch(track("one", 1, anonymousId="q"), track("two", 2, anonymousId="q", userId="ada"))])
    assert ids(judged.histories["ada"]) == ["two"]
    assert ids(judged.unattributed) == ["one"]


def test_a_link_taken_back_gives_the_events_to_the_next_link() -> None:
    sent = [batch(track("e", 1, anonymousId="p"), identify("ada", 2, "ada", "p"), identify("ben", 3, "ben", "p"))]
    judged = judge(sent, unlinked=[("ada", "p")])
    assert ids(judged.histories["ada"]) == ["ada"]
    assert ids(judged.histories["ben"]) == ["e", "ben"]


def test_owner_takes_the_link_at_the_very_time() -> None:
    links = [(10, "a", "ada"), (20, "b", "ben")]
    assert [owner(links, time) for time in (9, 10, 11, 20, 21)] == ["ada", "ada", "ben", "ben", "ben"]
    assert owner([], 5) is None


NGINX = '2026/03/02 09:00:09 [error] 7#7: *1 upstream timed out, client: 192.0.2.1, request_id: "r1"'
JSON_ERROR = '{"timestamp":"2026-03-02T09:00:11Z","level":"warn","request_id":"r1","error":{"name":"Deadlock"}}'


@pytest.mark.parametrize("first", ["error", "access"])
def test_an_error_line_finds_its_user_through_the_access_line_in_either_order(first: str) -> None:
    error, known = lines("error", NGINX, JSON_ERROR), lines("access", access("/rides?x=1", "ada", "r1"))
    judged = judge([error, known] if first == "error" else [known, error])
    found = [(entry.event_time - NINE, entry.kind, entry.name, entry.matched_by) for entry in judged.histories["ada"]]
    assert found == [
        (9_000, "server_error", "error", "request_id"),
        (10_000, "server_access", "GET /rides", "user_id"),
        (11_000, "server_error", "Deadlock", "request_id"),
    ]


def test_a_request_id_learned_after_the_hour_comes_too_late() -> None:
    known = access("/users/ada/rides", request="r1")
    judged = judge([lines("error", NGINX), lines("access", known, received_at=NINE + HOUR + 1)])
    assert [entry.kind for entry in judged.unattributed] == ["server_error"]
    judged = judge([lines("error", NGINX), lines("access", known, received_at=NINE + HOUR)])
    assert judged.unattributed == []


def test_a_server_line_is_matched_by_user_then_path_then_request() -> None:
    both = access("/v2/users/ben/rides", "ada")
    in_request = NGINX.replace("request_id", 'request: "PUT /users/ben/rides HTTP/1.1", request_id')
    named = NGINX + ', user_id: "cy"'
    known = access("/users/dee/rides", request="r1")
    judged = judge([lines("access", both, known), lines("error", in_request, named, NGINX)])
    matched = {user: [entry.matched_by for entry in entries] for user, entries in judged.histories.items()}
    assert matched == {"ada": ["user_id"], "ben": ["path"], "cy": ["user_id"], "dee": ["request_id", "path"]}


def test_the_same_id_for_the_same_user_is_one_event() -> None:
    once, other = track("m", 1, userId="ada"), track("m", 2, userId="ben")
    judged = judge([batch(once, other, once), batch(once)])
    assert judged.verdicts == [Verdict(2, 1, 0), Verdict(0, 1, 0)]
    assert [ids(judged.histories[user]) for user in ("ada", "ben")] == [["m"], ["m"]]


def test_lines_are_told_apart_by_sequence_or_by_place() -> None:
    line = access("/healthz")
    numbered = {"X-Rebu-Producer": "edge", "X-Rebu-Sequence": "5"}
    judged = judge(
        [
            lines("access", line, line),
            lines("access", line),
            lines("access", line, line, headers=numbered),
            lines("access", line, headers=numbered | {"X-Rebu-Sequence": "6"}),
            lines("access", line, headers=numbered | {"X-Rebu-Sequence": "7"}),
        ]
    )
    assert [(verdict.accepted, verdict.duplicate) for verdict in judged.verdicts] == [
        (2, 0), (0, 1), (2, 0), (0, 1), (1, 0),
    ]  # fmt: skip


def test_event_time_is_receipt_less_the_delay_that_the_sender_measured() -> None:
    received = NINE + 3 * HOUR
    wrong_clock = track("w", 60, userId="ada", sentAt=at(62))
    judged = judge(
        [
            batch(wrong_clock, track("e", 61, userId="ada"), received_at=received, sentAt=at(62)),
            batch(track("future", 63, userId="ada", sentAt=at(62)), received_at=received),
            batch(track("plain", 5, userId="ada"), received_at=received),
            batch({"type": "page", "messageId": "untimed", "userId": "ada", "sentAt": at(1)}, received_at=received),
        ]
    )
    times = {entry.id: entry.event_time for entry in judged.histories["ada"]}
    assert times == {
        "w": received - 2 * MINUTE,
        "e": received - MINUTE,
        "future": received,
        "plain": NINE + 5 * MINUTE,
        "untimed": received,
    }


def test_times_come_in_every_form_that_is_allowed() -> None:
    forms = ["2026-03-02T10:00:00+01:00", NINE, "2026-03-02T09:00:00.0009Z", "2026-03-02t04:30:00-04:30"]
    messages = [track(str(number), 0, userId="ada") | {"timestamp": form} for number, form in enumerate(forms)]
    judged = judge([batch(*messages)])
    assert [entry.event_time for entry in judged.histories["ada"]] == [NINE] * 4


@pytest.mark.parametrize(
    "message",
    [
        track("m", 1),
        track("m", 1, userId="", anonymousId=None),
        track("m", 1, userId="ada") | {"timestamp": "2026-02-31T10:00:00Z"},
        track("m", 1, userId="ada") | {"timestamp": True},
        track("m", 1, userId="ada") | {"timestamp": -5},
        track("m", 1, userId="ada", sentAt="soon"),
        track("m", 1, userId="ada", properties={"x": "y" * 33_000}),
        "text",
        None,
    ],
)
def test_a_bad_record_does_not_spoil_its_siblings(message: Any) -> None:
    judged = judge([batch(message, track("good", 2, userId="ada"))])
    assert judged.verdicts == [Verdict(1, 0, 1)]
    assert ids(judged.histories["ada"]) == ["good"]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("access", access("/x")[:60]),
        ("access", access("/x").replace("02/Mar", "31/Feb")),
        ("error", "2026/02/30 09:00:00 [error] 7#7: x"),
        ("error", "2026/03/0"),
        ("error", JSON_ERROR[:-4]),
        ("app-errors", '{"type":"error","messageId":"m"}'),
    ],
)
def test_bad_lines_are_rejected(source: str, line: str) -> None:
    assert judge([lines(source, line)]).verdicts == [Verdict(0, 0, 1)]


def test_names_follow_the_kind_of_record() -> None:
    error = {"type": "error", "messageId": "x", "userId": "ada", "timestamp": at(9), "error": {"name": "Crash"}}
    messages = [
        track("a", 1, userId="ada"),
        {"type": "screen", "name": "Home", "messageId": "b", "userId": "ada", "timestamp": at(2)},
        {"type": "page", "messageId": "c", "userId": "ada", "timestamp": at(3)},
        {"type": "group", "messageId": "d", "userId": "ada", "timestamp": at(4)},
    ]
    apache = "[Mon Mar 02 09:10:00.500000 2026] [core:notice] [pid 7] user said nothing"
    judged = judge([batch(*messages), lines("app-errors", json.dumps(error)), lines("error", apache)])
    assert [(entry.kind, entry.name) for entry in judged.histories["ada"]] == [
        ("app_event", "Tapped"),
        ("app_event", "Home"),
        ("app_event", "page"),
        ("app_event", "group"),
        ("app_error", "Crash"),
    ]
    assert [(entry.name, entry.event_time - NINE) for entry in judged.unattributed] == [("notice", 10 * MINUTE + 500)]


def test_packed_bodies_single_routes_and_broken_requests() -> None:
    message = track("m", 1, userId="ada")
    packed = Delivery("/v1/track", {"content-encoding": "gzip"}, gzip.compress(json.dumps(message).encode()), NINE)
    broken = Delivery("/v1/batch", {}, b'{"batch": [', NINE)
    judged = judge([packed, broken])
    assert judged.verdicts == [Verdict(1, 0, 0), Verdict(refused="invalid_json")]


def test_each_record_may_have_a_receipt_of_its_own() -> None:
    body = "".join(json.dumps(track(name, 1, userId="ada", sentAt=at(2))) + "\n" for name in "ab").encode()
    judged = judge([Delivery("/v1/logs/app-events", {}, body, [NINE, NINE + HOUR])])
    assert [entry.event_time for entry in judged.histories["ada"]] == [NINE - MINUTE, NINE + HOUR - MINUTE]
