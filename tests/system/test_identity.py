"""Whose record it is: phones, shared phones, aliases, links taken back, and server lines in every order of arrival."""

from __future__ import annotations

import itertools
import json
import random
import time
from typing import Any

import pytest

from tests.oracle import Delivery, judge
from tests.system.running import Item, Running, ids, path_of

pytestmark = pytest.mark.system

NOW = time.time_ns() // 1_000_000
MINUTE = 60_000


def at(minutes: float) -> int:
    """So many minutes into the hour before these tests."""
    return NOW + round((minutes - 60) * MINUTE)


def track(record_id: str, minutes: float, **fields: Any) -> Item:
    return {"type": "track", "event": "Tapped", "messageId": record_id, "timestamp": at(minutes), **fields}


def identify(record_id: str, minutes: float, user: str, phone: str) -> Item:
    named = {"userId": user, "anonymousId": phone}
    return {"type": "identify", "messageId": record_id, "timestamp": at(minutes), **named}


def shown(items: list[Item]) -> list[tuple[str, str]]:
    return [(item["id"], item["matched_by"]) for item in items]


def clock(minutes: float) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(at(minutes) / 1000))


def access(path: str, minutes: float, remote: str = "-", request: str = "-") -> str:
    return f'192.0.2.1 - {remote} [{clock(minutes)}] "GET {path} HTTP/1.1" 200 5 "-" "app" "{request}"'


def nginx(minutes: float, request: str, words: str = "upstream timed out", more: str = "") -> str:
    when = time.strftime("%Y/%m/%d %H:%M:%S", time.gmtime(at(minutes) / 1000))
    return f'{when} [error] 7#7: *1 {words}, client: 192.0.2.1, server: api, request_id: "{request}"{more}'


# -- phones -------------------------------------------------------------------------------------------------------


def test_what_a_phone_said_before_its_user_was_known_is_theirs(rebu_up: Running) -> None:
    rebu_up.batch([track("i1-before", 1, anonymousId="i1-phone")])
    assert rebu_up.history("i1-ada") == []
    unknown = rebu_up.get("/v1/users/i1-ada/events")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_user")
    assert rebu_up.get("/v1/users/i1-ada").status_code == 404

    position = rebu_up.batch([identify("i1-known", 5, "i1-ada", "i1-phone")])["position"]
    assert shown(rebu_up.history("i1-ada", order="asc", min_position=position)) == [
        ("i1-before", "anonymous_id"),
        ("i1-known", "user_id"),
    ]
    late = [track("i1-late", 3, anonymousId="i1-phone"), track("i1-after", 9, anonymousId="i1-phone")]
    position = rebu_up.batch(late)["position"]
    found = rebu_up.history("i1-ada", order="asc", min_position=position)
    assert ids(found) == ["i1-before", "i1-late", "i1-known", "i1-after"]
    assert {item["anonymous_id"] for item in found} == {"i1-phone"}
    profile = rebu_up.get("/v1/users/i1-ada").json()
    assert [phone["anonymous_id"] for phone in profile["anonymous_ids"]] == ["i1-phone"]


def test_two_people_who_share_a_phone_keep_their_own_pasts(rebu_up: Running) -> None:
    shared = "i2-phone"
    position = rebu_up.batch(
        [
            track("i2-1", 1, anonymousId=shared),
            identify("i2-2", 2, "i2-ada", shared),
            track("i2-3", 3, anonymousId=shared),
            identify("i2-4", 4, "i2-ben", shared),
            track("i2-5", 5, anonymousId=shared),
            track("i2-6", 6, anonymousId=shared, userId="i2-ada"),
        ]
    )["position"]
    assert ids(rebu_up.history("i2-ada", order="asc", min_position=position)) == ["i2-1", "i2-2", "i2-6"]
    assert ids(rebu_up.history("i2-ben", order="asc", min_position=position)) == ["i2-3", "i2-4", "i2-5"]
    # A third one, heard of last, had the phone in between.
    position = rebu_up.batch([identify("i2-7", 3.5, "i2-cleo", shared)])["position"]
    assert ids(rebu_up.history("i2-ben", order="asc", min_position=position)) == ["i2-4", "i2-5"]
    assert ids(rebu_up.history("i2-cleo", order="asc", min_position=position)) == ["i2-3", "i2-7"]
    assert ids(rebu_up.history("i2-ada", order="asc", min_position=position)) == ["i2-1", "i2-2", "i2-6"]


def test_an_alias_ties_the_id_that_it_names(rebu_up: Running) -> None:
    alias = {"type": "alias", "messageId": "i3-2", "previousId": "i3-web", "userId": "i3-ada", "timestamp": at(2)}
    position = rebu_up.batch([track("i3-1", 1, anonymousId="i3-web"), alias, track("i3-3", 3, anonymousId="i3-web")])[
        "position"
    ]
    assert shown(rebu_up.history("i3-ada", order="asc", min_position=position)) == [
        ("i3-1", "anonymous_id"),
        ("i3-2", "user_id"),
        ("i3-3", "anonymous_id"),
    ]


def test_a_link_taken_back_and_given_again(rebu_up: Running) -> None:
    rebu_up.batch(
        [
            track("i4-1", 1, anonymousId="i4-phone"),
            identify("i4-2", 2, "i4-ada", "i4-phone"),
            identify("i4-3", 3, "i4-ben", "i4-phone"),
        ]
    )
    assert ids(rebu_up.history("i4-ada", order="asc")) == ["i4-1", "i4-2"]
    link = f"{path_of('i4-ada')}/anonymous/i4-phone"
    for key in (rebu_up.read_key, rebu_up.write_key):
        refused = rebu_up.http.delete(link, headers={"Authorization": f"Bearer {key}"})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    position = rebu_up.admin("DELETE", link)["position"]
    assert ids(rebu_up.history("i4-ada", min_position=position)) == ["i4-2"]
    assert ids(rebu_up.history("i4-ben", order="asc", min_position=position)) == ["i4-1", "i4-3"]
    assert rebu_up.get("/v1/users/i4-ada").json()["anonymous_ids"] == []
    again = rebu_up.http.delete(link, headers={"Authorization": f"Bearer {rebu_up.admin_key}"})
    assert (again.status_code, again.json()["code"]) == (404, "unknown_link")

    # The same message again says nothing new; a new one does.
    assert rebu_up.batch([identify("i4-2", 2, "i4-ada", "i4-phone")])["duplicate"] == 1
    assert ids(rebu_up.history("i4-ada")) == ["i4-2"]
    position = rebu_up.batch([identify("i4-4", 2.5, "i4-ada", "i4-phone")])["position"]
    assert ids(rebu_up.history("i4-ada", order="asc", min_position=position)) == ["i4-1", "i4-2", "i4-4"]
    assert ids(rebu_up.history("i4-ben", min_position=position)) == ["i4-3"]


def test_links_outlive_the_index_and_the_journal(rebu_up: Running) -> None:
    rebu_up.batch([track("i5-1", 1, anonymousId="i5-phone"), identify("i5-2", 2, "i5-ada", "i5-phone")])
    rebu_up.batch([identify("i5-3", 3, "i5-ben", "i5-phone"), track("i5-4", 4, anonymousId="i5-phone")])
    rebu_up.admin("DELETE", f"{path_of('i5-ben')}/anonymous/i5-phone")
    rebu_up.flush()
    rebu_up.admin("POST", "/v1/admin/reindex")
    assert ids(rebu_up.history("i5-ada", order="asc")) == ["i5-1", "i5-2", "i5-4"]
    assert ids(rebu_up.history("i5-ben", order="asc")) == ["i5-3"]


@pytest.mark.parametrize("seed", range(3))
def test_any_links_in_any_order_of_arrival(rebu_up: Running, seed: int) -> None:
    """Random people and phones: whatever arrives first, histories are the oracle's, also after links are taken back."""
    rng = random.Random(seed)
    users = [f"i6-{seed}-u{number}" for number in range(5)]
    phones = [f"i6-{seed}-p{number}" for number in range(4)]
    moments = rng.sample(range(at(0), at(59)), 150)
    messages: list[Item] = []
    for number, moment in enumerate(moments):
        user, phone = rng.choice(users), rng.choice(phones)
        message: Item = {"messageId": f"i6-{seed}-{number}", "timestamp": moment, "type": "track", "event": "Tapped"}
        match rng.randrange(6):
            case 0:
                message |= {"type": "identify", "userId": user, "anonymousId": phone}
            case 1:
                message |= {"type": "alias", "userId": user, "previousId": phone}
            case 2:
                message |= {"userId": user, "anonymousId": phone}
            case _:  # at times in the very millisecond of another message
                message |= {"anonymousId": phone, "timestamp": rng.choice((moment, rng.choice(moments)))}
        messages.append(message)
    rng.shuffle(messages)
    sent: list[Delivery] = []
    position = ""
    while messages:
        part, messages = messages[: (size := rng.randint(1, 40))], messages[size:]
        position = rebu_up.batch(part)["position"]
        sent.append(Delivery("/v1/batch", {}, json.dumps({"batch": part}).encode(), NOW))

    def check(unlinked: list[tuple[str, str]], position: str) -> None:
        wanted = judge(sent, unlinked).histories
        for user in users:
            found = rebu_up.history(user, order="asc", limit=rng.randint(5, 100), min_position=position)
            entries = [(entry.event_time, entry.id, entry.matched_by) for entry in wanted.get(user, [])]
            assert [item["id"] for item in found] == [entry_id for _, entry_id, _ in entries]
            assert [item["matched_by"] for item in found] == [matched for _, _, matched in entries]

    check([], position)
    linked = {(user, phone) for user in users for phone in linked_phones(rebu_up, user)}
    assert len(linked) > 10
    unlinked = rng.sample(sorted(linked), 5)
    for user, phone in unlinked:
        position = rebu_up.admin("DELETE", f"{path_of(user)}/anonymous/{phone}")["position"]
        check(unlinked[: unlinked.index((user, phone)) + 1], position)


def linked_phones(platform: Running, user: str) -> list[str]:
    return [phone["anonymous_id"] for phone in platform.get(f"/v1/users/{user}").json()["anonymous_ids"]]


@pytest.mark.parametrize("user", ["i7 Ünï/cødé?#%2F&=+", "i7-%00-as-text", "i7-'\"\\", "i7-" + "x" * 500, "42"])
def test_any_id_that_a_sender_may_use_can_be_asked_for(rebu_up: Running, user: str) -> None:
    phone = f"{user[:400]} phone/1"
    position = rebu_up.batch([track(f"{user[:400]}-1", 1, anonymousId=phone), identify("i7-2", 2, user, phone)])[
        "position"
    ]
    found = rebu_up.history(user, order="asc", min_position=position)
    assert ids(found) == [f"{user[:400]}-1", "i7-2"]
    assert {item["user_id"] for item in found} == {user}
    assert rebu_up.get(path_of(user)).json()["user_id"] == user


# -- server lines -------------------------------------------------------------------------------------------------


def test_a_server_line_names_its_user_itself_or_by_login_or_by_path(rebu_up: Running) -> None:
    user = "i8-ada"
    text = access("/rides", 1, remote=user)
    explicit = {"timestamp": at(2), "method": "GET", "path": "/users/i8-eve/rides", "status": 200, "user_id": user}
    paths = [access(f"/v2/users/{user}/rides?page=1", 3), access("/users/i8-eve/x", 4, remote=user)]
    error = nginx(5, "-", more=f', user_id: "{user}"')
    fault = {"time": at(6), "level": "error", "message": "boom", "request": f"PUT /users/{user}/rides HTTP/1.1"}
    rebu_up.lines("access", text, *paths)
    rebu_up.write("/v1/logs/access", [explicit])
    rebu_up.lines("error", error)
    position = rebu_up.write("/v1/logs/error", [fault])["position"]
    found = rebu_up.history(user, order="asc", min_position=position)
    assert [(item["kind"], item["name"], item["matched_by"]) for item in found] == [
        ("server_access", "GET /rides", "user_id"),
        ("server_access", "GET /users/i8-eve/rides", "user_id"),
        ("server_access", f"GET /v2/users/{user}/rides", "path"),
        ("server_access", "GET /users/i8-eve/x", "user_id"),
        ("server_error", "error", "user_id"),
        ("server_error", "error", "path"),
    ]
    assert rebu_up.history("i8-eve") == []


@pytest.mark.parametrize("order", ["error first", "access first", "one request each, error first"])
def test_a_request_id_ties_lines_to_their_user_in_either_order(rebu_up: Running, order: str) -> None:
    name = order.replace(" ", "-").replace(",", "")
    for number in range(20):  # whatever partitions the user and the request are in
        user, request = f"i9-{name}-{number}", f"i9-{name}-req-{number}"
        known = access("/rides", 3, remote=user, request=request)
        errors = [nginx(1, request, "first"), nginx(2, request, "second")]
        fault = {"timestamp": at(4), "level": "warn", "request_id": request, "error": {"name": "Deadlock"}}
        if order == "access first":
            rebu_up.lines("access", known)
            rebu_up.lines("error", *errors)
            position = rebu_up.write("/v1/logs/error", [fault])["position"]
        elif order == "error first":
            rebu_up.lines("error", *errors)
            rebu_up.write("/v1/logs/error", [fault])
            position = rebu_up.lines("access", known)["position"]
        else:
            for line in errors:
                rebu_up.lines("error", line)
            position = rebu_up.lines("access", known)["position"]
            position = rebu_up.write("/v1/logs/error", [fault])["position"]
        found = rebu_up.history(user, order="asc", min_position=position)
        assert [(item["name"], item["matched_by"]) for item in found] == [
            ("error", "request_id"),
            ("error", "request_id"),
            ("GET /rides", "user_id"),
            ("Deadlock", "request_id"),
        ]
        assert [item["body"].get("message") for item in found[:2]] == ["first", "second"]
    # The same lines again change nothing, on either side.
    assert rebu_up.lines("access", known)["duplicate"] == 1
    assert rebu_up.lines("error", errors[0])["duplicate"] == 1
    assert len(rebu_up.history(user)) == 4


def test_lines_that_name_nobody_are_counted_and_attached_when_their_request_is_known(rebu_up: Running) -> None:
    before = waiting(rebu_up)
    requests = [f"i10-req-{number}" for number in range(12)]
    receipt = rebu_up.lines("error", *(nginx(1, request) for request in requests))
    assert receipt["accepted"] == 12
    assert rebu_up.lines("access", access("/healthz", 1), access("/", 2))["accepted"] == 2  # these name no request
    assert waiting(rebu_up) == before + 12
    known = [access("/rides", 2, remote="i10-ada", request=request) for request in requests[:7]]
    position = rebu_up.lines("access", *known)["position"]
    found = rebu_up.history("i10-ada", min_position=position)
    assert [item["matched_by"] for item in found] == ["user_id"] * 7 + ["request_id"] * 7
    assert waiting(rebu_up) == before + 5
    position = rebu_up.lines("access", *(access(f"/users/i10-ben/{n}", 2, request=r) for n, r in enumerate(requests)))
    found = rebu_up.history("i10-ben", min_position=position["position"])
    assert sorted(item["matched_by"] for item in found) == ["path"] * 12 + ["request_id"] * 5
    assert waiting(rebu_up) == before


def waiting(platform: Running) -> int:
    return sum(int(shard["unattributed_waiting"]) for shard in platform.fresh_status()["shards"])


def test_the_first_user_of_a_request_keeps_its_lines(rebu_up: Running) -> None:
    for first, second in itertools.permutations(("i11-ada", "i11-ben")):
        request = f"i11-{first}"
        rebu_up.lines("access", access("/a", 1, remote=first, request=request))
        rebu_up.lines("access", access("/b", 2, remote=second, request=request))
        position = rebu_up.lines("error", nginx(3, request))["position"]
        assert "server_error" in {item["kind"] for item in rebu_up.history(first, min_position=position)}
