"""gateway.yaml before three processors: each model on exactly one, one killed, one added, every point counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.collector import CONFIGURATIONS, Collector, Sender, collector, counted_predictions, sender
from tests.support.otlp_server import OtlpServer
from tests.support.ports import free_port
from tests.support.processes import Processor, processor, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# So many that no processor, and not the one that is added, is left without any: the ring hashes ports of each run.
MODELS = tuple(f"model-{number}" for number in range(32))
WINDOWS = {"pane": "500ms", "lateness": "5s", "rolling": "10s"}


def written(directory: Path, processors: Sequence[Processor]) -> tuple[Path, ...]:
    """gateway.yaml, on sockets of this test's own, edited as the README says for so many processors."""
    document: dict[str, Any] = yaml.safe_load((CONFIGURATIONS / "gateway.yaml").read_text())
    template = document["exporters"]["otlp_grpc/mlmon_0"]
    exporters, receivers = document["exporters"], document["receivers"]
    pipelines = document["service"]["pipelines"]
    for number in range(3):
        del receivers[f"otlp/{number}"], exporters[f"otlp_grpc/mlmon_{number}"]
        del pipelines[f"metrics/mlmon_{number}"], pipelines[f"logs/mlmon_{number}"]
    hostnames = []
    for number, service in enumerate(processors):
        socket = f"127.0.0.1:{free_port()}"
        hostnames.append(socket)
        receivers[f"otlp/{number}"] = {"protocols": {"grpc": {"endpoint": socket, "max_recv_msg_size_mib": 64}}}
        exporters[f"otlp_grpc/mlmon_{number}"] = {**template, "endpoint": f"127.0.0.1:{service.grpc}"}
        for signal, batch in (("metrics", "batch/mlmon"), ("logs", "batch/mlmon_events")):
            pipelines[f"{signal}/mlmon_{number}"] = {
                "receivers": [f"otlp/{number}"], "processors": [batch], "exporters": [f"otlp_grpc/mlmon_{number}"],
            }  # fmt: skip
    exporters["load_balancing/mlmon"]["resolver"]["static"]["hostnames"] = hostnames
    path = directory / "gateway.yaml"
    path.write_text(yaml.safe_dump(document))
    return (path,)


@contextmanager
def fleet(directory: Path, size: int) -> Iterator[list[Processor]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                processor(directory / f"processor-{number}", windows=WINDOWS, alerts={"fleet_streams": 100})
            )
            for number in range(size)
        ]


@contextmanager
def agent_before(gateway: Collector, directory: Path, backend: str) -> Iterator[Collector]:
    """agent.yaml with agent-gateway.yaml over it; without TLS, as the gateway here has none."""
    overlay = directory / "plain.yaml"
    overlay.write_text("exporters: {otlp_grpc/mlmon: {tls: {insecure: true}}}\n")
    environ = {"MLMON_ENDPOINT": f"127.0.0.1:{gateway.grpc}"}
    configs = (CONFIGURATIONS / "agent.yaml", CONFIGURATIONS / "agent-gateway.yaml", overlay)
    with collector(directory / "agent", backend, environ=environ, configs=configs) as agent:
        yield agent


def places(processors: Sequence[Processor]) -> dict[str, list[int]]:
    """The numbers of the processors that know each model."""
    known: dict[str, list[int]] = {}
    for number, service in enumerate(processors):
        for name in service.get("/api/v1/models")["models"]:
            known.setdefault(name, []).append(number)
    return known


def counted(processors: Sequence[Processor]) -> Counter[str]:
    """The predictions of each model, over all processors."""
    return Counter({model: sum(counted_predictions(service, model) for service in processors) for model in MODELS})


def send(app: Sender, times: int) -> None:
    for _ in range(times):
        app.send(models=MODELS)


def test_models_spread_and_every_prediction_is_counted_once_with_one_killed_and_one_added(tmp_path: Path) -> None:
    with (
        OtlpServer() as backend,
        fleet(tmp_path, 4) as processors,
        collector(tmp_path / "gateway", backend.grpc_address, configs=written(tmp_path, processors[:3])) as gateway,
        agent_before(gateway, tmp_path, backend.grpc_address) as agent,
        sender(agent.grpc) as app,
    ):

        def is_counted() -> bool:
            return counted(processors) == Counter(dict.fromkeys(MODELS, app.predictions // len(MODELS)))

        send(app, 30)
        until(is_counted, what="everything is counted")
        first = places(processors)
        assert sorted(first) == sorted(MODELS)
        assert all(len(numbers) == 1 for numbers in first.values()), first
        assert {numbers[0] for numbers in first.values()} == {0, 1, 2}

        # One is killed: the others go on as if nothing were, and what is its own waits for it.
        killed = processors[1]
        killed.kill()
        send(app, 30)
        others = [model for model in MODELS if first[model] != [1]]
        others_up = [service for service in processors if service is not killed]
        until(
            lambda: all(counted(others_up)[model] == app.predictions // len(MODELS) for model in others),
            what="the others count on",
        )
        killed.start()
        until(is_counted, what="what waited is counted", deadline_s=60)
        assert places(processors) == first

        # One is added: a model that moves is counted on by its new processor, and none is counted twice.
        assert gateway.stop() == 0
        send(app, 10)
        gateway.configs = written(tmp_path, processors)
        gateway.start()
        send(app, 30)
        until(is_counted, what="everything is counted by four", deadline_s=60)
        moved = {model: numbers for model, numbers in places(processors).items() if numbers != first[model]}
        assert 0 < len(moved) < len(MODELS)
        assert agent.lost_points() == 0
        for name in ("receiver_refused_metric_points", "exporter_send_failed_metric_points"):
            assert agent.value(name, receiver="otlp") == 0
