"""What speaks for a ride, or against all of them: each signal a key of the weights' table and a line for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from rapidfuzz.distance import OSA

from rebu_ray.process.matching import names, when
from rebu_ray.process.matching.reading import Reading
from rebu_ray.process.matching.rides import Ride, local
from rebu_ray.process.matching.trouble import fits
from rebu_ray.process.matching.when import Interval, Moment, Precision

_MINUTE: Final = 60_000
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
LAGS: Final = (
    ("5m", 5 * _MINUTE), ("20m", 20 * _MINUTE), ("1h", _HOUR), ("3h", 3 * _HOUR), ("8h", 8 * _HOUR), ("1d", _DAY),
    ("2d", 2 * _DAY), ("4d", 4 * _DAY), ("8d", 8 * _DAY), ("16d", 16 * _DAY), ("60d", 60 * _DAY),
)  # fmt: skip
"""Steps of the time from a ride's end to a message: name, upper bound in ms. Above the last: ``more``."""
_SUFFIX: Final = 5
_SPELT: Final = 8


class Signal(NamedTuple):
    """One thing that speaks for or against; `key` names its weight, `times` multiplies it."""

    signal: str
    detail: str
    key: str
    times: float = 1.0


class Said(NamedTuple):
    """A message beside its reading: the row's own facts that the signals need."""

    reading: Reading
    sent_at: int
    mode: str
    """``email``, ``voice`` or ``chat``; ``outbound`` for whatever Rebu sends."""
    ticket: str | None
    own_names: frozenset[str]


def ago(ms: int) -> str:
    """A length of time for people: 4 min, 3 h, 2 days."""
    size = abs(ms)
    if size < 2 * _HOUR:
        return f"{max(1, round(size / _MINUTE))} min"
    return f"{round(size / _HOUR)} h" if size < 2 * _DAY else f"{round(size / _DAY)} days"


def lag(said: Said, ride: Ride) -> Signal:
    """How long after the ride the message was sent."""
    if ride.requested_at > said.sent_at:
        return Signal("lag", "sent before the ride was requested", "lag.before")
    if ride.ended_at is None or ride.ended_at > said.sent_at:
        since = said.sent_at - ride.requested_at
        step = "during" if since < 4 * _HOUR or ride.ended_at is not None else _lag_step(since)
        return Signal("lag", f"sent {ago(since)} after the request, the ride not yet over", f"lag.{said.mode}.{step}")
    since = said.sent_at - max(ride.ended_at, ride.requested_at)
    return Signal("lag", f"sent {ago(since)} after the ride's end", f"lag.{said.mode}.{_lag_step(since)}")


def _lag_step(since: int) -> str:
    return next((name for name, bound in LAGS if since < bound), "more")


def rank(position: int) -> Signal:
    """Which of the user's rides it is, counted from the newest (0) when the message was sent."""
    step = str(position) if position < 3 else "3-5" if position < 6 else "6+"
    what = "the newest ride" if position == 0 else f"{position} newer ride{'s' if position > 1 else ''}"
    return Signal("rank", f"{what} when the message was sent", f"rank.{step}")


def code(said: Said, ride: Ride) -> Signal | None:
    """The ride's id in the text, whole, its end, or spelt with a slip."""
    if ride.code in said.reading.codes:
        return Signal("id", f"the text names {ride.ride_id}", "id.exact")
    if ride.code in said.reading.quoted_codes:
        return Signal("id", f"what is quoted or answered names {ride.ride_id}", "id.quoted")
    for found in sorted(said.reading.codes | said.reading.quoted_codes):
        inside = ride.code.endswith(found) or (len(found) > len(ride.code) and ride.code in found)
        if inside and len(found) > _SUFFIX and any(c.isdigit() for c in found):
            return Signal("id", f"“{found}” is the end of {ride.ride_id}", "id.end")
        if len(found) >= _SPELT and abs(len(found) - len(ride.code)) <= 2 and OSA.distance(found, ride.code) <= 2:
            return Signal("id", f"“{found}” is nearly {ride.ride_id}", "id.nearly")
    return None


def is_foreign(found: str, rides: Sequence[Ride]) -> bool:
    """Whether a code is formed as this user's ride ids are, and yet is none of them."""
    if not rides:
        return False
    model = rides[0].code
    head = re.match(r"[a-z]*", rides[0].ride_id.casefold())
    prefix = head.group() if head and len(head.group()) < len(model) else ""
    shaped = len(found) == len(model) and found.startswith(prefix) and any(c.isdigit() for c in found[len(prefix) :])
    return shaped and all(OSA.distance(found, ride.code) > 2 for ride in rides)


def money(said: Said, ride: Ride) -> Signal | None:
    """The amounts in the text against the fare."""
    reading = said.reading
    if ride.fare_cents is None or ride.fare_cents <= 0:
        return (
            Signal("amount", f"{reading.amounts[0].text} is named, the ride has no fare", "amount.no fare")
            if reading.amounts
            else None
        )
    fare, shown = ride.fare_cents, f"{ride.fare_cents / 100:.2f}"
    best: tuple[int, Signal] | None = None
    for amount in reading.amounts:
        off = abs(amount.cents - fare)
        if off <= 1 and not (amount.rough and fare % 100):
            step = (0, "exact", "is the fare")
        elif amount.rough and off <= 75:
            step = (1, "round", f"is the fare {shown} rounded")
        elif off <= max(100, 0.15 * fare):
            step = (2, "near", f"is near the fare {shown}")
        else:
            step = (3, "other", f"is not the fare {shown}")
        if best is None or step[0] < best[0]:
            best = step[0], Signal("amount", f"“{amount.text}” {step[2]}", f"amount.{step[1]}")
    if best is not None:
        return best[1]
    if any(amount.cents == fare for amount in reading.quoted_amounts):
        return Signal("amount", f"the quoted text names the fare {shown}", "amount.quoted")
    return None


Resolved = tuple[Moment, list[Interval]]


def resolved(said: Said, ride: Ride) -> list[Resolved]:
    """The moments of the text on the clocks of the ride's city."""
    return [(moment, when.intervals(moment, said.sent_at, ride.zone)) for moment in said.reading.moments]


_STEPS: Final = {
    Precision.CLOCK: (15 * _MINUTE, 50 * _MINUTE, 3 * _HOUR),
    Precision.HOUR: (15 * _MINUTE, 50 * _MINUTE, 3 * _HOUR),
    Precision.PART: (0, 2 * _HOUR, 6 * _HOUR),
    Precision.DAY: (0, 12 * _HOUR, _DAY),
    Precision.SPAN: (0, _DAY, 2 * _DAY),
}
_NEARNESS: Final = ("close", "near", "far", "wrong")


def time(moments: Sequence[Resolved], ride: Ride) -> Signal | None:
    """The times and days in the text against the ride's; the one that fits best counts."""
    best: tuple[tuple[int, int], Signal] | None = None
    for moment, stretches in moments:
        precision = moment.precision
        if precision is Precision.HOUR:
            days = (
                (ride.day, ride.day + timedelta(days=1))
                if local(ride.until, ride.zone).date() != ride.day
                else (ride.day,)
            )
            stretches = [stretch for day in days for stretch in when.at_day(moment, day, ride.zone)]
        if not stretches:
            continue
        off = min(max(low - ride.until, ride.requested_at - high, 0) for low, high in stretches)
        step = next((n for n, bound in enumerate(_STEPS[precision]) if off <= bound), 3)
        if best is None or (step, precision) < best[0]:
            at = local(ride.requested_at, ride.zone)
            how = ("fits", "is near", "is not far from", "does not fit")[step]
            detail = f"“{moment.text.strip()}” {how} the ride of {at:%Y-%m-%d %H:%M}"
            best = (step, precision), Signal("time", detail, f"time.{precision.name.lower()}.{_NEARNESS[step]}")
    return best[1] if best else None


def people(said: Said, ride: Ride) -> list[Signal]:
    """Driver, plate and car."""
    reading, found = said.reading, []
    driver = names.match_driver(ride.driver_name, reading.named, said.own_names)
    first = (ride.driver_name or "").split(" ")[0]
    if driver == "exact":
        found.append(Signal("driver", f"names the driver, {first}", "driver.exact"))
    elif driver == "alike":
        found.append(Signal("driver", f"names somebody who sounds like the driver, {first}", "driver.alike"))
    elif driver == "another":
        found.append(Signal("driver", f"names another driver than {first}", "driver.another"))
    plate = names.match_plate(ride.plate, reading.codes, reading.named)
    if plate is not None:
        what = "the plate" if plate == "exact" else "part of the plate"
        found.append(Signal("plate", f"names {what} {ride.plate}", f"plate.{plate}"))
    vehicle = names.match_vehicle(ride.vehicle, reading.named)
    if vehicle is not None:
        found.append(Signal("vehicle", f"the {vehicle} of the car fits: {ride.vehicle}", f"vehicle.{vehicle}"))
    return found


def place(said: Said, ride: Ride, cities: frozenset[str]) -> Signal | None:
    """The ride's city in the text, or another city in which the user rode."""
    named = [city for city in sorted(cities) if re.search(rf"\b{re.escape(city)}\b", said.reading.own)]
    if not named or len(cities) < 2 or ride.city is None:
        return None
    if ride.city.casefold() in named:
        return Signal("city", f"names {ride.city}", "city.this")
    return Signal("city", f"names {named[0].title()}, the ride was in {ride.city}", "city.another")


def troubles(said: Said, ride: Ride) -> list[Signal]:
    """The kinds of trouble in the text against what the ride shows."""
    found = []
    for kind in said.reading.troubles:
        fit = fits(kind, ride.shows)
        if fit is not None:
            verb = "shows" if fit else "does not show"
            found.append(
                Signal(
                    "trouble",
                    f"speaks of “{kind}”; the ride {verb} it",
                    f"trouble.{kind}.{'fits' if fit else 'against'}",
                )
            )
    waited, wait = said.reading.waited, ride.wait_s
    if waited is not None and wait is not None and abs(wait - 60 * waited) <= max(180.0, 0.35 * wait):
        found.append(
            Signal("trouble", f"waited {waited} min; the ride's wait was {wait / 60:.0f} min", "trouble.waited")
        )
    return found


def order(said: Said, ride: Ride, position: int, rides: Sequence[Ride]) -> list[Signal]:
    """Words for which of the rides it was: the last, not the last, the one before, the first of a day."""
    pointers, found = said.reading.pointers, []
    newest = "newest" if position == 0 else "earlier"
    if pointers.last:
        found.append(Signal("order", "speaks of the latest ride", f"order.last.{newest}"))
    if pointers.not_last:
        found.append(Signal("order", "not the latest ride, it says", f"order.not last.{newest}"))
    if pointers.before_last:
        step = "yes" if position == 1 else "newest" if position == 0 else "earlier"
        found.append(Signal("order", "the one before the latest, it says", f"order.before.{step}"))
    if pointers.nth is not None:
        number, days = pointers.nth
        day = local(said.sent_at, ride.zone).date() - timedelta(days=days)
        that_day = [other for other in rides if other.day == day]
        fit = len(that_day) >= number and that_day[number - 1].ride_id == ride.ride_id
        found.append(
            Signal("order", f"ride {number} of {day:%Y-%m-%d}, it says", f"order.nth.{'yes' if fit else 'no'}")
        )
    return found


def of_ride(
    said: Said, ride: Ride, position: int, rides: Sequence[Ride], moments: Sequence[Resolved], cities: frozenset[str]
) -> list[Signal]:
    """What in the message itself speaks for or against `ride`; `rides` are the user's, oldest first."""
    found: list[Signal] = []
    if said.ticket == ride.ride_id:
        found.append(Signal("ticket", f"filed under {ride.ride_id}", "ticket"))
    single = (code(said, ride), money(said, ride), time(moments, ride), place(said, ride, cities))
    found += [signal for signal in single if signal is not None]
    return found + people(said, ride) + troubles(said, ride) + order(said, ride, position, rides)


def of_none(said: Said, rides: Sequence[Ride]) -> list[Signal]:
    """What in the message itself speaks for or against it being about no ride at all."""
    reading = said.reading
    found = [Signal("elsewhere", f"points elsewhere: {kind}", f"none.{kind}") for kind in reading.pointers.kinds]
    own = {ride.ride_id for ride in rides}
    if said.ticket is not None and said.ticket not in own:
        found.append(
            Signal("ticket", f"filed under {said.ticket}, which is no ride of this user", "none.foreign ticket")
        )
    foreign = [found_code for found_code in sorted(reading.codes) if is_foreign(found_code, rides)]
    if foreign:
        found.append(Signal("id", f"names “{foreign[0]}”, which is no ride of this user", "none.foreign id"))
    if reading.troubles:
        found.append(
            Signal("trouble", f"speaks of “{reading.troubles[0]}”", "none.trouble", min(2, len(reading.troubles)))
        )
    if reading.pointers.ride_words:
        found.append(Signal("words", "speaks of a ride, a driver or a car", "none.ride words"))
    if any(moment.precision < Precision.SPAN for moment in reading.moments):
        found.append(Signal("time", f"names a time: “{reading.moments[0].text.strip()}”", "none.time"))
    if reading.amounts:
        found.append(Signal("amount", f"names an amount: “{reading.amounts[0].text}”", "none.amount"))
    if reading.pointers.last or reading.pointers.not_last or reading.pointers.before_last or reading.pointers.nth:
        found.append(Signal("order", "speaks of one of several rides", "none.order"))
    return found
