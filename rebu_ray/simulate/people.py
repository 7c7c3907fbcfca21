"""Riders, drivers and the phones that riders carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal

import msgspec

from rebu_ray.simulate import city
from rebu_ray.simulate.clock import DAY, HOUR, MINUTE, SECOND
from rebu_ray.simulate.identifiers import generator, uuid_text

SentAt = Literal["never", "some", "always"]
"""Whether phones say when they sent a record. Only those that do may have a wrong clock: without `sentAt` nobody
could tell, and an event time would be wrong for good."""

FIRST_NAMES: Final = (
    "Ada", "Amir", "Anouk", "Aya", "Bela", "Bruno", "Carla", "Chidi", "Dana", "Dario", "Edda", "Elif", "Emeka", "Esme",
    "Farah", "Felix", "Gita", "Goran", "Hana", "Hugo", "Ilse", "Imran", "Ines", "Ivo", "Jana", "Jonas", "Kai", "Keiko",
    "Lars", "Leila", "Luca", "Maeve", "Malik", "Mina", "Nadia", "Nils", "Noor", "Omar", "Oona", "Pavel", "Petra",
    "Quinn", "Rana", "Remy", "Rosa", "Sami", "Sanne", "Stefan", "Tara", "Tomas", "Uma", "Viktor", "Wanda", "Xenia",
    "Yara", "Yusuf", "Zara", "Zoltan",
)  # fmt: skip
LAST_NAMES: Final = (
    "Abara", "Arden", "Bakke", "Barlow", "Calder", "Castell", "Dietz", "Dragan", "Ekwall", "Farrow", "Ferro", "Gallo",
    "Grieve", "Haddad", "Holm", "Ibarra", "Jansen", "Karim", "Keller", "Kovar", "Lindqvist", "Lobo", "Marsh", "Mbeki",
    "Moreau", "Nakata", "Novak", "Okoro", "Orlov", "Park", "Petrov", "Quist", "Rahimi", "Reyes", "Rossi", "Sato",
    "Silva", "Stone", "Tanaka", "Tveit", "Ueda", "Valdez", "Varga", "Weiss", "Wolde", "Yilmaz", "Zeller", "Zuma",
)  # fmt: skip
VEHICLES: Final = (
    "grey Toyota Corolla", "black Skoda Octavia", "white Kia Niro", "blue Hyundai Ioniq", "silver Toyota Prius",
    "red Seat Leon", "white Tesla Model 3", "black Volkswagen Passat", "green Dacia Jogger", "grey Renault Zoe",
)  # fmt: skip
_PHONES: Final[dict[str, tuple[tuple[str, str, str, str, int, int], ...]]] = {
    "ios": (
        ("Apple", "iPhone14,5", "iPhone 13", "17.6.1", 390, 844),
        ("Apple", "iPhone15,4", "iPhone 15", "18.3", 393, 852),
        ("Apple", "iPhone17,1", "iPhone 16 Pro", "18.3", 402, 874),
    ),
    "android": (
        ("Google", "Pixel 7", "panther", "14", 412, 915),
        ("Samsung", "SM-S921B", "e1s", "15", 360, 780),
        ("Fairphone", "FP5", "FP5", "13", 392, 850),
        ("Xiaomi", "2201117TY", "spes", "13", 393, 873),
    ),
}
_VERSIONS: Final = (("7.38.4", "73804"), ("7.41.0", "74100"), ("7.42.1", "74201"), ("7.42.1", "74201"))


@dataclass(slots=True)
class Phone:
    """One installation of the app. `user` is who is logged in; `context` is the SDK's context, encoded once."""

    anonymous_id: str
    context: msgspec.Raw
    user_agent: str
    address: str
    api: str
    """Path prefix of this app version's API: empty or ``/v2``."""
    flush_ms: int
    time_style: Literal["utc", "offset", "epoch"]
    alias_at_login: bool
    """An old SDK: ties the anonymous id with `alias` where others do it with `identify`."""
    gzips: bool
    stamps: bool = False
    """Says `sentAt` in its records."""
    skew_ms: int = 0
    shared: bool = False
    user: Rider | None = None
    busy_until: int = 0


@dataclass(slots=True)
class Rider:
    """A user of the app. `busy_until` is the end of the session that is going on."""

    user_id: str
    name: str
    email: str
    phone_number: str
    created_ms: int
    updated_ms: int
    home: city.Zone
    work: city.Zone
    phones: list[Phone] = field(default_factory=list)
    busy_until: int = 0

    @property
    def first_name(self) -> str:
        return self.name.split()[0]


@dataclass(slots=True)
class Driver:
    """Somebody who drives; at `position`, free from `free_at` on."""

    driver_id: str
    name: str
    plate: str
    vehicle: str
    rating: float
    created_ms: int
    updated_ms: int
    position: city.Point
    free_at: int = 0

    @property
    def first_name(self) -> str:
        return self.name.split()[0]


@dataclass(slots=True)
class People:
    riders: list[Rider]
    drivers: list[Driver]


def _name(rng: Random) -> str:
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def _changed(rng: Random, created_ms: int, start_ms: int, end_ms: int) -> int:
    """When a row was last changed: seldom within the simulated time, else somewhere before it."""
    if created_ms >= start_ms:
        return created_ms
    if rng.random() < 0.02:
        return rng.randrange(start_ms, end_ms)
    return created_ms if rng.random() < 0.6 else rng.randrange(created_ms, start_ms)


def _skew(rng: Random) -> int:
    """How far a wrong clock is off: minutes mostly, hours where a time zone was set by hand, seldom a day."""
    kind = rng.random()
    if kind < 0.6:
        return round(rng.gauss(0, 12)) * MINUTE + rng.randrange(SECOND)
    if kind < 0.9:
        return rng.choice((-5, -3, -2, -1, 1, 2, 3, 8)) * HOUR
    return rng.choice((-1, 1)) * DAY


def new_phone(rng: Random, sent_at: SentAt) -> Phone:
    """A phone on which the app has just been installed."""
    system = "ios" if rng.random() < 0.45 else "android"
    maker, model, name, version, width, height = rng.choice(_PHONES[system])
    app_version, build = rng.choice(_VERSIONS)
    library = "analytics-swift" if system == "ios" else "analytics-kotlin"
    wifi = rng.random() < 0.3
    locale = rng.choice(("en-GB", "en-GB", "en-US", "de-DE", "pt-PT"))
    context = {
        "app": {"name": "Rebu", "version": app_version, "build": build, "namespace": "example.rebu.rider"},
        "device": {"id": uuid_text(rng), "manufacturer": maker, "model": model, "name": name, "type": system},
        "library": {"name": library, "version": "1.7.3" if system == "ios" else "1.19.2"},
        "locale": locale,
        "network": {"bluetooth": False, "cellular": not wifi, "wifi": wifi},
        "os": {"name": "iOS" if system == "ios" else "Android", "version": version},
        "screen": {"width": width, "height": height},
        "timezone": "Atlantic/Reykjavik",
    }
    wrong_clock, stamps_anyway, skew_ms = rng.random() < 0.06, rng.random() < 0.15, _skew(rng)
    stamps = sent_at == "always" or (sent_at == "some" and (wrong_clock or stamps_anyway))
    style = rng.random()
    if system == "ios":
        user_agent = f"Rebu/{app_version} ({name.split(' Pro')[0]}; iOS {version}; Scale/3.00)"
    else:
        user_agent = f"Rebu/{app_version} (Linux; Android {version}; {model}) okhttp/4.12.0"
    return Phone(
        anonymous_id=uuid_text(rng),
        context=msgspec.Raw(msgspec.json.encode(context)),
        user_agent=user_agent,
        # Networks set aside for documentation (RFC 5737).
        address=f"{rng.choice(('192.0.2', '198.51.100', '203.0.113'))}.{rng.randrange(1, 255)}",
        api="/v2" if build >= "74200" else "",
        flush_ms=rng.choice((10, 30, 30, 30, 60)) * SECOND,
        time_style="offset" if style < 0.1 else "epoch" if style < 0.12 else "utc",
        alias_at_login=rng.random() < 0.04,
        gzips=rng.random() < 0.3,
        stamps=stamps,
        skew_ms=skew_ms if stamps and wrong_clock else 0,
    )


def _rider(rng: Random, number: int, start_ms: int, end_ms: int) -> Rider:
    name = _name(rng)
    # Three in a hundred sign up while we watch.
    created = rng.randrange(start_ms, end_ms) if rng.random() < 0.03 else start_ms - rng.randrange(DAY, 900 * DAY)
    return Rider(
        user_id=f"u-{number:06d}",
        name=name,
        email=f"{name.lower().replace(' ', '.')}{number}@mail.example",
        phone_number=f"+999555{number:07d}",
        created_ms=created,
        updated_ms=_changed(rng, created, start_ms, end_ms),
        home=city.home_zone(rng),
        work=city.work_zone(rng),
    )


def _plate(rng: Random) -> str:
    return f"{''.join(rng.choices('ABCDEFGHKLMNPRSTVXZ', k=2))} {rng.randrange(1000, 10000)}"


def populate(riders: int, seed: int, start_ms: int, end_ms: int, sent_at: SentAt) -> People:
    """`riders` riders with their phones, and as many drivers as they need."""
    rng = generator(seed, "people")
    everybody = [_rider(rng, number, start_ms, end_ms) for number in range(1, riders + 1)]
    phones = generator(seed, "phones")
    for index, rider in enumerate(everybody):
        before = everybody[index - 1] if index else None
        if before is not None and not before.phones[0].shared and phones.random() < 0.05:
            phone = before.phones[0]
            phone.shared = True
            rider.phones.append(phone)
        else:
            phone = new_phone(phones, sent_at)
            rider.phones.append(phone)
            if rider.created_ms < start_ms and phones.random() < 0.7:
                phone.user = rider
        if phones.random() < 0.05:
            rider.phones.append(new_phone(phones, sent_at))
    rng = generator(seed, "drivers")
    drivers = []
    for number in range(1, max(3, riders // 12) + 1):
        created = start_ms - rng.randrange(DAY, 1200 * DAY)
        drivers.append(
            Driver(
                driver_id=f"d-{number:05d}",
                name=_name(rng),
                plate=_plate(rng),
                vehicle=rng.choice(VEHICLES),
                rating=round(min(5.0, rng.gauss(4.75, 0.15)), 2),
                created_ms=created,
                updated_ms=_changed(rng, created, start_ms, end_ms),
                position=city.point_in(rng, city.home_zone(rng)),
            )
        )
    return People(everybody, drivers)
