"""The routes about what came in and what was refused: the audit, and the replay of dead letters."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import httpx
import pytest

from rebu_ray.ingest.position import Position
from rebu_ray.records import Kind, Record, Source
from rebu_ray.store.audit import Auditor, Findings, Held
from rebu_ray.store.index import commands
from rebu_ray.store.journal import open_journal
from rebu_ray.store.lake import Lake
from rebu_ray.store.member import Codec
from rebu_ray.store.rows import Routed, to_batch
from tests.access.serving import ADMIN, READ, WRITE, Backends, FakeIntake, Scene, refused, visit
from tests.access.worlds import World
from tests.records import NOW, said
from tests.store.disk import PARTITIONS

LINE = '10.0.0.1 - - [02/Mar/2026:07:59:00 +0000] "GET /users/ada/rides/%d HTTP/1.1" 200 5'


class Storing(FakeIntake):
    """Stores in a world."""

    async def verdicts(self, rows: list[Routed]) -> tuple[bytearray, Position]:
        assert self.world is not None
        done = self.world.log.commit(to_batch(rows), NOW)
        self.world.index.send(commands(done.rows, PARTITIONS, Codec()))
        return bytearray(done.verdicts), Position(done.positions)

    async def append(self, rows: list[Routed]) -> Position:
        return (await self.verdicts(rows))[1]


class Accounting(Backends):
    """A coordinator that audits a world."""

    async def ask(self, method: str, *args: Any) -> Any:
        if method != "audit":
            return await super().ask(method, *args)
        assert self.world is not None
        disk, log = self.world._disk, self.world.log
        auditor = Auditor(open_journal(disk.journal_uri), Lake(disk.lake_uri), PARTITIONS)
        return auditor.audit([Held(dict(log.last_seq), log.pending.entries())], *args)


def play(world: World, scene: Scene[Any], asked: list[str] | None = None) -> Any:
    async def played() -> Any:
        async with world.reading() as histories:
            backends = Accounting(Storing(world=world), histories)
            answer = await visit(backends, scene)
            if asked is not None:
                asked.extend(backends.asked)
            return answer

    return asyncio.run(played())


def replay(world: World, asked: list[str] | None = None, **body: Any) -> Any:
    answer = play(world, lambda c: c.post("/v1/deadletters/replay", headers=ADMIN, json=body), asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def audit(world: World, **params: str) -> Any:
    answer = play(world, lambda c: c.get("/v1/audit", headers=READ, params=params))
    assert answer.status_code == 200, answer.text
    return answer.json()


def listed(world: World) -> list[tuple[str, str]]:
    """(id, reason), oldest first."""
    answer = play(world, lambda c: c.get("/v1/deadletters?order=asc&limit=1000", headers=ADMIN))
    return [(item["id"], item["reason"]) for item in answer.json()["items"]]


def letter(record_id: str, line: object, at: int = NOW, source: Source = Source.ACCESS) -> Record:
    """A record that was refused for a reason that no dialect has."""
    return said(
        record_id=record_id, at=at, received_at=at, kind=Kind.DEAD_LETTER, name="old: reason", source=source,
        body=json.dumps(line).encode(),
    )  # fmt: skip


def test_what_is_accepted_now_leaves_the_list_and_what_is_not_says_why(world: World) -> None:
    world.write(letter("a", LINE % 1), letter("b", "no line", NOW + 1), letter("c", LINE % 3, NOW + 2))
    before = listed(world)
    dry = replay(world, dry_run=True)
    assert {k: dry[k] for k in ("dry_run", "replayed", "duplicate", "rejected", "next")} == {
        "dry_run": True, "replayed": 2, "duplicate": 0, "rejected": 1, "next": None,
    }  # fmt: skip
    assert listed(world) == before
    asked: list[str] = []
    done = replay(world, asked)
    assert (done["dry_run"], done["replayed"], done["duplicate"], done["rejected"]) == (False, 2, 0, 1)
    assert [(r["id"], r["source"], r["status"]) for r in done["results"]] == [
        ("a", "access", "replayed"), ("b", "access", "rejected"), ("c", "access", "replayed"),
    ]  # fmt: skip
    assert done["results"][1]["reason"].startswith("unknown_format: ")
    assert asked == ["flush"]
    assert listed(world) == [("b", done["results"][1]["reason"])]
    history = play(world, lambda c: c.get("/v1/users/ada/events", headers=READ)).json()
    assert {item["id"] for item in history["items"]} == {"a", "c"}
    again = replay(world)
    assert (again["replayed"], again["duplicate"], again["rejected"]) == (0, 0, 1)
    assert listed(world) == [("b", done["results"][1]["reason"])]
    assert Position.decode(done["position"]).seqs


def test_a_record_that_came_again_meanwhile_is_a_duplicate_and_the_accounts_balance(world: World) -> None:
    world.write(letter("a", LINE % 1), letter("b", "no line"))
    world.write(
        said("ada", "a", NOW - 60_000, kind=Kind.SERVER_ACCESS, source=Source.ACCESS, body=b"{}")
    )  # as the shipper's own second attempt after the fix had it
    done = replay(world)
    assert (done["replayed"], done["duplicate"], done["rejected"]) == (0, 1, 1)
    found = audit(world)
    assert found["balanced"]
    assert found["problems"] == []
    assert found["items"] == [
        {"source": "access", "bucket": "2026-03-02T07:50:00.000Z", "received": 2, "stored": 1, "duplicate": 1,
         "dead_letter": 0, "suppressed": 0, "balanced": True},
        {"source": "access", "bucket": "2026-03-02T08:00:00.000Z", "received": 2, "stored": 0, "duplicate": 0,
         "dead_letter": 2, "suppressed": 0, "balanced": True},
    ]  # fmt: skip
    replay(world)
    assert audit(world) == found, "what is not in the list is not tried again"
    world.flush()
    assert audit(world) == found


def test_the_list_may_be_in_the_lake(world: World) -> None:
    world.write(*(letter(f"{n}", LINE % n if n % 2 else "no line", NOW + n) for n in range(9)))
    world.flush()
    world.evict()
    assert replay(world)["replayed"] == 4
    assert [name for name, _ in listed(world)] == ["0", "2", "4", "6", "8"]
    assert all(reason.startswith("unknown_format") for _, reason in listed(world))
    assert audit(world)["balanced"]


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_pages_meet_every_letter_once(world: World, limit: int) -> None:
    world.write(*(letter(f"{n}", LINE % n if n % 2 else "no line", NOW + n // 2) for n in range(9)))
    totals: dict[str, int] = {"replayed": 0, "duplicate": 0, "rejected": 0}
    body: dict[str, Any] = {"limit": limit}
    seen = []
    while True:
        page = replay(world, **body)
        assert len(page["results"]) <= limit
        seen += [result["id"] for result in page["results"]]
        for name in totals:
            totals[name] += page[name]
        if page["next"] is None:
            break
        body["cursor"] = page["next"]
    assert totals == {"replayed": 4, "duplicate": 0, "rejected": 5}
    assert seen == [f"{n}" for n in range(9)]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"source": "access"}, "acd"),
        ({"source": ["access", "error"]}, "abcd"),
        ({"since": NOW + 1, "until": NOW + 3}, "bc"),
        ({"since": "2026-03-02T08:00:00.003Z"}, "d"),
        ({"ids": ["d", "b", "nobody"]}, "bd"),
        ({"ids": "a"}, "a"),
        ({"ids": ["d", "b"], "source": "access"}, "d"),
        ({"ids": ["a", "b"], "limit": 1}, "ab"),
        ({"source": None}, "abcd"),
        ({}, "abcd"),
    ],
)
def test_letters_can_be_chosen(world: World, chosen: dict[str, Any], expected: str) -> None:
    sources = {"b": Source.ERROR}
    world.write(*(letter(n, LINE % i, NOW + i, sources.get(n, Source.ACCESS)) for i, n in enumerate("abcd")))
    found = replay(world, dry_run=True, **chosen)
    assert "".join(result["id"] for result in found["results"]) == expected
    query = {k: ",".join(v) if isinstance(v, list) else v for k, v in chosen.items() if v is not None}
    path = "/v1/deadletters/replay?dry_run=true"
    answer = play(world, lambda c: c.post(path, headers=ADMIN, params={**query, "dry_run": "true"}))
    assert answer.json() == found


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b"[]", (400, "invalid_json")),
        (b"{", (400, "invalid_json")),
        (b'{"what": 1}', (400, "unknown_parameter")),
        (b'{"ids": [1]}', (400, "invalid_parameter")),
        (b'{"source": {"a": 1}}', (400, "invalid_parameter")),
        (b'{"source": "web"}', (400, "unknown_source")),
        (b'{"dry_run": "yes"}', (400, "invalid_dry_run")),
        (b'{"since": "yesterday"}', (400, "invalid_time")),
        (b'{"limit": 0}', (400, "invalid_limit")),
        (b'{"cursor": "x"}', (400, "invalid_cursor")),
        (b'{"ids": ["%b"]}' % (b"x" * 2_000_000), (413, "too_large")),
    ],
)
def test_what_is_not_understood_changes_nothing(world: World, body: bytes, outcome: tuple[int, str]) -> None:
    world.write(letter("a", LINE % 1))
    before = listed(world)
    answer = play(world, lambda c: c.post("/v1/deadletters/replay", headers=ADMIN, content=body))
    assert refused(answer) == outcome
    assert listed(world) == before


def test_who_may(world: World) -> None:
    def ask(method: str, path: str, headers: dict[str, str]) -> httpx.Response:
        answer = play(world, lambda c: c.request(method, path, headers=headers))
        assert isinstance(answer, httpx.Response)
        return answer

    for path, method, wrong in (
        ("/v1/audit", "GET", [WRITE]),
        ("/v1/deadletters/replay", "POST", [READ, WRITE]),
    ):
        assert refused(ask(method, path, {})) == (401, "unauthorized")
        assert [refused(ask(method, path, headers)) for headers in wrong] == [(403, "forbidden")] * len(wrong)
        assert ask(method, path, ADMIN).status_code == 200


def test_the_audit_of_some_places(world: World) -> None:
    world.write(*(said("ada", f"{n}", NOW + n * 600_000) for n in range(3)), letter("a", "no line"))
    assert [item["source"] for item in audit(world)["items"]] == ["access", *["app-events"] * 3]
    assert [item["bucket"] for item in audit(world, source="app-events", since="2026-03-02T08:10:00Z")["items"]] == [
        "2026-03-02T08:10:00.000Z",
        "2026-03-02T08:20:00.000Z",
    ]
    for params, outcome in (
        ({"source": "web"}, (400, "unknown_source")),
        ({"since": "soon"}, (400, "invalid_time")),
        ({"limit": "3"}, (400, "unknown_parameter")),
    ):
        asking = partial(httpx.AsyncClient.get, url="/v1/audit", headers=READ, params=params)
        assert refused(play(world, asking)) == outcome
    assert audit(world)["balanced"] is True
    assert Findings([{"balanced": True}], ["something"]).balanced is False
