"""The read routes over a real index and lake: what they answer, to whom, and what they refuse."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import ray
from redis.asyncio import Redis

from rebu_ray.access.documentation import openapi
from rebu_ray.access.history import Histories
from rebu_ray.ingest.position import Position
from rebu_ray.records import Kind, Record, Source
from rebu_ray.store.index import position_key
from tests.access.serving import ADMIN, KEYS, READ, WRITE, Backends, FakeIntake, reading, refused, visit
from tests.access.worlds import World
from tests.records import NOW, identified, said
from tests.store.disk import PARTITIONS

BASIC = {"Authorization": "Basic " + base64.b64encode(b"read-key:").decode()}


def get(
    world: World, path: str, headers: dict[str, str] = READ, params: dict[str, str] | None = None
) -> httpx.Response:
    """The answer to one GET."""
    return reading(world, lambda client: client.get(path, headers=headers, params=params))


def letter(record_id: str, at: int = NOW, source: Source = Source.ACCESS, body: bytes = b'"x"') -> Record:
    return said(
        None, record_id, at, kind=Kind.DEAD_LETTER, name="no: because", source=source, received_at=at, body=body
    )


# -- histories ------------------------------------------------------------------------------------------------------


def test_an_item_is_what_the_contract_says(world: World) -> None:
    world.write(said("ada", "1", NOW, phone="p1", body=b'{"type":"track",\r\n "event":"Ride"}', received_at=NOW + 5))
    assert get(world, "/v1/users/ada/events").json() == {
        "items": [
            {
                "id": "1",
                "kind": "app_event",
                "name": "Ride Requested",
                "timestamp": "2026-03-02T08:00:00.000Z",
                "received_at": "2026-03-02T08:00:00.005Z",
                "source": "app-events",
                "user_id": "ada",
                "anonymous_id": "p1",
                "matched_by": "user_id",
                "body": {"type": "track", "event": "Ride"},
            }
        ],
        "next": None,
    }


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_following_next_meets_everything_once(world: World, order: str) -> None:
    world.write(*(said("ada", f"{n:02}", NOW + n // 3) for n in range(25)))
    world.flush()
    world.trim(5)

    async def scene(client: httpx.AsyncClient) -> list[str]:
        found: list[str] = []
        params: dict[str, Any] = {"limit": 4, "order": order}
        while True:
            body = (await client.get("/v1/users/ada/events", headers=READ, params=params)).json()
            found += [item["id"] for item in body["items"]]
            if body["next"] is None:
                return found
            params["cursor"] = body["next"]

    everything = [f"{n:02}" for n in range(25)]
    assert reading(world, scene) == (everything if order == "asc" else everything[::-1])


@pytest.mark.parametrize(
    "changed",
    [
        {"order": "asc"},
        {"kind": "app_event"},
        {"name": "Ride Requested"},
        {"source": "app-events"},
        {"since": "2026-03-01T00:00:00Z"},
        {"until": "2026-04-01T00:00:00Z"},
        {"user": "bob"},
    ],
)
def test_a_cursor_of_another_query_is_refused(world: World, changed: dict[str, str]) -> None:
    world.write(*(said(user, f"{n}", NOW + n) for user in ("ada", "bob") for n in range(5)))

    async def scene(client: httpx.AsyncClient) -> httpx.Response:
        first = (await client.get("/v1/users/ada/events", headers=READ, params={"limit": 2})).json()
        user = changed.get("user", "ada")
        params = {"limit": 3, "cursor": first["next"]} | {k: v for k, v in changed.items() if k != "user"}
        return await client.get(f"/v1/users/{user}/events", headers=READ, params=params)

    assert refused(reading(world, scene)) == (400, "invalid_cursor")


def test_the_limit_of_a_page_may_change_on_the_way(world: World) -> None:
    world.write(*(said("ada", f"{n}", NOW + n) for n in range(6)))

    async def scene(client: httpx.AsyncClient) -> list[str]:
        first = (await client.get("/v1/users/ada/events", headers=READ, params={"limit": 2})).json()
        params = {"limit": 3, "cursor": first["next"]}
        second = (await client.get("/v1/users/ada/events", headers=READ, params=params)).json()
        return [item["id"] for item in (*first["items"], *second["items"])]

    assert reading(world, scene) == ["5", "4", "3", "2", "1"]


@pytest.mark.parametrize(
    ("params", "outcome"),
    [
        ({"limit": "0"}, (400, "invalid_limit")),
        ({"limit": "9" * 5000}, (400, "invalid_limit")),
        ({"order": "up"}, (400, "invalid_order")),
        ({"since": "yesterday"}, (400, "invalid_time")),
        ({"until": ""}, (400, "invalid_time")),
        ({"kind": "event"}, (400, "unknown_kind")),
        ({"source": "web"}, (400, "unknown_source")),
        ({"cursor": "nonsense"}, (400, "invalid_cursor")),
        ({"min_position": "nonsense"}, (400, "invalid_position")),
        ({"page": "2"}, (400, "unknown_parameter")),
    ],
)
def test_what_is_not_understood_is_refused(world: World, params: dict[str, str], outcome: tuple[int, str]) -> None:
    world.write(said("ada", "1"))
    assert refused(get(world, "/v1/users/ada/events", params=params)) == outcome


def test_since_is_included_and_until_is_not(world: World) -> None:
    world.write(*(said("ada", f"{n}", NOW + n) for n in range(5)))
    params = {"since": "2026-03-02T09:00:00.001+01:00", "until": str(NOW + 3)}
    assert [item["id"] for item in get(world, "/v1/users/ada/events", params=params).json()["items"]] == ["2", "1"]
    swapped = {"since": str(NOW + 3), "until": str(NOW + 1)}
    assert get(world, "/v1/users/ada/events", params=swapped).json() == {"items": [], "next": None}


AWKWARD = ["a b", "a/b", "/", "é🚕", "100%", "a?b#c", 'q"uote\\', "line\nend", "events", "a/events", ".", "x" * 512]


@pytest.mark.parametrize("user", AWKWARD)
def test_a_user_may_have_any_name(world: World, user: str) -> None:
    world.write(said(user, "1"), identified(user, user + "/phone", record_id="2"))
    path = f"/v1/users/{quote(user, safe='')}"
    items = get(world, f"{path.replace('.', '%2E')}/events", params={"order": "asc"}).json()["items"]
    assert [(item["id"], item["user_id"]) for item in items] == [("1", user), ("2", user)]
    phone = quote(user + "/phone", safe="").replace(".", "%2E")
    taken_back = reading(
        world, lambda client: client.delete(f"{path.replace('.', '%2E')}/anonymous/{phone}", headers=ADMIN)
    )
    assert taken_back.json()["unlinked"] == user + "/phone"


@pytest.mark.parametrize("user", ["%00", "a%00b", "%FF"])
@pytest.mark.parametrize("what", ["", "/events", "/events/stream"])
def test_what_no_user_can_be_called_is_refused(world: World, user: str, what: str) -> None:
    assert refused(get(world, f"/v1/users/{user}{what}")) == (400, "invalid_user_id")


@pytest.mark.parametrize("what", ["", "/events"])
def test_an_unknown_user_is_404(world: World, what: str) -> None:
    world.write(said("ada", "1"))
    assert refused(get(world, f"/v1/users/bob{what}")) == (404, "unknown_user")


@pytest.mark.parametrize("path", ["/v1/users/ada", "/v1/users/ada/events"])
def test_an_index_that_is_not_whole_is_not_read(world: World, path: str) -> None:
    world.write(said("ada", "1"))
    world.index.redis.delete(*(position_key(p) for p in range(PARTITIONS)))
    response = get(world, path)
    assert refused(response) == (503, "index_rebuilding")
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", ["/v1/users/ada", "/v1/users/ada/events"])
def test_an_index_that_is_away_is_said_to_be(path: str) -> None:
    async def play() -> httpx.Response:
        redis = Redis.from_url("redis://127.0.0.1:1/0", protocol=2)
        try:
            histories = Histories(redis, PARTITIONS, _no_lake, 0.0)
            return await visit(Backends(histories=histories), lambda client: client.get(path, headers=READ))
        finally:
            await redis.aclose()

    response = asyncio.run(play())
    assert refused(response) == (503, "index_unavailable")
    assert int(response.headers["retry-after"]) > 0


async def _no_lake(*asked: object) -> list[bytes]:
    raise AssertionError(f"the lake was asked for {asked}")


# -- profiles -------------------------------------------------------------------------------------------------------


def test_a_profile_is_the_newest_word_on_each_trait_and_the_phones(world: World) -> None:
    world.write(
        identified("ada", "p1", NOW + 2000, traits=b'{"name":"Ada","city":"Paris"}'),
        identified("ada", "p2", NOW + 1000, traits=b'{"name":"A.","balance":1e999,"n":123456789012345678901234567890}'),
        identified("bob", "p2", NOW + 3000),
        said("ada", "2", NOW + 9000, name="identify", body=b'{"userId":"ada","traits":{"city":"Rome"}}'),
    )
    found = get(world, "/v1/users/ada")
    assert b'"balance":1e999' in found.content
    body = json.loads(found.content)
    assert body.pop("traits") == {
        "name": "Ada",
        "city": "Rome",
        "balance": float("inf"),
        "n": 123456789012345678901234567890,
    }
    assert body == {
        "user_id": "ada",
        "account": None,
        "identified_at": "2026-03-02T08:00:09.000Z",
        "anonymous_ids": [
            {"anonymous_id": "p1", "since": "2026-03-02T08:00:02.000Z"},
            {"anonymous_id": "p2", "since": "2026-03-02T08:00:01.000Z"},
        ],
    }


def test_a_profile_of_somebody_who_never_identified(world: World) -> None:
    world.write(said("ada", "1"))
    assert get(world, "/v1/users/ada").json() == {
        "user_id": "ada",
        "account": None,
        "traits": {},
        "identified_at": None,
        "anonymous_ids": [],
    }


def test_a_link_is_taken_back(world: World) -> None:
    world.write(identified("ada", "p1", record_id="identify"), said(None, "1", NOW + 1, phone="p1"))

    async def scene(client: httpx.AsyncClient) -> None:
        path = "/v1/users/ada/anonymous/p1"
        for headers, outcome in (({}, 401), (READ, 403), (WRITE, 403)):
            assert refused(await client.delete(path, headers=headers))[0] == outcome
        for other in ("/v1/users/ada/anonymous/p2", "/v1/users/bob/anonymous/p1"):
            assert refused(await client.delete(other, headers=ADMIN)) == (404, "unknown_link")
        done = await client.delete(path, headers=ADMIN)
        assert (done.status_code, done.json()["success"], done.json()["unlinked"]) == (200, True, "p1")
        params = {"min_position": done.json()["position"]}
        items = (await client.get("/v1/users/ada/events", headers=READ, params=params)).json()["items"]
        assert [item["id"] for item in items] == ["identify"]
        assert (await client.get("/v1/users/ada", headers=READ)).json()["anonymous_ids"] == []
        assert refused(await client.delete(path, headers=ADMIN)) == (404, "unknown_link")

    reading(world, scene)


# -- dead letters ---------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_by_source_and_time(world: World) -> None:
    world.write(
        letter("1", NOW, body=b'{"a":1}'), letter("2", NOW + 1, Source.ERROR), letter("3", NOW + 2), said("ada", "4")
    )
    world.flush()
    world.evict()
    world.write(letter("5", NOW - 9, body=b'{"base64":"/w=="}'))
    body = get(world, "/v1/deadletters", ADMIN).json()
    assert [item["id"] for item in body["items"]] == ["3", "2", "1", "5"]
    assert body["items"][2] == {
        "id": "1",
        "source": "access",
        "received_at": "2026-03-02T08:00:00.000Z",
        "reason": "no: because",
        "record": {"a": 1},
    }
    for params, expected in (
        ({"source": "error"}, "2"),
        ({"source": "access,error", "order": "asc"}, "5123"),
        ({"source": "access,access"}, "315"),
        ({"since": str(NOW), "until": str(NOW + 2)}, "21"),
        ({"source": "otlp"}, ""),
    ):
        found = get(world, "/v1/deadletters", ADMIN, params).json()
        assert "".join(item["id"] for item in found["items"]) == expected
        assert found["next"] is None


def test_dead_letters_are_paged(world: World) -> None:
    world.write(*(letter(f"{n}", NOW + n // 2, [Source.ACCESS, Source.ERROR][n % 2]) for n in range(7)))

    async def scene(client: httpx.AsyncClient) -> str:
        found, params = "", {"limit": "2", "order": "asc"}
        while True:
            body = (await client.get("/v1/deadletters", headers=ADMIN, params=params)).json()
            found += "".join(item["id"] for item in body["items"])
            if body["next"] is None:
                return found
            params["cursor"] = body["next"]

    assert reading(world, scene) == "0123456"


@pytest.mark.parametrize(
    ("params", "outcome"),
    [
        ({"source": "web"}, (400, "unknown_source")),
        ({"kind": "app_event"}, (400, "unknown_parameter")),
        ({"cursor": "x"}, (400, "invalid_cursor")),
        ({"min_position": "x"}, (400, "invalid_position")),
        ({"min_position": Position({0: 10**9}).encode()}, (503, "not_yet_visible")),
    ],
)
def test_dead_letters_that_cannot_be_listed(world: World, params: dict[str, str], outcome: tuple[int, str]) -> None:
    assert refused(get(world, "/v1/deadletters", ADMIN, params)) == outcome


# -- keys, and the platform itself ----------------------------------------------------------------------------------

READS = ["/v1/users/ada", "/v1/users/ada/events", "/v1/users/ada/events/stream", "/v1/status"]


@pytest.mark.parametrize("path", [*READS, "/v1/deadletters"])
def test_who_may_read(world: World, path: str) -> None:
    world.write(said("ada", "1"))
    admin_only = path == "/v1/deadletters"
    for headers in ({}, {"Authorization": "Bearer nobody"}, {"Authorization": "Digest x"}):
        response = get(world, path, headers)
        assert refused(response) == (401, "unauthorized")
        assert "www-authenticate" in response.headers
    assert refused(get(world, path, WRITE)) == (403, "forbidden")
    if admin_only:
        assert refused(get(world, path, READ)) == (403, "forbidden")
        assert get(world, path, ADMIN).status_code == 200
    elif not path.endswith("stream"):
        assert [get(world, path, headers).status_code for headers in (READ, ADMIN, BASIC)] == [200] * 3


@pytest.mark.parametrize("path", ["/v1/admin/flush", "/v1/admin/reindex"])
def test_only_the_admin_operates(path: str) -> None:
    def post(headers: dict[str, str]) -> tuple[httpx.Response, list[str]]:
        backends = Backends()
        return asyncio.run(visit(backends, lambda client: client.post(path, headers=headers))), backends.asked

    for headers, outcome in (({}, (401, "unauthorized")), (READ, (403, "forbidden")), (WRITE, (403, "forbidden"))):
        response, asked = post(headers)
        assert refused(response) == outcome
        assert asked == []
    response, asked = post(ADMIN)
    assert (response.status_code, response.json()["success"], asked) == (200, True, [path.rpartition("/")[2]])
    if path.endswith("reindex"):
        assert response.json() == {"success": True, "partitions": 4, "rows": 9}
    gotten = asyncio.run(visit(Backends(), lambda client: client.get(path, headers=ADMIN)))
    assert refused(gotten) == (405, "method_not_allowed")


def test_what_a_shard_is_asked_while_it_is_restarted_is_to_be_asked_again() -> None:
    class Restarting(Backends):
        async def ask(self, method: str, *args: Any) -> Any:
            cause = ray.exceptions.ActorUnavailableError("it is restarting", None)
            raise ray.exceptions.RayTaskError("Coordinator.audit", "", cause)

    response = asyncio.run(visit(Restarting(), lambda client: client.get("/v1/audit", headers=READ)))
    assert refused(response) == (503, "unavailable")
    assert int(response.headers["retry-after"]) > 0


SHARD = {"slot": 0, "index": "current", "stored": 5, "journal_bytes": 7, "journal_age_s": 0.5}


def state_of(world: World, path: str, *shards: dict[str, Any]) -> httpx.Response:
    async def play() -> httpx.Response:
        async with world.reading() as histories:
            backends = Backends(FakeIntake(), histories, {"shards": list(shards)})
            return await visit(backends, lambda client: client.get(path, headers=READ))

    return asyncio.run(play())


def test_alive_needs_nothing() -> None:
    async def scene(client: httpx.AsyncClient) -> list[int]:
        return [(await client.get(path)).status_code for path in ("/healthz", "/docs", "/openapi.json", "/")]

    assert asyncio.run(visit(Backends(), scene)) == [200] * 4


def test_ready_when_every_shard_is(world: World) -> None:
    assert state_of(world, "/readyz", SHARD).json() == {"status": "ready"}
    response = state_of(world, "/readyz", SHARD, {"slot": 1, "index": "behind"}, {"slot": 2, "index": "away"})
    assert refused(response) == (503, "not_ready")
    assert "[1, 2]" in response.json()["message"]
    rebuilding = {"slot": 1, "index": "behind", "rebuilding": {"rows_done": 1200, "rows_total": 5000}}
    response = state_of(world, "/readyz", SHARD, rebuilding, rebuilding | {"slot": 2})
    assert refused(response) == (503, "not_ready")
    assert "2,400 of 10,000 records" in response.json()["message"]
    assert response.headers["retry-after"]


def test_the_state_and_its_metrics(world: World) -> None:
    state = state_of(world, "/v1/status", SHARD).json()
    assert (state["platform_id"], state["shards"]) == ("p", [SHARD])
    assert state["redis"]["used_memory_bytes"] > 0
    text = state_of(world, "/metrics", SHARD, {"slot": 1, "index": "away"}).text
    assert 'rebu_shard_stored_total{slot="0"} 5.0\n' in text
    assert 'rebu_shard_journal_age_seconds{slot="0"} 0.5\n' in text
    assert 'rebu_shard_stored_total{slot="1"}' not in text
    assert 'rebu_shard_state{slot="0",state="current"} 1.0' in text
    assert 'rebu_shard_state{slot="1",state="away"} 1.0' in text
    for line in text.splitlines():
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2


def test_whatever_is_described_is_there() -> None:
    async def scene(client: httpx.AsyncClient) -> set[str]:
        found = set()
        for path, operations in openapi()["paths"].items():
            for method in operations.keys() - {"parameters"}:
                filled = path.replace("{user_id}", "ada").replace("{source}", "access").replace("{anonymous_id}", "p1")
                response = await client.request(method, filled)
                found.add(refused(response)[1] if response.status_code >= 400 else "")
        return found

    assert not asyncio.run(visit(Backends(), scene)) & {"not_found", "method_not_allowed"}


def test_no_answer_tells_a_key(world: World) -> None:
    for path in ["/v1/users/ada", "/v1/users/ada/events", "/v1/status", "/metrics", "/docs", "/openapi.json"]:
        for key in (KEYS.write, KEYS.read, KEYS.admin):
            assert key not in get(world, path).text
