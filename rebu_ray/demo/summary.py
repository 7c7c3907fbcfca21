"""What the demo prints at its end."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rebu_ray.client import Rebu, quoted
from rebu_ray.demo.checks import Check
from rebu_ray.demo.served import Document, Served
from rebu_ray.demo.stream import Tally
from rebu_ray.demo.truth import Links, Rides
from rebu_ray.platform.up import Platform

WORST: Final = 8
"""Rides that are shown."""
LOOKED_AT: Final = 1000
ERRORS: Final = 3
"""Errors of a ride that are shown."""


def show_uploads(console: Console, tally: Tally) -> None:
    """What went in over HTTP."""
    went_in = Table("source", "records", "accepted", "duplicate", "rejected", title="What went in")
    for source in sorted(tally.sent):
        counts = tally.verdicts[source]
        numbers = (tally.sent[source], counts["accepted"], counts["duplicate"], counts["rejected"])
        went_in.add_row(source, *(f"{n:,}" for n in numbers))
    total = sum(tally.sent.values())
    sums = (total, *(tally.total(v) for v in ("accepted", "duplicate", "rejected")))
    went_in.add_row("all", *(f"{n:,}" for n in sums), style="bold")
    console.print(went_in)
    console.print(
        f"{total / tally.seconds:,.0f} records/s over {tally.seconds:.1f} s, {tally.retried} requests sent again"
    )
    if len(tally.freshness_ms) > 1:
        cuts = statistics.quantiles(tally.freshness_ms, n=100, method="inclusive")
        console.print(
            f"freshness, from sending a batch to reading it back: p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms "
            f"({len(tally.freshness_ms)} probes)"
        )


def show_history(console: Console, client: Rebu, user: str) -> None:
    """What came out, of one user."""
    came_out = Table("kind", "matched by", "records", title=f"What came out: the history of {escape(user)}")
    found = Counter((event["kind"], event["matched_by"]) for event in client.history(user))
    for (kind, matched), count in sorted(found.items()):
        came_out.add_row(kind, matched, f"{count:,}")
    console.print(came_out)


def show_worst(console: Console, client: Rebu) -> list[Document]:
    """The worst rides with their reasons and messages; returns them."""
    found = {ride["ride_id"]: ride for ride in client.rides(premature=True, limit=LOOKED_AT)}
    found |= {ride["ride_id"]: ride for ride in client.rides(min_errors=1, limit=LOOKED_AT)}
    worst = sorted(found.values(), key=badness)[:WORST]
    console.print("\nThe worst rides", style="bold")
    for ride in worst:
        console.print(f"  {escape(headline(ride))}", soft_wrap=True, highlight=False)
        for line in (*reasons(ride), *message_lines(client.messages(ride["ride_id"]))):
            console.print(f"      {escape(line)}", soft_wrap=True, highlight=False)
    if not worst:
        console.print("  none: every ride reached its destination without an error")
    console.print()
    return worst


def badness(ride: Document) -> tuple[Any, ...]:
    """Sorts the worst first: those that ended too early, then those with the most errors."""
    return not ride["premature"], -(ride["errors"]["app"] + ride["errors"]["server"]), ride["requested_at"]


def headline(ride: Document) -> str:
    """A ride in one line: when, which, whose, how it ended and what was counted."""
    errors, rider = ride["errors"], (ride["user"] or {}).get("user_id") or "nobody"
    parts = [
        f"{ride['requested_at']}  {ride['ride_id']}  {rider}  {ride['status']}",
        f"ended too early, cause {ride['cause']}" if ride["premature"] else "",
        f"{errors['app']} app and {errors['server']} server errors",
        "" if ride["progress"] is None else f"progress {ride['progress']:.2f}",
        "" if ride["quality"] is None else f"quality {ride['quality']:.2f}",
        f"flags {', '.join(ride['flags'])}" if ride["flags"] else "",
    ]
    return "; ".join(part for part in parts if part)


def reasons(ride: Document) -> list[str]:
    """What is known of why a ride went wrong."""
    lines = []
    if ride["premature"]:
        gap = f"{ride['destination_gap_m']:,.0f} m from the destination"
        lines.append(f"ended {gap}, {ride['requested_distance_m']:,.0f} m away from where it began")
    items = ride["errors"]["items"]
    lines += [f"{item['kind']} {item['name']} at {item['timestamp']}" for item in items[:ERRORS]]
    if len(items) > ERRORS:
        lines.append(f"and {len(items) - ERRORS} more errors")
    return lines


def message_lines(messages: Iterable[Document]) -> list[str]:
    """The messages about a ride, each with how sure that is and the strongest reason."""
    lines = []
    for message in messages:
        link = message["link"]
        strongest = max(link["reasons"], key=lambda reason: float(reason["weight"]), default=None)
        because = f": {strongest['signal']} ({strongest['detail']})" if strongest else ""
        text = " ".join((message["body"] or "").split())
        lines.append(f"{message['channel']} {message['direction']}, {link['status']} {link['confidence']:.2f}{because}")
        lines.append(f"  “{text[:100]}{'…' if len(text) > 100 else ''}”")
    return lines


def show_served(console: Console, served: Served, fresh_ms: Sequence[float], never: Sequence[str]) -> None:
    """What came out of the database, how soon, and what did not come and why."""
    console.print(f"{len(served.rides):,} rides and {len(served.messages):,} messages in the database")
    if fresh_ms:
        console.print(
            f"freshness, from a ride's commit to its document: median {statistics.median(fresh_ms):,.0f} ms, "
            f"at most {max(fresh_ms):,.0f} ms ({len(fresh_ms)} new rides)"
        )
    for ride_id in never[:3]:
        console.print(f"[red]not served in time:[/] {escape(ride_id)}")
    for path, why in list(served.late.items())[:5]:
        console.print(f"[red]not as in the database:[/] {escape(path)}: {escape(why)}", soft_wrap=True)
    if len(served.late) > 5:
        console.print(f"[red]and {len(served.late) - 5:,} more[/]")


def show_truth(console: Console, rides: Rides, links: Links) -> None:
    """Rides and links against what the simulator knows."""
    console.print(
        f"against the simulator's truth: {rides.early} of {rides.judged:,} rides ended too early, {rides.found} of "
        f"them found, with the cause right for {rides.causes_right}, and {rides.mistaken} others taken for such; "
        f"{rides.hidden} rides left out, whose rows lack what it would be seen by"
    )
    precision, coverage = _share(links.precision), _share(links.coverage)
    console.print(
        f"messages: {links.linked} of {links.messages} linked, precision {precision}; {links.covered} of "
        f"{links.about_a_ride} about a ride covered, {coverage}; {links.ambiguous} ambiguous"
    )


def _share(part: float | None) -> str:
    return "–" if part is None else f"{part:.3f}"


def show_checks(console: Console, checks: Sequence[Check]) -> None:
    """Every check and what was seen."""
    verdicts = Table("check", "seen", "holds", title="Checks")
    for check in checks:
        verdicts.add_row(check.text, check.seen, "[green]yes[/]" if check.holds else "[red]NO[/]")
    console.print(verdicts)


def show_addresses(console: Console, up: Platform, user: str, worst: Sequence[Document]) -> None:
    """Where to look next."""
    console.print(f"Open:  {up.dashboard()}", soft_wrap=True, highlight=False)
    console.print(f"Read:  {up.url}/docs", soft_wrap=True)
    paths = [f"/v1/users/{quoted(user)}/events?limit=5", "/v1/rides?premature=true&limit=5"]
    if worst:
        ride = f"/v1/rides/{quoted(worst[0]['ride_id'])}"
        paths += [ride, f"{ride}/messages"]
    for path in paths:
        ask = f'Ask:   curl -H "Authorization: Bearer {up.keys.read}" "{up.url}{path}"'
        console.print(ask, soft_wrap=True, highlight=False)
