"""What people do in the app: look around, log in and out, take a ride."""

from __future__ import annotations

from random import Random
from typing import Final

from rebu_ray.simulate import city
from rebu_ray.simulate.clock import HOUR, MINUTE, SECOND, rfc3339
from rebu_ray.simulate.people import Rider
from rebu_ray.simulate.phones import Session
from rebu_ray.simulate.rides import CURRENCY, Ride

_PRODUCTS: Final = ("Rebu Go", "Rebu Go", "Rebu Go", "Rebu Comfort", "Rebu Van")
_CRASHES: Final = (
    ("MapRenderCrash", "surface destroyed while drawing", True),
    ("GpsLost", "no fix for 60 s", False),
    ("PaymentSheetTimeout", "3-D Secure did not come back", False),
    ("IllegalStateException", "Fragment RideFragment not attached", True),
    ("DecodingError", "keyNotFound: etaSeconds", False),
)
_RIDE_BREAKERS: Final = (
    ("MeterDesync", "trip state ENDED but vehicle moving", False),
    ("NavigationCrash", "route engine returned null leg", True),
    ("GpsLost", "no fix for 180 s, ride closed", False),
)


def enter(session: Session, rider: Rider | None, at: int) -> int:
    """Opens the app at `at` and sees to it that `rider` is logged in (None: stays as it is); when that is done."""
    rng, phone = session.rng, session.phone
    session.track(at, "Application Opened", from_background=rng.random() < 0.6, version_check="ok")
    at += rng.randrange(300, 1500)
    if rider is None or phone.user is rider:
        session.screen(at, "Home" if phone.user else "Welcome")
        if phone.user is not None:
            if rng.random() < 0.25:
                session.identify(at + 40, _traits(phone.user))
            session.call(at + 60, "GET", f"{phone.api}/users/{phone.user.user_id}/profile")
        return at + rng.randrange(SECOND, 6 * SECOND)
    if phone.user is not None:
        at = leave(session, at + rng.randrange(2 * SECOND, 8 * SECOND))
    session.screen(at, "Welcome")
    for place in range(rng.randrange(0, 3)):
        at += rng.randrange(2 * SECOND, 9 * SECOND)
        session.track(at, "Promotion Viewed", position=place, creative=rng.choice(("spring", "airport", "friends")))
    at += rng.randrange(2 * SECOND, 8 * SECOND)
    session.screen(at, "Login")
    at += rng.randrange(8 * SECOND, 40 * SECOND)
    session.track(at, "Login Submitted", method=rng.choice(("password", "passkey", "code")))
    session.call(at + 20, "POST", f"{phone.api}/sessions")
    at += rng.randrange(400, 1500)
    phone.user = rider
    if phone.alias_at_login:
        session.alias(at, rider.user_id)
    else:
        session.identify(at, _traits(rider))
    session.screen(at + 50, "Home")
    session.call(at + 90, "GET", f"{phone.api}/users/{rider.user_id}/profile")
    return at + rng.randrange(2 * SECOND, 8 * SECOND)


def leave(session: Session, at: int) -> int:
    """Logs out; the phone keeps its anonymous id."""
    session.track(at, "Logged Out")
    if session.phone.user is not None:
        session.call(at + 15, "DELETE", f"{session.phone.api}/users/{session.phone.user.user_id}/sessions/current")
    session.phone.user = None
    return at + session.rng.randrange(SECOND, 5 * SECOND)


def close(session: Session, at: int) -> int:
    """Puts the app away; whoever shares a phone mostly logs out before."""
    if session.phone.user is not None and session.rng.random() < (0.6 if session.phone.shared else 0.01):
        at = leave(session, at)
    session.track(at, "Application Backgrounded")
    return at + SECOND


def browse(session: Session, rider: Rider | None, at: int) -> int:
    """Looks at fares, past rides or nothing much, and goes; returns when."""
    rng, phone = session.rng, session.phone
    at = enter(session, rider, at)
    for _ in range(rng.randrange(1, 5)):
        at += rng.randrange(3 * SECOND, 25 * SECOND)
        kind = rng.random()
        if kind < 0.5:
            at = _search(session, city.leisure_zone(rng), at)
        elif kind < 0.8 and phone.user is not None:
            session.screen(at, "My Rides")
            session.call(at + 30, "GET", f"{phone.api}/users/{phone.user.user_id}/rides?limit=20")
        else:
            session.track(at, "Promotion Viewed", position=0, creative="banner")
    mishap(session, at)
    return close(session, at + rng.randrange(2 * SECOND, 20 * SECOND))


def mishap(session: Session, at: int) -> None:
    """Now and then something in the app breaks that has nothing to do with anything."""
    if session.rng.random() < 0.05:
        name, text, fatal = session.rng.choice(_CRASHES)
        session.error(at, name, text, fatal=fatal)


def ask(session: Session, rider: Rider, at: int) -> int:
    """Opens the app and searches until the rider is about to tap "Request"; when that is."""
    rng = session.rng
    at = enter(session, rider, at)
    for _ in range(rng.choice((1, 1, 2))):
        at = _search(session, city.leisure_zone(rng), at)
    session.screen(at, "Choose Ride")
    at += rng.randrange(2 * SECOND, 15 * SECOND)
    session.call(at, "GET", f"{session.phone.api}/users/{rider.user_id}/payment-methods")
    return at + rng.randrange(SECOND, 5 * SECOND)


def _search(session: Session, zone: city.Zone, at: int) -> int:
    rng, place = session.rng, session.rng.choice(zone.places)
    for length in sorted(rng.sample(range(2, max(4, len(place))), k=rng.choice((1, 1, 2)))):
        session.track(at, "Destination Searched", query=place[:length].lower(), results=rng.randrange(1, 9))
        at += rng.randrange(600, 2500)
    lat, lon = zone.centre
    session.call(at, "GET", f"{session.phone.api}/zones/{zone.zone_id}/estimates?lat={lat:.4f}&lon={lon:.4f}")
    session.track(
        at + 120, "Fare Estimated", zone=zone.zone_id, product=rng.choice(_PRODUCTS), currency=CURRENCY,
        low_cents=rng.randrange(400, 1500), eta_s=rng.randrange(90, 700),
    )  # fmt: skip
    return at + rng.randrange(2 * SECOND, 12 * SECOND)


def offline_span(rng: Random, ride: Ride) -> tuple[int, int] | None:
    """A tunnel, or a battery that is empty until hours after the ride."""
    if ride.picked_up_at is None:
        return None
    kind = rng.random()
    lost = ride.picked_up_at + rng.randrange(5 * SECOND, max(10 * SECOND, ride.ended_at - ride.picked_up_at))
    if kind < 0.04:
        return lost, ride.ended_at + rng.randrange(HOUR, 9 * HOUR)
    if kind < 0.1:
        return lost, lost + rng.randrange(MINUTE, 5 * MINUTE)
    return None


def ride(session: Session, ride: Ride) -> int:
    """The ride as its rider's phone sees it, from the tap on "Request" to the receipt; when the app is put away."""
    rng, phone, rider = session.rng, session.phone, ride.rider
    base = f"{phone.api}/users/{rider.user_id}/rides/{ride.ride_id}"
    at = ride.requested_at
    session.track(at, "Ride Requested", ride_id=ride.ride_id, product=rng.choice(_PRODUCTS), city=ride.pickup_zone.city)
    if ride.trouble == "dispatch":
        session.call(at + 5, "POST", f"{phone.api}/rides", fails=True)
        session.track(at + 4 * SECOND, "Ride Request Failed", ride_id=ride.ride_id)
    else:
        session.call(at + 5, "POST", f"{phone.api}/rides")
    session.screen(at + 300, "Finding Driver", ride_id=ride.ride_id)
    if ride.accepted_at is not None and ride.driver is not None:
        session.track(ride.accepted_at + 400, "Driver Assigned", ride_id=ride.ride_id, driver_id=ride.driver.driver_id)
        session.screen(ride.accepted_at + 900, "Driver On The Way", ride_id=ride.ride_id)
    _watch(session, base, at, ride.ended_at)
    for change in ride.changes:
        session.track(
            change.at, "Destination Changed", ride_id=ride.ride_id, place=change.place, zone=change.zone.zone_id
        )
        session.call(change.at + 30, "PUT", f"{base}/destination")
    if ride.picked_up_at is not None:
        session.track(ride.picked_up_at + 800, "Ride Started", ride_id=ride.ride_id)
        session.screen(ride.picked_up_at + 1500, "On Trip", ride_id=ride.ride_id)
        _report(session, ride, ride.picked_up_at)
    if ride.trouble == "app" and ride.picked_up_at is not None:
        _break(session, ride, base, ride.picked_up_at)
    else:
        mishap(session, rng.randrange(at, ride.ended_at))
    return _after(session, ride, base)


def _report(session: Session, ride: Ride, picked_up_at: int) -> None:
    """On a trip the app says every half minute or so where it is."""
    rng, length = session.rng, max(1, ride.ended_at - picked_up_at)
    goal = ride.dropoff or ride.pickup
    at = picked_up_at + rng.randrange(15 * SECOND, 30 * SECOND)
    while at < ride.ended_at:
        lat, lon = city.scattered(rng, city.between(ride.pickup, goal, (at - picked_up_at) / length), 15.0)
        session.track(at, "Trip Progress", ride_id=ride.ride_id, lat=lat, lon=lon, accuracy_m=rng.randrange(4, 40))
        at += rng.randrange(15 * SECOND, 40 * SECOND)


def _break(session: Session, ride: Ride, base: str, picked_up_at: int) -> None:
    """What made a ride end too early: an error in the app, or one of a server, shortly before."""
    rng = session.rng
    for _ in range(rng.choice((1, 1, 2))):
        before = min(90 * SECOND, (ride.ended_at - picked_up_at) // 2)
        at = ride.ended_at - rng.randrange(2 * SECOND, before)
        if rng.random() < 0.3:
            session.call(at, "PUT", f"{base}/position", fails=True)
        else:
            name, text, fatal = rng.choice(_RIDE_BREAKERS)
            session.error(at, name, text, fatal=fatal)


def _watch(session: Session, base: str, start: int, end: int) -> None:
    """The app asks how it goes, and the rider looks at it from time to time."""
    rng = session.rng
    at = start + rng.randrange(10 * SECOND, 40 * SECOND)
    while at < end:
        session.call(at, "GET", base)
        looked = at + 200
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            session.track(looked, "Map Viewed", zoom=rng.randrange(11, 18), follow=rng.random() < 0.8)
            looked += rng.randrange(400, 2500)
        if rng.random() < 0.04:
            session.track(at + 3 * SECOND, "Driver Contacted", channel=rng.choice(("chat", "call")))
            session.call(at + 3 * SECOND, "POST", f"{base}/contacts")
        at += rng.randrange(25 * SECOND, 75 * SECOND)


def _after(session: Session, ride: Ride, base: str) -> int:
    rng, end = session.rng, ride.ended_at
    if ride.status == "cancelled_by_rider":
        session.track(end - 200, "Ride Cancelled", ride_id=ride.ride_id, by="rider")
        session.call(end - 150, "POST", f"{base}/cancel")
    elif ride.status == "cancelled_by_driver":
        session.track(end + 700, "Ride Cancelled", ride_id=ride.ride_id, by="driver")
    elif ride.status == "failed":
        session.track(end + 500, "Ride Failed", ride_id=ride.ride_id)
    else:
        session.track(end + 600, "Ride Completed", ride_id=ride.ride_id, fare_cents=ride.fare_cents, currency=CURRENCY)
        session.call(end + 900, "POST", f"{session.phone.api}/users/{ride.rider.user_id}/payments")
        session.screen(end + 1500, "Receipt", ride_id=ride.ride_id)
        session.call(end + 1600, "GET", f"{base}/receipt")
    if ride.rated_at is not None:
        session.track(ride.rated_at, "Ride Rated", ride_id=ride.ride_id, stars=ride.rating)
        session.call(ride.rated_at + 20, "POST", f"{base}/rating")
    last = max(end, ride.rated_at or 0) + rng.randrange(3 * SECOND, 30 * SECOND)
    if rng.random() < 0.08:
        session.track(last, "Tip Added", ride_id=ride.ride_id, cents=rng.choice((100, 200, 500)))
        session.call(last + 20, "POST", f"{base}/tip")
        last += 5 * SECOND
    return close(session, last)


def _traits(rider: Rider) -> dict[str, str]:
    return {
        "name": rider.name,
        "email": rider.email,
        "phone": rider.phone_number,
        "createdAt": rfc3339(rider.created_ms),
    }
