"""Marks of replays: a letter leaves the list, or stands there with its newest reason, in the index and in the lake."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.records import Kind, Source
from rebu_ray.store.index import Index, commands, history_key
from rebu_ray.store.lake import Lake
from rebu_ray.store.log import ShardLog
from rebu_ray.store.member import Codec, members, split
from rebu_ray.store.replays import mark
from rebu_ray.store.rows import Routed, partition_of, to_batch
from tests.conftest import Valkey
from tests.records import NOW, routed, said, seeded
from tests.store.disk import PARTITIONS, Disk, unsynced

STREAM = "d:access"
PARTITION = partition_of(STREAM, PARTITIONS)
Step = tuple[str, int] | str


def at_of(number: int) -> int:
    """Some letters are received at the same time, and some ids begin as others do."""
    return NOW + number // 3


def letter(number: int) -> Routed:
    found = said(
        record_id=f"x{number}", at=at_of(number), received_at=at_of(number), kind=Kind.DEAD_LETTER,
        name="no: at first", source=Source.ACCESS, body=b'"line %d"' % number,
    )  # fmt: skip
    return routed([found], PARTITIONS)[0]


def marked(number: int, now: int, reason: str | None) -> Routed:
    refused = None if reason is None else (reason, b'"line %d"' % number)
    return mark(Source.ACCESS, f"x{number}", at_of(number), now, PARTITIONS, refused)


def listed(found_there: list[bytes]) -> dict[str, str]:
    """Id -> reason, as the list would show them."""
    found = {}
    for member in found_there:
        item = json.loads(b"{" + Codec().decompress(split(member).payload))
        assert item["source"] == "access"
        assert item["record"] == f"line {item['id'][1:]}"
        assert item["received_at"].startswith("2026-03-02T08:00:00.")
        found[item["id"]] = item["reason"]
    assert len(found) == len(found_there)
    return found


def hot(index: Index) -> dict[str, str]:
    return listed(index.redis.zrange(history_key(PARTITION, STREAM), 0, -1))


def cold(disk: Disk, limit: int, descending: bool) -> dict[str, str]:
    """The whole list from the lake, page by page."""
    lake = Lake(disk.lake_uri)
    found: list[bytes] = []
    low, high = b"", b"\xff"
    while True:
        rows = lake.page(PARTITION, STREAM, low, high, descending, limit, lake.manifest(PARTITION).files)
        page = [member for batch in rows.to_batches() for member in members(batch, Codec())]
        found += page
        if len(page) < limit:
            return listed(found)
        edge = split(page[-1]).place
        low, high = (low, edge) if descending else (edge + b"\x01", high)


def index_of(log: ShardLog, index: Index, since: int = 0) -> None:
    for rows in log.since(dict.fromkeys(range(PARTITIONS), since)):
        index.send(commands(rows, PARTITIONS, Codec()))


@pytest.fixture
def index(valkey: Valkey) -> Index:
    valkey.flush()
    return Index(valkey.url)


steps = st.lists(
    st.tuples(st.sampled_from(["letter", "accepted", "refused", "refused otherwise"]), st.integers(0, 11))
    | st.sampled_from(["flush", "rebuild"]),
    max_size=30,
)


@settings(seeded, max_examples=60)
@given(steps, st.integers(1, 5), st.booleans())
def test_the_list_is_what_the_newest_marks_leave(
    valkey: Valkey, tmp_path_factory: pytest.TempPathFactory, steps: list[Step], limit: int, descending: bool
) -> None:
    valkey.flush()
    index = Index(valkey.url)
    disk = Disk(tmp_path_factory.mktemp("disk"))
    expected: dict[str, str] = {}
    done: set[str] = set()
    with unsynced():
        log = disk.shard()
        for now, step in enumerate([*steps, "flush"], start=NOW):
            if step == "flush":
                disk.flush(log)
            elif step == "rebuild":
                valkey.flush()
                index_of(log, index)
            elif isinstance(step, tuple):
                what, number = step
                name = f"x{number}"
                if what == "letter":
                    row = letter(number)
                    if name not in done:
                        expected.setdefault(name, "no: at first")
                elif name in expected:
                    reason = {"accepted": None, "refused": "no: again"}.get(what, "bad: otherwise")
                    row = marked(number, now, reason)
                    if reason is None:
                        del expected[name]
                        done.add(name)
                    else:
                        expected[name] = reason
                else:
                    continue
                rows = log.commit(to_batch([row]), NOW)
                index.send(commands(rows.rows, PARTITIONS, Codec()))
        assert hot(index) == expected
        assert cold(disk, limit, descending) == expected
    index.close()


def test_letters_and_marks_of_one_batch(index: Index, tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    log = disk.shard()
    rows = [letter(1), letter(11), letter(2), marked(1, NOW, "no: again"), marked(1, NOW + 1, None)]
    rows += [marked(2, NOW, "bad: otherwise")]
    done = log.commit(to_batch(rows), NOW)
    for _ in range(2):  # again changes nothing
        index.send(commands(done.rows, PARTITIONS, Codec()))
        assert hot(index) == {"x11": "no: at first", "x2": "bad: otherwise"}
    index.close()


def test_a_mark_says_which_letter_it_is_about() -> None:
    taken = marked(1, NOW + 5, None)
    refused = marked(1, NOW + 5, "no: again")
    assert (taken.partition, taken.key) == (PARTITION, STREAM)
    assert (taken.record.kind, taken.record.name, taken.record.event_time) == (Kind.REPLAYED, "", at_of(1))
    assert json.loads(taken.record.body) == {"id": "x1", "record": None}
    assert json.loads(refused.record.body) == {"id": "x1", "record": "line 1"}
    assert isinstance(to_batch([taken, refused]), pa.RecordBatch)
