"""A whole processor in this process: its sockets, its account of itself, and models of several environments."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from otel_mlmon.errors import PortUnavailableError
from otel_mlmon.processor.config.load import load_config
from otel_mlmon.processor.receive.http import PROTOBUF
from otel_mlmon.processor.service import Service, ServiceAddresses
from otel_mlmon.semconv import PROCESSOR_METRICS, PROCESSOR_SELF_METRICS
from tests.support.otlp_requests import DELTA, counter, request
from tests.support.otlp_server import OtlpServer
from tests.support.processes import CLIENT, until

PANE_NS = 1_000_000_000


def create(folder: Path, **sections: Any) -> Service:
    """A processor on free ports, with panes of a second."""
    document = {
        "receiver": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
        "storage": {"path": str(folder / "data"), "commit_interval": "1ms"},
        "web": {"listen": "127.0.0.1:0"},
        "windows": {"pane": "1s", "lateness": "0s", "rolling": "1m"},
        **sections,
    }
    path = folder / "mlmon.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    return Service(load_config(path, {}))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[ServiceAddresses]:
    service = create(tmp_path)
    yield service.start()
    assert service.shutdown(10.0)


def post(addresses: ServiceAddresses, body: bytes, *, timeout_s: float = 10.0) -> int:
    url, headers = f"http://{addresses.http}/v1/metrics", {"content-type": PROTOBUF}
    return CLIENT.post(url, content=body, headers=headers, timeout=timeout_s).status_code


def get(addresses: ServiceAddresses, path: str) -> httpx.Response:
    return CLIENT.get(f"http://{addresses.web}{path}", timeout=10)


def predictions(environment: str, count: int, label: str = "spam", *, kind: str = "sum") -> bytes:
    """One point of a past second, of a sender in `environment`."""
    message = request(
        "ml.predictions",
        kind,
        counter(count),
        attributes={"ml.model.name": "fraud", "ml.model.version": "1", "ml.prediction.label": label},
        resource={"deployment.environment.name": environment, "service.name": f"shop-{environment}"},
        temporality=DELTA,
    )
    end_ns = time.time_ns() - 5 * PANE_NS
    for point in getattr(message.resource_metrics[0].scope_metrics[0].metrics[0], kind).data_points:
        point.start_time_unix_nano, point.time_unix_nano = end_ns - PANE_NS, end_ns
    return bytes(message.SerializeToString())


def samples(addresses: ServiceAddresses) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """The page by name and labels."""
    values: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(get(addresses, "/metrics").text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in values.setdefault(sample.name, {})
            values[sample.name][labels] = sample.value
    return values


def test_environments_of_one_model_are_two_models(running: ServiceAddresses) -> None:
    for environment, count in (("staging", 30), ("production", 50), ("staging", 7)):
        assert post(running, predictions(environment, count)) == 200

    def models() -> dict[str, Any] | None:
        documents: dict[str, Any] = get(running, "/api/v1/models").json()["models"]
        total = sum(document["predictions"] for document in documents.values())
        return documents if total == 87 else None

    documents = until(models, what="87 predictions")
    assert {
        key: (document["name"], document["environment"], _names(document), document["predictions"])
        for key, document in documents.items()
    } == {"fraud@staging": ("fraud", "staging", ["1"], 37), "fraud@production": ("fraud", "production", ["1"], 50)}
    assert get(running, "/api/v1/models/fraud@staging").json() == documents["fraud@staging"]
    assert get(running, "/api/v1/models/fraud").status_code == 404
    assert get(running, "/api/v1/references/fraud@staging").json()["reason"] == "learning"
    states = samples(running)["ml_drift_state"]
    assert {dict(labels)["deployment_environment_name"] for labels in states} == {"staging", "production"}
    assert {dict(labels)["ml_model_name"] for labels in states} == {"fraud"}


def _names(document: dict[str, Any]) -> list[str]:
    return [entry["version"] for entry in document["versions"]]


def test_the_page_accounts_for_everything_received_with_the_types_of_the_wire_contract(
    running: ServiceAddresses,
) -> None:
    assert post(running, predictions("staging", 3)) == 200
    assert post(running, predictions("staging", -3)) == 200
    assert post(running, request("other", "sum", counter(1), points=4).SerializeToString()) == 200
    assert post(running, b"\xff") == 400
    page = until(lambda: values if "otel_mlmon_processor_points_total" in (values := samples(running)) else None)
    assert {name: page[f"otel_mlmon_processor_{name}"] for name in (
        "received_points_total", "requests_malformed_total",
        "requests_dead_letters_total", "requests_pending_bytes",
    )} == {
        "received_points_total": {
            (("outcome", "accepted"),): 1, (("outcome", "refused"),): 0, (("outcome", "ignored"),): 4,
            (("outcome", "loop_dropped"),): 0, (("outcome", "rejected"),): 1,
        },
        "requests_malformed_total": {(): 1},
        "requests_dead_letters_total": {(): 0},
        "requests_pending_bytes": {(): 0},
    }  # fmt: skip
    rejected = page["otel_mlmon_processor_rejected_points_total"]
    assert {labels: value for labels, value in rejected.items() if value} == {(("reason", "bad_value"),): 1}
    types = dict(line.split()[2:] for line in get(running, "/metrics").text.splitlines() if line.startswith("# TYPE"))
    assert {name for name, kind in types.items() if kind == "counter"} == {
        name for name in types if name.endswith("_total")
    }
    assert len(types) <= len({*PROCESSOR_METRICS, *PROCESSOR_SELF_METRICS})


def test_points_without_room_are_refused_with_a_delay_and_counted_and_what_is_stored_is_acknowledged_again(
    tmp_path: Path,
) -> None:
    windows, limits = {"pane": "3000d", "rolling": "3000d"}, {"max_pending_points": 2}
    service = create(tmp_path, windows=windows, limits=limits)
    addresses = service.start()
    try:
        bodies = [predictions("staging", 1, label) for label in "abc"]
        assert [post(addresses, body) for body in bodies] == [200, 200, 429]
        assert [post(addresses, body) for body in bodies] == [200, 200, 429]
        url, headers = f"http://{addresses.http}/v1/metrics", {"content-type": PROTOBUF}
        assert int(CLIENT.post(url, content=bodies[2], headers=headers, timeout=10).headers["retry-after"]) >= 1
        page = samples(addresses)
        used = {
            limit["key"]: (limit["used"], limit["most"]) for limit in get(addresses, "/api/v1/setup").json()["limits"]
        }
    finally:
        assert service.shutdown(10.0)
    assert page["otel_mlmon_processor_points_pending"] == {(): 2}
    assert used["limits.max_pending_points"] == (2, 2)
    assert page["otel_mlmon_processor_requests_refused_total"][("reason", "pending_points"),] == 3
    assert page["otel_mlmon_processor_received_points_total"][("outcome", "accepted"),] == 4
    outcomes = page["otel_mlmon_processor_points_total"]
    assert {labels[0][1]: value for labels, value in outcomes.items() if value} == {"accepted": 2, "duplicate": 2}


def identity_of(addresses: ServiceAddresses) -> tuple[str, str, str]:
    """Instance id and host of `/metrics`, and the instance id of the setup."""
    ((labels, value),) = samples(addresses)["otel_mlmon_processor_info"].items()
    named = dict(labels)
    assert value == 1
    return named["service_instance_id"], named["host_name"], get(addresses, "/api/v1/setup").json()["instance"]["id"]


class HeldItems(tuple[Any, ...]):
    """Items that hold up the thread of the state, as a disk that does not answer would."""

    is_held, may_go = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[Any]:
        self.is_held.set()
        assert self.may_go.wait(60)
        return iter(())


def test_while_the_state_is_held_up_senders_are_answered_in_time_and_the_web_port_goes_on(tmp_path: Path) -> None:
    service = create(tmp_path)
    addresses = service.start()
    held = HeldItems()
    service._state_thread.submit(held)
    assert held.is_held.wait(60)
    with ThreadPoolExecutor(3) as senders:
        answers = [senders.submit(post, addresses, predictions(name, 1), timeout_s=60.0) for name in ("a", "b", "c")]
        until(lambda: service._admission.pending_bytes > 0)
        assert [get(addresses, path).status_code for path in ("/healthz", "/metrics", "/api/v1/models")] == [200] * 3
        # Who comes while others wait is refused at once or answered before senders give up: not one is left waiting.
        assert {answer.result(60) for answer in answers} <= {429, 503}
    held.may_go.set()
    for name in ("a", "b", "c"):
        assert until(lambda name=name: post(addresses, predictions(name, 1)) == 200)  # type: ignore[misc]
    assert service.shutdown(10.0)


def test_a_processor_has_an_id_of_its_own_that_restarts_and_reloads_keep(tmp_path: Path) -> None:
    identities = []
    for folder in (tmp_path / "first", tmp_path / "second", tmp_path / "first"):
        folder.mkdir(exist_ok=True)
        service = create(folder)
        addresses = service.start()
        before = identity_of(addresses)
        service.reload(load_config(folder / "mlmon.yaml", {}))
        assert identity_of(addresses) == before
        assert service.shutdown(30.0)
        identities.append(before)
    first, second, again = identities
    assert first == again
    assert first[0] == first[2] != second[0]
    assert len(first[0]) == 36
    assert first[1] == socket.gethostname()


def test_results_are_sent_under_the_id_of_the_store(tmp_path: Path) -> None:
    with OtlpServer() as server:
        forward = {"endpoint": server.http_url, "protocol": "http/protobuf", "interval": "100ms"}
        service = create(tmp_path, forward=forward)
        addresses = service.start()
        assert post(addresses, predictions("staging", 3)) == 200
        server.wait_for(lambda server: bool(server.of("metrics")), timeout_s=30.0)
        instance_id, host, _ = identity_of(addresses)
        assert service.shutdown(30.0)
        pairs = server.of("metrics")[0].resource_metrics[0].resource.attributes
    resource = {pair.key: pair.value.string_value for pair in pairs}
    assert resource["service.name"] == "otel-mlmon-processor"
    assert (resource["service.instance.id"], resource["host.name"]) == (instance_id, host)


def test_a_port_that_is_taken_stops_what_was_started(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    first = create(tmp_path / "first")
    addresses = first.start()
    second = create(tmp_path / "second", receiver={"grpc": "", "http": addresses.http})
    with pytest.raises(PortUnavailableError, match=r"receiver\.http"):
        second.start()
    assert post(addresses, predictions("staging", 1)) == 200
    assert first.shutdown(10.0)
    with pytest.raises(httpx.ConnectError):
        get(addresses, "/healthz")


def test_sockets_that_are_switched_off_are_not_opened(tmp_path: Path) -> None:
    service = create(tmp_path, receiver={"grpc": "127.0.0.1:0", "http": ""}, web={"listen": ""})
    addresses = service.start()
    assert addresses == ServiceAddresses(grpc=addresses.grpc, http=None, web=None)
    assert addresses.grpc is not None
    assert service.shutdown(10.0)
