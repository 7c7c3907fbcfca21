"""Documents as rows arrive: what is written anew and what is not, who gives up what, and the past of a link."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pyarrow as pa
import pytest

from rebu_ray.process import compute
from rebu_ray.process.tables import LINKS, counting
from rebu_ray.records import Kind, Record, Source
from rebu_ray.store.rows import partition_of
from tests.conftest import Valkey
from tests.process.path import P, Path, body, deleted, destination, driver, kinds, message, ride, user
from tests.records import NOW, identified, said, unlinked

ABOUT_R1 = "My ride r1 was bad."


@pytest.fixture
def path(valkey: Valkey) -> Iterator[Path]:
    with closing(Path(valkey)) as made:
        yield made


def error(record_id: str, at: int, user_id: str | None = "ada", phone: str | None = None, **more: Any) -> Record:
    return said(user_id, record_id, at, phone=phone, kind=Kind.APP_ERROR, name="Boom", source=Source.APP_ERRORS, **more)


def errors(path: Path, ride_id: str = "r1") -> list[str]:
    found = path.ride(ride_id)
    assert found is not None
    return [item["id"] for item in found["errors"]["items"]]


# -- versions -------------------------------------------------------------------------------------------------------


def test_a_ride_has_a_version_for_each_change_and_says_when_it_was_known(path: Path) -> None:
    path.take(ride(received_at=NOW + 1))
    first = path.ride()
    assert first is not None
    assert (first["version"], first["known_at"], first["status"]) == (1, "2026-03-02T08:00:00.001Z", "completed")
    path.take(ride(status="failed", updated_at=NOW + 800_000, received_at=NOW + 7))
    second = path.ride()
    assert second is not None
    assert (second["version"], second["known_at"], second["status"]) == (2, "2026-03-02T08:00:00.007Z", "failed")
    assert second["computed_at"] >= first["computed_at"]


def test_what_changes_nothing_writes_nothing(path: Path) -> None:
    path.take(user(), driver(), ride(), message(body=ABOUT_R1), destination("r1", NOW + 90_000, 57.0))
    written = path.documents
    path.take(
        ride(status="requested", ended_at=None, updated_at=NOW + 1),  # an older version that comes late
        error("before", NOW - 1),
        user(name="Late", updated_at=NOW - 5),
        said("ada", "tap", NOW + 70_000),
        destination("r1", NOW + 50_000, 58.0),
        ride(),
    )
    assert path.compute("u:ada", "o:r1", "u:nobody") == []
    assert path.documents == written


def test_only_what_changed_is_written(path: Path) -> None:
    path.take(ride("r1"), ride("r2", requested_at=NOW + 2_000_000, ended_at=NOW + 3_000_000), message(body=ABOUT_R1))
    before = path.documents
    path.take(error("e1", NOW + 2_500_000))
    assert path.documents == before + 1
    found = [path.ride("r1"), path.ride("r2")]
    assert [each and each["version"] for each in found] == [1, 2]


@pytest.mark.parametrize(
    "late",
    [
        user(name="Ada Lovelace"),
        driver(name="Dora"),
        destination("r1", NOW + 100_000, 57.2),
        error("e1", NOW + 1),
        said("ada", "a1", NOW + 1, kind=Kind.SERVER_ACCESS, name="GET /", body=b'{"status":"502"}', request="q1"),
        said("ada", "s1", NOW + 660_000, kind=Kind.SERVER_ERROR, name="error", body=b"{}"),
        ride(rating=1, updated_at=NOW + 900_000),
        message(body=ABOUT_R1),
    ],
    ids=["user", "driver", "destination", "app error", "refused access", "server error", "version", "message"],
)
def test_what_arrives_late_changes_the_ride(path: Path, late: Record) -> None:
    path.take(ride())
    path.take(late)
    changed = path.ride()
    assert changed is not None
    assert changed["version"] == 2


def test_what_arrives_before_its_ride_counts_as_well(path: Path) -> None:
    path.take(destination("r1", NOW + 100_000, 57.2), driver(), error("e1", NOW + 1), user(), message(body=ABOUT_R1))
    assert path.ride() is None
    path.take(ride())
    found = path.ride()
    assert found is not None
    assert (found["destination"]["lat"], found["driver"]["name"], found["user"]["name"]) == (57.2, "Dan", "Ada")
    assert errors(path) == ["e1"]
    assert list(path.about()) == ["m1"]


def test_a_status_that_is_no_number_of_this_world_is_no_error(path: Path) -> None:
    for n, status in enumerate((b"1e999", b'"x"', b"[]", b"null", b"499", b"9" * 400)):
        entry = b'{"status":%b}' % status
        path.take(said("ada", f"a{n}", NOW + 1, kind=Kind.SERVER_ACCESS, name="GET /", body=entry))
    path.take(ride())
    assert errors(path) == []


# -- phones ---------------------------------------------------------------------------------------------------------


def test_errors_of_a_phone_are_of_whoever_had_it(path: Path) -> None:
    path.take(ride("r1"), ride("r2", "bob"))
    path.take(error("e1", NOW + 1, None, "p1"), error("e2", NOW + 20, None, "p1"))
    assert errors(path) == errors(path, "r2") == []
    path.take(identified("ada", "p1", NOW + 10))
    assert (errors(path), errors(path, "r2")) == (["e1", "e2"], [])
    path.take(identified("bob", "p1", NOW + 30))
    assert (errors(path), errors(path, "r2")) == (["e1"], ["e2"])
    path.take(error("e0", NOW, None, "p1"), error("e3", NOW + 31, None, "p1"))
    assert (errors(path), errors(path, "r2")) == (["e0", "e1"], ["e2", "e3"])
    path.take(unlinked("ada", "p1", NOW))
    assert (errors(path), errors(path, "r2")) == ([], ["e0", "e1", "e2", "e3"])
    path.take(unlinked("bob", "p1", NOW))
    assert errors(path, "r2") == []


def test_an_error_under_two_names_is_one_the_one_received_first(path: Path) -> None:
    path.take(ride(), identified("ada", "p1", NOW), identified("ada", "p2", NOW))
    path.take(
        error("e1", NOW + 3, None, "p1", received_at=NOW + 9),
        error("e1", NOW + 2, None, "p2", received_at=NOW + 8),
        error("e1", NOW + 4, received_at=NOW + 10),
    )
    found = path.ride()
    assert found is not None
    assert found["errors"] == {
        "app": 1,
        "server": 0,
        "items": [{"id": "e1", "kind": "app_error", "name": "Boom", "timestamp": "2026-03-02T08:00:00.002Z"}],
    }


# -- deletions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["ada", None], ids=["by somebody who knows its user", "by somebody who does not"])
def test_a_deleted_ride_is_gone_with_its_messages(path: Path, whose: str | None) -> None:
    path.take(ride(), message(body=ABOUT_R1))
    assert list(path.about()) == ["m1"]
    path.take(deleted(Source.RIDES, "r1", whose))
    assert (path.ride(), path.about(), path.rides_of("u:ada"), path.rides_of("o:r1")) == (None, {}, [], [])
    left = path.message()
    assert left is not None
    assert (left["link"]["status"], left["link"]["ride_id"], left["version"]) == ("none", None, 2)
    assert path.compute("u:ada", "o:r1") == []


@pytest.mark.parametrize("whose", ["ada", None], ids=["by somebody who knows its user", "by somebody who does not"])
def test_a_deleted_message_is_gone_from_its_ride(path: Path, whose: str | None) -> None:
    path.take(ride(), message(body=ABOUT_R1))
    path.take(deleted(Source.MESSAGES, "m1", whose))
    assert (path.message(), path.about(), path.messages_of("u:ada")) == (None, {}, [])
    found = path.ride()
    assert found is not None
    assert (found["messages"]["linked"], found["version"]) == (0, 2)
    assert path.compute("u:ada", "m:m1") == []


def test_what_comes_back_after_its_deletion_is_there_again(path: Path) -> None:
    path.take(ride(), message(body=ABOUT_R1))
    path.take(deleted(Source.RIDES, "r1"), deleted(Source.MESSAGES, "m1"))
    path.take(ride(updated_at=NOW + 6_000_000), message(body=ABOUT_R1, updated_at=NOW + 6_000_000))
    assert path.rides_of("u:ada") == ["r1"]
    assert list(path.about()) == ["m1"]
    path.take(deleted(Source.RIDES, "r1", "ada", NOW + 7_000_000))
    assert path.ride() is None


def test_a_deletion_without_a_row_says_nothing(path: Path) -> None:
    path.take(deleted(Source.RIDES, "r1", "ada"), deleted(Source.MESSAGES, "m1"))
    assert path.documents == 0


# -- another user ---------------------------------------------------------------------------------------------------

ELSEWHERE = next(
    name for name in ("bob", "cyd", "dov", "eve") if partition_of(f"u:{name}", P) % 2 != partition_of("u:ada", P) % 2
)
SAME = next(name for name in map(str, range(99)) if partition_of(f"u:{name}", P) == partition_of("u:ada", P))


@pytest.mark.parametrize("heir", [ELSEWHERE, SAME], ids=["of another shard", "of the same partition"])
def test_a_ride_and_its_message_may_move_to_another_user(path: Path, heir: str) -> None:
    path.take(user(), user(heir, "Heir"), ride(), message(body=ABOUT_R1), error("e1", NOW + 1))
    path.take(ride(user_id=heir, updated_at=NOW + 800_000))
    moved = path.ride()
    assert moved is not None
    assert (moved["user"], moved["errors"]["app"]) == ({"user_id": heir, "name": "Heir"}, 0)
    assert (path.rides_of("u:ada"), path.rides_of(f"u:{heir}")) == ([], ["r1"])
    assert path.about() == {}
    path.take(message(user_id=heir, body=ABOUT_R1, updated_at=NOW + 970_000))
    found = path.message()
    assert found is not None
    assert (found["user_id"], found["link"]["ride_id"]) == (heir, "r1")
    assert (path.messages_of("u:ada"), path.messages_of(f"u:{heir}")) == ([], ["m1"])
    assert list(path.about()) == ["m1"]
    assert path.compute("u:ada", f"u:{heir}") == []
    path.take(ride(updated_at=NOW + 900_000))
    back = path.ride()
    assert back is not None
    assert (back["user"]["user_id"], back["errors"]["app"]) == ("ada", 1)
    assert (path.rides_of("u:ada"), path.rides_of(f"u:{heir}")) == (["r1"], [])


def test_what_one_user_gives_up_is_said_once(path: Path) -> None:
    path.take(ride(), message(body=ABOUT_R1))
    path.put(ride(user_id=ELSEWHERE, updated_at=NOW + 800_000))
    [moved, *_] = found = path.compute("u:ada")
    assert kinds(found) == [("moved", "o:r1"), ("message_document", "m1")]
    assert (moved["key"], moved["user_id"], body(moved)["version"]) == ("u:ada", "ada", 2)
    assert body(found[1])["no_longer"] == ["r1"]
    path.settle()
    assert path.compute("u:ada") == []


def test_a_document_that_was_overtaken_is_put_right(path: Path) -> None:
    """One shard computes, then the ride moves and the other shard is done with it before the first one writes."""
    path.take(ride())
    path.put(error("e1", NOW + 1))
    mine = partition_of("u:ada", P) % 2
    path.begin(mine)
    path.put(ride(user_id=ELSEWHERE, updated_at=NOW + 800_000))
    path.begin(1 - mine)
    path.end(1 - mine)
    path.end(mine)
    path.settle()
    found = path.ride()
    assert found is not None
    assert (found["user"]["user_id"], found["errors"]["app"]) == (ELSEWHERE, 0)
    assert path.rides_of("u:ada") == []


@pytest.mark.parametrize("order", [range(P), range(P - 1, -1, -1)], ids=["one way", "the other way"])
def test_an_index_that_was_emptied_has_what_one_user_deleted_and_another_has_now(path: Path, order: range) -> None:
    path.take(ride(), message(body=ABOUT_R1))
    path.take(deleted(Source.RIDES, "r1", "ada"), deleted(Source.MESSAGES, "m1", "ada"))
    path.take(ride(user_id=ELSEWHERE, updated_at=NOW + 6_000_000))
    path.take(message(user_id=ELSEWHERE, body=ABOUT_R1, updated_at=NOW + 6_000_000))
    before = path.served()
    assert path.rides_of(f"u:{ELSEWHERE}") == ["r1"]
    path.rebuild(order)
    assert path.served() == before


@pytest.mark.parametrize("order", [range(P), range(P - 1, -1, -1)], ids=["one way", "the other way"])
def test_a_message_that_moves_alone_leaves_its_ride_for_good(path: Path, order: range) -> None:
    path.take(ride(), message(body=ABOUT_R1))
    path.take(message(user_id=ELSEWHERE, body=ABOUT_R1, updated_at=NOW + 970_000))
    assert (path.about(), path.messages_of("u:ada"), path.messages_of(f"u:{ELSEWHERE}")) == ({}, [], ["m1"])
    before = path.served()
    path.rebuild(order)
    assert path.served() == before


def test_a_ride_without_a_user_is_its_own_until_it_has_one(path: Path) -> None:
    path.take(ride(user_id=None), error("e1", NOW + 1), driver())
    found = path.ride()
    assert found is not None
    assert (found["user"], found["errors"]["app"], found["driver"]["name"]) == (None, 0, "Dan")
    assert "user_missing" in found["flags"] or found["quality"] < 1
    path.take(driver(name="Dora", updated_at=NOW + 1))
    path.take(ride(updated_at=NOW + 800_000))
    found = path.ride()
    assert found is not None
    assert (found["user"]["user_id"], found["errors"]["app"], found["driver"]["name"]) == ("ada", 1, "Dora")
    assert (path.rides_of("o:r1"), path.rides_of("u:ada")) == ([], ["r1"])


def test_a_message_without_a_user_is_about_nothing_until_it_has_one(path: Path) -> None:
    path.take(ride(), message(user_id=None, body=ABOUT_R1, ride_id="r1"))
    found = path.message()
    assert found is not None
    assert (found["user_id"], found["link"]["status"], found["link"]["history"]) == (None, "none", [])
    assert path.about() == {}
    path.take(message(body=ABOUT_R1, ride_id="r1", updated_at=NOW + 970_000))
    found = path.message()
    assert found is not None
    assert (found["user_id"], found["link"]["ride_id"]) == ("ada", "r1")
    assert [step["status"] for step in found["link"]["history"]] == ["none"]
    assert (path.messages_of("m:m1"), path.messages_of("u:ada")) == ([], ["m1"])


# -- links ----------------------------------------------------------------------------------------------------------


def test_a_message_document_is_what_the_contract_says(path: Path) -> None:
    path.take(ride(), message(body=ABOUT_R1, thread_id="t1"))
    found = path.message()
    assert found is not None
    shown = {"message_id": "m1", "channel": "email", "direction": "inbound", "sent_at": "2026-03-02T08:16:00.000Z"}
    assert found.items() >= (shown | {"user_id": "ada", "thread_id": "t1", "subject": "Hello", "version": 1}).items()
    link = found["link"]
    assert list(link) == ["status", "ride_id", "confidence", "reasons", "candidates", "since", "history"]
    assert (link["status"], link["ride_id"], link["history"]) == ("linked", "r1", [])
    assert link["since"] == found["computed_at"]
    assert {tuple(reason) for reason in link["reasons"]} == {("signal", "detail", "weight")}
    [candidate] = link["candidates"]
    assert list(candidate) == ["ride_id", "confidence", "reasons"]
    item = path.about()["m1"]
    assert item.items() >= shown.items()
    assert item["link"] == {name: link[name] for name in ("status", "confidence", "reasons")}


def test_a_link_that_changes_keeps_its_past(path: Path) -> None:
    path.take(ride("r1"), message(ride_id="r2"))
    path.take(ride("r2", requested_at=NOW + 800_000, ended_at=NOW + 900_000, updated_at=NOW + 900_000))
    path.take(message(ride_id="r2", body="Another question.", updated_at=NOW + 970_000))
    found = path.message()
    assert found is not None
    link = found["link"]
    assert (link["status"], link["ride_id"]) == ("linked", "r2")
    assert list(path.about("r2")) == ["m1"]
    steps = link["history"]
    assert len(steps) == 1
    assert list(steps[0]) == ["status", "ride_id", "confidence", "since", "until"]
    assert steps[0]["ride_id"] != "r2"
    assert steps[0]["until"] == link["since"]
    assert link["since"] <= found["computed_at"]  # what changed last was not the link
    assert found["version"] == 3


def said_links(messages: pa.Table, stats: pa.Table, drivers: pa.Table, users: pa.Table) -> pa.Table:
    """Links as the bodies of messages say: the rides that they name."""
    rows = []
    for row in counting(messages, "message_id").to_pylist():
        reasons = [{"signal": "said", "detail": row["body"], "weight": 1.0}]
        named = sorted(set(row["body"].split()) & set(stats["ride_id"].to_pylist()))
        candidates = [{"ride_id": name, "confidence": 0.5, "reasons": reasons} for name in named]
        rows.append(
            {name: row[name] for name in LINKS.names if name in row}
            | {"status": ("none", "linked", "ambiguous")[min(len(named), 2)], "candidates": candidates}
            | {"ride_id": named[0] if len(named) == 1 else None, "confidence": 0.5, "reasons": reasons}
        )
    return pa.Table.from_pylist(rows, LINKS)


def test_a_message_is_listed_with_each_ride_that_it_may_be_about(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "link", said_links)
    path.take(*(ride(name, requested_at=NOW + n) for n, name in enumerate(("r1", "r2", "r3"))))
    past: list[tuple[str, str | None]] = []
    for number, text in enumerate(("r1 r2 r3", "r2 r3", "r3", "r1", "none", "r1 r2")):
        path.take(message(body=text, updated_at=NOW + number))
        found = path.message()
        assert found is not None
        link, named = found["link"], sorted(set(text.split()) - {"none"})
        assert [ride_id for ride_id in ("r1", "r2", "r3") if path.about(ride_id)] == named
        for ride_id in named:
            item = path.about(ride_id)["m1"]
            assert (item["body"], item["link"]["status"], item["link"]["confidence"]) == (text, link["status"], 0.5)
        counted = [path.ride(ride_id) for ride_id in ("r1", "r2", "r3")]
        kind = "linked" if len(named) == 1 else "ambiguous"
        assert [each and each["messages"][kind] for each in counted] == [int(f"r{n}" in named) for n in (1, 2, 3)]
        if past and past[-1] == (link["status"], link["ride_id"]):
            past.pop()
        assert [(step["status"], step["ride_id"]) for step in link["history"]] == past
        untils = [step["until"] for step in link["history"]]
        assert untils == [step["since"] for step in (*link["history"], link)][1:]
        past.append((link["status"], link["ride_id"]))


def test_the_lists_of_a_user_are_in_the_order_of_time(path: Path) -> None:
    path.take(ride("r1", requested_at=NOW + 5), ride("r2", requested_at=NOW), message("m1"), message("m2", sent_at=NOW))
    assert path.rides_of("u:ada") == ["r2", "r1"]
    assert path.messages_of("u:ada") == ["m2", "m1"]
    path.take(ride("r1", requested_at=NOW - 5, updated_at=NOW + 800_000))
    assert path.rides_of("u:ada") == ["r1", "r2"]


def test_bodies_of_whatever_charset_are_kept(path: Path) -> None:
    strange = 'Ride r1: 100 € "quoted" \\ 🚕 \u2028 \x7f \x01'
    path.take(ride(city=strange), message(channel="chat", body=strange))
    found = path.ride()
    assert found is not None
    assert found["city"] == strange
    sent = path.message()
    assert sent is not None
    assert "🚕" in sent["body"]
