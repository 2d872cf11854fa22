"""The page in a real Chromium: fourteen days, hostile names, and updates without being loaded again.

The demo's page is looked at in a light window of 1,280 px (`test_demo.py`), these in a dark one and in one of 360 px.
What a browser complains of, asks of others, or finds wider than its window is a fault; so is what axe-core calls
serious.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from otel_mlmon import semconv
from tests.support import browser
from tests.support.incidents import simulate_fortnight
from tests.support.pages import HOSTILE, hostile_fleet, serve_page
from tests.support.processes import processor

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PANE_S = 2 * 3_600
VIEWS = (("dark", 1280), ("light", 360))


def test_fourteen_days() -> None:
    with simulate_fortnight(start_ns=time.time_ns() - 14 * 86_400 * 10**9, pane_s=PANE_S) as simulated:
        overview = simulated.document()
        assert {alert["rule"] for alert in overview["alerts"]} == {"data_drift"}
        with serve_page(lambda: overview, simulated._pipeline.history) as address:
            seen = browser.crawl(address, views=VIEWS, most=14)
    assert seen.faults == [], "\n".join(seen.faults)
    assert seen.visited == {"dark 1280": 14, "light 360": 14}
    assert seen.axe_runs >= 2 * 6, seen.axe_runs


def test_hostile_names() -> None:
    with hostile_fleet() as (overview, history), serve_page(lambda: overview, history) as address:
        assert len(overview["versions"]) == len(HOSTILE)
        seen = browser.crawl(address, views=VIEWS, most=14)
    assert seen.faults == [], "\n".join(seen.faults)
    assert seen.visited == {"dark 1280": 14, "light 360": 14}


def test_a_page_shows_what_a_pane_changed_without_being_loaded_again(tmp_path: Path) -> None:
    with processor(tmp_path) as running:
        exporter = OTLPMetricExporter(endpoint=f"http://127.0.0.1:{running.grpc}", insecure=True)
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
        provider = MeterProvider([reader], shutdown_on_exit=False)
        counter = provider.get_meter(semconv.SCOPE).create_counter(semconv.PREDICTIONS.name)
        name = {semconv.MODEL_NAME: "shop", semconv.MODEL_VERSION: "7"}

        def predict() -> None:
            for _ in range(2):  # the first total of a series is where counting begins
                counter.add(100, {**name, semconv.PREDICTION_LABEL: "a"})
                assert provider.force_flush(30_000)

        seen = browser.watch(f"http://127.0.0.1:{running.web}", "/", "shop 7", predict)
        provider.shutdown(timeout_millis=5_000)
    assert seen.faults == [], "\n".join(seen.faults)
    assert seen.seconds is not None
