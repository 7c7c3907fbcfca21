"""Invented riders, their rides, what they write to customer service, and the ride they mean: the benchmark's truth.

Nobody outside knows which ride a writer had in mind, so the truth has to be invented. To be of use it is worded without
a look at the matcher's patterns, people forget, mistype and misremember, commuters take look-alike rides, and a good
share of the messages says nothing that tells rides apart.

`world(seed, count, previous, templates)`: `previous` is the share of first messages that are about the newest ride
when they are sent; of the others six tenths are about an earlier ride and four tenths about none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import matching_words as words
import pyarrow as pa
from matching_letters import Writer

from rebu_ray.process.tables import DRIVERS, MESSAGES, RIDE_STATS, USERS

Templates = Literal["first", "second", "known", "held out"]
"""Which words a world is made of: the first or second third of every list, both (`known`), or the third, held out."""
_THIRDS: Final[dict[Templates, frozenset[int]]] = {
    "first": frozenset((0,)), "second": frozenset((1,)), "known": frozenset((0, 1)), "held out": frozenset((2,)),
}  # fmt: skip
Row = dict[str, Any]

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
_START: Final = 1_772_323_200_000  # 2026-03-01
_FIRST: Final = ("Abdul", "Agnes", "Andrei", "Beatriz", "Bernard", "Carmen", "Cedric", "Dmitri", "Dolores", "Eduardo",
                 "Fatima", "Gareth", "Giulia", "Hassan", "Ingrid", "Jasper", "Joaquim", "Katrin", "Kwame", "Lionel",
                 "Marek", "Matteo", "Mehmet", "Natalia", "Olga", "Patrick", "Rafael", "Ravi", "Samuel", "Sergio",
                 "Svetlana", "Thierry", "Tobias", "Valentina", "Vincent", "Walter", "Xavier", "Yannick",
                 "Zainab")  # fmt: skip
_LAST: Final = ("Almeida", "Becker", "Costa", "Dupont", "Eriksen", "Ferreira", "Garcia", "Hoffman", "Ivanov", "Jensen",
                "Kowalski", "Laurent", "Mendes", "Nguyen", "Oliveira", "Pereira", "Quintero", "Ribeiro", "Santos",
                "Traore")  # fmt: skip
_CARS: Final = ("black Ford Galaxy", "white Opel Astra", "grey Peugeot 508", "blue Mazda 6", "silver Honda Jazz",
                "red Fiat Tipo",
                "white Citroen C5", "black Mercedes Vito", "green Skoda Fabia", "grey Nissan Leaf")  # fmt: skip
_CITIES: Final = (("Lisbon", 38.72, -9.14, "Europe/Lisbon"), ("Chicago", 41.88, -87.63, "America/Chicago"),
                  ("Istanbul", 41.01, 28.97, "Europe/Istanbul"))  # fmt: skip
_LAG: Final = {"email": (200, 1.7), "voice": (70, 1.6), "chat": (40, 1.8)}
"""Channel -> median of the minutes from a ride's end to a message, and the deviation of their logarithm."""
_LATE: Final = 0.12
"""Share of those who write when a card statement comes, or when they miss the umbrella: any time in five weeks."""
_ZONES: Final = {city: ZoneInfo(zone) for city, _, _, zone in _CITIES}
_LETTERS: Final = "23456789abcdefghjkmnpqrstvwxyz"
_TROUBLES: Final = (
    ("none", 70), ("premature", 7), ("app", 5), ("cancelled", 5), ("fee", 3), ("failed", 4), ("wait", 6),
)  # fmt: skip
_ABOUT: Final[dict[str, tuple[str, ...]]] = {
    "none": ("charge", "charge", "lost", "lost", "behaviour", "praise", "receipt", "accident"),
    "premature": ("premature", "premature", "premature", "charge", "behaviour"),
    "app": ("app", "app", "app", "charge"),
    "cancelled": ("cancelled",),
    "fee": ("fee", "fee", "cancelled"),
    "failed": ("failed",),
    "wait": ("wait", "wait", "behaviour", "charge"),
}


@dataclass(frozen=True, slots=True)
class Truth:
    """What a message is really about. `kind`: previous, earlier or none; `begins`: no answer and no follow-up."""

    ride_id: str | None
    kind: str
    begins: bool
    bare: bool
    """Names nothing that tells rides apart (the trouble itself aside)."""


@dataclass(slots=True)
class World:
    """The tables as the matcher gets them, and the truth by message."""

    messages: pa.Table
    stats: pa.Table
    drivers: pa.Table
    users: pa.Table
    truth: dict[str, Truth] = field(default_factory=dict)


def world(seed: int, count: int, previous: float, templates: Templates) -> World:
    """`count` dialogues of as many riders; the same arguments give the same world."""
    rng = Random(f"matching/{seed}/{templates}")
    maker = _Maker(rng, templates)
    drivers = [maker.driver(number) for number in range(max(40, count // 12))]
    messages: list[Row] = []
    stats: list[Row] = []
    users: list[Row] = []
    truth: dict[str, Truth] = {}
    for number in range(count):
        chance = rng.random()
        kind = "previous" if chance < previous else "earlier" if rng.random() < 0.6 else "none"
        user, rides, dialogue = maker.dialogue(number, kind, drivers)
        users.append(user)
        stats += rides
        for row, meant in dialogue:
            messages.append(row)
            truth[row["message_id"]] = meant
    return World(
        pa.Table.from_pylist(messages, schema=MESSAGES),
        pa.Table.from_pylist(stats, schema=RIDE_STATS),
        pa.Table.from_pylist(drivers, schema=DRIVERS),
        pa.Table.from_pylist(users, schema=USERS),
        truth,
    )


class _Maker:
    """Makes drivers, riders, their rides and what they write."""

    def __init__(self, rng: Random, templates: Templates) -> None:
        self.rng = rng
        self.writer = Writer(rng, _THIRDS[templates])
        self.pick = self.writer.pick
        self.number = 0
        self.plates: dict[str, str] = {}
        self.vehicles: dict[str, str] = {}

    def driver(self, number: int) -> Row:
        rng = self.rng
        plate = f"{rng.randrange(10, 99)}-{''.join(rng.choices('ABCDEFGHJKLMNPRSTUVXZ', k=2))}-{rng.randrange(10, 99)}"
        if rng.random() < 0.6:
            plate = f"{''.join(rng.choices('ABCDEFGHJKLMNPRSTUVXZ', k=3))} {rng.randrange(100, 9999)}"
        driver_id = f"dr{number}"
        self.plates[driver_id], self.vehicles[driver_id] = plate, rng.choice(_CARS)
        return {"driver_id": driver_id, "name": f"{rng.choice(_FIRST)} {rng.choice(_LAST)}", "vehicle_plate": plate,
                "vehicle_model": self.vehicles[driver_id], "received_at": _START}  # fmt: skip

    def code(self, length: int = 10) -> str:
        return "".join(self.rng.choices(_LETTERS, k=length))

    def rides(self, user: Row, drivers: list[Row]) -> list[Row]:
        """A month of one rider: commuters' look-alikes and odd trips, none overlapping another."""
        rng = self.rng
        city, lat, lon, zone = rng.choice(_CITIES)
        commuter = rng.random() < 0.45
        usual_km = rng.lognormvariate(1.5, 0.5)
        starts = []
        for _ in range(rng.randrange(3, 15)):
            day = datetime.fromtimestamp(_START / 1000, UTC).replace(tzinfo=ZoneInfo(zone)) + timedelta(
                days=rng.randrange(30)
            )
            if commuter and rng.random() < 0.6:
                minutes = rng.choice((8 * 60, 17 * 60 + 30)) + rng.gauss(0, 25)
                usual = True
            else:
                minutes, usual = rng.triangular(6.5 * 60, 25 * 60, 18 * 60), False
            starts.append((int((day.timestamp() + minutes * 60) * 1000) + rng.randrange(MINUTE), usual))
            if rng.random() < 0.25:  # and back again
                starts.append((starts[-1][0] + round(rng.uniform(0.8, 5) * HOUR), usual))
        starts.sort()
        found: list[Row] = []
        free = 0
        for at, usual in starts:
            if at < free:
                continue
            km = usual_km * rng.uniform(0.97, 1.04) if usual else rng.lognormvariate(1.5, 0.6)
            one = self.ride(user, rng.choice(drivers), city, (lat, lon), at, km)
            found.append(one)
            free = one["ended_at"] + 5 * MINUTE
        return found

    def ride(self, user: Row, driver: Row, city: str, here: tuple[float, float], at: int, km: float) -> Row:
        rng = self.rng
        trouble = rng.choices([name for name, _ in _TROUBLES], [share for _, share in _TROUBLES])[0]
        wait = rng.lognormvariate(5.4, 0.45) if trouble != "wait" else rng.uniform(780, 2100)
        duration = km / rng.uniform(18, 30) * 3600
        row: Row = dict.fromkeys(RIDE_STATS.names)
        row |= {
            "ride_id": f"r-{self.code()}", "status": "completed", "city": city, "user_id": user["user_id"],
            "user_name": user["name"], "driver_id": driver["driver_id"], "driver_name": driver["name"],
            "requested_at": at, "currency": "EUR", "errors_app": 0, "errors_server": 0, "errors": [],
            "premature": False, "quality": 1.0, "flags": [], "pickup_lat": here[0], "pickup_lon": here[1],
            "updated_at": at, "received_at": at,
        }  # fmt: skip
        if trouble in ("cancelled", "fee", "failed"):
            ended = at + round(rng.uniform(1, 12) * MINUTE)
            status = {"cancelled": "cancelled_by_driver", "fee": "cancelled_by_rider", "failed": "failed"}[trouble]
            row |= {"status": status, "ended_at": ended, "fare_cents": 400 if trouble == "fee" else None}
            if trouble == "failed":
                row |= {"driver_id": None, "driver_name": None}
            else:
                row["accepted_at"] = at + 40_000
        else:
            picked = at + round(wait * 1000)
            row |= {"accepted_at": at + 30_000, "picked_up_at": picked, "ended_at": picked + round(duration * 1000)}
            row |= {"wait_s": wait, "duration_s": duration, "distance_m": round(km * 1000)}
            row["fare_cents"] = round((250 + 110 * km + 25 * duration / 60) * rng.choice((1, 1, 1, 1.2, 1.5)))
            early = trouble == "premature"
            row |= {"premature": early, "destination_matched": not early and rng.random() < 0.95}
            row["progress"] = rng.uniform(0.2, 0.85) if early else 1.0
            if early and rng.random() < 0.5:
                row["status"] = rng.choice(("cancelled_by_driver", "cancelled_by_rider"))
        if trouble == "app" or rng.random() < 0.05:
            row["errors_app"], row["errors_server"] = rng.randrange(1, 4), rng.randrange(0, 2)
        row["flags"] = [f"trouble {trouble}"]
        return row

    def dialogue(self, number: int, kind: str, drivers: list[Row]) -> tuple[Row, list[Row], list[tuple[Row, Truth]]]:
        """A rider, the rides, and one thread of messages of that kind."""
        rng = self.rng
        name = f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"
        user = {
            "user_id": f"p{number}",
            "name": name,
            "email": f"p{number}@post.example",
            "phone": None,
            "received_at": _START,
        }
        channel = rng.choices(("email", "voice", "chat"), (45, 20, 35))[0]
        while True:
            rides = self.rides(user, drivers)
            if kind == "none":
                at = _START + rng.randrange(3 * DAY, 33 * DAY)
                return user, rides, self.about_none(user, rides, channel, at)
            weights = [0.1 if "trouble none" in one["flags"] else 1.0 for one in rides]
            # Of one month's troubles and lags as they come, the first that are of the wanted kind.
            for _ in range(12):
                place = rng.choices(range(len(rides)), weights)[0]
                at = self.sent(rides[place], channel)
                newer = sum(1 for one in rides[place + 1 :] if one["requested_at"] <= at)
                if (newer == 0) == (kind == "previous"):
                    return user, rides, self.about_ride(user, rides, place, newer, channel, at)

    def sent(self, ride: Row, channel: str) -> int:
        rng = self.rng
        if channel != "email" and rng.random() < 0.05:
            return int(
                rng.randrange(ride["requested_at"] + MINUTE, max(ride["requested_at"] + 2 * MINUTE, ride["ended_at"]))
            )
        if rng.random() < _LATE:
            return int(ride["ended_at"] + math.exp(rng.uniform(math.log(HOUR), math.log(35 * DAY))))
        middle, spread = _LAG[channel]
        return int(ride["ended_at"] + rng.lognormvariate(math.log(middle), spread) * MINUTE)

    def about_ride(
        self, user: Row, rides: list[Row], place: int, newer: int, channel: str, at: int
    ) -> list[tuple[Row, Truth]]:
        """A thread about the ride at `place`, `newer` rides being newer when it begins."""
        rng, ride = self.rng, rides[place]
        kind = "earlier" if newer else "previous"
        truth = Truth(ride["ride_id"], kind, True, False)
        if rng.random() < 0.05 and ride["fare_cents"] and not newer:
            return [self.receipt(user, ride)]
        topic = rng.choice(_ABOUT[ride["flags"][0].removeprefix("trouble ")])
        if topic == "charge" and not ride["fare_cents"]:
            topic = "cancelled"
        waited = round((ride["wait_s"] or 600) / 60 * rng.uniform(0.8, 1.25))
        sentences = [
            sentence.format(waited=waited, thing=rng.choice(words.THINGS))
            for sentence in {self.pick(words.TROUBLES[topic]): 0, self.pick(words.TROUBLES[topic]): 0}
        ]
        sentences = sentences[: rng.choice((1, 1, 2))]
        # Who has ridden since knows that "my ride" will not do, and says more.
        bare = rng.random() < (0.15 if newer else 0.35)
        details = [] if bare else self.details(ride, at, more=bool(newer))
        details += self.order(rides, place, newer, at)
        bare = not details
        if rng.random() < 0.4:
            details.append(self.pick(words.PLACES))
        rng.shuffle(details)
        sentences = [*details, *sentences] if rng.random() < 0.3 else [*sentences, *details]
        ticket = ride["ride_id"] if channel == "chat" and rng.random() < 0.12 else None
        if ticket is not None and rng.random() < 0.02:
            ticket = rng.choice(rides[: place + newer + 1])["ride_id"]
        quoted = None
        if channel == "email" and rng.random() < 0.06 and ride["fare_cents"]:
            quoted = self.receipt_text(user, ride if rng.random() < 0.9 else rng.choice(rides[: place + 1]))[1]
        last = None if rng.random() < 0.7 else newer == 0
        truth = Truth(ride["ride_id"], kind, True, bare and ticket is None and quoted is None)
        return self.thread(user, sentences, channel, at, truth, ticket, ride, quoted, last)

    def about_none(self, user: Row, rides: list[Row], channel: str, at: int) -> list[tuple[Row, Truth]]:
        """A thread about no ride of the user's, or something that Rebu sends to many."""
        rng = self.rng
        truth = Truth(None, "none", True, True)
        if rng.random() < 0.15:
            subject, text = self.pick(words.NEWS)
            return [(self.row(user, "email", "outbound", at, subject, text, None, None), truth)]
        topic = rng.choice(list(words.ELSEWHERE))
        sentences = [self.pick(words.ELSEWHERE[topic])]
        if rng.random() < 0.25:
            sentences.append(self.pick(words.ELSEWHERE[topic]))
        if topic in ("other people", "opinion") and rng.random() < 0.3:
            sentences.append(self.pick(words.AMOUNTS).format(amount=self.writer.amount(rng.randrange(500, 4000))))
        if topic == "other people" and rng.random() < 0.25:
            sentences.append(self.pick(words.IDS).format(id=f"r-{self.code()}"))
        if rng.random() < 0.15:
            sentences.append(self.pick(words.PLACES))
        return self.thread(user, sentences, channel, at, truth, None, None, None, None)

    def details(self, ride: Row, at: int, more: bool) -> list[str]:
        """What the writer remembers of the ride, sometimes wrongly."""
        rng = self.rng
        found: list[str] = []
        zone = _ZONES[ride["city"]]
        boost = 1.15 if more else 1.0
        while not found:
            if rng.random() < 0.62 * boost:
                start = ride["requested_at"] if rng.random() < 0.75 or ride["ended_at"] > at else ride["ended_at"]
                chance = rng.random()
                if chance < 0.05:
                    start += rng.choice((-1, 1)) * DAY
                elif chance < 0.15:
                    start += rng.randrange(-90, 91) * MINUTE
                start = min(start, at)
                then, said = (datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone) for ms in (start, at))
                when = self.writer.when(then, said)
                sentence = self.pick(words.WHEN).format(when=when)
                found.append(sentence[0].upper() + sentence[1:])
            if rng.random() < 0.3 * boost and ride["fare_cents"]:
                cents = ride["fare_cents"]
                if rng.random() < 0.12:
                    cents = round(cents * rng.uniform(0.7, 1.4))
                found.append(self.pick(words.AMOUNTS).format(amount=self.writer.amount(cents)))
            if rng.random() < 0.28 * boost and ride["driver_name"]:
                name = ride["driver_name"].split()[0]
                if rng.random() < 0.2:
                    name = self.writer.misspelt(name)
                elif rng.random() < 0.03:
                    name = rng.choice(_FIRST)
                found.append(self.pick(words.DRIVERS).format(driver=name))
            if rng.random() < 0.1 and ride["driver_id"]:
                found.append(self.pick(words.VEHICLES).format(vehicle=self.vehicle_of(ride)))
            if rng.random() < 0.05 and ride["driver_id"]:
                plate = self.plates[ride["driver_id"]]
                found.append(self.pick(words.PLATES).format(plate=plate if rng.random() < 0.7 else plate[-4:]))
            if rng.random() < 0.03:
                code = ride["ride_id"] if rng.random() < 0.6 else ride["ride_id"][-6:]
                found.append(self.pick(words.IDS).format(id=code))
        return found

    def vehicle_of(self, ride: Row) -> str:
        """The car, or its make alone, or its colour."""
        colour, make, model = self.vehicles[ride["driver_id"]].split(maxsplit=2)
        return self.rng.choice((f"{colour} {make}", f"{make} {model}", f"{colour} car", make))

    def order(self, rides: list[Row], place: int, newer: int, at: int) -> list[str]:
        """Words for which of the rides it is, where the writer thinks of it."""
        rng = self.rng
        zone = _ZONES[rides[place]["city"]]
        today = datetime.fromtimestamp(at / 1000, UTC).astimezone(zone).date()
        that_day = [
            one for one in rides
            if datetime.fromtimestamp(one["requested_at"] / 1000, UTC).astimezone(zone).date() == today
        ]  # fmt: skip
        if rides[place] in that_day and len(that_day) > 1 and rng.random() < 0.15:
            number = that_day.index(rides[place])
            if number < 2:
                return [self.pick((words.FIRST, words.SECOND)[number])]
        if newer == 0:
            return [self.pick(words.LAST)] if rng.random() < 0.15 else []
        if newer == 1 and rng.random() < 0.1:
            return [self.pick(words.BEFORE_LAST)]
        return [self.pick(words.NOT_LAST)] if rng.random() < 0.15 else []

    def thread(
        self, user: Row, sentences: list[str], channel: str, at: int, truth: Truth, ticket: str | None,
        ride: Row | None, quoted: str | None, last: bool | None,
    ) -> list[tuple[Row, Truth]]:  # fmt: skip
        """The first message, and mostly some answers."""
        rng, writer, name = self.rng, self.writer, user["name"].split()[0]
        subject = self.pick(words.SUBJECTS) if channel == "email" else None
        raw = channel == "email" and rng.random() < 0.6
        thread = f"th-{self.code(8)}" if channel != "voice" and rng.random() < 0.8 else None
        if channel == "voice":
            body = writer.call(sentences, name, last)
        else:
            text = " ".join(sentences)
            if channel == "chat":
                text = text.lower() if rng.random() < 0.5 else text
            body = writer.typed(text, 1.2 if channel == "chat" else 0.5)
            if channel == "email":
                closing = self.pick(words.CLOSINGS).format(name=name)
                body = "\n\n".join(part for part in (self.pick(words.OPENINGS), body, closing) if part)
        if raw:
            body = writer.mail(user["email"], subject or "", body, datetime.fromtimestamp(at / 1000, UTC), quoted)
        elif quoted is not None:
            body += "\n\n" + "\n".join(f"> {line}" for line in quoted.split("\n"))
        found = [(self.row(user, channel, "inbound", at, subject, body, ticket, thread), truth)]
        later = Truth(truth.ride_id, truth.kind, False, truth.bare)
        while thread is not None and rng.random() < 0.5:
            at += (
                round(rng.lognormvariate(3, 1.3) * MINUTE) if channel == "email" else rng.randrange(MINUTE, 9 * MINUTE)
            )
            answer = self.answer(user, ride)
            found.append(
                (self.row(user, channel, "outbound", at, subject and f"Re: {subject}", answer, ticket, thread), later)
            )
            if rng.random() < 0.4:
                break
            at += (
                round(rng.lognormvariate(3, 1.3) * MINUTE) if channel == "email" else rng.randrange(MINUTE, 9 * MINUTE)
            )
            more = self.pick(words.FOLLOW_UPS)
            if channel == "email" and rng.random() < 0.5:
                more += "\n\n> " + answer
            found.append(
                (self.row(user, channel, "inbound", at, subject and f"Re: {subject}", more, ticket, thread), later)
            )
        return found

    def answer(self, user: Row, ride: Row | None) -> str:
        name = user["name"].split()[0]
        if ride is None:
            return self.pick(words.ANSWERS_ELSEWHERE).format(name=name)
        return self.pick(words.ANSWERS).format(name=name, **self.facts(ride))

    def facts(self, ride: Row) -> dict[str, str]:
        """A ride as Rebu's own mails speak of it."""
        at = datetime.fromtimestamp(ride["requested_at"] / 1000, UTC).astimezone(_ZONES[ride["city"]])
        cents = ride["fare_cents"] or 0
        return {"id": ride["ride_id"], "driver": (ride["driver_name"] or "the driver").split()[0],
                "date": f"{at:%d/%m/%Y}",
                "clock": f"{at:%H:%M}", "amount": f"{cents / 100:.2f} EUR"}  # fmt: skip

    def receipt_text(self, user: Row, ride: Row) -> tuple[str, str]:
        subject, text = self.pick(words.RECEIPTS)
        line = f"\nTrip {ride['ride_id']}" if self.rng.random() < 0.5 else ""
        return subject, text.format(name=user["name"].split()[0], id_line=line, **self.facts(ride))

    def receipt(self, user: Row, ride: Row) -> tuple[Row, Truth]:
        subject, text = self.receipt_text(user, ride)
        at = ride["ended_at"] + self.rng.randrange(MINUTE, 4 * MINUTE)
        row = self.row(user, "email", "outbound", at, subject, text, None, None)
        return row, Truth(ride["ride_id"], "previous", True, False)

    def row(
        self, user: Row, channel: str, direction: str, at: int, subject: str | None, body: str, ticket: str | None,
        thread: str | None,
    ) -> Row:  # fmt: skip
        self.number += 1
        name = f"msg{self.number:07d}"
        return {
            "message_id": name, "user_id": user["user_id"], "channel": channel, "direction": direction, "sent_at": at,
            "subject": subject, "body": body, "ride_id": ticket, "thread_id": thread, "updated_at": at,
            "deleted": False, "received_at": at, "record_id": f"{name}@{at}",
        }  # fmt: skip
