"""Which stream a record goes to, and what else it says."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.ingest.identity import route, stream_of
from rebu_ray.records import HISTORY_KINDS, Kind, Record
from rebu_ray.store.rows import fingerprint, partition_of
from tests.records import NOW, ids, said, seeded

maybe = st.none() | ids
records = st.builds(
    said,
    maybe,
    ids,
    st.integers(NOW, NOW + 3),
    phone=maybe,
    request=maybe,
    kind=st.sampled_from(HISTORY_KINDS),
)


@settings(seeded, max_examples=300)
@given(records, st.integers(1, 300))
def test_a_record_goes_to_its_user_else_its_phone_else_its_request(record: Record, partitions: int) -> None:
    first, *more = route(record, partitions)
    assert first.record is record
    named = [
        f"{letter}:{name}"
        for letter, name in (("u", record.user_id), ("a", record.anonymous_id), ("r", record.request_id))
        if name is not None
    ]
    assert first.key == stream_of(record) == [*named, f"n:{record.id}"][0]
    assert first.partition == partition_of(first.key, partitions) < partitions
    binds = record.kind is Kind.SERVER_ACCESS and record.user_id is not None and record.request_id is not None
    assert len(more) == binds
    for key, binding in ((row.key, row.record) for row in more):
        assert key == f"r:{record.request_id}"
        assert (binding.kind, binding.user_id) == (Kind.BINDING, record.user_id)
        assert (binding.event_time, binding.received_at) == (record.event_time, record.received_at)


def access(user: str, request: str, record_id: str, at: int) -> Record:
    return said(user, record_id, at, kind=Kind.SERVER_ACCESS, request=request)


def prints(record: Record) -> list[int]:
    return [fingerprint(row.key, row.record.id) for row in route(record, 16)]


def test_a_line_that_is_sent_twice_says_the_same_twice() -> None:
    assert prints(access("ada", "r1", "1", NOW)) == prints(access("ada", "r1", "1", NOW))


def test_who_a_request_is_of_is_heard_again_each_time_it_comes_up() -> None:
    """Else a request id that comes up again after the hour would be a duplicate, and its lines would wait in vain."""
    bindings = [
        prints(access(user, request, "1", at))[1]
        for user, request, at in (
            ("ada", "r1", NOW),
            ("ada", "r1", NOW + 3_600_001),
            ("bob", "r1", NOW),
            ("ada", "r2", NOW),
        )
    ]
    assert len(set(bindings)) == len(bindings)


def test_partitions_are_fixed_for_ever() -> None:
    """These numbers are in the journals and lakes of everybody."""
    assert [partition_of(key, 16) for key in ("u:ada", "a:p1", "r:1", "d:access", "n:é🚕")] == [1, 6, 11, 5, 3]
    assert fingerprint("u:ada", "1") == 18005812427854176090
