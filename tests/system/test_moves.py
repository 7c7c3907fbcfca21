"""Partitions that move while data flows: nothing is lost, doubled or turned round, whoever is killed or stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from rebu_ray.platform.local_ray import session_folder
from tests.system.load import Load
from tests.system.running import Item, Running, await_true, ids, kill, own_platform, processes_of, rebu
from tests.system.test_stream import following

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

NOW = time.time_ns() // 1_000_000
PARTITIONS = 16


@pytest.fixture(scope="module")
def own() -> Iterator[Running]:
    """A platform whose shards may be stopped for some seconds only."""
    with own_platform("moves", {"REBU_FLUSH_SECONDS": "3", "REBU_LEASE_SECONDS": "6"}) as found:
        yield found


class Sequence(threading.Thread):
    """One event of a user after the other, each sent when the one before is acknowledged."""

    def __init__(self, platform: Running, user: str) -> None:
        super().__init__(daemon=True)
        self._platform = platform
        self._user = user
        self._enough = threading.Event()
        self.acknowledged: list[str] = []

    def run(self) -> None:
        while not self._enough.is_set():
            name = f"{self._user}-{len(self.acknowledged):06d}"
            said = {"type": "track", "event": "Tapped", "messageId": name, "userId": self._user, "timestamp": NOW}
            if self._platform.post("/v1/batch", {"batch": [said]}).status_code == 200:
                self.acknowledged.append(name)

    def end(self) -> list[str]:
        self._enough.set()
        self.join(120)
        assert not self.is_alive()
        return self.acknowledged


_NODE = """
import sys, time
from ray._private.node import Node
from ray._private.parameter import RayParams

# `ray start` would look for the control store at the machine's address, and it listens on loopback alone.
memory, ports = 100_000_000, {"min_worker_port": 0, "max_worker_port": 0}
wanted = RayParams(gcs_address=sys.argv[1], num_cpus=8, object_store_memory=memory, **ports)
Node(wanted, head=False, shutdown_at_exit=False, spawn_reaper=False)
while True:
    time.sleep(60)
"""


@contextmanager
def second_node(platform: Running) -> Iterator[psutil.Process]:
    """Another node of the platform's Ray while the block runs; its raylet."""
    [first] = processes_of(platform.data_dir, "^raylet$")
    [address] = [word.partition("=")[2] for word in first.cmdline() if word.startswith("--gcs-address=")]
    with platform.output.with_suffix(".node").open("wb") as out:
        node = subprocess.Popen(
            [sys.executable, "-c", _NODE, address],
            env=first.environ(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def others() -> list[psutil.Process]:
        return [p for p in processes_of(platform.data_dir, "^raylet$") if p.pid != first.pid]

    try:
        found = await_true(others, "a second raylet to start")[0]
        await_true(lambda: sum(n["alive"] for n in platform.status().get("nodes", [])) == 2, "it to be known")
        yield found
    finally:
        for found in [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]:
            kill(found.pid)
        node.wait()


def scale(platform: Running, shards: int) -> Item:
    """Ask for so many shards; what is answered."""
    answer = platform.post("/v1/admin/scale", {"shards": shards}, key=platform.admin_key)
    assert answer.status_code == 200, answer.text
    found: Item = answer.json()
    return found


def shares(platform: Running) -> Counter[int]:
    """How many partitions each slot owns."""
    return Counter(platform.status()["routing"]["owners"])


def shared_by(platform: Running, shards: int) -> bool:
    """Whether so many shards own as many each as can be, and all of them serve."""
    state = platform.status()
    owned = Counter(state["routing"]["owners"])
    even = len(owned) == shards and max(owned.values()) - min(owned.values()) <= 1
    said = [s.get("partitions") for s in state["shards"]]
    told = [[p for p, owner in enumerate(state["routing"]["owners"]) if owner == s] for s in range(shards)]
    return even and said == told and all(shard["index"] == "current" for shard in state["shards"])


def check(platform: Running, load: Load) -> None:
    """Every promise is kept, and everything adds up."""
    load.check(platform)
    assert not load.other, (load.answers, set(load.other))
    assert load.answers[200] > 20
    for command in ("audit", "verify"):
        done = rebu(command, "--data-dir", platform.data_dir)
        assert done.returncode == 0, (done.stdout, done.stderr)


def test_shards_are_added_and_removed_while_data_flows(own: Running) -> None:
    with following(own, "m1-order") as follower, Load(own, "m1") as load:
        sequence = Sequence(own, "m1-order")
        sequence.start()
        load.await_more(200)
        for shards, moves in ((3, 5), (1, 11), (2, 8)):
            done = rebu("scale", "--shards", str(shards), "--data-dir", own.data_dir)
            assert done.returncode == 0, done.stderr
            said = done.stdout.splitlines()
            assert said[0].endswith(f"{shards} wanted: {moves} partitions move")
            assert sum(line.startswith("partition ") for line in said) == moves, done.stdout
            await_true(lambda n=shards: shared_by(own, n), f"{shards} shards to share")  # type: ignore[misc]
            load.await_more(100)
        sent = sequence.end()
        # Who follows the history was told of everything in the order in which it came in.
        told = ids(follower.await_items(len(sent)))
        assert told == sent
    check(own, load)
    assert sorted(ids(own.history("m1-order", limit=1000))) == sent
    state = own.status()
    assert (state["moves"]["moved"], state["moves"]["fenced"], state["scaling"]) == (24, 0, False)
    assert "rebu_partitions_moved_total 24" in own.http.get("/metrics").text
    # Who sends again is told so, wherever the partition has been meanwhile.
    again = [{"type": "track", "messageId": name, "userId": "m1-order", "event": "Tapped"} for name in sent[:100]]
    receipt = own.batch(again)
    assert (receipt["accepted"], receipt["duplicate"]) == (0, len(again))


def test_what_is_no_number_of_shards_is_refused(own: Running) -> None:
    for body in (b"", b"{}", b'{"shards": 0}', b'{"shards": 17}', b'{"shards": "three"}', b'{"shards": 2, "of": 1}'):
        answer = own.post("/v1/admin/scale", body, key=own.admin_key)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_shards"), body
    assert own.post("/v1/admin/scale", {"shards": 2}, key=own.read_key).status_code == 403
    done = rebu("scale", "--shards", "99", "--data-dir", own.data_dir)
    assert done.returncode == 1
    assert "1 to 16" in done.stderr
    assert shared_by(own, 2)


def test_a_shard_that_sleeps_loses_its_lease_and_is_refused_when_it_wakes(own: Running) -> None:
    with Load(own, "m2") as load:
        load.await_more(200)
        before = own.shard_pids()
        os.kill(before[1], signal.SIGSTOP)
        try:
            await_true(lambda: shares(own) == {0: PARTITIONS}, "the other shard to take everything up")
            load.await_more(300)
        finally:
            os.kill(before[1], signal.SIGCONT)
        await_true(lambda: own.shard_pids()[1] != before[1], "the sleeper to leave")
        logs = [path.read_text(errors="replace") for path in session_folder(str(own.data_dir)).rglob("worker-*.err")]
        assert any("slot 1 has a later owner" in text for text in logs)
        load.await_more(100)
        # After a calm while it gets its part again.
        await_true(lambda: shared_by(own, 2), "the shards to share again", 120)
        load.await_more(100)
    check(own, load)
    assert own.status()["moves"]["fenced"] == 1


def test_a_scaling_goes_on_whoever_is_killed(own: Running) -> None:
    """The coordinator, a shard that is being emptied, and one that gives some of what it has."""
    with Load(own, "m3") as load:
        load.await_more(100)
        for shards, victim in ((3, "coordinator"), (2, "shard 2"), (3, "shard 0")):
            before, pids = own.status(), own.shard_pids()
            version = before["routing"]["version"]
            scale(own, shards)
            await_true(lambda v=version: own.status()["routing"]["version"] > v + 1, "something to move")  # type: ignore[misc]
            kill(before["coordinator_pid"] if victim == "coordinator" else pids[int(victim[-1])])
            await_true(lambda n=shards: shared_by(own, n), f"{shards} shards to share", 120)  # type: ignore[misc]
            load.await_more(100)
    check(own, load)


def test_a_node_dies_and_its_shards_go_on_elsewhere(own: Running) -> None:
    """kill -9 of the raylet of a worker node, which takes everything on that node with it."""
    scale(own, 2)
    await_true(lambda: shared_by(own, 2), "two shards to share", 120)
    with second_node(own) as raylet, Load(own, "m4") as load:
        load.await_more(100)
        scale(own, 4)
        await_true(lambda: shared_by(own, 4), "four shards to share", 120)
        pids = own.shard_pids()
        there = [slot for slot, pid in enumerate(pids) if psutil.Process(pid).ppid() == raylet.pid]
        assert there, "no shard is on the second node"
        load.await_more(100)
        raylet.kill()
        await_true(
            lambda: shared_by(own, 4) and not set(own.shard_pids()) & {pids[slot] for slot in there},
            "the shards of the node to be back",
            180,
        )
        load.await_more(100)
        scale(own, 2)
        await_true(lambda: shared_by(own, 2), "two shards to share", 120)
    check(own, load)
