"""JSON as text: taking a body apart without re-encoding its records, and saying what is wrong with one of them.

msgspec reads what is right, at speed. What it refuses is looked at a second time with the standard library's
reader, which is what many senders write with: NaN, half a surrogate pair or a number beyond all bounds spoil
the one record that holds them and not its siblings; anything else that is not JSON spoils the body.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import msgspec

from rebu_ray.ingest.dialects.fields import RefusedError
from rebu_ray.ingest.framing import MAX_RECORDS, check_count, too_many_records
from rebu_ray.records import MAX_RECORD_BYTES, BadRequest

MAX_DEPTH: Final = 250
"""Deepest nesting of a stored record: what every reader's recursion limit still holds."""

MAX_MENDED_BYTES: Final = 8 * 1024 * 1024
MAX_MENDED_MARKS: Final = 500_000
"""Largest broken body, in bytes and in brackets and commas, that is searched for its good records.

Twice of what any SDK sends at once, and a second's work at most.
"""

MAX_READ_BYTES: Final = 8 * MAX_RECORD_BYTES
"""Largest text that is read as one record; a shipper's envelope with its escapes is larger than what it holds."""

_MAX_DIGITS: Final = 4300
"""Longest integer that Python's JSON reader takes."""

LEAST_UNFIT_BYTES: Final = 2 * MAX_DEPTH + 1
"""The shortest UTF-8 text that msgspec has read and `unfit` may find something wrong with."""

_BOM: Final = b"\xef\xbb\xbf"
_BLANK: Final = b" \t\r\n"

_RAW = msgspec.json.Decoder(msgspec.Raw)
_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_RAW_DICT = msgspec.json.Decoder(dict[str, msgspec.Raw])

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,:"\[\]{}]+')
_SPACE = re.compile(rb"[ \t\r\n]*+")
_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+([\[\]{}])', re.DOTALL)
_LONG_NUMBER = re.compile(rb"(?<![0-9])[0-9]{%d}" % _MAX_DIGITS)


def trimmed(body: bytes) -> bytes:
    """The body without a byte order mark and without blanks around it."""
    return body.removeprefix(_BOM).strip(_BLANK)


def is_json(raw: bytes) -> bool:
    """Whether `raw` is one JSON value, at least as the standard library reads it."""
    try:
        _RAW.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return _is_nearly_json(raw)
    return True


def array(body: bytes) -> list[bytes]:
    """The elements of a JSON array, each as it was sent. Raises BadRequest 400, or 413 over MAX_RECORDS."""
    check_count(body, b",")
    try:
        found = [bytes(raw) for raw in _RAW_LIST.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _mended_array(body)
    if len(found) > MAX_RECORDS:
        raise too_many_records()
    return found


def members(body: bytes) -> dict[str, bytes]:
    """The members of a JSON object, each value as it was sent. Raises BadRequest 400, or 413 for far too many."""
    check_count(body, b",")
    try:
        return {key: bytes(raw) for key, raw in _RAW_DICT.decode(body).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _mended_members(body)


def check_readable(raw: bytes) -> None:
    """Raises RefusedError for text over MAX_READ_BYTES, whose value could fill the memory."""
    if len(raw) > MAX_READ_BYTES:
        raise RefusedError(f"too_large: the record has {len(raw)} bytes; send at most {MAX_RECORD_BYTES} in one record")


def loads(raw: bytes) -> object:
    """The value of one record's JSON. Raises RefusedError for what is no JSON or could not be stored as such."""
    check_readable(raw)
    try:
        value: object = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = _second_look(raw)
    reason = unfit(raw)
    if reason is not None:
        raise RefusedError(reason)
    return value


def json_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises RefusedError where it is none."""
    value = loads(raw)
    if not isinstance(value, dict):
        raise RefusedError("invalid_shape: a record must be a JSON object")
    return value


def unfit(raw: bytes) -> str | None:
    """Why JSON text that msgspec passed over must not be stored, or None where nothing is wrong with it."""
    if not raw.isascii():
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            return f"invalid_utf8: the record is not valid UTF-8 at byte {error.start}; encode it as UTF-8"
    if len(raw) >= LEAST_UNFIT_BYTES and raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
        return _TOO_DEEP
    if len(raw) > _MAX_DIGITS and _LONG_NUMBER.search(raw):
        try:
            json.loads(raw)
        except ValueError:
            return _TOO_LONG
    return None


_TOO_DEEP: Final = f"too_deep: the record nests deeper than {MAX_DEPTH} levels; send it flatter"
_TOO_LONG: Final = f"invalid_json: the record holds a number of more than {_MAX_DIGITS} digits; send it as a string"


class _NotFiniteError(ValueError):
    """NaN or an infinity, which Python writes and JSON does not know."""


def _not_finite(token: str) -> NoReturn:
    raise _NotFiniteError(token)


def _second_look(raw: bytes) -> object:
    try:
        value: object = json.loads(raw.decode(), parse_constant=_not_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        reason = f"invalid_utf8: the record is not valid UTF-8 at byte {error.start}; encode it as UTF-8"
    except UnicodeEncodeError:
        reason = (
            "invalid_json: the record holds half a surrogate pair (\\ud800 to \\udfff alone); send whole characters"
        )
    except json.JSONDecodeError as error:
        reason = f"invalid_json: the record is not JSON ({error.msg} at character {error.pos}); send one JSON object"
    except _NotFiniteError as error:
        reason = f"invalid_json: the record holds {error}, which is not JSON; send null or a number"
    except RecursionError:
        reason = _TOO_DEEP
    except ValueError:
        reason = _TOO_LONG
    else:
        return value  # only a number beyond 64 bits, which is JSON all the same
    raise RefusedError(reason)


def _is_nearly_json(raw: bytes) -> bool:
    if len(raw) > MAX_MENDED_BYTES:
        return False
    try:
        json.loads(raw.decode("utf-8", "replace"))
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):
        return True
    return True


def _depth(raw: bytes) -> int:
    return max((depth for depth, _ in _levels(raw, 0)), default=0)


def _mended_array(body: bytes) -> list[bytes]:
    at = _opening(body, b"[")
    found: list[bytes] = []
    while body[at : at + 1] != b"]":
        end = _end(body, at)
        found.append(body[at:end])
        at = _next(body, end, b"]")
    _finish(body, at)
    for element in found:
        if not is_json(element):
            raise _broken(body.find(element))
    return found


def _mended_members(body: bytes) -> dict[str, bytes]:
    at = _opening(body, b"{")
    found: dict[str, bytes] = {}
    while body[at : at + 1] != b"}":
        key = _STRING.match(body, at)
        if key is None:
            raise _broken(at)
        at = _blanks(body, key.end())
        if body[at : at + 1] != b":":
            raise _broken(at)
        at = _blanks(body, at + 1)
        end = _end(body, at)
        found[key[0][1:-1].decode("utf-8", "replace")] = body[at:end]
        at = _next(body, end, b"}")
    _finish(body, at)
    return found


def _opening(body: bytes, bracket: bytes) -> int:
    at = _blanks(body, 0)
    marks = sum(body.count(mark) for mark in (b"[", b"{", b","))
    if body[at : at + 1] != bracket or len(body) > MAX_MENDED_BYTES or marks > MAX_MENDED_MARKS:
        raise _broken(at)
    return _blanks(body, at + 1)


def _next(body: bytes, at: int, closing: bytes) -> int:
    """From behind a value to the next one, or to the closing bracket."""
    at = _blanks(body, at)
    if body[at : at + 1] == closing:
        return at
    following = _blanks(body, at + 1)
    if body[at : at + 1] != b"," or body[following : following + 1] in (b"", closing):
        raise _broken(at)
    return following


def _finish(body: bytes, at: int) -> None:
    if _blanks(body, at + 1) != len(body):
        raise _broken(at + 1)


def _end(body: bytes, at: int) -> int:
    """Where the value that starts at `at` ends: brackets are counted, nothing inside is judged."""
    if body[at : at + 1] not in (b"[", b"{"):
        match = _STRING.match(body, at) or _SCALAR.match(body, at)
        if match is None:
            raise _broken(at)
        return match.end()
    for depth, end in _levels(body, at):
        if depth == 0:
            return end
    raise _broken(len(body))


def _levels(body: bytes, at: int) -> Iterator[tuple[int, int]]:
    """For each bracket from `at` on: the depth behind it, and where that is."""
    depth = 0
    while (bracket := _BRACKET.match(body, at)) is not None:
        depth += 1 if bracket[1] in b"[{" else -1
        at = bracket.end()
        yield depth, at


def _blanks(body: bytes, at: int) -> int:
    match = _SPACE.match(body, at)
    return match.end() if match is not None else at


def _broken(at: int) -> BadRequest:
    return BadRequest(400, "invalid_json", f"The body is not valid JSON near byte {at}; send complete JSON in UTF-8.")
