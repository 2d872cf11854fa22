"""The OpenAPI document lists every route, and describes every document as it is, key by key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from starlette.applications import Starlette

from otel_mlmon.processor.alert.silence import AlertSilence
from otel_mlmon.processor.serve.access import WebAccess
from otel_mlmon.processor.serve.api import create_app
from otel_mlmon.processor.serve.openapi import OPERATIONS, PATH, list_operations
from otel_mlmon.processor.serve.server import WebServer
from otel_mlmon.processor.serve.silences import SilenceControl
from otel_mlmon.testing import SimulatedProcessor
from tests.support.incidents import INCIDENTS, SETUP, simulate
from tests.support.processes import CLIENT

TOKEN = "a" * 20
START_NS = 1_700_000_000_000_000_000


@pytest.fixture(scope="module")
def processor() -> Iterator[SimulatedProcessor]:
    simulated, _ = simulate(INCIDENTS["class-gone"], start_ns=START_NS)
    with simulated:
        yield simulated


@pytest.fixture(scope="module")
def app(processor: SimulatedProcessor) -> Starlette:
    overview = processor.document()
    return create_app(
        lambda: overview,
        lambda: b"",
        lambda: True,
        processor._pipeline.references,
        relearn=lambda model, streams: None,
        silences=SilenceControl(
            lambda: [AlertSilence(id="s", start_ns=0, end_ns=2**62, author="ann")],
            lambda request: None,
            models=lambda: overview["models"],
            rules=("latency",),
        ),
        access=lambda: WebAccess(admin_token=TOKEN),
        setup=lambda: {"instance": {"id": "1", "version": "1"}, **SETUP},
    )


@pytest.fixture(scope="module")
def base(app: Starlette) -> Iterator[str]:
    server = WebServer(app, "127.0.0.1:0")
    yield f"http://{server.start()}"
    assert server.stop(30)


@pytest.fixture(scope="module")
def document(base: str) -> Any:
    return CLIENT.get(f"{base}{PATH}", timeout=30).json()


def close(component: Any) -> Any:
    """The schema without room for keys that it does not name."""
    if isinstance(component, list):
        return [close(part) for part in component]
    if not isinstance(component, dict):
        return component
    closed = {key: close(value) for key, value in component.items()}
    return {**closed, "additionalProperties": False} if "properties" in closed else closed


def test_it_is_a_document_of_openapi_whose_schemas_are_schemas(document: Any) -> None:
    assert document["openapi"] == "3.1.0"
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    ids = [entry["operationId"] for path in document["paths"].values() for entry in path.values()]
    assert len(set(ids)) == len(ids)


def test_every_route_for_programs_is_described_and_nothing_else(app: Starlette, document: Any) -> None:
    operations = {op for op in list_operations(app.routes) if op[1].startswith(("/api/", "/metrics", "/healthz"))}
    described = {(method.upper(), path) for path, entry in document["paths"].items() for method in entry}
    assert operations <= described
    assert described <= set(OPERATIONS)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/v1/models", "/api/v1/models"),
        ("/api/v1/models/credit-risk", "/api/v1/models/{id}"),
        ("/api/v1/models/credit-risk?version=7", "/api/v1/models/{id}"),
        ("/api/v1/models/none", "/api/v1/models/{id}"),
        ("/api/v1/models/credit-risk?version=none", "/api/v1/models/{id}"),
        ("/api/v1/references/credit-risk", "/api/v1/references/{id}"),
        ("/api/v1/references/none", "/api/v1/references/{id}"),
        ("/api/v1/alerts", "/api/v1/alerts"),
        ("/api/v1/setup", "/api/v1/setup"),
        ("/api/v1/silences", "/api/v1/silences"),
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
        (PATH, PATH),
    ],
)
def test_every_document_is_as_it_is_described(base: str, document: Any, path: str, route: str) -> None:
    answer = CLIENT.get(f"{base}{path}", timeout=30)
    check(document, answer, document["paths"][route]["get"])
    assert answer.status_code == (404 if "none" in path else 200)


def test_relearning_is_as_it_is_described(base: str, document: Any) -> None:
    entry = document["paths"]["/api/v1/relearn/{id}"]["post"]
    for headers, status in (({}, 401), ({"authorization": f"Bearer {TOKEN}"}, 200)):
        answer = CLIENT.post(f"{base}/api/v1/relearn/credit-risk", headers=headers, timeout=30)
        check(document, answer, entry)
        assert answer.status_code == status
    assert entry["security"] == [{"bearer": []}]


def test_silences_are_as_they_are_described(base: str, document: Any) -> None:
    add, end = document["paths"]["/api/v1/silences"]["post"], document["paths"]["/api/v1/silences/{id}"]["delete"]
    body = {"model": "*", "duration_s": 60, "author": "ann"}
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=f"{base}/api/v1", headers=headers, timeout=30, verify=False) as client:
        for answer, status, entry in (
            (client.post("/silences", json=body), 201, add),
            (client.post("/silences", json={}), 400, add),
            (client.post("/silences", json=body, headers={"authorization": ""}), 401, add),
            (client.delete("/silences/s"), 200, end),
            (client.delete("/silences/other"), 404, end),
        ):
            check(document, answer, entry)
            assert answer.status_code == status


def check(document: Any, answer: Any, entry: Any) -> None:
    content = entry["responses"][str(answer.status_code)]["content"]["application/json"]["schema"]
    schema = {**close(content), "components": close(document["components"])}
    faults = [
        f"{error.json_path}: {error.message[:200]}" for error in Draft202012Validator(schema).iter_errors(answer.json())
    ]
    assert faults == []


def test_the_documents_hold_a_drift_an_alert_and_a_new_version(processor: SimulatedProcessor) -> None:
    overview = processor.document()
    assert overview["alerts"]
    streams = [stream for model in overview["models"].values() for stream in model["streams"]]
    assert any(stream["changes"] for stream in streams)
