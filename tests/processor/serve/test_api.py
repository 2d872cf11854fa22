from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from otel_mlmon.errors import PortUnavailableError
from otel_mlmon.processor.serve.access import WebAccess
from otel_mlmon.processor.serve.api import SECURITY_HEADERS, create_app
from otel_mlmon.processor.serve.references import References
from otel_mlmon.processor.serve.server import WebServer
from otel_mlmon.types import ModelKey
from tests.support.standing import Standing


def overview() -> dict[str, Any]:
    return {
        "models": {
            "fraud": {"name": "fraud", "margin": -math.inf, "shares": (0.5, math.nan)},
            "a/b c": {"name": "a/b c"},
        },
        "alerts": [{"rule": "latency", "since_ns": 2**62}],
    }


def broken() -> Any:
    raise ZeroDivisionError


@dataclass
class Source:
    """What the processor would say; each may be changed by a test."""

    read: Callable[[], dict[str, Any]] = overview
    metrics: Callable[[], bytes] = lambda: b"a 1\n"
    ready: Callable[[], bool] = lambda: True
    references: Callable[[], References] = dict
    relearn: Callable[[ModelKey, tuple[str, ...]], None] = lambda model, streams: None
    access: WebAccess = field(default_factory=WebAccess)


def app_of(source: Source) -> Starlette:
    return create_app(
        lambda: source.read(),
        lambda: source.metrics(),
        lambda: source.ready(),
        lambda: source.references(),
        relearn=lambda model, streams: source.relearn(model, streams),
        access=lambda: source.access,
    )


@contextmanager
def serving(source: Source) -> Iterator[httpx.Client]:
    app = app_of(source)
    server = WebServer(app, "127.0.0.1:0")
    try:
        with httpx.Client(base_url=f"http://{server.start()}", timeout=10, verify=False) as client:
            yield client
    finally:
        assert server.stop()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def client(source: Source) -> Iterator[httpx.Client]:
    with serving(source) as client:
        yield client


def test_models_and_alerts_are_json_without_numbers_it_has_not(client: httpx.Client) -> None:
    models = client.get("/api/v1/models")
    assert (models.status_code, models.headers["content-type"]) == (200, "application/json")
    fraud = {"name": "fraud", "margin": None, "shares": [0.5, None]}
    assert models.json() == {"models": {"fraud": fraud, "a/b c": {"name": "a/b c"}}}
    assert client.get("/api/v1/models/fraud").json() == fraud
    assert client.get("/api/v1/models/a%2Fb%20c").json() == {"name": "a/b c"}
    assert client.get("/api/v1/alerts").json() == {"alerts": [{"rule": "latency", "since_ns": 2**62}]}


def test_a_reference_is_asked_for_by_name_version_and_whether_a_part_will_do(
    client: httpx.Client, source: Source
) -> None:
    source.references = lambda: {
        "a/b c": {
            "": Standing({"format": "profile"}),
            "2": Standing({"format": "part"}, {"prediction.label": (3, 5000)}),
        }
    }

    def get_reference(**query: str) -> tuple[int, Any]:
        answer = client.get("/api/v1/references/a%2Fb%20c", params=query)
        return answer.status_code, answer.json()

    assert get_reference(version="") == (200, {"format": "profile"})
    assert get_reference(version="2", partial="true") == (200, {"format": "part"})
    status, document = get_reference(version="2")
    assert (status, document["reason"]) == (409, "learning")
    status, document = get_reference()
    assert (status, document["reason"], document["versions"]) == (409, "several_versions", ["", "2"])
    assert client.get("/api/v1/references/a").status_code == 404


def test_what_is_not_there_is_404_in_json(client: httpx.Client) -> None:
    unknown = client.get("/api/v1/models/churn")
    assert (unknown.status_code, unknown.json()) == (404, {"error": "There is no model 'churn'."})
    nowhere = client.get("/nowhere")
    assert (nowhere.status_code, nowhere.json()) == (404, {"error": "There is no such path."})


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/models",
        "/api/v1/models/fraud",
        "/api/v1/references/fraud",
        "/api/v1/alerts",
        "/metrics",
        "/healthz",
    ],
)
def test_it_is_read_only(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].replace(" ", "").split(",")) == {"GET", "HEAD"}
    assert "error" in answer.json()


def test_metrics_are_prometheus_text(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert (answer.text, answer.headers["content-type"]) == ("a 1\n", "text/plain; version=0.0.4; charset=utf-8")


def test_health_is_always_and_readiness_as_it_is(client: httpx.Client, source: Source) -> None:
    assert client.get("/readyz").status_code == 200
    source.ready = lambda: False
    not_ready = client.get("/readyz")
    assert (not_ready.status_code, not_ready.json()) == (503, {"status": "not ready"})
    assert client.get("/healthz").status_code == 200
    assert client.head("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/models", "/nowhere", "/metrics", "/healthz"])
def test_every_answer_has_the_security_headers_and_no_other_origin_may_read(client: httpx.Client, path: str) -> None:
    headers = client.get(path, headers={"Origin": "http://evil.example"}).headers
    assert {name: headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert not [name for name in headers if name.startswith("access-control") or name == "server"]


@pytest.mark.guarded
def test_a_fault_of_ours_is_503_and_tells_nothing(client: httpx.Client, source: Source) -> None:
    source.read, source.metrics, source.references = broken, broken, broken
    for path in ("/api/v1/models", "/api/v1/models/fraud", "/api/v1/references/fraud", "/api/v1/alerts", "/metrics"):
        answer = client.get(path)
        assert (answer.status_code, "ZeroDivision" in answer.text) == (503, False)
    assert client.get("/healthz").status_code == 200


def test_a_slow_state_does_not_stop_health(source: Source) -> None:
    gate, reached = threading.Event(), threading.Event()

    def slow() -> dict[str, Any]:
        reached.set()
        gate.wait(10)
        return overview()

    source.read = slow
    answers: list[int] = []
    with serving(source) as client:
        asking = threading.Thread(target=lambda: answers.append(client.get("/api/v1/models").status_code))
        asking.start()
        assert reached.wait(10)
        assert client.get("/healthz").status_code == 200
        gate.set()
        asking.join()
    assert answers == [200]


def test_a_port_that_is_taken_is_named_with_its_option() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(PortUnavailableError, match=rf"cannot listen on {address} .*set web\.listen"):
            WebServer(app_of(Source()), address).start()


def test_stop_is_safe_before_start_at_once_after_it_and_twice() -> None:
    server = WebServer(app_of(Source()), "127.0.0.1:0")
    assert server.stop()
    server = WebServer(app_of(Source()), "127.0.0.1:0")
    address = server.start()
    assert server.stop()
    assert server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{address}/healthz")


def test_nothing_is_printed(source: Source, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(source) as client:
        json.loads(client.get("/api/v1/models").content)
    assert capfd.readouterr() == ("", "")
