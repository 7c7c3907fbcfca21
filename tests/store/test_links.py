"""Whose a phone was when: every instant belongs to one user, the one whom the contract names."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.store.links import Link, owned, standing
from tests.records import seeded

LAST = 12
users = st.sampled_from(["ada", "bob", "cyd"])
links = st.lists(st.builds(Link, st.integers(0, LAST), st.integers(0, 5), users), max_size=9)


def rule(found: list[Link], at: int) -> str:
    """The user of the first link at or after a time; where none follows, of the last one before it."""
    following = [link for link in sorted(found) if link.event_time >= at]
    return (following[0] if following else max(found)).user_id


@settings(seeded, max_examples=400)
@given(links)
def test_every_instant_belongs_to_the_one_user_of_the_rule(found: list[Link]) -> None:
    parts = {user: owned(standing(found, {}), user) for user in ("ada", "bob", "cyd")}
    for at in range(-1, LAST + 3):
        owners = [
            user
            for user, theirs in parts.items()
            for part in theirs
            if (part.since is None or part.since <= at) and (part.until is None or at < part.until)
        ]
        assert owners == ([rule(found, at)] if found else [])


@settings(seeded, max_examples=400)
@given(links)
def test_the_parts_of_a_user_are_few_and_in_order(found: list[Link]) -> None:
    for user in ("ada", "bob", "cyd"):
        parts = owned(standing(found, {}), user)
        for part in parts:
            assert part.since is None or part.until is None or part.since < part.until
        for before, after in pairwise(parts):
            assert before.until is not None
            assert after.since is not None
            assert before.until < after.since


@settings(seeded, max_examples=400)
@given(links, st.dictionaries(users, st.integers(0, 5)))
def test_a_link_stands_unless_it_was_taken_back_since(found: list[Link], taken_back: dict[str, int]) -> None:
    stand = standing(found, taken_back)
    assert stand == sorted(stand)
    assert sorted(stand) == sorted(
        link for link in found if link.user_id not in taken_back or link.received_at > taken_back[link.user_id]
    )
