"""What people write to customer service, and what it writes back. Own texts; who meant which ride is decided elsewhere.

Nothing here knows whether a text will be easy to attribute: details are mentioned, blurred or forgotten by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from rebu_ray.simulate.clock import DAY, HOUR, MINUTE, WEEKDAYS, date_text, moment


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rider may remember of the ride that a message is about. Times in ms; names as people say them."""

    ride_id: str
    rider_name: str
    from_place: str
    from_zone: str
    to_place: str
    to_zone: str
    requested_at: int
    ended_at: int
    fare_cents: int | None
    driver_name: str | None
    plate: str | None
    vehicle: str | None


TOPICS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "ended_early": ("Ride ended too early", (
        "The ride was ended long before we got to {to}.",
        "I was dropped off nowhere near {to} and had to walk the rest.",
        "The app says the trip is finished but I never arrived at {to}!",
        "We stopped halfway and I was told to get out.",
    )),
    "cancelled_by_driver": ("Driver cancelled on me", (
        "The driver cancelled while I was already standing outside.",
        "I waited ages and then it was cancelled, not by me.",
        "Cancelled at the last moment and I missed my appointment.",
        "Nobody ever showed up and then the whole thing vanished from my screen.",
    )),
    "cancel_fee": ("Cancellation fee", (
        "I was charged a cancellation fee although I cancelled within a minute.",
        "Why do I pay for a ride that I never took?",
        "Please refund the cancellation, the car was not moving at all.",
    )),
    "no_ride": ("Could not get a car", (
        "The app kept searching and then gave up.",
        "I got an error when I asked for a car and nothing happened.",
        "No driver was found, how can that be in the middle of town?",
    )),
    "overcharged": ("Charged too much", (
        "The price was a lot more than what I had been shown.",
        "I think the fare is wrong.",
        "That trip normally costs me half of it.",
        "The driver took a huge detour and I am paying for it.",
    )),
    "lost_item": ("Lost something", (
        "I left my umbrella on the back seat.",
        "I think my phone case fell out of my pocket in the car.",
        "My daughter forgot her blue rucksack.",
        "Did anybody hand in a pair of glasses?",
    )),
    "behaviour": ("About the driver", (
        "The driver was on the phone all the time.",
        "He drove far too fast for my liking.",
        "The car smelled of smoke.",
        "I did not feel safe at all.",
    )),
    "app": ("App trouble", (
        "The app froze in the middle of the trip.",
        "The map stopped moving and then I got a receipt.",
        "It crashed twice and I could not see where the car was.",
    )),
    "praise": ("Thank you", (
        "I just wanted to say that was a very pleasant trip.",
        "Please pass on my thanks to the driver.",
        "Great ride, friendly and on time.",
    )),
    "receipt": ("Receipt needed", (
        "Could you send me the receipt again, I need it for work.",
        "My company wants an invoice with the VAT on it.",
        "I cannot find the receipt in my mail.",
    )),
}  # fmt: skip

_OPENINGS: Final = ("Hello,", "Hi there,", "Dear Rebu,", "Good day,", "Hi,", "Hey", "To whom it may concern,", "")
_CLOSINGS: Final = (
    "Please get back to me.", "Thanks", "Thank you, {name}", "Regards\n{name}", "What will you do about it?",
    "Kind regards, {name}", "Cheers", "", "I expect an answer.",
)  # fmt: skip

GENERAL: Final = (
    ("Payment card", "How do I change the card that I pay with? I got a new one from my bank."),
    ("Password", "I cannot log in any more, the code never arrives on my phone."),
    ("Airport", "Do you go to Gullwick Airport at four in the morning, and what would it cost from Lantern Hill?"),
    ("Delete my account", "Please delete my account and everything you have about me."),
    ("Voucher", "I was promised a voucher of 10.00 for inviting a friend but I do not see it."),
    ("Driving for Rebu", "I have a white Kia Niro and would like to drive for you. What do I need?"),
    ("Invoices", "Can I have one invoice a month for all trips instead of one for each?"),
    ("Child seat", "Do your cars have child seats? We are a family of four."),
    ("Opening hours", "Are you on the road on public holidays too?"),
    (
        "My daughter's trip",
        "My daughter took a car to the Stadium yesterday on her own account and left her scarf in it.",
    ),
    (
        "Your drivers",
        "One of your cars, plate unknown, blocked my driveway in Kiln Road this morning. I was not in it.",
    ),
    ("New phone", "I have a new phone number, how do I tell you?"),
    ("Prices", "Why is everything more expensive around 8 in the morning? That is not fair."),
    ("Partnership", "We run a hotel at Harbour Gate and would like a discount for our guests."),
    ("The app", "The new design is hard to read. Can I have the old one back?"),
    ("Wheelchair", "Is there a way to always get a car that takes a wheelchair?"),
)
NEWS: Final = (
    ("Weekend offer", "This weekend: 20 % off every ride between Saturday 10:00 and Sunday 22:00. Have a good one!"),
    ("New in Eastholm", "Rebu now serves Seacombe and Harrow Vale around the clock. Meet the drivers of the month."),
    ("We changed our terms", "Our terms change on the first of next month. You need not do anything."),
    ("How did we do?", "Two questions, one minute: tell us what you think of Rebu."),
)
_ANSWERS: Final = (
    "Hello {name}, thank you for writing to us. I am sorry about this. I have looked at the ride and will see to it.",
    "Hi {name}, I understand. I have asked the driver and will come back to you within two days.",
    "Dear {name}, we have refunded the difference; it may take a few days until you see it.",
    "Hi {name}, could you tell me a little more about what happened?",
    "Hello {name}, I have passed this on to the right team. Is there anything else that I can do?",
)
_ANSWERS_NAMING: Final = (
    "Hello {name}, about your ride {ride_id} from {from_place} to {to_place}: I have refunded it in full.",
    "Hi {name}, I see the ride of {clock} from {from_place}. I am sorry and have put it right.",
    "Dear {name}, regarding ride {ride_id}: your driver has been told.",
)
_FOLLOW_UPS: Final = (
    "Yes please, that would be great.",
    "Any news on this?",
    "That does not help me at all. I want my money back.",
    "Thank you, that was quick!",
    "As I said, I have nothing more to add.",
    "ok thanks",
    "It is still not solved.",
)


def clock_text(rng: Random, ms: int) -> str:
    """A time of day as somebody remembers it: to the minute, the five, or the quarter of an hour."""
    step = rng.choice((1, 5, 5, 15, 15))
    at = moment((ms + step * MINUTE // 2) // (step * MINUTE) * (step * MINUTE))
    if rng.random() < 0.3:
        half = "am" if at.hour < 12 else "pm"
        return f"{(at.hour + 11) % 12 + 1}{f':{at.minute:02d}' if at.minute else ''} {half}"
    return f"{at.hour}:{at.minute:02d}"


def day_text(rng: Random, ms: int, said_at: int) -> str:
    """The day of `ms` as said at `said_at`: this morning, yesterday evening, on Monday, on 2 March."""
    days = said_at // DAY - ms // DAY
    hour = ms % DAY // HOUR
    part = "morning" if hour < 12 else "afternoon" if hour < 17 else "evening" if hour < 22 else "night"
    if days == 0:
        return rng.choice(("today", f"this {part}" if part != "night" else "tonight", "earlier today"))
    if days == 1:
        return rng.choice(("yesterday", f"yesterday {part}" if part != "night" else "last night"))
    at = moment(ms)
    if days < 7 and rng.random() < 0.6:
        return f"on {WEEKDAYS[at.weekday()]}"
    return f"on {date_text(ms)}"


def _when(rng: Random, facts: Facts, said_at: int) -> str:
    at = facts.requested_at if rng.random() < 0.7 or facts.ended_at > said_at else facts.ended_at
    if rng.random() < 0.12:
        at += rng.randrange(-35, 36) * MINUTE  # people misremember
    day = day_text(rng, at, said_at)
    return day if rng.random() < 0.3 else f"{day} {rng.choice(('at', 'around', 'at about'))} {clock_text(rng, at)}"


def _where(rng: Random, facts: Facts) -> str:
    start = facts.from_place if rng.random() < 0.6 else facts.from_zone
    end = facts.to_place if rng.random() < 0.6 else facts.to_zone
    return rng.choice((f"from {start} to {end}", f"from {start} to {end}", f"to {end}", f"from {start}"))


def _details(rng: Random, facts: Facts, said_at: int) -> list[str]:
    """Sentences with what the writer remembers: often something, seldom all, sometimes nothing."""
    found: list[str] = []
    when = _when(rng, facts, said_at) if rng.random() < 0.62 else ""
    where = _where(rng, facts) if rng.random() < 0.5 else ""
    if when or where:
        rest = " ".join(part for part in (where, when) if part)
        lead = rng.choice(("It is about my ride", "I took a car", "I ordered a ride", "This was", "My trip"))
        found.append(f"{lead} {rest}.")
    elif rng.random() < 0.35:
        found.append(rng.choice(("It is about my last ride.", "I mean the ride I just had.", "My most recent trip.")))
    if facts.driver_name is not None and rng.random() < 0.3:
        found.append(rng.choice(("The driver was {}.", "{} was driving.", "My driver, {}, did not say a word.")).format(
            facts.driver_name
        ))  # fmt: skip
    if facts.vehicle is not None and rng.random() < 0.12:
        found.append(f"It was a {facts.vehicle}.")
    if facts.plate is not None and rng.random() < 0.08:
        plate = facts.plate if rng.random() < 0.6 else f"something with {facts.plate.split()[1]}"
        found.append(f"Number plate {plate}.")
    if facts.fare_cents is not None and facts.ended_at <= said_at and rng.random() < 0.18:
        exact = f"{facts.fare_cents / 100:.2f}"
        found.append(
            rng.choice((f"I paid {exact}.", f"You charged me {exact} EUR.", f"About {facts.fare_cents // 100} euros."))
        )
    if rng.random() < 0.09:
        found.append(rng.choice((f"Ride {facts.ride_id}.", f"The receipt says {facts.ride_id[-6:].upper()}.")))
    rng.shuffle(found)
    return found


def complaint(rng: Random, topic: str, facts: Facts, said_at: int) -> tuple[str, str]:
    """(subject, text) of a first message about a ride."""
    subject, sentences = TOPICS[topic]
    words = rng.sample(sentences, k=rng.choice((1, 1, 2)))
    there = facts.to_place if rng.random() < 0.5 else rng.choice(("the place I wanted to go", "my stop"))
    body = [sentence.format(to=there) for sentence in words] + _details(rng, facts, said_at)
    if rng.random() < 0.5:
        body = body[len(words) :] + body[: len(words)]
    opening = rng.choice(_OPENINGS)
    closing = rng.choice(_CLOSINGS).format(name=facts.rider_name)
    return subject, "\n".join(part for part in (opening, " ".join(body), closing) if part)


def general(rng: Random) -> tuple[str, str]:
    """(subject, text) of a message that is about no ride of its writer."""
    subject, text = rng.choice(GENERAL)
    return subject, "\n".join(part for part in (rng.choice(_OPENINGS), text) if part)


def news(rng: Random) -> tuple[str, str]:
    """(subject, text) of something that Rebu sends to many."""
    return rng.choice(NEWS)


def answer(rng: Random, facts: Facts | None, name: str) -> str:
    """What customer service writes back; now and then it names the ride."""
    if facts is not None and rng.random() < 0.35:
        return rng.choice(_ANSWERS_NAMING).format(
            name=name, ride_id=facts.ride_id, from_place=facts.from_place, to_place=facts.to_place,
            clock=clock_text(rng, facts.requested_at),
        )  # fmt: skip
    return rng.choice(_ANSWERS).format(name=name)


def follow_up(rng: Random) -> str:
    """What a rider writes back: only the thread says what it is about."""
    return rng.choice(_FOLLOW_UPS)


def receipt(facts: Facts) -> tuple[str, str]:
    """(subject, text) of the receipt by mail."""
    fare = (facts.fare_cents or 0) / 100
    at = moment(facts.requested_at)
    return f"Your ride to {facts.to_place}", (
        f"Thank you for riding with Rebu, {facts.rider_name}.\n"
        f"Ride {facts.ride_id}, {date_text(facts.requested_at)} {at.year}, {at:%H:%M}\n"
        f"{facts.from_place} to {facts.to_place}\nDriver: {facts.driver_name or '-'}\nTotal: {fare:.2f} EUR"
    )
