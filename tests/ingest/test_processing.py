"""What an owner does about documents, with tasks, journal and other shards replaced: nothing is lost, nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
import ray
import redis

from rebu_ray.ingest import processing
from rebu_ray.ingest.processing import Processing, Tasks
from rebu_ray.ingest.routing import Routing
from rebu_ray.process.dirty import Touched, touched
from rebu_ray.process.load import IndexBehind
from rebu_ray.records import Kind, Record, Source
from rebu_ray.store.cursor import Cursors
from rebu_ray.store.rows import Routed, decode, encode, partition_of, to_batch
from tests.records import NOW, journalled, routed, said

ROUTING = Routing(1, (0, 0, 1, 1))
P = ROUTING.partitions
NAMES = [f"user{n}" for n in range(40)]
MINE = [f"u:{name}" for name in NAMES if ROUTING.owners[partition_of(f"u:{name}", P)] == 0]
THEIRS = [f"u:{name}" for name in NAMES if ROUTING.owners[partition_of(f"u:{name}", P)] == 1]
Scene = Callable[["Shard"], Awaitable[None]]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processing, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(processing, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(processing, "SAVE_SECONDS", 0.001)


class Shard:
    """Slot 0 with everything around it: each call is noted, and does what the test has put there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.computed: list[tuple[str, ...]] = []
        self.found: list[Touched] = []
        self.appended: list[str] = []
        self.asked: list[tuple[int, tuple[str, ...]]] = []
        self.failures: list[Exception] = []
        """What the next calls of tasks raise."""
        self.poison: set[str] = set()
        self.leads_to: set[str] = set()
        self.takes_documents = asyncio.Event()
        self.answers = asyncio.Event()
        self.takes_documents.set()
        self.answers.set()
        self.processing = self.restarted()

    def restarted(self) -> Processing:
        """A new owner of the slot, who knows what was saved."""
        tasks = Tasks(self._compute, self._find)
        return Processing(0, ROUTING, tasks, Cursors(str(self._folder)), self._append, self._ask)

    async def _compute(self, subjects: Sequence[str]) -> bytes:
        await asyncio.sleep(0)
        self._fail()
        if self.poison & set(subjects):
            raise ray.exceptions.RayTaskError("recompute", "a value that nobody foresaw", ValueError("poison"))
        self.computed.append(tuple(subjects))
        return encode(to_batch([document(subject) for subject in subjects])) if subjects else b""

    async def _find(self, found: Touched) -> set[str]:
        await asyncio.sleep(0)
        self._fail()
        self.found.append(found)
        return found.subjects | self.leads_to

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    async def _append(self, data: bytes) -> bool:
        await asyncio.sleep(0)
        if not self.takes_documents.is_set():
            return False
        self.appended += decode(data)["key"].to_pylist()
        return True

    async def _ask(self, slot: int, subjects: list[str]) -> bool:
        self.asked.append((slot, tuple(subjects)))
        await asyncio.sleep(0)
        return self.answers.is_set()

    @property
    def saved(self) -> dict[int, int]:
        """The cursor as a new owner would find it."""
        data = Cursors(str(self._folder)).load("processed-000")
        return {} if data is None else msgspec.convert(msgspec.json.decode(data)["done"], dict[int, int], strict=False)


def document(subject: str) -> Routed:
    name = f"r-{subject[2:]}"
    record = Record(Kind.RIDE_DOCUMENT, f"{name}@1@1", name, Source.COMPUTED, NOW, NOW, b"{}", subject[2:])
    return Routed(partition_of(subject, P), subject, record)


def errors(*subjects: str) -> pa.RecordBatch:
    """An error of each."""
    return journalled(
        routed([said(subject[2:], f"e-{subject}", kind=Kind.APP_ERROR, name="Boom") for subject in subjects], P)
    )


def played(folder: Path, scene: Scene, first: Callable[[Shard], None] = lambda shard: None) -> Shard:
    """Play a scene with a shard that runs; `first` happens before it does."""

    async def play() -> Shard:
        shard = Shard(folder)
        first(shard)
        loops = [asyncio.create_task(loop()) for loop in (shard.processing.run, shard.processing.save_loop)]
        try:
            await asyncio.wait_for(scene(shard), 30)
            for loop in loops:
                assert not loop.done(), loop
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
        return shard

    return asyncio.run(play())


async def until(true: Callable[[], object]) -> None:
    while not true():
        await asyncio.sleep(0.001)


async def a_while() -> None:
    for _ in range(50):
        await asyncio.sleep(0.001)


def test_whom_rows_touch_is_computed_and_the_cursor_follows(tmp_path: Path) -> None:
    async def scene(shard: Shard) -> None:
        shard.processing.observe(errors(MINE[1], MINE[0]), {0: 5, 1: 3})
        await until(lambda: shard.saved == {0: 5, 1: 3})

    shard = played(tmp_path, scene)
    assert shard.computed == [(), tuple(sorted(MINE[:2]))]
    assert sorted(shard.appended) == sorted(MINE[:2])
    assert shard.processing.status() == {
        "documents": 2,
        "documents_lag_s": 0.0,
        "unprocessed_rows": 0,
        "uncomputed_subjects": 0,
    }
    assert shard.found == []


def test_rows_that_touch_nobody_move_the_cursor_alone(tmp_path: Path) -> None:
    async def scene(shard: Shard) -> None:
        shard.processing.observe(journalled(routed([said("ada", "tap")], P)), {1: 9})
        await until(lambda: shard.saved == {0: 0, 1: 9})

    assert played(tmp_path, scene).computed == [()]


def test_the_cursor_waits_for_what_came_before(tmp_path: Path) -> None:
    async def scene(shard: Shard) -> None:
        shard.takes_documents.clear()
        shard.processing.observe(errors(MINE[0]), {0: 5})
        await until(lambda: len(shard.computed) == 2)
        shard.processing.observe(journalled(routed([said("ada", "tap")], P)), {1: 4})
        await a_while()
        assert (shard.saved, shard.appended) == ({}, [])
        assert shard.processing.status()["unprocessed_rows"] == 9
        assert shard.processing.status()["documents_lag_s"] > 0
        shard.takes_documents.set()
        await until(lambda: shard.saved == {0: 5, 1: 4})

    assert played(tmp_path, scene).appended == [MINE[0]]


def test_others_are_asked_until_they_have_it(tmp_path: Path) -> None:
    async def scene(shard: Shard) -> None:
        shard.answers.clear()
        shard.leads_to = {THEIRS[0], THEIRS[1], MINE[0]}
        shard.processing.note(Touched(rides={"r1"}), {0: 5})
        await until(lambda: len(shard.asked) > 3)
        assert shard.appended == [MINE[0]]
        # Who is away holds up the cursor, not the work.
        shard.leads_to = set()
        shard.processing.observe(errors(MINE[1]), {0: 6})
        await until(lambda: MINE[1] in shard.appended)
        await a_while()
        assert shard.saved == {}
        shard.answers.set()
        await until(lambda: shard.saved == {0: 6, 1: 0})

    shard = played(tmp_path, scene)
    assert set(shard.asked) == {(1, tuple(sorted(THEIRS[:2])))}
    assert [found.rides for found in shard.found] == [{"r1"}]


@pytest.mark.parametrize(
    "failure",
    [
        IndexBehind("the index of some partitions is behind"),
        redis.ConnectionError("away"),
        redis.TimeoutError("slow"),
        redis.BusyLoadingError("loading"),
        redis.ResponseError("MISCONF"),
        ray.exceptions.WorkerCrashedError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_what_passes_is_waited_for(tmp_path: Path, failure: Exception) -> None:
    async def scene(shard: Shard) -> None:
        await until(lambda: shard.computed)
        shard.failures = [failure] * 3
        shard.leads_to = {MINE[0]}
        shard.processing.note(Touched(drivers={"dan"}), {0: 2})
        await until(lambda: not shard.failures)
        shard.failures = [failure] * 2
        await until(lambda: shard.saved == {0: 2, 1: 0})

    shard = played(tmp_path, scene, lambda shard: shard.failures.append(failure))
    assert shard.appended == [MINE[0]]


def test_one_who_cannot_be_computed_is_reported_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def scene(shard: Shard) -> None:
        shard.poison = {MINE[3]}
        asked = asyncio.create_task(shard.processing.ask([MINE[3]]))
        shard.processing.observe(errors(*MINE[:8]), {0: 7})
        await until(lambda: shard.saved == {0: 7, 1: 0})
        await asked
        assert sorted(shard.appended) == sorted(set(MINE[:8]) - {MINE[3]})
        assert shard.processing.status()["uncomputed_subjects"] == 1
        shard.poison = set()
        shard.processing.observe(errors(MINE[3]), {0: 8})
        await until(lambda: shard.saved == {0: 8, 1: 0})
        assert shard.processing.status()["uncomputed_subjects"] == 0

    assert MINE[3] in played(tmp_path, scene).appended


def test_one_who_could_not_be_computed_is_tried_again_after_a_start(tmp_path: Path) -> None:
    async def before(shard: Shard) -> None:
        shard.poison = {MINE[3]}
        shard.processing.observe(errors(MINE[3]), {0: 7})
        await until(lambda: shard.saved == {0: 7, 1: 0})

    async def after(shard: Shard) -> None:
        await until(lambda: shard.appended == [MINE[3]])
        assert shard.processing.status()["uncomputed_subjects"] == 0

    assert played(tmp_path, before).appended == []
    played(tmp_path, after)


def test_many_are_computed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processing, "ROUND_SUBJECTS", 3)

    async def scene(shard: Shard) -> None:
        shard.processing.observe(errors(*MINE), {0: 1})
        await until(lambda: shard.saved == {0: 1, 1: 0})

    shard = played(tmp_path, scene)
    assert sorted(shard.appended) == sorted(MINE)
    assert max(map(len, shard.computed)) == 3


def test_who_asks_is_answered_when_it_is_durable(tmp_path: Path) -> None:
    async def scene(shard: Shard) -> None:
        shard.takes_documents.clear()
        asking = [asyncio.create_task(shard.processing.ask(names)) for names in (MINE[:2], MINE[1:3], [])]
        await until(lambda: len(shard.computed) == 2)
        await a_while()
        assert [task.done() for task in asking] == [False, False, True]
        shard.takes_documents.set()
        await asyncio.gather(*asking)
        assert sorted(shard.appended) == sorted(MINE[:3])

    assert played(tmp_path, scene).saved == {}


def test_who_stopped_asking_spoils_nothing(tmp_path: Path) -> None:
    async def scene(shard: Shard) -> None:
        shard.takes_documents.clear()
        gone = asyncio.create_task(shard.processing.ask([MINE[0]]))
        stays = asyncio.create_task(shard.processing.ask([MINE[0]]))
        await until(lambda: len(shard.computed) == 2)
        gone.cancel()
        shard.takes_documents.set()
        await stays

    assert played(tmp_path, scene).appended == [MINE[0]]


def test_a_crash_before_the_cursor_was_saved_costs_a_repetition(tmp_path: Path) -> None:
    async def before(shard: Shard) -> None:
        shard.processing.observe(errors(MINE[0]), {0: 4})
        await until(lambda: shard.saved == {0: 4, 1: 0})
        shard.takes_documents.clear()
        shard.processing.observe(errors(MINE[1]), {0: 9})
        await until(lambda: len(shard.computed) == 3)

    played(tmp_path, before)

    async def after(shard: Shard) -> None:
        assert shard.processing.unseen({0: 9, 1: 0}) == {0: 4}
        assert shard.processing.unseen({0: 4, 1: 0}) == {}
        shard.processing.note(touched(errors(MINE[1])), {0: 9, 1: 0})
        assert shard.processing.unseen({0: 9, 1: 0}) == {}
        await until(lambda: shard.saved == {0: 9, 1: 0})

    assert played(tmp_path, after).appended == [MINE[1]]


def test_partitions_that_came_from_another_slot_are_looked_at_from_the_beginning(tmp_path: Path) -> None:
    Cursors(str(tmp_path)).save("processed-000", msgspec.json.encode({"done": {1: 7, 3: 9}}))
    shard = asyncio.run(_made(tmp_path))
    assert shard.processing.unseen({0: 5, 1: 7}) == {0: 0}


async def _made(folder: Path) -> Shard:
    return Shard(folder)


def of(partition: int) -> list[str]:
    return [subject for subject in MINE if partition_of(subject, P) == partition]


MOVED = Routing(2, (0, 1, 1, 1))
"""Partition 1 is slot 1's now."""


def test_who_moves_while_their_documents_are_computed_is_asked_of_the_new_owner(tmp_path: Path) -> None:
    stays, goes = of(0)[0], of(1)[0]

    async def scene(shard: Shard) -> None:
        shard.takes_documents.clear()
        shard.processing.observe(errors(stays, goes), {0: 5, 1: 3})
        await until(lambda: len(shard.computed) == 2)
        await shard.processing.release([1])
        await a_while()
        assert shard.asked == []  # as far as is known it is on its way to nobody
        shard.processing.assign(MOVED)
        shard.takes_documents.set()
        await until(lambda: shard.saved == {0: 5})
        assert shard.processing.status()["unprocessed_rows"] == 0

    shard = played(tmp_path, scene)
    assert shard.appended == [stays]
    assert shard.asked == [(1, (goes,))]


def test_who_asks_for_somebody_who_has_moved_is_told_so(tmp_path: Path) -> None:
    stays, goes = of(0)[0], of(1)[0]

    async def scene(shard: Shard) -> None:
        await shard.processing.release([1])
        assert await shard.processing.ask([stays]) is True
        assert await shard.processing.ask([stays, goes]) is False

    assert set(played(tmp_path, scene).appended) == {stays}


def test_what_others_have_done_of_a_partition_that_comes_here_stays_done(tmp_path: Path) -> None:
    for slot, done in ((1, {1: 3, 2: 9}), (2, {2: 7})):
        data = msgspec.json.encode({"done": done, "failed": [THEIRS[0], MINE[0]]})
        Cursors(str(tmp_path)).save(f"processed-{slot:03d}", data)
    theirs = partition_of(THEIRS[0], P)

    async def scene(shard: Shard) -> None:
        saved = processing.known(Cursors(str(tmp_path)), [theirs], P)
        assert saved.failed == [THEIRS[0]]
        assert processing.known(Cursors(str(tmp_path)), [2], P).done == {2: 9}
        shard.processing.adopt([theirs], saved)
        assert shard.processing.unseen({theirs: 10}) == {theirs: saved.done.get(theirs, 0)}
        shard.processing.note(Touched(), {theirs: 10})
        await until(lambda: THEIRS[0] in shard.appended)
        await until(lambda: shard.saved == {0: 0, 1: 3, theirs: 10})

    played(tmp_path, scene)


def test_what_left_and_came_back_is_computed_here(tmp_path: Path) -> None:
    goes = of(1)[0]

    async def scene(shard: Shard) -> None:
        shard.takes_documents.clear()
        shard.processing.observe(errors(goes), {1: 3})
        await until(lambda: len(shard.computed) == 2)
        await shard.processing.release([1])
        await a_while()  # what was about to be appended was refused
        shard.takes_documents.set()
        await a_while()
        assert shard.appended == []
        shard.processing.adopt([1], processing.Cursor({1: 2}))
        await until(lambda: shard.saved == {0: 0, 1: 3})

    assert played(tmp_path, scene).appended == [goes]
