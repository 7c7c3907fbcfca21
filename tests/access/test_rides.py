"""The routes about single rides and messages over a real index: what they answer, page by page, what they refuse."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.records import Record
from rebu_ray.store.index import position_key, position_value
from tests.access.serving import ADMIN, READ, WRITE, Backends, reading, refused, write
from tests.access.worlds import World, take
from tests.conftest import Valkey
from tests.process.path import message, ride, user
from tests.records import NOW, said, seeded
from tests.store.disk import PARTITIONS, unsynced

ROUTES = ("/v1/rides/r1", "/v1/rides/r1/messages", "/v1/messages/m1", "/v1/users/ada/rides", "/v1/users/ada/messages")
LISTS = ("rides", "messages")


def get(
    world: World, path: str, params: dict[str, str] | None = None, headers: dict[str, str] = READ
) -> httpx.Response:
    return reading(world, lambda client: client.get(path, headers=headers, params=params))


def names(items: Iterable[dict[str, Any]]) -> list[str]:
    return [item.get("message_id") or item["ride_id"] for item in items]


def test_a_ride_is_shown_with_all_that_the_contract_says(world: World) -> None:
    take(world, user(), ride(), message(body="My ride r1 was bad"))
    found = get(world, "/v1/rides/r1")
    assert found.headers["content-type"] == "application/json"
    shown = found.json()
    expected = {
        "ride_id": "r1",
        "status": "completed",
        "city": "Riga",
        "user": {"user_id": "ada", "name": "Ada"},
        "requested_at": "2026-03-02T08:00:00.000Z",
        "ended_at": "2026-03-02T08:11:00.000Z",
        "fare_cents": 1250,
        "wait_s": 60.0,
        "duration_s": 600.0,
        "destination_matched": True,
        "errors": {"app": 0, "server": 0, "items": []},
        "premature": False,
        "cause": None,
        "messages": {"linked": 1, "ambiguous": 0},
        "version": 1,
    }
    assert shown | expected == shown
    assert {"driver", "progress", "quality", "flags", "computed_at", "known_at", "destination_gap_m"} < shown.keys()
    [listed] = get(world, "/v1/users/ada/rides").json()["items"]
    assert listed == shown


def test_a_message_and_the_messages_of_a_ride(world: World) -> None:
    take(world, ride(), message("m2", body="My ride r1 was bad"), message("m1", body="My ride r1 was bad, I say"))
    found = get(world, "/v1/messages/m2").json()
    assert (found["message_id"], found["link"]["status"], found["link"]["ride_id"]) == ("m2", "linked", "r1")
    about = get(world, "/v1/rides/r1/messages").json()
    assert about["ride_id"] == "r1"
    assert names(about["items"]) == ["m1", "m2"]  # sent at the same time: by id
    assert set(about["items"][1]) == {"message_id", "channel", "direction", "sent_at", "subject", "body", "link"}
    assert about["items"][1]["link"]["confidence"] == found["link"]["confidence"]


def test_a_ride_that_nobody_wrote_about(world: World) -> None:
    take(world, ride())
    assert get(world, "/v1/rides/r1/messages").json() == {"ride_id": "r1", "items": []}
    assert get(world, "/v1/users/ada/messages").json() == {"items": [], "next": None}


def test_min_confidence_is_the_least_that_is_shown(world: World) -> None:
    take(world, ride(), message("m1", body="My ride r1 was bad"), message("m2", ride_id="r1"))
    items = get(world, "/v1/rides/r1/messages").json()["items"]
    assert len(items) == 2
    for bound in sorted({0.0, 1.0, *(item["link"]["confidence"] for item in items)}):
        found = get(world, "/v1/rides/r1/messages", {"min_confidence": repr(bound)}).json()["items"]
        assert found == [item for item in items if item["link"]["confidence"] >= bound]


@pytest.mark.parametrize("text", ["", "x", "-0.1", "1.1", "nan", "inf", "1,0"])
def test_a_confidence_that_is_none_is_refused(world: World, text: str) -> None:
    take(world, ride())
    answer = get(world, "/v1/rides/r1/messages", {"min_confidence": text})
    assert refused(answer) == (400, "invalid_min_confidence")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/rides/r2", "unknown_ride"),
        ("/v1/rides/r2/messages", "unknown_ride"),
        ("/v1/messages/m2", "unknown_message"),
        ("/v1/users/bob/rides", "unknown_user"),
        ("/v1/users/bob/messages", "unknown_user"),
    ],
)
def test_what_nobody_knows_is_404(world: World, path: str, code: str) -> None:
    take(world, ride(), message())
    assert refused(get(world, path)) == (404, code)


@pytest.mark.parametrize("things", LISTS)
@pytest.mark.parametrize("known", [said("eve", "tap"), user("eve")], ids=["by an event", "by a row"])
def test_a_user_without_any_is_no_unknown_user(world: World, known: Record, things: str) -> None:
    world.write(known)
    assert get(world, f"/v1/users/eve/{things}").json() == {"items": [], "next": None}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("partition", range(PARTITIONS))
@pytest.mark.parametrize("state", ["lost", "behind"])
def test_an_index_that_is_not_whole_is_not_read(world: World, path: str, partition: int, state: str) -> None:
    take(world, ride(), message())
    if state == "lost":
        world.index.redis.delete(position_key(partition))
    else:
        world.index.redis.set(position_key(partition), position_value(99, behind=True))
    answer = get(world, path)
    assert refused(answer)[0] == 503
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", ROUTES)
def test_only_who_may_read_does(world: World, path: str) -> None:
    take(world, ride(), message())
    assert get(world, path, headers=ADMIN).status_code == 200
    assert refused(get(world, path, headers=WRITE)) == (403, "forbidden")
    assert refused(get(world, path, headers={})) == (401, "unauthorized")
    assert write(Backends(), path, headers=ADMIN, content=b"{}").status_code == 405


@pytest.mark.parametrize("path", ROUTES)
def test_a_parameter_that_is_not_there_is_refused(world: World, path: str) -> None:
    take(world, ride(), message())
    assert refused(get(world, path, {"page": "2"})) == (400, "unknown_parameter")


@pytest.mark.parametrize("things", LISTS)
@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"limit": "0"}, "invalid_limit"),
        ({"limit": "1001"}, "invalid_limit"),
        ({"order": "up"}, "invalid_order"),
        ({"since": "yesterday"}, "invalid_time"),
        ({"until": ""}, "invalid_time"),
        ({"cursor": "nonsense"}, "invalid_cursor"),
        ({"min_confidence": "1"}, "unknown_parameter"),
    ],
)
def test_a_list_that_is_not_understood_is_refused(world: World, things: str, params: dict[str, str], code: str) -> None:
    take(world, ride(), message())
    assert refused(get(world, f"/v1/users/ada/{things}", params)) == (400, code)


@pytest.mark.parametrize("path", ["/v1/rides/{}", "/v1/rides/{}/messages", "/v1/messages/{}"])
@pytest.mark.parametrize("name", ["%00", "a%00b", "%FF"])
def test_what_nothing_can_be_called_is_refused(world: World, path: str, name: str) -> None:
    assert refused(get(world, path.format(name)))[0] == 400


@pytest.mark.parametrize(
    "name", ["a b", "a/b", "/", "é🚕", "100%", "a?b#c", 'q"\\', "line\nend", "messages", "messages/a", ".", ".."]
)
def test_a_ride_and_a_message_may_have_any_id(world: World, name: str) -> None:
    take(world, ride(name), message(name, ride_id=name))
    path = quote(name, safe="").replace(".", "%2E")
    assert get(world, f"/v1/rides/{path}").json()["ride_id"] == name
    assert get(world, f"/v1/messages/{path}").json()["message_id"] == name
    about = get(world, f"/v1/rides/{path}/messages").json()
    assert (about["ride_id"], names(about["items"])) == (name, [name])
    assert names(get(world, "/v1/users/ada/rides").json()["items"]) == [name]


@settings(seeded, max_examples=12)
@given(
    st.dictionaries(st.sampled_from([*"abcdefgh", "é", "🚕", "a ", "ab"]), st.integers(0, 3), min_size=1),
    st.sampled_from(LISTS),
    st.sampled_from(("asc", "desc")),
    st.integers(1, 4),
    st.tuples(st.none() | st.integers(-1, 4), st.none() | st.integers(-1, 4)),
)
def test_following_next_meets_each_once(
    valkey: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
    times: dict[str, int],
    things: str,
    order: str,
    limit: int,
    bounds: tuple[int | None, int | None],
) -> None:
    low, high = bounds
    params = {"limit": str(limit), "order": order}
    params |= {} if low is None else {"since": str(NOW + low)}
    params |= {} if high is None else {"until": str(NOW + high)}

    async def scene(client: httpx.AsyncClient) -> list[str]:
        found: list[str] = []
        asked = dict(params)
        while True:
            body = (await client.get(f"/v1/users/ada/{things}", headers=READ, params=asked)).json()
            assert len(body["items"]) <= limit
            found += names(body["items"])
            if body["next"] is None:
                return found
            asked["cursor"] = body["next"]

    with unsynced(), closing(World(tmp_path_factory.mktemp("world"), valkey)) as world:
        made = [
            ride(name, requested_at=NOW + at) if things == "rides" else message(name, sent_at=NOW + at)
            for name, at in times.items()
        ]
        take(world, *made)
        found = reading(world, scene)
    wanted = sorted((at, name.encode(), name) for name, at in times.items())
    shown = [name for at, _, name in wanted if (low is None or at >= low) and (high is None or at < high)]
    assert found == (shown if order == "asc" else shown[::-1])


@pytest.mark.parametrize(
    "changed", [{"order": "asc"}, {"since": "1"}, {"until": "9999999999999"}, {"things": "messages"}, {"user": "bob"}]
)
def test_a_cursor_of_another_list_is_refused(world: World, changed: dict[str, str]) -> None:
    for who in ("ada", "bob"):
        take(world, *(ride(f"{who}{n}", who) for n in range(3)), *(message(f"{who}{n}", who) for n in range(3)))

    async def scene(client: httpx.AsyncClient) -> httpx.Response:
        first = (await client.get("/v1/users/ada/rides", headers=READ, params={"limit": 1})).json()
        more = {name: value for name, value in changed.items() if name not in ("things", "user")}
        path = f"/v1/users/{changed.get('user', 'ada')}/{changed.get('things', 'rides')}"
        return await client.get(path, headers=READ, params={"limit": 1, "cursor": first["next"], **more})

    assert refused(reading(world, scene)) == (400, "invalid_cursor")


def test_what_comes_in_while_a_list_is_followed_skips_and_repeats_nothing(world: World) -> None:
    take(world, *(ride(f"r{n}", requested_at=NOW + n) for n in range(6)))

    async def scene(client: httpx.AsyncClient) -> list[str]:
        first = (await client.get("/v1/users/ada/rides", headers=READ, params={"limit": 2})).json()
        take(world, ride("late", requested_at=NOW + 1), ride("newest", requested_at=NOW + 9))
        second = await client.get("/v1/users/ada/rides", headers=READ, params={"limit": 9, "cursor": first["next"]})
        return names([*first["items"], *second.json()["items"]])

    assert reading(world, scene) == ["r5", "r4", "r3", "r2", "r1", "late", "r0"]
