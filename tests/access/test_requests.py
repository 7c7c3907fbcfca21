"""The ids of requests: in answers, in errors, in lines of log, and on the way to the shards."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp

from rebu_ray.access.requests import with_deadline
from rebu_ray.ingest.answer import Appended
from rebu_ray.ingest.intake import Intake, Receipt
from rebu_ray.ingest.routing import spread
from rebu_ray.logs import SANE, about, origins
from rebu_ray.records import BadRequest, Record, Source
from rebu_ray.store.rows import WIRE, decode
from tests.access.serving import READ, WRITE, Backends, FakeIntake, visit, write
from tests.records import NOW, said

EVENT = {"type": "track", "userId": "ada", "event": "tap"}


def answered(path: str, **headers: str) -> httpx.Response:
    return write(Backends(), path, headers=WRITE | headers, json=EVENT)


def ids(response: httpx.Response) -> list[str]:
    return response.headers.get_list("x-request-id")


def test_every_answer_has_an_id_and_no_two_have_the_same() -> None:
    found = [ids(answered(path)) for path in ("/v1/track", "/v1/track", "/v1/nonsense")]
    assert [len(one) for one in found] == [1, 1, 1]
    assert len({one[0] for one in found}) == 3
    assert all(SANE.fullmatch(one[0]) for one in found)


def test_an_error_tells_the_id_by_which_it_is_found() -> None:
    for backends, status in ((Backends(FakeIntake(RuntimeError("odd"))), 500), (Backends(), 401)):
        headers = WRITE if status == 500 else {"Authorization": "Bearer nobody"}
        response = write(backends, "/v1/track", headers=headers, json=EVENT)
        assert response.status_code == status
        assert response.json()["message"].endswith(f"(request {ids(response)[0]})")
        assert set(response.json()) == {"code", "message"}


def test_a_sender_finds_its_own_id_again_if_it_is_one() -> None:
    """Serve puts the id that a request brought into its answer: here nobody does, and it is not put there twice."""
    own = "7f1c0a52-8f6e-4b7e-9d3a-0f2f4f6c9e11"
    response = answered("/v1/nonsense", **{"X-Request-Id": own})
    assert response.json()["message"].endswith(f"(request {own})")
    other = answered("/v1/nonsense", **{"X-Request-Id": "ada@example.org"})
    assert "ada" not in other.text
    assert ids(other)[0] in other.json()["message"]


def test_what_goes_wrong_is_logged_with_the_id(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, ...]] = []

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(origins())

    handler = Noting()
    logging.getLogger("rebu.gateway").addHandler(handler)
    try:
        response = write(Backends(FakeIntake(RuntimeError("odd"))), "/v1/track", headers=WRITE, json=EVENT)
    finally:
        logging.getLogger("rebu.gateway").removeHandler(handler)
    assert seen == [(ids(response)[0],)]


def test_a_call_to_a_shard_names_the_requests_that_share_it() -> None:
    called: list[tuple[tuple[str, ...], set[str]]] = []
    first = asyncio.Event()

    async def call(slot: int, data: bytes) -> Appended:
        rows = decode(data, WIRE)
        called.append((origins(), set(rows["id"].to_pylist())))
        if len(called) == 1:
            await first.wait()
        return Appended("ok", b"\1" * rows.num_rows, dict.fromkeys(set(rows["partition"].to_pylist()), 1))

    async def routing(fresh: bool) -> object:
        return spread(4, 1)

    async def scene() -> None:
        intake = Intake(routing, call)  # type: ignore[arg-type]

        async def send(request: str, record: Record) -> None:
            with about([request]):
                await intake.store(Source.APP_EVENTS, [record], NOW)

        sent = [asyncio.create_task(send(f"request-{n}", said("ada", f"id-{n}"))) for n in range(4)]
        await asyncio.sleep(0.01)
        first.set()
        await asyncio.gather(*sent)

    asyncio.run(scene())
    assert [names for names, _ in called] == [("request-0",), ("request-1", "request-2", "request-3")]
    assert {name.removeprefix("request-") for names, _ in called for name in names} == set("0123")


def test_lines_of_requests_name_routes_and_nobody(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rebu_ray.logs._requests", True)

    async def scene(client: httpx.AsyncClient) -> None:
        await client.get("/v1/users/ada/events", headers=READ | {"X-Request-Id": "ada"})
        await client.post("/v1/track", headers=WRITE, json=EVENT)

    with caplog.at_level(logging.INFO, "rebu.access"):
        asyncio.run(visit(Backends(), scene))
    found = [vars(record)["fields"] for record in caplog.records if record.name == "rebu.access"]
    assert [(line["method"], line["route"]) for line in found] == [
        ("GET", "/v1/users/{user_id}/events"),
        ("POST", "/v1/track"),
    ]
    assert "ada" not in json.dumps(found)


def test_an_answer_that_does_not_begin_is_given_up_and_a_stream_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(FakeIntake):
        async def store(self, *_: object) -> Receipt:
            await asyncio.sleep(60)
            raise AssertionError("nobody waited for this")

    soon = functools.partial(with_deadline, seconds=0.05)
    monkeypatch.setattr("rebu_ray.access.gateway.with_deadline", soon)
    response = write(Backends(Hanging()), "/v1/track", headers=WRITE, json=EVENT)
    assert (response.status_code, response.json()["code"]) == (503, "timeout")
    assert response.json()["message"].endswith(f"(request {ids(response)[0]})")
    assert int(response.headers["retry-after"]) > 0

    async def slowly() -> AsyncIterator[bytes]:
        for part in (b"a", b"b", b"c"):
            yield part
            await asyncio.sleep(0.1)

    async def work(*given: Any) -> None:
        await asyncio.sleep(0.2)
        await Response("done")(*given)

    async def scene(app: ASGIApp, path: str) -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(soon(app)), base_url="http://slow") as client:
            return (await client.get(path)).text

    assert asyncio.run(scene(StreamingResponse(slowly()), "/v1/rides")) == "abc"
    assert asyncio.run(scene(work, "/v1/admin/verify")) == "done"
    with pytest.raises(BadRequest):
        asyncio.run(scene(work, "/v1/rides"))
