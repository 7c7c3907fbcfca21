"""Reading back every ride and message of the database, until it is served as it stands there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from rebu_ray.client import quoted
from rebu_ray.simulate.tables import Row

Document = dict[str, Any]
Get = Callable[[str], Awaitable[tuple[int, Any]]]
"""Path -> status and JSON."""
Differs = Callable[[Document], str | None]
"""What a document has otherwise than it should, in words; None: nothing."""

READERS: Final = 8
PAUSE_S: Final = 0.3
_SAME: Final = ("status", "requested_at", "accepted_at", "picked_up_at", "ended_at")


@dataclass(frozen=True, slots=True)
class Served:
    """What is served of the database. A document is None where nothing was served."""

    rides: dict[str, Document | None]
    messages: dict[str, Document | None]
    late: dict[str, str]
    """Path -> why it is not what the database has, or not there at all."""

    @property
    def late_rides(self) -> int:
        return sum(path.startswith("/v1/rides/") for path in self.late)

    @property
    def late_messages(self) -> int:
        return len(self.late) - self.late_rides

    def ride_documents(self) -> dict[str, Document]:
        """Those that are served."""
        return {ride_id: found for ride_id, found in self.rides.items() if found is not None}

    def message_documents(self) -> dict[str, Document]:
        """Those that are served."""
        return {message_id: found for message_id, found in self.messages.items() if found is not None}


async def read_all(get: Get, rides: Sequence[Row], messages: Sequence[Row], within: float) -> Served:
    """Read the documents of these rows again and again, until all are as the rows say and have stopped changing.

    Gives up after `within` seconds.
    """
    ride_paths = {str(row["ride_id"]): f"/v1/rides/{quoted(str(row['ride_id']))}" for row in rides}
    message_paths = {str(row["message_id"]): f"/v1/messages/{quoted(str(row['message_id']))}" for row in messages}
    wanted: dict[str, Differs] = {ride_paths[str(row["ride_id"])]: partial(ride_differs, row) for row in rides}
    wanted |= dict.fromkeys(message_paths.values(), lambda _: None)
    documents, late = await settle(get, wanted, within)
    return Served(
        {ride_id: documents.get(path) for ride_id, path in ride_paths.items()},
        {message_id: documents.get(path) for message_id, path in message_paths.items()},
        late,
    )


def ride_differs(row: Mapping[str, Any], document: Mapping[str, Any]) -> str | None:
    """What the document of a ride has otherwise than its row in status, times, rider and driver."""
    pairs = {name: (row[name], document.get(name)) for name in _SAME}
    for who in ("user", "driver"):
        pairs[f"{who}_id"] = row[f"{who}_id"], (document.get(who) or {}).get(f"{who}_id")
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            return f"{name} is {theirs!r}, in the database {ours!r}"
    return None


async def settle(get: Get, wanted: Mapping[str, Differs], within: float) -> tuple[dict[str, Document], dict[str, str]]:
    """Read until each document is as it should be and the same twice: (path -> document, path -> why it is late)."""
    documents: dict[str, Document] = {}
    late = dict.fromkeys(wanted, "not read")
    unsettled = list(wanted)
    deadline = time.monotonic() + within
    while unsettled:
        queue = iter(unsettled)
        again: list[str] = []

        async def reader(queue: Iterable[str] = queue, again: list[str] = again) -> None:
            for path in queue:
                status, found = await get(path)
                why = wanted[path](found) if status == 200 else f"{status} {found.get('code', '')}".strip()
                before = documents.get(path)
                if status == 200:
                    documents[path] = found
                if why is None:
                    late.pop(path, None)
                else:
                    late[path] = why
                if why is not None or before != found:
                    again.append(path)

        await asyncio.gather(*(reader() for _ in range(READERS)))
        unsettled = again
        if time.monotonic() > deadline:
            break
        if unsettled:
            await asyncio.sleep(PAUSE_S)
    return documents, late
