"""Text made comparable: one form of letters, signs and blanks, and numbers in digits."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_UNITS: Final = {
    word: number
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
    )
}  # fmt: skip
_TENS: Final = {
    word: 10 * number
    for number, word in enumerate(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2
    )
} | {"fourty": 40}
_NUMBER_WORD: Final = "|".join((*_UNITS, *_TENS, "hundred", "thousand"))
_RUN: Final = re.compile(
    rf"\b(?:a )?(?:{_NUMBER_WORD})(?:[ -]+(?:(?:and|point) (?=(?:{_NUMBER_WORD}|oh)\b))?(?:{_NUMBER_WORD}|oh))*\b"
)
_BEFORE_ONE: Final = re.compile(r"\b(?:at|around|about|past|to|till|until|after|before|nearly|of)\s$")
_AFTER_ONE: Final = re.compile(
    r"\s(?:am|pm|a\.m|p\.m|o'?clock|euros?|dollars?|pounds?|bucks?|cents?|minutes?|hours?|days?|weeks?)\b|\s\d"
)
_NOT_A_CLOCK: Final = re.compile(r"\s(?:point|stage|time|of|more|or)\b")
_SIGNS: Final = str.maketrans({
    "‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "–": "-", "—": " - ", "−": "-", "\u00a0": " ",
    "\u202f": " ", "\u200b": "", "\ufeff": "", "\u00ad": "", "\r": "\n",
})  # fmt: skip
_TOKEN: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_SPELT: Final = r"(?:[^\W\d_]|\d{1,3})(?![^\W_])"
_CODE: Final = re.compile(rf"(?<![^\W_]){_SPELT}(?:[ \t.,-]{{1,4}}{_SPELT})+")


def plain(text: str) -> str:
    """`text` in small letters with straight quotes and single blanks; line ends stay."""
    straight = unicodedata.normalize("NFKC", text.replace("\r\n", "\n").translate(_SIGNS)).casefold()
    return "\n".join(" ".join(line.split()) for line in straight.split("\n"))


def said(text: str) -> str:
    """`plain(text)` with number words in digits: "twenty-two euros fifty" -> "22 euros 50".

    Numbers that follow each other stay apart ("eleven fifty" -> "11 50"): whether that is a price or a time is for
    the words around it to tell. "one" alone stays a word, unless a clock or a unit is beside it.
    """
    return _RUN.sub(_numerals, plain(text))


def tokens(text: str) -> list[str]:
    """The words and numbers of `text`."""
    return _TOKEN.findall(text)


def codes(text: str) -> set[str]:
    """What may be an id or a plate in `said` text, without signs: mixed tokens, and characters spelt one by one."""
    found = {
        re.sub(r"[\W_]", "", part)
        for part in re.findall(r"[\w-]{4,}", text)
        if any(c.isdigit() for c in part)
    }  # fmt: skip
    found.update(re.sub(r"[\W_]", "", match.group()) for match in _CODE.finditer(text))
    return {code for code in found if len(code) >= 4}


def _numerals(match: re.Match[str]) -> str:
    words = match.group().replace("-", " ").split()
    if words == ["a", "one"]:
        return match.group()
    if words == ["one"]:
        before = match.string[max(0, match.start() - 12) : match.start()]
        after = match.string[match.end() : match.end() + 20]
        clock = _BEFORE_ONE.search(before) and not _NOT_A_CLOCK.match(after)
        return "1" if clock or _AFTER_ONE.match(after) else "one"
    out: list[str] = []
    value: int | None = None  # of the number being read
    room = 0  # what may still be added to it: below this
    for word in words:
        if word == "a":
            continue
        number = _UNITS.get(word, _TENS.get(word))
        if number is not None and value is not None and 0 < number < room:
            value, room = value + number, 10 if number in _TENS.values() else 0
        elif number is not None:
            out += [] if value is None else [str(value)]
            value, room = number, 10 if number >= 20 else 0
            if value == 0:
                out, value = [*out, "0"], None
            elif out and out[-1] == "0":
                out[-1], value = f"0{number}", None
        elif word in ("hundred", "thousand"):
            scale = 100 if word == "hundred" else 1000
            if value is not None and value >= scale:
                out, value = [*out, str(value)], None
            value, room = (value or 1) * scale, scale
        elif word == "oh":
            out += [] if value is None else [str(value)]
            out, value, room = [*out, "0"], None, 0
        elif word == "point":
            out += [] if value is None else [str(value)]
            out, value, room = [*out, "."], None, 0
        elif not room >= 100:  # "and" between two numbers; after a hundred it only joins
            out += [] if value is None else [str(value)]
            out, value, room = [*out, "and"], None, 0
    out += [] if value is None else [str(value)]
    return " ".join(out).replace(" . ", ".")
