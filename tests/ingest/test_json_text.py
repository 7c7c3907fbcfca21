from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest.dialects import json_text
from rebu_ray.ingest.dialects.fields import RefusedError
from rebu_ray.records import BadRequest
from tests.ingest.promises import seeded

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
"""What Python can write as JSON: NaN, infinities and halves of surrogate pairs included."""

SPOILT = [
    b"NaN",
    b"[-Infinity]",
    rb'"\ud800"',
    rb'{"a":"\udc00 and more"}',
    b'{"a":' * 2000 + b"1" + b"}" * 2000,
    b"1" * 5000,
    b'"\xff"',
]
"""Values that spoil themselves and not what stands beside them."""


@seeded
@given(st.lists(values, max_size=5), st.sampled_from([None, 1]))
def test_an_array_comes_apart_whatever_python_wrote(elements: list[Any], indent: int | None) -> None:
    body = json.dumps(elements, indent=indent).encode()
    found = json_text.array(body)
    assert len(found) == len(elements)
    assert repr([json.loads(raw) for raw in found]) == repr(json.loads(body))


@seeded
@given(st.dictionaries(st.text(st.characters(exclude_characters='"\\')), values, max_size=5))
def test_an_object_comes_apart_whatever_python_wrote(fields: dict[str, Any]) -> None:
    body = json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")
    found = json_text.members(body)
    assert len(found) == len(fields)
    for raw, value in zip(found.values(), fields.values(), strict=True):
        assert repr(json.loads(raw.decode("utf-8", "surrogatepass"))) == repr(value)


@pytest.mark.parametrize("spoilt", SPOILT, ids=lambda raw: repr(raw[:12]))
def test_a_spoilt_value_leaves_its_siblings_alone(spoilt: bytes) -> None:
    assert json_text.array(b'[{"a": [1]}, %b ,"]"]' % spoilt) == [b'{"a": [1]}', spoilt, b'"]"']
    assert json_text.members(b' { "a" : %b , "b}" : 2 } ' % spoilt) == {"a": spoilt, "b}": b"2"}
    with pytest.raises(RefusedError):
        json_text.loads(spoilt)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"[1",
        b"[1,",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[1] 2",
        b"[1]]",
        b"[{]",
        b'["a]',
        b"[tru]",
        b"[NaN, 01]",
        b"[NaN, {'a': 1}]",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_no_array(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        json_text.array(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b'{"a":NaN',
        b'{"a":NaN} 1',
        b"{a:1}",
        b"[]",
        b'{"a" 1}',
        b"{" * 9999,
    ],
)
def test_what_is_no_object(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        json_text.members(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@seeded
@given(st.binary(max_size=60) | st.text('[]{}",:\\ 1eEN', max_size=30).map(str.encode))
def test_noise_comes_apart_or_is_refused(noise: bytes) -> None:
    for take in (json_text.array, json_text.members, json_text.loads):
        outcome = attempt(take, noise)
        assert not isinstance(outcome, BadRequest) or outcome.status == 400
        if take is json_text.loads and not isinstance(outcome, RefusedError):
            assert repr(outcome) == repr(json.loads(noise.decode()))


def attempt(take: Callable[[bytes], object], raw: bytes) -> object:
    try:
        return take(raw)
    except (BadRequest, RefusedError) as refusal:
        return refusal


@seeded
@given(values)
def test_a_value_is_read_or_refused_by_what_can_be_stored(value: Any) -> None:
    raw = json.dumps(value).encode()
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        strict = True
    except (ValueError, UnicodeEncodeError):
        strict = False
    try:
        assert json_text.loads(raw) == value
        read = True
    except RefusedError:
        read = False
    assert read == strict


def test_nesting() -> None:
    deepest = b"[" * json_text.MAX_DEPTH + b"]" * json_text.MAX_DEPTH
    json_text.loads(deepest)
    json_text.loads(b"[" + b"[]," * 1000 + b"[]]")
    json_text.loads(b'["' + b"[" * 1000 + b'"]')
    with pytest.raises(RefusedError, match="too_deep"):
        json_text.loads(b"[" + deepest + b"]")


def test_numbers_of_any_size_are_json_up_to_what_readers_take() -> None:
    assert json_text.loads(b"[1e400, 123456789012345678901234567890]") == [float("inf"), 123456789012345678901234567890]
    json_text.loads(b'"%b"' % (b"1" * 5000))
    with pytest.raises(RefusedError, match="4300 digits"):
        json_text.loads(b'{"a": [%b]}' % (b"1" * 4301))


def test_a_large_body_is_not_mended() -> None:
    element = b'{"a": "%b"}' % (b"x" * 100)
    good = b"[" + (element + b",") * (json_text.MAX_MENDED_BYTES // len(element) + 1) + b"1]"
    assert len(good) > json_text.MAX_MENDED_BYTES
    assert json_text.array(good)[0] == element
    spoilt = b'[NaN,"' + b"x" * json_text.MAX_MENDED_BYTES + b'"]'
    with pytest.raises(BadRequest):
        json_text.array(spoilt)
    assert len(json_text.array(spoilt.replace(b"xxx", b"xx"))) == 2


def test_a_broken_flood_is_not_mended() -> None:
    assert len(json_text.array(b"[" + b"[]," * 1000 + b"NaN]")) == 1001
    with pytest.raises(BadRequest):
        json_text.array(b"[" + b"[]," * json_text.MAX_MENDED_MARKS + b"NaN]")


def test_too_many_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "MAX_RECORDS", 3)
    assert len(json_text.array(b"[1,2,3]")) == 3
    with pytest.raises(BadRequest) as caught:
        json_text.array(b"[1,2,3,4]")
    assert (caught.value.status, caught.value.code) == (413, "too_large")


def test_a_flood_of_elements_is_refused_before_it_is_taken_apart() -> None:
    with pytest.raises(BadRequest) as caught:
        json_text.array(b"[" + b"1," * 9_000_000 + b"1]")
    assert (caught.value.status, caught.value.code) == (413, "too_large")


def test_byte_order_marks_and_blanks_are_trimmed() -> None:
    assert json_text.trimmed(b"\xef\xbb\xbf\r\n [1]\n") == b"[1]"


def test_elements_are_the_senders_own_bytes() -> None:
    raw = b'{"b" : 1.50,"a":"\\u00e9\\/"}'
    assert json_text.array(b"[ " + raw + b" ]") == [raw]
    assert msgspec.json.decode(raw) == json_text.loads(raw)
