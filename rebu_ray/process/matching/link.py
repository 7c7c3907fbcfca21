"""Messages to rides: candidates, their scores, threads, and the decision."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.process.matching import signals
from rebu_ray.process.matching.calibration import confidences, decide
from rebu_ray.process.matching.reading import read
from rebu_ray.process.matching.rides import COLUMNS, Ride, code_of, names_of, ride
from rebu_ray.process.matching.signals import Resolved, Said, Signal
from rebu_ray.process.matching.weights import DECISIONS, WEIGHTS
from rebu_ray.process.matching.when import Precision
from rebu_ray.process.tables import LINKS

_MESSAGE_COLUMNS: Final = (
    "message_id", "user_id", "channel", "direction", "sent_at", "subject", "body", "ride_id", "thread_id",
    "updated_at", "deleted", "received_at", "record_id",
)  # fmt: skip
_UNKNOWN_TO_IT: Final = -8.0
"""What a message of a thread says of a ride that was requested only after it."""

_SHOWN_FROM: Final = 0.005
"""Least weight of a reason that is shown."""

Row = dict[str, Any]


@dataclass(slots=True)
class Case:
    """A message with its candidates. `own` is what it says of each, `setting` what lag and rank say; None is none."""

    row: Row
    said: Said
    candidates: list[Ride]
    own: dict[str | None, list[Signal]] = field(default_factory=dict)
    setting: dict[str | None, list[Signal]] = field(default_factory=dict)
    thread: dict[str | None, Signal] = field(default_factory=dict)

    def signals_of(self, ride_id: str | None) -> list[Signal]:
        """All that speaks for or against a candidate. What begins a thread sets the time for what follows."""
        thread = self.thread.get(ride_id)
        begun = thread is not None and thread.key == "thread.begun"
        found = self.own[ride_id] + ([] if begun else self.setting[ride_id])
        return found if thread is None else [*found, thread]


def link(messages: pa.Table, stats: pa.Table, drivers: pa.Table, users: pa.Table) -> pa.Table:
    """Which ride each message is about.

    `messages` is MESSAGES (all versions), `stats` RIDE_STATS, `drivers` DRIVERS, `users` USERS, of any number of
    people in any order; what is said of one person's message depends on this person's rows alone. The answer is
    LINKS, a row a message that is not deleted, sorted by (user_id, sent_at, message_id).
    """
    found: list[tuple[Row, Row]] = []
    for mine in cases(messages, stats, drivers, users):
        found += [(case.row, _judged(case)) for case in mine]
    found.sort(key=lambda pair: _order(pair[0]))
    return pa.Table.from_pylist([answer for _, answer in found], schema=LINKS)


def cases(messages: pa.Table, stats: pa.Table, drivers: pa.Table, users: pa.Table) -> Iterable[list[Case]]:
    """The messages of each user with all that speaks for each candidate, threads included."""
    rows = _counting(messages)
    wanted = pa.array(sorted({row["user_id"] for row in rows if row["user_id"] is not None}), pa.string())
    driver_rows = {row["driver_id"]: row for row in sorted(drivers.to_pylist(), key=lambda row: row["received_at"])}
    names = {row["user_id"]: row["name"] for row in users.select(["user_id", "name"]).to_pylist()}
    rides: dict[str, list[Ride]] = defaultdict(list)
    of_users = stats.select(list(COLUMNS)).filter(pc.is_in(stats["user_id"], value_set=wanted))
    for row in of_users.to_pylist():
        names[row["user_id"]] = names.get(row["user_id"]) or row["user_name"]
        if row["requested_at"] is not None:
            rides[row["user_id"]].append(ride(row, driver_rows.get(row["driver_id"])))
    by_user: dict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        by_user[row["user_id"]].append(row)
    for user_id, theirs in by_user.items():
        known = sorted(rides.get(user_id or "", []), key=lambda one: (one.requested_at, one.ride_id))
        own_names = names_of(names.get(user_id or ""))
        mine = [_case(row, known, own_names) for row in sorted(theirs, key=_order)]
        _threads(mine)
        yield mine


def _counting(messages: pa.Table) -> list[Row]:
    """The version of each message that counts, deleted ones left out."""
    best: dict[str, tuple[tuple[int, int, str], Row]] = {}
    low = -(2**63)
    for row in messages.select(list(_MESSAGE_COLUMNS)).to_pylist():
        version = (low if row["updated_at"] is None else row["updated_at"], row["received_at"], row["record_id"])
        before = best.get(row["message_id"])
        if before is None or version > before[0]:
            best[row["message_id"]] = version, row
    return [row for _, row in best.values() if not row["deleted"]]


def _order(row: Row) -> tuple[str, int, str]:
    return row["user_id"] or "", -1 if row["sent_at"] is None else row["sent_at"], row["message_id"]


def _case(row: Row, rides: Sequence[Ride], own_names: frozenset[str]) -> Case:
    reading = read(row["channel"], row["subject"], row["body"])
    mode = "outbound" if row["direction"] == "outbound" else row["channel"]
    said = Said(
        reading=reading,
        sent_at=row["sent_at"] if row["sent_at"] is not None else row["received_at"],
        mode=mode if mode in ("email", "voice", "chat", "outbound") else "email",
        ticket=row["ride_id"],
        own_names=own_names,
    )
    known = [one for one in rides if one.requested_at <= said.sent_at]
    recent = known[-int(DECISIONS["recent rides"].value) :]
    moments: dict[Any, list[Resolved]] = {}
    codes = reading.codes | reading.quoted_codes
    named = {one.ride_id for one in rides if one.code in codes or one.ride_id == said.ticket}
    among = {one.ride_id for one in recent} | named
    candidates = [one for one in rides if one.ride_id in among] if named else list(recent)
    if len(known) > len(recent):
        candidates = _named_old(said, known[: -len(recent)], moments) + candidates
        candidates = sorted(
            {one.ride_id: one for one in candidates}.values(), key=lambda one: (one.requested_at, one.ride_id)
        )
    case = Case(row, said, candidates)
    cities = frozenset(one.city.casefold() for one in rides if one.city)
    place = {one.ride_id: len(known) - 1 - number for number, one in enumerate(known)}
    for one in candidates:
        if one.zone not in moments:
            moments[one.zone] = signals.resolved(said, one)
        position = place.get(one.ride_id, 0)
        case.own[one.ride_id] = signals.of_ride(said, one, position, known, moments[one.zone], cities)
        case.setting[one.ride_id] = [signals.lag(said, one), signals.rank(position)]
    case.own[None] = signals.of_none(said, rides)
    case.setting[None] = [Signal("channel", _CHANNELS[said.mode], f"none.{said.mode}")]
    return case


_CHANNELS: Final = {
    "email": "how often a mail is about no ride",
    "voice": "how often a call is about no ride",
    "chat": "how often a chat is about no ride",
    "outbound": "how often a message of Rebu's is about no ride",
}


def _named_old(said: Said, old: Sequence[Ride], moments: dict[Any, list[Resolved]]) -> list[Ride]:
    """The rides before the recent ones that the text points at by amount or date."""
    amounts = {amount.cents for amount in said.reading.amounts if not amount.rough}
    dated = any(moment.day is not None and moment.day[0] in ("date", "slash", "nth") for moment in said.reading.moments)
    found = []
    for one in old:
        if dated and one.zone not in moments:
            moments[one.zone] = signals.resolved(said, one)
        near = dated and any(
            low - one.until <= 0 and one.requested_at - high <= 0
            for moment, stretches in moments[one.zone]
            for low, high in stretches
            if moment.precision in (Precision.CLOCK, Precision.PART, Precision.DAY)
        )
        if near or one.fare_cents in amounts or code_of(one.ride_id) in said.reading.codes:
            found.append(one)
    return found


def _sum(found: Iterable[Signal]) -> float:
    return math.fsum(WEIGHTS[signal.key].value * signal.times for signal in found)


def _threads(mine: Sequence[Case]) -> None:
    """Gives each message of a thread what the others of it say; `mine` are one user's, in the order of their times."""
    threads: dict[str, list[Case]] = defaultdict(list)
    for case in mine:
        if case.row["thread_id"] and case.row["user_id"] is not None:
            threads[case.row["thread_id"]].append(case)
    for thread in threads.values():
        if len(thread) < 2:
            continue
        sums = [{key: _sum(found) for key, found in case.own.items()} for case in thread]
        start = {key: _sum(found) for key, found in thread[0].setting.items()}
        for number, case in enumerate(thread):
            _lean(case, thread, sums, start, number)


def _lean(
    case: Case,
    thread: Sequence[Case],
    sums: Sequence[dict[str | None, float]],
    start: dict[str | None, float],
    number: int,
) -> None:
    begun = number > 0
    total: dict[str | None, float] = {}
    for key in case.own:
        others = (said.get(key, _UNKNOWN_TO_IT) for other, said in enumerate(sums) if other != number)
        total[key] = math.fsum(others) + (start.get(key, _UNKNOWN_TO_IT) if begun else 0.0)
    top = max(total.values())
    powers = {key: math.exp(value - top) for key, value in total.items()}
    whole, slip, count = math.fsum(powers.values()), DECISIONS["thread slip"].value, len(powers)
    for key, power in powers.items():
        share = (1 - slip) * power / whole + slip / count
        # Among few candidates a thread says less: the ratio is to what each would have by chance.
        strength = math.log(share * count)
        if key is None:
            detail = (
                "the rest of the thread is about no ride" if strength > 0 else "the rest of the thread is about a ride"
            )
        else:
            spokesman = max(
                (other for other in range(len(thread)) if other != number),
                key=lambda other: (sums[other].get(key, _UNKNOWN_TO_IT), -other),
            )
            which = thread[spokesman].row["message_id"]
            detail = f"{which} of the same thread speaks {'for' if strength > 0 else 'against'} this ride"
        case.thread[key] = Signal("thread", detail, "thread.begun" if begun else "thread.later", strength)


def _reasons(found: Iterable[Signal]) -> list[Row]:
    """What people are shown: strongest first."""
    weighed = [(WEIGHTS[signal.key].value * signal.times, signal) for signal in found]
    weighed.sort(key=lambda pair: (-abs(pair[0]), pair[1].key, pair[1].detail))
    return [
        {"signal": signal.signal, "detail": signal.detail, "weight": round(weight, 3)}
        for weight, signal in weighed
        if abs(weight) >= _SHOWN_FROM
    ]


def _judged(case: Case) -> Row:
    """A row of LINKS."""
    row, reading = case.row, case.said.reading
    answer: Row = {key: row[key] for key in ("message_id", "user_id", "thread_id", "channel", "direction", "sent_at")}
    answer |= {"subject": reading.subject, "body": reading.shown, "ride_id": None}
    keys: list[str | None] = [*(one.ride_id for one in case.candidates), None]
    if len(keys) == 1:
        why = "the message names no user" if row["user_id"] is None else "the user had no ride when it was sent"
        reasons = [{"signal": "candidates", "detail": why, "weight": 0.0}, *_reasons(case.own[None])]
        return answer | {"status": "none", "confidence": 1.0, "candidates": [], "reasons": reasons}
    sure = dict(zip(keys, confidences([_sum(case.signals_of(key)) for key in keys]), strict=True))
    ranked = sorted((one.ride_id for one in case.candidates), key=lambda key: (-round(sure[key], 4), key))
    best = ranked[0]
    status = decide(sure[best], sure[None])
    listed = ranked[: int(DECISIONS["most candidates"].value)]
    candidates = [
        {"ride_id": key, "confidence": round(sure[key], 4), "reasons": _reasons(case.signals_of(key))}
        for key in listed
        if sure[key] >= DECISIONS["shown from"].value
    ]
    winner = None if status == "none" else best
    reasons = _reasons(case.signals_of(winner))
    if winner is not None:
        # Somebody else's ride that the text names is not linked, and the reasons say so.
        reasons += _reasons(signal for signal in case.own[None] if signal.key.startswith("none.foreign"))
    return answer | {
        "status": status,
        "ride_id": best if status == "linked" else None,
        "confidence": round(sure[winner], 4),
        "candidates": candidates,
        "reasons": reasons,
    }
