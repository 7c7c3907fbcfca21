"""Which ride a message is linked to, and why."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.process.matching import link
from rebu_ray.process.matching.calibration import confidences, decide
from rebu_ray.process.matching.weights import DECISIONS, WEIGHTS
from rebu_ray.process.tables import DRIVERS, LINKS, MESSAGES, RIDE_STATS, USERS
from tests.process.matching.tables import (
    AFTER,
    DAY,
    FIRST_RIDE,
    HOUR,
    MINUTE,
    Row,
    drivers,
    linked,
    message,
    one,
    ride,
    rides,
)

IDS = [row["ride_id"] for row in rides()]


def _signals(row: Row) -> set[str]:
    return {reason["signal"] for reason in row["reasons"]}


@pytest.mark.parametrize(
    ("number", "body"),
    [
        (1, f"about {IDS[1]}"),
        (2, f"ride {IDS[2].upper()} was bad"),
        (0, f"code {IDS[0][-7:]}, the receipt says"),
        (1, "I was charged 13.83 and want some of it back"),
        (2, "the driver, Zoltan, was rude"),
        (3, "it was on Thursday at eight, the car stank"),
        (1, "plate CD 5678, I lost my scarf"),
        (0, "my ride on Monday morning, the driver Goran took a detour"),
        (4, "my last ride, I left my umbrella in the car"),
        (3, "the ride before the last one, on Thursday morning"),
    ],
)
def test_what_identifies_a_ride(number: int, body: str) -> None:
    row = one(body)
    assert (row["status"], row["ride_id"]) == ("linked", IDS[number])
    assert row["confidence"] >= DECISIONS["link at"].value
    assert row["candidates"][0]["ride_id"] == IDS[number]
    assert row["candidates"][0]["reasons"][0]["weight"] > 0


def test_the_ticket_links() -> None:
    row = one("hello?", ride_id=IDS[1])
    assert (row["status"], row["ride_id"]) == ("linked", IDS[1])
    assert "ticket" in _signals(row)


def test_an_id_spelt_over_the_phone() -> None:
    spelt = " ".join(IDS[1].replace("-", "")).replace("3", "three")
    row = one(f"Agent: hello\nCaller: it is uh {spelt}\nAgent: thank you", channel="voice")
    assert (row["status"], row["ride_id"]) == ("linked", IDS[1])


def test_trouble_fits_the_ride_that_had_it() -> None:
    stats = rides()
    stats[2] = ride(2, premature=True, destination_matched=False, status="cancelled_by_driver")
    row = one("I was thrown out halfway and had to walk home", stats)
    assert row["candidates"][0]["ride_id"] == IDS[2]
    assert "trouble" in {reason["signal"] for reason in row["candidates"][0]["reasons"]}
    assert one("I was thrown out halfway two days ago", stats)["ride_id"] == IDS[2]
    stats[3] = ride(3, errors_app=2)
    assert one("the app crashed all the time", stats)["ride_id"] == IDS[3]


@pytest.mark.parametrize(
    "body",
    ["Please delete my account.", "I cannot log in, the verification code never comes", "How do I become a driver?",
     "my gift card does not work", "This is not about a trip. Do you have a job for me?"],
)  # fmt: skip
def test_what_is_about_no_ride(body: str) -> None:
    row = one(body)
    assert (row["status"], row["ride_id"]) == ("none", None)
    assert "elsewhere" in _signals(row)


def test_between_two_look_alikes_it_is_ambiguous() -> None:
    stats = [ride(3), ride(4, requested_at=FIRST_RIDE + 3 * DAY + HOUR, ended_at=FIRST_RIDE + 3 * DAY + 2 * HOUR)]
    row = one("my ride on Thursday morning, I left my umbrella in the car", stats, sent_at=AFTER + 3 * DAY)
    assert row["status"] == "ambiguous"
    assert row["ride_id"] is None
    assert {candidate["ride_id"] for candidate in row["candidates"]} == {IDS[3], IDS[4]}
    assert sum(candidate["confidence"] for candidate in row["candidates"]) > 0.8


def test_somebody_elses_id_is_not_linked_and_the_reasons_say_so() -> None:
    other = ride(1, ride_id="r-qqqq7kkkkk", user_id="u2")
    row = one("it is about ride r-qqqq7kkkkk", [*rides(), other])
    assert row["ride_id"] != "r-qqqq7kkkkk"
    assert all(candidate["ride_id"] in IDS for candidate in row["candidates"])
    assert any("r" + "qqqq7kkkkk" in reason["detail"] for reason in row["reasons"])
    ticket = one("hello", [*rides(), other], ride_id="r-qqqq7kkkkk")
    assert ticket["ride_id"] != "r-qqqq7kkkkk"
    assert any("r-qqqq7kkkkk" in reason["detail"] for reason in ticket["reasons"])


def test_negation_moves_the_link() -> None:
    body = "I left my umbrella in the car, it was this week"
    plain, negated = one(body), one(f"{body}, not my last ride")
    assert plain["candidates"][0]["ride_id"] == IDS[4]
    assert negated["ride_id"] != IDS[4]
    newest = {c["ride_id"]: c["confidence"] for c in negated["candidates"]}.get(IDS[4], 0.0)
    assert newest < plain["candidates"][0]["confidence"]


def test_a_thread_is_about_one_ride() -> None:
    first = message(f"ride {IDS[1]}", thread_id="t1")
    answer = message("We look into it.", message_id="m2", direction="outbound", sent_at=AFTER + HOUR, thread_id="t1")
    after = message("any news?", message_id="m3", sent_at=AFTER + 2 * DAY, thread_id="t1")
    alone = message("any news?", message_id="m4", sent_at=AFTER + 2 * DAY, thread_id="t2")
    found = linked([first, answer, after, alone])
    assert [found[name]["ride_id"] for name in ("m1", "m2", "m3")] == [IDS[1]] * 3
    assert "thread" in _signals(found["m3"])
    assert any("m1" in reason["detail"] for reason in found["m3"]["reasons"])
    assert found["m4"]["ride_id"] != IDS[1]
    # What comes later tells what the first message meant.
    vague = message("it was bad", thread_id="t1")
    assert linked([vague, {**after, "body": f"I mean {IDS[1]}"}])["m1"]["ride_id"] == IDS[1]


def test_a_thread_of_another_user_says_nothing() -> None:
    mine = message("any news?", thread_id="t1")
    theirs = message(f"ride {IDS[0]}", message_id="m2", user_id="u2", thread_id="t1")
    assert linked([mine, theirs])["m1"] == linked([mine])["m1"]


def test_a_receipt_is_linked_by_its_amount_and_time() -> None:
    body = "Thank you, Sam.\nTrip of 3 March, 08:00\nTotal: 13.83 EUR"
    row = one(body, direction="outbound", channel="email", sent_at=FIRST_RIDE + DAY + 47 * MINUTE)
    assert (row["status"], row["ride_id"]) == ("linked", IDS[1])


def test_a_raw_mail_is_shown_decoded_and_its_quote_counts() -> None:
    raw = (
        "From: sam@post.example\nTo: care@rebu.example\nSubject: =?utf-8?Q?Re:_Qu=C3=A9?=\n"
        "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n"
        f"That is too much=2E\n\nOn Tue, 3 Mar 2026 Rebu wrote:\n> Ride {IDS[1]}\n> Total 13.83 EUR\n"
    )
    row = one(raw, channel="email")
    assert row["subject"] == "Re: Qué"
    assert row["body"].startswith("That is too much.")
    assert (row["status"], row["ride_id"]) == ("linked", IDS[1])


def test_no_candidates_no_link() -> None:
    assert one("I lost my bag", [])["status"] == "none"
    early = one("I lost my bag", sent_at=FIRST_RIDE - HOUR)
    assert (early["status"], early["confidence"], early["candidates"]) == ("none", 1.0, [])
    assert early["reasons"][0]["detail"] == "the user had no ride when it was sent"
    nobody = one("I lost my bag", user_id=None)
    assert nobody["status"] == "none"
    assert nobody["reasons"][0]["detail"] == "the message names no user"


def test_a_ride_that_came_later_is_no_candidate_unless_named() -> None:
    then = FIRST_RIDE + 2 * DAY + HOUR
    row = one("I left my umbrella in the car", sent_at=then)
    assert {candidate["ride_id"] for candidate in row["candidates"]} <= set(IDS[:3])
    assert one(f"it is {IDS[4]}", sent_at=then)["candidates"][0]["ride_id"] in {IDS[4], IDS[2]}


def test_the_version_that_counts_and_deleted_messages() -> None:
    old = message(f"ride {IDS[0]}")
    new = message(f"ride {IDS[1]}", updated_at=AFTER + 1, record_id="m1@2")
    assert linked([new, old])["m1"]["ride_id"] == IDS[1]
    gone = message(None, updated_at=AFTER + 2, deleted=True, sent_at=None, user_id=None)
    assert linked([new, gone, old]) == {}


def test_old_rides_are_compared_where_they_are_named() -> None:
    many = [
        ride(0, ride_id=f"r-{n:03d}zzzzzzz", requested_at=FIRST_RIDE + n * DAY, ended_at=FIRST_RIDE + n * DAY + HOUR,
             fare_cents=1000 + 7 * n)
        for n in range(90)
    ]  # fmt: skip
    sent = FIRST_RIDE + 90 * DAY
    assert one("charged 10.35 for r-005zzzzzzz", many, sent_at=sent)["ride_id"] == "r-005zzzzzzz"
    found = one("it was on 7 March at 8:20, I paid 10.35", many, sent_at=sent)
    assert found["candidates"][0]["ride_id"] == "r-005zzzzzzz"


def test_removing_the_id_lowers_the_confidence() -> None:
    with_id, without = one(f"{IDS[2]}: the driver was rude"), one("the driver was rude")
    chance = {c["ride_id"]: c["confidence"] for c in without["candidates"]}.get(IDS[2], 0.0)
    assert with_id["confidence"] > chance


_BODIES = st.sampled_from(
    ["I lost my bag", "delete my account", f"ride {IDS[1]}", "I paid 13.83", "yesterday at 8 the app crashed",
     "not my last ride",
     "thanks", "", "the driver Leila", "Agent: was it your last ride\nCaller: no"]
)  # fmt: skip


@st.composite
def _worlds(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    messages = [
        message(
            draw(_BODIES), message_id=f"m{n}", record_id=f"m{n}@{draw(st.integers(0, 2))}",
            user_id=draw(st.sampled_from(["u1", "u1", "u2", None])), channel=draw(st.sampled_from(["email", "voice",
                                                                                                   "chat"])),
            direction=draw(st.sampled_from(["inbound", "outbound"])), thread_id=draw(st.sampled_from([None, "t1",
                                                                                                      "t2"])),
            sent_at=AFTER + draw(st.integers(-6 * DAY, 6 * DAY)),
        )
        for n in range(draw(st.integers(1, 6)))
    ]  # fmt: skip
    stats = [ride(n, user_id=draw(st.sampled_from(["u1", "u1", "u2"]))) for n in range(5)]
    return messages, stats


def _link(messages: list[Row], stats: list[Row]) -> pa.Table:
    users: list[dict[str, Any]] = [
        {"user_id": user, "name": name, "email": None, "phone": None, "received_at": 0}
        for user, name in (("u1", "Sam Reed"), ("u2", "Goran Kovar"))
    ]
    return link(
        pa.Table.from_pylist(messages, schema=MESSAGES), pa.Table.from_pylist(stats, schema=RIDE_STATS),
        pa.Table.from_pylist(drivers(), schema=DRIVERS), pa.Table.from_pylist(users, schema=USERS),
    )  # fmt: skip


@settings(max_examples=60)
@given(_worlds(), st.randoms(use_true_random=False))
def test_the_order_of_rows_says_nothing(world: tuple[list[Row], list[Row]], rng: random.Random) -> None:
    messages, stats = world
    answer = _link(messages, stats)
    assert answer.schema == LINKS
    assert answer.num_rows == len(messages)
    shuffled = (rng.sample(messages, len(messages)), rng.sample(stats, len(stats)))
    assert _link(*shuffled).equals(answer)


@settings(max_examples=60)
@given(_worlds())
def test_other_users_change_nothing_and_the_answer_is_sound(world: tuple[list[Row], list[Row]]) -> None:
    messages, stats = world
    answer = _link(messages, stats).to_pylist()
    mine = [row for row in messages if row["user_id"] == "u1"]
    alone = _link(mine, [row for row in stats if row["user_id"] == "u1"]).to_pylist()
    assert [row for row in answer if row["user_id"] == "u1"] == alone
    own = {(row["user_id"], row["ride_id"]) for row in stats}
    for row in answer:
        assert (row["status"] == "linked") == (row["ride_id"] is not None)
        assert 0 <= row["confidence"] <= 1
        assert row["reasons"] or row["candidates"]
        assert {(row["user_id"], candidate["ride_id"]) for candidate in row["candidates"]} <= own
        sure = [candidate["confidence"] for candidate in row["candidates"]]
        assert sure == sorted(sure, reverse=True)
        assert sum(sure) <= 1.001
        if row["status"] == "linked":
            assert row["candidates"][0]["ride_id"] == row["ride_id"]


@given(st.lists(st.floats(-40, 40), min_size=1, max_size=9))
def test_confidences_are_shares(scores: list[float]) -> None:
    found = confidences(scores)
    assert sum(found) <= 1
    assert found[scores.index(max(scores))] == max(found)
    assert max(found) < 1


def test_the_decision() -> None:
    assert decide(0.99, 0.01) == "linked"
    assert decide(0.4, 0.1) == "ambiguous"
    assert decide(0.1, 0.9) == "none"


def test_every_parameter_has_a_meaning_and_signs_make_sense() -> None:
    assert all(parameter.meaning for parameter in (WEIGHTS | DECISIONS).values())
    for key in ("ticket", "id.exact", "id.end", "amount.exact", "time.clock.close", "driver.exact", "plate.exact"):
        assert WEIGHTS[key].value > 2
    for key in ("amount.other", "time.clock.wrong", "time.day.wrong", "driver.another", "order.not last.newest"):
        assert WEIGHTS[key].value < 0
