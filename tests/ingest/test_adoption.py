"""What is read of partitions before they are owned: all of it, or they are not owned."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rebu_ray.ingest.adoption import Adoption, Reading
from rebu_ray.ingest.moves import Released
from rebu_ray.records import Kind
from rebu_ray.settings import Settings
from rebu_ray.store.journal import JournalError
from rebu_ray.store.rows import partition_of
from rebu_ray.store.tombstones import none
from tests.records import said
from tests.store.disk import PARTITIONS, Disk, batch

ADA = partition_of("u:ada", PARTITIONS)
NOW = 1_900_000_000_000


def test_all_that_was_let_go_is_read_whether_prepared_or_not(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    source = disk.shard(0)
    error = said("ada", "1", kind=Kind.APP_ERROR)
    source.commit(batch(error, said("ada", "2")), NOW)
    disk.flush(source)
    adoption = Adoption(1, PARTITIONS, Settings(data_dir=str(tmp_path)))

    assert asyncio.run(adoption.prepare([ADA], none())).last_seq == {ADA: 2}
    source.commit(batch(said("ada", "3")), NOW)
    ends, segments = source.release(frozenset({ADA}))
    released = Released(ends, list(map(str, segments)), {}, 0.0)

    def read(handed: dict[int, Released]) -> Reading:
        return asyncio.run(adoption.read([ADA], none(), handed))

    for handed in ({0: released}, {0: released}, {}):
        found = read(handed)
        assert found.log.last_seq == {ADA: 3}
        assert found.found.subjects == {"u:ada"}
        assert found.saved.done == {}
    # Whoever names too few segments is not believed.
    assert read({0: released._replace(segments=[])}).log.last_seq == {ADA: 3}
    with pytest.raises(JournalError, match="ended at 4"):
        read({0: released._replace(ends={ADA: 4})})
