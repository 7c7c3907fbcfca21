"""The route for rows of the application database."""

from __future__ import annotations

from typing import Final

from rebu_ray.records import Record, Source
from tests.access import serving

RIDE: Final = {"ride_id": "r1", "user_id": "u1", "requested_at": "2026-03-01T08:00:00Z", "updated_at": 1772352000000}


def test_the_route() -> None:
    behind = serving.Backends()
    answer = serving.write(behind, "/v1/records/rides", headers=serving.WRITE, json=[RIDE, {}])
    receipt = answer.json()
    assert (answer.status_code, receipt["accepted"], receipt["rejected"]) == (200, 1, 1)
    [(source, parsed, *_)] = behind.intake.taken
    assert source is Source.RIDES
    assert isinstance(parsed[0], Record)
    for table in ("trips", "computed", "RIDES", "access"):
        answer = serving.write(behind, f"/v1/records/{table}", headers=serving.WRITE, json=[])
        assert serving.refused(answer) == (404, "unknown_table")
    assert serving.refused(serving.write(behind, "/v1/records/rides", json=[RIDE])) == (401, "unauthorized")
    wrong = serving.write(behind, "/v1/records/rides", headers=serving.READ, json=[RIDE])
    assert serving.refused(wrong) == (403, "forbidden")
