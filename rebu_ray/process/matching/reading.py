"""What a message says: its body read by its form, and everything in it that may tell rides apart, found once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from rebu_ray.process.matching import mail, transcript
from rebu_ray.process.matching.elsewhere import Pointers, pointers
from rebu_ray.process.matching.money import Amount, amounts_said
from rebu_ray.process.matching.names import Named, named
from rebu_ray.process.matching.spelling import corrected
from rebu_ray.process.matching.text import codes, said
from rebu_ray.process.matching.trouble import kinds, minutes_waited
from rebu_ray.process.matching.when import Moment, moments_said

MAX_CHARACTERS: Final = 8000
"""What is read of a text for its meaning. Nobody tells which ride he means after that."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A message, read. `own` is what its writer says (subject included), `quoted` what is quoted of others."""

    subject: str | None
    shown: str
    own: str
    quoted: str
    codes: frozenset[str]
    quoted_codes: frozenset[str]
    amounts: tuple[Amount, ...]
    quoted_amounts: tuple[Amount, ...]
    moments: tuple[Moment, ...]
    named: Named
    troubles: tuple[str, ...]
    waited: int | None
    pointers: Pointers


def read(channel: str | None, subject: str | None, body: str | None) -> Reading:
    """Reads a message. Never raises: a text of another form than its channel's is taken as plain text."""
    text = body or ""
    title = mail.decoded_words(subject) if subject else None
    quoted = ""
    answers: tuple[tuple[str, str], ...] = ()
    if mail.is_mail(text):
        letter = mail.read(text)
        title = title or letter.subject
        shown, original, quoted = letter.shown, letter.reply, letter.quoted
        signature = letter.signature
    elif channel in ("voice", "chat") or text.lstrip("\ufeff \r\n").startswith("WEBVTT"):
        turns = transcript.turns(text)
        shown = transcript.shown(turns)
        spoken = [(turn.agent, transcript.clean(turn.text)) for turn in turns]
        original = ". ".join(words for agent, words in spoken if not agent)
        quoted = ". ".join(words for agent, words in spoken if agent)
        answers = tuple(
            (said(before), said(after)) for (asked, before), (other, after) in pairwise(spoken) if asked and not other
        )
        signature = ""
    else:
        shown = text
        original, quoted, signature = mail.parts(text)
    original = original[:MAX_CHARACTERS]
    own = said(f"{title or ''}\n{original}")
    aside = said(quoted[:MAX_CHARACTERS])
    meant = corrected(own)
    return Reading(
        subject=title,
        shown=shown,
        own=own,
        quoted=aside,
        codes=frozenset(codes(own) | codes(said(signature[:MAX_CHARACTERS]))),
        quoted_codes=frozenset(codes(aside)),
        amounts=tuple(amounts_said(meant)),
        quoted_amounts=tuple(amounts_said(aside)) if channel == "email" else (),
        moments=tuple(moments_said(meant)),
        named=named(own, original),
        troubles=kinds(meant),
        waited=minutes_waited(meant),
        pointers=pointers(meant, answers),
    )
