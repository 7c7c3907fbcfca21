"""Questions that make no sense, to every route that takes parameters: what was wrong, and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import httpx
import pytest

from rebu_ray.access.documentation import openapi
from rebu_ray.records import HISTORY_KINDS, Source
from tests.access.serving import ADMIN, reading, refused
from tests.access.worlds import World
from tests.conftest import Valkey
from tests.records import NOW, said
from tests.ride_documents import Rides, Said

PATHS = {"{user_id}": "ada", "{ride_id}": "r1", "{message_id}": "m1", "{anonymous_id}": "phone"}
TIMES = ("since", "until", "as_of")
NO_TIMES = ("yesterday", "2026-02-30", "2026-13-01T00:00:00Z", "2026-03-01T25:00:00Z", "", "-1", "1e99", "03/01/2026")
LISTS: dict[str, Sequence[str]] = {
    "kind": list(HISTORY_KINDS),
    "source": list(Source),
    "status": ("completed", "requested", "failed"),
    "cause": ("driver", "rider", "app", "unknown"),
}
"""What parameters that take several values take."""


class Asked(NamedTuple):
    """A question and what its answer must speak of."""

    path: str
    params: httpx.QueryParams
    code: str
    words: tuple[str, ...]


def routes() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Every documented GET below /v1 and its parameters in the query."""
    for path, operations in openapi()["paths"].items():
        if path.startswith("/v1/") and "get" in operations and "/admin/" not in path:
            filled = path
            for name, value in PATHS.items():
                filled = filled.replace(name, value)
            yield filled, [p for p in operations["get"].get("parameters", ()) if p["in"] == "query"]


def wrong(parameter: dict[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Values that a parameter cannot have, the code of the refusal, and what else must be in its words."""
    name, schema = parameter["name"], parameter.get("schema", {})
    if name in TIMES:
        yield from ((value, "invalid_time", ("2026-03-01T08:00:00Z", "epoch milliseconds")) for value in NO_TIMES)
    elif name == "limit":
        yield from ((value, "invalid_limit", ("1 to 1000",)) for value in ("0", "-1", "1001", "ten", "1.5", "", "٣"))
    elif name == "cursor":
        yield from ((value, "invalid_cursor", ("next",)) for value in ("abc", "!", "", "AAAAAAAAAAAAAAAAAAAAAA", "é"))
    elif name == "order":
        yield from ((value, "invalid_order", ("asc", "desc")) for value in ("up", "ASC", ""))
    elif name in LISTS:
        for value in ("nonsense", "", f"{next(iter(LISTS[name]))},"):
            yield value, f"unknown_{name}", tuple(str(allowed) for allowed in LISTS[name])
    elif "enum" in schema:
        yield from ((value, f"invalid_{name}", tuple(schema["enum"])) for value in ("nonsense", ""))
    elif schema.get("type") == "boolean":
        yield from ((value, f"invalid_{name}", ("true", "false")) for value in ("yes", "1", "True", ""))
    elif schema.get("type") in ("integer", "number"):
        yield from ((value, f"invalid_{name}", ("number",)) for value in ("many", "-1", "", "nan", "1e999"))


def questions() -> Iterator[Asked]:
    for path, parameters in routes():
        names = sorted(p["name"] for p in parameters)
        allowed = names or ["none"]
        yield Asked(path, httpx.QueryParams((("town", "berlin"),)), "unknown_parameter", ("'town'", *allowed))
        if names:
            misspelt = f"{names[0]}s"
            yield Asked(
                path,
                httpx.QueryParams(((misspelt, "x"),)),
                "unknown_parameter",
                (repr(misspelt), f"did you mean {names[0]}"),
            )
            yield Asked(
                path, httpx.QueryParams(((names[0], "1"), (names[0], "2"))), "repeated_parameter", (names[0], "once")
            )
        for parameter in parameters:
            for value, code, words in wrong(parameter):
                yield Asked(path, httpx.QueryParams(((parameter["name"], value),)), code, (parameter["name"], *words))


def test_every_question_that_makes_no_sense_is_answered_with_what_does(
    valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> None:
    asked = list(questions())
    assert {"/v1/rides", "/v1/users/ada/events", "/v1/users/ada/rides", "/v1/audit"} <= {each.path for each in asked}
    assert len(asked) > 200

    async def scene(client: httpx.AsyncClient) -> list[tuple[Asked, httpx.Response]]:
        return [(each, await client.get(each.path, params=each.params, headers=ADMIN)) for each in asked]

    with closing(World(tmp_path_factory.mktemp("world"), valkey)) as world:
        world.write(Rides().computed(Said("r1")))
        for each, answer in reading(world, scene):
            assert refused(answer) == (400, each.code), f"{each}: {answer.text}"
            message = answer.json()["message"]
            missing = [word for word in each.words if word not in message]
            assert not missing, f"{each}: {message!r} says nothing of {missing}"


CURSORS: list[tuple[str, dict[str, str], str, dict[str, str]]] = [
    ("/v1/rides", {}, "/v1/rides", {"city": "berlin"}),
    ("/v1/rides", {}, "/v1/rides", {"order": "asc"}),
    ("/v1/rides", {"city": "berlin"}, "/v1/rides", {}),
    ("/v1/rides", {}, "/v1/rides", {"as_of": str(2 * NOW)}),
    ("/v1/rides", {}, "/v1/rides", {"until": str(2 * NOW)}),
    ("/v1/rides", {}, "/v1/rides", {"min_errors": "0"}),
    ("/v1/rides", {}, "/v1/users/ada/events", {}),
    ("/v1/rides", {}, "/v1/users/ada/rides", {}),
    ("/v1/users/ada/events", {}, "/v1/rides", {}),
    ("/v1/users/ada/events", {}, "/v1/users/ada/rides", {}),
    ("/v1/users/ada/events", {}, "/v1/users/bob/events", {}),
    ("/v1/users/ada/events", {}, "/v1/deadletters", {}),
    ("/v1/users/ada/events", {}, "/v1/users/ada/events", {"kind": "app_event"}),
]
"""A list, what it is asked for, and another question to which its cursor is taken."""


@pytest.mark.parametrize(("path", "params", "elsewhere", "changed"), CURSORS)
def test_a_cursor_of_another_question_is_refused(
    valkey: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
    path: str,
    params: dict[str, str],
    elsewhere: str,
    changed: dict[str, str],
) -> None:
    async def scene(client: httpx.AsyncClient) -> tuple[httpx.Response, httpx.Response, httpx.Response]:
        first = await client.get(path, params={**params, "limit": "1"}, headers=ADMIN)
        again = {"cursor": first.json()["next"], "limit": "1"}
        same = await client.get(path, params={**params, **again}, headers=ADMIN)
        return first, same, await client.get(elsewhere, params={**changed, **again}, headers=ADMIN)

    with closing(World(tmp_path_factory.mktemp("world"), valkey)) as world:
        rides = Rides()
        for name in ("r1", "r2", "r3"):
            world.write(rides.computed(Said(name)), said("ada", name), said("bob", name))
        first, same, other = reading(world, scene)
    name = "ride_id" if path == "/v1/rides" else "id"
    assert [page.json()["items"][0][name] for page in (first, same)] == ["r3", "r2"]
    assert refused(other) == (400, "invalid_cursor")
    assert "another query" in other.json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "word"),
    [
        ("GET", "/v1/ride", 404, "/docs"),
        ("GET", "/v2/rides", 404, "/docs"),
        ("GET", "/v1/rides/r-0", 404, "r-0"),
        ("GET", "/v1/rides/r-0/messages", 404, "r-0"),
        ("GET", "/v1/messages/m-0", 404, "m-0"),
        ("GET", "/v1/users/nobody", 404, "nobody"),
        ("GET", "/v1/users/nobody/rides", 404, "nobody"),
        ("GET", "/v1/users/a%00b/events", 400, "percent-encode"),
        ("POST", "/v1/rides", 405, "POST"),
        ("PUT", "/v1/rides/r1", 405, "PUT"),
    ],
)
def test_what_is_not_there_is_named(
    valkey: Valkey, tmp_path_factory: pytest.TempPathFactory, method: str, path: str, status: int, word: str
) -> None:
    with closing(World(tmp_path_factory.mktemp("world"), valkey)) as world:
        answer = reading(world, lambda client: client.request(method, path, headers=ADMIN))
    assert refused(answer)[0] == status
    assert word in json.dumps(answer.json()["message"])
