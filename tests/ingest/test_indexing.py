"""The index of an owner's partitions, on a real Valkey, with the tasks of Ray replaced: whatever happens to Redis,
it holds in the end what the journal has, and says that it does not until then.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from rebu_ray.ingest import indexing, processing
from rebu_ray.ingest.indexing import Indexing
from rebu_ray.ingest.processing import Processing, Tasks
from rebu_ray.ingest.routing import Routing
from rebu_ray.process import rebuild
from rebu_ray.process.dirty import Touched
from rebu_ray.process.rebuild import Hot, Piece, index_piece
from rebu_ray.records import Kind, Record
from rebu_ray.settings import Settings
from rebu_ray.store.cursor import Cursors
from rebu_ray.store.index import UNAVAILABLE, Index, Position, floor_key, history_key
from rebu_ray.store.lake import Lake
from rebu_ray.store.log import ShardLog
from rebu_ray.store.member import split
from rebu_ray.store.rows import partition_of
from rebu_ray.store.tombstones import Hashing, Names, Tombstones
from tests.conftest import Valkey
from tests.records import NOW, identified, said
from tests.store.contents import dump
from tests.store.disk import PARTITIONS, Disk, batch, unsynced

USERS = [f"user{n}" for n in range(12)]
Before = Callable[[Piece], Awaitable[None]]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small pieces, and no waiting."""
    monkeypatch.setattr(rebuild, "BATCH_ROWS", 3)
    monkeypatch.setattr(rebuild, "PIECE_ROWS", 5)
    monkeypatch.setattr(indexing, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(indexing, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(processing, "SAVE_SECONDS", 0.01)
    with unsynced():
        yield


class Owner:
    """What of an owner the index has to do with."""

    def __init__(self, folder: Path, url: str, hot_events: int = 1000) -> None:
        self._folder = folder
        self._settings = Settings(data_dir=str(folder), redis_url=url, hot_events=hot_events, hot_days=3650 * 10)
        self.disk = Disk(folder)
        self.redis = Index(url)
        self.pieces: list[Piece] = []
        self.before: Before | None = None
        """Called before a piece is indexed: what happens meanwhile."""
        self._numbers = itertools.count()
        self._restart()

    def _restart(self) -> None:
        """A new owner of the slot, who knows nothing but what is on disk."""
        self.log: ShardLog = self.disk.shard()
        self.files = asyncio.Lock()
        tasks = Tasks(self._nothing_computed, self._nothing_found)
        cursors = Cursors(str(self._folder / "cursors"))
        self.processing = Processing(0, Routing(1, (0,) * PARTITIONS), tasks, cursors, self._taken, self._asked)
        self.indexing = Indexing(
            0, PARTITIONS, self._settings, self.log, self.processing, self.files, self._index_piece
        )

    async def restart(self) -> None:
        """Another owner after a crash."""
        self.log.close()
        self.indexing.close()
        self._restart()

    async def _index_piece(self, piece: Piece, erased: Tombstones, hot: Hot) -> Touched:
        self.pieces.append(piece)
        if self.before is not None:
            await self.before(piece)
        index = Index(self._settings.redis_url)
        try:
            lake = Lake(self.disk.lake_uri)
            return await asyncio.to_thread(index_piece, index, lake, PARTITIONS, piece, erased, hot)
        finally:
            index.close()

    async def write(self, *records: Record) -> None:
        """Journal records, and index them where that is possible."""
        await self.indexing.apply([self.log.commit(batch(*records), NOW)])

    async def fill(self, times: int = 4) -> None:
        """Write records of all users, most of which are in the lake then."""
        for _ in range(times):
            await self.write(*(self.event(user) for user in USERS))
            self.disk.flush(self.log)
        await self.write(*(self.event(user) for user in USERS))

    def event(self, user: str) -> Record:
        """One more of a user."""
        number = next(self._numbers)
        if number % 7 == 0:
            return identified(user, f"phone {user}", NOW + number)
        return said(user, f"e{number}", NOW + number, kind=Kind.APP_ERROR if number % 5 == 0 else Kind.APP_EVENT)

    def positions(self) -> dict[int, Position | None]:
        return self.redis.positions(range(PARTITIONS))

    @property
    def whole(self) -> dict[int, Position | None]:
        """The positions of an index that lacks nothing."""
        return {p: Position(seq) for p, seq in self.log.last_seq.items()}

    def held(self) -> dict[bytes, object]:
        """What Redis has, but for when streams were written to, and by which servers."""
        found = dump(self.redis.redis).items()
        return {key: v for key, v in found if not key.endswith((b"}q", b"}of")) and not key.startswith(b"rebu-seal")}

    def close(self) -> None:
        self.log.close()
        self.indexing.close()
        self.redis.close()

    async def _nothing_computed(self, subjects: Any) -> bytes:
        return b""

    async def _nothing_found(self, found: Touched) -> set[str]:
        return set()

    async def _taken(self, data: bytes) -> bool:
        return True

    async def _asked(self, slot: int, subjects: list[str]) -> bool:
        return True


Scene = Callable[[Owner], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play(tmp_path: Path, valkey: Valkey) -> Play:
    """Play a scene with an owner on an empty Redis."""

    def played(scene: Scene, **options: int) -> None:
        async def playing() -> None:
            valkey.flush()
            owner = Owner(tmp_path, valkey.url, **options)
            try:
                await owner.indexing.catch_up()
                await asyncio.wait_for(scene(owner), 60)
            finally:
                owner.close()

        asyncio.run(playing())

    return played


def test_an_emptied_index_is_rebuilt_from_the_lake_while_records_come_in(play: Play) -> None:
    async def scene(owner: Owner) -> None:
        await owner.fill(12)
        expected = owner.held()
        seen: list[dict[str, int]] = []
        wrote: list[str] = []

        async def meanwhile(piece: Piece) -> None:
            state = owner.indexing.status()
            seen.append(state["rebuilding"])
            assert state["index"] == "behind"
            position = owner.positions()[piece.partition]
            assert position is not None
            assert position.behind
            assert position.anew
            assert position.end >= position.seq
            wrote.append(USERS[len(wrote)])
            await owner.write(said(wrote[-1], "meanwhile"))

        owner.redis.redis.flushall()
        owner.before = meanwhile
        loop = asyncio.create_task(owner.indexing.run())
        while not owner.pieces or owner.indexing.behind:
            await asyncio.sleep(0.005)
        loop.cancel()
        assert owner.positions() == owner.whole
        assert len(owner.pieces) > 2 * PARTITIONS
        done = [at["rows_done"] for at in seen]
        assert done == sorted(done)
        assert done[0] == 0 < done[-1] < seen[-1]["rows_total"]
        assert all(at["partitions_total"] == PARTITIONS for at in seen)
        assert seen[0]["partitions_done"] == 0 < seen[-1]["partitions_done"] < PARTITIONS
        assert "rebuilding" not in owner.indexing.status()
        # The same as before and what came in, which is nowhere twice.
        after = owner.held()
        assert expected.keys() <= after.keys()
        for user in USERS:
            key = history_key(partition_of(f"u:{user}", PARTITIONS), f"u:{user}")
            found, before = after[key], expected[key]
            assert isinstance(found, list)
            assert isinstance(before, list)
            assert len(found) == len(before) + (user in wrote)
            assert all(member in found for member in before)

    play(scene)


def test_flushes_come_between_the_pieces(play: Play) -> None:
    async def scene(owner: Owner) -> None:
        await owner.fill()

        async def flush() -> None:
            async with owner.files:
                owner.disk.flush(owner.log)

        waiting: list[asyncio.Task[None]] = []

        async def meanwhile(piece: Piece) -> None:
            if len(owner.pieces) == 1:
                waiting.append(asyncio.create_task(flush()))
            if len(owner.pieces) > 2:  # the next round
                assert waiting[0].done()

        expected = owner.held()
        owner.before = meanwhile
        await owner.indexing.clear()
        assert owner.positions() == dict.fromkeys(range(PARTITIONS))
        await owner.indexing.catch_up()
        await waiting[0]
        assert owner.held() == expected
        assert sum(piece.until - piece.after for piece in owner.pieces) == sum(owner.log.last_seq.values())

    play(scene)


def test_a_redis_that_is_emptied_again_while_it_is_filled_is_filled_again(play: Play) -> None:
    async def scene(owner: Owner) -> None:
        await owner.fill()
        expected = owner.held()

        async def meanwhile(piece: Piece) -> None:
            if len(owner.pieces) in (3, 6):
                owner.redis.redis.flushall()

        owner.before = meanwhile
        await owner.indexing.clear()
        for _ in range(2):
            with pytest.raises(UNAVAILABLE):
                await owner.indexing.catch_up()
            assert all(at is None or at.behind for at in owner.positions().values())
        await owner.indexing.catch_up()
        assert owner.held() == expected

    play(scene)


@pytest.mark.parametrize(
    "failure",
    [
        OSError("the lake is away"),
        ray.exceptions.WorkerCrashedError(),
        ray.exceptions.RayTaskError("rebuild", "a value that nobody foresaw", ValueError("poison")),
    ],
    ids=["no lake", "a worker that dies again and again", "a defect"],
)
def test_a_task_that_fails_is_told_of_and_tried_again(play: Play, failure: Exception) -> None:
    async def scene(owner: Owner) -> None:
        await owner.fill()
        expected = owner.held()
        failures = [failure] * 3
        told: list[str] = []

        async def meanwhile(piece: Piece) -> None:
            told.append(owner.indexing.status().get("detail", ""))
            if piece.partition == 2 and failures:
                raise failures.pop()

        owner.before = meanwhile
        await owner.indexing.clear()
        loop = asyncio.create_task(owner.indexing.run())
        while owner.indexing.behind:
            await asyncio.sleep(0.005)
        loop.cancel()
        assert not failures
        assert str(failure).splitlines()[-1] in told
        assert "detail" not in owner.indexing.status()
        assert owner.held() == expected
        # What was done is not done again.
        done = [(piece.partition, piece.after) for piece in owner.pieces]
        assert all(done.count(piece) == 1 for piece in done if piece[0] != 2)

    play(scene)


def test_an_owner_that_dies_while_it_rebuilds_leaves_the_next_one_to_begin_anew(play: Play) -> None:
    async def scene(owner: Owner) -> None:
        await owner.fill()
        expected = owner.held()

        async def dies(piece: Piece) -> None:
            if len(owner.pieces) == 4:
                raise OSError("killed")

        owner.before = dies
        await owner.indexing.clear()
        with pytest.raises(OSError, match="killed"):
            await owner.indexing.catch_up()
        await owner.restart()
        before, owner.pieces, owner.before = owner.pieces, [], None
        await owner.indexing.catch_up()
        # It alone knew whom the rows touch that it had written.
        assert {piece.partition for piece in before if piece.after == 0} <= {p.partition for p in owner.pieces}
        assert {piece.partition for piece in owner.pieces if piece.after == 0} >= {before[0].partition}
        assert owner.held() == expected

    play(scene)


def test_who_is_erased_meanwhile_is_indexed_no_more(play: Play) -> None:
    async def scene(owner: Owner) -> None:
        await owner.fill()
        hashing = Hashing(b"a secret")
        erased = USERS[0]
        partition = partition_of(f"u:{erased}", PARTITIONS)

        async def meanwhile(piece: Piece) -> None:
            if piece.partition == partition and not owner.log.tombstones:
                owner.log.tombstones = Tombstones(hashing, [hashing.tombstone(Names(erased), NOW, "admin", {})])
                told.append(asyncio.create_task(owner.indexing.settled()))
                await asyncio.sleep(0.01)
                assert not told[0].done()  # this piece may hold rows of theirs still

        told: list[asyncio.Task[None]] = []
        owner.before = meanwhile
        await owner.indexing.clear()
        catching = asyncio.create_task(owner.indexing.catch_up())
        while not told:
            await asyncio.sleep(0.001)
        await told[0]
        key = history_key(partition, f"u:{erased}")
        owner.redis.redis.delete(key)  # as an erasure does then
        await catching
        assert not owner.redis.redis.exists(key)
        assert owner.positions() == owner.whole

    play(scene)


def test_a_redis_that_is_full_is_not_read_as_if_it_had_everything(play: Play) -> None:
    async def scene(owner: Owner) -> None:
        await owner.fill()
        owner.redis.redis.config_set("maxmemory", 1)
        try:
            await owner.write(said("user0", "more"))
            assert owner.indexing.behind
            state = owner.indexing.status()
            assert "memory" in state["detail"]
            assert state["unindexed_rows"] > 0
            found = owner.redis.redis.keys("rebu{*}pos")
            assert found == []  # so that reads are refused
            for _ in range(2):
                with pytest.raises(UNAVAILABLE):
                    await owner.indexing.catch_up()
            assert owner.redis.redis.keys("rebu{*}pos") == []
        finally:
            owner.redis.redis.config_set("maxmemory", 0)
        await owner.indexing.catch_up()
        assert owner.pieces == []  # nothing was lost but the last
        assert owner.positions() == owner.whole
        assert owner.redis.redis.keys("rebu{*}was") == []
        assert owner.indexing.status() == {"index": "current", "index_lag_s": 0.0, "unindexed_rows": 0}

    play(scene)


def test_a_redis_that_is_full_when_its_owner_comes_is_not_read_either(play: Play) -> None:
    async def scene(owner: Owner) -> None:
        await owner.fill()
        await owner.indexing.release(range(PARTITIONS))
        await owner.write(said("user0", "more"))
        await owner.restart()
        owner.redis.redis.config_set("maxmemory", 1)
        try:
            with pytest.raises(UNAVAILABLE):
                await owner.indexing.catch_up()
            assert owner.redis.redis.keys("rebu{*}pos") == []
        finally:
            owner.redis.redis.config_set("maxmemory", 0)
        await owner.indexing.catch_up()
        assert owner.positions() == owner.whole

    play(scene)


def test_one_partition_that_is_lost_keeps_the_others_from_nothing(play: Play) -> None:
    async def scene(owner: Owner) -> None:
        await owner.fill()
        expected = owner.held()
        others = [user for user in USERS if partition_of(f"u:{user}", PARTITIONS) != 1]
        seen: list[dict[int, Position | None]] = []

        async def meanwhile(piece: Piece) -> None:
            assert piece.partition == 1
            await owner.write(said(others[0], f"meanwhile {len(owner.pieces)}"))
            seen.append(owner.positions())

        owner.before = meanwhile
        owner.redis.clear(1)
        loop = asyncio.create_task(owner.indexing.run())
        while not owner.pieces or owner.indexing.behind:
            await asyncio.sleep(0.005)
        loop.cancel()
        assert len(seen) > 1
        for positions in seen:
            assert [p for p, at in positions.items() if at is None or at.behind] == [1]
        touched = partition_of(f"u:{others[0]}", PARTITIONS)
        counts = [at.seq for positions in seen if (at := positions[touched]) is not None]
        assert counts == sorted(set(counts))
        assert expected.keys() == owner.held().keys()

    play(scene)


def test_what_is_released_is_indexed_no_more_and_found_as_it_was_left(play: Play) -> None:
    async def scene(owner: Owner) -> None:
        await owner.fill()
        mine = next(user for user in USERS if partition_of(f"u:{user}", PARTITIONS) == 1)
        await owner.indexing.release([1])
        assert owner.indexing.behind  # the log has it still
        before = owner.positions()[1]
        await owner.write(said(mine, "later"))
        assert owner.positions()[1] == before
        await owner.indexing.catch_up()
        assert owner.pieces == []
        assert owner.positions() == owner.whole

    play(scene)


def test_only_what_is_hot_comes_back(play: Play) -> None:
    async def scene(owner: Owner) -> None:
        await owner.fill()
        lake = {p: manifest.covered_seq for p, manifest in owner.log.manifests.items()}
        await owner.indexing.clear()
        await owner.indexing.catch_up()
        for user in USERS:
            partition = partition_of(f"u:{user}", PARTITIONS)
            stream = f"u:{user}"
            members = [split(m) for m in owner.redis.redis.zrange(history_key(partition, stream), 0, -1)]
            of_lake = [m for m in members if m.seq <= lake[partition]]
            assert len(of_lake) == 2
            floor = owner.redis.redis.get(floor_key(partition, stream))
            assert floor is not None
            assert all(m.place >= floor for m in of_lake)

    play(scene, hot_events=2)


def test_streams_that_were_quiet_stay_in_the_lake(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(owner: Owner) -> None:
        await owner.fill()
        monkeypatch.setattr(indexing, "_now", lambda: NOW + 3650 * 10 * indexing.DAY_MS)  # the last second of them
        await owner.indexing.clear()
        await owner.indexing.catch_up()
        lake = {p: manifest.covered_seq for p, manifest in owner.log.manifests.items()}
        for user in USERS:
            partition = partition_of(f"u:{user}", PARTITIONS)
            members = owner.redis.redis.zrange(history_key(partition, f"u:{user}"), 0, -1)
            assert all(split(m).seq > lake[partition] for m in members)

    play(scene)
