"""Amounts of money in a text, in digits or as spoken."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import Final

from rebu_ray.process.matching.text import said

_UNIT: Final = r"(?:€|\$|£|eur(?:os?)?|usd|gbp|chf|dollars?|bucks?|pounds?|quid|francs?)"
_NUMBER: Final = r"(\d{1,3}(?:[ ,.']\d{3})+(?:[.,]\d{2})?|\d{1,5})(?:[.,](\d{1,2}))?(?![\d%])"
_ABOUT: Final = r"(?:(about|around|roughly|approximately|approx|nearly|almost|some|circa|ca|~|like|over|under)\.? )?"
_BEFORE: Final = re.compile(rf"{_ABOUT}{_UNIT} ?{_NUMBER}")
_AFTER: Final = re.compile(
    rf"(?<![\d.,:]){_ABOUT}{_NUMBER} ?(?:{_UNIT}(?!\w))(?: (?:and )?(\d) ?(\d)\b(?! ?[ap]\.?m\b))?"
)
_BARE: Final = re.compile(
    rf"(?<![\d.,:/-]){_ABOUT}(\d{{1,4}})[.,](\d{{2}})(?![\d.,:/%-])(?! ?(?:am|pm|a\.m|p\.m|h|km|kg|o'))"
)
# Spoken amounts have no sign between: "charged 11 50", "23 6 0", "9 05".
_SPOKEN: Final = re.compile(
    rf"\b(?:charged?|charges|paid|pay|paying|costs?|billed|bill|fare|price|total|fee|amount|invoiced|deducted|debited|"
    rf"sum|took|taken|refund(?:ed)?)\b(?: (?:me|us|my|was|is|of|for|the|it|card|at|to|a|came|by|from|account|ride|with|"
    rf"says?|said|whole|there)){{0,4}} {_ABOUT}(\d{{1,3}})(?: (?:and )?(\d{{2}}|\d(?: \d)?))?\b"
    rf"(?! ?(?:minutes?|mins?|min|hours?|days?|weeks?|times?|km|kilomet|miles?|stars?|percent|%|am|pm|o'|"
    rf"people))(?![:.,/]\d)"
)
_LIMIT_CENTS: Final = 1_000_000
_MOST: Final = 40
"""Amounts that are looked at; a longer list of them is no complaint."""


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount of money. `rough`: said to be about so much, or in whole units that may stand for a rounded one."""

    cents: int
    rough: bool
    text: str


def amounts(text: str) -> list[Amount]:
    """The amounts in a text, in the order of their places."""
    return amounts_said(said(text))


def amounts_said(text: str) -> list[Amount]:
    """As `amounts`, of a text that went through `text.said`."""
    if not any(c.isdigit() for c in text):
        return []
    found: dict[int, tuple[int, Amount]] = {}
    for pattern in (_AFTER, _BEFORE, _BARE, _SPOKEN):
        for match in islice(pattern.finditer(text), _MOST):
            whole, cents = match[2], match[3]
            if pattern is _AFTER and cents is None and match[4] is not None:
                cents = match[4] + match[5]
            place = match.start(2)
            if any(start <= place < end for start, (end, _) in found.items()):
                continue
            value = _cents(whole, cents, spoken=pattern is _SPOKEN)
            if value is not None and 0 < value <= _LIMIT_CENTS:
                rough = match[1] is not None or value % 100 == 0
                found[place] = (match.end(), Amount(value, rough, match.group().strip()))
    return [amount for _, (_, amount) in sorted(found.items())]


def _cents(whole: str, rest: str | None, spoken: bool) -> int | None:
    grouped = re.fullmatch(r"(\d{1,3}(?:[ ,.']\d{3})+)(?:[.,](\d{2}))?", whole)
    if grouped:
        whole, rest = grouped[1], grouped[2] or rest
    units = int(re.sub(r"\D", "", whole))
    if rest is None:
        return units * 100
    digits = rest.replace(" ", "")
    # "nine five" is what is left of 9.05 when spoken; "11.5" on paper is 11.50.
    return units * 100 + (int(digits) * (1 if spoken else 10) if len(digits) == 1 else int(digits))
