"""The time zone of a city: what its people's "eight in the morning" is in UTC."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

KNOWN: Final[dict[str, tzinfo]] = {"portmere": UTC, "eastholm": UTC}
"""Cities whose zone neither the zone database nor their longitude tells: the simulator's keep UTC."""
_REGIONS: Final = ("Europe", "America", "Asia", "Africa", "Australia", "Pacific", "Atlantic")
_STEP_DEGREES: Final = 15.0


@lru_cache(maxsize=4096)
def zone_of(city: str | None, whole_hours: int = 0) -> tzinfo:
    """The zone of `city`: a known one, the zone database's zone of that name, else `whole_hours` from UTC."""
    name = " ".join((city or "").split())
    known = KNOWN.get(name.casefold())
    if known is not None:
        return known
    if name.replace(" ", "").replace("-", "").isalpha() and name.isascii():
        for region in _REGIONS:
            try:
                return ZoneInfo(f"{region}/{name.title().replace(' ', '_')}")
            except (ZoneInfoNotFoundError, OSError):
                continue
    return timezone(timedelta(hours=whole_hours)) if whole_hours else UTC


def hours_at(longitude: float | None) -> int:
    """The whole hours by which the sun of that longitude is before Greenwich, -12 to 12; 0 where it is unknown."""
    if longitude is None or not -180 <= longitude <= 180:
        return 0
    return round(longitude / _STEP_DEGREES)
