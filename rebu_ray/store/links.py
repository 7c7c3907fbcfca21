"""Whose a phone was, and when: what the links of an anonymous id say about its stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Link(NamedTuple):
    """An identify or alias: at `event_time` (ms) the anonymous id was said to be this user."""

    event_time: int
    received_at: int
    user_id: str


class Owned(NamedTuple):
    """Part of an anonymous stream that is a user's: since <= event time < until (ms; None: no bound)."""

    since: int | None
    until: int | None


def standing(links: Iterable[Link], taken_back: Mapping[str, int]) -> list[Link]:
    """Links in order of time, without those received up to when their user was unlinked (ms of receipt)."""
    return sorted(link for link in links if link.received_at > taken_back.get(link.user_id, -1))


def owned(links: list[Link], user_id: str) -> list[Owned]:
    """The parts of an anonymous stream that belong to a user, given its standing links in order.

    A record belongs to the user of the first link at or after its time; where none follows, to the last.
    """
    parts: list[Owned] = []
    before: int | None = None
    for i, link in enumerate(links):
        last = i + 1 == len(links)
        until = None if last else link.event_time + 1
        if link.user_id == user_id and not (until is not None and until == before):
            if parts and parts[-1].until is not None and parts[-1].until == before:
                parts[-1] = Owned(parts[-1].since, until)
            else:
                parts.append(Owned(before, until))
        before = link.event_time + 1
    return parts
