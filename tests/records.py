"""Records and rows to test with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st

from rebu_ray.ingest.identity import route
from rebu_ray.records import Kind, MatchedBy, Record, Source
from rebu_ray.store.rows import Routed, partition_of, to_batch, with_seq

seeded = settings(derandomize=True, deadline=None)

NOW: Final = 1_772_438_400_000
"""2026-03-02T08:00:00Z, when everything here is received unless it says otherwise."""

_CHARACTERS = st.characters(exclude_categories=["Cs"])
AWKWARD: Final = ("a", "a\x01", "a\x1f", "ab", "a ", "~", "\x7f", "\x80", "é", "\u2028", "\uffff", "🚕", "🚕a", '"\\')
"""Texts that are beginnings of each other, or sort otherwise in UTF-16, or need escapes."""
texts = st.text(_CHARACTERS, max_size=8) | st.sampled_from(AWKWARD)
"""What may stand in a name."""
ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=5) | (
    st.sampled_from(AWKWARD)
)
"""What may be an id."""


def said(
    user: str | None = None,
    record_id: str = "1",
    at: int = NOW,
    *,
    phone: str | None = None,
    request: str | None = None,
    kind: Kind = Kind.APP_EVENT,
    name: str = "Ride Requested",
    source: Source = Source.APP_EVENTS,
    received_at: int = NOW,
    links: str | None = None,
    body: bytes = b'{"n":1}',
) -> Record:
    """A record of a user, a phone (anonymous id) or a request."""
    matched_by = MatchedBy.USER_ID if user is not None else MatchedBy.ANONYMOUS_ID if phone is not None else None
    return Record(
        kind=kind,
        id=record_id,
        name=name,
        source=source,
        event_time=at,
        received_at=received_at,
        body=body,
        user_id=user,
        anonymous_id=phone,
        request_id=request,
        matched_by=matched_by,
        links=links,
    )


def identified(
    user: str, phone: str, at: int = NOW, *, record_id: str | None = None, received_at: int = NOW, traits: bytes = b"{}"
) -> Record:
    """An identify call that ties a phone to a user."""
    return said(
        user,
        record_id or f"identify {phone} {at} {received_at}",
        at,
        phone=phone,
        name="identify",
        received_at=received_at,
        links=phone,
        body=b'{"type":"identify","traits":%b}' % traits,
    )


def unlinked(user: str, phone: str, received_at: int) -> Record:
    """A link that is taken back, as the route that does it has it."""
    return said(
        user,
        f"unlink {phone} {received_at}",
        received_at,
        kind=Kind.UNLINK,
        name="",
        received_at=received_at,
        links=phone,
        body=b"{}",
    )


def routed(records: Iterable[Record], partitions: int) -> list[Routed]:
    """Records with everything that they lead to, where they go; dead letters to those of their source."""
    rows: list[Routed] = []
    for record in records:
        if record.kind is Kind.DEAD_LETTER:
            key = f"d:{record.source}"
            rows.append(Routed(partition_of(key, partitions), key, record))
        else:
            rows += route(record, partitions)
    return rows


def journalled(rows: Sequence[Routed], last_seq: dict[int, int] | None = None) -> pa.RecordBatch:
    """Rows as the journal numbers them, one after the other; `last_seq` per partition goes on with them."""
    last = {} if last_seq is None else last_seq
    seqs = []
    for row in rows:
        last[row.partition] = last.get(row.partition, 0) + 1
        seqs.append(last[row.partition])
    return with_seq(to_batch(rows), pa.array(seqs, pa.int64()))
