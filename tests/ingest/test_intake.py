"""From parsed requests to shards and back, with shards that fail in every way they can."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.ingest import intake as intake_module
from rebu_ray.ingest.answer import Appended
from rebu_ray.ingest.dialects.ordinary import Ordinary
from rebu_ray.ingest.dialects.segment import parse_batch
from rebu_ray.ingest.intake import Intake, Receipt, ShardGone, dead_letter
from rebu_ray.ingest.position import Position
from rebu_ray.ingest.routing import Routing, spread
from rebu_ray.records import BadRequest, Kind, Parsed, Record, Refusal, Source
from rebu_ray.store.rows import WIRE, decode, partition_of
from tests.records import NOW, said, seeded

P = 8
Fault = str | None


class Shards:
    """Shards that store what they own. `faults` say, call by call, what else happens; then all goes well."""

    def __init__(self, routing: Routing, faults: list[Fault] | None = None) -> None:
        self.routing = routing
        self.faults = faults or []
        self.stored: dict[tuple[str, str], dict[str, Any]] = {}
        self.last_seq: Counter[int] = Counter()
        self.calls: list[tuple[int, int]] = []
        """(slot, rows)"""
        self.asked = 0
        self.under_way: Counter[int] = Counter()
        self.most_under_way = 0

    async def route(self, fresh: bool) -> Routing:
        self.asked += fresh
        return self.routing

    async def call(self, slot: int, data: bytes) -> Appended:
        rows = decode(data, WIRE)
        self.calls.append((slot, rows.num_rows))
        self.under_way[slot] += 1
        self.most_under_way = max(self.most_under_way, self.under_way[slot])
        fault = self.faults.pop(0) if self.faults else None
        for _ in range(len(self.calls) % 3):
            await asyncio.sleep(0)
        try:
            return self._answer(slot, rows, fault)
        finally:
            self.under_way[slot] -= 1

    def _answer(self, slot: int, rows: pa.RecordBatch, fault: Fault) -> Appended:
        if fault == "gone":
            raise ShardGone("a shard is being restarted")
        if fault == "overloaded":
            return Appended("overloaded", detail="full", retry_after=7.4)
        if fault == "unavailable":
            return Appended("unavailable", detail="the disk is full", retry_after=5.0)
        partitions = set(rows["partition"].to_pylist())
        if fault == "not_owner" or not partitions <= set(self.routing.owned_by(slot)):
            return Appended("not_owner", detail="somebody else has them")
        new = bytearray()
        for row in rows.to_pylist():
            name = (row["key"], row["id"])
            new.append(name not in self.stored)
            if new[-1]:
                self.last_seq[row["partition"]] += 1
                self.stored[name] = row | {"seq": self.last_seq[row["partition"]]}
        if fault == "gone after":
            raise ShardGone("a shard is being restarted")
        return Appended("ok", bytes(new), {p: self.last_seq[p] for p in partitions})


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Nobody waits, and calls are small."""
    sleep = asyncio.sleep
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", lambda seconds: sleep(0))
        patch.setattr(intake_module, "CALL_ROWS", 6)
        patch.setattr(intake_module, "FURTHER_CALL_ROWS", 4)
        yield


def store(shards: Shards, *requests: Ordinary | Parsed) -> list[Receipt]:
    """All requests at once."""

    async def send() -> list[Receipt]:
        intake = Intake(shards.route, shards.call)
        return await asyncio.gather(*(intake.store(Source.APP_EVENTS, parsed, NOW) for parsed in requests))

    return asyncio.run(send())


def refusal(shards: Shards, parsed: Parsed) -> BadRequest:
    with pytest.raises(BadRequest) as refused:
        store(shards, parsed)
    return refused.value


users = st.sampled_from([f"user{n}" for n in range(12)])
numbers = st.integers(0, 5).map(str)
entries = st.one_of(
    st.builds(said, users, numbers),
    st.builds(said, st.none(), numbers, phone=users),
    st.builds(said, users, numbers, kind=st.just(Kind.SERVER_ACCESS), request=st.sampled_from(["r1", "r2"])),
    st.builds(Refusal, st.just("invalid_id: no"), st.binary(max_size=4), st.none() | numbers),
)
requests = st.lists(st.lists(entries, max_size=15), min_size=1, max_size=6)
safe_faults = st.lists(st.sampled_from([None, "gone", "not_owner"]), max_size=8)


def name_of(entry: Record) -> tuple[str, str]:
    return (f"u:{entry.user_id}" if entry.user_id is not None else f"a:{entry.anonymous_id}", entry.id)


@settings(seeded, max_examples=200)
@given(requests, safe_faults, st.integers(1, 4))
def test_every_record_gets_the_verdict_that_is_its_own(found: list[Parsed], faults: list[Fault], slots: int) -> None:
    """Requests share calls, shards fail: each id is accepted once, and every position covers its request."""
    shards = Shards(spread(P, slots), list(faults))
    receipts = store(shards, *found)
    for parsed, receipt in zip(found, receipts, strict=True):
        assert receipt.accepted + receipt.duplicate + receipt.rejected == len(parsed)
        told = receipt.results
        sent: list[str] = []
        partitions = set()
        for ordinal, entry in enumerate(parsed):
            if isinstance(entry, Refusal):
                assert {"id": entry.id or "", "status": "rejected", "reason": entry.reason} in told
                letter = dead_letter(Source.APP_EVENTS, entry, ordinal, NOW, P)
                kept = shards.stored[letter.key, letter.record.id]
                assert (kept["kind"], kept["name"]) == (Kind.DEAD_LETTER, entry.reason)
            else:
                sent.append(entry.id)
                kept = shards.stored[name_of(entry)]
            assert receipt.position.seqs[kept["partition"]] >= kept["seq"]
            partitions.add(kept["partition"])
            if isinstance(entry, Record) and entry.kind is Kind.SERVER_ACCESS:
                partitions.add(partition_of(f"r:{entry.request_id}", P))
        assert receipt.position.seqs.keys() == partitions
        assert receipt.rejected == sum(isinstance(entry, Refusal) for entry in parsed)
        doubles = [result["id"] for result in told if result["status"] == "duplicate"]
        assert receipt.duplicate == len(doubles)
        assert Counter(doubles) <= Counter(sent)
    records = {name for name, row in shards.stored.items() if row["kind"] not in (Kind.DEAD_LETTER, Kind.BINDING)}
    assert records == {name_of(entry) for parsed in found for entry in parsed if isinstance(entry, Record)}
    assert sum(receipt.accepted for receipt in receipts) == len(records)
    assert shards.most_under_way <= intake_module.CALLS_UNDER_WAY
    assert all(rows <= 6 for _, rows in shards.calls)


@settings(seeded, max_examples=100)
@given(requests, st.lists(st.sampled_from([None, "gone", "not_owner", "gone after"]), max_size=8))
def test_nothing_is_lost_or_stored_twice_where_a_shard_dies_after_it_stored(
    found: list[Parsed], faults: list[Fault]
) -> None:
    shards = Shards(spread(P, 3), list(faults))
    receipts = store(shards, *found)
    records = [name_of(entry) for parsed in found for entry in parsed if isinstance(entry, Record)]
    assert set(records) <= shards.stored.keys()
    assert sum(r.accepted for r in receipts) <= len(set(records))
    assert sum(r.accepted + r.duplicate for r in receipts) == len(records)


def test_the_order_of_results_is_the_senders() -> None:
    shards = Shards(spread(P, 3))
    parsed: Parsed = [said(f"user{n}", f"{n}") for n in range(20)]
    store(shards, parsed)
    mixed: Parsed = [
        Refusal("no: no", b"1", "x"),
        *parsed[:10],
        said("new", "0"),
        *parsed[10:],
        Refusal("no: no", b"2"),
    ]
    (receipt,) = store(shards, mixed)
    assert [r["id"] for r in receipt.results] == ["x", *(f"{n}" for n in range(20)), ""]
    assert (receipt.accepted, receipt.duplicate, receipt.rejected) == (1, 20, 2)


def test_the_first_of_equal_ids_is_accepted() -> None:
    (receipt,) = store(Shards(spread(P, 2)), [said("ada", "1"), said("ada", "2"), said("ada", "1"), said("bob", "1")])
    assert (receipt.accepted, receipt.duplicate) == (3, 1)
    assert receipt.results == [
        {"id": "1", "status": "duplicate", "reason": "duplicate: this id is stored already"},
    ]


def test_a_request_of_nothing_is_answered() -> None:
    shards = Shards(spread(P, 2))
    (receipt,) = store(shards, [])
    assert receipt == Receipt(0, 0, 0, Position({}), [])
    assert shards.calls == []
    body = json.loads(receipt.body())
    assert body == {"success": True, "accepted": 0, "duplicate": 0, "rejected": 0, "position": "gA", "results": []}


def test_a_receipt_says_what_the_contract_promises() -> None:
    (receipt,) = store(Shards(spread(P, 2)), [said("ada", "1"), Refusal("invalid_id: so", b"{}", "2")])
    body = json.loads(receipt.body())
    assert Position.decode(body.pop("position")) == receipt.position
    assert body == {
        "success": True,
        "accepted": 1,
        "duplicate": 0,
        "rejected": 1,
        "results": [{"id": "2", "status": "rejected", "reason": "invalid_id: so"}],
    }


def test_new_routing_is_asked_for_and_followed() -> None:
    shards = Shards(spread(P, 4, version=2))
    stale = spread(P, 1)

    async def route(fresh: bool) -> Routing:
        shards.asked += fresh
        return shards.routing if fresh else stale

    async def send() -> Receipt:
        return await Intake(route, shards.call).store(
            Source.APP_EVENTS, [said(f"user{n}", "1") for n in range(12)], NOW
        )

    assert asyncio.run(send()).accepted == 12
    assert shards.asked == 1
    assert {slot for slot, _ in shards.calls} == {0, 1, 2, 3}


def test_an_overloaded_shard_refuses_the_request_and_says_when_to_come_back() -> None:
    shards = Shards(spread(P, 1), ["overloaded"])
    refused = refusal(shards, [said("ada", "1")])
    assert (refused.status, refused.code, refused.retry_after) == (429, "overloaded", 8)
    assert shards.stored == {}


def test_a_gateway_waits_where_every_shard_has_said_that_it_is_full() -> None:
    parsed: Parsed = [said(f"user{n}", "1") for n in range(12)]

    async def waits(*faults: Fault) -> list[float]:
        shards = Shards(spread(P, 2), list(faults))
        intake = Intake(shards.route, shards.call)
        found = [intake.wait_s]
        with contextlib.suppress(BadRequest):
            await intake.store(Source.APP_EVENTS, parsed, NOW)
        found.append(intake.wait_s)
        await intake.store(Source.APP_EVENTS, parsed, NOW)
        return [*found, intake.wait_s]

    before, between, after = asyncio.run(waits("overloaded", "overloaded", "overloaded", "overloaded"))
    assert (before, after) == (0.0, 0.0)
    assert 7.0 < between <= 7.4
    assert asyncio.run(waits(None, "overloaded")) == [0.0, 0.0, 0.0]


def test_a_request_is_refused_as_overloaded_only_where_nothing_of_it_was_stored() -> None:
    """One shard took its part: the rest follows as soon as the other one can."""
    parsed: Parsed = [said(f"user{n}", "1") for n in range(12)]
    shards = Shards(spread(P, 2), [None, "overloaded", "overloaded", "overloaded"])
    assert {partition_of(f"u:user{n}", P) // 4 for n in range(12)} == {0, 1}
    (receipt,) = store(shards, parsed)
    assert receipt.accepted == 12
    everywhere = Shards(spread(P, 2), ["overloaded", "overloaded", "overloaded", "overloaded"])
    assert refusal(everywhere, parsed).status == 429
    assert everywhere.stored == {}


def test_a_shard_that_cannot_write_is_unavailable_at_once() -> None:
    shards = Shards(spread(P, 1), ["unavailable"] * 2)
    refused = refusal(shards, [said("ada", "1")])
    assert (refused.status, refused.code) == (503, "unavailable")
    assert "the disk is full" in refused.message
    assert refused.retry_after
    assert len(shards.calls) == 1


@pytest.mark.parametrize("fault", ["gone", "not_owner", "overloaded"])
def test_a_shard_that_stays_away_is_unavailable_in_the_end(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(intake_module, "PATIENCE_SECONDS", 0.005)
    parsed: Parsed = [said(f"user{n}", "1") for n in range(12)]
    shards = Shards(spread(P, 2), [None, *[fault] * 100_000])
    refused = refusal(shards, parsed)
    assert (refused.status, refused.code) == (503, "unavailable")
    assert refused.retry_after
    shards.faults.clear()
    (receipt,) = store(shards, parsed)
    assert receipt.accepted + receipt.duplicate == 12


def test_a_fault_in_a_call_is_everybodys_whose_rows_were_in_it_and_nobody_elses() -> None:
    class Odd(Exception):
        pass

    shards = Shards(spread(P, 1))

    async def call(slot: int, data: bytes) -> Appended:
        if len(shards.calls) == 2:
            shards.calls.append((slot, 0))
            raise Odd
        return await shards.call(slot, data)

    async def send() -> list[Receipt | BaseException]:
        intake = Intake(shards.route, call)
        parsed: list[Parsed] = [[said("ada", f"{n}")] for n in range(20)]
        return await asyncio.gather(
            *(intake.store(Source.APP_EVENTS, one, NOW) for one in parsed), return_exceptions=True
        )

    outcomes = asyncio.run(send())
    failed = [outcome for outcome in outcomes if isinstance(outcome, Odd)]
    assert len(failed) == 6
    assert sum(outcome.accepted for outcome in outcomes if isinstance(outcome, Receipt)) == 14


def test_a_sender_who_leaves_does_not_disturb_the_others() -> None:
    shards = Shards(spread(P, 1))

    async def send() -> list[Receipt | BaseException]:
        intake = Intake(shards.route, shards.call)
        tasks = [asyncio.create_task(intake.store(Source.APP_EVENTS, [said("ada", f"{n}")], NOW)) for n in range(12)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(send())
    assert [isinstance(o, Receipt) and o.accepted == 1 for o in outcomes] == [n % 3 != 0 for n in range(12)]


def test_rows_that_no_request_brought_are_stored_too() -> None:
    shards = Shards(spread(P, 2))

    async def send() -> Position:
        intake = Intake(shards.route, shards.call)
        return await intake.append([dead_letter(Source.OTLP, Refusal("no: no", b"x"), 0, NOW, P)])

    assert asyncio.run(send()).seqs == {partition_of("d:otlp", P): 1}


# -- dead letters ---------------------------------------------------------------------------------------------------


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@settings(seeded, max_examples=300)
@given(
    st.binary(max_size=60)
    | st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.recursive(st.none() | st.floats() | st.text() | st.integers(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_any_bytes_are_kept_as_json(raw: bytes) -> None:
    letter = dead_letter(Source.ACCESS, Refusal("no: because", raw), 0, NOW, P)
    value = json.loads(letter.record.body)
    if isinstance(value, dict) and "base64" in value:
        with pytest.raises(UnicodeDecodeError):
            raw.decode()
    elif letter.record.body != raw:
        assert value == raw.decode()


@pytest.mark.parametrize(
    "raw",
    [
        deep(900),
        deep(100_000),
        b'{"a":' * 600 + b"1" + b"}" * 600,
        b"1" * 5000,
        b"\xef\xbb\xbf{}",
        b"NaN",
        b"",
        b"\xff",
    ],
)
def test_what_some_readers_cannot_read_is_kept_as_text(raw: bytes) -> None:
    """A list of dead letters is one JSON text: one of them must not spoil it for everybody."""
    body = dead_letter(Source.ACCESS, Refusal("no: because", raw), 0, NOW, P).record.body
    assert body != raw
    assert isinstance(json.loads(b'{"items":[{"record":%b}]}' % body)["items"][0]["record"], str | dict)


def test_a_dead_letter_is_told_by_its_words_its_place_and_its_number() -> None:
    def named(raw: bytes, ordinal: int = 0, source: Source = Source.ACCESS, sequence: int | None = None) -> str:
        producer = None if sequence is None else "shipper"
        return dead_letter(source, Refusal("no: no", raw), ordinal, NOW, P, producer, sequence).record.id

    names = [named(b"a"), named(b"b"), named(b"a", 1), named(b"a", 0, Source.ERROR), named(b"a", 0, sequence=5)]
    assert len(set(names)) == len(names)
    assert named(b"a") == named(b"a")
    assert named(b"a", 1, sequence=5) == named(b"a", 0, sequence=6)


def test_columns_are_stored_as_their_records_are() -> None:
    raws = [
        b'{"type":"track","messageId":"%d","userId":"user%d","event":"Opened","timestamp":"2026-03-01T08:00:00Z"}'
        % (n % 15, n % 7)
        for n in range(40)
    ]
    parsed = parse_batch(b'{"batch":[' + b",".join(raws) + b"]}", NOW)
    assert isinstance(parsed, Ordinary)
    as_columns, as_records = Shards(spread(P, 3)), Shards(spread(P, 3))
    for _ in range(2):
        (receipt,) = store(as_columns, parsed)
        assert store(as_records, parsed.records()) == [receipt]
    assert as_columns.stored == as_records.stored
    assert (receipt.accepted, receipt.duplicate) == (0, 40)
