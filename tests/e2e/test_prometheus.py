"""Queries of the dashboards and rules of collector-config, by a real Prometheus that scrapes a real processor."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import httpx
import prometheus_client
import pytest
import yaml
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from otel_mlmon import semconv
from otel_mlmon.processor.serve.prometheus import build_prometheus_name
from tests.e2e.test_reference import loaded, trained
from tests.support.collector import CONFIGURATIONS, collector, sender
from tests.support.otlp_requests import counter, request
from tests.support.ports import free_port
from tests.support.processes import Processor, processor, until
from tests.support.programs import program
from tests.support.webhook_server import Answer, webhook_server

pytestmark = pytest.mark.e2e

RULES = CONFIGURATIONS / "prometheus" / "rules.yaml"
REMEDY = "apt-get install prometheus"
CALM = {"a": 40, "b": 30, "c": 20, "d": 10}
DRIFTED = {"a": 5, "b": 10, "c": 20, "d": 65}
NAME = {"ml.model.name": "shop", "ml.model.version": "7"}
LABELS = {"ml_model_name": "m", "ml_model_version": "7", "instance": "p"}
MODEL = ",".join(f'{key}="{value}"' for key, value in LABELS.items())
OF_A_COLLECTOR, OF_LABELLED_DATA, OF_FAULTS = "otelcol_", "ml_model_accuracy_estimated", "otel_mlmon_failures_total"
ABSENT = (OF_A_COLLECTOR, OF_LABELLED_DATA, OF_FAULTS)
"""Metrics that the processor of most tests here does not have; there are no faults to count in any."""


def run(*words: str | Path) -> str:
    """Runs a command that must succeed; returns what it prints."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_files() -> None:
    promtool = program("promtool", "apt-get install prometheus")
    assert "SUCCESS" in run(promtool, "check", "config", RULES.parent / "prometheus.yaml")


def test_promtool_finds_nothing_wrong_with_the_metrics_page(tmp_path: Path) -> None:
    promtool = program("promtool", "apt-get install prometheus")
    with processor(tmp_path, windows={"pane": "1s", "lateness": "0s", "rolling": "1m"}) as running:
        with sender(running.grpc) as app:
            app.send()
        until(lambda: running.stream("shop", "prediction.label"), what="the model is there")
        page = httpx.get(f"http://127.0.0.1:{running.web}/metrics", timeout=30).content
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_prometheus_rules_fire_when_they_should(tmp_path: Path) -> None:
    promtool = program("promtool", "apt-get install prometheus")
    queue = 'exporter="otlp_grpc/mlmon",instance="a"'
    lost = 'otelcol_exporter_enqueue_failed_metric_points{exporter="otlp_grpc/tap",instance="a"}'
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": 'up{job="otel-mlmon",instance="p"}', "values": "1 1 0x20"},
                    {"series": f"otelcol_exporter_queue_size{{{queue}}}", "values": "60x30"},
                    {"series": f"otelcol_exporter_queue_capacity{{{queue}}}", "values": "100x30"},
                    {"series": lost, "values": "0x5 2000x20"},
                    {"series": f'ml_alert_state{{{MODEL},ml_alert_rule="errors"}}', "values": "0 0 2x28"},
                    {"series": f'ml_drift_state{{{MODEL},ml_drift_stream="input.age"}}', "values": "1x9 5x20"},
                    {"series": f'ml_drift_state{{{MODEL},ml_drift_stream="input.sex"}}', "values": "0x30"},
                    {"series": f"ml_inference_duration_seconds_count{{{MODEL}}}", "values": "0+90x30"},
                    {"series": f'ml_inference_duration_seconds_count{{{MODEL},error_type="E"}}', "values": "0+10x30"},
                    {
                        "series": "otel_mlmon_processor_notifications_total"
                        '{notifier="w",instance="p",outcome="dead_letter.permanent"}',
                        "values": "0x5 3x25",
                    },
                ],
                "alert_rule_test": [
                    expected("2m", "MlmonProcessorAway"),
                    expected(
                        "10m",
                        "MlmonProcessorAway",
                        labels={"job": "otel-mlmon", "instance": "p"},
                        summary="Processor p does not answer.",
                    ),
                    expected(
                        "10m",
                        "MlmonQueueFilling",
                        labels={"exporter": "otlp_grpc/mlmon", "instance": "a"},
                        summary="The queue to otlp_grpc/mlmon on a is 60% full.",
                    ),
                    expected("4m", "MlmonTelemetryLost"),
                    expected("1m", "MlmonModelAlert"),
                    expected(
                        "3m",
                        "MlmonModelAlert",
                        labels={**LABELS, "ml_alert_rule": "errors"},
                        summary="Model m: the rule errors fires.",
                    ),
                    expected("12m", "MlmonModelNotJudged"),
                    expected(
                        "25m",
                        "MlmonModelNotJudged",
                        labels={**LABELS, "ml_drift_stream": "input.age"},
                        summary="Model m: input.age cannot be judged.",
                    ),
                    expected("4m", "MlmonNotificationsLost"),
                ],
                "promql_expr_test": [
                    recorded("5m", "model:ml_alert_state:firing", 1),
                    recorded("5m", "model:ml_drift_state:drift", 1),
                    recorded("10m", "model:ml_inference:rate5m", 100 / 60),
                    recorded("10m", "model:ml_inference_errors:ratio_rate5m", 0.1),
                ],
            }
        ],
    }
    rules = yaml.safe_load(RULES.read_text())
    descriptions = {
        rule["alert"]: rule["annotations"].get("description")
        for group in rules["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    for test in document["tests"][0]["alert_rule_test"]:  # type: ignore[index]
        for alert in test["exp_alerts"]:
            if descriptions[test["alertname"]]:
                alert["exp_annotations"]["description"] = descriptions[test["alertname"]].replace(
                    "{{ $labels.instance }}", "p"
                )
    path = tmp_path / "tests.yaml"
    path.write_text(json.dumps(document))
    assert "SUCCESS" in run(promtool, "test", "rules", path)


def expected(at: str, name: str, *, labels: dict[str, str] | None = None, summary: str = "") -> dict[str, Any]:
    alerts = (
        [{"exp_labels": {"severity": "warning", **labels}, "exp_annotations": {"summary": summary}}] if labels else []
    )
    return {"eval_time": at, "alertname": name, "exp_alerts": alerts}


def recorded(at: str, name: str, value: float) -> dict[str, Any]:
    sample = {"labels": f'{name}{{ml_model_name="m",ml_model_version="7"}}', "value": value}
    return {"eval_time": at, "expr": name, "exp_samples": [sample]}


def dashboard_queries() -> Iterator[str]:
    for path in sorted((CONFIGURATIONS / "grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "1m")
                yield expression.replace("$model", "shop").replace("$version", ".*")


def rule_queries() -> Iterator[str]:
    """Yields the queries of the rules; those of alerts without their bounds, as nothing is wrong here."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            expression = rule["expr"]
            yield expression if "record" in rule else re.sub(r" (==|>) [0-9.]+", "", expression)


def test_every_metric_of_the_queries_exists() -> None:
    known = {build_prometheus_name(metric) for metric in (*semconv.PROCESSOR_METRICS, *semconv.PROCESSOR_SELF_METRICS)}
    text = " ".join([*dashboard_queries(), RULES.read_text()])
    names = set(re.findall(r"\b(?:ml_drift|ml_alert|ml_model_accuracy|otel_mlmon)_[a-z_]+(?=[{\[\s)])", text))
    assert names - {"ml_drift_stream", "ml_alert_rule"} <= known
    assert len(names) > 8


class Application:
    """A model's metrics, sent to the processor over OTLP and scraped by Prometheus."""

    def __init__(self, grpc_port: int, name: Mapping[str, str] = NAME) -> None:
        self._name = name
        exporter = OTLPMetricExporter(endpoint=f"http://127.0.0.1:{grpc_port}", insecure=True)
        self._provider = MeterProvider(
            [PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf")), PrometheusMetricReader()],
            resource=Resource({"service.name": "shop", "service.instance.id": "1"}),
            shutdown_on_exit=False,
        )
        meter = self._provider.get_meter(semconv.SCOPE)
        self._predictions = meter.create_counter("ml.predictions")
        self._durations = meter.create_histogram("ml.inference.duration", "s")
        bounds = [step / 20 for step in range(21)]
        self._confidences = meter.create_histogram(
            "ml.prediction.confidence", "1", explicit_bucket_boundaries_advisory=bounds
        )
        self._values = meter.create_counter("ml.input.category")

    def predict(self, shares: dict[str, int]) -> None:
        for label, count in shares.items():
            self._predictions.add(count, {**self._name, "ml.prediction.label": label})
        for number in range(100):
            self._confidences.record(0.5 + number / 220, self._name)
            self._durations.record(0.01 + number / 5000, {**self._name, **({"error.type": "E"} if number == 0 else {})})
        assert self._provider.force_flush(10_000)

    def send_features(self, count: int) -> None:
        for number in range(count):
            attributes = {**self._name, "ml.feature.name": f"feature_{number}", "ml.feature.value": "x"}
            self._values.add(100, attributes)

    def close(self) -> None:
        self._provider.shutdown(timeout_millis=5_000)


@contextlib.contextmanager
def scraping(directory: Path, *targets: tuple[str, int]) -> Iterator[str]:
    """Runs a Prometheus with the rules on jobs at ports of loopback; gives its address."""
    jobs = [{"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for job, port in targets]
    path = directory / "prometheus.yaml"
    settings = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    path.write_text(json.dumps({"global": settings, "rule_files": [str(RULES)], "scrape_configs": jobs}))
    address = f"127.0.0.1:{free_port()}"
    words = [f"--config.file={path}", f"--storage.tsdb.path={directory / 'tsdb'}", f"--web.listen-address={address}"]
    with (directory / "prometheus.txt").open("w") as log:
        child = subprocess.Popen([program("prometheus", REMEDY), *words], stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        child.terminate()
        try:
            child.wait(timeout=30)
        finally:
            child.kill()


def query(address: str, expression: str) -> list[Any]:
    """Returns the series of a query that have a number; none while Prometheus starts."""
    try:
        answer = httpx.get(f"{address}/api/v1/query", params={"query": expression}, timeout=30)
    except httpx.TransportError:
        return []
    assert answer.status_code in (200, 503), (expression, answer.text)
    series = answer.json()["data"]["result"] if answer.status_code == 200 else []
    return [entry for entry in series if entry["value"][1] != "NaN"]


def is_firing(running: Processor) -> bool:
    return any(alert["state"] == "firing" for alert in running.get("/api/v1/alerts")["alerts"])


@pytest.mark.timeout(300)
def test_the_queries_whose_metrics_are_there_give_data(tmp_path: Path) -> None:
    program("prometheus", REMEDY)
    with webhook_server(Answer(status=400)) as hook:
        settings = {"limits": {"max_streams": 5}, "alerts": {"notify": [{"webhook": {"url": hook.url}}]}}
        with processor(tmp_path / "processor", **settings) as running:
            app = Application(running.grpc)
            server, thread = prometheus_client.start_http_server(0, "127.0.0.1")
            try:
                ports = (("otel-mlmon", running.web), ("shop", server.server_port))
                with scraping(tmp_path, *ports) as address:
                    run_queries(running, app, address)
            finally:
                server.shutdown()
                server.server_close()
                thread.join()
                app.close()


def run_queries(running: Processor, app: Application, address: str) -> None:
    """Feeds the processor until each query has given data, through calm and drift."""

    def has_learned() -> bool:
        app.predict(CALM)
        return (running.stream("shop", "prediction.label") or {"state": ""})["state"] in ("ok", "weak")

    def has_fired() -> bool:
        app.predict(DRIFTED)
        return is_firing(running)

    until(has_learned, what="the reference is learned", deadline_s=60)
    app.send_features(9)
    until(has_fired, what="an alert fires", deadline_s=60)
    missing = {
        expression
        for expression in (*dashboard_queries(), *rule_queries())
        if not any(name in expression for name in ABSENT)
    }
    assert len(missing) > 30

    def have_all() -> bool:
        app.predict(DRIFTED)
        missing.difference_update([expression for expression in missing if query(address, expression)])
        return not missing

    try:
        until(have_all, deadline_s=60)
    except AssertionError:
        pytest.fail("no data of:\n" + "\n".join(sorted(missing)))
    firing = query(address, 'ALERTS{alertname="MlmonModelAlert",alertstate="firing",ml_model_name="shop"}')
    assert {entry["metric"]["ml_alert_rule"] for entry in firing} >= {"prediction_drift"}


def test_rules_fire_after_the_first_refusal_and_the_first_rejection_of_a_processor(tmp_path: Path) -> None:
    program("prometheus", REMEDY)

    def firing(name: str) -> set[str]:
        alerts = query(address, f'ALERTS{{alertname="{name}",alertstate="firing"}}')
        return {entry["metric"]["reason"] for entry in alerts}

    with processor(tmp_path / "processor") as running, scraping(tmp_path, ("otel-mlmon", running.web)) as address:
        until(lambda: query(address, "count_over_time(otel_mlmon_processor_requests_refused_total[1m]) > 2"))
        until(lambda: query(address, "count_over_time(otel_mlmon_processor_rejected_points_total[1m]) > 2"))
        assert firing("MlmonRequestsLost") | firing("MlmonPointsRejected") == set()
        post = f"http://127.0.0.1:{running.http}/v1/metrics"
        assert httpx.post(post, content=b"", headers={"content-type": "text/plain"}).status_code == 415
        body = request("ml.predictions", "gauge", counter(1)).SerializeToString()
        assert httpx.post(post, content=body, headers={"content-type": "application/x-protobuf"}).content
        until(lambda: firing("MlmonRequestsLost") == {"unsupported"}, deadline_s=60)
        until(lambda: firing("MlmonPointsRejected") == {"wrong_type"}, deadline_s=60)


SHORT_OF_MEMORY = {
    "processors": {"memory_limiter/mlmon": {"check_interval": "1s", "limit_mib": 2, "spike_limit_mib": 1}}
}


@contextlib.contextmanager
def unwilling_server() -> Iterator[str]:
    """Runs a gRPC server that knows no method, so that a Collector gives up what it sends; gives its address."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(30)


@pytest.mark.timeout(300)
def test_the_queries_of_labelled_data_and_of_a_collector_that_loses_give_data(tmp_path: Path) -> None:
    program("prometheus", REMEDY)
    reference = trained(tmp_path)
    shortage = tmp_path / "shortage.yaml"
    shortage.write_text(json.dumps(SHORT_OF_MEMORY))
    missing = {
        expression.replace("shop", "insects")
        for expression in (*dashboard_queries(), *rule_queries())
        if OF_A_COLLECTOR in expression or OF_LABELLED_DATA in expression
    }
    assert len(missing) >= 7
    with (
        unwilling_server() as address_of_none,
        processor(tmp_path / "processor") as running,
        collector(
            tmp_path / "collector",
            "127.0.0.1:9",
            configs=(CONFIGURATIONS / "agent.yaml", shortage),
            environ={"MLMON_ENDPOINT": address_of_none},
        ) as agent,
        scraping(tmp_path, ("otel-mlmon", running.web), ("collector", agent.metrics)) as address,
        sender(agent.grpc) as outside,
        sender(agent.tap) as inside,
    ):
        post = f"http://127.0.0.1:{running.http}/v1/logs"
        headers = {"content-type": "application/x-protobuf"}
        assert httpx.post(post, content=loaded(reference), headers=headers).status_code == 200
        app = Application(running.grpc, {"ml.model.name": "insects", "ml.model.version": "4"})

        def have_all() -> bool:
            app.predict({"ant": 34, "bee": 33, "cow": 33})
            outside.send()
            inside.send()
            missing.difference_update([expression for expression in missing if query(address, expression)])
            return not missing

        try:
            until(have_all, deadline_s=60)
        except AssertionError:
            pytest.fail("no data of:\n" + "\n".join(sorted(missing)))
        finally:
            app.close()
        until(lambda: query(address, 'ALERTS{alertname="MlmonTelemetryLost",alertstate="firing"}'), deadline_s=60)
        until(lambda: query(address, 'ALERTS{alertname="MlmonTelemetryShed",alertstate="firing"}'), deadline_s=60)
