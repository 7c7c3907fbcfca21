"""Damage in the middle of a segment: named, never skipped, and set aside without what is sound."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rebu_ray.store.journal import (
    Journal,
    JournalCorrupt,
    JournalError,
    ObjectJournal,
    SegmentName,
    open_journal,
    stretches,
)
from rebu_ray.store.quarantine import quarantine
from tests.records import NOW, said
from tests.store import disk as disks
from tests.store.disk import Disk, batch, everything


@pytest.fixture(params=["folder", "store"])
def disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    if request.param == "store":
        monkeypatch.setattr(disks, "open_journal", as_objects)
        monkeypatch.setattr(sys.modules[__name__], "open_journal", as_objects)
    return Disk(tmp_path)


def as_objects(uri: str) -> Journal:
    """The journal of a folder as if it were a store's."""
    return ObjectJournal(Path(uri).as_uri())


def journal_of(disk: Disk) -> Journal:
    return open_journal(disk.journal_uri)


def written(disk: Disk, count: int) -> tuple[SegmentName, Path]:
    """A segment of so many frames of one record; on a store, where a frame is an object, all of them in the first."""
    log = disk.shard()
    for number in range(count):
        log.commit(batch(said("ada", f"{number}")), NOW)
    log.close()
    paths = sorted(Path(disk.journal_uri).glob("*.seg"))
    whole = b"".join(path.read_bytes() for path in paths)
    for path in paths[1:]:
        path.unlink()
    paths[0].write_bytes(whole)
    name = SegmentName.parse(paths[0].name)
    assert name is not None
    return name, paths[0]


def damage(path: Path, *numbers: int) -> None:
    """Spoil frames of a segment."""
    data = bytearray(path.read_bytes())
    for start, end, _ in [list(stretches(bytes(data)))[n] for n in numbers]:
        data[(start + end) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("spoilt", [(0,), (1,), (1, 2), (0, 3), (3,)])
def test_the_rest_of_a_damaged_segment_stays(disk: Disk, spoilt: tuple[int, ...]) -> None:
    name, path = written(disk, 5)
    damage(path, *spoilt)
    bytes_before = path.read_bytes()
    with pytest.raises(JournalCorrupt, match=f"{name}.*damaged frame.*rebu journal quarantine {name}"):
        disk.shard()
    done = quarantine(journal_of(disk), name)
    left = [f"{n}" for n in range(5) if n not in spoilt]
    assert done.kept == len(left)
    assert done.lost == len([n for n in spoilt if n > 0])  # what was before the first that is left, nobody can count
    assert done.damaged_bytes > 0
    assert Path(done.aside).read_bytes() == bytes_before
    log = disk.shard()
    assert [record for _, record, _ in everything(log)] == left
    # What is known stays known, what was lost can be sent again.
    again = log.commit(batch(*(said("ada", f"{n}") for n in range(6))), NOW)
    assert again.new.tolist() == [n in spoilt or n == 5 for n in range(6)]


def test_damage_may_happen_twice_to_one_segment(disk: Disk) -> None:
    name, path = written(disk, 5)
    aside = []
    for _ in range(2):
        damage(path, 1)
        aside.append(quarantine(journal_of(disk), name).aside)
    assert len(set(aside)) == 2
    assert [record for _, record, _ in everything(disk.shard())] == ["0", "3", "4"]


def test_what_is_sound_or_torn_is_left_alone(disk: Disk) -> None:
    name, path = written(disk, 3)
    whole = path.read_bytes()
    for data in (whole, whole[:-5], whole + b"RBJ1", whole + bytes(100)):
        path.write_bytes(data)
        with pytest.raises(JournalError, match="nothing was changed"):
            quarantine(journal_of(disk), name)
        assert path.read_bytes() == data
    with pytest.raises(JournalError, match="no segment"):
        quarantine(journal_of(disk), SegmentName(7, 7, 7))


def test_what_was_written_after_the_claim_of_another_stays_out(tmp_path: Path) -> None:
    """A fence bounds a segment: setting it aside must not bring back what lies behind the fence."""
    disk = Disk(tmp_path)
    name, path = written(disk, 4)
    journal_of(disk).claim(0)
    late = path.read_bytes()
    path.write_bytes(late + late[: next(iter(stretches(late)))[1]])
    damage(path, 1)
    assert quarantine(journal_of(disk), name).kept == 3
    assert [record for _, record, _ in everything(disk.shard())] == ["0", "2", "3"]
