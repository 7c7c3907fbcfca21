"""Passes: good for what they were made for, as long as they say, and for whom they stand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.keys import Keys, Scope
from rebu_ray.passes import LINK_SECONDS, Use, issue, link, opened

NOW = 1_772_352_000_000
KEYS = Keys("write-key", "read-key", "admin-key").added("wall", (Scope.READ,), NOW)
WALL = KEYS.further[0].key
uses = st.sampled_from(Use)


@given(uses, st.sampled_from(["read-key", "admin-key", WALL]), st.integers(1, 10**12))
def test_a_pass_stands_for_its_key_until_its_time(use: Use, key: str, lasts: int) -> None:
    text = issue(key, use, NOW + lasts)
    found = opened(KEYS, text, use, NOW + lasts - 1)
    assert found is not None
    assert (found.key, found.until) == (key, NOW + lasts)
    assert opened(KEYS, text, use, NOW + lasts) is None
    assert all(opened(KEYS, text, other, NOW) is None for other in Use if other != use)


@given(st.text() | st.binary().map(lambda data: data.hex()))
def test_what_nobody_issued_is_none(text: str) -> None:
    assert opened(KEYS, text, Use.SESSION, NOW) is None


@given(st.integers(0, 59), st.sampled_from("ABCDEFGHabcdefgh0123-_"))
def test_a_pass_that_was_changed_is_none(at: int, letter: str) -> None:
    text = issue("read-key", Use.SESSION, NOW + 1000)
    changed = text[:at] + letter + text[at + 1 :]
    assert (opened(KEYS, changed, Use.SESSION, NOW) is not None) == (changed == text)


def test_a_pass_ends_with_its_key() -> None:
    text = issue("read-key", Use.SESSION, NOW + 10_000)
    graceful = KEYS.rotated("read", 5, NOW)
    assert opened(graceful, text, Use.SESSION, NOW + 4999) is not None
    assert opened(graceful, text, Use.SESSION, NOW + 5000) is None
    assert opened(KEYS.rotated("read", 0, NOW), text, Use.SESSION, NOW) is None
    assert opened(KEYS.revoked("wall", NOW), issue(WALL, Use.SESSION, NOW + 10_000), Use.SESSION, NOW) is None


def test_no_pass_tells_its_key_and_none_is_like_another() -> None:
    texts = {issue("read-key", Use.LINK, NOW + 1000) for _ in range(100)}
    assert len(texts) == 100
    digests = {found.digest for text in texts if (found := opened(KEYS, text, Use.LINK, NOW)) is not None}
    assert len(digests) == 100
    assert not any(digest in text or "read-key" in text for text in texts for digest in digests)


def test_a_link_leads_to_the_first_page() -> None:
    address, _, token = link("http://127.0.0.1:8000/", "read-key", NOW).partition("?token=")
    assert address == "http://127.0.0.1:8000/"
    found = opened(KEYS, token, Use.LINK, NOW)
    assert found is not None
    assert found.until == NOW + 1000 * LINK_SECONDS


def test_what_a_key_may_do() -> None:
    assert KEYS.scopes("read-key", NOW) == (Scope.READ,)
    assert KEYS.scopes("admin-key", NOW) == tuple(Scope)
    assert KEYS.scopes(WALL, NOW) == (Scope.READ,)
    assert KEYS.scopes("nobody", NOW) == ()
