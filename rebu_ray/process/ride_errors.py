"""Which errors a user met during which ride: an interval join of errors and rides."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rebu_ray.process.tables import ERROR_ITEMS
from rebu_ray.records import Kind

Times = npt.NDArray[np.float64]
"""Milliseconds since the epoch, exact; NaN where there is none."""

_APP: Final = pa.scalar(Kind.APP_ERROR.value)


class Met(NamedTuple):
    """What was met in each ride, in the order of the rides."""

    items: pa.Array
    """`ERROR_ITEMS`, by (timestamp, id)."""
    app: npt.NDArray[np.int64]
    server: npt.NDArray[np.int64]
    driving: npt.NDArray[np.bool_]
    """Whether any lies between pick-up and end."""


def met(errors: pa.Table, users: pa.Array, requested: Times, picked_up: Times, ended: Times) -> Met:
    """The errors (`ERRORS`) of each ride's user with an event time from request to end, both included.

    A ride without an end runs: then every later error counts whose event time is not after its own receipt. The
    same (user, id) is one error: the one received first.
    """
    rides = len(users)
    riders = users.dictionary_encode()
    rider = riders.indices.fill_null(-1).to_numpy().astype(np.int64)
    known = _distinct(errors, riders.dictionary)
    time, owner = known["event_time"].to_numpy(), known["owner"].to_numpy()
    # Errors are sorted by (owner, time). Times are counted by their rank, so that both fit in one number.
    instants = np.unique(time)
    span = len(instants) + 1
    places = owner * span + np.searchsorted(instants, time)
    running = np.isnan(ended)
    first = np.searchsorted(places, rider * span + np.searchsorted(instants, requested, "left"))
    until = np.where(running, span - 1, np.searchsorted(instants, ended, "right"))
    count = np.maximum(np.searchsorted(places, rider * span + until) - first, 0)
    count[np.isnan(requested) | (rider < 0)] = 0

    ride = np.repeat(np.arange(rides), count)
    at = np.arange(len(ride)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    heard = ~running[ride] | (time[at] <= known["received_at"].to_numpy()[at])
    ride, at = ride[heard], at[heard]
    when = time[at]
    driving = np.bincount(ride[(when >= picked_up[ride]) & (when <= ended[ride])], minlength=rides) > 0
    count = np.bincount(ride, minlength=rides)
    by_app = pc.equal(known["kind"], _APP).to_numpy()[at]
    app = np.bincount(ride[by_app], minlength=rides)
    offsets = pa.array(np.append(0, np.cumsum(count)), pa.int32())
    found = known.take(pa.array(at))
    struct = pa.StructArray.from_arrays(
        [found[name].combine_chunks() for name in ("id", "kind", "name", "event_time")],
        fields=[*ERROR_ITEMS.value_type],
    )
    return Met(pa.ListArray.from_arrays(offsets, struct, type=ERROR_ITEMS), app, count - app, driving)


def _distinct(errors: pa.Table, riders: pa.Array) -> pa.Table:
    """The errors of these riders, each once, with `owner` (the rider's place), sorted by (owner, event time, id)."""
    owners = pc.index_in(errors["user_id"], value_set=riders)
    owned = pc.is_valid(owners)
    errors = errors.filter(owned).append_column("owner", owners.filter(owned).cast(pa.int64())).combine_chunks()
    owner, time, ids = errors["owner"].to_numpy(), errors["event_time"].to_numpy(), _ranks(errors["id"])
    order = np.lexsort(
        (_ranks(errors["name"]), _ranks(errors["kind"]), time, errors["received_at"].to_numpy(), ids, owner)
    )
    same = (owner[order][1:] == owner[order][:-1]) & (ids[order][1:] == ids[order][:-1])
    once = order[~np.append(False, same)] if len(order) else order
    by_time = once[np.lexsort((time[once], owner[once]))]  # what is equal stays by id
    return errors.take(pa.array(by_time)).combine_chunks()


def _ranks(texts: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Where each text stands among all, in the order of their bytes."""
    ranks: npt.NDArray[np.uint64] = pc.rank(texts, "ascending", tiebreaker="dense").to_numpy()
    return ranks
