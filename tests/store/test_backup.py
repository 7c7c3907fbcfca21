"""Backups of data in motion: all that was acknowledged before is in the copy, once, and nothing contradicts itself."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.ingest.processing import Cursor, known
from rebu_ray.keys import load_keys
from rebu_ray.platform.stores import StoreError, check_versions
from rebu_ray.settings import load
from rebu_ray.store.audit import Auditor, Held
from rebu_ray.store.backup import (
    LIST,
    UNFINISHED,
    BackupError,
    Folder,
    Stores,
    backup,
    bring_erasures,
    check,
    contents,
    restore,
)
from rebu_ray.store.cursor import Cursors
from rebu_ray.store.journal import JournalError, StaleOwner, open_journal
from rebu_ray.store.lake import Lake
from rebu_ray.store.layout import open_layout
from rebu_ray.store.log import ShardLog
from rebu_ray.store.scrub import commit_scrubbed, scrub
from rebu_ray.store.tombstones import Hashing, Names, TombstoneError, TombstoneStore, secret_of
from tests.records import NOW, seeded
from tests.store.disk import HOUR_MS, PARTITIONS, Disk, batch, everything, unsynced
from tests.store.test_log import record

USERS = "abcdefgh"


class Platform:
    """A data dir with two shards that go on while it is copied."""

    def __init__(self, folder: Path) -> None:
        self.settings = load({}, data_dir=str(folder))
        self.stores = Stores(str(folder), self.settings.journal, self.settings.cursors, self.settings.lake)
        open_layout(self.settings.lake, PARTITIONS)
        self.disk = Disk(folder)
        self.secret = secret_of(str(folder))
        self.tombstones = TombstoneStore(self.settings.cursors, self.settings.lake, self.secret)
        self.cursors = Cursors(self.settings.cursors)
        self.shards = [self._shard(0, range(2)), self._shard(1, range(2, PARTITIONS))]
        self.sleeping: list[ShardLog] = []
        self.acknowledged: set[tuple[str, str]] = set()
        self.erased: set[str] = set()
        self.number = 0

    def _shard(self, slot: int, partitions: range) -> ShardLog:
        log = ShardLog(open_journal(self.settings.journal), Lake(self.settings.lake), slot, partitions)
        log.tombstones = self.tombstones.load()
        log.recover(NOW, HOUR_MS)
        return log

    def act(self, what: str) -> None:
        """Something that happens to a platform."""
        if what in USERS:
            self.number += 1
            rows = batch(*(record(what, f"{self.number}-{n}") for n in range(3)))
            log = next(log for log in self.shards if rows["partition"][0].as_py() in log.partitions)
            log.commit(rows, NOW)
            if what not in self.erased:
                self.acknowledged |= {(f"u:{what}", f"{self.number}-{n}") for n in range(3)}
        elif what == "flush":
            for log in self.shards:
                self.disk.flush(log)
        elif what == "restart":
            self.shards = [self._shard(log.slot, _span(log)) for log in self.shards]
        elif what == "sleep":
            # Another owner claims the slot; the one before does not know yet.
            self.sleeping.append(self.shards[0])
            self.shards[0] = self._shard(0, _span(self.shards[0]))
        elif what == "wake" and self.sleeping:
            log = self.sleeping.pop()
            partition = min(log.partitions)
            user = next(u for u in USERS if batch(record(u, "x"))["partition"][0].as_py() == partition)
            with suppress(StaleOwner):  # unless its user is erased
                log.commit(batch(record(user, f"stale {self.number}")), NOW)
        elif what == "cursor":
            done = {p: seq for log in self.shards for p, seq in log.last_seq.items()}
            self.cursors.save("processed-000", msgspec.json.encode(Cursor(done)))
        elif what == "erase":
            self._erase(USERS[len(self.erased) % len(USERS)])

    def _erase(self, user: str) -> None:
        self.erased.add(user)
        self.acknowledged = {(key, i) for key, i in self.acknowledged if key != f"u:{user}"}
        self.tombstones.save(Hashing(self.secret).tombstone(Names(user), NOW, "admin", {}))
        stones = self.tombstones.load()
        for log in self.shards:
            log.tombstones = stones
        self.act("flush")
        lake = Lake(self.settings.lake)
        for log in self.shards:
            for partition in log.partitions:
                manifest = log.manifests[partition]
                if manifest.files:
                    after = commit_scrubbed(lake, manifest, scrub(lake, partition, manifest, stones), stones.digest)
                    log.flushed({partition: after}, ())


def _span(log: ShardLog) -> range:
    return range(min(log.partitions), max(log.partitions) + 1)


ACTIONS = st.lists(
    st.sampled_from([*USERS, *("flush", "restart", "sleep", "wake", "cursor", "erase", "flush", "wake")]), max_size=40
)


@settings(seeded, max_examples=40)
@given(before=st.lists(st.sampled_from([*USERS, "flush", "sleep", "wake", "cursor"]), max_size=15), meanwhile=ACTIONS)
def test_whatever_happens_meanwhile_the_copy_has_all_that_was_acknowledged_before(
    tmp_path_factory: pytest.TempPathFactory, before: list[str], meanwhile: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("platform")
    with unsynced():
        platform = Platform(folder / "data")
        for what in before:
            platform.act(what)
        promised, erased = set(platform.acknowledged), set[str]()
        left: Iterator[str] = iter(meanwhile)

        def told(name: str, size: int) -> None:
            for what in (next(left, None), next(left, None)):
                if what is not None:
                    platform.act(what)
            if name.startswith("lake/partition"):  # whose rows may be in the copy
                erased.update(platform.erased)

        backup(platform.stores, str(folder / "copy"), "now", told)
        sent = {(f"u:{user}", f"{number}-{n}") for user in USERS for number in range(100) for n in range(3)}
        sent |= {(f"u:{user}", f"stale {number}") for user in USERS for number in range(100)}
        restored = load({}, data_dir=str(folder / "restored"))
        stores = Stores(restored.data_dir, restored.journal, restored.cursors, restored.lake)
        restore(str(folder / "copy"), stores, lambda name, size: None)
        check_versions(restored)
        stones = TombstoneStore(restored.cursors, restored.lake, secret_of(restored.data_dir)).load()
        assert {Hashing(platform.secret).person(user) for user in erased} <= stones.stones.keys()

        log = ShardLog(open_journal(restored.journal), Lake(restored.lake), 0, range(PARTITIONS))
        log.tombstones = stones
        log.recover(NOW, HOUR_MS)
        found = [(key, i) for key, i, _ in everything(log)]
        assert len(set(found)) == len(found), "a record is there twice"
        gone = {f"u:{user}" for user in platform.erased}
        assert {(key, i) for key, i in promised if key not in gone} <= set(found) <= sent
        assert {p for p, seq in known(Cursors(restored.cursors), range(PARTITIONS), PARTITIONS).done.items()
                if seq > log.last_seq[p]} == set(), "documents would never be computed"  # fmt: skip
        assert log.commit(batch(record("a", "afterwards")), NOW).new.tolist() in ([True], [False])
        if not platform.erased:
            auditor = Auditor(open_journal(restored.journal), Lake(restored.lake), PARTITIONS)
            accounts = auditor.audit([Held(dict(log.last_seq), log.pending.entries())])
            assert accounts.balanced, (accounts.problems, accounts.items)


def test_what_a_stale_owner_wrote_is_not_in_the_copy(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "data")
    for what in (*USERS, "sleep", *USERS, "wake"):
        platform.act(what)
    backup(platform.stores, str(tmp_path / "copy"), "now", _quietly)
    to = _into(tmp_path / "restored")
    restore(str(tmp_path / "copy"), to, _quietly)
    log = ShardLog(open_journal(to.journal), Lake(to.lake), 0, range(PARTITIONS))
    log.recover(NOW, HOUR_MS)
    assert {(key, i) for key, i, _ in everything(log)} == platform.acknowledged


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """One with rows in lake and journal, keys and somebody erased."""
    found = Platform(tmp_path / "data")
    load_keys(found.settings.data_dir)
    for what in ("a", "b", "cursor", "flush", "c", "erase", "d"):
        found.act(what)
    return found


def _into(folder: Path) -> Stores:
    own = load({}, data_dir=str(folder))
    return Stores(own.data_dir, own.journal, own.cursors, own.lake)


def _quietly(name: str, size: int) -> None:
    return None


def test_a_backup_is_whole_private_and_left_as_it_was(platform: Platform, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    made = backup(platform.stores, str(copy), "now", _quietly)
    assert check(str(copy), _quietly) == contents(str(copy)) == made
    assert {file.path for file in made.files} == set(Folder(str(copy)).names()) - {LIST}
    assert made.rows == sum(seq for log in platform.shards for seq in log.last_seq.values())
    restore(str(copy), _into(tmp_path / "restored"), _quietly)
    for name in ("keys.json", "erasure.key"):
        for folder in ("data", "copy", "restored"):
            path = tmp_path / folder / name
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert path.read_bytes() == (tmp_path / "data" / name).read_bytes()
    assert check(str(copy), _quietly) == made
    assert not (tmp_path / "restored" / UNFINISHED).exists()


def test_what_is_missing_or_changed_is_told(platform: Platform, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    made = backup(platform.stores, str(copy), "now", _quietly)
    for number, file in enumerate(made.files):
        if not file.size:
            continue
        path = copy / file.path
        data = path.read_bytes()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        with pytest.raises(BackupError, match="is not what it was"):
            check(str(copy), _quietly)
        broken = tmp_path / f"restored-{number}"
        with pytest.raises(BackupError, match="is not what it was"):
            restore(str(copy), _into(broken), _quietly)
        with pytest.raises(StoreError, match="not all of it is there"):
            check_versions(load({}, data_dir=str(broken)))
        path.unlink()
        with pytest.raises(BackupError, match="is missing"):
            check(str(copy), _quietly)
        path.write_bytes(data)
    check(str(copy), _quietly)


@pytest.mark.parametrize("text", [None, b"", b"{", b"[]", b'{"v":2,"files":3}'])
def test_what_is_no_whole_backup_is_refused(platform: Platform, tmp_path: Path, text: bytes | None) -> None:
    copy = tmp_path / "copy"
    backup(platform.stores, str(copy), "now", _quietly)
    (copy / LIST).unlink()
    if text is not None:
        (copy / LIST).write_bytes(text)
    with pytest.raises(BackupError, match=r"no whole backup|has format 2"):
        restore(str(copy), _into(tmp_path / "restored"), _quietly)
    assert not (tmp_path / "restored").exists()


def test_nothing_that_is_there_is_written_over(platform: Platform, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="no platform's lake"):
        backup(_into(tmp_path / "nothing"), str(tmp_path / "copy"), "now", _quietly)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "letter.txt").write_text("dear")
    with pytest.raises(BackupError, match="already"):
        backup(platform.stores, str(tmp_path / "copy"), "now", _quietly)
    backup(platform.stores, str(tmp_path / "other"), "now", _quietly)
    with pytest.raises(BackupError, match="already"):
        restore(str(tmp_path / "other"), platform.stores, _quietly)


def test_a_backup_of_a_damaged_journal_is_refused(platform: Platform, tmp_path: Path) -> None:
    platform.act("d")
    segment = max((tmp_path / "data" / "journal").glob("*.seg"), key=lambda path: path.stat().st_size)
    data = segment.read_bytes()
    segment.write_bytes(data[:40] + b"\xff\xff" + data[42:])
    with pytest.raises(JournalError, match="damaged frame"):
        backup(platform.stores, str(tmp_path / "copy"), "now", _quietly)


def test_a_gap_is_told(platform: Platform, tmp_path: Path) -> None:
    platform.act("flush")
    platform.act("d")
    (partition,) = {row["partition"] for row in batch(record("d", "x")).to_pylist()}
    for manifest in (tmp_path / "data" / "lake" / f"partition={partition:04d}").glob("manifest-*"):
        manifest.unlink()
    with pytest.raises(BackupError, match=f"of partition {partition} are in neither journal nor lake"):
        backup(platform.stores, str(tmp_path / "copy"), "now", _quietly)


def test_who_was_erased_after_a_backup_stays_erased(platform: Platform, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    backup(platform.stores, str(copy), "now", _quietly)
    platform.act("erase")
    to = _into(tmp_path / "restored")
    restore(str(copy), to, _quietly)
    before = TombstoneStore(to.cursors, to.lake, platform.secret).load().stones
    assert bring_erasures(platform.stores, to, platform.secret) == 1
    after = TombstoneStore(to.cursors, to.lake, platform.secret).load().stones
    assert len(after) == len(before) + 1
    assert bring_erasures(platform.stores, to, platform.secret) == 0
    with pytest.raises(TombstoneError, match="another secret"):
        bring_erasures(platform.stores, to, b"another")


def test_object_stores_are_copied_too(platform: Platform, tmp_path: Path) -> None:
    """Through `pyarrow.fs`, as any of its stores."""
    made = backup(platform.stores, f"file://{tmp_path}/copy", "now", _quietly)
    shutil.rmtree(tmp_path / "data")
    to: Any = Stores(*(f"file://{tmp_path}/there/{n}" for n in ("d", "journal", "journal-cursors", "lake")))
    assert restore(f"file://{tmp_path}/copy", to, _quietly) == made
    log = ShardLog(open_journal(to.journal), Lake(to.lake), 0, range(PARTITIONS))
    log.recover(NOW, HOUR_MS)
    assert len(everything(log)) == 9
