"""Lines of log in both forms, and the requests that they name."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray import logs
from rebu_ray.logs import SANE, about, configure, event, id_of, new_id, origins, signed, taken
from rebu_ray.traces import resumed, told

log = logging.getLogger("rebu.test")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What a test configures is undone."""
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    yield
    root.handlers = before
    logging.getLogger("rebu").setLevel(logging.NOTSET)
    logs._form, logs._requests = "text", False


def lines(form: logs.Form, requests: bool = True) -> io.StringIO:
    """Where this process logs from now on."""
    stream = io.StringIO()
    configure(form, requests, "shard-1", stream)
    return stream


def test_a_line_of_json_has_what_programs_ask_for() -> None:
    stream = lines("json")
    with about([f"r-1 {TRACE}"]):
        log.warning("a %s of\nlines", "couple")
    with about(["r-1", "r-2", "r-1"]):
        event(log, "stored", rows=3)
    log.info("nobody asked")
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert first | {"time": "", "pid": 0} == {
        "time": "",
        "level": "warning",
        "logger": "rebu.test",
        "process": "shard-1",
        "pid": 0,
        "message": "a couple of\nlines",
        "request_id": "r-1",
        "trace_id": TRACE.split("-")[1],
    }
    assert first["time"].endswith("Z")
    assert (second["request_ids"], second["rows"]) == (["r-1", "r-2"], 3)
    assert not third.keys() & {"request_id", "request_ids", "trace_id"}


def test_an_error_brings_its_traceback_in_one_line_of_json() -> None:
    stream = lines("json")
    try:
        raise ValueError("odd")
    except ValueError:
        log.exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: odd" in json.loads(line)["exception"]


def test_text_is_for_people_and_says_the_same() -> None:
    stream = lines("text")
    with about([f"r-1 {TRACE}", "r-2"]):
        event(log, "stored", rows=3)
    assert " INFO rebu.test: stored rows=3 (request r-1, r-2)\n" in stream.getvalue()


def test_what_is_done_for_requests_is_logged_where_it_is_wanted_and_libraries_only_warn() -> None:
    stream = lines("text", requests=False)
    event(log, "stored", rows=3)
    logging.getLogger("httpx").info("GET /v1/users/ada")
    assert stream.getvalue() == ""
    logging.getLogger("httpx").warning("odd")
    assert "odd" in stream.getvalue()


def test_configuring_again_does_not_double_the_lines() -> None:
    lines("text")
    stream = lines("json")
    log.info("once")
    assert len(stream.getvalue().splitlines()) == 1


def test_requests_are_known_to_what_runs_for_them_and_to_nothing_else() -> None:
    seen: dict[str, tuple[str, ...]] = {}

    async def work(name: str) -> None:
        with about([name]):
            await asyncio.sleep(0)
            seen[name] = origins()
            seen[f"{name} in a thread"] = await asyncio.to_thread(origins)

    async def scene() -> None:
        await asyncio.gather(work("a"), work("b"))

    asyncio.run(scene())
    assert seen == {"a": ("a",), "b": ("b",), "a in a thread": ("a",), "b in a thread": ("b",)}
    assert origins() == ()


def test_a_task_logs_for_whom_its_caller_was_called() -> None:
    configure("json", True, "shard-0", io.StringIO())
    with about(["r-1"]):
        by = told()
    assert (by.form, by.requests) == ("json", True)
    with resumed(by, "task"):
        assert [id_of(origin) for origin in origins()] == ["r-1"]
    assert origins() == ()


@given(st.one_of(st.none(), st.text(), st.from_regex(SANE)))
def test_an_id_is_a_senders_if_it_is_harmless_else_new(given_id: str | None) -> None:
    found = taken(given_id)
    assert SANE.fullmatch(found)
    assert (found == given_id) == (given_id is not None and SANE.fullmatch(given_id) is not None)


@pytest.mark.parametrize(
    "bad",
    ["", "short", "ada@example.org", "rebu_write_5f0c7c1be2", "a b c d e f g h", "x" * 65, "line\nfeed-1234", "ö" * 9],
)
def test_ids_that_are_not_taken(bad: str) -> None:
    assert taken(bad) != bad


def test_ids_differ_and_messages_for_clients_carry_them() -> None:
    assert len({new_id() for _ in range(1000)}) == 1000
    assert signed("ask again") == "ask again"
    with about(["abcdef01"]):
        assert signed("ask again") == "ask again (request abcdef01)"


def test_there_is_an_end_of_what_is_remembered() -> None:
    with about(str(n) for n in range(5000)):
        assert len(origins()) == logs.MOST_ORIGINS
