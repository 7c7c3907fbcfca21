"""Money, times, names and troubles in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.process.matching.elsewhere import pointers
from rebu_ray.process.matching.money import amounts
from rebu_ray.process.matching.names import alike, match_driver, match_plate, match_vehicle, named
from rebu_ray.process.matching.text import codes, said
from rebu_ray.process.matching.trouble import evidence, fits, kinds, minutes_waited
from rebu_ray.process.matching.when import Precision, at_day, intervals, moments
from rebu_ray.process.matching.zones import hours_at, zone_of
from tests.process.matching.tables import ms

SENT = ms("2026-03-11T15:00")  # a Wednesday
NOBODY: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("text", "cents"),
    [
        ("I paid 11,50 €", [1150]),
        ("€11.50 it was", [1150]),
        ("11.50", [1150]),
        ("you charged me eleven fifty", [1150]),
        ("twenty dollars", [2000]),
        ("twenty two euros and forty cents", [2240]),
        ("twenty-two euros forty", [2240]),
        ("the fare was nine oh five", [905]),
        ("$1,234.50", [123450]),
        ("23,40EUR and 3 bucks", [2340, 300]),
        ("at 8.30 pm", []),
        ("waited 20 minutes", []),
        ("20 % off", []),
        ("12.10.", []),
        ("it cost 20 minutes of my life", []),
        ("twelve euros thirty four from me", [1234]),
    ],
)
def test_amounts(text: str, cents: list[int]) -> None:
    assert [amount.cents for amount in amounts(text)] == cents


@given(
    st.integers(100, 99_999),
    st.sampled_from(["€{u}.{c}", "{u},{c} €", "{u}.{c} EUR", "{u} euros {c}", "I paid {u}.{c}"]),
)
def test_amounts_go_round(cents: int, form: str) -> None:
    text = form.format(u=cents // 100, c=f"{cents % 100:02d}")
    assert [amount.cents for amount in amounts(text)] == [cents]


def test_rough_amounts_say_so() -> None:
    assert [amount.rough for amount in amounts("about 12.50 €, no, 13 euros; I paid 12.40")] == [True, True, False]


def _spans(text: str) -> list[tuple[str, str]]:
    (moment,) = moments(text)
    form = "%m-%d %H:%M"
    return [
        (f"{datetime.fromtimestamp(low / 1000, UTC):{form}}", f"{datetime.fromtimestamp(high / 1000, UTC):{form}}")
        for low, high in intervals(moment, SENT, UTC)
    ]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("yesterday", [("03-10 00:00", "03-11 00:00")]),
        ("last Friday evening", [("03-06 17:00", "03-06 23:00")]),
        ("this morning", [("03-11 04:00", "03-11 12:00")]),
        ("on the 3rd of March", [("03-03 00:00", "03-04 00:00")]),
        ("on March third at 20:45", [("03-03 20:45", "03-03 20:45")]),
        ("on the twenty third of february", [("02-23 00:00", "02-24 00:00")]),
        ("two days ago", [("03-09 00:00", "03-10 00:00")]),
        ("yesterday at half past eight in the evening", [("03-10 20:30", "03-10 20:30")]),
        ("yesterday at half past eight", [("03-10 08:30", "03-10 08:30"), ("03-10 20:30", "03-10 20:30")]),
        ("Monday at a quarter to nine pm", [("03-09 20:45", "03-09 20:45")]),
        ("last night", [("03-10 19:00", "03-11 05:00")]),
        ("saturday night at one am", [("03-08 01:00", "03-08 01:00"), ("03-07 01:00", "03-07 01:00")]),
        ("2026-02-14", [("02-14 00:00", "02-15 00:00")]),
        ("on 14.02.", [("02-14 00:00", "02-15 00:00")]),
        ("at noon today", [("03-11 12:00", "03-11 12:00")]),
        ("half an hour ago", [("03-11 14:18", "03-11 14:42")]),
        ("the weekend", []),
    ],
)
def test_times_in_words(text: str, spans: list[tuple[str, str]]) -> None:
    assert (_spans(text) if moments(text) else []) == spans


def test_a_time_without_a_day_fits_any_day() -> None:
    (moment,) = moments("it was around eight thirty")
    assert moment.precision is Precision.HOUR
    assert intervals(moment, SENT, UTC) == []
    day = datetime(2026, 3, 2, tzinfo=UTC)
    assert [low for low, _ in at_day(moment, day.date(), UTC)] == [ms("2026-03-02T08:30"), ms("2026-03-02T20:30")]


def test_times_are_on_the_clocks_of_the_city() -> None:
    (moment,) = moments("yesterday at 20:30")
    assert intervals(moment, SENT, ZoneInfo("America/Chicago")) == [(ms("2026-03-11T01:30"),) * 2]
    assert zone_of("Chicago") == ZoneInfo("America/Chicago")
    assert zone_of("Portmere", -2) is UTC
    assert zone_of("No Such Town", hours_at(-46.0)).utcoffset(None) == timedelta(hours=-3)
    assert zone_of("../../etc/passwd") is UTC
    assert hours_at(None) == hours_at(999.0) == 0


@given(st.integers(0, 60 * 24 - 1), st.integers(1, 6))
def test_a_written_time_goes_round(minute: int, days: int) -> None:
    then = datetime(2026, 3, 11, tzinfo=UTC) - timedelta(days=days) + timedelta(minutes=minute)
    (moment,) = moments(f"on {then:%A} at {then:%H:%M}")
    found = [low for low, _ in intervals(moment, SENT, UTC)]
    assert int(then.timestamp()) * 1000 in found


@given(
    st.dates(datetime(2025, 4, 1).date(), datetime(2026, 3, 11).date()),
    st.sampled_from(["%d %B %Y", "%B %d", "%Y-%m-%d"]),
)
def test_a_written_date_goes_round(day: object, form: str) -> None:
    (moment,) = moments(f"it was on {day:{form}}")
    ((low, high),) = intervals(moment, SENT, UTC)
    assert datetime.fromtimestamp(low / 1000, UTC).date() == day
    assert high - low == 24 * 3_600_000


@pytest.mark.parametrize("text", ["may I ask", "24/7", "I sat there", "1/2 an hour late", "version 3.4", "march on"])
def test_what_is_no_time(text: str) -> None:
    assert not [moment for moment in moments(text) if moment.day is not None]


@given(st.text(max_size=60), st.integers(0, 253_402_300_799_999))
def test_any_text_at_any_time(text: str, at: int) -> None:
    for moment in moments(text):
        assert all(low <= high for low, high in intervals(moment, at, UTC))


def _named(text: str) -> str | None:
    return match_driver("Zoltan Weiss", named(said(text), text), frozenset(("sam",)))


def test_drivers_are_known_by_name_also_misspelt() -> None:
    assert _named("my driver Zoltan was rude") == "exact"
    assert _named("zoltan drove") == "exact"
    assert _named("The driver was called Soltan.") == "alike"
    assert _named("some zolton picked me up") == "alike"
    assert _named("I asked my driver Goran twice") == "another"
    assert _named("the driver was rude and drove too fast") is None
    assert _named("Sam") is None
    assert alike("katrin", "catrin")
    assert not alike("luca", "look")
    assert match_driver(None, named("x"), NOBODY) is None


def test_a_writer_of_the_drivers_name_does_not_name_the_driver() -> None:
    text = "my bag is gone, yours zoltan"
    assert match_driver("Zoltan Weiss", named(said(text), text), frozenset(("zoltan",))) is None


def test_plates_and_cars() -> None:
    def plate(text: str) -> str | None:
        return match_plate("AB 1234", frozenset(codes(said(text))), named(said(text)))

    assert plate("plate ab-1234") == "exact"
    assert plate("it was a b one two three four") == "exact"
    assert plate("something with 1234 on the plate") == "part"
    assert plate("plate CD 5678") is None
    assert match_vehicle("grey Toyota Corolla", named("a toyota")) == "model"
    assert match_vehicle("grey Toyota Corolla", named("a gray car")) == "colour"
    assert match_vehicle("grey Toyota Corolla", named("a black car")) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("he let me out in the wrong street", "ended early"),
        ("the app crashed again", "app"),
        ("the driver never showed up", "cancelled"),
        ("no cars available", "no car"),
        ("why is there a cancellation fee", "fee"),
        ("I was overcharged", "charge"),
        ("I left my umbrella in the car", "lost item"),
        ("he was rude and drove like a maniac", "driver"),
        ("I waited forever", "waiting"),
        ("we had an accident", "accident"),
        ("please send the receipt", "receipt"),
        ("what a great driver", "praise"),
    ],
)
def test_kinds_of_trouble(text: str, kind: str) -> None:
    assert kind in kinds(said(text))


def test_trouble_against_what_a_ride_shows() -> None:
    def shows(status: str, *, premature: bool = False, errors: int = 0, carried: bool = True) -> frozenset[str]:
        return evidence(
            status, premature, not premature, errors, True, carried, True, 900 if carried else None, 300, 900
        )

    assert fits("ended early", shows("completed", premature=True))
    assert fits("ended early", shows("completed")) is False
    assert fits("app", shows("completed", errors=2))
    assert fits("app", shows("completed")) is False
    assert fits("cancelled", shows("cancelled_by_driver", carried=False))
    assert fits("lost item", shows("cancelled_by_driver", carried=False)) is False
    assert fits("accident", shows("completed")) is None
    assert minutes_waited(said("I was waiting for twenty minutes")) == 20


def test_pointers() -> None:
    assert pointers(said("please delete my account")).kinds == ("account",)
    assert pointers("how do i become a driver").kinds[0] == "driving"
    assert pointers("this is not about a trip").kinds == ("denied",)
    assert pointers("my last ride").last
    assert pointers("not my last ride").not_last
    assert not pointers("not my last ride").last
    assert pointers("the one before that").before_last
    assert pointers("my first ride today").nth == (1, 0)
    assert pointers("my second trip yesterday").nth == (2, 1)
    assert pointers("a bag", (("was it your last trip", "no the one on monday"),)).not_last
    assert pointers("a bag", (("was it your last trip", "yes"),)).last
