"""A mail as its reader sees it: what the writer says, what is quoted, who signs. RFC 5322 and what resembles it."""

from __future__ import annotations

import email
import re
from dataclasses import dataclass
from email import policy
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from email.policy import Policy
from email.utils import parseaddr
from html.parser import HTMLParser
from typing import Final

_BROKEN: Final = (HeaderParseError, LookupError, ValueError, TypeError, AttributeError)
"""What the standard library's mail parser raises on headers and parts that are no such thing."""
_HEADER_LINE: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]*:[ \t]?\S?|[ \t]+\S|From .+@.+")
_TELLING: Final = re.compile(
    r"(?im)^(?:from|to|subject|date|message-id|mime-version|received|return-path|content-type|x-[a-z-]+)[ \t]*:"
)
_QUOTE: Final = re.compile(r"\s*(?:>|\|\s)")
_WROTE: Final = re.compile(
    r"(?i)^\s*(?:on\b.{4,200}\bwrote|am\b.{4,200}\bschrieb.*|le\b.{4,200}\ba écrit|.{3,120}@.{3,80}\bwrote)\s*:\s*$"
)
_EARLIER: Final = re.compile(
    r"(?i)^\s*(?:-{2,}\s*(?:original message|forwarded message|ursprüngliche nachricht).*|begin forwarded message:?|"
    r"_{10,}|-{10,})\s*$"
)
_SENT_BLOCK: Final = re.compile(r"(?i)^\s*\*?(?:from|von|de)\s*:\*?\s.*")
_SENT_MORE: Final = re.compile(r"(?i)^\s*\*?(?:sent|date|to|subject|gesendet|an|betreff)\s*:")
_CLOSING: Final = re.compile(
    r"(?i)^\s*(?:(?:many |best |kind |warm |with )*(?:regards|wishes|greetings|thanks)|thank you|thanks a lot|thx|"
    r"cheers|bye|sincerely|yours(?: \w+)?|best|all the best|ta|xo+|mfg|respectfully)\b[^.!?]{0,30}[.,!]?\s*$"
)
_DEVICE: Final = re.compile(r"(?i)^\s*(?:sent from my|get outlook for|sent via|von meinem)\b.*$")
_TAIL_LINES: Final = 5


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail in parts. `shown` is the whole readable text; reply, quoted and signature are its pieces."""

    subject: str | None
    sender: str | None
    shown: str
    reply: str
    quoted: str
    signature: str


def is_mail(body: str) -> bool:
    """Whether `body` is a raw mail rather than its text: header lines, one of them a mail's own, then an empty line."""
    head, gap, _ = body.lstrip("\ufeff\r\n").replace("\r\n", "\n").partition("\n\n")
    lines = head.split("\n")
    if not gap and len(lines) < 2:
        return False
    known = sum(1 for line in lines if _HEADER_LINE.match(line))
    return known >= len(lines) - 1 and len(_TELLING.findall(head)) >= 2


def read(body: str) -> Mail:
    """The parts of a raw mail. Never raises: what is no strict mail is read leniently, at worst as plain text."""
    raw = body.lstrip("\ufeff\r\n").encode("utf-8", "replace")
    for rules in (policy.default, policy.compat32):
        try:
            subject, sender, text = _content(raw, rules)
        except _BROKEN:
            continue
        reply, quoted, signature = parts(text)
        return Mail(subject, sender, text, reply, quoted, signature)
    text = body.replace("\r\n", "\n").partition("\n\n")[2] or body
    reply, quoted, signature = parts(text)
    return Mail(None, None, text, reply, quoted, signature)


def parts(text: str) -> tuple[str, str, str]:
    """(what the writer says, what is quoted, the signature) of a mail's text."""
    mine: list[str] = []
    quoted: list[str] = []
    below = False
    lines = text.replace("\r\n", "\n").split("\n")
    last_signed = max((number for number, line in enumerate(lines) if _QUOTE.match(line)), default=-1)
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        starts = (
            (_EARLIER.match(line) is not None and any(mine))
            or _WROTE.match(line) is not None
            or (_SENT_BLOCK.match(line) is not None and _SENT_MORE.match(following) is not None)
        )  # fmt: skip
        wrapped = line.lower().startswith("on ") and _WROTE.match(f"{line} {following.strip()}") is not None
        # Under "X wrote:" whatever has no quote sign is the reply, where the rest does have signs.
        if (starts or wrapped) and last_signed <= number:
            below = True
        if below or starts or wrapped or _QUOTE.match(line) or (quoted and _is_rest_of_wrote(line, lines, number)):
            quoted.append(re.sub(r"^[\s>|]+", "", line))
        else:
            mine.append(line)
    said, signature = _unsigned(mine)
    return said, "\n".join(quoted).strip(), signature


def _is_rest_of_wrote(line: str, lines: list[str], number: int) -> bool:
    before = lines[number - 1]
    return before.lower().startswith("on ") and _WROTE.match(f"{before} {line.strip()}") is not None


def _unsigned(lines: list[str]) -> tuple[str, str]:
    filled = [number for number, line in enumerate(lines) if line.strip()]
    if not filled:
        return "", ""
    cut = filled[-1] + 1
    for number in filled:
        if lines[number].rstrip("\r") in ("-- ", "--", "—"):
            cut = number
            break
    for number in reversed(filled[-_TAIL_LINES:]):
        tail_is_short = all(len(line) < 48 for line in lines[number:cut])
        if _DEVICE.match(lines[number]) or (_CLOSING.match(lines[number]) and tail_is_short and number != filled[0]):
            cut = min(cut, number)
    return "\n".join(lines[:cut]).strip(), "\n".join(lines[cut:]).strip()


def _content(raw: bytes, rules: Policy) -> tuple[str | None, str | None, str]:
    message: Message = email.message_from_bytes(raw, policy=rules)
    texts: list[tuple[str, str]] = []
    _gather(message, texts, 0)
    plains = [text for kind, text in texts if kind == "plain" and text.strip()]
    chosen = plains or [html_text(text) for kind, text in texts if kind == "html"]
    sender = parseaddr(_header(message, "From") or "")[1] or None
    return _header(message, "Subject"), sender, "\n\n".join(text.strip("\r\n") for text in chosen).replace("\r\n", "\n")


def _gather(part: Message, texts: list[tuple[str, str]], depth: int) -> None:
    """Collects the texts of `part` and of what it holds, attachments left out."""
    if depth > 20:
        return
    if part.is_multipart():
        for child in part.get_payload():
            if isinstance(child, Message):
                _gather(child, texts, depth + 1)
        return
    if part.get_content_maintype() != "text" or _is_attachment(part):
        return
    texts.append(("html" if part.get_content_subtype() == "html" else "plain", _decoded(part)))


def _is_attachment(part: Message) -> bool:
    return str(part.get("Content-Disposition", "")).lower().lstrip().startswith("attachment")


def _decoded(part: Message) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return str(part.get_payload())
    charset = str(part.get_content_charset() or "utf-8")
    encoded = str(part.get("Content-Transfer-Encoding", "")).strip().lower() in ("quoted-printable", "base64")
    # The row's body is text already: what was sent as bare 8 bit came to us as UTF-8 whatever the header says.
    return in_charset(payload, charset if encoded else "utf-8", charset)


def in_charset(data: bytes, *charsets: str) -> str:
    """`data` in the first of `charsets` that is known and fits, else UTF-8, else Windows-1252 with replacements."""
    for charset in (*charsets, "utf-8"):
        try:
            return data.decode(charset)
        except (LookupError, ValueError):
            continue
    return data.decode("cp1252", "replace")


def decoded_words(value: str) -> str:
    """A header's text with its encoded words (RFC 2047) read; left as they are where they cannot be."""
    if "=?" not in value:
        return value
    try:
        pieces = decode_header(value)
    except _BROKEN:
        return value
    return "".join(
        piece if isinstance(piece, str) else in_charset(piece, charset or "utf-8") for piece, charset in pieces
    )


def _header(message: Message, name: str) -> str | None:
    value = message.get(name)
    if value is None:
        return None
    text = decoded_words(str(value)).encode("utf-8", "replace").decode()
    return " ".join(text.split()) or None


class _Text(HTMLParser):
    """Collects what a browser would show."""

    _BLOCKS: Final = frozenset(("p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "blockquote", "table", "ul"))
    _HIDDEN: Final = frozenset(("script", "style", "head", "title"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.out: list[str] = []
        self._hidden = 0
        self._quotes = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._HIDDEN:
            self._hidden += 1
        if tag == "blockquote":
            self._quotes += 1
        if tag in self._BLOCKS:
            self.out.append("\n" + "> " * self._quotes)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        if tag == "blockquote":
            self._quotes = max(0, self._quotes - 1)
        if tag in self._BLOCKS and tag != "br":
            self.out.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.out.append(" ".join(data.split("\n")))


def html_text(html: str) -> str:
    """The readable text of HTML; quoted blocks get quote signs."""
    reader = _Text()
    try:
        reader.feed(html)
        reader.close()
    except AssertionError:  # html.parser's answer to some broken declarations
        return re.sub(r"<[^>]{0,2000}>", " ", html)
    lines = (" ".join(line.split()) for line in "".join(reader.out).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join("" if set(line) <= {">", " "} else line for line in lines)).strip()
