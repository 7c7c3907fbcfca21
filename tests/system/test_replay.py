"""Dead letters of a running platform are replayed, and a sender who turns bad is suspended for a while."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import httpx
import pytest

from tests.system.running import Item, Running, await_true, own_platform, rebu

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

GOOD = '10.0.0.1 - - [02/Mar/2026:07:59:00 +0000] "GET /users/replayed/rides HTTP/1.1" 200 5'


@pytest.fixture(scope="module")
def platform() -> Iterator[Running]:
    """A platform that keeps little in Redis."""
    with own_platform("replay", {"REBU_BREAKER_SECONDS": "2", "REBU_HOT_EVENTS": "40"}) as found:
        yield found


def message(number: int) -> Item:
    return {"type": "track", "event": "Late", "userId": "replayed", "messageId": f"late-{number}"}


def refuse(platform: Running, numbers: range) -> None:
    """Have messages refused for what the request around them said: each by itself is sound."""
    receipt = platform.batch(map(message, numbers), sentAt="when I sent it")
    assert receipt["rejected"] == len(numbers)


def replay(platform: Running, **body: object) -> Item:
    answer = platform.post("/v1/deadletters/replay", body, key=platform.admin_key)
    assert answer.status_code == 200, answer.text
    found: Item = answer.json()
    return found


def listed(platform: Running, source: str = "app-events") -> list[str]:
    return [item["id"] for item in platform.deadletters(source=source)]


def balances(platform: Running) -> bool:
    found = platform.get("/v1/audit").json()
    return bool(found["balanced"])


def test_what_was_refused_is_accepted_after_a_fix_and_only_once(platform: Running) -> None:
    refuse(platform, range(20))
    platform.lines("access", "no line at all")
    dry = replay(platform, dry_run=True)
    assert (dry["dry_run"], dry["replayed"], dry["rejected"]) == (True, 20, 1)
    assert len(listed(platform)) == 20
    chosen = listed(platform)[:3]
    assert replay(platform, ids=chosen)["replayed"] == 3
    assert set(listed(platform)).isdisjoint(chosen)
    platform.batch([message(19)])
    done = replay(platform, source="app-events")
    assert done["replayed"] + done["duplicate"] == 17
    assert listed(platform) == []
    assert len(listed(platform, "access")) == 1
    assert replay(platform, source="app-events")["results"] == []
    history = platform.history("replayed", min_position=done["position"])
    assert sorted(item["id"] for item in history) == sorted(f"late-{n}" for n in range(20))
    refuse(platform, range(20))
    assert listed(platform) == [], "sent again as it was, it is known already"
    assert balances(platform)


def test_the_list_is_the_same_after_a_rebuild(platform: Running) -> None:
    refuse(platform, range(100, 148))
    refuse(platform, range(200, 248))
    platform.flush()
    gone = listed(platform)[10:90]
    assert replay(platform, ids=gone)["replayed"] == 80
    left = listed(platform)
    assert (len(left), set(left) & set(gone)) == (16, set())
    platform.admin("POST", "/v1/admin/reindex")
    await_true(lambda: listed(platform) == left, "the list after a rebuild")
    assert balances(platform)


def test_the_command_replays_and_says_what_became_of_it(platform: Running) -> None:
    refuse(platform, range(300, 310))
    before = listed(platform)
    dry = rebu("deadletters", "replay", "--dry-run", "--source", "app-events", "--data-dir", platform.data_dir)
    assert dry.returncode == 0, dry.stderr
    assert f"{len(before)} replayed, 0 duplicate, 0 rejected" in dry.stderr
    assert [json.loads(line)["status"] for line in dry.stdout.splitlines()] == ["replayed"] * len(before)
    assert listed(platform) == before
    done = rebu("deadletters", "replay", "--source", "app-events", "--data-dir", platform.data_dir)
    assert done.returncode == 0, done.stderr
    assert listed(platform) == []


def test_a_sender_who_turns_bad_is_suspended_alone_and_nothing_is_lost(platform: Running) -> None:
    numbers = count()
    sent = set()

    def bad() -> httpx.Response:
        lines = [f"bad line {next(numbers)}" for _ in range(1100)]
        answer = platform.post("/v1/logs/access", "\n".join(lines).encode(), "text/plain", X_Rebu_Producer="web-7")
        if answer.status_code == 200:
            sent.update(lines)
        return answer

    suspended = await_true(lambda: next((a for a in [bad()] if a.status_code == 503), None), "web-7 to be suspended")
    assert suspended is not None
    assert suspended.json()["code"] == "source_suspended"
    assert int(suspended.headers["retry-after"]) >= 1
    state = await_true(
        lambda: [s for s in platform.status()["suspended"] if s["source"] == "access"], "the status to say so"
    )[0]
    assert state["state"] in ("open", "half_open")
    assert state["senders"] == 1
    assert platform.lines("access", f"{GOOD} other", X_Rebu_Producer="web-8")["accepted"] == 1
    assert platform.lines("access", f"{GOOD} nobody")["accepted"] == 1
    assert platform.lines("error", "2026/03/02 07:59:00 [error] 1#1: *1 other")["accepted"] == 1

    def good() -> bool:
        line = f"{GOOD} {next(numbers)}".encode()
        answer = platform.post("/v1/logs/access", line, "text/plain", X_Rebu_Producer="web-7")
        assert answer.status_code == 200 or answer.json()["code"] == "source_suspended"
        return answer.status_code == 200

    await_true(good, "web-7 to be taken on again")
    kept = {item["record"] for item in platform.deadletters(source="access")}
    assert sent <= kept
    assert balances(platform)
