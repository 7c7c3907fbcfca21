"""Portmere and Eastholm, two invented towns on one bay: zones, places in them, distances."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Final

EARTH_RADIUS_M: Final = 6_371_008.8
# In the open Atlantic, so that nobody takes a made-up ride for a real one.
_ORIGIN: Final = (44.100, -27.400)
_METRES_PER_DEGREE: Final = math.pi * EARTH_RADIUS_M / 180

Point = tuple[float, float]
"""Latitude and longitude in degrees."""


def great_circle_m(here: Point, there: Point) -> float:
    """Metres between two points on a sphere (haversine)."""
    lat1, lon1, lat2, lon2 = map(math.radians, (*here, *there))
    half = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(half))


def moved(point: Point, north_m: float, east_m: float) -> Point:
    """`point` moved by metres, on six decimals (0.1 m) as phones report positions."""
    lat = point[0] + north_m / _METRES_PER_DEGREE
    lon = point[1] + east_m / (_METRES_PER_DEGREE * math.cos(math.radians(point[0])))
    return round(lat, 6), round(lon, 6)


def between(start: Point, end: Point, fraction: float) -> Point:
    """The point that lies `fraction` of the way; over a town a straight line will do."""
    return (
        round(start[0] + (end[0] - start[0]) * fraction, 6),
        round(start[1] + (end[1] - start[1]) * fraction, 6),
    )


@dataclass(frozen=True, slots=True)
class Zone:
    """A part of the city. The weights say how much of life happens here: homes, work, going out."""

    zone_id: str
    name: str
    city: str
    centre: Point
    radius_m: float
    home: float
    work: float
    leisure: float
    places: tuple[str, ...]


def _zone(
    zone_id: str, name: str, city: str, km: tuple[float, float], radius_m: float,
    weights: tuple[float, float, float], *places: str,
) -> Zone:  # fmt: skip
    return Zone(zone_id, name, city, moved(_ORIGIN, km[0] * 1000, km[1] * 1000), radius_m, *weights, places)


_P, _E = CITIES = ("Portmere", "Eastholm")
ZONES: Final[tuple[Zone, ...]] = (
    _zone("z01", "Old Mint", _P, (0.2, 0.1), 700, (2, 9, 8), "Mint Square", "the Exchange", "Coin Hall"),
    _zone("z02", "Harbour Gate", _P, (-0.9, 0.8), 800, (3, 6, 9), "Pier Nine", "the Fish Market", "Harbour Gate"),
    _zone("z03", "Lantern Hill", _P, (1.5, -0.7), 900, (8, 2, 4), "Lantern Park", "the Observatory", "Hilltop Row"),
    _zone("z04", "Quillon", _P, (1.9, 1.2), 900, (6, 5, 3), "Quillon Station", "Weaver Street", "Quillon Baths"),
    _zone("z05", "Saltmarsh", _P, (-2.3, -0.6), 1100, (9, 1, 2), "Saltmarsh Green", "Heron Close", "the Sluice"),
    _zone("z06", "Central Station", _P, (0.4, 1.4), 500, (2, 7, 5), "Central Station", "Platform Court", "the Clock"),
    _zone("z07", "University", _P, (0.9, -1.9), 800, (5, 7, 6), "the Library", "Faculty Lane", "the Old Lab"),
    _zone("z08", "Brickfields", _P, (2.9, 0.1), 1200, (9, 2, 2), "Kiln Road", "Brickfields Market", "Clay Yard"),
    _zone("z09", "Mercer's Row", _P, (-0.1, -0.8), 600, (3, 8, 7), "the Arcade", "Mercer Theatre", "Silk Passage"),
    _zone("z10", "St Orla Hospital", _P, (1.2, 2.6), 600, (2, 8, 1), "St Orla Hospital", "Clinic Gate", "Ward Street"),
    _zone("z11", "Tannery", _P, (-1.6, 1.9), 900, (4, 3, 9), "the Tannery", "Vat House", "Hide Wharf"),
    _zone("z12", "Northmoor", _P, (5.1, -1.1), 1700, (9, 1, 1), "Moor Farm", "Northmoor School", "Peat Lane"),
    _zone("z13", "Westcliff", _P, (0.3, -4.4), 1400, (8, 2, 3), "Cliff Walk", "the Lighthouse", "Gorse Avenue"),
    _zone("z14", "Gullwick Airport", _P, (-6.8, -3.9), 900, (0.5, 4, 3), "Terminal 1", "Terminal 2", "Gullwick Cargo"),
    _zone("z15", "Ropewalk", _P, (-0.6, 2.4), 700, (5, 5, 6), "the Ropewalk", "Hemp Lane", "Sailmakers"),
    _zone("z16", "Kingsmere Park", _P, (3.6, 2.9), 1300, (7, 1, 4), "Kingsmere Lake", "the Bandstand", "Park Crescent"),
    _zone("z17", "Eastholm Quay", _E, (0.1, 6.2), 800, (4, 6, 7), "Quay Steps", "the Customs House", "Ferry Dock"),
    _zone("z18", "Millrace", _E, (1.7, 6.9), 1000, (8, 3, 2), "the Mill", "Race Bridge", "Millrace Court"),
    _zone("z19", "Foundry Park", _E, (-1.5, 7.3), 1100, (2, 9, 1), "Foundry Campus", "Gate B", "Anvil House"),
    _zone("z20", "Harrow Vale", _E, (3.2, 8.4), 1500, (9, 1, 1), "Vale Gardens", "Harrow Green", "Orchard End"),
    _zone("z21", "The Stadium", _E, (-0.4, 8.9), 700, (1, 2, 8), "the Stadium", "North Stand", "Box Office"),
    _zone("z22", "Seacombe", _E, (-3.9, 7.8), 1500, (7, 1, 5), "Seacombe Beach", "the Pavilion", "Dune Road"),
)  # fmt: skip

_HOME: Final = [zone.home for zone in ZONES]
_WORK: Final = [zone.work for zone in ZONES]
_LEISURE: Final = [zone.leisure for zone in ZONES]


def home_zone(rng: Random) -> Zone:
    """Where somebody lives."""
    return rng.choices(ZONES, _HOME)[0]


def work_zone(rng: Random) -> Zone:
    """Where somebody works."""
    return rng.choices(ZONES, _WORK)[0]


def leisure_zone(rng: Random) -> Zone:
    """Where somebody goes out."""
    return rng.choices(ZONES, _LEISURE)[0]


def point_in(rng: Random, zone: Zone) -> Point:
    """A point in the zone, denser towards its centre."""
    angle = rng.random() * 2 * math.pi
    reach = zone.radius_m * rng.random()
    return moved(zone.centre, reach * math.cos(angle), reach * math.sin(angle))


def scattered(rng: Random, point: Point, deviation_m: float) -> Point:
    """`point` as a receiver with that standard deviation sees it."""
    return moved(point, rng.gauss(0, deviation_m), rng.gauss(0, deviation_m))
