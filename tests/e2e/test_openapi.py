"""A running processor keeps to its OpenAPI document, whatever schemathesis asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.support.otlp_requests import predictions
from tests.support.ports import free_port
from tests.support.processes import processor, until

pytestmark = pytest.mark.e2e

TOKEN = "t" * 20
EXAMPLES = 20
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]


def with_known_ids(document: dict[str, Any]) -> dict[str, Any]:
    """The document, in which an id is that of a model every other time."""
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    parameter["schema"] = {"anyOf": [{"enum": ["fraud"]}, parameter["schema"]]}
    return document


def ask(operation: Any, base: str, headers: dict[str, str]) -> None:
    """Sends requests that the document allows, and holds every answer against it."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def send(case: Any) -> None:
        case.call_and_validate(base_url=base, headers=headers, checks=CHECKS)

    send()


def test_every_answer_is_as_its_openapi_document_says(tmp_path: Path) -> None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    with processor(tmp_path, web={"listen": f"127.0.0.1:{port}", "admin_token": TOKEN}) as running:
        body = predictions(points=3).SerializeToString()
        headers = {"content-type": "application/x-protobuf"}
        address = f"http://127.0.0.1:{running.http}/v1/metrics"
        assert httpx.post(address, content=body, headers=headers, timeout=30).is_success
        until(lambda: httpx.get(f"{base}/api/v1/models", timeout=30).json()["models"], what="a model")
        document = with_known_ids(httpx.get(f"{base}/api/v1/openapi.json", timeout=30).json())
        asked = []
        for result in schemathesis.openapi.from_dict(document).get_all_operations():
            assert isinstance(result, Ok), result
            operation = result.ok()
            asked.append(operation.label)
            ask(operation, base, {"authorization": f"Bearer {TOKEN}"})
        assert len(asked) == sum(len(path) for path in document["paths"].values()) >= 10
