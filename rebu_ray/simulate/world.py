"""The simulated world: one generator of everything that happens, for files and for streams alike."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec

from rebu_ray.simulate import demand, journeys, phones, servers, support
from rebu_ray.simulate.clock import HOUR, MINUTE, SECOND, millis, rfc3339
from rebu_ray.simulate.identifiers import generator, uuid_text
from rebu_ray.simulate.people import People, Phone, Rider, SentAt, new_phone, populate
from rebu_ray.simulate.phones import Item, Parcel, Session
from rebu_ray.simulate.rides import CURRENCY, Dispatch, Ride
from rebu_ray.simulate.servers import Line, Servers
from rebu_ray.simulate.support import Message

DEFAULT_START: Final = datetime(2026, 3, 2, 6, tzinfo=UTC)
"""A Monday, before the morning peak."""

RIDES_A_WEEK: Final = 9.0
"""Rides that a rider asks for: a city of commuters."""
VISITS_A_WEEK: Final = 14.0
"""Times that a rider opens the app and takes no ride."""
LETTERS_A_WEEK: Final = 0.25
"""Messages of a rider that are about no ride."""
_VISITOR_SHARE: Final = 0.03
"""Visits of people who only look at the app and never say who they are."""

_T = TypeVar("_T")


@dataclass(slots=True)
class Hour:
    """What leaves phones and servers within [start, end), each list in order of time, and what was planned in it.

    Rides and messages are complete, future and all: their `row(at)` tells what is known at an instant.
    """

    start: int
    end: int
    parcels: list[Parcel]
    lines: list[Line]
    rides: list[Ride]
    messages: list[Message]


@dataclass(order=True, slots=True)
class _Wish:
    """Somebody wants a ride, or a look at the app. `rider` None: anybody."""

    at: int
    number: int
    ride: bool = field(compare=False)
    rider: Rider | None = field(compare=False, default=None)


class World:
    """`riders` riders for `hours` hours from `start` on, or from `start_ms` on with the hours of the week of `start`.

    The same arguments make the same world, whenever and wherever. Another `start_ms` moves every time in it and
    changes nothing else. `hours()` may be walked once; make another World to do it again. Nothing happens after the
    end, but phones need some minutes more to get their last records out. Raises ValueError without riders or hours.
    """

    def __init__(
        self, riders: int, hours: float, seed: int, start: datetime | None = None, start_ms: int | None = None,
        sent_at: SentAt = "never",
    ) -> None:  # fmt: skip
        if riders < 1 or hours <= 0:
            raise ValueError(f"a world needs riders and hours, not {riders} riders and {hours} hours")
        shape_start = millis(start or DEFAULT_START)
        self.start = shape_start if start_ms is None else start_ms
        self.end = self.start + round(hours * HOUR)
        self.sent_at: SentAt = sent_at
        self.people: People = populate(riders, seed, self.start, self.end, sent_at)
        self._shift = shape_start - self.start
        self._rng = generator(seed, "lives")
        self._support = generator(seed, "support")
        self._seed = seed
        self._numbers = 0
        self._walked = False
        self._parcels: list[tuple[int, int, Parcel]] = []
        self._lines: list[tuple[int, int, Line]] = []
        self._receipts: list[Item] = []
        troubles = servers.incidents(generator(seed, "incidents"), self.start, self.end)
        self._servers = Servers(generator(seed, "servers"), troubles, self._write)
        self._dispatch = Dispatch(self.people.drivers, generator(seed, "rides"), self._shift)

    def hours(self) -> Iterator[Hour]:
        """The hours in order, the last one perhaps shorter; what is still on its way at the end goes with the last."""
        if self._walked:
            raise RuntimeError("these hours are over: make another World to live them again")
        self._walked = True
        wishes = self._wishes("rides", RIDES_A_WEEK, ride=True)
        visits = self._wishes("visits", VISITS_A_WEEK, ride=False)
        letters = self._arrivals("letters", LETTERS_A_WEEK)
        letter = next(letters, None)
        coming = heapq.merge(wishes, visits)
        again: list[_Wish] = []
        wish = next(coming, None)
        for start in range(self.start, self.end, HOUR):
            end = min(start + HOUR, self.end)
            hour = Hour(start, end, [], [], [], [])
            while wish is not None or again:
                if again and (wish is None or again[0] < wish):
                    following = again[0]
                    if following.at >= end:
                        break
                    heapq.heappop(again)
                elif wish is not None and wish.at < end:
                    following, wish = wish, next(coming, None)
                else:
                    break
                rebooking = self._live(following, hour)
                if rebooking is not None:
                    heapq.heappush(again, rebooking)
            self._servers.noise(start, end)
            while letter is not None and letter < end:
                rider = self._support.choice(self.people.riders)
                self._post(hour, support.about_nothing(self._support, rider, letter))
                letter = next(letters, None)
            self._mail_receipts(end)
            hour.parcels = list(self._due(self._parcels, end))
            hour.lines = list(self._due(self._lines, end))
            yield hour

    def _arrivals(self, purpose: str, a_week: float) -> Iterator[int]:
        rng = generator(self._seed, purpose)
        return demand.arrivals(rng, self.start, self.end, a_week * len(self.people.riders), self._shift)

    def _wishes(self, purpose: str, a_week: float, *, ride: bool) -> Iterator[_Wish]:
        for number, at in enumerate(self._arrivals(purpose, a_week)):
            yield _Wish(at, 2 * number + ride, ride)

    def _live(self, wish: _Wish, hour: Hour) -> _Wish | None:
        """Lets it happen, if somebody has time for it; the wish to try again after a ride that came to nothing."""
        rng = self._rng
        if not wish.ride and rng.random() < _VISITOR_SHARE:
            stranger = Session(new_phone(rng, self.sent_at), rng, self._servers, self.end)
            journeys.browse(stranger, None, wish.at)
            self._send_all(stranger)
            return None
        found = self._somebody(wish)
        if found is None:
            return None
        rider, phone = found
        session = Session(phone, rng, self._servers, self.end)
        if not wish.ride:
            stays_unknown = phone.user is None and rng.random() < 0.3
            done = journeys.browse(session, None if stays_unknown else rider, wish.at)
            if rng.random() < 0.03:
                session.offline = (done - 15 * SECOND, done + rng.randrange(20 * MINUTE, 9 * HOUR))
            self._finish(session, rider, done)
            return None
        asked = journeys.ask(session, rider, wish.at)
        if asked >= self.end:
            self._finish(session, rider, asked)
            return None
        ride = self._dispatch.ride(rider, asked, down=self._servers.is_down("dispatch", asked))
        session.offline = journeys.offline_span(rng, ride)
        done = journeys.ride(session, ride)
        hour.rides.append(ride)
        self._receipt(ride)
        self._post(hour, support.about(self._support, ride))
        self._finish(session, rider, done)
        came_to_nothing = ride.picked_up_at is None and ride.status != "completed"
        if came_to_nothing and session.offline is None and rng.random() < 0.5:
            self._numbers += 1
            return _Wish(done + rng.randrange(5 * SECOND, 3 * MINUTE), -self._numbers, True, rider)
        return None

    def _somebody(self, wish: _Wish) -> tuple[Rider, Phone] | None:
        """Whose wish it is. Some people ride often, most seldom: hence the square."""
        rng, riders = self._rng, self.people.riders
        for _ in range(6):
            rider = wish.rider or riders[int(rng.random() ** 2 * len(riders))]
            phone = rider.phones[0] if rng.random() < 0.9 else rider.phones[-1]
            if rider.busy_until <= wish.at and phone.busy_until <= wish.at and rider.created_ms <= wish.at:
                return rider, phone
        return None

    def _finish(self, session: Session, rider: Rider, done: int) -> None:
        rider.busy_until = session.phone.busy_until = done
        if session.offline is not None:
            # Whoever is still away when the world ends comes back just before.
            lost, back = session.offline[0], min(session.offline[1], self.end - MINUTE)
            session.offline = (lost, back) if lost < back else None
            session.phone.busy_until = max(done, back)
        self._send_all(session)

    def _receipt(self, ride: Ride) -> None:
        """Billing tracks what it captured: a server's message, which knows the user and no phone."""
        if ride.settled_at is None or not ride.fare_cents or ride.settled_at >= self.end:
            return
        message = {
            "type": "track",
            "event": "Payment Captured",
            "messageId": uuid_text(self._support),
            "userId": ride.rider.user_id,
            "properties": {"ride_id": ride.ride_id, "cents": ride.fare_cents, "currency": CURRENCY},
            "timestamp": rfc3339(ride.settled_at),
            "context": {"library": {"name": "analytics-python", "version": "2.4.0"}},
        }
        self._receipts.append(Item(ride.settled_at, msgspec.json.encode(message)))

    def _mail_receipts(self, until: int) -> None:
        due = sorted((item for item in self._receipts if item.at < until), key=lambda item: item.at)
        self._receipts = [item for item in self._receipts if item.at >= until]
        for parcel in phones.parcels(self._support, "app-events", due, None, MINUTE):
            self._send(parcel)

    def _post(self, hour: Hour, messages: Iterator[Message]) -> None:
        hour.messages += [message for message in messages if message.at < self.end]

    def _send_all(self, session: Session) -> None:
        for parcel in session.parcels():
            self._send(parcel)

    def _send(self, parcel: Parcel) -> None:
        self._numbers += 1
        heapq.heappush(self._parcels, (parcel.send_at, self._numbers, parcel))

    def _write(self, line: Line) -> None:
        if line.at < self.end:
            self._numbers += 1
            heapq.heappush(self._lines, (line.at, self._numbers, line))

    def _due(self, waiting: list[tuple[int, int, _T]], until: int) -> Iterator[_T]:
        """What is due before `until`, in order; everything at the end of the world."""
        while waiting and (waiting[0][0] < until or until >= self.end):
            yield heapq.heappop(waiting)[2]
