"""A day at Rebu: riders, drivers, rides, phones, servers and customer service, made from a seed.

`write_sources` writes the data sources of some days as files; `uploads` makes a morning's HTTP requests, and
`write_database` the application database that goes with them. All take what happens from a `World`.
"""

from rebu_ray.simulate.sources import DatabaseSummary, SourceCount, SourcesSummary, write_database, write_sources
from rebu_ray.simulate.traffic import Upload, uploads
from rebu_ray.simulate.world import World

__all__ = [
    "DatabaseSummary",
    "SourceCount",
    "SourcesSummary",
    "Upload",
    "World",
    "uploads",
    "write_database",
    "write_sources",
]
