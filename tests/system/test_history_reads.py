"""Reading a history: pages, filters, bounds, refusals, and a long one that is partly in the lake."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from tests.system.running import Item, Running, path_of

pytestmark = pytest.mark.system

NOW = time.time_ns() // 1_000_000
HOT_EVENTS = 200
"""How many records of a stream this platform keeps in Redis."""


def event(user: str, number: int, **fields: Any) -> Item:
    """An event of a minute of its own; its id sorts as its number does."""
    said = {"type": "track", "event": f"Event {number % 5}", "messageId": f"{user}-{number:05d}", "userId": user}
    return said | {"timestamp": NOW - 60_000 * (5000 - number)} | fields


def numbers(items: list[Item]) -> list[int]:
    return [int(item["id"].rpartition("-")[2]) for item in items]


def test_pages_go_on_where_they_ended_while_late_records_arrive(rebu_up: Running) -> None:
    for order in ("asc", "desc"):
        user = f"r1-{order}"
        present = list(range(0, 300, 2))
        late = list(range(1, 300, 2))
        rng = random.Random(order)
        rng.shuffle(late)
        rebu_up.batch(event(user, number) for number in present)
        seen: list[int] = []
        params: dict[str, str | int] = {"order": order, "limit": 7}
        while True:
            page = rebu_up.page(user, **params)
            seen += numbers(page["items"])
            if page["next"] is None:
                break
            params["cursor"] = page["next"]
            rebu_up.batch(event(user, late.pop()) for _ in range(min(3, len(late))))
        assert seen == sorted(set(seen), reverse=order == "desc")
        assert set(present) <= set(seen)
        rebu_up.batch(event(user, number) for number in late)
        assert numbers(rebu_up.history(user, order="asc", limit=1000)) == list(range(300))


def test_records_of_one_millisecond_are_each_shown_once(rebu_up: Running) -> None:
    rebu_up.batch(event("r2", number, timestamp=NOW) for number in range(100))
    for order, expected in (("asc", list(range(100))), ("desc", list(range(99, -1, -1)))):
        for limit in (1, 9, 100):
            assert numbers(rebu_up.history("r2", order=order, limit=limit)) == expected


def test_a_page_holds_what_was_asked_for_and_says_whether_more_follows(rebu_up: Running) -> None:
    rebu_up.batch(event("r3", number) for number in range(120))
    default = rebu_up.page("r3")
    assert numbers(default["items"]) == list(range(119, 19, -1))
    whole = rebu_up.page("r3", limit=120)
    assert (len(whole["items"]), whole["next"]) == (120, None)
    some = rebu_up.page("r3", limit=119)
    assert some["next"] is not None
    rest = rebu_up.page("r3", limit=119, cursor=some["next"])
    assert (numbers(rest["items"]), rest["next"]) == ([0], None)
    item = whole["items"][0]
    assert list(item) == [
        "user_id", "name", "kind", "id", "timestamp", "received_at", "source", "anonymous_id", "matched_by", "body",
    ]  # fmt: skip
    assert item["body"] == event("r3", 119)


def test_filters_and_bounds_choose_what_is_shown(rebu_up: Running) -> None:
    user, phone = "r4", "r4-phone"
    rebu_up.batch(event(user, number) for number in range(50))
    errors = [
        {"type": "error", "messageId": f"r4-e-{n:05d}", "userId": user, "error": {"name": "Crash"}} for n in range(3)
    ]
    rebu_up.write("/v1/logs/app-errors", [error | {"timestamp": NOW - n} for n, error in enumerate(errors)])
    line = {"timestamp": NOW - 30_000, "method": "GET", "path": "/rides", "status": 500, "user_id": user}
    rebu_up.write("/v1/logs/access", [line])
    fault = {"timestamp": NOW - 20_000, "level": "error", "message": "boom", "user_id": user}
    rebu_up.write("/v1/logs/error", [fault])
    rebu_up.batch(
        [{"type": "identify", "messageId": "r4-i-00050", "userId": user, "anonymousId": phone, "timestamp": NOW}]
    )
    rebu_up.batch([event(user, 60) | {"userId": None, "anonymousId": phone, "timestamp": NOW - 10}])

    def count(**params: str | int) -> int:
        found = {order: rebu_up.history(user, order=order, limit=4, **params) for order in ("asc", "desc")}
        assert found["asc"] == found["desc"][::-1]
        return len(found["asc"])

    assert count() == 57
    assert count(kind="app_event") == 52
    assert count(kind="app_error") == 3
    assert count(kind="server_access,server_error") == 2
    assert count(name="Event 3") == 10
    assert count(name="Event 3", kind="app_error") == 0
    assert count(name="Event") == 0
    assert count(name="Crash") == 3
    assert count(source="app-errors") == 3
    assert count(source="access,error") == 2
    assert count(source="app-events", kind="server_error") == 0
    low, high = event(user, 10)["timestamp"], event(user, 20)["timestamp"]
    assert numbers(rebu_up.history(user, since=low, until=high, order="asc")) == list(range(10, 20))
    stamp = rebu_up.page(user, since=low, limit=1, order="asc")["items"][0]["timestamp"]
    assert numbers(rebu_up.history(user, since=stamp, until=high, limit=3, order="asc")) == list(range(10, 20))
    offset = stamp.replace("Z", "+00:00")
    assert numbers(rebu_up.history(user, until=offset, limit=3, order="asc")) == list(range(10))
    assert count(since=low, until=low) == 0
    assert count(since=high, until=low) == 0
    assert count(until=1000) == 0


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"limit": "0"}, "invalid_limit"),
        ({"limit": "1001"}, "invalid_limit"),
        ({"limit": "ten"}, "invalid_limit"),
        ({"limit": "1.5"}, "invalid_limit"),
        ({"limit": ""}, "invalid_limit"),
        ({"order": "up"}, "invalid_order"),
        ({"since": "yesterday"}, "invalid_time"),
        ({"until": "2026-02-31T00:00:00Z"}, "invalid_time"),
        ({"kind": "app_event,nonsense"}, "unknown_kind"),
        ({"kind": "dead_letter"}, "unknown_kind"),
        ({"source": "nowhere"}, "unknown_source"),
        ({"cursor": "nonsense"}, "invalid_cursor"),
        ({"cursor": "AAAA"}, "invalid_cursor"),
        ({"cursor": "ü"}, "invalid_cursor"),
        ({"min_position": "%%%"}, "invalid_position"),
        ({"min_position": "nonsense"}, "invalid_position"),
        ({"page": "2"}, "unknown_parameter"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(rebu_up: Running, params: dict[str, str], code: str) -> None:
    rebu_up.batch([event("r5", 1)])
    answer = rebu_up.get("/v1/users/r5/events", params)
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["code", "message"]
    assert answer.json()["code"] == code
    assert len(answer.json()["message"]) > 20


def test_a_cursor_is_for_its_own_query(rebu_up: Running) -> None:
    rebu_up.batch([event(user, number) for number in range(10) for user in ("r6", "r6-other")])
    asked: dict[str, str | int] = {"limit": 3, "order": "asc", "kind": "app_event"}
    cursor = rebu_up.page("r6", **asked)["next"]
    assert numbers(rebu_up.page("r6", **asked, cursor=cursor)["items"]) == [3, 4, 5]
    assert numbers(rebu_up.page("r6", **(asked | {"limit": 2}), cursor=cursor)["items"]) == [3, 4]
    others: list[tuple[str, dict[str, str | int]]] = [
        ("r6-other", asked),
        ("r6", asked | {"order": "desc"}),
        ("r6", asked | {"kind": "app_error"}),
        ("r6", asked | {"name": "Event 1"}),
        ("r6", asked | {"since": 5}),
        ("r6", {"limit": 3, "order": "asc"}),
    ]
    for user, other in others:
        answer = rebu_up.get(f"{path_of(user)}/events", other | {"cursor": cursor})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


def test_who_may_read_and_what_there_is_to_read(rebu_up: Running) -> None:
    rebu_up.batch([event("r7", 1)])
    path = "/v1/users/r7/events"
    assert rebu_up.http.get(path).status_code == 401
    for key, status, code in ((rebu_up.write_key, 403, "forbidden"), ("nonsense", 401, "unauthorized")):
        answer = rebu_up.get(path, key=key)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert rebu_up.get(path, key=rebu_up.admin_key).status_code == 200
    assert rebu_up.http.get(path, auth=(rebu_up.read_key, "")).status_code == 200
    assert rebu_up.get("/v1/deadletters").status_code == 403
    assert rebu_up.get("/v1/users/r7-nobody/events").json()["code"] == "unknown_user"
    for method, missing, status in (("GET", "/v1/nonsense", 404), ("PUT", path, 405), ("GET", "/v1/batch", 405)):
        answer = rebu_up.http.request(method, missing, headers={"Authorization": f"Bearer {rebu_up.read_key}"})
        assert answer.status_code == status
        assert set(answer.json()) == {"code", "message"}
    for open_path in ("/healthz", "/readyz", "/docs", "/", "/openapi.json"):
        assert rebu_up.http.get(open_path).status_code == 200
    metrics = rebu_up.get("/metrics").text
    assert "rebu_shard_stored_total{slot=" in metrics


# -- long histories -----------------------------------------------------------------------------------------------


def test_a_long_history_is_read_whole_across_redis_and_lake(rebu_up: Running) -> None:
    rng = random.Random(8)
    user, phone = "r8", "r8-phone"
    there = list(range(0, 1300, 2))
    rebu_up.batch(event(user, number) for number in there[:400])
    rebu_up.batch(event(user, number) | {"userId": None, "anonymousId": phone} for number in there[400:])
    rebu_up.batch(
        [{"type": "identify", "messageId": f"{user}-01300", "userId": user, "anonymousId": phone, "timestamp": NOW}]
    )
    there.append(1300)

    def check() -> None:
        found = rebu_up.history(user, order="asc", limit=333)
        assert numbers(found) == there
        for order in ("asc", "desc"):
            assert sorted(numbers(rebu_up.history(user, order=order, limit=91))) == there
        some = [number for number in there[:-1] if number % 5 == 4]
        assert numbers(rebu_up.history(user, order="asc", name="Event 4", limit=50)) == some
        low, high = event(user, 501)["timestamp"], event(user, 1001)["timestamp"]
        within = [number for number in there if 501 <= number < 1001]
        assert numbers(rebu_up.history(user, order="asc", since=low, until=high, limit=64)) == within

    check()
    rebu_up.flush()
    assert redis_size(rebu_up, user) == HOT_EVENTS
    check()
    # Late ones, below what Redis still holds, are visible at once; so they are after they have moved, too.
    late = rng.sample(range(1, 1200, 2), 60)
    for number in late:
        receipt = rebu_up.batch([event(user, number)])
        there.append(number)
        assert number in numbers(rebu_up.history(user, order="asc", limit=1000, min_position=receipt["position"]))
    there.sort()
    check()
    rebu_up.flush()
    check()
    assert rebu_up.batch(event(user, number) for number in there[:300])["duplicate"] == 300


def redis_size(platform: Running, user: str) -> int:
    """How many records of a user's own stream Redis holds, asked of Redis itself."""
    url = json.loads((platform.data_dir / "platform.json").read_text())["redis_url"]
    with redis.Redis.from_url(url) as client:
        [key] = client.scan_iter(match=f"rebu*h:u:{user}", count=10_000)
        return int(client.zcard(key))


def test_a_rebuilt_index_gives_the_same_answers(rebu_up: Running) -> None:
    user = "r9"
    rebu_up.batch(event(user, number) for number in range(450))
    rebu_up.flush()
    rebu_up.batch(event(user, number) for number in range(450, 500))
    before = rebu_up.history(user, limit=77)
    letters = rebu_up.deadletters()
    rebu_up.admin("POST", "/v1/admin/reindex")
    assert numbers(before) == list(range(499, -1, -1))
    assert rebu_up.history(user, limit=77) == before
    assert rebu_up.deadletters() == letters
    rebu_up.flush()
    assert rebu_up.history(user, limit=77) == before
    for method in ("flush", "reindex"):
        assert rebu_up.http.post(f"/v1/admin/{method}").status_code == 401
        refused = rebu_up.http.post(f"/v1/admin/{method}", headers={"Authorization": f"Bearer {rebu_up.read_key}"})
        assert refused.status_code == 403


def test_what_was_acknowledged_is_in_every_answer_while_rows_move_to_the_lake(rebu_up: Running) -> None:
    """Readers, a writer and flushes at once: an answer never lacks what was written before it was asked for."""
    user = "r10"
    acknowledged = [0]

    def write() -> None:
        for start in range(0, 1500, 30):
            rebu_up.batch(event(user, number) for number in range(start, start + 30))
            acknowledged[0] = start + 30

    def flush(done: threading.Event) -> int:
        count = 0
        while not done.is_set():
            rebu_up.flush()
            count += 1
        return count

    def read(done: threading.Event, seed: int) -> int:
        rng, count = random.Random(seed), 0
        while not done.is_set():
            least = acknowledged[0]
            found = numbers(rebu_up.history(user, order=rng.choice(("asc", "desc")), limit=rng.randint(100, 1000)))
            assert set(range(least)) <= set(found), sorted(set(range(least)) - set(found))
            assert len(set(found)) == len(found)
            count += 1
        return count

    with finished() as done, ThreadPoolExecutor(4) as pool:
        writing = pool.submit(write)
        others = [pool.submit(flush, done), pool.submit(read, done, 1), pool.submit(read, done, 2)]
        writing.result()
        done.set()
        assert all(other.result() > 1 for other in others)
    assert numbers(rebu_up.history(user, order="asc")) == list(range(1500))


@contextmanager
def finished() -> Iterator[threading.Event]:
    """Set at the end, however it comes."""
    done = threading.Event()
    try:
        yield done
    finally:
        done.set()
