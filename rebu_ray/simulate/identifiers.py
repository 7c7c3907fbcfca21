"""Identifiers drawn from a seeded generator: the same seed names the same things."""

from __future__ import annotations

from random import Random
from typing import Final

_READABLE: Final = "23456789abcdefghjkmnpqrstvwxyz"


def generator(seed: int, purpose: str) -> Random:
    """A generator of its own for each purpose, so that a change in one part leaves the others as they were.

    Seeding with text goes through SHA-512 and is the same in every process.
    """
    return Random(f"rebu/{seed}/{purpose}")


def uuid_text(rng: Random) -> str:
    """A version 4 UUID, as SDKs make them."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def request_id(rng: Random) -> str:
    """32 hexadecimal digits, as nginx's ``$request_id``."""
    return f"{rng.getrandbits(128):032x}"


def readable(rng: Random, length: int) -> str:
    """Letters and digits that cannot be mistaken for one another when read aloud."""
    return "".join(rng.choices(_READABLE, k=length))


def ride_id(rng: Random) -> str:
    """Ten readable characters: few enough to quote in a message, too many to guess."""
    return f"r-{readable(rng, 10)}"
