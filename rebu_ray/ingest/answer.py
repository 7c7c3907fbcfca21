"""What a shard answers to a batch, and the calls that wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import pyarrow as pa

from rebu_ray.store.log import Commit

STARTING: Final = "starting"
"""The journal is being read: it takes as long as there is much in it."""
DAMAGED: Final = "damaged"
"""A segment of the journal cannot be read whole: somebody has to say what becomes of it."""
CLOSED: Final = "closed"
"""Journal or lake cannot be used now."""


class Appended(NamedTuple):
    """What a shard answers to a batch."""

    status: str
    """ok, or why nothing of the batch was stored: not_owner, overloaded, unavailable."""
    new: bytes = b""
    """One byte a row: 1 stored, 0 duplicate, 2 suppressed: of somebody who was erased."""
    positions: dict[int, int] | None = None
    """Sequence number per partition at which the whole batch is visible."""
    detail: str = ""
    retry_after: float = 0.0


class Call(NamedTuple):
    """A batch whose sender waits."""

    batch: pa.RecordBatch
    answer: asyncio.Future[Appended]
    partitions: frozenset[int]
    at: float
    """When it came, by the monotonic clock."""
    origins: tuple[str, ...] = ()
    """The requests that it is of: see `logs.origins`."""


def answer(group: list[Call], commit: Commit) -> None:
    """Tell each of the calls that were committed together what became of its rows."""
    verdicts = commit.verdicts
    start = 0
    for call in group:
        end = start + call.batch.num_rows
        if not call.answer.done():
            positions = {p: commit.positions[p] for p in call.partitions}
            call.answer.set_result(Appended("ok", verdicts[start:end], positions))
        start = end


def origins_of(calls: Iterable[Call]) -> Iterator[str]:
    """The requests that calls are of."""
    return (origin for call in calls for origin in call.origins)


def partitions_of(batch: pa.RecordBatch) -> frozenset[int]:
    """The partitions that a batch is for."""
    return frozenset(batch["partition"].to_numpy().tolist())
