"""What the platform made of rides and messages, counted against what the simulator knows about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rebu_ray.simulate.rides import Ride

Documents = Mapping[str, Mapping[str, Any]]
"""Id -> the document as it is served."""


class Rides(NamedTuple):
    """Rides that have ended, by whether they ended too early. `hidden` are left out of everything else: rides underway
    whose rows lack the time or the coordinate by which it could be seen.
    """

    judged: int
    early: int
    found: int
    """Ended too early, and the document says so."""
    mistaken: int
    """The document says so of a ride that was over: it ended around the corner, and the ride was short."""
    hidden: int
    causes_right: int
    """Of those found."""

    @property
    def wrong(self) -> int:
        return self.early - self.found + self.mistaken


class Links(NamedTuple):
    """Messages, by what they are about and what they are linked to."""

    messages: int
    about_a_ride: int
    linked: int
    right: int
    """Linked to the ride that they are about."""
    covered: int
    """About a ride, and linked to one, the right one or another."""
    ambiguous: int

    @property
    def precision(self) -> float | None:
        return self.right / self.linked if self.linked else None

    @property
    def coverage(self) -> float | None:
        return self.covered / self.about_a_ride if self.about_a_ride else None


def count_rides(rides: Iterable[Ride], end: int, documents: Documents) -> Rides:
    """Count the rides of a world that ends at `end`. A ride that is not served counts as one found to be in order."""
    judged = early = found = mistaken = hidden = right = 0
    for ride in rides:
        if ride.ended_at > end:
            continue
        row = ride.row(end)
        if ride.driven and None in (row["picked_up_at"], row["destination_lat"], row["dropoff_lat"]):
            hidden += 1
            continue
        document = documents.get(ride.ride_id, {})
        premature = bool(document.get("premature"))
        judged += 1
        early += ride.ended_early
        mistaken += premature and not ride.ended_early
        if premature and ride.ended_early:
            found += 1
            right += document.get("cause") == ride.trouble
    return Rides(judged, early, found, mistaken, hidden, right)


def count_links(truth: Mapping[str, str | None], documents: Documents) -> Links:
    """Count the messages of `truth` (message -> the ride that it is about, if any) that are served."""
    links = {message_id: documents[message_id]["link"] for message_id in truth if message_id in documents}
    linked = {message_id: link["ride_id"] for message_id, link in links.items() if link["status"] == "linked"}
    return Links(
        messages=len(links),
        about_a_ride=sum(truth[message_id] is not None for message_id in links),
        linked=len(linked),
        right=sum(truth[message_id] == ride_id for message_id, ride_id in linked.items()),
        covered=sum(truth[message_id] is not None for message_id in linked),
        ambiguous=sum(link["status"] == "ambiguous" for link in links.values()),
    )
