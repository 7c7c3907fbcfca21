"""Tapes over Redis and the lake where these tell different things, and the lake's reader while files are merged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from rebu_ray.access.cold import LakeReader
from rebu_ray.access.tape import END, START, Filter, Stretch, Tape, after, read_page
from rebu_ray.store import lake as lake_module
from rebu_ray.store.index import floor_key, history_key
from rebu_ray.store.lake import DataFile, Lake, Manifest
from rebu_ray.store.member import Codec, members, place, place_id, split, time_place
from rebu_ray.store.rows import Routed
from tests.conftest import Valkey
from tests.records import NOW, journalled, said, seeded

KEY = "u:ada"
Answer = TypeVar("Answer")
SPAN = 9
spots = st.tuples(st.integers(NOW, NOW + SPAN), st.sampled_from("abc"))


@cache
def member(at: int, record_id: str, seq: int) -> bytes:
    rows = journalled([Routed(0, KEY, said("ada", record_id, at))], {0: seq - 1})
    return members(rows, Codec())[0]


class LakeOf:
    """A lake that holds some members, each place once."""

    def __init__(self, held: list[bytes]) -> None:
        self._held = held

    async def page(self, p: int, stream: str, low: bytes, high: bytes, descending: bool, limit: int) -> list[bytes]:
        found = {split(m).place: m for m in sorted(self._held, reverse=True) if low <= split(m).place < high}
        return [found[p] for p in sorted(found, reverse=descending)][:limit]


Play = Callable[[Callable[[Any], Coroutine[Any, Any, Answer]]], Answer]


@pytest.fixture(scope="module")
def play(valkey: Valkey) -> Iterator[Play[Any]]:
    """Plays scenes with one client, on one loop."""
    with asyncio.Runner() as runner:
        redis: Any = Redis.from_url(valkey.url, protocol=2)
        yield lambda scene: runner.run(scene(redis))
        runner.run(redis.aclose())


@settings(seeded, max_examples=250)
@given(
    st.lists(spots, max_size=14),
    st.lists(spots, max_size=14),
    st.none() | st.integers(NOW, NOW + SPAN + 1),
    st.booleans(),
    st.integers(1, 5),
    st.sampled_from([(START, END), (time_place(NOW + 3), END), (place(NOW + 2, "b"), after(place(NOW + 7, "a")))]),
)
def test_a_tape_is_what_both_hold(
    valkey: Valkey,
    play: Play[tuple[list[bytes], list[str]]],
    hot: list[tuple[int, str]],
    cold: list[tuple[int, str]],
    floor: int | None,
    descending: bool,
    chunk: int,
    bounds: tuple[bytes, bytes],
) -> None:
    """Redis may hold several members of one place; below the floor the lake is merged in, above it is not asked."""
    valkey.flush()
    in_redis = [member(at, i, seq) for seq, (at, i) in enumerate(hot, start=1)]
    in_lake = [member(at, i, seq) for seq, (at, i) in enumerate(cold, start=100)]
    if in_redis:
        valkey.client.zadd(history_key(0, KEY), dict.fromkeys(in_redis, 0))
    edge = None if floor is None else time_place(floor)
    if edge is not None:
        valkey.client.set(floor_key(0, KEY), edge)
    expected = {place(at, i) for at, i in hot} | {place(at, i) for at, i in cold if floor is not None and at < floor}
    low, high = bounds

    async def scene(redis: Any) -> tuple[list[bytes], list[str]]:
        met: list[bytes] = []
        tape = Tape(redis, LakeOf(in_lake).page, Stretch(0, KEY, low, high), edge, descending)
        while not tape.ended:
            await tape.fill(chunk)
            met += tape.buffer[tape.at :]
            tape.at = len(tape.buffer)
        again = Tape(redis, LakeOf(in_lake).page, Stretch(0, KEY, low, high), edge, descending)
        page = await read_page([again], Codec(), Filter(), descending, 1000)
        return met, [fragment.split(b'"id":"')[1][:1].decode() for fragment in page.fragments]

    met, shown = play(scene)
    order = sorted((p for p in expected if low <= p < high), reverse=descending)
    assert list(dict.fromkeys(split(m).place for m in met)) == order
    assert shown == list(dict.fromkeys(place_id(p) for p in order))


def test_the_lake_is_asked_anew_where_a_file_was_merged_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(str(tmp_path))
    stale = lake.commit(0, Manifest(), [_file(lake, 1)], 1)
    fresh = lake.commit(0, stale, [_file(lake, 2)], 2)
    lake.remove(0, stale.files)
    answers = [stale, stale, fresh]
    monkeypatch.setattr(Lake, "manifest", lambda self, partition: answers.pop(0))
    assert _read(tmp_path) == [b"2"]
    assert answers == []


def test_a_file_that_is_really_missing_is_no_empty_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_module, "ATTEMPTS", 2)
    lake = Lake(str(tmp_path))
    manifest = lake.commit(0, Manifest(), [_file(lake, 1)], 1)
    lake.remove(0, manifest.files)
    with pytest.raises(FileNotFoundError):
        _read(tmp_path)


def test_what_was_committed_just_now_is_read(tmp_path: Path) -> None:
    """Redis lets go of rows as soon as the lake has them."""
    lake, reader = Lake(str(tmp_path)), LakeReader(str(tmp_path))
    manifest = Manifest()
    for n in (1, 2, 3):
        manifest = lake.commit(0, manifest, [*manifest.files, _file(lake, n)], n)
        assert _ids(reader) == [f"{k}".encode() for k in range(1, n + 1)]


def _file(lake: Lake, n: int) -> DataFile:
    rows = journalled([Routed(0, KEY, said("ada", f"{n}", NOW + n))], {0: n - 1})
    return lake.write(0, pa.Table.from_batches([rows]), n)


def _ids(reader: LakeReader) -> list[bytes]:
    return [split(m).place[8:] for m in asyncio.run(reader.page(0, KEY, START, END, False, 10))]


def _read(folder: Path) -> list[bytes]:
    return _ids(LakeReader(str(folder)))
