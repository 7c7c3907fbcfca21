"""Members: their order is that of (event time, id), and what goes in comes out."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.access.query import filters
from rebu_ray.records import HISTORY_KINDS, MAX_TIME_MS, Kind, MatchedBy, Record, Source
from rebu_ray.store.member import (
    KIND_CODES,
    SOURCE_CODES,
    Codec,
    kind_codes,
    members,
    place,
    place_id,
    place_time,
    split,
    time_place,
)
from rebu_ray.store.rows import Routed, fragments, json_text
from tests.records import NOW, ids, journalled, said, seeded, texts

times = st.integers(0, MAX_TIME_MS) | st.sampled_from([0, 1, 255, 256, 65_535, NOW, NOW + 1, MAX_TIME_MS])
bodies = st.sampled_from(
    [b"{}", b'{"a":"\\u2028","b":[1,2,{"c":null}]}', '{"é":"🚕"}'.encode(), b'{\r\n "x": 1e400 }', b'"a line"', b"17"]
)
records = st.builds(
    Record,
    kind=st.sampled_from(HISTORY_KINDS),
    id=ids,
    name=texts,
    source=st.sampled_from(list(Source)),
    event_time=times,
    received_at=times,
    body=bodies,
    user_id=st.just("ada"),
    anonymous_id=st.none() | ids,
    matched_by=st.none() | st.sampled_from(list(MatchedBy)),
)


def batch(found: list[Record], seqs: list[int] | None = None) -> pa.RecordBatch:
    rows = journalled([Routed(0, "u:ada", record) for record in found])
    return rows if seqs is None else rows.set_column(0, rows.schema.field("seq"), pa.array(seqs, pa.int64()))


def written(ms: int) -> str:
    """RFC 3339 of a time, without the product's help."""
    days, rest = divmod(ms, 86_400_000)
    era = (days + 719_468) // 146_097
    day_of_era = days + 719_468 - era * 146_097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    day, month = day_of_year - (153 * shifted + 2) // 5 + 1, shifted + 3 if shifted < 10 else shifted - 9
    year = year_of_era + era * 400 + (month <= 2)
    hour, minute, second = rest // 3_600_000, rest // 60_000 % 60, rest // 1000 % 60
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}.{rest % 1000:03d}Z"


def refuse_constant(token: str) -> Any:
    raise AssertionError(f"{token} is not JSON")


@settings(seeded)
@given(st.lists(records, min_size=1, max_size=12))
def test_members_sort_as_their_times_and_ids(found: list[Record]) -> None:
    order = sorted(zip(members(batch(found), Codec()), found, strict=True))
    assert [(r.event_time, r.id.encode()) for _, r in order] == sorted((r.event_time, r.id.encode()) for r in found)
    places = [place(r.event_time, r.id) for r in found]
    assert sorted(places) == [split(member).place for member, _ in order]


@settings(seeded)
@given(st.lists(records, max_size=8), st.lists(st.integers(1, 2**47), min_size=8, max_size=8))
def test_a_member_comes_apart_again(found: list[Record], seqs: list[int]) -> None:
    codec = Codec()
    rows = batch(found, seqs[: len(found)])
    for record, seq, fragment, member in zip(found, seqs, fragments(rows), members(rows, codec), strict=False):
        apart = split(member)
        assert (place_time(apart.place), place_id(apart.place)) == (record.event_time, record.id)
        assert (apart.kind, apart.source, apart.seq) == (KIND_CODES[record.kind], SOURCE_CODES[record.source], seq)
        assert apart.kind in kind_codes([record.kind])
        assert codec.decompress(apart.payload) == fragment


@settings(seeded)
@given(times, times, ids)
def test_a_time_stands_before_its_records_and_after_all_earlier_ones(at: int, other: int, record_id: str) -> None:
    assert (time_place(at) <= place(other, record_id)) == (at <= other)


@settings(seeded)
@given(records, st.lists(records, max_size=4))
def test_a_member_does_not_depend_on_what_came_with_it(record: Record, others: list[Record]) -> None:
    together = batch([record, *others], list(range(7, 8 + len(others))))
    assert members(together, Codec())[0] == members(batch([record], [7]), Codec())[0]


@settings(seeded)
@given(st.lists(st.binary(min_size=1, max_size=2000), min_size=1, max_size=6))
def test_what_was_compressed_is_read_by_another_codec(plain: list[bytes | bytearray | memoryview]) -> None:
    codec, packed = Codec(), Codec().compress(plain)
    assert [codec.decompress(data) for data in packed] == plain
    assert codec.compress(plain) == packed


@settings(seeded)
@given(st.lists(records, max_size=6))
def test_an_item_is_json_and_says_what_the_record_says(found: list[Record]) -> None:
    for record, fragment in zip(found, fragments(batch(found)), strict=True):
        assert json.loads(b"{" + fragment, parse_constant=refuse_constant) == {
            "name": record.name,
            "kind": record.kind,
            "id": record.id,
            "timestamp": written(record.event_time),
            "received_at": written(record.received_at),
            "source": record.source,
            "anonymous_id": record.anonymous_id,
            "matched_by": record.matched_by,
            "body": json.loads(record.body),
        }
        assert fragment.endswith(record.body + b"}")


@settings(seeded)
@given(st.lists(st.tuples(ids, texts, bodies, times), max_size=6), st.sampled_from(list(Source)))
def test_a_dead_letter_is_json_and_says_why(found: list[tuple[str, str, bytes, int]], source: Source) -> None:
    letters = [
        said(None, i, at, kind=Kind.DEAD_LETTER, name=reason, body=raw, source=source, received_at=at)
        for i, reason, raw, at in found
    ]
    for (i, reason, raw, at), fragment in zip(found, fragments(batch(letters)), strict=True):
        assert json.loads(b"{" + fragment) == {
            "id": i,
            "source": source,
            "received_at": written(at),
            "reason": reason,
            "record": json.loads(raw),
        }


def test_dead_letters_and_records_have_different_shapes() -> None:
    with pytest.raises(ValueError, match="dead letters"):
        fragments(batch([said("ada"), said(None, kind=Kind.DEAD_LETTER)]))


@settings(seeded)
@given(texts, texts)
def test_a_fragment_begins_with_its_name_and_no_other(name: str, other: str) -> None:
    (fragment,) = fragments(batch([said("ada", name=name)]))
    for wanted in (name, other):
        prefix = filters({"name": wanted}).name
        assert prefix is not None
        assert fragment.startswith(prefix) == (wanted == name)


@settings(seeded)
@given(st.none() | texts)
def test_text_becomes_json(text: str | None) -> None:
    assert json.loads(json_text(text)) == text


def test_what_is_no_member_is_refused() -> None:
    with pytest.raises(ValueError, match="not found"):
        split(b"\0\0\0\0\0\0\0\1without an end")
