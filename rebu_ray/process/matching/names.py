"""Drivers' names, number plates and cars in a text, also misspelt, misheard or half remembered."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import jellyfish
from rapidfuzz.distance import OSA

from rebu_ray.process.matching.text import tokens

_NAME: Final = r"([a-z][a-z'-]{1,20})"
_CLAIM: Final = re.compile(
    rf"\b(?:driver|chauffeur|cabbie)(?:'s)?(?: name)?,? (?:was |is |were |must be |i think |might be |may be |called |"
    rf"named |by the name of |a |an |some |certain |the |guy |man |woman |lady |gentleman |mr\.? |mrs\.? |ms\.? "
    rf")*{_NAME}\b"
    rf"|\b{_NAME},? (?:who )?(?:was|is|were|has been|had been) (?:driving|at the wheel|behind the wheel|the driver|"
    rf"my driver|"
    rf"our driver|the one driving)\b|\b{_NAME},? (?:who )?(?:drove|picked|came|drives|collected|turned up|showed up)\b"
    rf"|\b(?:called|named|name is|name was|name of|name's|by|with|to|from|thank|ask|certain|some|driver|mr\.?|"
    rf"mrs\.?|ms\.?|"
    rf"goes by) {_NAME}\b"
)  # fmt: skip
_PROPER: Final = re.compile(
    r"\b[Dd]river(?:'s name)?,? (?:was |is |called |named |a certain |by the name of |Mr\.? |Ms\.? |Mrs\.? )*"
    r"(?-i:([A-Z][a-z]{2,15}))\b|(?<![.!?:\n] )(?<!^)\b([A-Z][a-z]{2,15}) (?:was driving|drove me|drove us|picked "
    r"me up)\b"
)
_CAPITAL: Final = re.compile(r"(?<=[\w,] )[A-Z][a-z]{2,15}\b")
_COMMON_WORDS: Final = (
    "a an and are as at be been but by can did do for from had has have he her him his how i if in is it its "
    "just last like me my name never no not now of off on or our out she so such than that the them then "
    "there they this to too up us very was we went were what when where which while who why will with would "
    "you your car cab ride trip taxi man woman guy lady person rude nice late early told said kept took drove "
    "made left cancelled canceled refused ended stopped app support team rebu everyone everybody anybody "
    "somebody someone nobody street road way one two all still also again even only really quite today "
    "yesterday tonight another other same whole first second morning evening night day week monday tuesday "
    "wednesday thursday friday saturday sunday mark will may rose park stone marsh hill page grace hope joy "
    "faith frank art rich drew pat sue dawn summer"
)
_COMMON: Final = frozenset(_COMMON_WORDS.split())
"""Words that are no claim of a name by themselves, though some people bear them."""
_CAR_WORDS: Final = re.compile(
    r"\b(?:car|cab|vehicle|taxi|sedan|suv|van|drove|driving|plate|registration|licen[cs]e)\b"
)
_PLATE_WORDS: Final = re.compile(r"\b(?:plates?|registration|reg|licen[cs]e|tag|number)\b")
_COLOURS: Final = frozenset(
    ("black", "white", "grey", "gray", "silver", "red", "blue", "green", "yellow", "brown", "orange", "beige", "gold")
)
_FUZZY: Final = 0.79


@dataclass(frozen=True, slots=True)
class Named:
    """The names in a text. `claimed`: words where a driver's name would stand; `near`: those and other capitalised
    ones; `proper`: capitalised and claimed, so surely names."""

    words: frozenset[str]
    claimed: frozenset[str]
    near: frozenset[str]
    proper: frozenset[str]
    numbers: frozenset[str]
    about_car: bool
    about_plate: bool


def named(text: str, original: str = "") -> Named:
    """What `text` (through `text.said`) names; `original` is the same with its capitals."""
    words = frozenset(bare(word) for word in tokens(text))
    claimed = frozenset(
        bare(name) for match in _CLAIM.finditer(text) for name in match.groups() if name and name not in _COMMON
    )
    capitals = frozenset(bare(name) for name in _CAPITAL.findall(original) if name.lower() not in _COMMON)
    proper = frozenset(
        bare(name)
        for match in _PROPER.finditer(original)
        for name in match.groups()
        if name and name.lower() not in _COMMON
    )
    numbers = frozenset(word for word in words if word.isdigit() and len(word) >= 3)
    return Named(
        words,
        claimed,
        claimed | capitals,
        proper,
        numbers,
        bool(_CAR_WORDS.search(text)),
        bool(_PLATE_WORDS.search(text)),
    )


@lru_cache(maxsize=65_536)
def bare(word: str) -> str:
    """A word in small letters without accents or signs."""
    marks = unicodedata.normalize("NFKD", word.casefold())
    return "".join(c for c in marks if c.isalnum())


@lru_cache(maxsize=65_536)
def sound(word: str) -> str:
    """How a word sounds (Metaphone)."""
    return str(jellyfish.metaphone(word)) if word.isascii() else ""


@lru_cache(maxsize=65_536)
def alike(name: str, heard: str) -> bool:
    """Whether `heard` may be `name` misspelt or misheard (both `bare`)."""
    if len(name) < 3 or len(heard) < 3:
        return name == heard
    if OSA.normalized_similarity(name, heard) >= _FUZZY:
        return True
    # Sounds of one or two consonants are shared by half the dictionary ("Luca", "look").
    same = sound(name) == sound(heard)
    return same and (len(sound(name)) >= 3 or (len(sound(name)) == 2 and OSA.normalized_similarity(name, heard) >= 0.6))


def match_driver(name: str | None, said: Named, own: frozenset[str]) -> str | None:
    """How the driver's `name` is in a text: ``exact``, ``alike``, ``another`` (who is named is somebody else), or None.

    `own` are the names of the writer, which say nothing about the driver.
    """
    if not name:
        return None
    first, *rest = [bare(part) for part in name.split()] or [""]
    full = all(part in said.words for part in rest) if rest else False
    if first in said.words and len(first) > 2 and (first in said.claimed or full or first not in own | _COMMON):
        return "exact"
    if any(part in said.claimed and part not in own for part in rest if len(part) > 2):
        return "exact"
    if any(alike(first, heard) for heard in said.near if heard not in own):
        return "alike"
    if said.proper - own:
        return "another"
    return None


def match_plate(plate: str | None, codes: frozenset[str], said: Named) -> str | None:
    """How a number plate is in a text: ``exact``, ``part``, or None."""
    mark = "".join(c for c in (plate or "").casefold() if c.isalnum())
    if len(mark) < 4:
        return None
    if mark in codes or any(len(code) > len(mark) and mark in code for code in codes):
        return "exact"
    digits = "".join(c for c in mark if c.isdigit())
    if len(digits) >= 3 and (digits in said.numbers or digits in codes):
        letters = "".join(c for c in mark if c.isalpha())
        return "exact" if letters and letters in said.words else "part"
    if said.about_plate and any(len(code) >= len(mark) - 1 and OSA.distance(code, mark) <= 1 for code in codes):
        return "part"
    return None


def match_vehicle(model: str | None, said: Named) -> str | None:
    """How a car ("grey Toyota Corolla") is in a text: ``model`` (make or model named), ``colour``, or None."""
    words = [bare(word) for word in (model or "").split()]
    if any(word in said.words for word in words if len(word) > 2 and word not in _COLOURS and word not in _COMMON):
        return "model"
    colours = {"grey" if word == "gray" else word for word in words if word in _COLOURS}
    heard = {"grey" if word == "gray" else word for word in said.words & _COLOURS}
    return "colour" if said.about_car and colours & heard else None
