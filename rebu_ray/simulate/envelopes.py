"""The forms in which a text reaches customer service: a raw mail, a transcript of a call, a chat."""

from __future__ import annotations

import html
import re
from email.message import EmailMessage
from email.policy import SMTP
from random import Random
from typing import Final

from rebu_ray.simulate.clock import MONTHS, WEEKDAYS, moment
from rebu_ray.simulate.identifiers import readable, request_id

SUPPORT_ADDRESS: Final = "help@rebu.example"
_ONES: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS: Final = ("", "", "twenty", "thirty", "forty", "fifty")
_FILLERS: Final = ("uh", "um", "you know", "well", "so")
_AGENTS: Final = ("Mona", "Ruben", "Ines", "Tarek")
_MISHEARD: Final = {
    "ride": "right", "fare": "fair", "pier": "peer", "quay": "key", "mint": "mind", "vale": "veil",
    "tannery": "cannery", "charged": "charge", "driver": "driven", "lantern": "lan turn", "there": "their",
    "for": "four",
}  # fmt: skip


def mail(
    rng: Random, sender: str, to: str, subject: str, text: str, at: int, reply_to: str | None = None
) -> tuple[str, str]:
    """(raw RFC 5322 mail, its Message-ID). Some have an HTML part beside the text, some quote what they answer."""
    message = EmailMessage(policy=SMTP)
    message_id = f"<{readable(rng, 16)}@{sender.rpartition('@')[2]}>"
    day = moment(at)
    message["From"] = sender
    message["To"] = to
    message["Subject"] = f"Re: {subject}" if reply_to else subject
    date = f"{WEEKDAYS[day.weekday()][:3]}, {day.day:02d} {MONTHS[day.month - 1][:3]} {day.year}"
    message["Date"] = f"{date} {day:%H:%M:%S} +0000"
    message["Message-ID"] = message_id
    if reply_to:
        message["In-Reply-To"] = reply_to
        message["References"] = reply_to
    message.set_content(text + "\n")
    if rng.random() < 0.4:
        paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in text.split("\n"))
        message.add_alternative(f"<html><body>{paragraphs}</body></html>\n", subtype="html")
        message.set_boundary(f"=_{request_id(rng)}")  # a boundary of its own, for the library's is random
    return message.as_string(), message_id


def quoted(text: str, earlier: str) -> str:
    """An answer above the text that it answers."""
    return text + "\n\n> " + earlier.replace("\n", "\n> ")


def _number_words(match: re.Match[str]) -> str:
    number = int(match.group())
    if number < 20:
        return _ONES[number]
    if number < 60:
        return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")
    return " ".join(_ONES[int(digit)] for digit in match.group())


def heard(rng: Random, text: str) -> str:
    """Speech as a recogniser writes it: no case, hardly a sign, numbers in words, a word wrong or lost now and then."""
    plain = re.sub(r"(\d):(\d\d)", r"\1 \2", text.replace("\n", " ").lower())
    # Codes are spelt out: b7k becomes b 7 k.
    plain = re.sub(r"\b(?=\w*\d)(?=\w*[a-z])\w+\b", lambda code: " ".join(code.group()), plain)
    plain = re.sub(r"\d+", _number_words, re.sub(r"[^\w\s'-]", "", plain.replace(".", " ")))
    words = []
    for word in plain.split():
        chance = rng.random()
        if chance < 0.02:
            continue
        if chance < 0.05:
            words.append(rng.choice(_FILLERS))
        words.append(_MISHEARD[word] if chance > 0.85 and word in _MISHEARD else word)
    return " ".join(words)


def call(rng: Random, text: str, name: str) -> str:
    """The transcript of a call in which `text` is said by the rider: plain turns, or WebVTT."""
    agent = rng.choice(_AGENTS)
    first, _, rest = text.partition(". ")
    turns = [("Agent", f"rebu support this is {agent.lower()} how can i help"), ("Caller", heard(rng, first))]
    turns.append(("Agent", rng.choice(("i see", "one moment please", "could you tell me more", "when was that"))))
    if rest:
        turns += [("Caller", heard(rng, rest)), ("Agent", "thank you i will look into it")]
    turns.append(("Caller", rng.choice(("okay thank you", "please do", f"my name is {name.lower()} by the way"))))
    turns = [(who, words) for who, words in turns if words]
    if rng.random() < 0.5:
        return "\n".join(f"{who}: {words}" for who, words in turns)
    cues, at = ["WEBVTT", ""], 400
    for who, words in turns:
        until = at + 380 * (1 + len(words.split()))
        cues += [f"{_cue_time(at)} --> {_cue_time(until)}", f"<v {who}>{words}", ""]
        at = until + rng.randrange(200, 1500)
    return "\n".join(cues)


def _cue_time(ms: int) -> str:
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def chat(rng: Random, text: str) -> str:
    """Text as typed in a hurry: one line, often small letters, a letter out of place."""
    line = text.replace("\n", " ").strip()
    if rng.random() < 0.5:
        line = line.lower()
    if len(line) > 12 and rng.random() < 0.5:
        at = rng.randrange(1, len(line) - 2)
        line = line[:at] + line[at + 1] + line[at] + line[at + 2 :]
    return line
