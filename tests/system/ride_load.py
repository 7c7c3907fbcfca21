"""A sender of rides that goes on whatever happens, and remembers which of them were acknowledged whole."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any, Final

import httpx

from tests.system.running import Item, Running, await_true

USERS: Final = 5


class RideLoad:
    """A writer of rides, who sends each part of one again until it is acknowledged: the ride as it is requested and
    as it ended, a change of its destination, an error of the rider's phone, a message. Users swap every tenth ride.
    """

    def __init__(self, platform: Running, name: str, pause: float = 0.0) -> None:
        """`pause`: seconds between two rides of a writer."""
        self._pause = pause
        self._url, self._key = platform.url, platform.write_key
        self.name = name
        self.users = [f"{name}-u{number}" for number in range(USERS)]
        self.done: dict[str, str] = {}
        """Ride -> its user, of the rides all of whose parts are acknowledged."""
        self.problems: list[str] = []
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, daemon=True) for _ in range(2)]

    def __enter__(self) -> RideLoad:
        with httpx.Client(base_url=self._url, timeout=120) as http:
            now = _now()
            known = [
                {
                    "type": "identify",
                    "messageId": f"{who}-i",
                    "userId": who,
                    "anonymousId": f"{who}-p",
                    "timestamp": now,
                }
                for who in self.users
            ]
            self._send(http, "/v1/batch", {"batch": known})
            self._send(
                http, "/v1/records/users", [{"user_id": who, "name": who, "updated_at": now} for who in self.users]
            )
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(180)
            assert not thread.is_alive()

    def await_more(self, count: int) -> None:
        least = len(self.done) + count
        await_true(lambda: len(self.done) >= least or self.problems, f"{count} more rides to be acknowledged")
        assert not self.problems, self.problems

    def check(self, platform: Running) -> None:
        """Every acknowledged ride is served with all that belongs to it, once, and the lake says the same."""
        assert not self.problems, self.problems
        # Rides go on changing hands meanwhile: what is looked for is what was acknowledged before.
        done = dict(self.done)
        for who in self.users:
            theirs = {ride_id for ride_id, user in done.items() if user == who}

            def whole(who: str = who, theirs: set[str] = theirs) -> bool:
                rides = {item["ride_id"]: item for item in platform._list(f"/v1/users/{who}/rides", {"limit": 1000})}
                return (
                    theirs <= rides.keys()
                    and all(_whole(rides[ride_id], who) for ride_id in theirs)
                    and not (done.keys() - theirs) & rides.keys()
                )

            await_true(whole, f"the rides of {who}")
            listed = [item["ride_id"] for item in platform._list(f"/v1/users/{who}/rides", {"limit": 7})]
            assert len(set(listed)) == len(listed)
            told = {item["message_id"] for item in platform._list(f"/v1/users/{who}/messages", {"limit": 1000})}
            assert {f"{ride_id}-m" for ride_id in theirs} <= told
        found = platform.admin("GET", "/v1/admin/verify")
        assert found["equal"] is True, [part for part in found["partitions"] if not part["equal"]]
        assert sum(part["rides"] for part in found["partitions"]) >= len(done)

    def _write(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as http:
            while not self._stop.is_set():
                number = next(self._numbers)
                ride_id, first, last = f"{self.name}-r{number}", self.users[number % USERS], self.users[number % USERS]
                if number % 10 == 9:
                    first = self.users[(number + 1) % USERS]
                at = _now() - 3_600_000
                begun = _ride(ride_id, first, at, status="requested", updated_at=at)
                ended = _ride(ride_id, last, at, ended_at=at + 1_200_000, updated_at=at + 1_200_000)
                turned = {"ride_id": ride_id, "changed_at": at + 60_000, "destination_lat": 1.0, "destination_lon": 2.0}
                fault = {"type": "error", "messageId": f"{ride_id}-e", "anonymousId": f"{last}-p", "timestamp": at + 1}
                letter = {
                    "message_id": f"{ride_id}-m",
                    "user_id": last,
                    "channel": "chat",
                    "direction": "inbound",
                    "sent_at": at + 1_300_000,
                    "body": "My driver was late",
                    "ride_id": ride_id,
                    "updated_at": at + 1_300_000,
                }
                parts: list[tuple[str, Any]] = [
                    ("/v1/records/rides", [begun]),
                    ("/v1/batch", {"batch": [fault | {"error": {"name": "Boom", "message": "x"}}]}),
                    ("/v1/records/messages", [letter]),
                    ("/v1/records/rides", [ended]),
                    ("/v1/records/ride_destinations", [turned]),
                ]
                if all(self._send(http, path, body) for path, body in parts):
                    self.done[ride_id] = last
                self._stop.wait(self._pause)

    def _send(self, http: httpx.Client, path: str, body: object) -> bool:
        """Send until it is acknowledged; whether it was before the end."""
        while not self._stop.is_set():
            try:
                answer = http.post(path, json=body, headers={"Authorization": f"Bearer {self._key}"})
            except httpx.TransportError:
                self._stop.wait(0.1)
                continue
            if answer.status_code == 200:
                if answer.json()["rejected"]:
                    self.problems.append(answer.text)
                return True
            if answer.status_code not in (429, 503):
                self.problems.append(f"{path}: {answer.status_code}: {answer.text}")
            self._stop.wait(0.1)
        return False


def _now() -> int:
    return time.time_ns() // 1_000_000


def _ride(ride_id: str, user_id: str, at: int, **columns: Any) -> dict[str, Any]:
    values = {"ride_id": ride_id, "user_id": user_id, "driver_id": "d1", "city": "Riga", "status": "completed"}
    places = {"pickup_lat": 1.0, "pickup_lon": 1.9, "destination_lat": 1.5, "destination_lon": 2.0}
    return values | {"requested_at": at, "picked_up_at": at + 300_000} | places | columns


def _whole(ride: Item, who: str) -> bool:
    shown = (ride["user"], ride["status"], ride["destination"])
    return shown == ({"user_id": who, "name": who}, "completed", {"lat": 1.0, "lon": 2.0}) and bool(
        ride["errors"]["app"]
    )
