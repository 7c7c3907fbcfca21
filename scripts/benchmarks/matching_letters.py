"""How invented customers put things: details of a ride in words; mails, calls and chats with slips as people make."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from random import Random
from typing import Final, TypeVar

import matching_words as words

T = TypeVar("T")
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
                  "November", "December")  # fmt: skip
_ONES: Final = ("oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
                "twelve", "thirteen",
                "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")  # fmt: skip
_TENS: Final = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NTH: Final = {
    1: "first",
    2: "second",
    3: "third",
    5: "fifth",
    8: "eighth",
    9: "ninth",
    12: "twelfth",
    20: "twentieth",
    30: "thirtieth",
}
_MISHEARD: Final = {"fare": "fair", "wait": "weight", "late": "laid", "route": "root", "the": "a", "there": "their",
                    "to": "two",
                    "for": "four", "here": "hear", "night": "knight", "meet": "meat", "paid": "pate",
                    "driver": "drive her",
                    "trip": "chip", "card": "car", "plate": "late", "eight": "ate", "nine": "mine"}  # fmt: skip


class Writer:
    """Draws from the lists of words; `thirds` tells from which entries: at 0, 3, …; at 1, 4, …; at 2, 5, …"""

    def __init__(self, rng: Random, thirds: frozenset[int]) -> None:
        self.rng = rng
        self.thirds = thirds

    def pick(self, options: Sequence[T]) -> T:
        """One of the options that are of our thirds."""
        mine = [option for place, option in enumerate(options) if place % 3 in self.thirds]
        return self.rng.choice(mine or list(options))

    def clock(self, at: datetime) -> str:
        """A time of day as somebody remembers it."""
        step = self.rng.choice((1, 5, 5, 10, 15, 30))
        at += timedelta(minutes=step / 2)
        at -= timedelta(minutes=at.minute % step)
        h12 = (at.hour + 11) % 12 + 1
        following = at.hour % 12 + 1
        if at.minute == 0:
            fraction = f"{h12} o'clock"
        elif at.minute <= 30:
            fraction = {15: f"quarter past {h12}", 30: f"half past {h12}"}.get(at.minute, f"{at.minute} past {h12}")
        else:
            fraction = {45: f"quarter to {following}"}.get(at.minute, f"{60 - at.minute} to {following}")
        form = self.pick(words.CLOCKS)
        if at.minute and "{mm}" not in form and "{fraction}" not in form:
            form = self.pick([form for form in words.CLOCKS if "{mm}" in form])
        return form.format(
            h24=at.hour, h12=h12, mm=f"{at.minute:02d}", half="am" if at.hour < 12 else "pm", fraction=fraction
        )

    def when(self, at: datetime, said: datetime) -> str:
        """A day, mostly with a time, as said at `said`; both on the clocks of the ride's city."""
        days = (said.date() - at.date()).days
        part = (
            "morning" if 4 <= at.hour < 12 else "afternoon" if at.hour < 17 else "evening" if at.hour < 22 else "night"
        )
        if at.hour < 4:
            part = "night"
        forms = words.DAYS_TODAY if days <= 0 else words.DAYS_YESTERDAY if days == 1 else words.DAYS_DATE
        if 2 <= days < 7 and self.rng.random() < 0.65:
            forms = words.DAYS_WEEK
        elif days >= 4 and self.rng.random() < 0.2:
            forms = words.DAYS_FAR
        nth = f"{at.day}{'th' if 10 < at.day < 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(at.day % 10, 'th')}"
        day = self.pick(forms).format(
            part=part, weekday=_WEEKDAYS[at.weekday()], ago=days, month=_MONTHS[at.month - 1],
            mon=_MONTHS[at.month - 1][:3],
            month_number=at.month, day=at.day, nth=nth,
        )  # fmt: skip
        if forms is words.DAYS_FAR or "hours ago" in day or self.rng.random() < 0.35:
            return day
        clock = self.clock(at)
        return f"{day} {clock}" if self.rng.random() < 0.75 else f"{clock} {day}"

    def amount(self, cents: int) -> str:
        """An amount, to the cent or rounded."""
        exact = self.rng.random() < 0.7
        form = self.pick(words.AMOUNT_FORMS if exact else words.ROUND_FORMS)
        units = cents // 100 if exact else round(cents / 100)
        return form.format(units=units, cents=f"{cents % 100:02d}")

    def misspelt(self, word: str) -> str:
        """A name as somebody writes it who has only heard it."""
        swaps = (
            ("c", "k"),
            ("ph", "f"),
            ("ie", "y"),
            ("tt", "t"),
            ("v", "w"),
            ("j", "y"),
            ("z", "s"),
            ("i", "y"),
            ("e", "a"),
        )
        fitting = [(a, b) for a, b in swaps if a in word[1:]]
        if not fitting:
            return word + word[-1]
        a, b = self.rng.choice(fitting)
        return word[0] + word[1:].replace(a, b, 1)

    def typed(self, text: str, slips: float) -> str:
        """`text` as typed in a hurry: letters swapped, lost or doubled, on average `slips` of them."""
        out = text
        while slips > 0 and self.rng.random() < slips and len(out) > 8:
            at = self.rng.randrange(1, len(out) - 2)
            kind = self.rng.randrange(3)
            if out[at].isalpha() or self.rng.random() < 0.15:
                out = (
                    out[:at] + out[at + 1] + out[at] + out[at + 2 :],
                    out[:at] + out[at + 1 :],
                    out[:at] + out[at] + out[at:],
                )[kind]
            slips -= 0.5
        return out

    def spoken(self, text: str) -> str:
        """`text` as a recogniser writes down what was said."""
        rng = self.rng
        plain = re.sub(r"€\s?(\d+)[.,](\d\d)", r"\1 euros \2", text)
        plain = re.sub(r"(\d+)[.,](\d\d) ?(?:€|eur\b)", r"\1 euros \2", plain)
        plain = re.sub(r"(\d+)€(\d\d)", r"\1 euros \2", plain)
        plain = plain.replace("€", " euros ").replace("@", "at")
        plain = re.sub(r"\b(\d{1,2})(st|nd|rd|th)\b", lambda m: _ordinal(int(m[1])), plain)
        plain = re.sub(r"(\d)[:.,/](\d)", r"\1 \2", plain)
        plain = re.sub(r"(\d)(am|pm)\b", r"\1 \2", plain)
        plain = re.sub(
            r"\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{5,}\b", lambda m: " ".join(m.group().replace("-", "")), plain
        )
        plain = re.sub(r"\b([A-Z]{2,3}) (\d{3,4})\b", lambda m: " ".join(m[1] + m[2]), plain)
        plain = re.sub(r"\d+", lambda m: _number(m.group()), plain.lower())
        plain = re.sub(r"[^\w\s']", " ", plain)
        out = []
        for word in plain.split():
            chance = rng.random()
            if chance < 0.03:
                continue
            if chance < 0.08:
                out.append(rng.choice(("uh", "erm", "uhm", "like", "you know", "i mean")))
            elif chance < 0.10:
                out.append(word)
            out.append(_MISHEARD.get(word, word) if rng.random() < 0.12 else word)
        return " ".join(out)

    def call(self, sentences: Sequence[str], name: str, last: bool | None) -> str:
        """A transcript in turns or WebVTT. `last`: the answer when asked if it was the last ride; None: not asked."""
        rng = self.rng
        agent = rng.choice(("lucy", "ahmed", "pauline"))
        spoken = [self.spoken(sentence) for sentence in sentences]
        cut = max(1, len(spoken) // 2)
        turns = [("agent", self.pick(words.AGENT_GREETS).format(agent=agent)), ("caller", " ".join(spoken[:cut]))]
        turns.append(("agent", self.pick(words.AGENT_ASKS)))
        if spoken[cut:]:
            turns += [("caller", " ".join(spoken[cut:]))]
        if last is not None:
            turns += [("agent", self.pick(words.AGENT_CHECKS)), ("caller", self.pick(words.YES if last else words.NO))]
        turns += [("agent", "i have noted that thank you"), ("caller", f"bye this was {name.lower()}")]
        who = rng.choice(
            (
                {"agent": "Agent", "caller": "Customer"},
                {"agent": "Rebu", "caller": "Rider"},
                {"agent": "AGENT", "caller": "CALLER"},
            )
        )
        if rng.random() < 0.5:
            return "\n".join(f"{who[side]}: {text}" for side, text in turns if text)
        cues, at = ["WEBVTT - call", ""], 0.0
        for number, (side, text) in enumerate(turns):
            if text:
                cues += [
                    str(number + 1),
                    f"{_cue(at)} --> {_cue(at + 3)}",
                    f"<v {who[side]}>{html.escape(text)}</v>",
                    "",
                ]
                at += 3.5
        return "\n".join(cues)

    def mail(self, sender: str, subject: str, text: str, at: datetime, quoted: str | None) -> str:
        """A raw mail: plain, with HTML beside it, or HTML alone; a signature, and what it answers below it."""
        rng = self.rng
        message = EmailMessage(policy=SMTP)
        message["From"], message["To"], message["Subject"] = sender, "care@rebu.example", subject
        message["Message-ID"] = f"<{rng.getrandbits(64):x}@post.example>"
        below = ""
        if quoted is not None:
            lead = rng.choice(("On {:%d/%m/%Y %H:%M}, Rebu <care@rebu.example> wrote:", "-----Original Message-----"))
            mark = "" if lead.startswith("-") else "> "
            below = "\n\n" + lead.format(at) + "\n" + "\n".join(mark + line for line in quoted.split("\n"))
        if rng.random() < 0.2:
            text += rng.choice(
                (
                    "\n\n-- \nT. 555 0199 23\nSent 12.03",
                    "\n\nSent from my phone",
                    "\n\n--\nBook by 18:00, save 20.00 EUR",
                )
            )
        page = "<html><head><style>p{{margin:0}}</style></head><body>{}</body></html>\n".format(
            "".join(f"<p>{html.escape(line)}</p>" for line in (text + below).split("\n"))
        )
        form = rng.random()
        if form < 0.15:
            message.set_content(page, subtype="html")
        else:
            message.set_content(text + below + "\n", charset=rng.choice(("utf-8", "iso-8859-15")))
            if form < 0.4:
                message.add_alternative(page, subtype="html")
                message.set_boundary(f"=_{rng.getrandbits(96):024x}")
        return message.as_string()


def _cue(seconds: float) -> str:
    return f"{int(seconds) // 3600:02d}:{int(seconds) // 60 % 60:02d}:{seconds % 60:06.3f}"


def _number(digits: str) -> str:
    value = int(digits)
    if digits.startswith("0") or len(digits) > 2:
        return " ".join(_ONES[int(digit)] for digit in digits)
    if value < 20:
        return _ONES[value]
    return _TENS[value // 10] + (f" {_ONES[value % 10]}" if value % 10 else "")


def _ordinal(value: int) -> str:
    if value in _NTH:
        return _NTH[value]
    if value < 20:
        return f"{_ONES[value]}th"
    return f"{_TENS[value // 10]} {_NTH.get(value % 10, f'{_ONES[value % 10]}th')}"
