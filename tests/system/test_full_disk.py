"""Disks that are full: nothing is acknowledged that is not there, and service returns with the room, by itself."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Final

import pytest

from tests.system.load import Load
from tests.system.running import Item, Running, await_true, ids, kill, processes_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

NOW = time.time_ns() // 1_000_000
_INSIDE: Final = "TESTS_MAY_MOUNT"
DISK_BYTES: Final = 24 * 1024 * 1024


def mounting(test: Callable[[Running], None]) -> Callable[[Running], None]:
    """The test as it is where we may mount; else in a user namespace of its own, in which we may."""

    @wraps(test)
    def run(small: Running | None) -> None:
        if small is not None:
            test(small)
            return
        command = ["unshare", "-rm", sys.executable, "-m", "pytest", "-q", f"{__file__}::{test.__name__}"]
        environment = os.environ | {_INSIDE: "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (
            f"this test mounts a small tmpfs: run it as root, or where `unshare -rm` works:\n{done.stdout}{done.stderr}"
        )

    return run


class Disk:
    """A small file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"
        folder.mkdir(exist_ok=True)

    def mount(self) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(self.folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)

    @contextmanager
    def full(self) -> Iterator[None]:
        """No room for a page inside the block, whatever is deleted meanwhile."""
        done = threading.Event()

        def keep_full() -> None:
            while not done.wait(0.02):
                self._fill()

        self._fill()
        keeper = threading.Thread(target=keep_full, daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join(60)
            self._filler.unlink()

    def _fill(self) -> None:
        with self._filler.open("ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise


@pytest.fixture(scope="module")
def small() -> Iterator[Running | None]:
    """A platform with journal and lake on small disks of their own; None where we may not mount any."""
    with tempfile.TemporaryDirectory(prefix="rebu-full-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        disks = {which: Disk(folder / which) for which in ("journal", "lake")}
        mounted = [disk for disk in disks.values() if disk.mount()]
        if len(mounted) < len(disks):
            assert _INSIDE not in os.environ, "mount does not work in a user namespace here"
            yield None
            return
        uris = {f"REBU_{which.upper()}_URI": str(disk.folder / "data") for which, disk in disks.items()}
        found = Running(folder / "data", REBU_FLUSH_SECONDS="2", **uris)
        try:
            found.start("--shards", "2")
            yield found
            assert found.stop() == 0, found.said()
            assert processes_of(found.data_dir) == []
        finally:
            found.clean_up()
            for disk in mounted:
                disk.unmount()


def disk_of(platform: Running, which: str) -> Disk:
    return Disk(platform.data_dir.parent / which)


def event(record_id: str, user: str) -> Item:
    return {"type": "track", "event": "Tapped", "messageId": record_id, "userId": user, "timestamp": NOW}


@mounting
def test_a_full_journal_acknowledges_nothing_and_comes_back_with_the_room(small: Running) -> None:
    disk = disk_of(small, "journal")
    with Load(small, "full") as load:
        load.await_more(200)
        small.batch([event("f-1", "full-one")])
        pids = small.shard_pids()
        stored = ["f-1"]
        refused: list[str] = []
        with disk.full():
            # What moves to the lake makes room for a moment: some get through, and are told so truly.
            while len(refused) < 20:
                name = f"f-{len(stored) + len(refused) + 1}"
                answer = small.post("/v1/batch", {"batch": [event(name, "full-one")]})
                if answer.status_code == 200:
                    stored.append(name)
                    continue
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
                assert "No space left" in answer.json()["message"]
                assert int(answer.headers["retry-after"]) > 0
                refused.append(name)
            # Reads go on, and the shards live.
            assert "f-1" in ids(small.history("full-one"))
            assert small.shard_pids() == pids
        load.await_more(200)
        assert small.shard_pids() == pids
    load.check(small)
    assert sorted(ids(small.history("full-one"))) == sorted(stored)
    assert small.batch(event(name, "full-one") for name in refused)["accepted"] == len(refused)
    assert not load.other, (load.answers, set(load.other))


@mounting
def test_a_shard_that_dies_on_a_full_disk_waits_for_room(small: Running) -> None:
    disk = disk_of(small, "journal")
    with Load(small, "fulldead") as load:
        load.await_more(200)
        pids = small.shard_pids()

        def closed() -> Item | None:
            shards = small.status()["shards"]
            return next((shard for shard in shards if shard["index"] == "closed"), None)

        with disk.full():
            kill(pids[0])
            state = await_true(closed, "the shard to say why it does not serve")
            assert state is not None
            assert "No space left" in state["detail"]
        await_true(lambda: closed() is None, "the shard to find room")
        load.await_more(200)
    load.check(small)
    assert not load.other, (load.answers, set(load.other))


@mounting
def test_a_full_lake_leaves_rows_in_the_journal_until_it_has_room(small: Running) -> None:
    disk = disk_of(small, "lake")
    with Load(small, "fulllake") as load:
        load.await_more(200)
        pids = small.shard_pids()
        with disk.full():
            load.await_more(200)
            answer = small.http.post("/v1/admin/flush", headers={"Authorization": f"Bearer {small.admin_key}"})
            assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable"), answer.text
            assert int(answer.headers["retry-after"]) > 0
            time.sleep(3)  # time for the shards to try by themselves, too
            load.await_more(200)
        small.flush()
        load.await_more(100)
    small.flush()
    assert small.fresh_status()["shards"][0]["flushes"] > 0
    assert small.shard_pids() == pids
    load.check(small)
    assert load.answers.keys() == {200}
