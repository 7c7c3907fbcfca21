"""What a read may ask for, and that a cursor is good for its own query alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.access import query, rides_table
from rebu_ray.access.tape import END, START, Filter, after
from rebu_ray.records import MAX_TIME_MS, BadRequest
from rebu_ray.store.member import KIND_CODES, SOURCE_CODES, place, time_place
from tests.records import NOW, ids, seeded

Ask = Callable[[Mapping[str, str]], Any]


def refusal(ask: Ask, params: Mapping[str, str]) -> tuple[int, str]:
    with pytest.raises(BadRequest) as refused:
        ask(params)
    assert refused.value.message
    return refused.value.status, refused.value.code


@pytest.mark.parametrize("text", ["1", "7", "0010", "1000"])
def test_limits(text: str) -> None:
    assert query.limit({"limit": text}) == int(text)


@pytest.mark.parametrize("text", ["0", "1001", "-1", "", "1.0", "1e2", "٣", "²", " 1", "+1", "ten", "9" * 5000])
def test_a_limit_is_1_to_1000(text: str) -> None:
    assert refusal(query.limit, {"limit": text}) == (400, "invalid_limit")


def test_defaults() -> None:
    assert query.limit({}) == 100
    assert query.descending({})
    assert query.bounds({}) == (START, END)
    assert query.filters({}) == Filter()
    assert not query.filters({}).active


def test_orders() -> None:
    assert (query.descending({"order": "desc"}), query.descending({"order": "asc"})) == (True, False)
    for text in ("", "DESC", "down"):
        assert refusal(query.descending, {"order": text}) == (400, "invalid_order")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-03-02T08:00:00Z", NOW),
        ("2026-03-02T08:00:00.250Z", NOW + 250),
        ("2026-03-02T10:00:00+02:00", NOW),
        ("2026-03-02T10:00:00 02:00", NOW),
        ("2026-03-02T03:00:00-05:00", NOW),
        ("2026-03-02t08:00:00z", NOW),
        ("2026-03-02T08:00:00", NOW),
        ("2026-03-02", NOW - 8 * 3_600_000),
        (str(NOW), NOW),
        ("0", 0),
        (str(MAX_TIME_MS), MAX_TIME_MS),
    ],
)
def test_times(text: str, ms: int) -> None:
    assert query.time({"since": text}, "since") == ms
    assert query.bounds({"since": text, "until": text}) == (time_place(ms), time_place(ms))


@pytest.mark.parametrize("text", ["", "now", "-1", "2026-13-01T00:00:00Z", "2026-03-01T25:00:00Z", "1e400", "NaN", "T"])
def test_what_is_no_time_is_refused(text: str) -> None:
    assert refusal(query.bounds, {"until": text}) == (400, "invalid_time")


def test_filters() -> None:
    found = query.filters({"kind": "app_event,server_error", "source": "otlp", "name": 'a"b'})
    kinds = frozenset({KIND_CODES["app_event"], KIND_CODES["server_error"]})
    assert found == Filter(kinds, frozenset({SOURCE_CODES["otlp"]}), b'"name":"a\\"b",')
    assert found.active
    for name, text in (("kind", "dead_letter"), ("kind", ""), ("kind", "app_event,"), ("source", "App-Events")):
        assert refusal(query.filters, {name: text}) == (400, f"unknown_{name}")


def test_parameters_that_a_route_does_not_have_are_refused() -> None:
    query.known({"limit": "1"}, ("limit", "cursor"))
    assert refusal(lambda p: query.known(p, ("limit",)), {"limit": "1", "Limit": "1"}) == (400, "unknown_parameter")


questions = st.tuples(ids, st.booleans(), st.sampled_from(["a", "b"]))


@settings(seeded)
@given(questions, st.integers(0, MAX_TIME_MS), ids, st.booleans())
def test_a_cursor_cuts_off_what_was_seen(question: tuple[object, ...], at: int, record_id: str, desc: bool) -> None:
    cursors = query.Cursors(*question)
    seen = place(at, record_id)
    low, high = cursors.narrow(cursors.write(seen), START, END, desc)
    assert (low, high) == ((START, seen) if desc else (after(seen), END))
    assert not low <= seen < high
    assert cursors.narrow(None, time_place(1), time_place(2), desc) == (time_place(1), time_place(2))
    inner = cursors.narrow(cursors.write(seen), time_place(at + 1), time_place(at), desc)
    assert inner[0] >= inner[1]


@settings(seeded)
@given(questions, questions, st.integers(0, MAX_TIME_MS), ids, st.booleans())
def test_a_cursor_of_another_query_is_refused(
    question: tuple[object, ...], other: tuple[object, ...], at: int, record_id: str, desc: bool
) -> None:
    text = query.Cursors(*question).write(place(at, record_id))
    if question != other:
        assert refusal(lambda p: query.Cursors(*other).narrow(p["c"], START, END, desc), {"c": text}) == (
            400,
            "invalid_cursor",
        )


@settings(seeded)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(["====", "a", "AAAA", "é"]))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    cursors = query.Cursors("history", "ada")
    assert refusal(lambda p: cursors.narrow(p["c"], START, END, True), {"c": text}) == (400, "invalid_cursor")


QUESTIONS: list[Ask] = [
    query.limit,
    query.descending,
    query.bounds,
    query.filters,
    query.sources,
    rides_table.wanted,
    lambda params: query.known(params, ("limit", "since")),
    lambda params: query.Cursors("q").narrow(params.get("cursor"), START, END, True),
]
NAMES = (
    "limit", "order", "since", "until", "kind", "name", "source", "cursor", "status", "city", "cause", "premature",
    "has_messages", "min_errors", "user_id", "driver_id", "other",
)  # fmt: skip
hostile = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["", "\0", ",", ",,", "9" * 5000, "-0", "1e999", "NaN", "²", "true,false", "2026-13-01T00:00:00Z", "T", "A" * 4000]
)


@settings(seeded, max_examples=300)
@given(st.dictionaries(st.sampled_from(NAMES), hostile, max_size=6))
def test_whatever_is_asked_is_understood_or_refused_with_a_reason(params: dict[str, str]) -> None:
    for ask in QUESTIONS:
        try:
            ask(params)
        except BadRequest as refused:  # anything else would be an answer of 500
            assert (refused.status, bool(refused.message)) == (400, True)  # noqa: PT017
