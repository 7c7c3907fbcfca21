"""Backfill: the ride documents of a whole partition from its records."""

from __future__ import annotations

import pyarrow as pa

from rebu_ray.process.documents import documents
from rebu_ray.process.ride_stats import statistics
from rebu_ray.process.tables import from_rows


def documents_of(rows: pa.Table, links: pa.Table | None = None) -> pa.Table:
    """The documents (`RIDE_DOCUMENTS`) of all rides among `rows`: what the incremental path makes of them as well.

    `rows` are the records of some users (`tables.from_rows`), all that belong to their rides, the drivers included;
    `links` what their messages were linked to.
    """
    return documents(statistics(from_rows(rows)), links)
