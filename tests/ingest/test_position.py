"""Positions go out as text and come back the same; any other text is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.ingest.position import Position
from rebu_ray.records import BadRequest
from tests.records import seeded


@settings(seeded)
@given(st.dictionaries(st.integers(0, 4095), st.integers(0, 2**48), max_size=300))
def test_round_trip(seqs: dict[int, int]) -> None:
    text = Position(seqs).encode()
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text)
    assert Position.decode(text) == Position(seqs)


def decoded(text: str) -> Position | tuple[int, str]:
    """The position, or status and code of the refusal."""
    try:
        return Position.decode(text)
    except BadRequest as refused:
        return refused.status, refused.code


@settings(seeded, max_examples=300)
@given(st.text(max_size=40) | st.text("ABCabc012_-=+/ ", max_size=12))
def test_any_text_is_a_position_or_refused(text: str) -> None:
    found = decoded(text)
    if isinstance(found, Position):
        assert all(isinstance(n, int) for pair in found.seqs.items() for n in pair)
    else:
        assert found == (400, "invalid_position")


@pytest.mark.parametrize("text", ["", "!", "AAA", "gaFhAQ", "é", "kQ", "\ud800", "=" * 9])
def test_what_no_write_answered_is_refused(text: str) -> None:
    assert decoded(text) == (400, "invalid_position")
