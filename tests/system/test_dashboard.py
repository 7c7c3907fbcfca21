"""The dashboard in a real browser: its numbers are the interface's, it complains of nothing, and keys are enough."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Route, sync_playwright

from tests.system.browser import DARK, LIGHT, PHONE, Look, Watched, chromium, launch, watched
from tests.system.running import Item, Running, await_true

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        chromium() is None and "CI" not in os.environ, reason="there is no Chromium: apt install chromium"
    ),
]

NOW: Final = time.time_ns() // 1_000_000
MINUTE: Final = 60_000
BEGIN: Final = NOW - 3 * 60 * MINUTE
LAT, LON = 56.95, 24.1
RIDE, FINE, USER, MARKUP = "dash-early", "dash-fine", "dash-ada", "<img src=x onerror=alert(1)>"
LOOKS = [LIGHT, DARK, PHONE]


def ride(ride_id: str, **columns: Any) -> Item:
    return {
        "ride_id": ride_id, "user_id": USER, "driver_id": "dash-driver", "city": "Riga", "status": "completed",
        "requested_at": BEGIN, "accepted_at": BEGIN + MINUTE, "picked_up_at": BEGIN + 5 * MINUTE,
        "ended_at": BEGIN + 20 * MINUTE, "pickup_lat": LAT, "pickup_lon": LON, "destination_lat": LAT + 0.05,
        "destination_lon": LON + 0.03, "dropoff_lat": LAT + 0.05, "dropoff_lon": LON + 0.03, "distance_m": 6000,
        "fare_cents": 1150, "currency": "EUR", "rating": 4, "updated_at": BEGIN + 30 * MINUTE,
    } | columns  # fmt: skip


@pytest.fixture(scope="module")
def told(rebu_up: Running) -> Running:
    """The platform, with two rides of which one went wrong and somebody wrote about."""
    person = {"user_id": USER, "name": "Ada Lovelace", "email": "ada@example.org", "phone": "+371 20000001"}
    driver = {
        "driver_id": "dash-driver",
        "name": "Karl",
        "vehicle_plate": "AB 1",
        "vehicle_model": "Dacia",
        "rating": 5,
    }
    ages = {"created_at": BEGIN, "updated_at": BEGIN}
    rebu_up.write("/v1/records/users", [person | ages])
    rebu_up.write("/v1/records/drivers", [driver | ages])
    early = ride(RIDE, dropoff_lat=LAT + 0.02, dropoff_lon=LON + 0.01, status="cancelled_by_driver")
    rebu_up.write("/v1/records/rides", [early, ride(FINE, requested_at=BEGIN - 60 * MINUTE)])
    message = {
        "message_id": "dash-mail", "user_id": USER, "channel": "email", "direction": "inbound",
        "sent_at": BEGIN + 40 * MINUTE, "subject": "Put out in the rain", "thread_id": None, "ride_id": RIDE,
        "body": "The driver let me out long before my stop.", "updated_at": BEGIN + 40 * MINUTE,
    }  # fmt: skip
    rebu_up.write("/v1/records/messages", [message])
    events: list[Item] = [
        {
            "type": "track",
            "event": f"Step {number}",
            "messageId": f"dash-{number}",
            "timestamp": BEGIN + number * MINUTE,
        }
        for number in range(19)
    ]
    events.append({"type": "track", "event": MARKUP, "messageId": "dash-markup", "timestamp": BEGIN + MINUTE})
    fault = {"type": "error", "messageId": "dash-error", "timestamp": BEGIN + 9 * MINUTE}
    events.append(fault | {"error": {"name": "PaymentError", "message": "declined"}})
    rebu_up.batch(event | {"userId": USER} for event in events)
    entry = {"id": "dash-503", "timestamp": BEGIN + 8 * MINUTE, "method": "GET", "path": "/eta", "status": 503}
    rebu_up.write("/v1/logs/access", [entry | {"user_id": USER}])
    rebu_up.batch([{"type": "track", "event": "x", "messageId": "dash-bad", "userId": USER, "timestamp": "never"}])

    def computed() -> bool:
        found = rebu_up.get(f"/v1/rides/{RIDE}")
        if found.status_code != 200:
            return False
        document = found.json()
        counts = (document["errors"]["app"], document["errors"]["server"], document["messages"]["linked"])
        return bool(document["premature"] and document["driver"]["name"] and counts == (1, 1, 1))

    await_true(computed, "the ride to be computed")
    await_true(lambda: rebu_up.get(f"/v1/rides/{FINE}").status_code == 200, "the other ride to be computed")
    return rebu_up


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = launch(playwright)
        yield found
        found.close()


@pytest.fixture
def desk(browser: Browser, told: Running) -> Iterator[Watched]:
    """A browser that is signed in, and has had nothing to complain of when the test ends."""
    with watched(browser, told) as found:
        found.sign_in()
        yield found
        assert found.complaints == []


def requested(document: Item) -> date:
    return datetime.fromisoformat(document["requested_at"]).astimezone(UTC).date()


# -- a month that is known ------------------------------------------------------------------------------------------


class Month:
    """A month and a forecast that the pages are given: the platform of the tests is younger than that."""

    def __init__(self, today: date) -> None:
        self.today = today
        self.daily: list[Item] = [
            {
                "date": str(today - timedelta(days=back)), "rides": 900 + 37 * (back % 7) - 5 * back,
                "completed": 850 + 37 * (back % 7) - 5 * back, "premature": 11 + back % 5, "partial": back == 0,
            }
            for back in range(30, -1, -1)
        ]  # fmt: skip
        self.ahead = [self._expected(today + timedelta(days=on), 940 + 37 * (-on % 7), 40 + on) for on in range(1, 31)]
        self.past = [
            self._expected(today - timedelta(days=on), 915 + 37 * (on % 7) - 4 * on, 60) for on in range(9, 0, -1)
        ]
        self.forecast: Item = {
            "model": "ensemble", "trained_from": "2025-01-01", "trained_to": str(today - timedelta(days=1)),
            "items": self.ahead, "past": self.past, "status": "fitted", "made_at": None, "note": None,
            "backtest": {
                "windows": 6, "horizon": 30, "mase": 0.81, "mase_weekday_mean": 0.9, "coverage80": 0.79,
                "coverage95": 0.94,
            },
        }  # fmt: skip

    def _expected(self, day: date, mean: int, wide: int) -> Item:
        return {
            "date": str(day), "mean": mean, "lo80": mean - wide, "hi80": mean + wide, "lo95": mean - 2 * wide,
            "hi95": mean + 2 * wide,
        }  # fmt: skip

    def put_before(self, found: Watched) -> None:
        """Answer for the platform's statistics from now on."""

        def daily(route: Route) -> None:
            route.fulfill(json={"items": self.daily})

        def forecast(route: Route) -> None:
            route.fulfill(json=self.forecast)

        found.page.route("**/v1/stats/rides/daily**", daily)
        found.page.route("**/v1/stats/rides/forecast**", forecast)


def test_the_month_and_its_forecast_are_drawn_and_read(desk: Watched) -> None:
    month = Month(datetime.now(UTC).date())
    month.put_before(desk)
    desk.open("")
    text = desk.text()
    assert "10 % better than the plain mean of the same weekdays (0.90)" in text
    assert "80 % band held 79 % of the days" in text
    last = month.daily[-1]
    assert desk.tiles()["Today, so far"] == f"{last['rides']:,}"
    assert desk.tiles()["Last 7 whole days"] == f"{sum(item['rides'] for item in month.daily[-8:-1]):,}"
    for summary in ("The numbers as a table", "Day by day"):
        desk.page.get_by_text(summary, exact=True).click()
    rows = desk.rows("Rides per day and the forecast")
    assert [row[1] for row in rows] == [f"{item['rides']:,}" for item in month.daily] + ["–"] * 30
    assert [row[4:9] for row in rows[31:]] == [
        [str(f"{item[name]:,}") for name in ("mean", "lo80", "hi80", "lo95", "hi95")] for item in month.ahead
    ]
    came = {item["date"]: item["rides"] for item in month.daily}
    judged = desk.rows("Forecasts and what came")
    assert [(row[1], row[2]) for row in judged] == [
        (f"{came[item['date']]:,}", f"{item['mean']:,}") for item in reversed(month.past)
    ]
    painted = desk.page.locator(".chart canvas").evaluate(
        "canvas => new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size"
    )
    assert painted > 20


def test_a_first_guess_says_that_it_is_one(desk: Watched) -> None:
    month = Month(datetime.now(UTC).date())
    nothing = dict.fromkeys(month.forecast["backtest"])
    month.forecast |= {"model": "weekday_mean", "past": [], "backtest": nothing, "note": "12 days are too few."}
    month.put_before(desk)
    desk.open("")
    assert "Forecast by the mean of the last four same weekdays" in desk.text()
    assert "12 days are too few." in desk.text()


def test_the_overview_is_what_the_interface_says(told: Running, browser: Browser) -> None:
    with watched(browser, told) as found:
        found.sign_in()
        found.open("")
        answer = told.get("/v1/stats/rides/daily", {"days": 31, "tz": "UTC"})
        if answer.status_code == 404:  # a platform without statistics
            assert "This platform serves no daily statistics" in found.text()
            return
        found.page.get_by_text("The numbers as a table", exact=True).click()
        rows = found.rows("Rides per day and the forecast")
        items = answer.json()["items"]
        assert [row[1:4] for row in rows[:31]] == [
            [f"{item[name]:,}" for name in ("rides", "completed", "premature")] for item in items
        ]
        assert found.complaints == []


# -- every page, every way of looking -------------------------------------------------------------------------------


def places(told: Running) -> dict[str, str]:
    day = requested(told.get(f"/v1/rides/{RIDE}").json())
    return {
        "overview": "", "day": f"day/{day}", "ride": f"ride/{RIDE}", "person": f"user/{USER}",
        "message": "message/dash-mail", "operations": "operations",
    }  # fmt: skip


@pytest.mark.parametrize("look", LOOKS, ids=[look.name for look in LOOKS])
def test_pages_are_whole(browser: Browser, told: Running, look: Look) -> None:
    with watched(browser, told, look) as found:
        found.sign_in("--admin")
        Month(datetime.now(UTC).date()).put_before(found)
        for name, place in places(told).items():
            found.open(place)
            found.shot(f"{name}-{look.name}")
            assert found.page.locator("main h1").count() == 1, name
            assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"
            assert found.page.locator(".trouble").count() == 0, found.text()
            assert nameless(found) == [], name
        assert found.complaints == []


def nameless(found: Watched) -> list[str]:
    """What somebody who does not see the page could not make out."""
    unnamed: list[str] = found.page.evaluate(
        """[...document.querySelectorAll('a, button, input, select, summary, table, [role=img], [role=group], canvas')]
        .filter(one => one.tagName === 'CANVAS' ? !one.closest('[aria-label]') : !(
            one.textContent.trim() || one.getAttribute('aria-label') || (one.labels && one.labels.length)
            || (one.caption && one.caption.textContent)))
        .map(one => one.outerHTML.slice(0, 120))"""
    )
    return unnamed


def test_a_ride_is_what_the_interface_says(desk: Watched, told: Running) -> None:
    document = told.get(f"/v1/rides/{RIDE}").json()
    desk.open(f"ride/{RIDE}")
    facts = desk.facts()
    assert facts["Rider"] == document["user"]["name"]
    assert facts["Driver"] == document["driver"]["name"]
    assert facts["Progress"] == f"{100 * document['progress']:.1f} %"
    assert facts["Errors"] == "1 of the app, 1 of the server"
    assert facts["Quality"].startswith(f"{document['quality']:.2f}")
    text = desk.text()
    assert "It ended too early: " in text
    assert "the driver cancelled it" in text
    link = told.get(f"/v1/rides/{RIDE}/messages").json()["items"][0]["link"]
    assert "Put out in the rain" in text
    assert f"{100 * link['confidence']:.0f} % sure" in text
    assert all(reason["detail"] in text for reason in link["reasons"])
    desk.page.get_by_text(re.compile(r"^All \d+ entries as a table$")).click()
    rows = desk.rows("What happened during the ride")
    items = told.history(USER, order="asc")
    lasting = [i for i in items if BEGIN - 2 * MINUTE <= _ms(i["timestamp"]) < BEGIN + 30 * MINUTE]
    assert sum(row[1] in ("app event", "app error", "server access", "server error") for row in rows) == len(lasting)
    assert sum("error in the ride" in row[2] for row in rows) == 2
    assert any(MARKUP in row[2] for row in rows)
    places_ = dict.fromkeys(("pick-up", "destination", "drop-off"))
    desk.page.get_by_text("The places as a table", exact=True).click()
    assert {row[0] for row in desk.rows("Places of the ride")} == places_.keys()


def _ms(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1000


def test_a_day_lists_its_rides_the_worst_first(desk: Watched, told: Running) -> None:
    day = requested(told.get(f"/v1/rides/{RIDE}").json())
    desk.open(f"day/{day}")
    span: dict[str, str | int] = {"since": f"{day}T00:00:00Z", "until": f"{day + timedelta(days=1)}T00:00:00Z"}
    listed = told.get("/v1/rides", {**span, "limit": 1000}).json()["items"]
    tiles = desk.tiles()
    assert tiles["Rides"] == f"{len(listed):,}"
    assert tiles["Ended early"] == str(sum(document["premature"] for document in listed))
    desk.page.get_by_text("The same as a table", exact=True).click()
    early = [row[5] != "no" for row in desk.rows("Rides, the worst first")]
    assert early == sorted(early, reverse=True)
    desk.page.get_by_label("Show", exact=True).select_option("early")
    assert desk.page.locator(".rides li").count() == min(50, sum(document["premature"] for document in listed))
    desk.page.locator(".rides a", has_text=RIDE).click()
    desk.page.wait_for_url(f"**/#/ride/{RIDE}")


def test_a_person_is_followed_live(desk: Watched, told: Running) -> None:
    desk.open(f"user/{USER}")
    assert desk.facts()["Mail"] == "ada@example.org"
    total = len(told.history(USER))
    assert desk.page.locator(".events li").count() == min(100, total)
    desk.page.get_by_label("Kind").select_option("app_error")
    desk.settle()
    assert desk.page.locator(".events li").count() == len(told.history(USER, kind="app_error"))
    desk.page.get_by_label("Kind").select_option("")
    desk.page.get_by_label("Live").check()
    desk.page.get_by_text("Live: what comes in appears here.").wait_for()
    told.batch([{"type": "track", "event": "Seen at once", "messageId": "dash-live", "userId": USER}])
    desk.page.locator(".events.live li", has_text="Seen at once").wait_for()
    desk.page.get_by_role("tab", name="Rides").click()
    desk.page.locator(".rides a", has_text=RIDE).wait_for()
    desk.page.get_by_role("tab", name="Messages").click()
    desk.page.get_by_text("Put out in the rain").wait_for()


def test_operations_say_what_the_status_says(desk: Watched, told: Running) -> None:
    desk.open("operations")
    desk.page.locator(".partitions li").first.wait_for()
    state = told.status()
    assert desk.page.locator(".partitions li").count() == state["partitions"]
    assert len(desk.rows("Shards")) == len(state["shards"])
    assert {row[0] for row in desk.rows("Replicas")} == {one["deployment"] for one in state["replicas"]}
    assert len(desk.rows("Nodes")) == len(state["nodes"])
    audit = {row[0]: row[1] for row in desk.rows("Accounts by source")}
    assert audit.keys() >= {"app-events", "rides", "messages"}
    assert "Refused records are for the admin key" in desk.text()


def test_dead_letters_are_for_the_admin(browser: Browser, told: Running) -> None:
    with watched(browser, told) as found:
        found.sign_in("--admin")
        found.open("operations")
        letters = told.deadletters()
        shown = found.page.locator("section", has_text="Dead letters").locator(".events li")
        assert shown.count() == min(100, len(letters))
        assert "not a time" in found.text() or letters[0]["reason"] in found.text()
        assert found.complaints == []


# -- the way in, keys and words -------------------------------------------------------------------------------------


def test_the_link_that_is_printed_at_the_start_works_once(browser: Browser, told: Running) -> None:
    printed = re.search(r"^  dashboard: (\S+)", told.said(), re.M)
    assert printed is not None
    with watched(browser, told) as found:
        found.page.goto(printed[1])
        found.page.get_by_role("button", name="Sign out").wait_for()
        assert "token" not in found.page.url
        assert found.page.evaluate("document.cookie") == ""
    with watched(browser, told) as found:
        found.page.goto(printed[1])
        found.page.get_by_text("This link was opened already, or is too old").wait_for()
        found.shot("sign-in")
        found.page.get_by_label("Read key").fill("nonsense")
        found.page.keyboard.press("Enter")
        found.page.get_by_text("That did not work").wait_for()
        found.page.get_by_label("Read key").fill(told.read_key)
        found.page.keyboard.press("Enter")
        found.page.get_by_role("button", name="Sign out").click()
        found.page.get_by_role("heading", name="Sign in").wait_for()


def test_a_keyboard_is_enough(desk: Watched, told: Running) -> None:
    month = Month(datetime.now(UTC).date())
    month.put_before(desk)
    desk.open("")
    page = desk.page
    page.reload()
    desk.settle()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.locator(".chart .canvas").first.focus()
    page.keyboard.press("ArrowLeft")
    said = page.locator("#said").inner_text()
    assert f"{month.daily[-2]['rides']:,} rides" in said
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/#/day/{month.daily[-2]['date']}")
    desk.settle()
    page.locator("body").press("/")
    page.keyboard.type(RIDE)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/#/ride/{RIDE}")
    # An id is looked for as a ride's, a person's and a message's: a browser notes the two that are not there.
    desk.complaints[:] = [told_of for told_of in desk.complaints if "404 (Not Found)" not in told_of]


def test_trouble_is_said_in_words(browser: Browser, told: Running) -> None:
    with watched(browser, told) as found:
        found.sign_in()
        for place, words in (
            ("ride/nobody-knows", "Nothing is known of that"),
            ("user/nobody-knows", "Nothing is known of that"),
            ("find/nobody-knows", "Nothing has this id"),
            ("day/yesterday", "That is no day"),
            ("day/1999-01-01", "No rides on this day"),
            ("nowhere", "There is no such page"),
        ):
            found.page.goto(f"{told.url}/#/{place}")
            found.page.get_by_text(words).first.wait_for()
        found.page.context.set_offline(True)
        found.page.goto(f"{told.url}/#/ride/{RIDE}")
        found.page.get_by_text("The platform does not answer").wait_for()
        found.page.context.set_offline(False)
        found.page.get_by_role("button", name="Try again").click()
        found.page.get_by_role("heading", name=RIDE).wait_for()
        said = json.dumps(found.complaints)
        assert "Uncaught" not in said
        assert "Content Security Policy" not in said
