"""Who writes to customer service, when, about which ride; and the truth about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from rebu_ray.simulate import envelopes, wording
from rebu_ray.simulate.clock import HOUR, MINUTE, SECOND, rfc3339
from rebu_ray.simulate.identifiers import readable
from rebu_ray.simulate.people import Rider
from rebu_ray.simulate.rides import Ride

Channel = Literal["email", "voice", "chat"]

_TOPICS_AFTER: Final[dict[str | None, tuple[float, tuple[str, ...]]]] = {
    None: (0.035, ("overcharged", "lost_item", "lost_item", "behaviour", "praise", "praise", "receipt", "app")),
    "driver": (0.4, ("cancelled_by_driver", "behaviour", "ended_early")),
    "rider": (0.2, ("behaviour", "overcharged", "ended_early")),
    "app": (0.4, ("app", "ended_early", "overcharged")),
    "unknown": (0.35, ("ended_early", "ended_early", "overcharged")),
    "no_driver": (0.12, ("no_ride",)),
    "no_show": (0.25, ("cancelled_by_driver", "cancel_fee")),
    "changed_mind": (0.12, ("cancel_fee",)),
    "dispatch": (0.15, ("no_ride", "app")),
}
"""Trouble of a ride -> share of such rides that are written about, and what about."""
_NEVER_BEGAN: Final = {"ended_early", "behaviour"}


@dataclass(frozen=True, slots=True)
class Message:
    """A row of table `messages` (`at`, in ms, is its `sent_at`) and, in `truth`, the ride that its writer meant."""

    message_id: str
    user_id: str | None
    channel: Channel
    direction: Literal["inbound", "outbound"]
    at: int
    subject: str | None
    body: str
    ride_id: str | None
    thread_id: str | None
    updated_at: int
    truth: str | None

    def row(self, at: int) -> dict[str, str | int | float | None]:
        """The row as the application database has it at `at` (not before it was sent)."""
        return {
            "message_id": self.message_id,
            "user_id": self.user_id,
            "channel": self.channel,
            "direction": self.direction,
            "sent_at": rfc3339(self.at),
            "subject": self.subject,
            "body": self.body,
            "ride_id": self.ride_id,
            "thread_id": self.thread_id,
            "updated_at": rfc3339(self.updated_at if self.updated_at <= at else self.at),
        }


def facts_of(ride: Ride) -> wording.Facts:
    """What its rider may remember of a ride."""
    driver = ride.driver
    return wording.Facts(
        ride_id=ride.ride_id,
        rider_name=ride.rider.first_name,
        from_place=ride.pickup_place,
        from_zone=ride.pickup_zone.name,
        to_place=ride.final_place,
        to_zone=ride.final_zone.name,
        requested_at=ride.requested_at,
        ended_at=ride.ended_at,
        fare_cents=ride.fare_cents,
        driver_name=driver.first_name if driver else None,
        plate=driver.plate if driver else None,
        vehicle=driver.vehicle if driver else None,
    )


def about(rng: Random, ride: Ride) -> Iterator[Message]:
    """The messages about a ride, if any: a first one, perhaps more in the same thread, and the receipt."""
    facts = facts_of(ride)
    if ride.status == "completed" and rng.random() < 0.05:
        subject, text = wording.receipt(facts)
        at = ride.ended_at + rng.randrange(MINUTE, 3 * MINUTE)
        # Sent by billing, which knows the ride but does not always say so in the table.
        known = ride.ride_id if rng.random() < 0.5 else None
        yield _message(rng, ride.rider, "email", "outbound", at, subject, text, known, None, ride.ride_id)
    share, topics = _TOPICS_AFTER[ride.trouble]
    if rng.random() >= share:
        return
    topic = rng.choice(topics)
    if ride.picked_up_at is None and topic in _NEVER_BEGAN:
        topic = "cancelled_by_driver"
    while_riding = topic in ("behaviour", "app") and rng.random() < 0.15
    if while_riding:
        at = rng.randrange(ride.requested_at + 30 * SECOND, max(ride.requested_at + MINUTE, ride.ended_at))
    else:
        at = ride.ended_at + round(rng.lognormvariate(3.3, 1.6) * MINUTE)
    subject, text = wording.complaint(rng, topic, facts, at)
    yield from _thread(rng, ride.rider, at, subject, text, facts, ride.ride_id)


def about_nothing(rng: Random, rider: Rider, at: int) -> Iterator[Message]:
    """A message (and perhaps its thread) about no ride of `rider`, or one that Rebu sends to many."""
    if rng.random() < 0.25:
        subject, text = wording.news(rng)
        yield _message(rng, rider, "email", "outbound", at, subject, text, None, None, None)
        return
    subject, text = wording.general(rng)
    yield from _thread(rng, rider, at, subject, text, None, None)


def _thread(
    rng: Random, rider: Rider, at: int, subject: str, text: str, facts: wording.Facts | None, truth: str | None
) -> Iterator[Message]:
    channels: tuple[Channel, ...] = ("email", "voice", "chat")
    channel: Channel = rng.choices(channels, (45, 20, 35))[0]
    thread = f"t-{readable(rng, 8)}" if channel != "voice" and rng.random() < 0.8 else None
    # A chat that was opened from a ride's own help page knows the ride.
    known = truth if channel == "chat" and rng.random() < 0.3 else None
    raw_mail = channel == "email" and rng.random() < 0.55
    mail_id: str | None = None
    if channel == "voice":
        body = envelopes.call(rng, text, rider.name)
    elif channel == "chat":
        body = envelopes.chat(rng, text)
    elif raw_mail:
        body, mail_id = envelopes.mail(rng, rider.email, envelopes.SUPPORT_ADDRESS, subject, text, at)
    else:
        body = text
    # A mail from somebody whom the help desk did not recognise: the sender's address tells who it is.
    unknown_sender = raw_mail and rng.random() < 0.05
    title = subject if channel == "email" else None
    first = _message(rng, rider, channel, "inbound", at, title, body, known, thread, truth, unknown_sender)
    yield first
    if thread is None:
        return
    name = rider.first_name
    while rng.random() < 0.55:
        at += (
            round(rng.lognormvariate(3.0, 1.2) * MINUTE)
            if channel == "email"
            else rng.randrange(20 * SECOND, 5 * MINUTE)
        )
        reply = wording.answer(rng, facts, name)
        if raw_mail:
            reply, mail_id = envelopes.mail(
                rng, envelopes.SUPPORT_ADDRESS, rider.email, subject, envelopes.quoted(reply, text), at, mail_id
            )
        yield _message(rng, rider, channel, "outbound", at, title and f"Re: {title}", reply, known, thread, truth)
        if rng.random() < 0.5:
            return
        at += (
            round(rng.lognormvariate(3.0, 1.2) * MINUTE)
            if channel == "email"
            else rng.randrange(10 * SECOND, 4 * MINUTE)
        )
        more = wording.follow_up(rng)
        if raw_mail:
            more, mail_id = envelopes.mail(rng, rider.email, envelopes.SUPPORT_ADDRESS, subject, more, at, mail_id)
        yield _message(rng, rider, channel, "inbound", at, title and f"Re: {title}", more, known, thread, truth)


def _message(
    rng: Random, rider: Rider, channel: Channel, direction: Literal["inbound", "outbound"], at: int,
    subject: str | None, body: str, known: str | None, thread: str | None, truth: str | None,
    unknown_sender: bool = False,
) -> Message:  # fmt: skip
    return Message(
        message_id=f"m-{readable(rng, 12)}",
        user_id=None if unknown_sender else rider.user_id,
        channel=channel,
        direction=direction,
        at=at,
        subject=subject,
        body=body,
        ride_id=known,
        thread_id=thread,
        # A help desk looks at it, files it, and the row changes.
        updated_at=at if rng.random() < 0.7 else at + rng.randrange(MINUTE, 3 * HOUR),
        truth=truth,
    )
