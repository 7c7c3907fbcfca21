"""Cursors: what was saved last comes back, and nothing but that."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebu_ray.store.cursor import Cursors


@pytest.fixture(params=["folder", "file uri", "object store"])
def cursors(request: pytest.FixtureRequest, tmp_path: Path) -> Cursors:
    """Cursors in a place that is named in each way and does not exist yet."""
    folder = tmp_path / "new" / "cursors"
    return Cursors(
        {"folder": str(folder), "file uri": f"file://{folder}", "object store": "mock:///new"}[request.param]
    )


def test_what_was_saved_last_comes_back(cursors: Cursors) -> None:
    assert cursors.load("a/b") is None
    cursors.save("a/b", b"")
    assert cursors.load("a/b") == b""
    cursors.save("a/b", b"\x00first")
    cursors.save("a/c", b"other")
    cursors.save("a/b", b"2")
    assert (cursors.load("a/b"), cursors.load("a/c"), cursors.load("a/d")) == (b"2", b"other", None)


def test_what_was_removed_is_gone_and_nothing_else_is(cursors: Cursors) -> None:
    cursors.remove("a")
    cursors.save("a", b"1")
    cursors.save("b", b"2")
    cursors.remove("a")
    assert (cursors.load("a"), cursors.load("b")) == (None, b"2")


def test_another_process_reads_it(tmp_path: Path) -> None:
    Cursors(str(tmp_path)).save("far/away", b"1")
    assert Cursors(f"file://{tmp_path}").load("far/away") == b"1"


def test_a_save_that_was_cut_short_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cursors = Cursors(str(tmp_path))
    cursors.save("a", b"1")

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            cursors.save("a", b"2")
    assert Cursors(str(tmp_path)).load("a") == b"1"
    cursors.save("a", b"3")
    assert Cursors(str(tmp_path)).load("a") == b"3"


def test_what_cannot_be_read_is_no_missing_value(cursors: Cursors) -> None:
    cursors.save("a/b", b"1")
    with pytest.raises(OSError, match="a"):
        cursors.load("a")
