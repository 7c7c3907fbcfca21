"""Ride documents: the JSON text of each ride, with its messages counted.

Times are RFC 3339 UTC with milliseconds, seconds to the millisecond, distances to 0.1 m, progress to 0.000001.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.process.tables import RIDE_DOCUMENTS
from rebu_ray.store.rows import json_strings, repeated_json

_SHAPE: Final = (
    b'{"ride_id":%b,"status":%b,"city":%b,"user":%b,"driver":%b,"requested_at":%b,"accepted_at":%b,"picked_up_at":%b,'
    b'"ended_at":%b,"fare_cents":%b,"currency":%b,"distance_m":%b,"rating":%b,"pickup":%b,"destination":%b,'
    b'"dropoff":%b,"wait_s":%b,"duration_s":%b,"requested_distance_m":%b,"destination_gap_m":%b,'
    b'"destination_matched":%b,"progress":%b,"errors":{"app":%b,"server":%b,"items":[%b]},"premature":%b,"cause":%b,'
    b'"quality":%b,"flags":[%b],"messages":{"linked":%b,"ambiguous":%b}}'
)
_ERROR: Final = b'{"id":%b,"kind":%b,"name":%b,"timestamp":%b}'
_NULL: Final = b"null"


def documents(stats: pa.Table, links: pa.Table | None = None) -> pa.Table:
    """`RIDE_DOCUMENTS` of rides (`RIDE_STATS`) and what messages were linked to them (`LINKS`), in the rides' order."""
    linked, ambiguous = _messages(stats, links)
    stats = stats.combine_chunks()
    parts: list[list[bytes]] = [
        json_strings(stats["ride_id"].to_pylist()),
        repeated_json(stats["status"].to_pylist()),
        repeated_json(stats["city"].to_pylist()),
        _people(stats["user_id"], stats["user_name"], b"user_id"),
        _people(stats["driver_id"], stats["driver_name"], b"driver_id"),
        *(_times(stats[name]) for name in ("requested_at", "accepted_at", "picked_up_at", "ended_at")),
        _texts(stats["fare_cents"]),
        repeated_json(stats["currency"].to_pylist()),
        _texts(stats["distance_m"]),
        _texts(stats["rating"]),
        *(_points(stats[f"{name}_lat"], stats[f"{name}_lon"]) for name in ("pickup", "destination", "dropoff")),
        *(_texts(stats[name]) for name in ("wait_s", "duration_s", "requested_distance_m", "destination_gap_m")),
        *(_texts(stats[name]) for name in ("destination_matched", "progress", "errors_app", "errors_server")),
        _listed(stats["errors"], _errors(stats["errors"])),
        _texts(stats["premature"]),
        repeated_json(stats["cause"].to_pylist()),
        _texts(stats["quality"]),
        _listed(stats["flags"], repeated_json(_flat(stats["flags"]).to_pylist())),
        _texts(pa.array(linked)),
        _texts(pa.array(ambiguous)),
    ]
    texts = [_SHAPE % row for row in zip(*parts, strict=True)]
    columns = [pa.array(linked), pa.array(ambiguous), pa.array(texts, pa.binary())]
    return pa.table([*stats.columns, *columns], schema=RIDE_DOCUMENTS)


def _messages(stats: pa.Table, links: pa.Table | None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many messages are linked to each ride, and how many may be about it."""
    if links is None or not links.num_rows:
        return np.zeros(stats.num_rows, np.int64), np.zeros(stats.num_rows, np.int64)
    rides = stats["ride_id"].combine_chunks()
    linked = links.filter(pc.equal(links["status"], "linked"))["ride_id"].combine_chunks()
    unsure = links.filter(pc.equal(links["status"], "ambiguous"))["candidates"].combine_chunks()
    message = pc.list_parent_indices(unsure).to_numpy()
    candidate = _places(unsure.flatten().field("ride_id"), rides)
    pairs = np.unique(np.stack([message, candidate]), axis=1)
    return _counts(_places(linked, rides), len(rides)), _counts(pairs[1], len(rides))


def _places(ids: pa.Array, rides: pa.Array) -> npt.NDArray[np.int64]:
    """Where each id stands among the rides; -1 where it does not."""
    found: npt.NDArray[np.int64] = pc.index_in(ids, value_set=rides).fill_null(-1).to_numpy().astype(np.int64)
    return found


def _counts(places: npt.NDArray[np.int64], rides: int) -> npt.NDArray[np.int64]:
    return np.bincount(places[places >= 0], minlength=rides)


def _texts(column: pa.Array | pa.ChunkedArray) -> list[bytes]:
    """Numbers and truth values as JSON."""
    texts: list[bytes] = column.cast(pa.string()).fill_null("null").cast(pa.binary()).to_pylist()
    return texts


def _times(column: pa.ChunkedArray) -> list[bytes]:
    written = column.cast(pa.timestamp("ms")).cast(pa.string())
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(written, " ", "T", max_replacements=1), 'Z"', "")
    texts: list[bytes] = quoted.fill_null("null").cast(pa.binary()).to_pylist()
    return texts


def _points(lat: pa.ChunkedArray, lon: pa.ChunkedArray) -> list[bytes]:
    text = pc.binary_join_element_wise('{"lat":', lat.cast(pa.string()), ',"lon":', lon.cast(pa.string()), "}", "")
    texts: list[bytes] = text.fill_null("null").cast(pa.binary()).to_pylist()
    return texts


def _people(ids: pa.ChunkedArray, names: pa.ChunkedArray, key: bytes) -> list[bytes]:
    shape = b'{"' + key + b'":%b,"name":%b}'
    people = zip(json_strings(ids.to_pylist()), json_strings(names.to_pylist()), strict=True)
    return [_NULL if person[0] == _NULL else shape % person for person in people]


def _errors(errors: pa.ChunkedArray) -> list[bytes]:
    items = _flat(errors)
    columns = zip(
        json_strings(items.field("id").to_pylist()),
        repeated_json(items.field("kind").to_pylist()),
        repeated_json(items.field("name").to_pylist()),
        _times(pa.chunked_array([items.field("timestamp")])),
        strict=True,
    )
    return [_ERROR % item for item in columns]


def _flat(lists: pa.ChunkedArray) -> pa.Array:
    flat = pc.list_flatten(lists)
    return flat.combine_chunks() if isinstance(flat, pa.ChunkedArray) else flat


def _listed(lists: pa.ChunkedArray, items: list[bytes]) -> list[bytes]:
    """The items of each list with commas between them."""
    lengths: Iterable[int] = pc.list_value_length(lists).to_pylist()
    return [b",".join(items[start:end]) for start, end in pairwise(accumulate(lengths, initial=0))]
