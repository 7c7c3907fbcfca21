"""Times and days in words: which stretch of time "last Friday evening" is, said at an instant in a zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import IntEnum
from itertools import islice
from typing import Final

from rebu_ray.process.matching.text import said

_MINUTE: Final = 60_000
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ORDINALS: Final = {
    word: number
    for number, word in enumerate(
        ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
         "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth",
         "twentieth"], start=1,
    )
} | {"thirtieth": 30}  # fmt: skip
PARTS: Final = {
    "early hours": (0, 6), "small hours": (0, 6), "early morning": (4, 9), "morning": (4, 12), "breakfast": (6, 10),
    "noon": (11, 14), "midday": (11, 14), "lunchtime": (11, 15), "lunch time": (11, 15), "lunch": (11, 15),
    "early afternoon": (12, 15), "late afternoon": (15, 18), "afternoon": (12, 18), "rush hour": (7, 19),
    "early evening": (17, 20), "evening": (17, 23), "dinner": (18, 22), "late at night": (22, 29), "night": (19, 29),
}  # fmt: skip
"""Part of a day -> its hours; those from 24 on are the next day's."""

_MONTH: Final = r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b"  # noqa: E501
_DAY_OF_MONTH: Final = rf"((?:20[ -]|30 )?(?:{'|'.join(_ORDINALS)})|\d{{1,2}}(?:st|nd|rd|th)?)"
_WEEKDAY: Final = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|(?<=\bon )(?:mon|tues?|wed|thur?s?|fri|sat|sun)\b"
_DAY: Final = re.compile(
    r"(?P<before>\bthe day before yesterday\b|\b2 days? (?:ago|before today)\b)"
    r"|(?P<lastnight>\blast ?night\b|\byesterday night\b)"
    r"|(?P<yesterday>\byesterday\b|\byesterday'?s\b|\byday\b)"
    r"|(?P<today>\btoday\b|\btoday'?s\b|\bearlier today\b|\btonight\b|\bthis (?:very )?(?=morning|afternoon|evening|"
    r"noon|lunch))"
    r"|(?P<now>\bjust now\b|\ba moment ago\b|\bright now\b|\bminutes ago\b(?<!\d minutes ago)|\bat this moment\b)"
    r"|(?P<ago>\b(\d{1,2}|an?|half an?|a couple of|couple of|a few|some) (minute|min|hour|hr|day|night|week|month)s? (?:ago|back|earlier)\b)"  # noqa: E501
    r"|(?P<vague>\bthe other (?:day|night|evening)\b|\bearlier this week\b|\bthis week\b|\blast week(?!end)\b|"
    r"\blast month\b|\bthis month\b|\ba while (?:ago|back)\b|\brecently\b)"
    r"|(?P<weekend>\b(?:last|this|at the|on the|over the|past) weekend\b)"
    rf"|(?P<date>\b{_DAY_OF_MONTH} (?:day )?(?:of )?{_MONTH}(?:[ ,]+(20\d\d|20 \d\d))?"
    rf"|\b{_MONTH}\.? (?:the )?{_DAY_OF_MONTH}\b(?:[ ,]+(20\d\d|20 \d\d))?)"
    r"|(?P<iso>\b(20\d\d)-(\d\d)-(\d\d)\b)"
    r"|(?P<slash>(?<![\d/.])(?!24/7|1/2|1/4|3/4)(?:\d{1,2}/\d{1,2}(?:/(?:20\d\d|\d\d))?(?![\d/])"
    r"|\d{1,2}\.\d{1,2}\.(?:20\d\d|\d\d)?(?!\d)))"
    rf"|(?P<weekday>(?:\b(last|this|past|previous)(?: week'?s?)? )?\b(?:{_WEEKDAY}))"
    r"|(?P<nth>\bon the (\d{1,2})(?:st|nd|rd|th)\b(?! (?:of |day )?" + _MONTH + "))"
)
_PART: Final = re.compile(rf"\b({'|'.join(sorted(PARTS, key=len, reverse=True))})s?\b")
_AT: Final = (
    r"(?:\b(?:at|around|about|approximately|approx|by|circa|ca|before|after|since|from|until|till|was|near|nearly|it's|"
    r"say|like|just|shortly|maybe)\.? |~ ?|@ ?|\()"
)
_NO_UNIT: Final = (
    r"(?! ?(?:€|\$|£|%|eur|usd|gbp|chf|dollars?|bucks?|pounds?|quid|cents?|minutes?|mins?|min\b|hours?|hrs?|days?|"
    r"nights?|"
    r"weeks?|months?|years?|km|kilo|miles?|metres|meters|people|persons|times|stars?|of (?:us|my|the|your|them)|per|"
    r"blocks|streets?|(?:different|other|more) ))"
)
_CLOCK: Final = re.compile(
    r"(?P<colon>(?<![\d:.,])([01]?\d|2[0-4])[:h]([0-5]\d)(?::[0-5]\d)?(?![\d:])(?: ?(a\.?m|p\.?m)\b)?)"
    r"|(?P<half>(?<!\d )\b(half|quarter|a quarter|\d{1,2}(?: minutes?| mins?)?) (past|to|after|before) (\d{1,2}|noon|midnight)\b(?: ?[ap]\.?m\b)?(?! minutes| ?€|\d|[.:,]\d))"  # noqa: E501
    r"|(?P<halfeight>\bhalf (\d{1,2})\b)"
    r"|(?P<ampm>(?<![\d:.,])(\d{1,2})(?:[ .](\d{1,2}))? ?(a\.?m|p\.?m)\b)"
    r"|(?P<oclock>\b(\d{1,2}) ?o'? ?clock\b)"
    rf"|(?P<dot>{_AT}([01]?\d|2[0-4])\.([0-5]\d)(?![\d.])(?! ?\d){_NO_UNIT})"
    rf"|(?P<at>{_AT}([01]?\d|2[0-4])(?: ([0-5]?\d))?(?![\d.:,/-]*\d|st\b|nd\b|rd\b|th\b)\b{_NO_UNIT})"
    r"|(?P<part>\b(\d{1,2})(?: (\d{2}))? (?=(?:in the|at|this|in) (?:morning|afternoon|evening|night)\b))"
    r"|(?P<word>\b(?:at |around |about |past |after )(?:12 )?(noon|midday|midnight)\b)"
)
_BREAK: Final = re.compile(r"[!?\n;]|\. ")
_MOST: Final = 40
"""Days and times that are looked at in a text."""
_REACH: Final = 42
_PART_REACH: Final = 16


class Precision(IntEnum):
    """How narrow a moment is; a smaller one says more."""

    CLOCK = 0
    """A time of a known day."""
    HOUR = 1
    """A time of day, the day unsaid."""
    PART = 2
    """A part of a known day."""
    DAY = 3
    SPAN = 4
    """A week or so."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a text says about when. `day` is (kind, numbers); `clock` minutes of the day; `exact` knows am from pm."""

    text: str
    day: tuple[str, int, int, int] | None = None
    clock: int | None = None
    exact: bool = False
    part: tuple[int, int] | None = None

    @property
    def precision(self) -> Precision:
        """How much it says."""
        if self.day is None:
            return Precision.HOUR
        if self.day[0] == "minutes":
            return Precision.CLOCK
        if self.day[0] in ("days", "weekend"):
            return Precision.SPAN
        if self.clock is not None:
            return Precision.CLOCK
        return Precision.DAY if self.part is None else Precision.PART


Interval = tuple[int, int]
"""From and until, ms since the epoch, UTC."""


def moments(text: str) -> list[Moment]:
    """The times and days in a text, each day joined with the time beside it."""
    return moments_said(said(text))


def moments_said(text: str) -> list[Moment]:
    """As `moments`, of a text that went through `text.said`."""
    days = [
        (match.start(), match.end(), spec)
        for match in islice(_DAY.finditer(text), _MOST)
        if (spec := _day(match)) is not None
    ]
    parts = [(match.start(), match.end(), PARTS[match[1]]) for match in islice(_PART.finditer(text), _MOST)]
    clocks = []
    for match in islice(_CLOCK.finditer(text), _MOST):
        inside = any(start <= match.start() < end or start < match.end() <= end for start, end, _ in days)
        value = _clock(match)
        if value is not None and not inside:
            clocks.append((match.start(), match.end(), value))
    found: list[tuple[int, Moment]] = []
    free_clocks = list(range(len(clocks)))
    for start, end, day in days:
        nearest = min(free_clocks, key=lambda i: _gap(text, start, end, *clocks[i][:2]), default=None)
        if nearest is not None and _gap(text, start, end, *clocks[nearest][:2]) > _REACH:
            nearest = None
        part = None if day[0] == "lastnight" else _part_near(text, start, end, parts)
        spec = day
        if day[0] == "lastnight":
            spec, part = ("ago", 1, 0, 0), (19, 29)
        elif day[0] == "tonight":
            spec, part = ("ago", 0, 0, 0), (16, 29)
        if nearest is None:
            found.append((start, Moment(text[start:end], spec, part=part)))
            continue
        free_clocks.remove(nearest)
        at, until, (minutes, exact) = clocks[nearest]
        part = part or _part_near(text, at, until, parts)
        minutes, exact = _sided(minutes, exact, part)
        words = text[min(start, at) : max(end, until)]
        found.append((min(start, at), Moment(words, spec, minutes, exact, part)))
    for i in free_clocks:
        at, until, (minutes, exact) = clocks[i]
        minutes, exact = _sided(minutes, exact, _part_near(text, at, until, parts))
        found.append((at, Moment(text[at:until].strip(" ("), None, minutes, exact)))
    return [moment for _, moment in sorted(found, key=lambda item: item[0])]


def intervals(moment: Moment, sent_at: int, zone: tzinfo) -> list[Interval]:
    """The stretches of time that `moment` may mean, said at `sent_at` (ms) by somebody in `zone`.

    Empty for a time of day whose day is unsaid: see `at_day`.
    """
    if moment.day is None:
        return []
    kind, first, second, third = moment.day
    if kind == "minutes":
        slack = max(5 * _MINUTE, first * second * _MINUTE // 100)
        middle = sent_at - first * _MINUTE
        return [(middle - slack, min(middle + slack, sent_at))]
    local = datetime.fromtimestamp(sent_at / 1000, UTC).astimezone(zone)
    if kind == "days":
        return [
            (
                _ms(local.date() - timedelta(days=second), 0, zone),
                _ms(local.date() - timedelta(days=first), 24 * 60, zone),
            )
        ]
    if kind == "weekend":
        saturday = local.date() - timedelta(days=(local.weekday() - 5) % 7)
        return [(_ms(saturday - timedelta(days=1), 17 * 60, zone), _ms(saturday, 48 * 60, zone))]
    found = []
    for day in _dates(kind, first, second, third, local.date()):
        found += at_day(moment, day, zone)
    return found


def at_day(moment: Moment, day: date, zone: tzinfo) -> list[Interval]:
    """The stretches of `day` that `moment` may mean: its time, its part of the day, or all of it."""
    if moment.clock is None:
        low, high = moment.part or (0, 24)
        found = [(_ms(day, low * 60, zone), _ms(day, high * 60, zone))]
        if high > 24 and (moment.day is None or moment.day[0] != "ago" or moment.day[1] == 0):
            found.append(
                (_ms(day, 0, zone), _ms(day, (high - 24) * 60, zone))
            )  # "in the night of Sunday" is two nights
        return found
    minutes = [moment.clock] if moment.exact else [moment.clock % 720, moment.clock % 720 + 720]
    if moment.part is not None and moment.part[1] > 24 and moment.clock < 6 * 60:
        minutes = [moment.clock + 24 * 60, moment.clock]  # "Saturday night at 1 am" is Sunday's
    elif moment.clock % 1440 == 0:
        minutes = [0, 24 * 60]
    return [(at, at) for at in (_ms(day, minute, zone) for minute in minutes)]


def _ms(day: date, minutes: int, zone: tzinfo) -> int:
    extra, minutes = divmod(minutes, 24 * 60)
    try:
        local = datetime(day.year, day.month, day.day, minutes // 60, minutes % 60, tzinfo=zone) + timedelta(days=extra)
        return int(local.timestamp()) * 1000
    except (OverflowError, ValueError):  # before the year 1 or after 9999
        return -(2**62)


def _dates(kind: str, first: int, second: int, third: int, today: date) -> list[date]:
    if kind == "ago":
        return [today - timedelta(days=first)]
    if kind == "weekday":
        back = (today.weekday() - first) % 7
        # "last Friday" on a Sunday may be the day before yesterday or nine days ago; "on Sunday" that day, today.
        options = [back or 7, back + 7] if second == 1 and 0 < back <= 4 else [back, 7] if back == 0 else [back]
        if second == 1 and back == 0:
            options = [7]
        return [today - timedelta(days=days) for days in options]
    options_dates = []
    years = [third] if third else [today.year, today.year - 1]
    if kind == "nth":
        months = [(today.year, today.month), (today.year - (today.month == 1), (today.month - 2) % 12 + 1)]
        candidates = [(year, month, first) for year, month in months]
    elif kind == "slash":
        candidates = [(y, m, d) for y in years for d, m in {(first, second): 0, (second, first): 0}]
    else:
        candidates = [(year, second, first) for year in years]
    for year, month, number in candidates:
        try:
            options_dates.append(date(year, month, number))
        except ValueError:
            continue
    past = [day for day in options_dates if day <= today + timedelta(days=1)]
    if kind == "slash" and past:
        newest = max(past)
        return [day for day in past if (newest - day).days < 300]
    return past[:1]


def _day(match: re.Match[str]) -> tuple[str, int, int, int] | None:
    kind, words = match.lastgroup, match.group()
    assert kind is not None
    if kind == "before":
        return ("ago", 2, 0, 0)
    if kind == "lastnight":
        return ("lastnight", 0, 0, 0)
    if kind == "yesterday":
        return ("ago", 1, 0, 0)
    if kind == "today":
        return ("tonight", 0, 0, 0) if words == "tonight" else ("ago", 0, 0, 0)
    if kind == "now":
        return ("minutes", 20, 100, 0)
    if kind == "ago":
        return _ago(words)
    if kind == "vague":
        return _vague(words)
    if kind == "weekend":
        return ("weekend", 0, 0, 0)
    if kind == "date":
        month = re.search(_MONTH, words)
        number = re.search(_DAY_OF_MONTH, words.replace(month.group() if month else "", " ", 1))
        year = re.search(r"\b20 ?\d\d\b", words)
        if month is None or number is None:
            return None
        value = _ordinal(number.group())
        return ("date", value, _MONTHS.index(month[1][:3]) + 1, int(year.group().replace(" ", "")) if year else 0)
    numbers = [int(number) for number in re.findall(r"\d+", words)]
    if kind == "iso":
        return ("date", numbers[2], numbers[1], numbers[0])
    if kind == "nth":
        return ("nth", numbers[0], 0, 0) if 1 <= numbers[0] <= 31 else None
    if kind == "slash":
        year_number = numbers[2] + (2000 if numbers[2] < 100 else 0) if len(numbers) > 2 else 0
        low, high = sorted(numbers[:2])
        if low < 1 or low > 12 or high > 31:
            return None
        return ("slash", numbers[0], numbers[1], year_number)
    day = next(i for i, name in enumerate(_WEEKDAYS) if name[:3] in words)
    return ("weekday", day, 1 if re.match(r"last|past|previous", words) else 0, 0)


def _ordinal(words: str) -> int:
    digits = re.match(r"\d{1,2}(?=st|nd|rd|th|$)", words)
    if digits:
        return int(digits.group())
    tens = 20 if words.startswith(("twenty", "20 ")) and words != "twentieth" else 30 if words.startswith("30 ") else 0
    return tens + _ORDINALS.get(re.split(r"[ -]", words)[-1], 0)


_ABOUT_MANY: Final = {"a": (1, 1), "an": (1, 1), "half": (0, 0), "couple": (2, 3), "few": (2, 6), "some": (2, 6)}


def _ago(words: str) -> tuple[str, int, int, int]:
    number = re.match(r"\d+", words)
    how = next((key for key in ("half", "couple", "few", "some") if key in words.split()), "a")
    low, high = (int(number.group()),) * 2 if number else _ABOUT_MANY[how]
    if re.search(r"\b(?:minute|min)", words):
        return ("minutes", max(1, (low + high) * 5 if number is None else low), 60, 0)
    if re.search(r"\b(?:hour|hr)", words):
        return ("minutes", 30 if how == "half" else (low + high) * 30, 40, 0)
    if "week" in words:
        return ("days", 7 * low - 2, 7 * high + 2, 0)
    if "month" in words:
        return ("days", 30 * low - 8, 30 * high + 8, 0)
    return ("ago", low, 0, 0) if low == high else ("days", low, high, 0)


def _vague(words: str) -> tuple[str, int, int, int]:
    if "the other" in words:
        return ("days", 1, 8, 0)
    if "this week" in words:
        return ("days", 0, 6, 0)
    if "last week" in words:
        return ("days", 2, 13, 0)
    if "last month" in words:
        return ("days", 8, 62, 0)
    if "while" in words:
        return ("days", 3, 90, 0)
    return ("days", 0, 30, 0)


def _clock(match: re.Match[str]) -> tuple[int, bool] | None:
    """(minutes of the day, whether am and pm are told apart)."""
    kind, words = match.lastgroup, match.group()
    if kind == "word":
        return (0, True) if "midnight" in words else (720, True)
    numbers = [int(number) for number in re.findall(r"\d+", words)]
    if kind == "half":
        side = re.search(r"past|after|to|before", words)
        hour = 0 if "midnight" in words else 12 if "noon" in words else numbers[-1]
        minutes = 30 if words.startswith("half") else 15 if "quarter" in words else numbers[0]
        if minutes >= 60 or hour > 24 or side is None:
            return None
        at = hour * 60 + (-minutes if side.group() in ("to", "before") else minutes)
        named = re.search(r"(noon|midnight)$|([ap])\.?m$", words)
        if named and named[2] and 1 <= hour <= 12:
            return (at % 720 + (720 if named[2] == "p" else 0), True)
        return (at % 1440, hour > 12 or named is not None)
    if kind == "halfeight":
        return (numbers[0] * 60 + 30, numbers[0] > 12) if 1 <= numbers[0] <= 12 else None
    hour, minute = numbers[0], numbers[1] if len(numbers) > 1 else 0
    if hour > 24 or minute > 59:
        return None
    half = re.search(r"([ap])\.?m$", words)
    if half:
        if not 1 <= hour <= 12:
            return (hour % 24 * 60 + minute, True)
        return (hour % 12 * 60 + (720 if half[1] == "p" else 0) + minute, True)
    if kind == "at" and hour == 0:
        return None
    # Two digits before the colon, or an hour that no twelve-hour clock has, mean the clock of 24.
    exact = hour > 12 or hour == 0 or (kind == "colon" and re.match(r"0\d", words) is not None)
    return (hour % 24 * 60 + minute, exact)


def _sided(minutes: int, exact: bool, part: tuple[int, int] | None) -> tuple[int, bool]:
    """The time on the side of noon that its part of the day asks for."""
    if exact or part is None:
        return minutes, exact
    for option in (minutes % 720, minutes % 720 + 720, minutes % 720 + 1440):
        if part[0] * 60 - 60 <= option <= part[1] * 60 + 30:
            return option % 1440, True
    return minutes, False


def _gap(text: str, start: int, end: int, other_start: int, other_end: int) -> int:
    """Characters between two places, or a great many where a sentence ends between them."""
    low, high = (end, other_start) if end <= other_start else (other_end, start)
    between = text[low:high]
    return 10_000 if _BREAK.search(between) else max(0, high - low)


def _part_near(
    text: str, start: int, end: int, parts: list[tuple[int, int, tuple[int, int]]]
) -> tuple[int, int] | None:
    near = [(gap, part) for at, until, part in parts if (gap := _gap(text, start, end, at, until)) <= _PART_REACH]
    return min(near)[1] if near else None
