"""The published SDKs, unmodified, against the real platform: what they are told to send is in the history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import rudderstack.analytics
import rudderstack.analytics.request
import segment.analytics
import segment.analytics.request
from rudderstack.analytics.client import Client as RudderClient
from segment.analytics.client import Client as SegmentClient

from tests.system.running import Item, Running

pytestmark = pytest.mark.system

SDKS = {"segment": (segment.analytics, SegmentClient), "rudderstack": (rudderstack.analytics, RudderClient)}
NOW = datetime.now(UTC).replace(microsecond=0)


class Talk:
    """What the platform answered to an SDK, request by request."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Item]] = []

    def __call__(self, response: Any, *_: Any, **__: Any) -> None:
        self.answers.append((response.status_code, response.json()))

    def total(self, verdict: str) -> int:
        return sum(answer[verdict] for _, answer in self.answers)


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Listens in, by the hook that the SDKs' HTTP library has for it."""
    found = Talk()
    for module in (segment.analytics.request, rudderstack.analytics.request):
        monkeypatch.setitem(module._session.hooks, "response", [found])
    return found


@pytest.fixture(params=["segment", "rudderstack"])
def sdk(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client_of(rebu_up: Running, sdk: str) -> Iterator[Callable[..., Any]]:
    """Makes clients of the SDK that talk to the platform."""
    made: list[Any] = []

    def make(**options: Any) -> Any:
        _, kind = SDKS[sdk]
        options = {"write_key": rebu_up.write_key, "host": rebu_up.url} | options
        client = kind(options.pop("write_key"), **options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.shutdown()


def minutes_ago(minutes: int) -> datetime:
    return NOW - timedelta(minutes=minutes)


def speak(to: Any, user: str) -> None:
    """Eight calls by the person and their phones; the first one before anybody was identified."""
    to.track(event="App Opened", anonymous_id=f"{user}-phone", timestamp=minutes_ago(30))
    to.identify(user, {"name": "Ann", "city": "Zürich 🚕"}, anonymous_id=f"{user}-phone", timestamp=minutes_ago(29))
    to.track(user, "Ride Requested", {"fare": Decimal("12.5"), "at": NOW}, timestamp=minutes_ago(28))
    to.page(user, name="Home", timestamp=minutes_ago(27))
    to.screen(user, timestamp=minutes_ago(26))
    to.group(user, "riders", {"plan": "pro"}, timestamp=minutes_ago(25))
    to.track(event="Web Visited", anonymous_id=f"{user}-browser", timestamp=minutes_ago(24))
    to.alias(f"{user}-browser", user, timestamp=minutes_ago(23))


SPOKEN = [
    ("App Opened", "anonymous_id"),
    ("identify", "user_id"),
    ("Ride Requested", "user_id"),
    ("Home", "user_id"),
    ("screen", "user_id"),
    ("group", "user_id"),
    ("Web Visited", "anonymous_id"),
    ("alias", "user_id"),
]


def check_speech(platform: Running, user: str) -> None:
    found = platform.history(user, order="asc")
    assert [(item["name"], item["matched_by"]) for item in found] == SPOKEN
    assert [item["kind"] for item in found] == ["app_event"] * 8
    assert all(UUID(item["id"]) for item in found)
    assert len({item["id"] for item in found}) == 8
    assert [item["body"]["messageId"] for item in found] == [item["id"] for item in found]
    assert found[2]["body"]["properties"]["fare"] == 12.5
    assert not any("writeKey" in item["body"] for item in found)
    profile = platform.get(f"/v1/users/{user}").json()
    assert profile["traits"] == {"name": "Ann", "city": "Zürich 🚕"}
    assert [phone["anonymous_id"] for phone in profile["anonymous_ids"]] == [f"{user}-browser", f"{user}-phone"]
    for item, minutes in zip(found, range(30, 22, -1), strict=True):
        said = datetime.fromisoformat(item["timestamp"])
        # Receipt less what the sender measured: late by the way from the phone to us, never early.
        assert minutes_ago(minutes) <= said < minutes_ago(minutes - 1)


@pytest.mark.parametrize("gzip", [True, False])
def test_everything_an_sdk_can_say_arrives(
    rebu_up: Running, client_of: Callable[..., Any], sdk: str, gzip: bool, talk: Talk
) -> None:
    user = f"sdk-{sdk}-{gzip}"
    client = client_of(gzip=gzip, on_error=lambda *problem: pytest.fail(str(problem)))
    speak(client, user)
    client.flush()
    assert {status for status, _ in talk.answers} == {200}
    assert (talk.total("accepted"), talk.total("duplicate"), talk.total("rejected")) == (8, 0, 0)
    check_speech(rebu_up, user)


def test_the_way_the_manuals_show_it(rebu_up: Running, sdk: str, monkeypatch: pytest.MonkeyPatch, talk: Talk) -> None:
    """Settings of the module, then calls of the module."""
    module, _ = SDKS[sdk]
    monkeypatch.setattr(module, "write_key", rebu_up.write_key)
    monkeypatch.setattr(module, "dataPlaneUrl" if sdk == "rudderstack" else "host", rebu_up.url)
    monkeypatch.setattr(module, "default_client", None)
    speak(module, f"sdk-{sdk}-module")
    module.flush()
    module.shutdown()
    assert (talk.total("accepted"), talk.total("duplicate")) == (8, 0)
    check_speech(rebu_up, f"sdk-{sdk}-module")


def test_a_thousand_events_arrive_once_each(
    rebu_up: Running, client_of: Callable[..., Any], sdk: str, talk: Talk
) -> None:
    client = client_of(upload_size=100, on_error=lambda *problem: pytest.fail(str(problem)))
    for number in range(1000):
        client.track(f"sdk-{sdk}-many-{number % 7}", f"Event {number}", timestamp=NOW)
    client.flush()
    assert 10 <= len(talk.answers) < 100
    assert (talk.total("accepted"), talk.total("duplicate"), talk.total("rejected")) == (1000, 0, 0)
    found = [item["name"] for user in range(7) for item in rebu_up.history(f"sdk-{sdk}-many-{user}")]
    assert sorted(found) == sorted(f"Event {number}" for number in range(1000))


@pytest.mark.parametrize(("key", "status", "code"), [("no-such-key", 401, "unauthorized"), ("", 403, "forbidden")])
def test_a_wrong_key_ends_in_the_error_callback_and_not_in_a_storm(
    rebu_up: Running, client_of: Callable[..., Any], sdk: str, key: str, status: int, code: str, talk: Talk
) -> None:
    problems: list[tuple[Any, Any]] = []
    client = client_of(write_key=key or rebu_up.read_key, on_error=lambda *problem: problems.append(problem))
    client.track(f"sdk-{sdk}-{code}", "Never", timestamp=NOW)
    client.flush()
    [(error, batch)] = problems
    assert (error.status, error.code) == (status, code)
    assert error.message
    assert [message["event"] for message in batch] == ["Never"]
    assert len(talk.answers) == 1
    assert rebu_up.history(f"sdk-{sdk}-{code}") == []


def test_a_message_that_is_refused_is_not_sent_again_and_spoils_no_other(
    rebu_up: Running, client_of: Callable[..., Any], sdk: str, talk: Talk
) -> None:
    client = client_of(upload_size=3, upload_interval=1, on_error=lambda *problem: pytest.fail(str(problem)))
    for number, surge in enumerate((1.5, float("nan"), 2.0)):
        client.track(f"sdk-{sdk}-nan", f"Surge {number}", {"surge": surge}, timestamp=NOW)
    client.flush()
    [(status, answer)] = talk.answers
    assert (status, answer["accepted"], answer["rejected"]) == (200, 2, 1)
    assert sorted(item["name"] for item in rebu_up.history(f"sdk-{sdk}-nan")) == ["Surge 0", "Surge 2"]
