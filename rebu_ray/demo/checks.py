"""What the demo holds a platform to: every line says what was expected and what was seen."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final, NamedTuple

from rebu_ray.client import Rebu
from rebu_ray.demo.served import Served
from rebu_ray.demo.stream import Tally
from rebu_ray.demo.truth import Links, Rides

SAMPLED_USERS: Final = 40
SURE: Final = 0.9
"""Share of the linked messages that are about the ride that they are linked to."""


class Check(NamedTuple):
    """One line of the summary: what was expected to hold, what was seen."""

    text: str
    seen: str
    holds: bool


def of_uploads(client: Rebu, tally: Tally, earlier: int) -> list[Check]:
    """Verdicts, dead letters and histories; `earlier` rows were there before the morning."""
    sent = sum(tally.sent.values())
    answered = sum(tally.total(v) for v in ("accepted", "duplicate", "rejected"))
    kept = sum(1 for _ in client.deadletters())
    wanted = tally.bad - tally.repeated_bad
    broken = [user for user, _ in tally.users.most_common(SAMPLED_USERS) if not _in_order(client, user)]
    sampled = min(SAMPLED_USERS, len(tally.users))
    return [
        Check("every record got a verdict", f"{answered:,} of {sent:,}", answered == sent),
        Check(
            "what the simulator spoilt was rejected, nothing else",
            f"{tally.total('rejected'):,} of {tally.bad:,}",
            tally.total("rejected") == tally.bad,
        ),
        Check(
            "what was sent again was recognised, nothing else",
            f"{tally.total('duplicate'):,} of {tally.duplicates:,}",
            tally.total("duplicate") == tally.duplicates,
        ),
        Check(
            "every rejected record is kept with its reason",
            f"{kept:,} dead letters of {wanted:,}",
            kept >= wanted if earlier else kept == wanted,
        ),
        Check("what was read back at once was there", f"{len(tally.freshness_ms):,} reads", tally.unseen == 0),
        Check(
            "sampled histories are whole in both directions, in order, without repeats",
            f"{sampled - len(broken)} of {sampled} users",
            not broken,
        ),
    ]


def _in_order(client: Rebu, user: str) -> bool:
    """Whether a history reads the same from both ends, sorted by time and id, no id twice."""
    forwards = [(e["timestamp"], e["id"]) for e in client.history(user, order="asc")]
    backwards = [(e["timestamp"], e["id"]) for e in client.history(user)]
    return (
        bool(forwards)
        and forwards == backwards[::-1] == sorted(forwards)
        and len({record_id for _, record_id in forwards}) == len(forwards)
    )


def of_database(served: Served, listed: set[str]) -> list[Check]:
    """Whether all of the database is served; `listed` are the ids of rides that GET /v1/rides lists."""
    missing = set(served.rides) - listed
    return [
        Check(
            "every ride of the database is served, with its status and times",
            f"{len(served.rides) - served.late_rides:,} of {len(served.rides):,}",
            served.late_rides == 0,
        ),
        Check(
            "every message of the database is served",
            f"{len(served.messages) - served.late_messages:,} of {len(served.messages):,}",
            served.late_messages == 0,
        ),
        Check(
            "the table of rides lists every one of them",
            f"{len(served.rides) - len(missing):,} of {len(served.rides):,}",
            not missing,
        ),
    ]


def of_freshness(fresh_ms: Sequence[float], never: Sequence[str]) -> Check:
    """Whether new rides are served soon after their commit; `never` are those that were not in the time that was given.

    How soon is told, not judged: the median of the few rides of a small morning says more of the machine.
    """
    text = "every new ride that was looked for is served soon after its commit"
    if not fresh_ms and not never:
        return Check(text, "no new ride was looked for", True)
    seen = f"{len(never)} of {len(fresh_ms) + len(never)} rides never"
    if fresh_ms and not never:
        seen = f"median {statistics.median(fresh_ms):,.0f} ms, at most {max(fresh_ms):,.0f} ms"
    return Check(text, seen, not never)


def of_truth(rides: Rides, links: Links) -> list[Check]:
    """Rides and links against what the simulator knows. One mistake is allowed: a small morning has few rides."""
    return [
        Check(
            "rides that ended too early are found, nearly no others (95 %)",
            f"{rides.judged - rides.wrong:,} of {rides.judged:,} rides",
            rides.wrong <= max(1, 0.05 * rides.judged),
        ),
        Check(
            "the cause is the simulator's own (80 %)",
            f"{rides.causes_right} of {rides.found}",
            rides.found - rides.causes_right <= max(1, 0.2 * rides.found),
        ),
        Check(
            f"messages are linked to the right ride ({SURE:.0%})",
            f"{links.right} of {links.linked} linked",
            links.right >= min(links.linked - 1, SURE * links.linked),
        ),
    ]
