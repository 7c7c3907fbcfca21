"""What a process counts and measures, how that is handed on, and the text in which the numbers of all stand together.

Each process has a registry of its own and says now and then what is in it; a scrape shows all of them, whoever is
asked. Every series tells by a label which process it is of: when that one begins anew its counters begin anew, and no
other's do. Names are `rebu_`, what it is about, and the unit; labels have few values, and never anybody's id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of what requests, commits and computations take."""
MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OF_PROCESSES: Final = "rebu_process_"
"""What every process tells of itself: these are labelled with its name, all others with its number among its kind."""


class Part(msgspec.Struct, frozen=True):
    """What one process said last."""

    process: str
    """Its name: `shard-0`."""
    labels: dict[str, str]
    """What tells its series from those of others of its kind."""
    data: bytes
    """Of `snapshot`."""


class _Family(msgspec.Struct, array_like=True):
    name: str
    kind: str
    text: str
    samples: list[tuple[str, dict[str, str], float]]


def new_registry() -> CollectorRegistry:
    """A registry that knows what its process takes of the machine."""
    registry = CollectorRegistry()
    ProcessCollector("rebu", registry=registry)
    return registry


def seconds(registry: CollectorRegistry, name: str, text: str, labels: Sequence[str] = ()) -> Histogram:
    """A histogram of how long something takes."""
    return Histogram(name, text, labels, registry=registry, buckets=SECONDS)


def snapshot(registry: Collector) -> bytes:
    """All that is in a registry now."""
    return msgspec.msgpack.encode(
        [
            _Family(
                metric.name,
                metric.type,
                metric.documentation,
                [(sample.name, sample.labels, sample.value) for sample in metric.samples if _told(sample.name)],
            )
            for metric in registry.collect()
        ]
    )


def _told(name: str) -> bool:
    # When a counter began is what its process's own start tells as well.
    return not name.endswith("_created")


class _All(Collector):
    """The families of many processes, each once."""

    def __init__(self, parts: Iterable[Part], further: Iterable[Metric]) -> None:
        self._parts = parts
        self._further = further

    def collect(self) -> Iterator[Metric]:
        found = {metric.name: metric for metric in self._further}
        for part in self._parts:
            named = {"process": part.process}
            for family in msgspec.msgpack.decode(part.data, type=list[_Family]):
                known = found.get(family.name)
                if known is None:
                    known = found[family.name] = Metric(family.name, family.text, family.kind)
                own = named if family.name.startswith(OF_PROCESSES) else part.labels
                for name, labels, value in family.samples:
                    known.add_sample(name, labels | own, value)
        yield from (found[name] for name in sorted(found))


def exposition(parts: Iterable[Part], further: Iterable[Metric] = ()) -> bytes:
    """The text of all that processes said, and of what else is known, for Prometheus."""
    return generate_latest(_All(parts, further))
