"""Stops, restarts and sudden deaths: what was acknowledged is there afterwards, once."""

from __future__ import annotations

import json
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from rebu_ray.platform.local_ray import session_folder
from tests.system.load import Load
from tests.system.running import Item, Running, await_true, ids, kill, processes_of, rebu
from tests.system.test_stream import following

pytestmark = pytest.mark.system

NOW = time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def own() -> Iterator[Running]:
    """A platform that these tests may stop and kill. Each of them leaves it running."""
    with tempfile.TemporaryDirectory(prefix="rebu-own-", ignore_cleanup_errors=True) as folder:
        found = Running(Path(folder) / "data", REBU_FLUSH_SECONDS="2", REBU_HOT_EVENTS="100")
        try:
            found.start("--shards", "2")
            yield found
            assert found.stop(signal.SIGINT) == 0, found.said()
            assert processes_of(found.data_dir) == []
            assert not session_folder(str(found.data_dir)).exists()
        finally:
            found.clean_up()


def event(record_id: str, user: str, **fields: object) -> Item:
    return {"type": "track", "event": "Tapped", "messageId": record_id, "userId": user, "timestamp": NOW, **fields}


def test_it_goes_on_with_everything_after_a_stop(own: Running) -> None:
    messages = [event(f"l1-{number}", f"l1-{number % 5}", timestamp=NOW + number) for number in range(700)]
    phone = [event("l1-phone", "", userId=None, anonymousId="l1-p")]
    known = [event("l1-known", "l1-0", type="identify", anonymousId="l1-p", traits={"name": "Ada"})]
    fault = [{"timestamp": NOW, "level": "error", "message": "boom", "request_id": "l1-request"}]
    bad = [event("l1-bad", "l1-0", timestamp="never")]
    own.batch(messages[:400])
    own.flush()
    own.batch(messages[400:])
    own.batch([*phone, *bad])
    own.write("/v1/logs/error", fault)
    users = [f"l1-{number}" for number in range(5)]
    before = {user: own.history(user) for user in users}
    letters = own.deadletters()
    keys = (own.write_key, own.read_key, own.admin_key)

    with Load(own, "l1-load") as load:
        load.await_more(100)
        assert own.stop() == 0
        assert processes_of(own.data_dir) == []
        assert not (own.data_dir / "platform.json").exists()
        own.start("--shards", "3")
        load.await_more(100)
    load.check(own)
    assert len(own.shard_pids()) == 3
    assert (own.write_key, own.read_key, own.admin_key) == keys
    assert {user: own.history(user) for user in users} == before
    assert own.deadletters() == letters
    for sent in (messages, phone):
        receipt = own.batch(sent)
        assert (receipt["accepted"], receipt["duplicate"]) == (0, len(sent))
    assert own.write("/v1/logs/error", fault)["duplicate"] == 1
    # What waited for its other half goes on waiting.
    own.batch(known)
    line = {"timestamp": NOW, "method": "GET", "path": "/rides", "user_id": "l1-1", "request_id": "l1-request"}
    position = own.write("/v1/logs/access", [line])["position"]
    found = own.history("l1-1", min_position=position)
    assert [item["matched_by"] for item in found].count("request_id") == 1
    assert {"l1-phone", "l1-known"} < set(ids(own.history("l1-0")))
    assert own.get("/v1/users/l1-0").json()["traits"] == {"name": "Ada"}
    # Senders that came while it stopped and started were told to come again, if they got through at all.
    assert not load.other, (load.answers, set(load.other))


def test_a_shard_that_is_killed_loses_and_doubles_nothing(own: Running) -> None:
    with following(own, "l2-0") as follower:
        with Load(own, "l2") as load:
            load.await_more(300)
            before = own.shard_pids()
            kill(before[0])
            load.await_more(300)
            await_true(lambda: own.shard_pids()[0] != before[0], "the first shard to be there again")
            kill(before[1])
            load.await_more(300)
            await_true(lambda: own.shard_pids()[1] != before[1], "the second shard to be there again")
            load.await_more(100)
        load.check(own)
        assert load.answers[200] > 50
        assert not load.other, (load.answers, set(load.other))
        # Somebody who listened all the while heard everything, once.
        shown = set(ids(own.history("l2-0", limit=1000)))
        told = follower.await_items(len(shown))
        assert sorted(ids(told)) == sorted(shown)
    assert own.batch([event("l2-after", "l2-after")])["accepted"] == 1


def test_redis_that_was_emptied_is_filled_again(own: Running) -> None:
    own.batch(event(f"l4-{number}", "l4", timestamp=NOW + number) for number in range(500))
    own.batch([event("l4-p", "", userId=None, anonymousId="l4-phone")])
    own.batch([event("l4-i", "l4", type="identify", anonymousId="l4-phone")])
    own.flush()
    own.batch([event("l4-last", "l4")])
    before, letters = own.history("l4"), own.deadletters()
    assert len(before) == 503
    note = own.data_dir / "platform.json"
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    with redis.Redis.from_url(json.loads(note.read_text())["redis_url"]) as client:
        client.flushall()
        answer = own.get("/v1/users/l4/events", {"limit": 1000})  # half an answer is none
        assert answer.status_code == 503 or answer.json()["items"] == before
        done = rebu("reindex", "--data-dir", own.data_dir)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("the index is rebuilt: 16 partitions with "), done.stdout
    assert own.history("l4") == before
    assert own.deadletters() == letters


def test_two_platforms_side_by_side_know_nothing_of_each_other(own: Running, rebu_up: Running) -> None:
    for platform, other in ((own, rebu_up), (rebu_up, own)):
        mine = f"l6-{platform.port}"
        position = platform.batch([event(mine, "l6"), event(mine, mine)])["position"]
        assert mine in ids(platform.history("l6", min_position=position))
        assert other.history(mine) == []
        assert platform.get("/v1/users/l6/events", key=other.admin_key).status_code == 401
    assert {process.pid for process in processes_of(own.data_dir)}.isdisjoint(
        process.pid for process in processes_of(rebu_up.data_dir)
    )


def test_a_place_that_is_taken_is_refused_in_one_sentence(rebu_up: Running, tmp_path: Path) -> None:
    there, elsewhere = str(rebu_up.data_dir), str(tmp_path / "elsewhere")
    a_file = tmp_path / "file"
    a_file.write_text("not a folder")
    cases = [
        (("--data-dir", there, "--port", "1"), "already"),
        (("--data-dir", elsewhere, "--port", str(rebu_up.port)), "--port"),
        (("--data-dir", elsewhere, "--port", "70000"), "port"),
        (("--data-dir", elsewhere, "--shards", "0"), "shards"),
        (("--data-dir", str(a_file)), str(a_file)),
    ]
    for options, word in cases:
        done = rebu("up", *options)
        assert done.returncode not in (0, None)
        assert word in done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert done.stderr.startswith("rebu: ")
        assert done.stderr.count("\n") == 1, done.stderr
    assert processes_of(tmp_path) == []
    assert rebu_up.batch([event("l7", "l7")])["success"] is True


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, "format 99"),
        ({"REBU_LAKE_URI": "nonsense://bucket/lake"}, "nonsense"),
        ({"REBU_REDIS_URL": "redis://127.0.0.1:9/0"}, "127.0.0.1:9"),
    ],
    ids=["a lake of another version", "a lake that is nowhere", "a Redis that does not answer"],
)
def test_what_cannot_be_started_is_said_in_one_sentence(settings: dict[str, str], word: str) -> None:
    with tempfile.TemporaryDirectory(prefix="rebu-not-", ignore_cleanup_errors=True) as folder:
        platform = Running(Path(folder) / "data", **settings)
        lake = platform.data_dir / "lake"
        lake.mkdir(parents=True)
        if not settings:
            (lake / "rebu.json").write_text('{"platform_id":"x","partitions":16,"format":99}')
        try:
            process = platform.launch()
            await_true(lambda: process.poll() is not None, "it to give up", 45)
            assert process.returncode == 1
            assert "Traceback" not in platform.said()
            last = platform.said().splitlines()[-1]
            assert last.startswith("rebu: ")
            assert word in last
            assert processes_of(platform.data_dir) == []
        finally:
            platform.clean_up()


def test_a_start_may_be_called_off() -> None:
    with tempfile.TemporaryDirectory(prefix="rebu-off-", ignore_cleanup_errors=True) as folder:
        platform = Running(Path(folder) / "data")
        try:
            process = platform.launch()
            await_true(lambda: "starting Ray" in platform.said(), "it to begin")
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0, platform.said()
            assert "Traceback" not in platform.said()
            assert processes_of(platform.data_dir) == []
            assert not session_folder(str(platform.data_dir)).exists()
        finally:
            platform.clean_up()
