"""Lines and the access lines that say whose they are: the order of arrival makes no difference, the bounds hold."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rebu_ray.ingest.request_join import HOUR_MS, RequestJoin, Row, attributed
from rebu_ray.records import Kind, MatchedBy
from tests.records import NOW, seeded

KEYS = ("r:1", "r:2", "r:3")


def line(key: str, record_id: str, received_at: int = NOW) -> Row:
    return {"key": key, "kind": str(Kind.SERVER_ERROR), "id": record_id, "user_id": None, "received_at": received_at}


def binding(key: str, user: str, received_at: int = NOW) -> Row:
    row = line(key, f"binding {received_at} {user}", received_at)
    return row | {"kind": str(Kind.BINDING), "user_id": user}


def claims(join: RequestJoin, rows: list[Row], now: int = NOW) -> list[tuple[str, str, str]]:
    return [(found.row["key"], found.row["id"], found.user_id) for found in join.observe(rows, now)]


bindings = st.lists(st.builds(binding, st.sampled_from(KEYS), st.sampled_from(["ada", "bob"])), max_size=5)
lines = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 9).map(str)), max_size=12, unique=True)


@settings(seeded, max_examples=300)
@given(bindings, lines, st.randoms(use_true_random=False), st.lists(st.integers(0, 17), max_size=5))
def test_any_interleaving_claims_the_same_lines(
    bound: list[Row], named: list[tuple[str, str]], random: Any, cuts: list[int]
) -> None:
    """Of the access lines of one request the first decides; all else may come in any order, in any batches."""
    users: dict[str, str] = {}
    for row in bound:
        users.setdefault(row["key"], row["user_id"])
    named = random.sample(named, len(named))
    turns = random.sample(
        [iter(bound)] * len(bound) + [iter([line(*name) for name in named])] * len(named), len(named) + len(bound)
    )
    rows: list[Row] = [next(turn) for turn in turns]
    join = RequestJoin()
    found: list[tuple[str, str, str]] = []
    edges = sorted({0, *(min(cut, len(rows)) for cut in cuts), len(rows)})
    for low, high in pairwise(edges):
        found += claims(join, rows[low:high])
    assert sorted(found) == sorted((key, i, users[key]) for key, i in named if key in users)
    assert join.waiting == len(named) - len(found)
    assert join.expired == 0


class Plain:
    """The same, slowly: what is within the window and the bounds, looked through from the beginning."""

    def __init__(self, window_ms: int, max_bindings: int, max_waiting: int) -> None:
        self.window_ms, self.max_bindings, self.max_waiting = window_ms, max_bindings, max_waiting
        self.bindings: list[tuple[str, str, int]] = []
        self.waiting: list[Row] = []
        self.expired = 0

    def observe(self, row: Row, now: int) -> list[tuple[str, str, str]]:
        self.expire(now)
        key = row["key"]
        holders = [user for known, user, _ in self.bindings if known == key]
        found: list[tuple[str, str, str]] = []
        if row["kind"] != Kind.BINDING:
            if holders:
                found = [(key, row["id"], holders[0])]
            else:
                self.waiting.append(row)
        else:
            user = (holders or [row["user_id"]])[0]
            if user == row["user_id"]:
                self.bindings = [b for b in self.bindings if b[0] != key] + [(key, user, row["received_at"])]
            found = [(key, waiting["id"], user) for waiting in self.waiting if waiting["key"] == key]
            self.waiting = [waiting for waiting in self.waiting if waiting["key"] != key]
        self.expire(now)
        return found

    def expire(self, now: int) -> None:
        self.bindings = [b for b in self.bindings if b[2] >= now - self.window_ms][-self.max_bindings :]
        before = len(self.waiting)
        self.waiting = [row for row in self.waiting if row["received_at"] >= now - self.window_ms][-self.max_waiting :]
        self.expired += before - len(self.waiting)


steps = st.lists(
    st.tuples(st.sampled_from(["line", "line", "ada", "bob"]), st.sampled_from(KEYS), st.integers(0, 40)), max_size=40
)


@settings(seeded, max_examples=300)
@given(steps, st.integers(1, 3), st.integers(1, 4))
def test_it_forgets_by_time_and_by_count_and_counts_what_it_forgets(
    found: list[tuple[str, str, int]], max_bindings: int, max_waiting: int
) -> None:
    join, plain = RequestJoin(100, max_bindings, max_waiting), Plain(100, max_bindings, max_waiting)
    now, sent, claimed = NOW, 0, 0
    for number, (what, key, later) in enumerate(found):
        now += later
        row = line(key, f"{number}", now) if what == "line" else binding(key, what, now)
        got = claims(join, [row], now)
        assert got == plain.observe(row, now)
        sent, claimed = sent + (what == "line"), claimed + len(got)
        assert (join.waiting, join.expired) == (len(plain.waiting), plain.expired)
        assert sent == claimed + join.waiting + join.expired
        assert join.waiting <= max_waiting
    join.expire(now + 101)
    assert join.waiting == 0
    assert sent == claimed + join.expired


def test_within_the_hour_and_not_later() -> None:
    for first, second in ((binding("r:1", "ada"), line("r:1", "1", NOW)), (line("r:1", "1"), binding("r:1", "ada"))):
        for later, expected in ((HOUR_MS, [("r:1", "1", "ada")]), (HOUR_MS + 1, [])):
            join = RequestJoin()
            assert claims(join, [first], NOW) == []
            assert claims(join, [second | {"received_at": NOW + later}], NOW + later) == expected


def test_a_user_who_goes_on_is_kept_in_mind() -> None:
    join = RequestJoin()
    for n in range(5):
        at = NOW + n * HOUR_MS
        claims(join, [binding("r:1", "ada", at), binding("r:1", "bob", at)], at)
    assert claims(join, [line("r:1", "1", at + HOUR_MS)], at + HOUR_MS) == [("r:1", "1", "ada")]


def test_a_claimed_line_is_the_users_by_its_request() -> None:
    row = line("r:1", "1")
    assert attributed(row, "ada") == row | {"key": "u:ada", "user_id": "ada", "matched_by": MatchedBy.REQUEST_ID}
    assert row["user_id"] is None


def test_what_another_shard_looks_after_is_forgotten_and_not_counted_as_expired() -> None:
    join = RequestJoin()
    assert claims(join, [line("r:1", "1"), line("r:2", "2"), binding("r:3", "ada")]) == []
    join.drop(lambda key: key != "r:2")
    assert (join.waiting, join.expired) == (1, 0)
    assert claims(join, [binding("r:1", "ada"), line("r:3", "3"), binding("r:2", "bob")]) == [("r:2", "2", "bob")]
    join.expire(NOW + 2 * HOUR_MS)
    assert (join.waiting, join.expired) == (0, 1)
