"""Marks of replays: rows of kind `replayed` in the stream of a source's dead letters, each about one letter.

A mark stands at the event time of its letter, so both lie in the same part of every file. It has a name, the reason
for which the letter's record was refused anew, or none where it was accepted: then the letter is in no list any more.
The body is ``{"id": the letter's id, "record": the record}``, the record only where it was refused.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.records import Kind, Record, Source
from rebu_ray.store.rows import ROWS, Routed, partition_of


class Mark(msgspec.Struct):
    """The body of a mark."""

    id: str
    record: msgspec.Raw = msgspec.Raw(b"null")


_MARK = msgspec.json.Decoder(Mark)


def mark(
    source: Source, letter_id: str, at: int, now: int, partitions: int, refused: tuple[str, bytes] | None
) -> Routed:
    """The mark of a letter that stands at event time `at` (ms); `refused` is the new reason and the record."""
    key = f"d:{source}"
    reason, record = refused or ("", b"null")
    return Routed(
        partition_of(key, partitions),
        key,
        Record(
            kind=Kind.REPLAYED,
            id=f"replayed {now} {letter_id}",
            name=reason,
            source=source,
            event_time=at,
            received_at=now,
            body=msgspec.json.encode(Mark(letter_id, msgspec.Raw(record))),
        ),
    )


def marked(rows: pa.RecordBatch) -> list[tuple[dict[str, Any], str, pa.RecordBatch | None]]:
    """The marks of a batch of `ROWS` in order: the mark, its letter's id, the letter where it stays in the list."""
    found: list[tuple[dict[str, Any], str, pa.RecordBatch | None]] = []
    for row in rows.filter(pc.equal(rows["kind"], str(Kind.REPLAYED))).to_pylist():
        said = _MARK.decode(row["body"])
        letter = None
        if row["name"]:
            again = {"kind": str(Kind.DEAD_LETTER), "id": said.id, "body": bytes(said.record)}
            letter = pa.RecordBatch.from_pylist([{**row, **again, "received_at": row["event_time"]}], ROWS)
        found.append((row, said.id, letter))
    return found


def apart(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """What is no mark, and the marks."""
    marks = pc.equal(rows["kind"], str(Kind.REPLAYED))
    return rows.filter(pc.invert(marks)), rows.filter(marks)


def resolved(letters: pa.Table, marks: pa.Table) -> pa.Table:
    """Letters as the newest mark of each has them: with its reason, or not at all."""
    if not marks.num_rows or not letters.num_rows:
        return letters
    reasons = {
        _MARK.decode(body).id: name
        for body, name in zip(*(marks.sort_by("seq")[c].to_pylist() for c in ("body", "name")), strict=True)
    }
    ids, names = letters["id"].to_pylist(), letters["name"].to_pylist()
    now = [reasons.get(record_id, name) for record_id, name in zip(ids, names, strict=True)]
    at = letters.schema.get_field_index("name")
    letters = letters.set_column(at, letters.schema.field("name"), pa.array(now, pa.string()))
    return letters.filter(pa.array([name != "" for name in now], pa.bool_()))
