"""The live stream of a history: what comes in is told once, also to a follower who was away for a while."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.system.running import Item, Running, await_true, ids, path_of

pytestmark = pytest.mark.system

NOW = time.time_ns() // 1_000_000


def event(record_id: str, user: str | None = None, phone: str | None = None, **fields: Any) -> Item:
    said = {"type": "track", "event": "Tapped", "messageId": record_id, "userId": user, "anonymousId": phone}
    return said | {"timestamp": NOW} | fields


def identify(record_id: str, user: str, phone: str) -> Item:
    return event(record_id, user, phone, type="identify")


class Follower:
    """A client of a stream, as browsers are: where the stream ends it comes back and says how far it was."""

    def __init__(self, platform: Running, user: str, last_event_id: str | None = None) -> None:
        self.items: list[Item] = []
        self.last_event_id = last_event_id
        self._url = f"{platform.url}{path_of(user)}/events/stream"
        self._key = platform.read_key
        self._begun = threading.Event()
        self._left = threading.Event()
        self._socket: socket.socket | None = None
        self._problem = ""
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        assert self._begun.wait(60), "the stream did not begin"
        assert not self._problem, self._problem

    def _follow(self) -> None:
        while not self._left.is_set() and not self._problem:
            # Hanging up makes the last chunk an incomplete one.
            with contextlib.suppress(httpx.TransportError):
                self._listen()
            self._left.wait(0.1)
        self._begun.set()

    def _listen(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}", "Accept": "text/event-stream"}
        if self.last_event_id is not None:
            headers["Last-Event-ID"] = self.last_event_id
        with httpx.stream("GET", self._url, headers=headers, timeout=120) as answer:
            if answer.status_code == 503:
                return
            if answer.status_code != 200 or not answer.headers["content-type"].startswith("text/event-stream"):
                self._problem = f"{answer.status_code} {answer.read().decode()}"
                return
            self._socket = answer.extensions["network_stream"].get_extra_info("socket")
            said: dict[str, str] = {}
            for line in answer.iter_lines():
                self._begun.set()
                if not line and "data" in said:
                    self.last_event_id = said["id"]
                    self.items.append(json.loads(said["data"]))
                if not line:
                    said = {}
                elif not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    said[name] = value

    def await_items(self, count: int) -> list[Item]:
        """At least so many items."""
        try:
            await_true(lambda: len(self.items) >= count, f"{count} items of a stream")
        except AssertionError as error:
            error.add_note(f"there are {len(self.items)}: {ids(self.items)}")
            raise
        return self.items

    def hang_up(self) -> None:
        """Break the connection, as a phone in a tunnel does."""
        self._left.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def following(platform: Running, user: str, last_event_id: str | None = None) -> Iterator[Follower]:
    follower = Follower(platform, user, last_event_id)
    try:
        yield follower
    finally:
        follower.hang_up()


def test_new_records_are_told_as_the_history_shows_them(rebu_up: Running) -> None:
    rebu_up.batch([event("s1-old", "s1"), event("s1-other", "s1-other")])
    with following(rebu_up, "s1") as follower:
        rebu_up.batch([event("s1-a", "s1"), event("s1-x", "s1-other"), event("s1-b", "s1", timestamp=NOW - 9_000_000)])
        rebu_up.batch([event("s1-a", "s1")])
        line = {"timestamp": NOW, "method": "GET", "path": "/users/s1/rides", "status": 200, "request_id": "s1-req"}
        fault = {"timestamp": NOW, "level": "error", "message": "boom\r\nboom", "request_id": "s1-req"}
        rebu_up.write("/v1/logs/error", [fault])
        rebu_up.write("/v1/logs/access", [line])
        told = follower.await_items(4)
        rebu_up.batch([event("s1-end", "s1")])
        told = follower.await_items(5)
        assert ids(told)[:2] == ["s1-a", "s1-b"]
        assert {item["kind"] for item in told[2:4]} == {"server_access", "server_error"}
        assert ids(told)[4:] == ["s1-end"]
        shown = {item["id"]: item for item in rebu_up.history("s1")}
        assert {item["id"]: item for item in told} == {key: item for key, item in shown.items() if key != "s1-old"}


def test_someone_unheard_of_can_be_followed(rebu_up: Running) -> None:
    with following(rebu_up, "s2-new") as follower:
        rebu_up.batch([event("s2-1", "s2-new")])
        assert ids(follower.await_items(1)) == ["s2-1"]


def test_a_follower_who_was_away_misses_nothing_and_hears_nothing_twice(rebu_up: Running) -> None:
    with following(rebu_up, "s3") as follower:
        rebu_up.batch(event(f"s3-{number:04d}", "s3") for number in range(3))
        follower.await_items(3)
    rebu_up.batch(event(f"s3-{number:04d}", "s3", timestamp=NOW - number) for number in range(3, 20))
    with following(rebu_up, "s3", follower.last_event_id) as second:
        rebu_up.batch([event("s3-0020", "s3")])
        assert ids(second.await_items(18)) == [f"s3-{number:04d}" for number in range(3, 21)]
    with following(rebu_up, "s3", second.last_event_id) as third:
        rebu_up.batch([event("s3-0021", "s3")])
        assert ids(third.await_items(1)) == ["s3-0021"]


def test_a_follower_who_was_away_for_long_hears_what_is_in_the_lake_by_now(rebu_up: Running) -> None:
    with following(rebu_up, "s4") as follower:
        rebu_up.batch([event("s4-00000", "s4")])
        follower.await_items(1)
    for start in range(1, 601, 100):  # more than this platform's Redis keeps
        rebu_up.batch(event(f"s4-{n:05d}", "s4", timestamp=NOW + n) for n in range(start, start + 100))
    rebu_up.flush()
    with following(rebu_up, "s4", follower.last_event_id) as second:
        assert sorted(ids(second.await_items(600))) == [f"s4-{number:05d}" for number in range(1, 601)]


def test_what_a_linked_phone_says_is_told(rebu_up: Running) -> None:
    rebu_up.batch([identify("s5-i", "s5", "s5-phone"), identify("s5-j", "s5-eve", "s5-shared")])
    with following(rebu_up, "s5") as follower:
        rebu_up.batch([event("s5-1", phone="s5-phone"), event("s5-2", "s5"), event("s5-no", phone="s5-shared")])
        assert sorted(ids(follower.await_items(2))) == ["s5-1", "s5-2"]
        assert {item["matched_by"] for item in follower.items} == {"anonymous_id", "user_id"}
    rebu_up.batch([event("s5-3", phone="s5-phone")])
    with following(rebu_up, "s5", follower.last_event_id) as second:
        rebu_up.batch([event("s5-4", "s5")])
        assert sorted(ids(second.await_items(2))) == ["s5-3", "s5-4"]


def test_a_phone_that_is_linked_meanwhile_is_told_from_then_on(rebu_up: Running) -> None:
    with following(rebu_up, "s6") as follower:
        for number in range(8):
            rebu_up.batch([identify(f"s6-i{number}", "s6", f"s6-phone-{number}")])
            rebu_up.batch([event(f"s6-e{number}", phone=f"s6-phone-{number}")])
        told = follower.await_items(16)
        assert sorted(ids(told)) == sorted(f"s6-{what}{number}" for what in "ie" for number in range(8))


def test_a_phone_that_was_linked_while_the_follower_was_away_is_told(rebu_up: Running) -> None:
    with following(rebu_up, "s7") as follower:
        rebu_up.batch([event("s7-0", "s7")])
        follower.await_items(1)
    for number in range(8):
        rebu_up.batch([identify(f"s7-i{number}", "s7", f"s7-phone-{number}")])
        rebu_up.batch([event(f"s7-e{number}", phone=f"s7-phone-{number}")])
    with following(rebu_up, "s7", follower.last_event_id) as second:
        told = second.await_items(16)
        assert sorted(ids(told)) == sorted(f"s7-{what}{number}" for what in "ie" for number in range(8))


@pytest.mark.parametrize("seed", range(2))
def test_a_shaky_connection_loses_nothing(rebu_up: Running, seed: int) -> None:
    """A follower who hangs up again and again while much comes in, from the user and from two phones."""
    rng = random.Random(seed)
    user, phones = f"s8-{seed}", [f"s8-{seed}-phone-{number}" for number in range(2)]
    rebu_up.batch(identify(f"{phone}-i", user, phone) for phone in phones)
    numbers = itertools.count()
    sent: list[str] = []
    told: list[str] = []

    def write() -> None:
        for _ in range(60):
            fresh = [f"s8-{seed}-{next(numbers):05d}" for _ in range(rng.randint(1, 12))]
            senders = [rng.choice((user, *phones)) for _ in fresh]
            rebu_up.batch(
                event(name, user if by == user else None, None if by == user else by)
                for name, by in zip(fresh, senders, strict=True)
            )
            sent.extend(fresh)

    with ThreadPoolExecutor(1) as pool:
        with following(rebu_up, user) as first:
            rebu_up.batch([event(f"s8-{seed}-begin", user)])
            told += ids(first.await_items(1))
        writing = pool.submit(write)
        last = first.last_event_id
        while not writing.done():
            with following(rebu_up, user, last) as follower:
                await_true(lambda f=follower: f.items or writing.done(), "something to come")  # type: ignore[misc]
            told += ids(follower.items)
            last = follower.last_event_id
        writing.result()
    rebu_up.batch([event(f"s8-{seed}-end", user)])
    with following(rebu_up, user, last) as follower:
        await_true(lambda: f"s8-{seed}-end" in ids(follower.items), "the end")
    told += ids(follower.items)
    await_true(lambda: len(told) >= len(sent) + 2, "all")
    assert sorted(told) == sorted([f"s8-{seed}-begin", *sent, f"s8-{seed}-end"])


def test_who_may_follow(rebu_up: Running) -> None:
    path = f"{path_of('s9')}/events/stream"
    assert rebu_up.http.get(path).status_code == 401
    assert rebu_up.get(path, key=rebu_up.write_key).status_code == 403
    for headers in ({"Last-Event-ID": "nonsense"}, {"Last-Event-ID": "%%%"}):
        answer = rebu_up.http.get(path, headers={"Authorization": f"Bearer {rebu_up.read_key}"} | headers)
        assert answer.status_code == 400
        assert set(answer.json()) == {"code", "message"}
