"""Two owners of one partition, and journals with damage in them: who comes late is refused, and nothing is skipped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rebu_ray.store.journal import open_journal, stretches
from tests.system.load import Load
from tests.system.running import Item, Running, await_true, ids, kill, own_platform, rebu

pytestmark = pytest.mark.system

NOW = time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def own() -> Iterator[Running]:
    """A platform whose journal only moves to the lake when it is asked to."""
    with own_platform("fence", {"REBU_FLUSH_SECONDS": "100000"}) as found:
        yield found


def event(record_id: str, user: str) -> Item:
    return {"type": "track", "event": "Tapped", "messageId": record_id, "userId": user, "timestamp": NOW}


def test_an_owner_that_slept_while_another_came_is_refused_and_replaced(own: Running) -> None:
    journal = open_journal(str(own.data_dir / "journal"))
    with Load(own, "fence") as load:
        load.await_more(200)
        before = own.shard_pids()
        for slot, pid in enumerate(before):
            os.kill(pid, signal.SIGSTOP)
            try:
                # Writes are on their way to the sleeper when its slot passes on.
                time.sleep(0.5)
                epoch = journal.claim(slot)
            finally:
                os.kill(pid, signal.SIGCONT)
            await_true(lambda s=slot, p=pid: own.shard_pids()[s] != p, "the stale owner to be replaced")  # type: ignore[misc]
            state = own.fresh_status()["shards"][slot]
            assert state["epoch"] > epoch
            load.await_more(200)
    load.check(own)
    assert load.answers[200] > 50
    assert not load.other, (load.answers, set(load.other))
    # What the sleepers wrote after they woke is in no history: `check` found nothing twice and nothing that was
    # never sent. It is not in the lake either.
    own.flush()
    load.check(own)


def test_a_torn_last_record_is_dropped(own: Running) -> None:
    own.batch([event("torn-1", "torn"), event("torn-2", "torn")])
    pids = own.shard_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for segment in (own.data_dir / "journal").glob("*.seg"):
        with segment.open("ab") as file:
            file.write(segment.read_bytes()[:77])
    for pid in pids:
        kill(pid)
    await_true(lambda: not set(pids) & set(own.shard_pids()), "the shards to be there again")
    assert own.batch([event("torn-2", "torn"), event("torn-3", "torn")])["duplicate"] == 1
    assert sorted(ids(own.history("torn"))) == ["torn-1", "torn-2", "torn-3"]


def damage(platform: Running) -> tuple[Path, list[str]]:
    """Spoil the middle of a segment of a stopped shard; it and the users whose events are in it."""
    users = [f"dmg-{number}" for number in range(8)]
    for number in range(4):
        platform.batch(event(f"{user}-{number}", user) for user in users)
    pids = platform.shard_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    segment = max((platform.data_dir / "journal").glob("000-*.seg"), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    start, end, _ = list(stretches(bytes(data)))[-3]
    data[(start + end) // 2] ^= 0xFF
    segment.write_bytes(data)
    for pid in pids:
        kill(pid)
    return segment, users


def test_damage_is_named_refused_and_set_aside_without_a_restart(own: Running) -> None:
    segment, users = damage(own)

    def damaged() -> Item | None:
        found = own.get("/v1/status")
        shards = found.json()["shards"] if found.status_code == 200 else []
        return next((shard for shard in shards if shard["index"] == "damaged"), None)

    state = await_true(damaged, "the damage to show")
    assert state is not None
    assert segment.name in state["detail"]
    assert f"rebu journal quarantine {segment.name}" in state["detail"]
    assert segment.name in rebu("status", "--data-dir", own.data_dir).stdout
    ready = own.http.get("/readyz")
    assert ready.status_code == 503
    assert segment.name in ready.json()["message"]
    # A write is refused clearly. (Any shard may find rows of its partitions in any segment: all of them wait.)
    for user in users:
        answer = own.post("/v1/batch", {"batch": [event(f"{user}-later", user)]})
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
        assert segment.name in answer.json()["message"]
        assert int(answer.headers["retry-after"]) > 0

    refused = rebu("journal", "quarantine", "000-000099-00000001.seg", "--data-dir", own.data_dir)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused.stderr
    done = rebu("journal", "quarantine", segment.name, "--data-dir", own.data_dir)
    assert done.returncode == 0, done.stderr
    assert "can be read and stay" in done.stdout
    assert list(segment.parent.glob(f"{segment.name}.damaged-*"))
    await_true(lambda: damaged() is None and own.shard_pids(), "the shard to open its journal")
    for user in users:
        assert own.batch([event(f"{user}-later", user)])["success"] is True
        found = ids(own.history(user))
        assert len(set(found)) == len(found)
        assert f"{user}-later" in found
        # One frame of four was spoilt.
        assert len({f"{user}-{number}" for number in range(4)} - set(found)) <= 1


def test_a_platform_that_finds_damage_at_its_start_says_so_in_one_sentence(own: Running) -> None:
    """The last test here: it starts the platform anew."""
    segment, _ = damage(own)
    own.kill_group()
    try:
        process = own.launch("--shards", "2")
        await_true(lambda: process.poll() is not None, "it to give up", 120)
        assert process.returncode == 1
        assert "Traceback" not in own.said()
        last = own.said().splitlines()[-1]
        assert last.startswith("rebu: ")
        assert f"rebu journal quarantine {segment.name}" in last
    finally:
        own.clean_up()
    assert rebu("journal", "quarantine", segment.name, "--data-dir", own.data_dir).returncode == 0
    own.start("--shards", "2")
    assert own.batch([event("after", "after")])["accepted"] == 1
