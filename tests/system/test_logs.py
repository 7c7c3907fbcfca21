"""One request through all processes, by its id: in the answer, and in the logs of gateway, shard and task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from rebu_ray.logs import SANE, new_id
from rebu_ray.platform.local_ray import session_folder
from tests.system.running import Running, await_true

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def lines(platform: Running) -> Iterator[dict[str, Any]]:
    """What the processes of a platform have logged of themselves."""
    logs = session_folder(str(platform.data_dir)) / "session_latest" / "logs"
    for file in logs.glob("worker-*.err"):
        for line in file.read_text(errors="replace").splitlines():
            if line.startswith('{"time"'):
                yield json.loads(line)


def about(platform: Running, request: str) -> list[dict[str, Any]]:
    found = [line for line in lines(platform) if request in (line.get("request_id"), *line.get("request_ids", ()))]
    return sorted(found, key=lambda line: str(line["time"]))


def test_a_request_can_be_followed_from_its_answer_to_the_documents_that_it_changed(rebu_up: Running) -> None:
    request, times = new_id(), "2026-03-01T08:00:00Z"
    row = {"ride_id": f"r-{request}", "user_id": f"u-{request}", "status": "requested", "requested_at": times}
    answer = rebu_up.post("/v1/records/rides", [row | {"updated_at": times}], X_Request_Id=request)
    assert answer.status_code == 200
    assert answer.headers.get_list("x-request-id") == [request]
    stages = {"answered", "stored", "computed"}
    await_true(lambda: stages <= {line["message"] for line in about(rebu_up, request)}, "lines of every stage")
    found = about(rebu_up, request)
    processes = {line["message"]: line["process"] for line in found}
    assert processes["answered"] == "gateway"
    assert processes["stored"] in ("shard-0", "shard-1")
    assert processes["computed"] == "task"
    assert len({line["pid"] for line in found}) >= 3
    (gateway,) = (line for line in found if line["message"] == "answered")
    assert (gateway["route"], gateway["status"]) == ("/v1/records/{table}", 200)
    assert gateway["ms"] > 0


def test_a_refusal_names_the_request_and_an_id_that_is_none_is_not_taken(rebu_up: Running) -> None:
    for given in (None, "ada@example.org", "x", "a" * 65, f"{rebu_up.read_key}"):
        headers = {} if given is None else {"X-Request-Id": given}
        with httpx.Client() as client:
            answer = client.get(f"{rebu_up.url}/v1/users/somebody", headers=headers)
        (request,) = answer.headers.get_list("x-request-id")
        assert SANE.fullmatch(request)
        assert request != given
        assert answer.status_code == 401
        assert answer.json()["message"].endswith(f"(request {request})")
        await_true(lambda request=request: about(rebu_up, request), "the line of a refusal")  # type: ignore[misc]
