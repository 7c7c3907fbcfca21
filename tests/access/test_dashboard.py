"""The dashboard's files and a browser's way in: what a cookie is good for, and what it is not."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

import rebu_ray.access.dashboard
from rebu_ray import passes
from rebu_ray.access.dashboard import pages
from rebu_ray.access.dashboard.session import cookie_name
from rebu_ray.passes import Use, issue
from rebu_ray.settings import Settings
from tests.access.serving import ADMIN, KEYS, READ, WRITE, Backends, reading, refused, visit
from tests.access.worlds import World

FOLDER = Path(rebu_ray.access.dashboard.__file__).parent
COOKIE = cookie_name(Settings().port)
MOST_BYTES = 300_000


def cookie(key: str = KEYS.read, seconds: float = 60, use: Use = Use.SESSION) -> dict[str, str]:
    return {"Cookie": f"other=1; {COOKIE}={issue(key, use, round(1000 * (time.time() + seconds)))}"}


def answer(method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """The answer of a platform without data."""
    return asyncio.run(visit(Backends(), lambda c: c.request(method, path, headers=headers)))


# -- files ------------------------------------------------------------------------------------------------------


def test_the_files_are_few_and_small() -> None:
    served = pages.files()
    assert sum(len(file.data) for file in served.values()) < MOST_BYTES
    assert {"index.html", "app.js", "style.css", "vendor/uPlot.iife.min.js"} <= served.keys()
    for name in served.keys() - {"index.html"}:
        found = answer("GET", f"/dashboard/{name}")
        assert found.status_code == 200
        assert found.content == served[name].data
        assert found.headers["content-type"] == served[name].media


def test_what_others_wrote_is_unchanged_and_has_its_licence() -> None:
    note = (FOLDER / "vendor/README.md").read_text()
    sums = dict(re.findall(r"^\| `(\S+)` .* `([0-9a-f]{64})` \|$", note, re.M))
    scripts = {path.name for path in (FOLDER / "vendor").iterdir() if path.suffix in (".js", ".css")}
    assert sums.keys() == scripts
    for name, wanted in sums.items():
        assert hashlib.sha256((FOLDER / "vendor" / name).read_bytes()).hexdigest() == wanted
    assert "MIT License" in (FOLDER / "vendor/uPlot.LICENSE").read_text()


def test_no_file_asks_anybody_else() -> None:
    for path in (FOLDER / "static").iterdir():
        found = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text())
        assert set(found) <= {"http://www.w3.org"}, path.name


def test_no_script_makes_markup_of_text() -> None:
    for path in (FOLDER / "static").glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", path.read_text())


def test_every_page_is_kept_from_talking_to_others() -> None:
    for path in ("/", "/dashboard/app.js", "/dashboard/nothing.js", "/?token=nonsense"):
        headers = answer("GET", path).headers
        policy = dict(part.split(maxsplit=1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
        assert policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_a_file_that_the_browser_has_is_not_sent_again() -> None:
    first = answer("GET", "/dashboard/app.js")
    again = answer("GET", "/dashboard/app.js", {"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "../pages.py", "..%2fpages.py", "vendor/README.md", "vendor/", ""])
def test_nothing_else_of_the_folder_is_served(name: str) -> None:
    assert answer("GET", f"/dashboard/{name}").status_code == 404


# -- links ------------------------------------------------------------------------------------------------------


def test_a_link_signs_in_once(world: World) -> None:
    token = urlsplit(passes.link("http://rebu", KEYS.read, round(1000 * time.time()))).query

    async def scene(client: httpx.AsyncClient) -> None:
        first = await client.get(f"/?{token}")
        assert (first.status_code, first.headers["location"]) == (303, "/")
        words = [word.strip().lower() for word in first.headers["set-cookie"].split(";")]
        assert {"httponly", "samesite=strict", "path=/"} <= set(words)
        assert KEYS.read not in first.headers["set-cookie"]
        assert (await client.get("/v1/session")).json()["scopes"] == ["read"]
        client.cookies.clear()
        second = await client.get(f"/?{token}")
        assert second.status_code == 401
        assert "set-cookie" not in second.headers
        assert "<!doctype html>" in second.text

    reading(world, scene)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        issue(KEYS.read, Use.SESSION, 10**14),
        issue(KEYS.read, Use.LINK, 1),
        issue("x", Use.LINK, 10**14),
    ],
    ids=["empty", "nonsense", "of a session", "expired", "of another key"],
)
def test_a_link_that_is_not_good_signs_nobody_in(token: str) -> None:
    found = answer("GET", f"/?token={token}")
    assert found.status_code == 401
    assert "set-cookie" not in found.headers


def test_a_link_of_a_key_that_may_not_read_signs_nobody_in() -> None:
    assert answer("GET", f"/?token={issue(KEYS.write, Use.LINK, 10**14)}").status_code == 401


# -- cookies ------------------------------------------------------------------------------------------------------


def test_a_key_is_exchanged_for_a_cookie_that_reads() -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        begun = await client.post("/v1/session", headers=READ)
        assert (begun.status_code, begun.json()["scopes"]) == (200, ["read"])
        assert (await client.get("/openapi.json")).status_code == 200
        assert (await client.get("/v1/session")).json() == begun.json()
        ended = await client.delete("/v1/session")
        assert ended.status_code == 200
        assert refused(await client.get("/v1/session")) == (401, "unauthorized")

    asyncio.run(visit(Backends(), scene))


def test_the_write_key_is_exchanged_for_nothing() -> None:
    assert refused(answer("POST", "/v1/session", WRITE)) == (403, "forbidden")
    assert refused(answer("POST", "/v1/session")) == (401, "unauthorized")
    assert refused(answer("POST", "/v1/session", cookie())) == (401, "unauthorized")


def test_a_cookie_reads_what_its_key_reads(world: World) -> None:
    async def scene(client: httpx.AsyncClient) -> list[int]:
        asked = [("/v1/rides", KEYS.read), ("/v1/deadletters", KEYS.read), ("/v1/deadletters", KEYS.admin)]
        return [(await client.get(path, headers=cookie(key))).status_code for path, key in asked]

    assert reading(world, scene) == [200, 403, 200]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/batch"),
        ("POST", "/v1/logs/access"),
        ("POST", "/v1/records/rides"),
        ("POST", "/v1/deadletters/replay"),
        ("POST", "/v1/admin/flush"),
        ("POST", "/v1/admin/scale"),
        ("DELETE", "/v1/users/ada"),
        ("DELETE", "/v1/users/ada/anonymous/p1"),
    ],
)
def test_a_cookie_changes_nothing(method: str, path: str) -> None:
    assert refused(answer(method, path, cookie(KEYS.admin))) == (401, "unauthorized")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_cookie_is_nothing_where_another_site_asks(site: str) -> None:
    assert refused(answer("GET", "/v1/session", cookie() | {"Sec-Fetch-Site": site})) == (401, "unauthorized")
    for own in ("same-origin", "none"):
        assert answer("GET", "/v1/session", cookie() | {"Sec-Fetch-Site": own}).status_code == 200


def test_a_cookie_that_is_not_good_is_nothing() -> None:
    for bad in (cookie(seconds=-1), cookie("nobody"), cookie(use=Use.LINK), {"Cookie": f"{COOKIE}=x"}):
        assert refused(answer("GET", "/v1/session", bad)) == (401, "unauthorized")


def test_a_key_in_the_request_counts_and_not_the_cookie() -> None:
    assert refused(answer("GET", "/v1/session", cookie(KEYS.admin) | WRITE)) == (403, "forbidden")
    found = answer("GET", "/v1/session", cookie(KEYS.read) | ADMIN).json()
    assert (found["scopes"], found["until"]) == (["write", "read", "admin"], None)


def test_a_page_is_not_asked_for_a_password() -> None:
    script = answer("GET", "/v1/status", {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"})
    assert (script.status_code, script.headers["www-authenticate"]) == (401, 'Bearer realm="Rebu"')
    wrong = answer("POST", "/v1/session", {"Sec-Fetch-Mode": "cors", "Authorization": "Bearer nonsense"})
    assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, 'Bearer realm="Rebu"')
    for mode in ({}, {"Sec-Fetch-Mode": "navigate"}):
        assert answer("GET", "/v1/status", mode).headers["www-authenticate"].startswith("Basic ")
