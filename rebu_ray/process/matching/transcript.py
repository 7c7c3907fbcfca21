"""A call or chat in turns: plain text, "Agent: … / Customer: …" lines, or WebVTT."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Final

_LABEL: Final = re.compile(
    r"^\s*(?:[\[(]?\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d{1,3})?[\])]?\s*-?\s*)?"
    r"(?:\[([^\]\n:]{1,30})\]|<([^>\n:]{1,30})>|\*{0,2}([^\W\d_][\w .'-]{0,24}?)\*{0,2})\s*:\s+(?=\S)"
)
_AGENT: Final = re.compile(
    r"(?i)^(?:.*\b)?(?:agent|support|rebu|operator|representative|rep|advis[eo]r|assistant|bot|system|clerk|"
    r"customer service|service|helpdesk|help desk|s|a)\d*$"
)
_CUSTOMER: Final = re.compile(r"(?i)^(?:the )?(?:customer|caller|client|rider|user|passenger|guest|me|c|u)\d*$")
_GREETING: Final = re.compile(r"(?i)\b(?:how (?:can|may) i help|what can i do for you|this is \w+ from|rebu support)\b")
_TIMING: Final = re.compile(r"-->")
_VOICE: Final = re.compile(r"<v(?:\.[\w.-]+)?\s+([^>]{1,60})>")
_TAG: Final = re.compile(r"</?[a-z0-9][^>]{0,80}>", re.IGNORECASE)
_NOISE: Final = re.compile(
    r"(?i)\[(?:noise|laughter|inaudible|unintelligible|crosstalk|silence|music|pause|unk|background[^\]]{0,20})\]|"
    r"\((?:inaudible|unintelligible|noise|pause|laughs?|sighs?|coughs?)\)|<unk>|<noise>"
)
_FILLER: Final = re.compile(r"(?i)(?<![\w'])(?:u+h+(?:m+)?|u+m+|e+r+m+|e+r+|h+m+|mhm+|you know|i mean)(?![\w'])[,.]?")
# Letters and digits said twice are spelt, not stammered.
_STUTTER: Final = re.compile(
    r"(?i)\b(?!(?:oh|zero|one|two|three|four|five|six|seven|eight|nine)\b)([a-z'][a-z']+)(?: \1\b)+"
)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says at a time. `agent` tells whether it is customer service."""

    speaker: str | None
    agent: bool
    text: str


def turns(body: str) -> list[Turn]:
    """The turns of a transcript, neighbouring ones of the same speaker joined. Text without turns is one turn."""
    vtt = body.lstrip("\ufeff \r\n").startswith("WEBVTT")
    said = _cues(body) if vtt else _labelled(body)
    joined: list[tuple[str | None, str]] = []
    for speaker, text in said:
        if joined and joined[-1][0] == speaker:
            joined[-1] = (speaker, f"{joined[-1][1]} {text}")
        else:
            joined.append((speaker, text))
    agents = _agents(joined)
    return [Turn(speaker, speaker in agents, text) for speaker, text in joined if text]


def shown(spoken: list[Turn]) -> str:
    """The turns as lines for people to read."""
    return "\n".join(f"{turn.speaker}: {turn.text}" if turn.speaker else turn.text for turn in spoken)


def clean(text: str) -> str:
    """`text` without fillers, recogniser's remarks and words said twice in a row."""
    quiet = _FILLER.sub(" ", _NOISE.sub(" ", text))
    return _STUTTER.sub(r"\1", " ".join(quiet.split()))


def _labelled(body: str) -> list[tuple[str | None, str]]:
    lines = body.replace("\r\n", "\n").split("\n")
    matches = [_LABEL.match(line) for line in lines]
    names = [_name(match) for match in matches if match]
    known = any(_AGENT.match(name) or _CUSTOMER.match(name) for name in names)
    # One line with a colon in it is no dialogue.
    if not names or not (known or len(names) > len(set(names))):
        return [(None, body.strip())]
    said: list[tuple[str | None, str]] = []
    for line, match in zip(lines, matches, strict=True):
        if match:
            said.append((_name(match), line[match.end() :].strip()))
        elif line.strip():
            speaker = said[-1][0] if said else None
            said.append((speaker, line.strip()))
    return said


def _name(match: re.Match[str]) -> str:
    return (match[1] or match[2] or match[3]).strip()


def _cues(body: str) -> list[tuple[str | None, str]]:
    said: list[tuple[str | None, str]] = []
    for block in re.split(r"\n[ \t]*\n", body.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip("\n").split("\n")
        timing = next((number for number, line in enumerate(lines) if _TIMING.search(line)), None)
        if timing is None:
            continue  # the header, a NOTE, STYLE or REGION
        speaker: str | None = None
        for line in lines[timing + 1 :]:
            voice = _VOICE.search(line)
            text = html.unescape(_TAG.sub("", _VOICE.sub("", line))).strip()
            label = _LABEL.match(text) if voice is None else None
            if voice:
                speaker = voice[1].strip()
            elif label:
                speaker, text = _name(label), text[label.end() :].strip()
            said.append((speaker, text))
    return said


def _agents(said: list[tuple[str | None, str]]) -> set[str]:
    speakers = {speaker for speaker, _ in said if speaker is not None}
    agents = {speaker for speaker in speakers if _AGENT.match(speaker) and not _CUSTOMER.match(speaker)}
    if not agents and len(speakers) > 1:
        agents = {speaker for speaker, text in said if speaker is not None and _GREETING.search(text)}
    return agents if len(agents) < len(speakers) or len(speakers) == 0 else set()
