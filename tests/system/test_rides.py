"""Rides through the real platform: whatever comes late or out of order, documents are what plain reading makes."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

import pytest

from rebu_ray.ingest.dialects import tables, times
from rebu_ray.records import Kind, Record, Source
from tests.process.oracle import documents
from tests.process.worlds import Row
from tests.system.running import Item, Running, await_true, rebu

pytestmark = pytest.mark.system

NOW = time.time_ns() // 1_000_000
START = NOW - 7_200_000
MINUTE = 60_000
LAT, LON = 56.95, 24.1
Push = tuple[str, dict[str, Any]]
"""A table or the source of an event, and what is sent."""


def ride(ride_id: str, user_id: str | None, driver_id: str, begins: int = START, **columns: Any) -> Push:
    """A ride of twenty minutes that went well, but for the columns given; times in ms."""
    return "rides", {
        "ride_id": ride_id,
        "user_id": user_id,
        "driver_id": driver_id,
        "city": "Riga",
        "status": "completed",
        "requested_at": begins,
        "accepted_at": begins + MINUTE,
        "picked_up_at": begins + 5 * MINUTE,
        "ended_at": begins + 20 * MINUTE,
        "pickup_lat": LAT,
        "pickup_lon": LON,
        "destination_lat": LAT + 0.05,
        "destination_lon": LON,
        "dropoff_lat": LAT + 0.05,
        "dropoff_lon": LON,
        "distance_m": 6000,
        "fare_cents": 1150,
        "currency": "EUR",
        "rating": 4,
        "updated_at": begins + 30 * MINUTE,
    } | columns


def user(user_id: str, name: str, updated_at: int = START) -> Push:
    values = {"user_id": user_id, "name": name, "email": None, "phone": None}
    return "users", values | {"created_at": START, "updated_at": updated_at}


def driver(driver_id: str, name: str, updated_at: int = START) -> Push:
    values = {"driver_id": driver_id, "name": name, "vehicle_plate": "AB 123", "vehicle_model": "Dacia", "rating": 4.5}
    return "drivers", values | {"created_at": START, "updated_at": updated_at}


def destination(ride_id: str, changed_at: int, lat: float) -> Push:
    values = {"ride_id": ride_id, "changed_at": changed_at, "destination_lat": lat, "destination_lon": LON}
    return "ride_destinations", values


def message(message_id: str, user_id: str | None, sent_at: int, text: str, **columns: Any) -> Push:
    return "messages", {
        "message_id": message_id,
        "user_id": user_id,
        "channel": "chat",
        "direction": "inbound",
        "sent_at": sent_at,
        "subject": None,
        "body": text,
        "ride_id": None,
        "thread_id": None,
        "updated_at": sent_at,
    } | columns


def error(record_id: str, at: int, user_id: str | None = None, phone: str | None = None) -> Push:
    said = {"type": "error", "messageId": record_id, "timestamp": at, "error": {"name": "Boom", "message": "x"}}
    return "app-events", said | {"userId": user_id, "anonymousId": phone}


def identify(record_id: str, at: int, user_id: str, phone: str) -> Push:
    return "app-events", {
        "type": "identify", "messageId": record_id, "timestamp": at, "userId": user_id, "anonymousId": phone
    }  # fmt: skip


def refused(record_id: str, at: int, user_id: str, status: int) -> Push:
    entry = {"id": record_id, "timestamp": at, "method": "GET", "path": "/rides", "status": status}
    return "access", entry | {"user_id": user_id}


def send(platform: Running, pushes: Iterable[Push]) -> None:
    """Send in this order, neighbours of a kind together."""
    run: list[dict[str, Any]] = []
    kind = ""
    for table, values in [*pushes, ("", {})]:
        if table != kind and run:
            path = {"app-events": "/v1/batch", "access": "/v1/logs/access"}.get(kind, f"/v1/records/{kind}")
            receipt = platform.write(path, {"batch": run} if kind == "app-events" else run)
            assert receipt["rejected"] == 0, receipt
            run = []
        kind = table
        run.append(values)


def rows(pushes: Iterable[Push], owners: dict[str, str]) -> list[Row]:
    """What was sent as the oracle reads it; `owners` says whose each phone was."""
    found: list[Row] = []
    for table, values in pushes:
        if table == "app-events" and values["type"] == "error":
            who = values["userId"] or owners.get(values["anonymousId"])
            at = values["timestamp"]
            found.append(Row(Kind.APP_ERROR, "Boom", values["messageId"], who, b"{}", at, NOW))
        elif table == "access":
            body = json.dumps(values).encode()
            name = f"{values['method']} {values['path']}"
            at = values["timestamp"]
            found.append(Row(Kind.SERVER_ACCESS, name, values["id"], values["user_id"], body, at, NOW))
        elif table != "app-events":
            record = tables.row(Source(table), values, NOW)
            assert isinstance(record, Record)
            found.append(Row(record.kind, record.name, record.id, record.user_id, record.body, record.event_time, NOW))
    return found


def alike(shown: Item, wanted: Item) -> bool:
    """Whether a document says what the oracle says; distances are rounded in the one and not in the other."""
    for name in ("requested_distance_m", "destination_gap_m", "progress"):
        if shown[name] != pytest.approx(wanted[name], abs=0.06):
            return False
    items = [{**item, "timestamp": times.text(item["timestamp"])} for item in wanted["errors"]["items"]]
    exact = wanted | {"errors": wanted["errors"] | {"items": items}}
    skipped = ("requested_distance_m", "destination_gap_m", "progress")
    return all(shown[name] == value for name, value in exact.items() if name not in skipped)


def shown(platform: Running, ride_id: str) -> Item | None:
    answer = platform.get(f"/v1/rides/{quote(ride_id, safe='')}")
    if answer.status_code in (404, 503):
        return None
    assert answer.status_code == 200, answer.text
    found: Item = answer.json()
    return found


def await_documents(platform: Running, pushes: Sequence[Push], owners: dict[str, str]) -> list[Item]:
    """Wait until each ride that was sent has the document that the oracle makes of it."""
    found = []
    for wanted in documents(rows(pushes, owners)):

        def as_wanted(wanted: Item = wanted) -> Item | None:
            now = shown(platform, wanted["ride_id"])
            return now if now is not None and alike(now, wanted) else None

        ready = await_true(as_wanted, f"the document {wanted}; it is {shown(platform, wanted['ride_id'])}")
        assert ready is not None
        found.append(ready)
    return found


def about(platform: Running, ride_id: str) -> list[str]:
    answer = platform.get(f"/v1/rides/{quote(ride_id, safe='')}/messages")
    return [item["message_id"] for item in answer.json()["items"]] if answer.status_code == 200 else []


def verified(platform: Running) -> Item:
    """The answer of a verification, which must find nothing."""
    found = platform.admin("GET", "/v1/admin/verify")
    assert found["equal"] is True, [part for part in found["partitions"] if not part["equal"]]
    return found


def world(name: str) -> tuple[list[Push], dict[str, str]]:
    """Five users with two phones among them, three drivers, fourteen rides; whose the phones are at the end."""
    draw = random.Random(name)
    users = [f"{name}-ü {number}" for number in range(5)]
    pushes = [user(who, f"Name of {who}") for who in users]
    pushes += [driver(f"{name}-d{n}", f"Driver {n}") for n in range(3)] + [driver(f"{name}-d0", "Dora", START + 1)]
    for n in range(14):
        ride_id, who, begins = f"{name}/r {n}", draw.choice(users), START + n * 6 * MINUTE
        lat = LAT + draw.choice((0.05, 0.05, 0.01))
        later = {"dropoff_lat": lat, "status": draw.choice(("completed", "cancelled_by_driver", "failed"))}
        pushes.append(ride(ride_id, who, f"{name}-d{n % 4}", begins, status="requested", ended_at=None))
        pushes.append(ride(ride_id, who, f"{name}-d{n % 4}", begins, updated_at=begins + 31 * MINUTE, **later))
        if n % 3 == 0:
            pushes.append(destination(ride_id, begins + 10 * MINUTE, LAT + 0.02))
            pushes.append(destination(ride_id, begins + 40 * MINUTE, LAT + 0.2))
        pushes.append(message(f"{name}-m{n}", who, begins + 50 * MINUTE, "My driver was late", ride_id=ride_id))
        for k in range(draw.randrange(4)):
            at = begins + draw.randrange(30) * MINUTE
            pushes.append(draw.choice((error(f"{name}-e{n}-{k}", at, who), refused(f"{name}-a{n}-{k}", at, who, 503))))
    owners = {f"{name}-p0": users[0], f"{name}-p1": users[1]}
    for phone, who in owners.items():
        pushes.append(identify(f"{name}-{phone}", NOW, who, phone))
        pushes += [error(f"{name}-{phone}-{k}", START + k * 9 * MINUTE, phone=phone) for k in range(8)]
    return pushes, owners


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_in_any_order_make_the_documents_of_the_oracle(rebu_up: Running, seed: int) -> None:
    pushes, owners = world(f"g{seed}")
    sent = list(pushes)
    random.Random(seed).shuffle(sent)
    send(rebu_up, sent)
    await_documents(rebu_up, pushes, owners)
    verified(rebu_up)  # what messages change is there as well
    found = await_documents(rebu_up, pushes, owners)
    assert len(found) == 14
    assert sum(each["errors"]["app"] for each in found) > 5
    assert any(each["premature"] for each in found)
    for each in found:
        listed = rebu_up._list(f"/v1/users/{quote(each['user']['user_id'], safe='')}/rides", {"limit": 2})
        assert [item for item in listed if item["ride_id"] == each["ride_id"]] == [each]
        assert sum(each["messages"].values()) == len(about(rebu_up, each["ride_id"]))
    assert sum(each["messages"]["linked"] for each in found) > 3
    send(rebu_up, sent[::3])
    rebu_up.flush()
    verified(rebu_up)
    assert [shown(rebu_up, each["ride_id"]) for each in found] == found


def test_what_comes_late_changes_what_it_touches(rebu_up: Running) -> None:
    pushes = [message("g3-m", "g3-u", START + 30 * MINUTE, "My driver on ride g3-r was rude")]
    send(rebu_up, pushes)
    await_true(lambda: rebu_up.get("/v1/messages/g3-m").status_code == 200, "the message")
    assert rebu_up.get("/v1/messages/g3-m").json()["link"]["status"] == "none"
    owners: dict[str, str] = {}
    steps: list[tuple[list[Push], dict[str, str]]] = [
        ([ride("g3-r", "g3-u", "g3-d")], {}),
        ([driver("g3-d", "Dan")], {}),
        ([destination("g3-r", START + 10 * MINUTE, LAT + 0.02)], {}),
        ([error("g3-e1", START + 6 * MINUTE, "g3-u"), error("g3-e2", START + 7 * MINUTE, phone="g3-p")], {}),
        ([identify("g3-i", START + 90 * MINUTE, "g3-u", "g3-p")], {"g3-p": "g3-u"}),
        ([driver("g3-d", "Dora", START + 1), user("g3-u", "Ada")], {}),
        ([ride("g3-r", "g3-u", "g3-d", rating=1, updated_at=NOW - 1)], {}),
    ]
    for step, known in steps:
        pushes += step
        owners |= known
        send(rebu_up, step)
        [now] = await_documents(rebu_up, pushes, owners)
    assert now["errors"]["app"] == 2
    await_true(lambda: about(rebu_up, "g3-r") == ["g3-m"], "the message to be listed")
    link = rebu_up.get("/v1/messages/g3-m").json()["link"]
    assert [past["status"] for past in link["history"]] == ["none"]
    # The phone is taken back, and its error with it.
    rebu_up.admin("DELETE", "/v1/users/g3-u/anonymous/g3-p")
    await_documents(rebu_up, pushes, {})
    # Who deletes it does not know whose it was.
    send(rebu_up, [("messages", {"message_id": "g3-m", "deleted": True, "updated_at": NOW})])
    await_true(lambda: rebu_up.get("/v1/messages/g3-m").status_code == 404, "the message to be gone")
    await_true(lambda: (shown(rebu_up, "g3-r") or now)["messages"] == {"linked": 0, "ambiguous": 0}, "its count")
    send(rebu_up, [("rides", {"ride_id": "g3-r", "deleted": True, "updated_at": NOW})])
    await_true(lambda: rebu_up.get("/v1/rides/g3-r").status_code == 404, "the ride to be gone")
    await_true(lambda: rebu_up.get("/v1/users/g3-u/rides").json()["items"] == [], "the list to be empty")
    verified(rebu_up)


def test_a_ride_that_changes_its_user_is_the_other_users(rebu_up: Running) -> None:
    before = [ride("g4-r", None, "g4-d"), *(error(f"g4-e{n}", START + n * MINUTE, f"g4-u{n}") for n in range(4))]
    send(rebu_up, before)
    await_true(lambda: shown(rebu_up, "g4-r"), "the ride")
    for n in range(4):
        send(rebu_up, [ride("g4-r", f"g4-u{n}", "g4-d", updated_at=NOW + n)])

        def moved(n: int = n) -> bool:
            now = shown(rebu_up, "g4-r")
            lists = [rebu_up.get(f"/v1/users/g4-u{other}/rides").json()["items"] for other in range(4)]
            return (
                now is not None
                and [item["id"] for item in now["errors"]["items"]] == [f"g4-e{n}"]
                and lists == [[now] if other == n else [] for other in range(4)]
            )

        await_true(moved, f"the ride to be that of user {n}")
    verified(rebu_up)


def test_bad_rows_are_refused_or_shown_with_flags(rebu_up: Running) -> None:
    bad = [
        ride("g5-odd", "g5-u", "g5-d", status="teleported")[1],
        ride("g5-where", "g5-u", "g5-d", pickup_lat=0, pickup_lon=0, dropoff_lat=91)[1],
        ride("g5-back", "g5-u", "g5-d", ended_at=START - MINUTE)[1],
        ride("g5-text", "g5-u", "g5-d", fare_cents="a lot", distance_m=-5)[1],
        ride("g5-nobody", None, "g5-d")[1],
        {"ride_id": "g5-when", "user_id": "g5-u", "requested_at": "soon"},
        {"user_id": "g5-u", "requested_at": START},
        ["g5"],
        ride("g5-list", "g5-u", "g5-d", fare_cents=[1])[1],
    ]
    receipt = rebu_up.write("/v1/records/rides", bad)
    assert (receipt["accepted"], receipt["rejected"]) == (5, 4), receipt
    letters = json.dumps(rebu_up.deadletters(source="rides"))
    assert "g5-when" in letters
    lines = b"\n".join(
        [
            json.dumps(message("g5-m1", None, NOW, "I have no name")[1]).encode(),
            json.dumps(message("g5-m2", "g5-u", NOW, "CAFE")[1]).encode().replace(b"CAFE", b"caf\xe9 \x80"),
        ]
    )
    receipt = rebu_up.write("/v1/records/messages", lines, "application/x-ndjson")
    assert (receipt["accepted"], receipt["rejected"]) == (2, 0), receipt
    await_true(lambda: all(shown(rebu_up, row["ride_id"]) for row in bad[:5] if isinstance(row, dict)), "the rides")
    where, back, text = (shown(rebu_up, f"g5-{name}") for name in ("where", "back", "text"))
    assert where is not None
    assert (where["pickup"], where["dropoff"], where["requested_distance_m"]) == (None, None, None)
    assert back is not None
    assert (back["duration_s"], back["premature"]) == (None, False)
    assert text is not None
    assert (text["fare_cents"], text["distance_m"]) == (None, None)
    for each in (shown(rebu_up, "g5-odd"), where, back, text, shown(rebu_up, "g5-nobody")):
        assert each is not None
        assert each["flags"], each
        assert each["quality"] < 1
    await_true(lambda: rebu_up.get("/v1/messages/g5-m2").status_code == 200, "the message")
    assert "caf\ufffd" in rebu_up.get("/v1/messages/g5-m2").json()["body"]
    nameless = await_true(lambda: rebu_up.get("/v1/messages/g5-m1"), "the other one").json()
    assert (nameless["user_id"], nameless["link"]["status"]) == (None, "none")
    verified(rebu_up)


def test_the_commands_verify_and_backfill(rebu_up: Running) -> None:
    send(rebu_up, [ride("g6-r", "g6-u", "g6-d"), message("g6-m", "g6-u", NOW, "Ride g6-r was fine")])
    await_true(lambda: shown(rebu_up, "g6-r"), "the ride")
    done = rebu("verify", "--data-dir", rebu_up.data_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    done = rebu("backfill", "--data-dir", rebu_up.data_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 documents changed" in done.stdout
