"""Whom rows touch."""

from __future__ import annotations

import pytest

from rebu_ray.process.dirty import Touched, touched, withdrawn
from rebu_ray.records import Kind, Record, Source
from rebu_ray.store.rows import Routed, to_batch
from tests.process.path import P, deleted, destination, driver, message, ride, user
from tests.records import NOW, identified, journalled, routed, said, unlinked


def of(*records: Record) -> Touched:
    return touched(journalled(routed(records, P)))


def computed(kind: Kind, name: str, body: bytes) -> Touched:
    record = Record(kind, f"{name}@1", name, Source.COMPUTED, NOW, NOW, body, "ada")
    rows = journalled([Routed(0, "u:ada", record)])
    assert touched(rows) == withdrawn(rows)
    return touched(rows)


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (user(), Touched(subjects={"u:ada"})),
        (ride(), Touched(subjects={"u:ada"}, rides={"r1"})),
        (ride(user_id=None), Touched(subjects={"o:r1"}, rides={"r1"})),
        (deleted(Source.RIDES, "r1"), Touched(subjects={"o:r1"}, rides={"r1"})),
        (message(), Touched(subjects={"u:ada"}, messages={"m1"})),
        (message(user_id=None), Touched(subjects={"m:m1"}, messages={"m1"})),
        (destination("r1", NOW, 57.0), Touched(rides={"r1"})),
        (driver(), Touched(drivers={"dan"})),
        (said("ada", kind=Kind.APP_ERROR), Touched(subjects={"u:ada"})),
        (said("ada", kind=Kind.SERVER_ERROR), Touched(subjects={"u:ada"})),
        (said("ada", kind=Kind.SERVER_ACCESS, body=b'{"status":503}'), Touched(subjects={"u:ada"})),
        (said("ada", kind=Kind.SERVER_ACCESS, body=b'{"status":404}'), Touched()),
        (said(None, phone="p1", kind=Kind.APP_ERROR), Touched(phones={"p1"})),
        (said(None, phone="p1"), Touched()),
        (said(None, request="q1", kind=Kind.SERVER_ERROR), Touched()),
        (said("ada"), Touched()),
        (identified("ada", "p1"), Touched(subjects={"u:ada"}, phones={"p1"})),
        (unlinked("ada", "p1", NOW), Touched(subjects={"u:ada"}, phones={"p1"})),
    ],
)
def test_whom_a_row_touches(record: Record, found: Touched) -> None:
    assert of(record) == found
    assert bool(of(record)) == (found != Touched())
    assert of(record).indirect == bool(found.phones or found.rides or found.messages or found.drivers)


def test_rows_touch_together_what_each_of_them_does() -> None:
    records = [user(), ride("r2", None), driver(), message(), identified("bob", "p1"), said("cyd", kind=Kind.APP_ERROR)]
    together = Touched()
    for record in records:
        together.add(of(record))
    assert of(*records) == together
    assert of() == Touched()
    assert touched(journalled([])) == Touched()
    assert to_batch([]).num_rows == 0


@pytest.mark.parametrize(
    ("kind", "name", "body", "found"),
    [
        (Kind.RIDE_DOCUMENT, "r1", b'{"ride_id":"r1","version":1}', Touched()),
        (Kind.RIDE_DOCUMENT, "r1", b'{"ride_id":"r1","city":"\\"deleted\\":true"}', Touched()),
        (Kind.RIDE_DOCUMENT, "r1", b'{"ride_id":"r1","deleted":true,"version":2}', Touched(rides={"r1"})),
        (Kind.MESSAGE_DOCUMENT, "m1", b'{"message_id":"m1","document":{}}', Touched()),
        (Kind.MESSAGE_DOCUMENT, "m1", b'{"message_id":"m1","deleted":true}', Touched(messages={"m1"})),
        (Kind.MOVED, "o:r1", b"{}", Touched(rides={"r1"})),
        (Kind.MOVED, "m:m1", b"{}", Touched(messages={"m1"})),
    ],
)
def test_only_documents_that_a_stream_gives_up_touch_anybody(
    kind: Kind, name: str, body: bytes, found: Touched
) -> None:
    assert computed(kind, name, body) == found
