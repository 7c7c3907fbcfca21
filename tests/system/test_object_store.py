"""Journal and lake in an object store, behind the same promises: S3's protocol, over loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rebu_ray.settings import load
from rebu_ray.store.backup import Stores, backup, check, restore
from rebu_ray.store.journal import JournalError, ObjectJournal, StaleOwner, open_journal
from rebu_ray.store.lake import Lake
from rebu_ray.store.log import ShardLog
from rebu_ray.store.quarantine import quarantine
from tests.records import NOW as RECEIVED
from tests.s3 import CREDENTIALS, Store, object_store
from tests.store.disk import HOUR_MS, PARTITIONS, batch, everything
from tests.store.test_backup import Platform
from tests.store.test_log import record
from tests.system.load import Load
from tests.system.running import Item, Running, await_true, ids, kill, own_platform

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

NOW = time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        with object_store() as found:
            yield found


@pytest.fixture(scope="module")
def remote(store: Store) -> Iterator[Running]:
    """A platform that keeps nothing but keys and Redis' snapshot in its data dir."""
    uris = {"REBU_JOURNAL_URI": store.uri("platform/journal"), "REBU_LAKE_URI": store.uri("platform/lake")}
    with own_platform("remote", {"REBU_FLUSH_SECONDS": "5"} | uris | CREDENTIALS) as found:
        yield found


def event(record_id: str, user: str) -> Item:
    return {"type": "track", "event": "Tapped", "messageId": record_id, "userId": user, "timestamp": NOW}


def test_a_backup_goes_there_and_comes_back(store: Store, tmp_path: Path) -> None:
    """From a disk to a platform in the store, by way of a backup in the store, and from there to a disk again."""
    platform = Platform(tmp_path / "data")
    for what in ("a", "b", "flush", "c", "sleep", "d"):
        platform.act(what)

    def told(name: str, size: int) -> None:
        return None

    made = backup(platform.stores, store.uri("backups/1"), "now", told)
    assert check(store.uri("backups/1"), told) == made
    uris = {"journal_uri": store.uri("restored/journal"), "lake_uri": store.uri("restored/lake")}
    own = load({}, data_dir=str(tmp_path / "away"), **uris)
    there = Stores(own.data_dir, own.journal, own.cursors, own.lake)
    restore(store.uri("backups/1"), there, told)
    log = ShardLog(open_journal(there.journal), Lake(there.lake), 0, range(PARTITIONS))
    log.recover(RECEIVED, HOUR_MS)
    log.commit(batch(record("a", "new")), RECEIVED)
    back = load({}, data_dir=str(tmp_path / "back"))
    here = Stores(back.data_dir, back.journal, back.cursors, back.lake)
    backup(there, str(tmp_path / "copy"), "now", told)
    restore(str(tmp_path / "copy"), here, told)
    again = ShardLog(open_journal(here.journal), Lake(here.lake), 0, range(PARTITIONS))
    again.recover(RECEIVED, HOUR_MS)
    assert {(key, i) for key, i, _ in everything(again)} == platform.acknowledged | {("u:a", "new")}


def test_an_epoch_goes_to_one_claimant_alone(store: Store) -> None:
    journals = [open_journal(store.uri("claims")) for _ in range(8)]
    assert isinstance(journals[0], ObjectJournal)
    with ThreadPoolExecutor(8) as pool:
        epochs = [epoch for _ in range(3) for epoch in pool.map(lambda journal: journal.claim(0), journals)]
    assert len(set(epochs)) == len(epochs) == 24
    assert journals[0].slots() == {0}


def test_a_stale_owner_is_refused_by_the_store(store: Store) -> None:
    first, second = (open_journal(store.uri("stale")) for _ in range(2))
    old = first.claim(0)
    kept = first.append(0, old, b"kept")
    new = second.claim(0)
    with pytest.raises(StaleOwner):
        first.append(0, old, b"late")
    mine = second.append(0, new, b"mine")
    found = {str(name): open_journal(store.uri("stale")).read(name) for name in second.segments()}
    assert {found[str(kept)], found[str(mine)]} == {b"kept", b"mine"}
    assert b"late" not in found.values()
    newest = open_journal(store.uri("stale"))
    newest.claim(0)
    assert [newest.read(name) for name in (kept, mine)] == [b"kept", b"mine"]
    with pytest.raises(JournalError, match="no segment"):
        quarantine(newest, kept._replace(number=99))


def test_it_keeps_everything_through_deaths_and_a_restart(remote: Running) -> None:
    with Load(remote, "s3") as load:
        load.await_more(200)
        remote.flush()
        load.await_more(100)
        before = remote.shard_pids()
        kill(before[0])
        load.await_more(100)
        await_true(lambda: remote.shard_pids()[0] != before[0], "the shard to be there again")
        load.await_more(100)
        remote.kill_group()
        remote.start("--shards", "2")
        load.await_more(200)
    load.check(remote)
    assert not load.other, (load.answers, set(load.other))
    remote.batch([event("s3-last", "s3-extra")])
    remote.flush()
    assert not (remote.data_dir / "journal").exists()
    assert not (remote.data_dir / "lake").exists()
    assert remote.batch([event("s3-last", "s3-extra")])["duplicate"] == 1
    assert "s3-last" in ids(remote.history("s3-extra"))
