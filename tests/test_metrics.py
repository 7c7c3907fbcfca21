"""The text of many processes' numbers, against Prometheus' own parser."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from rebu_ray.metrics import Part, exposition, new_registry, seconds, snapshot

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def process(taken: dict[str, int], waited: list[float]) -> bytes:
    """What a process has counted that took so much of each, and waited so long."""
    registry = CollectorRegistry()
    counter = Counter("rebu_test_records", "Records.", ("source",), registry=registry)
    for source, count in taken.items():
        counter.labels(source).inc(count)
    waits = seconds(registry, "rebu_test_wait_seconds", "Waits.")
    for wait in waited:
        waits.observe(wait)
    Gauge("rebu_process_things", "Things.", registry=registry).set(len(waited))
    return snapshot(registry)


def series(text: bytes) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "a series stands once"
            found[key] = sample.value
    return found


counts = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(0, 10**9), max_size=4)
waits = st.lists(st.floats(0, 100), max_size=5)


@given(st.lists(st.tuples(counts, waits), max_size=4))
def test_every_process_shows_by_its_number_and_nothing_is_added_up(
    processes: list[tuple[dict[str, int], list[float]]],
) -> None:
    parts = [Part(f"shard-{n}", {"slot": str(n)}, process(*told)) for n, told in enumerate(processes)]
    found = series(exposition(parts, [GaugeMetricFamily("rebu_up", "Up.", value=1)]))
    assert found[("rebu_up", ())] == 1
    for n, (taken, waited) in enumerate(processes):
        for source, count in taken.items():
            assert found[("rebu_test_records_total", (("slot", str(n)), ("source", source)))] == count
        assert found[("rebu_test_wait_seconds_count", (("slot", str(n)),))] == len(waited)
        assert found[("rebu_test_wait_seconds_bucket", (("le", "+Inf"), ("slot", str(n))))] == len(waited)
        assert found[("rebu_process_things", (("process", f"shard-{n}"),))] == len(waited)


def test_a_family_is_described_once_whoever_shows_it() -> None:
    parts = [Part(f"gateway-{n}", {"replica": str(n)}, snapshot(new_registry())) for n in range(3)]
    lines = exposition(parts).decode().splitlines()
    described = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(described) == len(set(described))
    assert "rebu_process_resident_memory_bytes" in described
    helped = [line.split()[2] for line in lines if line.startswith("# HELP")]
    assert helped == described
    assert not [line for line in lines if "_created" in line]
