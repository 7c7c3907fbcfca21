"""The journal when the disk fails: what was not acknowledged is not there, and the next batch is."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.store.journal import (
    FORMAT,
    DirectoryJournal,
    Header,
    JournalError,
    ObjectJournal,
    SegmentName,
    Span,
    open_journal,
    pack,
    unpack,
)
from rebu_ray.store.lake import Lake
from rebu_ray.store.log import ShardLog
from rebu_ray.store.rows import encode, to_batch
from tests.records import NOW, routed, said, seeded

P = 4
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def log_at(folder: Path) -> ShardLog:
    log = ShardLog(open_journal(str(folder / "journal")), Lake(str(folder / "lake")), 0, range(P))
    log.recover(NOW, 0)
    return log


def ids_in(log: ShardLog) -> list[str]:
    found = [row for batch in log.since(dict.fromkeys(range(P), 0)) for row in batch.to_pylist()]
    assert len({(row["partition"], row["seq"]) for row in found}) == len(found)
    return sorted(row["id"] for row in found)


@contextmanager
def failing(name: str, *answers: int | OSError | None) -> Iterator[None]:
    """`os.NAME` as it fails: an error raised, a number of bytes written of those asked for, None for as always."""
    original = getattr(os, name)
    left = list(answers)

    def broken(file: int, *args: object) -> object:
        answer = left.pop(0) if left else None
        if isinstance(answer, OSError):
            raise answer
        if isinstance(answer, int) and args and isinstance(args[0], bytes):
            return original(file, args[0][:answer])
        return original(file, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, broken)
        yield
    assert left == [], f"os.{name} was called too seldom"


def commit(log: ShardLog, *record_ids: str) -> list[bool]:
    new: list[bool] = log.commit(to_batch(routed([said("ada", i) for i in record_ids], P)), NOW).new.tolist()
    return new


DISK_FULL = [
    ("write", (FULL,)),
    ("write", (10, FULL)),
    ("write", (0, 50, FULL)),
    ("fdatasync", (OSError(errno.EIO, "Input/output error"),)),
]


@pytest.mark.parametrize(("call", "answers"), DISK_FULL)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_write_that_fails_is_not_acknowledged_and_can_be_sent_again(
    tmp_path: Path, call: str, answers: tuple[int | OSError, ...], before: int
) -> None:
    log = log_at(tmp_path)
    for n in range(before):
        commit(log, f"before{n}")
    earlier = sorted(f"before{n}" for n in range(before))
    for _ in range(2):
        with failing(call, *answers), pytest.raises(JournalError, match=r"No space left|Input/output"):
            commit(log, "a", "b", "a")
        assert ids_in(log) == earlier
    assert commit(log, "a", "b", "a") == [True, True, False]
    assert commit(log, "b", "c") == [False, True]
    assert ids_in(log) == sorted([*earlier, "a", "b", "c"])
    log.close()
    again = log_at(tmp_path)
    assert ids_in(again) == sorted([*earlier, "a", "b", "c"])
    assert commit(again, "a", "d") == [False, True]


@pytest.mark.parametrize(("call", "answers"), DISK_FULL)
def test_a_file_that_failed_once_is_not_written_to_again(
    tmp_path: Path, call: str, answers: tuple[int | OSError, ...]
) -> None:
    """What a failed sync has left out of it nobody knows."""
    journal = DirectoryJournal(str(tmp_path))
    epoch = journal.claim(0)
    first = journal.append(0, epoch, b"first" * 20)
    with failing(call, *answers), pytest.raises(JournalError):
        journal.append(0, epoch, b"second" * 20)
    third = journal.append(0, epoch, b"third" * 20)
    assert third.number > first.number
    assert (journal.read(first), journal.read(third)) == (b"first" * 20, b"third" * 20)


def test_a_short_write_is_finished(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    with failing("write", 1, 10, 100, None):
        assert commit(log, "a", "b") == [True, True]
    assert ids_in(log_at(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_segment_that_cannot_be_made_is_a_journal_error(tmp_path: Path, call: str) -> None:
    log = log_at(tmp_path)
    with failing(call, FULL), pytest.raises(JournalError, match="No space left"):
        commit(log, "a")
    assert ids_in(log) == []
    assert commit(log, "a") == [True]
    assert ids_in(log_at(tmp_path)) == ["a"]


def test_no_acknowledgement_without_the_folder_on_disk(tmp_path: Path) -> None:
    """The sync of a new segment's folder failed once: the next append does not go on as if it had not."""
    journal = DirectoryJournal(str(tmp_path))
    epoch = journal.claim(0)
    with failing("fsync", FULL), pytest.raises(JournalError):
        journal.append(0, epoch, b"one")
    with failing("fsync", None):
        journal.append(0, epoch, b"two")


def test_a_frame_that_cannot_be_cut_off_is_no_plain_journal_error(tmp_path: Path) -> None:
    """Its rows may be on disk: the owner must leave, and whoever recovers takes them for what they are."""
    log = log_at(tmp_path)
    commit(log, "a")
    broken = OSError(errno.EIO, "Input/output error")
    with failing("fdatasync", broken), failing("ftruncate", broken), pytest.raises(OSError, match="Input/output"):
        commit(log, "b")
    again = log_at(tmp_path)
    assert ids_in(again) == ["a", "b"]
    assert commit(again, "b", "c") == [False, True]
    assert ids_in(log_at(tmp_path)) == ["a", "b", "c"]


def test_an_object_that_could_not_be_put_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the store has taken it and only the answer was lost."""
    journal = ObjectJournal(tmp_path.as_uri())
    epoch = journal.claim(0)
    first = journal.append(0, epoch, b"one")
    put = journal._put

    def lost(name: str, data: bytes) -> None:
        put(name, data)
        raise OSError("timed out")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_put", lost)
        with pytest.raises(JournalError, match="timed out"):
            journal.append(0, epoch, b"two")
    third = journal.append(0, epoch, b"three")
    assert [(n, journal.read(n)) for n in journal.segments()] == [(first, b"one"), (third, b"three")]


def test_a_claim_begins_a_new_segment(tmp_path: Path) -> None:
    journal = DirectoryJournal(str(tmp_path))
    for _ in range(2):
        epoch = journal.claim(0)
        assert journal.append(0, epoch, b"frame").epoch == epoch


def test_a_claim_goes_through_while_segments_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another owner, whose rows were in them too, removes them."""
    journal = DirectoryJournal(str(tmp_path))
    epoch = journal.claim(0)
    kept = journal.append(0, epoch, b"kept")
    journal.roll()
    gone = SegmentName(0, epoch, 99)
    monkeypatch.setattr(journal, "_names", lambda: [gone, kept])
    assert journal.claim(0) == 2
    assert journal.read(kept) == b"kept"


def test_fences_go_with_the_segments_that_they_bound(tmp_path: Path) -> None:
    journal = DirectoryJournal(str(tmp_path))
    segments = []
    for _ in range(4):
        epoch = journal.claim(0)
        segments.append(journal.append(0, epoch, b"frame"))
        journal.roll()
    assert len(list(tmp_path.glob("*.fence"))) == 4
    for segment in segments[:3]:
        journal.remove(segment)
    assert [p.name for p in tmp_path.glob("*.fence")] == ["000-000004.fence"]
    assert [p.name for p in tmp_path.glob("*.epoch")] == ["000-000004.epoch"]
    assert journal.read(segments[3]) == b"frame"


def frame(n: int) -> bytes:
    payload = encode(to_batch(routed([said("ada", f"{n}")], 1)))
    return pack(Header(v=FORMAT, epoch=1, committed_at=NOW, spans=[Span(0, n, 1)]), payload)


@settings(seeded, max_examples=60)
@given(st.lists(st.integers(1, 5), max_size=4), st.binary(max_size=40), st.integers(0, 60))
def test_whatever_follows_the_last_sound_frame_is_dropped(counts: list[int], junk: bytes, zeros: int) -> None:
    """A torn write leaves anything: part of a frame, blocks of zeros."""
    frames = [frame(n) for n in counts]
    found = list(unpack(b"".join(frames) + junk + bytes(zeros)))
    assert [f.rows()["id"].to_pylist() for f in found] == [[f"{n}"] for n in counts]


def test_a_frame_of_a_later_version_is_refused() -> None:
    later = pack(Header(v=FORMAT + 1, epoch=1, committed_at=NOW, spans=[]), b"")
    with pytest.raises(JournalError, match=f"format {FORMAT + 1}"):
        list(unpack(later))
