"""The circuit breaker, with a clock that stands still until it is moved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.ingest.breaker import LONGEST_PAUSE_S, MOST_SENDERS, WINDOW_S, Breaker, Change, Suspensions
from rebu_ray.records import BadRequest, Source
from tests.records import seeded


class Scene:
    """A breaker of half of at least ten records, and what it told."""

    def __init__(self, share: float = 0.5, least: int = 10, pause_s: float = 4.0) -> None:
        self.now = 1000.0
        self.told: list[Change] = []
        self.breaker = Breaker(share, least, pause_s, self.told.append, lambda: self.now)

    def send(self, records: int, refused: int, source: Source = Source.ACCESS, sender: int = 1) -> bool:
        """Whether a write is let through."""
        refusal: BadRequest | None = None
        try:
            with self.breaker.request(source, sender) as note:
                note(records, refused)
        except BadRequest as error:
            refusal = error
        if refusal is None:
            return True
        assert (refusal.status, refusal.code) == (503, "source_suspended")
        assert refusal.retry_after is not None
        assert refusal.retry_after >= 1
        assert source in refusal.message
        return False

    def wait(self) -> int:
        """How long a refused write is told to wait."""
        with pytest.raises(BadRequest) as refused, self.breaker.request(Source.ACCESS, 1):
            raise AssertionError("let through")
        assert refused.value.retry_after is not None
        return refused.value.retry_after

    @property
    def states(self) -> list[str]:
        return [change.state for change in self.told]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_sender_that_turns_bad_is_suspended_and_taken_on_again(scene: Scene) -> None:
    assert scene.send(5, 5)
    assert scene.send(4, 4)
    assert scene.told == []
    assert scene.send(1, 0)  # nine of ten
    assert scene.told == [Change(Source.ACCESS, 1, "open", 4.0, 10, 9)]
    assert not scene.send(1, 0)
    assert scene.wait() == 4
    scene.now += 3.5
    assert scene.wait() == 1
    assert scene.send(100, 0, Source.ERROR), "no other source is meant"
    assert scene.send(1, 0, sender=2), "and nobody else"
    scene.now += 0.5
    assert scene.send(3, 1)
    assert scene.states == ["open", "half_open", "closed"]
    for _ in range(9):  # what was before is forgotten
        assert scene.send(1, 1)
    assert scene.states == ["open", "half_open", "closed"]


def test_as_long_as_it_stays_bad_the_pauses_grow(scene: Scene) -> None:
    scene.send(10, 10)
    pauses = []
    for _ in range(7):
        pauses.append(scene.wait())
        scene.now += pauses[-1]
        assert scene.send(1, 1)
    assert pauses == [4, 8, 16, 32, 60, 60, 60]
    scene.now += LONGEST_PAUSE_S
    assert scene.send(1, 0)
    assert scene.send(10, 10)
    assert scene.wait() == 4


def test_one_write_at_a_time_tries_and_one_that_fails_by_itself_decides_nothing(scene: Scene) -> None:
    scene.send(10, 10)
    scene.now += 4
    with scene.breaker.request(Source.ACCESS, 1):
        assert not scene.send(1, 0)
        assert scene.wait() == 1
    with pytest.raises(ZeroDivisionError), scene.breaker.request(Source.ACCESS, 1):
        _ = 1 / 0
    assert scene.send(0, 0), "a request of nothing says nothing"
    assert scene.states == ["open", *["half_open"] * 3]
    assert scene.send(1, 0)
    assert scene.states[-1] == "closed"
    assert scene.send(1, 0)


def test_what_was_under_way_when_it_was_suspended_is_no_attempt(scene: Scene) -> None:
    with scene.breaker.request(Source.ACCESS, 1) as early:
        scene.send(10, 10)
        early(10, 0)
    assert not scene.send(1, 0)


def test_what_is_a_minute_old_counts_no_more(scene: Scene) -> None:
    for _ in range(9):
        scene.send(1, 1)
    scene.now += WINDOW_S + 1
    assert scene.send(9, 9)
    assert scene.states == []
    scene.now += WINDOW_S - 1
    assert scene.send(1, 1)
    assert scene.states == ["open"]


@seeded
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.floats(0, 30)), max_size=30), st.integers(1, 40))
def test_it_opens_when_more_than_its_share_of_a_minute_was_refused_and_not_before(
    sent: list[tuple[int, int, float]], least: int
) -> None:
    scene = Scene(0.5, least)
    seen: list[tuple[int, int, int]] = []
    for good, bad, pause in sent:
        scene.now += pause
        second = int(scene.now)
        assert scene.send(good + bad, bad)
        seen = [entry for entry in [*seen, (second, good + bad, bad)] if entry[0] > second - WINDOW_S]
        records, refused = sum(entry[1] for entry in seen), sum(entry[2] for entry in seen)
        expected = good + bad > 0 and records >= least and refused > 0.5 * records
        assert bool(scene.told) is expected
        if expected:
            break


@given(st.lists(st.integers(0, 50)))
@seeded
def test_a_share_of_all_suspends_nobody(sent: list[int]) -> None:
    scene = Scene(1.0, 1)
    assert all(scene.send(count, count) for count in sent)
    assert scene.told == []


def test_who_sends_much_rubbish_is_judged_alone(scene: Scene) -> None:
    for sender in range(2, 30):
        assert scene.send(5, 0, sender=sender)
    assert scene.send(10, 10)
    assert not scene.send(1, 0)
    assert [change.sender for change in scene.told] == [1]
    assert all(scene.send(5, 5, sender=sender) for sender in range(2, 30))
    assert scene.states == ["open"], "ten records of each, of which half were refused"


def test_only_so_many_senders_are_kept_in_mind(scene: Scene) -> None:
    scene.send(10, 10)
    scene.send(9, 9, sender=2)
    for sender in range(3, MOST_SENDERS + 1):
        scene.send(1, 0, sender=sender)
    assert not scene.send(1, 0)
    scene.send(1, 1, sender=MOST_SENDERS + 1)  # now the second has been quiet longest
    scene.send(1, 1, sender=2)
    assert scene.states == ["open"]
    assert not scene.send(1, 0)
    for sender in range(3, MOST_SENDERS + 3):
        scene.send(1, 0, sender=sender)
    assert scene.send(1, 0), "forgotten, and judged anew"


def test_the_status_says_which_sources_have_suspended_senders_and_until_when() -> None:
    known = Suspensions()
    known.note("one", Change(Source.ERROR, 1, "open", 4.0, 0, 0), 1_000_000)
    known.note("two", Change(Source.ACCESS, 1, "open", 4.0, 1000, 1000), 999_000)
    known.note("one", Change(Source.ACCESS, 1, "open", 8.0, 1200, 1190), 1_000_000)
    known.note("one", Change(Source.ACCESS, 2, "half_open", 4.0, 2000, 2000), 1_000_000)
    known.note("one", Change(Source.ERROR, 1, "closed", 0.0, 0, 0), 1_000_000)
    access = {"source": "access", "senders": 2, "state": "open", "until": "1970-01-01T00:16:48.000Z"}
    assert known.summary(1_000_000) == [access | {"records": 4200, "refused": 4190}]
    assert known.summary(1_000_000 + 70_000) == [], "a replica that told nothing more is gone"
    assert Suspensions().summary(0) == []


def test_the_status_keeps_only_so_many_senders_in_mind() -> None:
    known = Suspensions()
    for sender in range(MOST_SENDERS + 10):
        known.note("one", Change(Source.ACCESS, sender, "open", 8.0, 1, 1), 1000)
    assert [found["senders"] for found in known.summary(1000)] == [MOST_SENDERS]
