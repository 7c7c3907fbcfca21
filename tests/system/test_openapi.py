"""The interface does what its own description says, whatever is sent: schemathesis over the OpenAPI document."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import content_type_conformance, not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from rebu_ray.access.documentation import openapi
from tests.system.running import Running, await_true

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    unsupported_method,
    allow_header_conformance,
]
bounded = settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def described(coverage: bool) -> BaseSchema:
    """The document; `coverage` adds the edges of every schema, and the methods that no route has."""
    generation = {"with-security-parameters": False, "deterministic": True}
    config = {"generation": generation, "phases": {"coverage": {"enabled": coverage}}}
    return schemathesis.openapi.from_dict(openapi(), config=SchemathesisConfig.from_dict(config))


STREAM = "/v1/users/{user_id}/events/stream"
"""It does not end, so that nothing can be said of an answer as a whole: it has a test of its own."""
REINDEX = "/v1/admin/reindex"
"""It makes the reads that come after it wait: it is called once, at the end."""
SCALE = "/v1/admin/scale"
"""It would start and stop processes all the while: test_moves.py asks for it in every way."""
OPEN = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/"]
whole = described(True).exclude(path=[STREAM, REINDEX, SCALE])
guarded = described(False).exclude(path=OPEN)


@schemathesis.serializer("application/x-ndjson", "application/x-protobuf")
def as_it_is(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """Bodies that are bytes to whoever describes them."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@whole.parametrize()
@bounded
def test_whoever_may_do_all_gets_what_is_described(case: Any, rebu_up: Running) -> None:
    headers = {"Authorization": f"Bearer {rebu_up.admin_key}"}
    case.call_and_validate(base_url=rebu_up.url, headers=headers, checks=CHECKS, timeout=120)


@guarded.parametrize()
@settings(bounded, max_examples=2)
def test_whoever_has_no_key_gets_nothing(case: Any, rebu_up: Running) -> None:
    answer = case.call(base_url=rebu_up.url, headers={"Authorization": "Bearer nobody"}, timeout=120)
    assert answer.status_code == 401, answer.text
    assert answer.json()["code"] == "unauthorized"
    assert answer.headers["www-authenticate"]


def test_a_stream_is_described_as_it_is(rebu_up: Running) -> None:
    headers = {"Authorization": f"Bearer {rebu_up.read_key}"}
    for path, status in (("/v1/users/openapi/events/stream", 200), ("/v1/users/%00/events/stream", 400)):
        with rebu_up.http.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == status
            media = answer.headers["content-type"].partition(";")[0]
            assert media in openapi()["paths"][STREAM]["get"]["responses"][str(status)]["content"]


def test_it_is_well_afterwards(rebu_up: Running) -> None:
    rebu_up.admin("POST", REINDEX)
    await_true(lambda: rebu_up.http.get("/readyz").status_code == 200, "it to be ready")
    event = {"type": "track", "event": "x", "messageId": "openapi-1", "userId": "openapi-after"}
    position = rebu_up.batch([event])["position"]
    assert len(rebu_up.history("openapi-after", min_position=position)) == 1
